"""What a report of very many attempts costs: processor, memory and bytes an attempt, part by part.

The attempts are the recorded ones of the selftests, over and over, in a run folder that is gone
afterwards. Parts are timed by the processor's time of this process, each in a run of its own.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.world import run_bench, say, show, write_json
from migrate.analysis.traffic import arrivals_on_axis, guest_clock
from migrate.model import Run
from migrate.report.figure import figure
from migrate.report.figure_data import FigureData
from migrate.report.html import render
from migrate.report.table import run_table
from migrate.results.layout import run_name
from migrate.results.reader import AttemptRecord, RunRecord, read_attempt, read_run
from migrate.results.recording_file import RECORDING, read_recording
from migrate.results.tables import MACHINES, machines_to_parquet
from migrate.results.writer import RunWriter

RECORDINGS = Path(__file__).parents[1] / "selftests" / "recordings"


def make_run(root: Path, attempts: int) -> Path:
    """A run folder of so many attempts; each recorded one is a case."""
    run = Run(
        name=run_name(), began="2026-01-02T03:04:05+00:00", lab="local", command=(),
        controller={}, scenarios={}, seed=0, hosts=(),
    )  # fmt: skip
    writer = RunWriter.create(root, run)
    folders = sorted(path.parent for path in RECORDINGS.glob(f"*/{RECORDING}"))
    for place, folder in enumerate(folders):
        recording = read_recording(folder)
        assert recording is not None
        recorded = read_attempt(folder).attempt
        arrivals = arrivals_on_axis(recording.traffic, guest_clock(recording.traffic))
        samples = [sample for hop in recording.hops for sample in hop.qemu.samples]
        case = recorded.case.model_copy(update={"id": folder.name})
        files = {MACHINES: machines_to_parquet(recording.machines)}
        for number in range(1, len(range(place, attempts, len(folders))) + 1):
            attempt = recorded.model_copy(update={"case": case, "number": number})
            writer.write_attempt(attempt, recording.events, samples, arrivals, files)
    return writer.folder


def processor_s(work: Callable[[], object]) -> float:
    """Of this process."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def _data(record: AttemptRecord) -> FigureData:
    parts = (record.arrivals(), record.samples(), record.events(), record.machines())
    return FigureData(record.attempt, *parts)


def measure(folder: Path) -> dict[str, float]:
    """Milliseconds of processor and bytes, an attempt; of the whole, seconds and MiB."""
    record = read_run(folder)
    render(record)  # what is imported once
    attempts = [entry.attempt for entry in record.attempts]
    count = len(attempts)
    data: Sequence[FigureData] = ()

    def read_large() -> None:
        nonlocal data
        data = [_data(entry) for entry in record.attempts]

    parts: dict[str, Callable[[], object]] = {
        "read attempt.json": lambda: read_run(folder),
        "read packets, events, samples, machines": read_large,
        "draw the figure": lambda: [figure(one) for one in data],
        "the tables of the run": lambda: run_table(record.run, attempts),
        "the whole report": lambda: render(read_run(folder)),
    }
    costs = {name: 1000 * processor_s(work) / count for name, work in parts.items()}
    whole = render(record)
    fixed = render(RunRecord(folder, record.run, ()))
    return {
        **{f"{name}, ms": round(cost, 2) for name, cost in costs.items()},
        "bytes": round((len(whole.encode()) - len(fixed.encode())) / count),
        "bytes of a figure": round(sum(len(figure(one).encode()) for one in data) / count),
        "fixed bytes": len(fixed.encode()),
        "attempts": count,
        "seconds for all": round(costs["the whole report"] * count / 1000, 2),
        "MiB at most": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attempts", type=int, default=200)
    parser.add_argument("--json", type=Path, help="keep the figures there")
    options = parser.parse_args()
    with TemporaryDirectory() as root:
        say(f"making a run of {options.attempts} attempts")
        result = measure(make_run(Path(root), options.attempts))
    show("A report, by attempt", ("what", "value"), [(k, str(v)) for k, v in result.items()])
    write_json(options.json, result)
    return 0


if __name__ == "__main__":
    sys.exit(run_bench(main))
