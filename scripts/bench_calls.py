#!/usr/bin/env python3
"""Single calls of archive_command and restore_command, timed one by one as hyperfine does. Part of bench_wal.py.

They are made in a data directory of their own, whose segments are links to the backlog's, without a server: what PostgreSQL's
archiver and recovery would do around a call is done here, and not timed.
"""

import filecmp
import os
import shutil
import statistics
import sys
import time

import bench

# So many calls of a kind are timed; segments that one batch archives or fetches ahead.
CALLS, BATCH = 24, 8
# How long a tool has to get ready what it does ahead.
PATIENCE_SECONDS = 10


class Calls:
    """The data directory, and how a call in it is timed."""

    def __init__(self, server):
        self.server, self.directory = server, server.place / "calls"
        shutil.rmtree(self.directory, ignore_errors=True)
        (self.directory / "pg_wal/archive_status").mkdir(parents=True)
        (self.directory / "global").mkdir()
        for name in ("PG_VERSION", "global/pg_control"):
            shutil.copy(server.data / name, self.directory / name)
        self.log = os.open(server.place / "calls.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)

    def lay(self, names):
        """Segments that wait to be archived."""
        for name in names:
            path = self.segment(name)
            if not path.exists():
                os.link(self.server.data / "pg_wal" / name, path)

    def segment(self, name):
        return self.directory / "pg_wal" / name

    def mark(self, name, done):
        status = self.directory / "pg_wal/archive_status"
        if not done:
            (status / f"{name}.ready").touch()
        elif (status / f"{name}.ready").exists():
            (status / f"{name}.ready").rename(status / f"{name}.done")

    def time(self, words, succeeds=True):
        """Milliseconds of one call."""
        words = [str(word) for word in words]
        actions = [(os.POSIX_SPAWN_DUP2, self.log, 1), (os.POSIX_SPAWN_DUP2, self.log, 2)]
        os.chdir(self.directory)
        try:
            begun = time.perf_counter()
            pid = os.posix_spawn(words[0], words, os.environ, file_actions=actions)
            _, status = os.waitpid(pid, 0)
            took = time.perf_counter() - begun
        finally:
            os.chdir(self.server.place)
        if (os.waitstatus_to_exitcode(status) == 0) != succeeds:
            sys.exit(f"status {os.waitstatus_to_exitcode(status)}: {' '.join(words)}: see {self.server.place}/calls.log")
        return 1000 * took

    def wait(self, tool, is_done):
        begun = time.monotonic()
        while not is_done():
            if time.monotonic() - begun > PATIENCE_SECONDS:
                sys.exit(f"{tool.name}, {tool.store.name}: what it does ahead does not come")
            time.sleep(0.01)


def pushes(calls, tool, names):
    """One after another, nothing else waiting."""
    calls.lay(names)
    took = [calls.time(tool.push(calls.segment(name), alone=True)) for name in names]
    return took[1:]


def quick_pushes(calls, tool, names):
    """Calls for what an earlier call archived ahead."""
    took = []
    for at in range(0, len(names) - BATCH, BATCH + 1):
        batch = names[at:at + BATCH + 1]
        calls.lay(batch)
        for name in batch:
            calls.mark(name, done=False)
        calls.time(tool.push(calls.segment(batch[0])))
        calls.mark(batch[0], done=True)
        calls.wait(tool, lambda batch=batch: tool.acknowledged(batch[1:]))
        # Whatever the call left behind for a moment.
        time.sleep(0.3)
        for name in batch[1:]:
            took.append(calls.time(tool.push(calls.segment(name))))
            calls.mark(name, done=True)
    return took


def fetches(calls, tool, names):
    """One after another, nothing fetched ahead."""
    took = []
    for name in names:
        target = tool.home / "fetched" / "RECOVERYXLOG"
        target.parent.mkdir(exist_ok=True)
        target.unlink(missing_ok=True)
        took.append(calls.time(tool.fetch(name, target, alone=True)))
        if not filecmp.cmp(target, calls.server.data / "pg_wal" / name, shallow=False):
            sys.exit(f"{tool.name}, {tool.store.name}: {name} does not come back as it was")
    return took[1:]


def quick_fetches(calls, tool, names):
    """Calls for what was fetched ahead, by a recovery that takes its time."""
    target = tool.home / "fetched" / "RECOVERYXLOG"
    target.parent.mkdir(exist_ok=True)
    (calls.directory / "recovery.signal").touch()
    (calls.directory / "postmaster.pid").write_text(f"{os.getpid()}\n{calls.directory}\n")
    took = []
    for name in names:
        if took:
            calls.wait(tool, lambda name=name: tool.ahead_of(name))
            time.sleep(0.1)
        target.unlink(missing_ok=True)
        took.append(calls.time(tool.fetch(name, target)))
        if not filecmp.cmp(target, calls.server.data / "pg_wal" / name, shallow=False):
            sys.exit(f"{tool.name}, {tool.store.name}: {name} does not come back as it was")
    (calls.directory / "recovery.signal").unlink()
    (calls.directory / "postmaster.pid").unlink()
    return took[1:]


def following(name, by):
    """The segment so many behind another."""
    number = int(name[8:16], 16) * 256 + int(name[16:], 16) + by
    return f"{name[:8]}{number // 256:08X}{number % 256:08X}"


def measure_tool(calls, tool):
    """{kind: (milliseconds, requests a call)} of a tool that is set up afresh."""
    backlog = calls.server.backlog()
    # Of a small backlog fewer; one segment is left over, which is absent.
    ahead = (BATCH + 1) * max(1, min(CALLS // BATCH, len(backlog) // (3 * BATCH)))
    count = min(CALLS + 1, len(backlog) - ahead - 1)
    alone, batch = backlog[:count], backlog[count:count + ahead]
    if not tool.quick:
        alone = backlog[:4]
    absent = following((batch if tool.quick else alone)[-1], by=1)
    kinds = [("push", lambda: pushes(calls, tool, alone))]
    if tool.quick:
        kinds.append(("quick push", lambda: quick_pushes(calls, tool, batch)))
    kinds.append(("fetch", lambda: fetches(calls, tool, alone)))
    if tool.quick:
        kinds.append(("quick fetch", lambda: quick_fetches(calls, tool, alone)))
    target = tool.home / "fetched" / "RECOVERYXLOG"
    kinds.append(
        ("absent", lambda: [calls.time(tool.fetch(absent, target, alone=True), succeeds=False) for _ in range(min(10, len(alone)))])
    )
    found = {}
    for kind, measured in kinds:
        if tool.bucket:
            tool.bucket.asked()
        took = measured()
        asked = tool.bucket.asked() if tool.bucket else {}
        # What a quick call finds done was asked for by others; of the first call of each row, the time does not count.
        told = tool.bucket and not kind.startswith("quick")
        found[kind] = (took, sum(asked.values()) / (len(took) + (kind != "absent")) if told else None)
        if told:
            bench.say(f"{kind}, {tool.store.name}, {tool.name}: {asked} in {len(took)} calls")
    for name in (*alone, *batch):
        calls.segment(name).unlink(missing_ok=True)
    return found


def measure_calls(server, store_tools):
    """The tables of single calls, one for each store; the server runs."""
    calls = Calls(server)
    floor = statistics.median([calls.time(["/bin/true"]) for _ in range(200)])
    titles = {
        "push": "one push, nothing ahead", "quick push": "quick path of push", "fetch": "one fetch, nothing prefetched",
        "quick fetch": "prefetched fetch", "absent": "absent file",
    }
    lines = []
    for store, tools in store_tools:
        lines += [
            f"\nSingle calls, {store.name}: ms, median (requests a call); `/bin/true` takes {floor:.2f} ms.\n",
            "| tool | " + " | ".join(titles.values()) + " |", "|---|" + "---|" * len(titles),
        ]
        medians = {}
        for tool in tools:
            tool.bucket = store.open(server.place)
            tool.fresh()
            tool.data = calls.directory
            os.sync()
            found = measure_tool(calls, tool)
            medians[tool] = {kind: statistics.median(took) for kind, (took, _) in found.items()}
            bench.say(f"calls, {store.name}, {tool.name}: {({kind: round(ms, 2) for kind, ms in medians[tool].items()})}")
            cells = []
            for kind in titles:
                if kind not in found:
                    cells.append("–")
                    continue
                requests = found[kind][1]
                cells.append(f"{medians[tool][kind]:.1f}" + ("" if requests is None else f" ({requests:.1f})"))
            lines.append(f"| {tool.name} | " + " | ".join(cells) + " |")
            tool.data = None
            clean_after(tool)
        ours = next((medians[tool] for tool in tools if tool.short == "pitr"), None)
        if ours:
            ratios = []
            for kind in titles:
                peers = [medians[tool][kind] for tool in tools if tool.peer and kind in medians[tool]]
                ratios.append(f"{ours[kind] / min(peers):.2f}" if peers else "–")
            lines.append("| pitr as a ratio to the best peer | " + " | ".join(ratios) + " |")
    shutil.rmtree(calls.directory)
    os.close(calls.log)
    return lines


def clean_after(tool):
    """Ends the tool, and waits for the process that fetched ahead."""
    import bench_peers  # Both are parts of bench_wal.py.

    bench_peers.clean(tool)
