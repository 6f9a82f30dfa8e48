#!/usr/bin/env python3
"""What scripts/bench base compares, and with which words each is called. Part of bench_base.py.

What a tool does is a list of words, or `None` where it does not do that. `does` names the parts it is measured in.
"""

import re
import subprocess

import bench
import bench_peers

ALL = {"full", "incremental", "restore", "chain", "delta", "verify"}
PGBACKREST = "/usr/bin/pgbackrest"


def help_of(*words):
    """What a tool says of itself, whatever its status."""
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False).stdout


def version_of_pgbackrest():
    return [int(number) for number in re.findall(r"\d+", bench.run([PGBACKREST, "version"]))]


class BaseTool:
    """What the tools of this part have in common. A directory or a bucket is the `store`; `peer` is who makes it, unless it is ours
    or a floor."""

    does, stores_only = ALL, None
    peer = None

    @classmethod
    def lacks_here(cls, _server):
        """Why it cannot be measured with this server, or nothing."""
        return None

    def incremental(self):
        return None

    def complaint(self, _part, _output):
        """What is wrong though the status was 0, or nothing."""
        return None

    def check_incremental(self, stored):
        """Ends it if what should be an incremental backup is not."""

    def restore(self, _target):
        return None

    def delta(self, _target):
        return None

    def verify(self):
        return None


class Pitr(BaseTool, bench_peers.Pitr):
    name, short, peer = "pitr", "pitr", None
    more_words = ()

    def call(self, *words):
        return [self.program("pitr"), "--config", self.config, *words]

    def full(self):
        return self.call("backup", *self.more_words)

    incremental = full

    def restore(self, target):
        return self.call("restore", "--to", "latest", "--yes", "--target", target)

    def delta(self, target):
        knows = "--delta" in help_of(self.program("pitr"), "restore", "--help")
        return [*self.restore(target), "--delta" if knows else "--overwrite"]

    def verify(self):
        return self.call("verify")


class PitrLocal(Pitr):
    name, short, does = "pitr, --source local", "pitr-local", {"full", "incremental"}
    more_words = ("--source", "local")

    @classmethod
    def lacks_here(cls, server):
        knows = "--source" in help_of(server.place / "bin/pitr", "backup", "--help")
        return None if knows else "pitr has no --source local yet"


class PitrFullRead(Pitr):
    """The server knows what has changed, and is not asked."""

    name, short, does = "pitr, --full-read", "pitr-full-read", {"incremental"}

    @classmethod
    def lacks_here(cls, server):
        return None if server.major >= 17 else "pitr --full-read makes a difference from PostgreSQL 17 on"

    def incremental(self):
        return self.call("backup", "--full-read")


class PgBackRest2(BaseTool, bench_peers.PgBackRest):
    short, peer = "pgbackrest2", "pgBackRest"
    more_settings = ""

    def __init__(self, server):
        super().__init__(server)
        self.name = f"pgBackRest, process-max {self.processes}"

    @classmethod
    def lacks_here(cls, server):
        if reason := cls.missing(server):
            return reason
        if server.major > 15 and version_of_pgbackrest() < [2, 48]:
            return f"this pgBackRest does not know PostgreSQL {server.major}"
        return None

    def repository_settings(self):
        # Small files together in one object, as is advised for buckets, and needed for blocks.
        bundles = self.bucket or self.more_settings
        return super().repository_settings() + ("repo1-bundle=y\n" if bundles else "") + self.more_settings

    def full(self):
        return self.call("--type=full", "backup")

    def incremental(self):
        return self.call("--type=incr", "backup")

    def restore(self, target):
        return self.call(f"--pg1-path={target}", "restore")

    def delta(self, target):
        return self.call(f"--pg1-path={target}", "--delta", "restore")

    def verify(self):
        return self.call("--output=text", "--verbose", "verify")

    def complaint(self, part, output):
        # Its status is 0 whatever it finds.
        is_wrong = part == "verify" and "status: ok" not in output
        return "it does not find a whole repository whole: " + " ".join(output.split())[:400] if is_wrong else None


class PgBackRest1(PgBackRest2):
    processes, short = 1, "pgbackrest1"


class PgBackRestBlock(PgBackRest2):
    """Stores the blocks of a file that have changed; the others store the file. Before 2.46 it is there to be tried out."""

    short = "pgbackrest-block"

    def __init__(self, server):
        super().__init__(server)
        is_beta = version_of_pgbackrest() < [2, 46]
        self.name += ", block incremental" + (" (beta)" if is_beta else "")
        self.more_settings = "repo1-block=y\n" + ("beta=y\n" if is_beta else "")

    @classmethod
    def lacks_here(cls, server):
        if reason := super().lacks_here(server):
            return reason
        return None if "repo-block" in help_of(PGBACKREST, "help", "backup") else "this pgBackRest has no block incremental backups"


class WalRus(BaseTool, bench_peers.WalRus):
    short, peer, does = "walrus", "WAL-RUS", ALL - {"delta", "verify"}
    more_settings = "WALG_DELTA_MAX_STEPS=6\nWALG_USE_WAL_DELTA=true\n"

    def __init__(self, server):
        super().__init__(server)
        self.name = f"WAL-RUS, {self.uploads} uploads"

    @classmethod
    def lacks_here(cls, server):
        return cls.missing(server)

    def call(self, *words):
        trusted = [f"{name}={value}" for name, value in self.trusted().items()]
        return ["/usr/bin/env", *trusted, self.binary, "--config", self.home / "daemon.env", *words]

    def full(self):
        return self.call("backup-push", "--fast", "--full", self.server.data)

    def incremental(self):
        summaries = ["--delta-from-wal-summaries"] if self.server.major >= 17 else []
        return self.call("backup-push", "--fast", *summaries, self.server.data)

    def check_incremental(self, stored):
        if not any("_D_" in name for name in stored):
            raise SystemExit(f"{self.name}: the second backup is a full one")

    def restore(self, target):
        return self.call("backup-fetch", target, "LATEST")


class WalRusProtocol(WalRus):
    short, does = "walrus-protocol", {"full"}

    def __init__(self, server):
        super().__init__(server)
        self.name += ", over the protocol"

    def full(self):
        return self.call("backup-push", "--fast", "--full")


class BaseBackup(BaseTool, bench_peers.OnTheRoad, bench.Tool):
    """Into a directory; it stores no WAL."""

    short, does, stores_only = "basebackup", {"full", "incremental"}, "directory"

    def __init__(self, server):
        super().__init__(server)
        self.name = "pg_basebackup -Ft" + (" client-lz4" if server.has_lz4 else ", not compressed (built without LZ4)")
        self.peer = "PostgreSQL" if server.has_lz4 else None

    def archive_command(self):
        return "/bin/true"

    def call(self, name, *words):
        return [self.server.basebackup, "-D", self.repository / name, "-X", "none", "-c", "fast", *words]

    def format(self):
        return ["-Ft", *(["--compress=client-lz4:1"] if self.server.has_lz4 else [])]

    def full(self):
        return self.call("full", *self.format())

    def incremental(self):
        if self.server.major < 17:
            return None
        return self.call("incremental", *self.format(), f"--incremental={self.repository}/full/backup_manifest")


class BaseBackupPlain(BaseBackup):
    """Not compressed, which combining asks for."""

    short, does = "basebackup-plain", {"chain"}

    def __init__(self, server):
        super().__init__(server)
        self.name, self.peer = "pg_combinebackup, full and incremental not compressed", "PostgreSQL"

    @classmethod
    def lacks_here(cls, server):
        return None if server.major == 18 else "pg_combinebackup is here for PostgreSQL 18 alone"

    def format(self):
        return ["-Fp"]

    def restore(self, target):
        both = (self.repository / name for name in ("full", "incremental"))
        return [self.server.tools / "pg_combinebackup", *both, "-o", target]


class BaseBackupFloor(BaseBackup):
    """What the server needs to read and send it."""

    short, does = "basebackup-null", {"full"}

    def __init__(self, server):
        super().__init__(server)
        self.name, self.peer = "floor: pg_basebackup -Ft >/dev/null", None

    def full(self):
        script = 'exec "$0" -D - -Ft -X none -c fast >/dev/null'
        return ["/bin/sh", "-c", script, self.server.basebackup]


class Copy(BaseTool, bench_peers.OnTheRoad, bench.Tool):
    """The data files as they lie, without the WAL that the others leave to recovery."""

    name, short, does, stores_only = "floor: cp -a of the data directory", "cp", {"restore"}, "directory"

    def archive_command(self):
        return "/bin/true"

    def full(self):
        return None

    def restore(self, target):
        script = 'cd "$0" && find . -mindepth 1 -maxdepth 1 ! -name pg_wal ! -name "postmaster.*" -exec cp -a -t "$1" {} +'
        return ["/bin/sh", "-c", script, self.server.data, target]


KINDS = (
    Pitr, PitrLocal, PitrFullRead, PgBackRest1, PgBackRest2, PgBackRestBlock, WalRus, WalRusProtocol,
    BaseBackup, BaseBackupPlain, BaseBackupFloor, Copy,
)


def tools_for(server, stores, options):
    """What can be measured, and why the rest cannot."""
    tools, missing = [], []
    for kind in KINDS:
        reason = kind.lacks_here(server)
        if kind.short in options.without or not kind.does & set(options.parts):
            continue
        if reason:
            bench.say(f"skipped: {reason}")
            missing.append(reason)
            continue
        for store in stores:
            if kind.stores_only in (None, store.name):
                tool = kind(server)
                tool.store = store
                tools.append(tool)
    return tools, list(dict.fromkeys(missing))
