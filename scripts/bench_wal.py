#!/usr/bin/env python3
"""The road of WAL: archiving into a directory and into a bucket behind a network, and recovering out of them, beside the peers.

Part of bench.py, which has the server. The archivers are in bench_peers.py, single calls in bench_calls.py.
"""

import filecmp
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import time

import bench
import bench_calls
import bench_peers
from bench_peers import PgBackRest, Pitr, Store

# One way, in milliseconds.
LATENCIES = (0, 5, 20)
# Memory is looked at while so many segments are archived: looking costs time, and more of them take no more memory.
FOR_MEMORY = 60


class Local(bench.Tool):
    """No archive: all segments lie in pg_wal already."""

    name, short = "pg_wal, nothing fetched", "local"


def make_base(server, segments):
    """A stopped copy of the cluster, and so many segments behind it, which become the backlog."""
    server.start("archive_timeout=0")
    server.archive_with("/bin/true")
    server.sql("SELECT pg_switch_wal()")
    current = server.sql("SELECT pg_walfile_name(pg_current_wal_lsn())")
    server.stop_clean()
    # What earlier runs wrote is in nobody's way any more.
    for file in (server.data / "pg_wal").glob("0000*"):
        if file.name < current:
            file.unlink()
            for state in ("ready", "done"):
                (server.status() / f"{file.name}.{state}").unlink(missing_ok=True)
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
    written = [first, *written][:segments + 1]
    end = f"{int(written[-1][8:16], 16):X}/{int(written[-1][16:], 16) * bench.SEGMENT_BYTES:X}"
    server.stop()
    server.backlog_list.write_text("\n".join(written) + "\n")
    for name in server.ready():
        server.mark(name, done=True)
    return base, written, end


# Draining -------------------------------------------------------------------------------------------------------------


class Drained:
    """What one tool needed for one store, over the rounds."""

    def __init__(self, count):
        self.count, self.walls, self.cpus, self.peak, self.requests = count, [], [], 0, {}

    def speed(self):
        return self.count / statistics.median(self.walls)

    def cpu(self):
        return 1000 * statistics.median(self.cpus) / self.count


def prove(server, tool, segments):
    """The archive gives back what went in."""
    target = tool.home / "fetched" / "RECOVERYXLOG"
    target.parent.mkdir(exist_ok=True)
    for name in segments:
        target.unlink(missing_ok=True)
        bench.run(tool.fetch(name, target, alone=True), cwd=server.data)
        if not filecmp.cmp(target, server.data / "pg_wal" / name, shallow=False):
            sys.exit(f"{tool.name}, {tool.store.name}: {name} does not come back as it was")


def drain_once(server, tool, result, for_memory=False):
    """Sets the tool up, lets it drain the backlog, and looks whether all of that is in the archive."""
    count = min(result.count, FOR_MEMORY) if for_memory else result.count
    tool.bucket = tool.store.open(server.place)
    tool.fresh()
    os.sync()
    if tool.bucket:
        tool.bucket.asked()
    before = bench.cpu_seconds() - (tool.bucket.cpu() if tool.bucket else 0)
    if for_memory:
        with bench.MemoryWatch(0.002, {"s3-server"}) as watch:
            bench.drain(server, tool, count)
        result.peak = watch.peak_kib / 1024
    else:
        result.walls.append(bench.drain(server, tool, count))
    bench.let_orphans_end()
    spent = bench.cpu_seconds() - before - (tool.bucket.cpu() if tool.bucket else 0)
    if not for_memory:
        result.cpus.append(spent)
        result.requests = tool.bucket.asked() if tool.bucket else {}
        bench.say(f"drain, {tool.store.name}, {tool.name}: {result.walls[-1]:.2f} s, {spent:.2f} s CPU, {count} segments")
    lacks = tool.lacks(server.backlog()[:count])
    if lacks:
        sys.exit(f"{tool.name}, {tool.store.name}: {len(lacks)} segments are not in the archive: {lacks[:3]}")


def measure_drains(server, options, stores):
    """{store: {tool: Drained}}; tools and stores take turns within a round."""
    results = {
        store: {tool: Drained(min(tool.share or len(server.backlog()), len(server.backlog()))) for tool in tools}
        for store, tools in stores.items()
    }
    for number in range(options.repeat + 1):
        for store, tools in stores.items():
            for tool in tools:
                for_memory = number == options.repeat
                if not for_memory and number >= (tool.rounds or options.repeat):
                    continue
                result = results[store][tool]
                drain_once(server, tool, result, for_memory)
                if number == 0:
                    there = server.backlog()[:result.count]
                    prove(server, tool, there if options.prove else random.sample(there, min(3, len(there))))
                bench_peers.clean(tool)
    return results


def table_of_drains(store, results):
    """One store's part of the report."""
    def best(choose, of, peer=None):
        found = [of(result) for tool, result in results.items() if tool.peer and (peer is None or tool.peer == peer)]
        return choose(found) if found else None

    fastest, least = best(max, Drained.speed), best(min, Drained.cpu)
    lines = [
        f"\nDraining into {'a directory' if store.one_way is None else store.name}.\n",
        "| tool | segments/s (range) | to the best peer | CPU ms a segment | to the best peer | largest process MiB | requests a segment |",
        "|---|---|---|---|---|---|---|",
    ]
    for tool, result in results.items():
        speeds = sorted(result.count / wall for wall in result.walls)
        asked = ", ".join(f"{n / result.count:.2f} {kind}" for kind, n in sorted(result.requests.items())) or "–"
        ratios = [f"{mine / of:.2f}" if of else "–" for mine, of in ((result.speed(), fastest), (result.cpu(), least))]
        lines.append(
            f"| {tool.name} | {result.speed():.1f} ({speeds[0]:.1f}–{speeds[-1]:.1f}) | {ratios[0]} | {result.cpu():.1f} "
            f"| {ratios[1]} | {result.peak:.0f} | {asked} |"
        )
    ours = next((result for tool, result in results.items() if tool.short == "pitr"), None)
    words = []
    for peer in dict.fromkeys(tool.peer for tool in results if tool.peer) if ours else ():
        speed, cpu = ours.speed() / best(max, Drained.speed, peer), ours.cpu() / best(min, Drained.cpu, peer)
        words.append(f"{speed:.2f} of {peer}'s best speed at {cpu:.2f} of its least CPU time")
    if words:
        lines.append("\npitr: " + "; ".join(words) + ".")
    return lines


# Recovering -----------------------------------------------------------------------------------------------------------


def stopped_at(log, end):
    """Whether a recovery ended where it should: with the first record that begins there or later, in the same segment."""
    def number(text):
        high, low = text.split("/")
        return int(high, 16) << 32 | int(low, 16)

    found = re.search(r'recovery stopping after WAL location \(LSN\) "([0-9A-F/]+)"', log)
    return found is not None and 0 <= number(found[1]) - number(end) < bench.SEGMENT_BYTES


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
        command = tool.restore_command(target)
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
    if not stopped_at(log.read_text(errors="replace"), end):
        sys.exit(f"{tool.name}: the recovery did not reach its end: see {log}")
    bench.let_orphans_end()
    shutil.rmtree(target)
    return took


def measure_recovery(server, options, kinds, base, end):
    """The table of recoveries, in interleaved rounds."""
    local = Local(server)
    tools = []
    for store in (Store(), *(Store(latency) for latency in LATENCIES)):
        for kind in (Pitr, PgBackRest):
            if kind not in kinds or (kind is PgBackRest and store.one_way not in (None, LATENCIES[-1])):
                continue
            tool = kind(server)
            tool.store, tool.bucket = store, store.open(server.place)
            tool.home = server.place / f"{tool.short}-{store.one_way}"
            tool.repository = tool.home / "repository"
            tools.append(tool)
            server.start("archive_timeout=0")
            server.archive_with("")
            tool.fresh()
            bench.drain(server, tool)
            bench.let_orphans_end()
            server.stop()
            if tool.bucket:
                tool.bucket.asked()
    walls, asked = {tool: [] for tool in (local, *tools)}, {}
    for _ in range(options.repeat):
        for tool, took in walls.items():
            took.append(recover(server, tool, base, end))
            name = tool.name
            if tool is not local:
                name = f"{tool.name}, {tool.store.name}"
                asked[tool] = tool.bucket.asked() if tool.bucket else {}
            bench.say(f"recovery, {name}: {took[-1]:.2f} s")
    for tool in tools:
        bench_peers.clean(tool)
    count = len(server.backlog())
    lines = [
        "\n| recovery from | s (range) | of the speed with all of it in pg_wal | requests a segment |",
        "|---|---|---|---|",
    ]
    reference = statistics.median(walls[local])
    for tool, took in walls.items():
        name = tool.name if tool is local else f"{tool.store.name}, {tool.name}"
        per = ", ".join(f"{n / count:.2f} {kind}" for kind, n in sorted(asked.get(tool, {}).items())) or "–"
        wall = statistics.median(took)
        lines.append(f"| {name} | {wall:.2f} ({min(took):.2f}–{max(took):.2f}) | {reference / wall:.2f} | {per} |")
    return lines


# The report -----------------------------------------------------------------------------------------------------------


def measure_wal(server, options):
    """The part of the report."""
    kinds = [kind for kind in bench_peers.available(server) if kind.short not in options.without]
    begun = time.monotonic()
    base, written, end = make_base(server, options.segments)
    stores = [Store(), *(Store(latency) for latency in LATENCIES), Store(LATENCIES[-1], secure=False)]
    stores = {store: bench_peers.tools_for(server, kinds, store) for store in stores}
    lines = [
        "## The road of WAL\n",
        f"{len(written)} segments of pgbench's WAL, LZ4 by all; medians of {options.repeat} rounds in which tools and stores take "
        "turns; of the slowest tools fewer segments. The bucket is that of a server in memory on the same processors, over TLS "
        "unless it says otherwise; its CPU time is not counted, that of all other processes is, PostgreSQL's archiver included. "
        "Bytes take the time given in each direction, and a new connection a round trip. "
        f"By `scripts/bench wal --segments {options.segments} --repeat {options.repeat}`: {bench.machine()}; PostgreSQL {server.version()}, "
        f"{', '.join(bench_peers.versions(server, kinds))}.",
    ]
    if {"drain", "calls"} & set(options.parts):
        server.start("archive_timeout=0")
        server.archive_with("")
        if "drain" in options.parts:
            for store, results in measure_drains(server, options, stores).items():
                lines += table_of_drains(store, results)
        if "calls" in options.parts:
            measured = [(store, tools) for store, tools in stores.items() if store.secure and store.one_way in (None, LATENCIES[-1])]
            lines += bench_calls.measure_calls(server, measured)
        server.stop()
    if "recovery" in options.parts:
        lines += measure_recovery(server, options, kinds, base, end)
    shutil.rmtree(base)
    bench.say(f"all of that took {(time.monotonic() - begun) / 60:.1f} minutes")
    return "\n".join(lines) + "\n"
