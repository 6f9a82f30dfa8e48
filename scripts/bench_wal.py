#!/usr/bin/env python3
"""The road of WAL: archiving into a directory and into a bucket behind a network, and recovering out of them.

Part of bench.py, which has the server and the tools.
"""

import json
import shutil
import statistics
import subprocess
import sys
import time

import bench

# One way, in milliseconds; a request takes twice that, beside its work.
LATENCIES = (0, 5, 20)


class Bucket:
    """The S3 server of the measurements, in a process of its own."""

    def __init__(self, place, one_way):
        self.name = f"S3, {one_way} ms each way"
        words = [str(place / "bin/s3-server"), str(2 * one_way)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.place = json.loads(self.process.stdout.readline())

    def settings(self):
        return (
            f'path = "s3://{self.place["bucket"]}/pg"\ns3_endpoint = "{self.place["endpoint"]}"\n'
            f's3_credentials_file = "{self.place["credentials"]}"\n'
        )

    def asked(self):
        """Requests by kind since the last call."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())["requests"]

    def cpu(self):
        return bench.processes()[self.process.pid][1]

    def stop(self):
        self.process.stdin.close()
        self.process.wait(60)


class InBucket(bench.Pitr):
    """pitr with its repository in a bucket."""

    def __init__(self, server, bucket):
        super().__init__(server)
        self.bucket, self.name = bucket, bucket.name

    def repository_settings(self):
        return self.bucket.settings()


class Local(bench.Tool):
    """No archive: all segments lie in pg_wal already."""

    name, short = "pg_wal, nothing fetched", "local"


def make_base(server, segments):
    """A stopped copy of the cluster, and so many segments behind it, which become the backlog."""
    server.start("archive_timeout=0")
    server.archive_with("/bin/true")
    server.sql("SELECT pg_switch_wal()")
    server.stop_clean()
    base = server.place / "base"
    shutil.rmtree(base, ignore_errors=True)
    shutil.copytree(server.data, base, symlinks=True, ignore=shutil.ignore_patterns("archive_status", "postmaster.pid"))
    (base / "pg_wal/archive_status").mkdir()
    server.start("archive_timeout=0")
    server.archive_with("")
    first = server.sql("SELECT pg_walfile_name(pg_switch_wal())")
    bench.say(f"writing {segments} segments of pgbench's WAL")
    while len(written := server.segments_from(first)) < segments:
        bench.run([server.tools / "pgbench", "-n", "-c", 4, "-j", 2, "-T", 5])
    # From the end of the base on, so that recovery finds all of it, up to where the last one begins.
    written = [first, *written]
    end = f"{int(written[-1][8:16], 16):X}/{int(written[-1][16:], 16) * bench.SEGMENT_BYTES:X}"
    server.stop()
    server.backlog_list.write_text("\n".join(written) + "\n")
    for name in server.ready():
        server.mark(name, done=True)
    return base, written, end


def recover(server, tool, base, end):
    """Seconds that a server needs to recover the base to the end."""
    target = server.place / "recovered"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(base, target, symlinks=True)
    if isinstance(tool, Local):
        for name in server.backlog():
            shutil.copy(server.data / "pg_wal" / name, target / "pg_wal" / name)
        command = "/bin/false"
    else:
        command = f"{tool.program('pitr-wal-fetch')} --config {tool.config} %f %p"
    (target / "recovery.signal").touch()
    with open(target / "postgresql.auto.conf", "a", encoding="utf-8") as file:
        file.write(
            f"restore_command = '{command}'\narchive_mode = off\nrecovery_target_lsn = '{end}'\n"
            "recovery_target_action = shutdown\nrecovery_target_timeline = 1\nhot_standby = off\n"
        )
    bench.run(["sync"])
    log = server.place / "recovery.log"
    words = [str(server.bin / "postgres"), "-D", str(target), "-k", str(server.socket), "-p", "5433"]
    begun = time.monotonic()
    with open(log, "wb") as out:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        process.wait(bench.PATIENCE_SECONDS)
    took = time.monotonic() - begun
    if "recovery stopping" not in log.read_text(errors="replace"):
        sys.exit(f"{tool.name}: the recovery did not reach its end: see {log}")
    bench.let_orphans_end()
    shutil.rmtree(target)
    return took


def measure_wal(server, options):
    """The part of the report."""
    base, written, end = make_base(server, options.segments)
    local = Local(server)
    rows, recovered = [], {local.name: []}
    stores = [None, *LATENCIES]
    tools = []
    for latency in stores:
        bucket = None if latency is None else Bucket(server.place, latency)
        tool = bench.Pitr(server) if bucket is None else InBucket(server, bucket)
        tool.name = "directory" if bucket is None else bucket.name
        tool.home = server.place / f"wal-{'directory' if bucket is None else latency}"
        tool.repository = tool.home / "repository"
        tools.append(tool)
        walls, cpus, peak, requests = [], [], 0, {}
        for number in range(options.repeat + 1):
            if bucket is not None:
                bucket.stop()
                bucket = tool.bucket = Bucket(server.place, latency)
            server.start("archive_timeout=0")
            server.archive_with("")
            tool.fresh()
            if bucket:
                bucket.asked()
            before = bench.cpu_seconds() - (bucket.cpu() if bucket else 0)
            if number == options.repeat:
                # The last round is for memory alone, since looking costs time.
                with bench.MemoryWatch(0.002, {"s3-server"}) as watch:
                    bench.drain(server, tool)
                peak = watch.peak_kib / 1024
            else:
                walls.append(bench.drain(server, tool))
                bench.let_orphans_end()
                cpus.append(bench.cpu_seconds() - before - (bucket.cpu() if bucket else 0))
                bench.say(f"drain, {tool.name}: {walls[-1]:.2f} s, {cpus[-1]:.2f} s CPU")
            if bucket:
                requests = bucket.asked()
            server.stop()
        count = len(written)
        asked = ", ".join(f"{n / count:.2f} {kind}" for kind, n in sorted(requests.items())) or "–"
        wall, cpu = statistics.median(walls), statistics.median(cpus)
        rows.append(
            f"| {tool.name} | {count / wall:.1f} ({count / max(walls):.1f}–{count / min(walls):.1f}) "
            f"| {1000 * cpu / count:.1f} | {peak:.0f} | {asked} |"
        )
        recovered[tool.name] = []
    asked = {}
    for _ in range(options.repeat):
        for tool in [local, *tools]:
            took = recover(server, tool, base, end)
            recovered[tool.name].append(took)
            if isinstance(tool, InBucket):
                asked[tool.name] = tool.bucket.asked()
            bench.say(f"recovery, {tool.name}: {took:.2f} s")
    for tool in tools:
        if isinstance(tool, InBucket):
            tool.bucket.stop()
        shutil.rmtree(tool.home, ignore_errors=True)
    shutil.rmtree(base)
    lines = [
        "## The road of WAL\n",
        f"{len(written)} segments of pgbench's WAL, drained by the real archiver, and replayed by a recovery; medians of "
        f"{options.repeat} rounds. The bucket is that of a server in memory on the same two processors, whose CPU time is not "
        f"counted. By `scripts/bench wal`, {bench.machine()}.\n",
        "| archiving into | segments/s (range) | CPU ms a segment | largest process MiB | requests a segment |",
        "|---|---|---|---|---|",
        *rows,
        "\n| recovery from | s (range) | of the speed with all of it in pg_wal | requests a segment |",
        "|---|---|---|---|",
    ]
    reference = statistics.median(recovered[local.name])
    for name, walls in recovered.items():
        wall = statistics.median(walls)
        per = ", ".join(f"{n / len(written):.2f} {kind}" for kind, n in sorted(asked.get(name, {}).items())) or "–"
        lines.append(f"| {name} | {wall:.2f} ({min(walls):.2f}–{max(walls):.2f}) | {reference / wall:.2f} | {per} |")
    return "\n".join(lines) + "\n"
