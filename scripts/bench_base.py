#!/usr/bin/env python3
"""Base backups beside the peers: full and incremental ones, restore into nothing and over an old copy, and verify.

Part of bench.py, which has the server; what a tool is called with is in bench_base_tools.py.

Each tool has a life of its own in each round, in which it takes all steps on one repository, and nothing of it is left afterwards:
a full backup, verify, a restore; then some pages change; an incremental backup, a restore over what the first one left (it lacks
the changed pages), and a restore of it into nothing. What is not asked for and not needed is left out. In the first round
what was restored is compared with the server's files, page by page.
"""

import filecmp
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import threading
import time

import bench
import bench_base_tools
import bench_peers
from bench_peers import Store

# Milliseconds each way to the bucket.
ONE_WAY = 5
# Of the heap's pages, how many change between backups.
SHARE_CHANGED = 0.02
# Room in the heap's pages, so that an update changes its page and no other.
FILLFACTOR = 90
PAGE_BYTES = 8192
BYTES_OF_SCALE = 17_000_000
# WAL lies below these in the repositories of the tools.
WAL_DIRECTORIES = {"wal", "archive", "wal_005"}
RELATION_FILE = re.compile(r"\d+(\.\d+)?")

TITLES = {
    "full": "Full backup",
    "incremental": "Incremental backup",
    "restore": "Restore of a full backup into an empty directory",
    "chain": "Restore of an incremental backup into an empty directory",
    "delta": "Restore over a directory that lacks the changed pages",
    "verify": "Verify, after a full backup",
}


# One step of one tool -------------------------------------------------------------------------------------------------


class Cost:
    """What one run of a command took. Seconds, KiB, bytes."""

    def __init__(self):
        self.wall, self.cpu, self.server_cpu = 0.0, 0.0, 0.0
        self.largest_kib, self.all_kib = 0, 0
        self.stored, self.objects, self.requests = 0, 0, {}
        self.changed = 0


class Failed(Exception):
    """The tool ended with an error; its last words."""


def stored(tool):
    """{name: bytes} of what lies in the repository, WAL aside."""
    if tool.bucket:
        sizes = tool.bucket.sizes()
    else:
        found = (file for file in tool.repository.rglob("*") if file.is_file())
        sizes = {str(file.relative_to(tool.repository)): file.stat().st_size for file in found}
    return {name: size for name, size in sizes.items() if not WAL_DIRECTORIES & set(name.split("/")[:-1])}


def ended_cpu():
    """CPU seconds of processes that were our children and have ended, and of theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def living_cpu(tool):
    """CPU seconds of those that go on: the server, its archiver, a daemon of the tool; not the bucket's."""
    return sum(cpu for _, cpu in bench.processes().values()) - (tool.bucket.cpu() if tool.bucket else 0)


def spend(server, tool, part, words):
    """Runs a command to its end, and until what it wrote to this disk is durable."""
    cost = Cost()
    is_storing = part in ("full", "incremental")
    is_writing = part != "verify" and not (is_storing and tool.bucket)
    before = stored(tool) if is_storing else {}
    os.sync()
    if tool.bucket:
        tool.bucket.asked()
    log = server.place / "command.log"
    ended, living = ended_cpu(), living_cpu(tool)
    begun = time.monotonic()
    with open(log, "wb") as out:
        process = subprocess.Popen([str(word) for word in words], stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    patience = threading.Timer(bench.PATIENCE_SECONDS, process.kill)
    patience.start()
    with bench.MemoryWatch(0.05, command=process.pid) as watch:
        _, status, usage = os.wait4(process.pid, 0)
    patience.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    if is_writing:
        os.sync()
    cost.wall = time.monotonic() - begun
    bench.let_orphans_end()
    cost.cpu, cost.server_cpu = ended_cpu() - ended, max(0.0, living_cpu(tool) - living)
    # The kernel counts what this process had when it began the command: smaller ones were looked at only.
    exact = usage.ru_maxrss if usage.ru_maxrss > resource.getrusage(resource.RUSAGE_SELF).ru_maxrss else 0
    cost.largest_kib = max(watch.peak_kib, exact)
    cost.all_kib = max(watch.sum_kib, cost.largest_kib)
    cost.requests = tool.bucket.asked() if tool.bucket else {}
    output = log.read_text(errors="replace").strip()
    if process.returncode != 0:
        lines = output.splitlines() or ["(no words)"]
        raise Failed(f"status {process.returncode}: {next((line for line in lines if 'ERROR' in line), lines[-1])}")
    if complaint := tool.complaint(part, output):
        raise Failed(complaint)
    if is_storing:
        new = [size for name, size in stored(tool).items() if before.get(name) != size]
        cost.stored, cost.objects = sum(new), len(new)
    return cost


# What happens to the cluster ------------------------------------------------------------------------------------------


def start(server):
    """The server, with nothing to do and no WAL left from before."""
    summaries = ["summarize_wal=on"] if server.major >= 17 else []
    server.start("archive_timeout=0", "wal_keep_size=0", "max_wal_size=1GB", *summaries)
    server.archive_with("/bin/true")
    # Sets what readers would otherwise set in pages later.
    server.sql("VACUUM")
    settle(server)
    server.sql("CHECKPOINT")


def settle(server):
    """All WAL so far is in the archive."""
    server.sql("SELECT pg_switch_wal()")
    begun = time.monotonic()
    while server.ready():
        if time.monotonic() - begun > bench.PATIENCE_SECONDS:
            sys.exit("the archiver does not get done: see server.log")
        time.sleep(0.05)


def change(server, options, number):
    """Changes scattered pages, the same ones in one round; gives the bytes of all pages that changed."""
    since = server.sql("SELECT pg_current_wal_insert_lsn()")
    pages = int(server.sql("SELECT pg_relation_size('pgbench_accounts')")) // PAGE_BYTES
    server.sql(
        f"SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SELECT setseed({number / 1000}); "
        "UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid IN (SELECT "
        f"(1 + floor(random() * {options.scale * 100000}))::int FROM generate_series(1, {round(pages * SHARE_CHANGED)}))"
    )
    server.sql("CHECKPOINT")
    settle(server)
    return changed_bytes(server, since)


def relation_files(directory):
    return [file for file in sorted((directory / "base").glob("*/*")) if RELATION_FILE.fullmatch(file.name)]


def changed_bytes(server, since):
    """Of all pages whose last WAL record is newer than that."""
    high, low = (int(half, 16) for half in since.split("/"))
    count = 0
    for file in relation_files(server.data):
        with open(file, "rb") as pages:
            while piece := pages.read(128 * PAGE_BYTES):
                # Each page begins with the LSN: two numbers, the high half first.
                words = memoryview(piece).cast("I")
                step = PAGE_BYTES // 4
                count += sum(lsn > (high, low) for lsn in zip(words[0::step].tolist(), words[1::step].tolist()))
    return count * PAGE_BYTES


def prove(server, tool, target):
    """What was restored are the server's files."""
    for file in relation_files(server.data):
        copy = target / file.relative_to(server.data)
        if not copy.exists() or not filecmp.cmp(file, copy, shallow=False):
            sys.exit(f"{tool.name}, {tool.store.name}: {copy} is not the server's file")


# A life ---------------------------------------------------------------------------------------------------------------


class Life:
    """One tool, one store, one round."""

    def __init__(self, server, tool, options, number, results):
        self.server, self.tool, self.options, self.number, self.results = server, tool, options, number, results
        self.target = server.place / "restored"
        self.changed = 0

    def wants(self, *parts):
        return any(part in self.options.parts and part in self.tool.does for part in parts)

    def step(self, part, words, asked_for=None):
        """A step; what it took counts if it was asked for."""
        if words is None:
            return
        counts = self.wants(asked_for or part)
        tool, where = self.tool, f"{part}, {self.tool.store.name}, {self.tool.name}"
        try:
            cost = spend(self.server, tool, part, words)
        except Failed as failure:
            bench.say(f"{where}: {failure}")
            if counts:
                self.results.setdefault(part, {}).setdefault((tool.store.name, tool), []).append(str(failure))
            if counts and part == "verify":
                return
            raise
        cost.changed = self.changed
        if counts:
            bench.say(f"{where}: {cost.wall:.2f} s, {cost.cpu:.2f} s CPU and {cost.server_cpu:.2f} s PostgreSQL's")
            self.results.setdefault(part, {}).setdefault((tool.store.name, tool), []).append(cost)

    def restore(self, part, words, is_onto_nothing=True, asked_for=None):
        if words is None:
            return
        if is_onto_nothing:
            shutil.rmtree(self.target, ignore_errors=True)
            self.target.mkdir(mode=0o700)
        self.step(part, words, asked_for)
        if self.number == 0:
            prove(self.server, self.tool, self.target)

    def run(self):
        server, tool = self.server, self.tool
        tool.bucket = tool.store.open(server.place)
        try:
            tool.fresh()
            server.archive_with(tool.archive_command())
            self.step("full", tool.full())
            settle(server)
            if self.wants("verify"):
                self.step("verify", tool.verify())
            if self.wants("restore", "delta"):
                self.restore("restore", tool.restore(self.target))
            if self.wants("incremental", "delta", "chain"):
                self.changed = change(server, self.options, self.number)
                self.step("incremental", tool.incremental())
                tool.check_incremental(stored(tool))
                settle(server)
                if self.wants("delta"):
                    self.restore("delta", tool.delta(self.target), is_onto_nothing=False)
                if self.wants("chain"):
                    self.restore("chain", tool.restore(self.target))
        except Failed:
            bench.say(f"{tool.name}: nothing more of it in this round")
        finally:
            server.archive_with("/bin/true")
            bench_peers.clean(tool)
            shutil.rmtree(self.target, ignore_errors=True)


# The report -----------------------------------------------------------------------------------------------------------


def middle(costs, of):
    return statistics.median(of(cost) for cost in costs)


def wall(cost):
    return cost.wall


def cpu(cost):
    return cost.cpu + cost.server_cpu


def size(cost):
    return cost.stored


def best(rows, store, of, peer=None):
    """The least that a peer needs in a store, or nothing."""
    found = [
        middle(costs, of)
        for (where, tool), costs in rows.items()
        if where == store and tool.peer and (peer is None or tool.peer == peer)
    ]
    return min(found, default=None)


def ratio(mine, of):
    return f"{mine / of:.2f}" if mine and of else "–"


def row(part, rows, store, tool, costs):
    """A line of a table."""
    walls = [cost.wall for cost in costs]
    cells = [
        store, tool.name, f"{statistics.median(walls):.2f} ({min(walls):.2f}–{max(walls):.2f})",
        ratio(statistics.median(walls), best(rows, store, wall)), f"{middle(costs, cpu):.2f}",
        f"{middle(costs, lambda cost: cost.server_cpu):.2f}", ratio(middle(costs, cpu), best(rows, store, cpu)),
        f"{max(cost.largest_kib for cost in costs) / 1024:.0f}", f"{max(cost.all_kib for cost in costs) / 1024:.0f}",
    ]
    if part in ("full", "incremental"):
        bytes_stored = middle(costs, size)
        cells += [
            f"{bytes_stored / 1e6:.1f}" if bytes_stored else "–", ratio(bytes_stored, best(rows, store, size)),
            f"{middle(costs, lambda cost: cost.objects):.0f}",
        ]
    if part == "incremental":
        cells.append(ratio(middle(costs, size), middle(costs, lambda cost: cost.changed)))
    asked = costs[-1].requests
    cells.append(", ".join(f"{count} {kind}" for kind, count in sorted(asked.items())) or "–")
    return f"| {' | '.join(cells)} |"


def table(part, results):
    """A table with all stores and tools, and where pitr stands beside each peer."""
    heads = ["store", "tool", "wall s (range)", "to the best peer", "CPU s", "of that PostgreSQL's", "to the best peer", "largest process MiB", "all processes MiB"]
    if part in ("full", "incremental"):
        heads += ["stored MB", "to the best peer", "objects"]
    if part == "incremental":
        heads.append("stored / changed")
    heads.append("requests")
    failures = {key: next(cost for cost in costs if isinstance(cost, str)) for key, costs in results.items() if any(isinstance(cost, str) for cost in costs)}
    stores = list(dict.fromkeys(store for store, _ in results))
    rows = {key: results[key] for key in sorted(results, key=lambda key: stores.index(key[0])) if key not in failures}
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    lines += [row(part, rows, store, tool, costs) for (store, tool), costs in rows.items()]
    for (store, tool), costs in rows.items():
        if tool.short != "pitr":
            continue
        for peer in dict.fromkeys(other.peer for where, other in rows if where == store and other.peer):
            walls, cpus = ratio(middle(costs, wall), best(rows, store, wall, peer)), ratio(middle(costs, cpu), best(rows, store, cpu, peer))
            lines.append(f"\npitr, {store}: {walls} of {peer}'s least wall time at {cpus} of its least CPU time.")
    lines += [f"\n{tool.name}, {store}, fails: {failure}" for (store, tool), failure in failures.items()]
    return lines


def need_room(options):
    """Ends it early where the disk is too small: the cluster, its WAL, what is restored, and the largest repository."""
    data = options.scale * BYTES_OF_SCALE
    plain = 1.1 if max(options.majors) >= 17 and "directory" in options.stores else 0.5
    need = int((2 + plain) * data) + (4 << 30)
    there = bench.bytes_below(options.place / "cluster") if (options.place / "cluster").exists() else 0
    free = shutil.disk_usage(options.place).free + there
    bench.say(f"needs about {need / 1e9:.0f} GB below {options.place} ({free / 1e9:.0f} GB are free or the old cluster's)")
    if free < need:
        sys.exit("the disk is too small for that: choose a smaller --scale, or another PITR_BENCH_DIR")


def measure_major(options, major):
    """Part of the report: one version of PostgreSQL."""
    stores = [Store() if name == "directory" else Store(ONE_WAY) for name in options.stores]
    with bench.Server(options.place, options.cache, major) as server:
        server.make(options.scale, 1, FILLFACTOR)
        tools, missing = bench_base_tools.tools_for(server, stores, options)
        start(server)
        data = sum(file.stat().st_size for file in server.data.rglob("*") if file.is_file() and "pg_wal" not in file.parts)
        results = {}
        for number in range(options.repeat):
            for tool in tools:
                Life(server, tool, options, number, results).run()
        version, peers = server.version(), bench_peers.versions(server, tools)
        server.stop()
    lines = [
        f"\n### PostgreSQL {version}\n",
        f"{data / 1e6:.0f} MB without WAL; {', '.join(peers) or 'no peers'}. Not measured: {'; '.join(missing) or 'nothing'}.",
    ]
    for part, title in TITLES.items():
        if part not in results:
            continue
        changed = [cost.changed for costs in results[part].values() for cost in costs if isinstance(cost, Cost) and cost.changed]
        note = f" {statistics.median(changed) / 1e6:.1f} MB are in pages that changed." if changed else ""
        lines += [f"\n{title}.{note}\n", *table(part, results[part])]
    return lines


def measure_base(options):
    """The part of the report."""
    begun = time.monotonic()
    need_room(options)
    if "restore" in options.parts:
        options.parts.append("chain")
    sections = [line for major in options.majors for line in measure_major(options, major)]
    took = (time.monotonic() - begun) / 60
    bench.say(f"all of that took {took:.0f} minutes")
    parts = " ".join(part for part in options.parts if part != "chain")
    head = [
        "## Base backups\n",
        f"A cluster of pgbench, scale {options.scale}, with page checksums and fillfactor {FILLFACTOR}; LZ4 by all that compress. Medians of "
        f"{options.repeat} rounds in which tools and stores take turns, everything in the page cache. Wall time ends when what was written "
        "is durable (sync). CPU time is that of the tool and of PostgreSQL with its archiver; not that of the bucket, which is a server "
        f"in memory on the same processors, over TLS, {ONE_WAY} ms away each way. Memory of all processes counts shared pages once each. "
        "Stored is without WAL; objects and MB of an incremental backup are those that came or changed. An incremental backup is taken after "
        f"updates in {100 * SHARE_CHANGED:.0f} % of the heap's pages, at random. Best peer: the least that pgBackRest, WAL-RUS, or "
        "PostgreSQL's tools need in that store; pg_basebackup counts where it compresses. "
        f"By `scripts/bench base --scale {options.scale} --repeat {options.repeat} --majors {' '.join(map(str, options.majors))} "
        f"--stores {' '.join(options.stores)} --parts {parts}`, {took:.0f} minutes: {bench.machine()}.",
    ]
    return "\n".join([*head, *sections]) + "\n"
