"""A run of several cases with several attempts, put together of the recorded ones.

Each recorded attempt is one of its case as it was; the others are the same with all its lengths
made longer or shorter by one factor. So a report of it has what a long night's has.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from migrate.analysis.traffic import arrivals_on_axis, guest_clock
from migrate.model import Attempt, Capability, Gap, GapExplanation, Run, Span, Stall
from migrate.results.reader import read_attempt
from migrate.results.recording_file import read_recording
from migrate.results.writer import RunWriter
from selftests.doubles import synthetic

RECORDINGS = Path(__file__).parents[1] / "recordings"
Length = TypeVar("Length", Gap, Stall)


def names() -> list[str]:
    """Of all recordings."""
    return sorted(path.name for path in RECORDINGS.iterdir() if path.is_dir())


def head(**fields: Any) -> Run:
    """Of a run whose guests were emulated."""
    why = "/dev/kvm opens, but Linux did not boot under it"
    kvm = Capability(name="kvm", able=False, reason=why)
    (fact,) = synthetic.run().hosts[:1]
    hosts = tuple(
        fact.model_copy(update={"host": name, "capabilities": (kvm,)}) for name in ("a", "b")
    )
    return synthetic.run(**{"hosts": hosts, **fields})


def write_run(root: Path, recordings: Sequence[str], attempts: int, **fields: Any) -> RunWriter:
    """A whole run folder below ``root``: so many attempts of each recording's case."""
    writer = RunWriter.create(root, head(**fields))
    chance = random.Random(5)
    for name in recordings:
        recorded = read_attempt(RECORDINGS / name).attempt
        recording = read_recording(RECORDINGS / name)
        assert recording is not None
        arrivals = arrivals_on_axis(recording.traffic, guest_clock(recording.traffic))
        samples = [sample for hop in recording.hops for sample in hop.qemu.samples]
        for number in range(1, attempts + 1):
            factor = 1.0 if number == 1 else chance.gammavariate(12, 1 / 12)
            attempt = longer(recorded, factor, number)
            writer.write_attempt(attempt, recording.events, samples, arrivals)
    return writer


def longer(attempt: Attempt, factor: float, number: int) -> Attempt:
    """The same attempt with another number, all its lengths as many times as long."""

    def scaled(value: Length) -> Length:
        return value.model_copy(update={"length_ns": round(value.length_ns * factor)})

    downtime = attempt.reported.downtime_ms
    reported = {"downtime_ms": None if downtime is None else round(downtime * factor)}
    return attempt.model_copy(
        update={
            "number": number,
            "gaps": None if attempt.gaps is None else tuple(map(scaled, attempt.gaps)),
            "stalls": None if attempt.stalls is None else tuple(map(scaled, attempt.stalls)),
            "explained": None
            if attempt.explained is None
            else tuple(_explanation(gap, factor) for gap in attempt.explained),
            "reported": attempt.reported.model_copy(update=reported),
        }
    )


def _explanation(gap: GapExplanation, factor: float) -> GapExplanation:
    def place(at_ns: int) -> int:
        return gap.begin_ns + round((at_ns - gap.begin_ns) * factor)

    def scaled(span: Span) -> Span:
        return span.model_copy(
            update={"begin_ns": place(span.begin_ns), "end_ns": place(span.end_ns)}
        )

    spans = tuple(map(scaled, gap.spans))
    return gap.model_copy(update={"length_ns": round(gap.length_ns * factor), "spans": spans})
