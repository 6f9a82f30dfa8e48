#!/usr/bin/env python3
"""Looking at large archives in a bucket behind a network: what it takes, and what it costs.

Part of bench.py, which has the tools.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time

import bench

# One way, in milliseconds; a request takes twice that, beside its work.
ONE_WAY = 20
SEGMENTS = (100_000, 1_000_000)
# Without roll-ups a plan reads each of its segments: it is measured over fewer.
SEGMENTS_WITHOUT = 100_000


def make(options, count):
    """An archive of so many segments in a directory, with its roll-ups; kept for the next run."""
    home, binaries = options.place / f"scale-{count}", options.place / "bin"
    stamp = home / "made.json"
    if not stamp.exists():
        bench.say(f"making an archive of {count} segments")
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        made = bench.run([binaries / "synthetic-archive", home, count])
        bench.run([binaries / "pitr", "--config", home / "pitr.toml", "reindex"])
        stamp.write_text(made)
    return home, json.loads(stamp.read_text())


class Served:
    """An archive in a bucket."""

    def __init__(self, options, directory, home):
        words = [str(options.place / "bin/s3-server"), str(2 * ONE_WAY), str(directory)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        place = json.loads(self.process.stdout.readline())
        self.config = home / "bucket.toml"
        self.config.write_text(
            f'[repository]\npath = "s3://{place["bucket"]}/pg"\ns3_endpoint = "{place["endpoint"]}"\n'
            f's3_credentials_file = "{place["credentials"]}"\n\n'
            f'[cluster.main]\nsystem_identifier = "{bench.CLUSTER_OF_PLAN}"\n'
        )

    def stop(self):
        self.process.stdin.close()
        self.process.wait(60)


def cost(command):
    """Wall seconds, peak MiB and what a command says of its cost."""
    begun = time.monotonic()
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = process.stderr.read().decode(errors="replace")
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if status != 0:
        sys.exit(f"failed: {' '.join(map(str, command))}\n{said}")
    return time.monotonic() - begun, usage.ru_maxrss / 1024, json.loads(said.strip().splitlines()[-1])


def measure(options, served, made, count, note, names):
    """Rows of the table."""
    pitr = [options.place / "bin/pitr", "--config", served.config, "--json", "--stats"]
    near, far = ["plan", "--to", made["near"]], ["restore", "--dry-run", "--target", "/nowhere/at/all", "--to", made["far"]]
    commands = {
        "`status`": ["status"],
        "`plan`, the last backup, 2 % of the segments": near,
        "`restore --dry-run` from the first backup, all segments": [*far, "--backup", made["first_backup"]],
    }
    for name in list(commands)[:names]:
        runs = [cost([*pitr, *commands[name]]) for _ in range(options.repeat)]
        walls, peak, said = [run[0] for run in runs], max(run[1] for run in runs), runs[-1][2]
        bench.say(f"{count}{note}, {name}: {[round(wall, 2) for wall in walls]} s, {peak:.0f} MiB, {said['requests']} requests")
        yield (
            f"| {count:,}{note} | {name} | {statistics.median(walls):.2f} ({min(walls):.2f}–{max(walls):.2f}) | {peak:.0f} "
            f"| {said['list']:,} | {said['get'] + said['head']:,} | {said['received_bytes'] / 1e6:.1f} |"
        )


def measure_scale(options):
    """The part of the report."""
    rows = []
    for count in SEGMENTS:
        home, made = make(options, count)
        served = Served(options, home / "repository", home)
        rows += measure(options, served, made, count, "", 3)
        served.stop()
        if count == SEGMENTS_WITHOUT:
            catalog = home / "repository/main" / bench.CLUSTER_OF_PLAN / "catalog"
            aside = home / "catalog"
            catalog.rename(aside)
            served = Served(options, home / "repository", home)
            aside.rename(catalog)
            rows += measure(options, served, made, count, ", no roll-ups", 2)
            served.stop()
    lines = [
        "## Large archives in a bucket\n",
        f"Archives with five base backups and one commit a segment, in a bucket {ONE_WAY} ms away each way: that of a server in "
        "memory on the same two processors. Each run is a new process that knows nothing. LIST are pages of listings, GET reads "
        f"of objects or of their ends, received is without listings. By `scripts/bench scale`, {bench.machine()}; "
        f"medians of {options.repeat}.\n",
        "| segments | command | s (range) | peak MiB | LIST | GET, HEAD | received MB |",
        "|---|---|---|---|---|---|---|",
        *rows,
    ]
    return "\n".join(lines) + "\n"
