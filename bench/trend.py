"""How long a question to a store of very many attempts takes, and how large the store is.

The store is made up, in a folder that is gone afterwards: run folders with a ``run.json`` and an
``attempts.parquet``, as a run leaves them, without the attempts' own folders. The command is timed
from its start to its end, output and all. First: nothing is cached. Cold: the files' pages are not
in memory (``posix_fadvise``). One new: one run was added since.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from migrate.clock import now_ns
from migrate.model import HostFacts, Run
from migrate.results.database import CACHE
from migrate.results.index import AttemptRow, rows_table
from migrate.results.layout import INDEX
from migrate.results.prune import BULKY, BULKY_OF_RUN
from migrate.results.tables import to_parquet

MODES = ("virtio", "vhost-user", "vdpa", "hostdev", "failover")
BEGAN = datetime(2018, 1, 1, tzinfo=UTC)
GOAL_S = 2.0


class CommandCost(NamedTuple):
    """Seconds from start to end, and of processors: on a busy machine the two differ."""

    seconds: float
    processor_s: float


def make_run(root: Path, number: int, attempts: int, lot: random.Random) -> None:
    """A night's run: cases of five modes; the hosts' QEMU changes now and then."""
    began = BEGAN + timedelta(days=number)
    name, qemu = f"{began:%Y%m%d-%H%M%S}-{number:06d}", f"10.0.{number // 100}"
    host = HostFacts(
        host="a", root="debian-13", kernel="6.12.107", versions={"qemu": qemu}, capabilities=()
    )
    run = Run(
        name=name, began=began.isoformat(), lab="rack", command=(), controller={}, scenarios={},
        seed=number, hosts=(host, host.model_copy(update={"host": "b"})),
    )  # fmt: skip
    rows = [_row(run, qemu, case, lot) for case in range(attempts)]
    (root / name).mkdir()
    (root / name / "run.json").write_text(run.model_dump_json(indent=1))
    (root / name / INDEX).write_bytes(to_parquet(rows_table(rows), small=True))


def _row(run: Run, qemu: str, number: int, lot: random.Random) -> AttemptRow:
    mode = MODES[number % len(MODES)]

    def length(typical: float) -> float | None:
        return None if lot.random() < 0.02 else lot.lognormvariate(0, 0.4) * typical

    lengths = {
        name: length(100.0)
        for name, field in AttemptRow.model_fields.items()
        if name.endswith("_ms") and field.annotation == (float | None)
    }
    # One outage of ten is in the floor, or had not ended.
    lengths |= {name: None for name in lengths if "_most" in name and lot.random() < 0.9}
    ends = {
        f"{end}_{what}": version
        for end in ("source", "target")
        for what, version in (
            *(("root", "debian-13"), ("qemu", qemu), ("libvirt", "11.3.0")),
            *(("kernel", "6.12.107"), ("ovs", "3.5.0")),
        )
    }
    fields = {**lengths, **ends, "egress_open": lot.random() < 0.01, "ingress_open": False}
    return AttemptRow.model_validate(
        {
            "kind": "attempt", "run": run.name, "began": f"{run.began[:19]}Z", "lab": run.lab,
            "lab_kind": "local", "case_id": f"nightly-{mode}-{number % 10}", "mode": mode,
            "ring": "split", "definition": "0123456789ab", "number": number // 10 + 1,
            "outcome": "completed", "passed": lot.random() > 0.02, "result": "pass",
            "ended_as_asked": True, "source": "a", "target": "b",
            **fields,
        }
    )  # fmt: skip


def timed(root: Path, *words: str) -> CommandCost:
    """What ``migrate-lab trend`` took."""
    command = [sys.executable, "-m", "migrate.cli", "trend", "--results", str(root), *words]
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), now_ns()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds, after = (now_ns() - begin) / 1e9, resource.getrusage(resource.RUSAGE_CHILDREN)
    work = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return CommandCost(round(seconds, 2), round(work, 2))


def forget(root: Path) -> None:
    """Have the kernel drop what it holds of the store's files."""
    for path in (root / CACHE, *root.glob(f"*/{INDEX}")):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def folders(results: Path) -> dict[str, float]:
    """Bytes an attempt of real run folders, all and what a pruned one keeps."""
    every = [path for path in results.glob("*/**/*") if path.is_file()]
    attempts = sum(path.name == "attempt.json" for path in every)
    bulky = [path for path in every if _is_bulky(path)]
    whole, gone = (sum(path.stat().st_size for path in sizes) for sizes in (every, bulky))
    return {"attempts": attempts, "whole": whole / attempts, "pruned": (whole - gone) / attempts}


def _is_bulky(path: Path) -> bool:
    return (
        path.name in BULKY
        or path.parent.name == "logs"
        or any(path.match(pattern) for pattern in BULKY_OF_RUN)
    )


def measure(root: Path, options: argparse.Namespace) -> dict[str, object]:
    """Make the store, and time queries."""
    lot, attempts = random.Random(1), options.attempts // options.runs
    for number in range(options.runs):
        make_run(root, number, attempts, lot)
    result: dict[str, object] = {"attempts": attempts * options.runs, "runs": options.runs}
    result["first"] = timed(root)
    questions: dict[str, Sequence[str]] = {
        "all cases by run": (),
        "all cases by day, as JSON": ("--by", "day", "--json"),
        "one case": ("--case", "nightly-vdpa-2", "--figure", "downtime"),
        "a page": ("--mode", "virtio", "--html", str(root / "trend.html")),
    }
    warm = {
        name: [timed(root, *words) for _ in range(options.rounds)]
        for name, words in questions.items()
    }
    result["warm"] = warm
    cold = []
    for _ in range(options.rounds):
        forget(root)
        cold.append(timed(root))
    make_run(root, options.runs, attempts, lot)
    result |= {"cold": cold, "one_new": timed(root)}
    indexes = sum(path.stat().st_size for path in root.glob(f"*/{INDEX}"))
    total = attempts * (options.runs + 1)
    result["index_bytes"] = indexes / total
    result["cache_bytes"] = (root / CACHE).stat().st_size / total
    worst = max(cost.seconds for values in (cold, *warm.values()) for cost in values)
    return {**result, "worst_s": worst, "goal_s": GOAL_S, "reached": worst <= GOAL_S}


def main() -> int:
    """1: a question took longer than the goal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attempts", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=2_500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folders", type=Path, help="real run folders, to say their size")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="migrate-lab-trend-") as folder:
        results = measure(Path(folder), asked)
    if asked.folders:
        results["folder_bytes"] = folders(asked.folders)
    sys.stdout.write(json.dumps(results, indent=1) + "\n")
    return 0 if results["reached"] else 1


if __name__ == "__main__":
    sys.exit(main())
