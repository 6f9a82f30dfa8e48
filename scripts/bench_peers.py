#!/usr/bin/env python3
"""The archivers that scripts/bench wal compares, and the bucket that they archive into. Part of bench_wal.py.

All of them compress by LZ4. What is not installed is left out, with a line that says so.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import bench

# The server is the user's of the tests, on loopback; pgBackRest compares names only, the others addresses.
NAMES = "subjectAltName=DNS:localhost,DNS:127.0.0.1,IP:127.0.0.1"


def certificates(place):
    """An authority and the certificate of the bucket's server: the directory that they lie in."""
    home = place / "tls"
    if not (home / "certificate.pem").exists():
        home.mkdir(exist_ok=True)
        script = (
            "openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -subj /CN=authority -days 30 && "
            f"openssl req -newkey rsa:2048 -nodes -keyout key.pem -out request.pem -subj /CN=localhost -addext {NAMES} && "
            "openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -copy_extensions copy "
            "-out certificate.pem -days 30"
        )
        bench.run(["sh", "-c", script], cwd=home)
    return home


class Store:
    """Where archives lie: a directory, or (`one_way` milliseconds away) a bucket."""

    def __init__(self, one_way=None, secure=True):
        self.one_way, self.secure = one_way, secure
        way = f"S3, {one_way} ms each way" + ("" if secure else ", without TLS")
        self.name = "directory" if one_way is None else way

    def open(self, place):
        return None if self.one_way is None else Bucket(place, self)


class Bucket:
    """The S3 server of the measurements, in a process of its own."""

    def __init__(self, place, store):
        tls = certificates(place)
        self.authority = tls / "ca.pem" if store.secure else None
        words = [str(place / "bin/s3-server"), str(2 * store.one_way)]
        if store.secure:
            words += ["--tls", str(tls / "certificate.pem"), str(tls / "key.pem")]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.place = json.loads(self.process.stdout.readline())
        self.port = self.place["endpoint"].rpartition(":")[2]

    def ask(self, word):
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def asked(self):
        """Requests by kind since the last call."""
        return self.ask("")["requests"]

    def names(self):
        return list(self.sizes())

    def sizes(self):
        """{name: bytes} of all objects."""
        return self.ask("sizes")["sizes"]

    def cpu(self):
        return bench.processes()[self.process.pid][1]

    def stop(self):
        self.process.stdin.close()
        self.process.wait(60)


class OnTheRoad:
    """What the archivers of this part have in common, beside a `bench.Tool`.

    `push` and `fetch` are the words of one call as PostgreSQL would make it; `alone` says that it is to look at nothing ahead.
    """

    # How many segments of the backlog it drains, and in how many rounds; `None` for all.
    share, rounds = None, None
    stores_only = None
    quick = True
    bucket = None
    # The data directory of its calls, where that is not the server's.
    data = None

    @classmethod
    def missing(cls, _server):
        """Why it cannot be measured, or nothing."""
        return None

    def archive_command(self):
        return " ".join(map(str, self.push("%p")))

    def restore_command(self, _target):
        return " ".join(map(str, self.fetch("%f", "%p")))

    def stop(self):
        """Ends what it left running."""

    def ahead_of(self, name):
        """Whether a segment lies ready, having been fetched ahead."""
        return next((self.home / "spool").rglob(name), None) is not None

    def acknowledged(self, _names):
        """Whether all of these were archived ahead and are known to be."""
        return True

    def stored(self):
        """Names of all that lies in the archive."""
        if self.bucket:
            return self.bucket.names()
        return [name for _, _, names in os.walk(self.repository) for name in names]

    def lacks(self, segments):
        """Segments of which nothing lies in the archive."""
        stored = {name.rpartition("/")[2][:24] for name in self.stored()}
        return [name for name in segments if name not in stored]


class Pitr(OnTheRoad, bench.Pitr):
    name, peer = "pitr", None

    def fresh(self):
        super().fresh()
        text = self.config.read_text()
        self.single = self.home / "single.toml"
        self.single.write_text(text + "look_ahead = 0\n")

    def repository_settings(self):
        if not self.bucket:
            return super().repository_settings()
        place = self.bucket.place
        trusted = f's3_ca_file = "{self.bucket.authority}"\n' if self.bucket.authority else ""
        return (
            f'path = "s3://{place["bucket"]}/pg"\ns3_endpoint = "{place["endpoint"]}"\n'
            f's3_credentials_file = "{place["credentials"]}"\n{trusted}'
        )

    def push(self, path, alone=False):
        return [self.program("pitr-wal-push"), "--config", self.single if alone else self.config, path]

    def fetch(self, name, path, alone=False):
        return [self.program("pitr-wal-fetch"), "--config", self.single if alone else self.config, name, path]


class PgBackRest(OnTheRoad, bench.PgBackRest):
    peer = "pgBackRest"

    def __init__(self, server):
        self.name = f"pgBackRest async, process-max {self.processes}"
        super().__init__(server)

    @classmethod
    def missing(cls, _server):
        return None if Path("/usr/bin/pgbackrest").exists() else "pgBackRest is not installed"

    def repository_settings(self):
        if not self.bucket:
            return super().repository_settings()
        place = self.bucket.place
        return (
            "repo1-type=s3\nrepo1-path=/pg\nrepo1-s3-uri-style=path\nrepo1-s3-region=us-east-1\n"
            f"repo1-s3-bucket={place['bucket']}\nrepo1-s3-endpoint=127.0.0.1\nrepo1-storage-host=127.0.0.1\n"
            f"repo1-storage-port={self.bucket.port}\nrepo1-storage-ca-file={self.bucket.authority}\n"
            f"repo1-s3-key={place['key']}\nrepo1-s3-key-secret={place['secret']}\n"
        )

    def options(self, alone):
        return [*([f"--pg1-path={self.data}"] if self.data else []), *(["--no-archive-async"] if alone else [])]

    def push(self, path, alone=False):
        return self.call(*self.options(alone), "archive-push", path)

    def fetch(self, name, path, alone=False):
        return self.call(*self.options(alone), "archive-get", name, path)

    def restore_command(self, target):
        return " ".join(map(str, self.call(f"--pg1-path={target}", "archive-get", "%f", '"%p"')))

    def acknowledged(self, names):
        return all((self.home / f"spool/archive/main/out/{name}.ok").exists() for name in names)


class PgBackRest1(PgBackRest):
    processes, short, share = 1, "pgbackrest1", 100


class PgBackRest4(PgBackRest):
    processes, short, share = 4, "pgbackrest4", 100


class WalRus(OnTheRoad, bench.Tool):
    uploads, short, peer = 16, "walrus16", "WAL-RUS"
    more_settings = ""

    def __init__(self, server):
        self.name = f"WAL-RUS daemon, {self.uploads} uploads"
        self.binary = server.cache / "wal-rus/bin/walrus"
        self.daemons = []
        super().__init__(server)

    @classmethod
    def missing(cls, server):
        return None if (server.cache / "wal-rus/bin/walrus").exists() else "WAL-RUS is not installed"

    def fresh(self):
        self.stop()
        super().fresh()
        if self.bucket:
            place = self.bucket.place
            store = (
                f"WALG_S3_PREFIX=s3://{place['bucket']}/pg\nAWS_ENDPOINT_URL={place['endpoint']}\nAWS_REGION=us-east-1\n"
                f"AWS_S3_FORCE_PATH_STYLE=true\nAWS_ACCESS_KEY_ID={place['key']}\nAWS_SECRET_ACCESS_KEY={place['secret']}\n"
            )
        else:
            self.repository.mkdir()
            store = f"WALG_FILE_PREFIX={self.repository}\n"
        self.start("daemon", f"{store}WALG_DOWNLOAD_CONCURRENCY={min(self.uploads, 8)}\n")
        self.start("single", f"{store}WALG_DOWNLOAD_CONCURRENCY=1\n")

    def start(self, name, settings):
        config, socket = self.home / f"{name}.env", self.home / f"{name}.socket"
        config.write_text(
            f"{settings}WALG_UPLOAD_CONCURRENCY={self.uploads}\nWALG_COMPRESSION_METHOD=lz4\nWALG_LOG_LEVEL=ERROR\n{self.more_settings}"
        )
        with open(self.home / f"{name}.log", "wb") as log:
            words = [str(self.binary), "--config", str(config), "daemon", "--socket", str(socket)]
            self.daemons.append(subprocess.Popen(words, stdout=log, stderr=log, env={**os.environ, **self.trusted()}))
        for _ in range(500):
            if socket.exists():
                return
            time.sleep(0.01)
        sys.exit(f"WAL-RUS's daemon does not start: see {self.home}/{name}.log")

    def trusted(self):
        """The variable that it takes the authorities from."""
        return {"SSL_CERT_FILE": str(self.bucket.authority)} if self.bucket and self.bucket.authority else {}

    def client(self, alone):
        return [self.binary, "daemon-client", "--socket", self.home / ("single.socket" if alone else "daemon.socket")]

    def push(self, path, alone=False):
        return [*self.client(alone), "wal-push", path if Path(path).is_absolute() else self.server.data / path]

    def fetch(self, name, path, alone=False):
        return [*self.client(alone), "wal-fetch", name, path]

    def restore_command(self, target):
        return " ".join(map(str, self.fetch("%f", f"{target}/%p")))

    def ahead_of(self, name):
        return any(found.parent.name == "prefetch" for found in self.home.rglob(name))

    def stop(self):
        for daemon in self.daemons:
            daemon.terminate()
            daemon.wait(60)
        self.daemons = []


class WalRus4(WalRus):
    uploads, short = 4, "walrus4"


class Barman(OnTheRoad, bench.Tool):
    """One Python process a segment: a few segments in one round are enough to see that."""

    name, short, peer = "barman-cloud-wal-archive", "barman", "Barman"
    share, rounds, quick = 10, 1, False

    @classmethod
    def missing(cls, server):
        return None if (server.cache / "barman/bin/python").exists() else "barman-cloud-wal-archive is not installed"

    def fresh(self):
        super().fresh()
        place = self.bucket.place
        trusted = [f"AWS_CA_BUNDLE={self.bucket.authority}"] if self.bucket.authority else []
        self.environment = [
            "/usr/bin/env", *trusted, f"AWS_SHARED_CREDENTIALS_FILE={place['credentials']}", "AWS_DEFAULT_REGION=us-east-1",
            self.server.cache / "barman/bin/python", "-m",
        ]
        self.where = [f"--endpoint-url={place['endpoint']}", f"s3://{place['bucket']}/pg", "main"]

    def push(self, path, alone=False):
        del alone
        return [*self.environment, "barman.clients.cloud_walarchive", "--lz4", *self.where, path]

    def fetch(self, name, path, alone=False):
        del alone
        return [*self.environment, "barman.clients.cloud_walrestore", *self.where, name, path]


class Plain(OnTheRoad, bench.Plain):
    name, peer, quick = "cp, neither compressed nor durable", None, False

    def push(self, path, alone=False):
        del alone
        target = f"{self.repository}/%f" if path == "%p" else self.repository
        return ["/bin/cp", path, target]

    def fetch(self, name, path, alone=False):
        del alone
        return ["/bin/cp", f"{self.repository}/{name}", path]


def available(server):
    """The kinds of tools that are here, pitr first."""
    kinds = []
    for kind in (Pitr, WalRus4, WalRus, PgBackRest1, PgBackRest, PgBackRest4, Barman, Plain):
        reason = kind.missing(server)
        if reason:
            bench.say(f"skipped: {reason} (scripts/install --bench installs it)")
        else:
            kinds.append(kind)
    return kinds


def versions(server, kinds):
    """What the peers call themselves."""
    commands = {
        "pgBackRest": ["/usr/bin/pgbackrest", "version"],
        "WAL-RUS": [server.cache / "wal-rus/bin/walrus", "--version"],
        "Barman": [server.cache / "barman/bin/python", "-m", "barman.clients.cloud_walarchive", "--version"],
    }
    peers = dict.fromkeys(kind.peer for kind in kinds if kind.peer in commands)
    return [f"{peer} {bench.run(commands[peer]).split()[-1]}" for peer in peers]


def tools_for(server, kinds, store):
    """What can be measured with a store."""
    def fits(kind):
        if kind is Plain:
            return store.one_way is None
        if kind is Barman:
            return store.one_way in (0, 20) and store.secure
        return store.secure or store.one_way is None or kind in (Pitr, WalRus)

    tools = [kind(server) for kind in kinds if fits(kind)]
    for tool in tools:
        tool.store = store
    return tools


def clean(tool):
    """Leaves nothing of a tool behind."""
    tool.stop()
    bench.let_orphans_end()
    if tool.bucket:
        tool.bucket.stop()
        tool.bucket = None
    shutil.rmtree(tool.home, ignore_errors=True)
