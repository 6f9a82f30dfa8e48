#!/usr/bin/env python3
"""The measurements of scripts/bench, which sets up what this needs; run that.

Tools take turns within each repeat, so that a slow minute of the machine hits all of them. Wall time is of the operation
alone. CPU time is that of every process below this one, server and archiver included: orphans (pgBackRest's asynchronous
process) come back to us because we are their subreaper. Peak memory is of the largest single process that is not the server's.
"""

import argparse
import ctypes
import json
import os
import platform
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
TICKS = os.sysconf("SC_CLK_TCK")
SEGMENT_BYTES = 16 << 20
# The system identifier that synthetic-archive gives.
CLUSTER_OF_PLAN = "7312345678901234567"
PATIENCE_SECONDS = 1800


def say(text):
    print(f"--- {text}", file=sys.stderr, flush=True)


# Processes ------------------------------------------------------------------------------------------------------------


def processes():
    """All processes below this one: {pid: (name, CPU seconds with those of its ended children)}."""
    parents, facts = {}, {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as file:
                head, _, rest = file.read().rpartition(")")
        except OSError:
            continue
        fields = rest.split()
        parents.setdefault(int(fields[1]), []).append(int(entry))
        facts[int(entry)] = (head.partition("(")[2], sum(int(field) for field in fields[11:15]) / TICKS)
    family, pending = {}, list(parents.get(os.getpid(), []))
    while pending:
        pid = pending.pop()
        family[pid] = facts[pid]
        pending += parents.get(pid, [])
    return family


def cpu_seconds():
    """CPU time of all processes that are or were below this one."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime + sum(cpu for _, cpu in processes().values())


def let_orphans_end():
    """Waits until only servers are left below us, and for the processes that came to us as orphans."""
    for _ in range(3000):
        others = [pid for pid, (name, _) in processes().items() if name not in ("postgres", "s3-server", "walrus")]
        for pid in others:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                pass
        if not others:
            return
        time.sleep(0.01)
    sys.exit(f"processes do not end: {[name for name, _ in processes().values()]}")


class MemoryWatch:
    """Looks for the largest process that is not PostgreSQL's, often enough for processes of a few milliseconds."""

    def __init__(self, pause, others=frozenset()):
        self.peak_kib, self.pause, self.over = 0, pause, threading.Event()
        self.others = {"postgres", "sh", *others}
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.over.wait(self.pause):
            for pid, (name, _) in processes().items():
                if name in self.others:
                    continue
                try:
                    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
                        for line in file:
                            if line.startswith("VmHWM:"):
                                self.peak_kib = max(self.peak_kib, int(line.split()[1]))
                except OSError:
                    continue

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


def run(command, **options):
    """Runs a command that must succeed, and gives its output."""
    done = subprocess.run(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, text=True,
        errors="replace", timeout=PATIENCE_SECONDS, **options,
    )
    if done.returncode != 0:
        sys.exit(f"failed with status {done.returncode}: {' '.join(map(str, command))}\n{done.stdout}")
    return done.stdout


def bytes_below(directory):
    return sum(
        (Path(where) / name).lstat().st_size for where, _, names in os.walk(directory) for name in names
    )


# The server -----------------------------------------------------------------------------------------------------------


class Server:
    """The pgbench cluster with its backlog of WAL segments."""

    def __init__(self, place, cache):
        debian = Path("/usr/lib/postgresql/15/bin")
        # Debian's pgBackRest is too old for 16 and newer.
        self.bin = debian if (debian / "postgres").exists() else cache / "postgres/15/native/bin"
        self.tools = cache / "tools/client/18/bin"
        self.basebackup = debian / "pg_basebackup" if debian == self.bin else self.tools / "pg_basebackup"
        self.has_lz4 = debian == self.bin
        self.cache, self.place, self.data, self.socket = cache, place, place / "cluster", place / "socket"
        self.process = None
        self.backlog_list = place / "backlog.txt"
        os.environ.update(PGHOST=str(self.socket), PGUSER="postgres", PGDATABASE="postgres")

    def make(self, scale, segments):
        """Makes the cluster, and so many finished segments of its pgbench, unless an earlier run left them."""
        wanted = f"scale {scale}, {segments} segments\n"
        stamp = self.place / "cluster.stamp"
        if stamp.exists() and stamp.read_text() == wanted:
            return
        say(f"making a pgbench cluster of scale {scale} with a backlog of {segments} segments")
        stamp.unlink(missing_ok=True)
        shutil.rmtree(self.data, ignore_errors=True)
        run([self.bin / "initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "--no-sync", "--data-checksums"])
        with open(self.data / "postgresql.conf", "a", encoding="utf-8") as file:
            file.write(
                "listen_addresses = ''\nshared_buffers = 512MB\nfsync = off\nwal_level = replica\narchive_mode = on\n"
                # What was archived once must stay, for the next tool.
                "archive_command = ''\nwal_keep_size = 64GB\nmax_wal_size = 4GB\nautovacuum = off\n"
            )
        self.socket.mkdir(exist_ok=True)
        self.start("archive_command=")
        run([self.tools / "pgbench", "-i", "-q", "-s", scale])
        self.sql("CHECKPOINT")
        first = len(self.ready())
        while len(self.ready()) < first + segments + 1:
            run([self.tools / "pgbench", "-n", "-c", 4, "-j", 2, "-T", 5])
        names = sorted(self.ready())[first:first + segments]
        self.stop()
        self.backlog_list.write_text("\n".join(names) + "\n")
        # What lies before the backlog is done with.
        for name in self.ready():
            self.mark(name, done=True)
        stamp.write_text(wanted)

    def backlog(self):
        return self.backlog_list.read_text().split()

    def status(self):
        return self.data / "pg_wal/archive_status"

    def ready(self):
        return [name[:-6] for name in os.listdir(self.status()) if name.endswith(".ready")]

    def mark(self, name, done):
        names = [self.status() / f"{name}.ready", self.status() / f"{name}.done"]
        source, target = names if done else reversed(names)
        if source.exists():
            source.rename(target)

    def start(self, *settings):
        self.socket.mkdir(exist_ok=True)
        words = [str(self.bin / "postgres"), "-D", str(self.data), "-k", str(self.socket)]
        for setting in settings:
            words += ["-c", setting]
        with open(self.place / "server.log", "ab") as log:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        for _ in range(600):
            if subprocess.run([self.tools / "psql", "-Xqc", "SELECT 1"], capture_output=True, check=False).returncode == 0:
                return
            time.sleep(0.1)
        sys.exit("the server does not start: see server.log")

    def segments_from(self, first):
        """Complete segments in pg_wal, from one on."""
        current = self.sql("SELECT pg_walfile_name(pg_current_wal_lsn())")
        names = (name for name in os.listdir(self.data / "pg_wal") if len(name) == 24)
        return sorted(name for name in names if first < name < current)

    def stop(self):
        if self.process:
            # An immediate stop writes no checkpoint, archives nothing more, and is quick.
            self.sql("CHECKPOINT")
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(60)
            self.process = None

    def stop_clean(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)
        self.process = None

    def sql(self, text):
        return run([self.tools / "psql", "-XqAt", "-c", text]).strip()

    def archive_with(self, command):
        """Sets the archive command of the running server, and gives it a moment's peace first."""
        quoted = command.replace("'", "''")
        with open(self.data / "postgresql.auto.conf", "w", encoding="utf-8") as file:
            file.write(f"archive_command = '{quoted}'\n")
        self.process.send_signal(signal.SIGHUP)


# The tools ------------------------------------------------------------------------------------------------------------


class Tool:
    """Something that archives, backs up or restores. What a tool cannot do is `None`."""

    def __init__(self, server):
        self.server = server
        self.home = server.place / self.short
        self.repository = self.home / "repository"
        self.target = self.home / "restored"

    def fresh(self):
        """Empties what the tool keeps, and sets it up anew."""
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir()

    def archive_command(self):
        return None

    def backup(self):
        return None

    def restore(self):
        return None


class Pitr(Tool):
    name, short = "pitr", "pitr"

    def fresh(self):
        super().fresh()
        (self.home / "spool").mkdir()
        identifier = self.server.sql("SELECT system_identifier FROM pg_control_system()")
        self.config = self.home / "pitr.toml"
        self.config.write_text(
            f'[repository]\n{self.repository_settings()}\n[cluster.main]\nsystem_identifier = "{identifier}"\n'
            f'conninfo = "host={self.server.socket} user=postgres"\nspool = "{self.home}/spool"\njobs = 2\n'
        )
        run([self.program("pitr"), "--config", self.config, "init"])

    def repository_settings(self):
        return f'path = "{self.repository}"\n'

    def program(self, name):
        return self.server.place / "bin" / name

    def archive_command(self):
        return f"{self.program('pitr-wal-push')} --config {self.config} %p"

    def backup(self):
        return [self.program("pitr"), "--config", self.config, "backup"]

    def restore(self):
        words = ["restore", "--to", "latest", "--yes", "--target", self.target]
        return [self.program("pitr"), "--config", self.config, *words]


class PitrLocal(Pitr):
    name, short = "pitr --source local", "local"

    def backup(self):
        return [*super().backup(), "--source", "local"]


class PgBackRest(Tool):
    name, short = "pgBackRest, process-max=2", "pgbackrest"

    def fresh(self):
        super().fresh()
        for name in ("spool", "log", "lock"):
            (self.home / name).mkdir()
        self.config = self.home / "pgbackrest.conf"
        self.config.write_text(
            f"[global]\nrepo1-path={self.repository}\nspool-path={self.home}/spool\nlog-path={self.home}/log\n"
            f"lock-path={self.home}/lock\nprocess-max=2\ncompress-type=lz4\narchive-async=y\nstart-fast=y\n"
            "log-level-file=off\nlog-level-console=warn\nrepo1-retention-full=1\n"
            f"[main]\npg1-path={self.server.data}\npg1-socket-path={self.server.socket}\npg1-user=postgres\n"
        )
        run(self.call("stanza-create"))

    def call(self, *words):
        return ["/usr/bin/pgbackrest", f"--config={self.config}", "--stanza=main", *words]

    def archive_command(self):
        return " ".join(self.call("archive-push", "%p"))

    def backup(self):
        return self.call("--type=full", "backup")

    def restore(self):
        return self.call(f"--pg1-path={self.target}", "restore")


class Plain(Tool):
    name, short = "cp", "cp"

    def fresh(self):
        super().fresh()
        self.repository.mkdir()

    def archive_command(self):
        return f"cp %p {self.repository}/%f"

    def restore(self):
        # The data files as they lie, without the WAL that the others leave to recovery; made durable, as the others do.
        script = 'cp -a "$0" "$1" && sync -f "$1"'
        return ["/bin/sh", "-c", script, self.home / "source", self.target]


class BaseBackup(Tool):
    short = "basebackup"

    def __init__(self, server):
        super().__init__(server)
        self.name = "pg_basebackup -Ft" + (" client-lz4" if server.has_lz4 else ", not compressed")

    def backup(self):
        compress = ["--compress=client-lz4:1"] if self.server.has_lz4 else []
        return [self.server.basebackup, "-D", self.repository, "-Ft", "-X", "none", "-c", "fast", *compress]


# The measurements -----------------------------------------------------------------------------------------------------


class Result:
    """What one tool needed, over the repeats."""

    def __init__(self):
        self.wall, self.cpu, self.peak_kib, self.stored = [], [], 0, 0


def drain(server, tool, most=None):
    """Lets the real archiver archive the backlog, or its first segments; gives the seconds from the command's setting to the end."""
    backlog = server.backlog()[:most]
    for name in backlog:
        server.mark(name, done=False)
    # Some tools archive out of turn, and mark that themselves.
    left = [server.status() / f"{name}.ready" for name in backlog]
    begun = time.monotonic()
    server.archive_with(tool.archive_command())
    while left:
        if time.monotonic() - begun > PATIENCE_SECONDS:
            sys.exit(f"{tool.name} does not get done with the backlog: see server.log")
        while left and not left[-1].exists():
            left.pop()
        time.sleep(0.01)
    took = time.monotonic() - begun
    server.archive_with("")
    return took


def measure_archive(server, repeats, tools):
    results = {tool.name: Result() for tool in tools}
    server.start("archive_timeout=0")
    server.archive_with("")
    for number in range(repeats + 1):
        for tool in tools:
            result = results[tool.name]
            tool.fresh()
            os.sync()
            # The last round is for memory alone, since looking costs time.
            if number == repeats:
                with MemoryWatch(0.002) as watch:
                    drain(server, tool)
                result.peak_kib = watch.peak_kib
                result.stored = bytes_below(tool.repository)
            else:
                before = cpu_seconds()
                wall = drain(server, tool)
                let_orphans_end()
                result.wall.append(wall)
                result.cpu.append(cpu_seconds() - before)
                say(f"archive, {tool.name}: {wall:.2f} s, {result.cpu[-1]:.2f} s CPU")
            let_orphans_end()
            shutil.rmtree(tool.home, ignore_errors=True)
    server.stop()
    return results


def measure_commands(verb, server, repeats, tools, command_of, before_each):
    """Runs each tool's command; the server runs meanwhile, its CPU time counts."""
    results = {tool.name: Result() for tool in tools}
    for number in range(repeats):
        for tool in tools:
            result = results[tool.name]
            before_each(tool)
            os.sync()
            before, begun = cpu_seconds(), time.monotonic()
            process = subprocess.Popen([str(word) for word in command_of(tool)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            with MemoryWatch(0.1) as watch:
                output = process.stdout.read()
                # ru_maxrss of the command is that of its largest process, without any looking.
                _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            wall = time.monotonic() - begun
            if status != 0:
                sys.exit(f"{tool.name}: {verb} failed:\n{output.decode(errors='replace')}")
            let_orphans_end()
            result.wall.append(wall)
            result.cpu.append(cpu_seconds() - before)
            result.peak_kib = max(result.peak_kib, usage.ru_maxrss, watch.peak_kib)
            result.stored = bytes_below(tool.repository)
            say(f"{verb}, {tool.name}: {wall:.2f} s, {result.cpu[-1]:.2f} s CPU (round {number + 1})")
    return results


def measure_backup(server, repeats, tools):
    server.start("archive_timeout=0")

    def before_each(tool):
        tool.fresh()
        server.archive_with(tool.archive_command() or "/bin/true")

    results = measure_commands("backup", server, repeats, tools, lambda tool: tool.backup(), before_each)
    server.archive_with("")
    server.stop()
    for tool in tools:
        shutil.rmtree(tool.home, ignore_errors=True)
    return results


def measure_restore(server, repeats, tools):
    # One backup of each to restore from, not measured.
    server.start("archive_timeout=0")
    for tool in tools:
        tool.fresh()
        if tool.backup():
            server.archive_with(tool.archive_command())
            run(tool.backup())
            # The segment that the end of the backup lies in, and one more.
            server.sql("SELECT pg_switch_wal()")
        else:
            server.sql("CHECKPOINT")
            ignore = shutil.ignore_patterns("pg_wal", "postmaster.pid")
            shutil.copytree(server.data, tool.home / "source", symlinks=True, ignore=ignore)
    server.archive_with("")
    server.stop()

    def before_each(tool):
        shutil.rmtree(tool.target, ignore_errors=True)
        if tool.short == "pgbackrest":
            tool.target.mkdir(mode=0o700)

    results = measure_commands("restore", server, repeats, tools, lambda tool: tool.restore(), before_each)
    for tool in tools:
        shutil.rmtree(tool.home, ignore_errors=True)
    return results


# Planning -------------------------------------------------------------------------------------------------------------


def drop_caches():
    """Makes the next reads come from the disk; only root may."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n", encoding="ascii")


def timed(command):
    """Wall seconds and peak memory in KiB of a command that must succeed."""
    begun = time.monotonic()
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    complaint = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if status != 0:
        sys.exit(f"failed: {' '.join(map(str, command))}\n{complaint.decode(errors='replace')}")
    return time.monotonic() - begun, usage.ru_maxrss


def measure_plan(options):
    """Plans and status over a synthetic archive, from the page cache and from the disk."""
    home, binaries = options.place / "plan", options.place / "bin"
    stamp = home / "made.json"
    if not stamp.exists() or json.loads(stamp.read_text())["entries"] != options.entries:
        say(f"making an archive of {options.entries} segments")
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        made = json.loads(run([binaries / "synthetic-archive", home, options.entries]))
        stamp.write_text(json.dumps({"entries": options.entries, **made}))
    made = json.loads(stamp.read_text())
    pitr = [binaries / "pitr", "--config", home / "pitr.toml", "--json"]
    shutil.rmtree(home / "repository/main" / CLUSTER_OF_PLAN / "catalog", ignore_errors=True)
    reindex, reindex_kib = timed([*pitr, "reindex"])
    say(f"reindex: {reindex:.1f} s")
    plan = [*pitr, "restore", "--dry-run", "--target", "/nowhere/at/all"]
    rows = [
        ("`restore --dry-run --to TIME`, the last backup, 2 % of the segments", [*plan, "--to", made["near"]]),
        ("the same from the first backup, all segments", [*plan, "--to", made["far"], "--backup", made["first_backup"]]),
        ("`status`", [*pitr, "status"]),
    ]
    lines = [
        "## Planning\n",
        f"An archive of {options.entries} segments with five base backups, one commit a segment, in a directory; "
        f"`pitr reindex` over it took {reindex:.0f} s and {reindex_kib / 1024:.0f} MiB. Cold: after the kernel's caches were dropped. "
        f"By `scripts/bench plan`, {machine()}; medians.\n",
        "| command | warm s (range) | cold s (range) | peak MiB |",
        "|---|---|---|---|",
    ]
    for name, command in rows:
        timed(command)
        warm = [timed(command) for _ in range(2 * options.repeat)]
        cold = []
        for _ in range(options.repeat):
            drop_caches()
            cold.append(timed(command))
        say(f"{name}: warm {[round(wall, 2) for wall, _ in warm]}, cold {[round(wall, 2) for wall, _ in cold]}")
        walls = [[wall for wall, _ in runs] for runs in (warm, cold)]
        cells = [f"{statistics.median(wall):.2f} ({min(wall):.2f}–{max(wall):.2f})" for wall in walls]
        peak = max(kib for _, kib in warm + cold) / 1024
        lines.append(f"| {name} | {cells[0]} | {cells[1]} | {peak:.0f} |")
    return "\n".join(lines) + "\n"


# Reading --------------------------------------------------------------------------------------------------------------


def measure_reading(server, options):
    """How quickly stored WAL is read: in memory, and out of the archive by the commands that do."""
    tool = Pitr(server)
    server.start("archive_timeout=0")
    tool.fresh()
    server.archive_with(tool.archive_command())
    run(tool.backup())
    first = server.sql("SELECT pg_walfile_name(pg_switch_wal())")
    say(f"writing {options.segments} segments of pgbench's WAL")
    while len(written := server.segments_from(first)) < options.segments:
        run([server.tools / "pgbench", "-n", "-c", 4, "-j", 2, "-T", 5])
    server.sql("SELECT pg_switch_wal()")
    while any((server.status() / f"{name}.ready").exists() for name in written):
        time.sleep(0.1)
    server.archive_with("")
    # As many as stay in memory beside everything else.
    files = [server.data / "pg_wal" / name for name in written[:40]]
    speeds = json.loads(run([server.place / "bin/scan-speed", 2 * options.repeat + 1, *files]))
    server.stop()
    in_memory = [
        ("scan: every record proved, events read", "scan"),
        ("floor: checksums of the records alone", "record_checksums"),
        ("floor: one checksum over each page", "page_checksums"),
        ("floor: reading memory", "read"),
    ]
    pitr = [tool.program("pitr"), "--config", tool.config]
    out_of_archive = [
        ("`log --numbers --kind drop`: all events and rows, no names", ["log", "--numbers", "--kind", "drop"]),
        ("`log --kind drop`: the same with names", ["log", "--kind", "drop"]),
        ("`log --summary`", ["log", "--summary"]),
        ("`log --json`: every commit with its rows", ["log", "--json"]),
        ("`find update pgbench_accounts --limit 1`", ["find", "update", "pgbench_accounts", "--limit", "1"]),
    ]
    megabytes = len(written) * SEGMENT_BYTES / 1e6
    lines = [
        "## Reading WAL\n",
        f"{speeds['records'] / (speeds['bytes'] / SEGMENT_BYTES):.0f} records a segment of pgbench's WAL; one core, "
        f"{len(files)} segments in memory. By `scripts/bench read`, {machine()}.\n",
        "| in memory | GB/s, median (best) |",
        "|---|---|",
    ]
    for name, key in in_memory:
        speed = speeds["bytes_a_second"][key]
        lines.append(f"| {name} | {speed['median'] / 1e9:.2f} ({speed['best'] / 1e9:.2f}) |")
    lines += [
        f"\n{len(written)} segments ({megabytes:.0f} MB) out of a directory, LZ4, from the page cache.\n",
        "| command | wall s (range) | MB/s of WAL | peak MiB |",
        "|---|---|---|---|",
    ]
    for name, words in out_of_archive:
        runs = [timed([*pitr, *words]) for _ in range(options.repeat)]
        walls = [wall for wall, _ in runs]
        say(f"{name}: {[round(wall, 2) for wall in walls]}")
        middle, peak = statistics.median(walls), max(kib for _, kib in runs) / 1024
        spread = f"{min(walls):.2f}–{max(walls):.2f}"
        lines.append(f"| {name} | {middle:.2f} ({spread}) | {megabytes / middle:.0f} | {peak:.0f} |")
    shutil.rmtree(tool.home, ignore_errors=True)
    return "\n".join(lines) + "\n"


# The report -----------------------------------------------------------------------------------------------------------


def table(title, note, results, reference):
    """A Markdown table: medians, the range of wall times, and ratios to the reference."""
    lines = [f"## {title}", "", note, ""]
    lines.append("| tool | wall s (range) | ratio | CPU s | ratio | largest process MiB | stored MB |")
    lines.append("|---|---|---|---|---|---|---|")
    reference = reference if reference in results else next(iter(results))
    wall_of = {name: statistics.median(result.wall) for name, result in results.items()}
    cpu_of = {name: statistics.median(result.cpu) for name, result in results.items()}
    for name, result in results.items():
        spread = f"{min(result.wall):.2f}–{max(result.wall):.2f}"
        stored = f"{result.stored / 1e6:.0f}" if result.stored else "–"
        lines.append(
            f"| {name} | {wall_of[name]:.2f} ({spread}) | {wall_of[name] / wall_of[reference]:.2f} "
            f"| {cpu_of[name]:.2f} | {cpu_of[name] / cpu_of[reference]:.2f} | {result.peak_kib / 1024:.0f} | {stored} |"
        )
    return "\n".join(lines) + "\n"


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "unknown")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    return f"{os.cpu_count()} CPUs ({model}), {memory} GiB of memory, Linux {platform.release()}"


def measure(server, options):
    """All that was asked for, as parts of the report."""
    data_bytes = bytes_below(server.data) - bytes_below(server.data / "pg_wal")
    version = run([server.bin / "postgres", "--version"]).split()[2]
    pgbackrest = run(["/usr/bin/pgbackrest", "version"]).split()[-1]
    date = time.strftime("%Y-%m-%d", time.gmtime())
    parts = [
        "# Benchmarks\n",
        f"Made by `scripts/bench` on {date}: {machine()}; PostgreSQL {version}, pgBackRest {pgbackrest}; "
        f"medians of {options.repeat} rounds in which the tools take turns. Ratios are to pgBackRest. CPU time is that of all "
        "processes, server and archiver included. Everything is in the page cache and on one disk.\n",
    ]
    reference = PgBackRest.name

    def tools(*kinds):
        return [kind(server) for kind in kinds if kind.short not in options.without]

    if options.what in ("archive", "all"):
        note = (
            f"The archiver drains {options.segments} segments of pgbench's WAL ({options.segments * SEGMENT_BYTES / 1e6:.0f} MB). "
            "pgBackRest archives asynchronously; `cp` neither compresses nor makes durable."
        )
        results = measure_archive(server, options.repeat, tools(Pitr, PgBackRest, Plain))
        parts.append(table("Archiving a backlog", note, results, reference))
    if options.what in ("backup", "all"):
        note = f"A full backup of {data_bytes / 1e6:.0f} MB with page checksums, LZ4, until it is complete with its WAL."
        results = measure_backup(server, options.repeat, tools(Pitr, PitrLocal, PgBackRest, BaseBackup))
        parts.append(table("Base backup", note, results, reference))
    if options.what in ("restore", "all"):
        note = f"The same {data_bytes / 1e6:.0f} MB into an empty directory, durable at the end, before any replay."
        results = measure_restore(server, options.repeat, tools(Pitr, PgBackRest, Plain))
        parts.append(table("Restore", note, results, reference))
    return parts


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench")
    parser.add_argument("what", nargs="?", default="all", choices=["archive", "backup", "restore", "wal", "read", "plan", "scale", "all"])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--scale", type=int, default=200)
    parser.add_argument("--segments", type=int, default=200)
    parser.add_argument("--entries", type=int, default=1_000_000, help="segments of the archive that plans are made over")
    parser.add_argument("--prove", action="store_true", help="wal: fetch every archived segment and compare it")
    parser.add_argument("--parts", nargs="*", default=["drain", "calls", "recovery"], help="wal: which of its parts")
    parser.add_argument("--without", nargs="*", default=[], metavar="TOOL", help="pitr, local, pgbackrest, cp, basebackup; wal: also pgbackrest1, pgbackrest4, walrus4, walrus16, barman")
    for name in ("--place", "--cache", "--out"):
        parser.add_argument(name, type=Path, required=True, help=argparse.SUPPRESS)
    options = parser.parse_args()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    os.umask(0o077)
    # Stopped from outside, it must not leave its server behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))

    if options.what == "plan":
        options.out.write_text(measure_plan(options), encoding="utf-8")
        return
    if options.what == "scale":
        import bench_scale  # It uses this module.

        options.out.write_text(bench_scale.measure_scale(options), encoding="utf-8")
        return
    server = Server(options.place, options.cache)
    try:
        # The road of WAL writes its own backlog, on top of the cluster as it is.
        server.make(options.scale, 1 if options.what == "wal" else options.segments)
        if options.what == "read":
            parts = [measure_reading(server, options)]
        elif options.what == "wal":
            import bench_wal  # It uses this module.

            parts = [bench_wal.measure_wal(server, options)]
        else:
            parts = measure(server, options)
    finally:
        if server.process:
            server.process.send_signal(signal.SIGQUIT)
            server.process.wait(60)
    options.out.write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
