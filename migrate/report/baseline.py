"""A run beside earlier runs of the same lab and case: which ones, and what is compared of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np

from migrate.analysis.figures import COLUMNS, FLOOR, FigureColumn, FigureValue
from migrate.errors import MeasurementError
from migrate.model import SCHEMA, Attempt, Case, Run
from migrate.results.run_folder import RunRecord, find_run, read_run
from migrate.statistics.regression import Sample
from migrate.statistics.spread import Span

FIGURES = tuple(column for column in COLUMNS if column is not FLOOR)
FAILED = "failed attempts"
LAST = 10
"""Earlier runs of a case that are its baseline: older ones tell of a lab that is no more."""
NO_SETTING = {"id", "expect", "needs", "source_file", "row"}
"""Of a case: what it is called and what is asked of it, not what is done."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """``used``: the runs that each case is held against, oldest first; ``notes``: what to know of
    them, such as versions that changed; ``left_out``: runs that were not used, and why."""

    samples: tuple[Sample, ...]
    used: dict[str, tuple[str, ...]]
    notes: tuple[str, ...]
    left_out: tuple[str, ...]


def key(case: Case) -> str:
    """A digest of the settings that matter: equal for cases that do the same to the same guest.

    To ask for dirty rates is one: they are measured before and during the move.
    """
    settings = case.model_dump(mode="json", exclude=NO_SETTING)
    settings["dirty rates"] = case.expect.dirty_rate_within is not None
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def folders(places: Sequence[str], results: Path) -> list[Path]:
    """Run folders of ``places``, newest first: runs by path or name, or folders of runs.

    Raises MeasurementError for a place that is neither.
    """
    found: dict[Path, None] = {}
    for place in places:
        runs = [path.parent for path in Path(place).glob("*/run.json")]
        alone = not runs or (Path(place) / "run.json").is_file()
        found |= dict.fromkeys(
            path.resolve() for path in ([find_run(results, place)] if alone else runs)
        )
    return sorted(found, key=lambda path: path.name, reverse=True)


def gather(new: RunRecord, places: Sequence[Path], last: int = LAST) -> Baseline:
    """What of ``new`` can be compared, figure by figure, with the ``last`` runs of each case.

    A run that can't be read, is of another lab or is no earlier one is left out, and said so.
    """
    cases = _by_case(new)
    earlier: dict[str, list[RunRecord]] = {one: [] for one in cases}
    left_out, notes = [], [*_cut(new)]
    for folder in places:
        if all(len(runs) >= last for runs in earlier.values()):
            break
        if folder == new.folder.resolve():
            continue
        try:
            record = read_run(folder)
        except MeasurementError as error:
            left_out.append(f"{folder.name}: {error}")
            continue
        names = {other.run.name for runs in earlier.values() for other in runs}
        if why := _unfit(record.run, new.run, names):
            left_out.append(f"{folder.name}: {why}")
            continue
        has = earlier.keys() & _by_case(record).keys()
        wanted = [one for one in has if len(earlier[one]) < last]
        if not wanted:
            why = f"older than the last {last}" if has else "none of this run's cases"
            left_out.append(f"{folder.name}: {why}")
        for one in wanted:
            earlier[one].append(record)
    used = {record.folder: record for runs in earlier.values() for record in runs}
    for record in used.values():
        notes += _cut(record)
    notes += _changed(new.run, [record.run for record in used.values()])
    samples: list[Sample] = []
    for one, attempts in cases.items():
        before = [_by_case(record)[one] for record in reversed(earlier[one])]
        samples += _samples(attempts, before)
        notes += _uneven(attempts, before)
    named = {
        _label(attempts): tuple(record.folder.name for record in reversed(earlier[one]))
        for one, attempts in cases.items()
    }
    return Baseline(tuple(samples), named, tuple(dict.fromkeys(notes)), tuple(left_out))


def _by_case(record: RunRecord) -> dict[str, list[Attempt]]:
    found: dict[str, list[Attempt]] = {}
    for one in record.attempts:
        found.setdefault(key(one.attempt.case), []).append(one.attempt)
    return found


def _label(attempts: Sequence[Attempt]) -> str:
    return " and ".join(dict.fromkeys(attempt.case.id for attempt in attempts))


# --- which runs -----------------------------------------------------------------------------------


def _lab(run: Run) -> dict[str, object]:
    """What makes two labs the same: their figures can be held against one another."""
    return {
        "lab": run.lab,
        "kind": run.lab_kind,
        "hosts": sorted(host.host for host in run.hosts),
        "KVM on": sorted(host.host for host in run.hosts if host.capability("kvm").able),
    }


def _unfit(run: Run, new: Run, used: Collection[str]) -> str:
    ours, theirs = _lab(new), _lab(run)
    unlike = [name for name, value in ours.items() if theirs[name] != value]
    if unlike:
        said = ", ".join(f"{name} {_words(theirs[name])}" for name in unlike)
        return f"another lab: {said}"
    if run.name == new.name:
        return "the same run"
    if run.name in used:
        return "a copy of one that is used"
    begun = _when(run), _when(new)
    if None in begun:
        return "no time of its begin that could be read"
    return "" if begun < begun[::-1] else "no earlier run"


def _words(value: object) -> str:
    return (", ".join(value) or "none") if isinstance(value, list) else str(value)


def _when(run: Run) -> tuple[datetime, str] | None:
    try:
        begun = datetime.fromisoformat(run.began)
    except ValueError:
        return None
    return (begun if begun.tzinfo else begun.replace(tzinfo=UTC)), run.name


def _cut(record: RunRecord) -> Iterator[str]:
    name = record.folder.name
    if record.unfinished:
        yield f"{name} was cut off: {', '.join(record.unfinished)} not in it"
    if record.run.schema_number < SCHEMA:
        yield (
            f"{name} has schema {record.run.schema_number}, and this migrate-lab {SCHEMA}: what it "
            "did not have is not measured"
        )


def _changed(new: Run, used: Sequence[Run]) -> Iterator[str]:
    """Versions that the baseline did not have, or not alone."""
    if not used:
        return
    for name, version in _versions(new).items():
        others = dict.fromkeys(_versions(run).get(name, "none") for run in used)
        if set(others) != {version}:
            yield f"{name}: {version}, in the baseline {' and '.join(others)}"


def _versions(run: Run) -> dict[str, str]:
    found = {f"controller, {name}": version for name, version in run.controller.items()}
    for host in run.hosts:
        every = {"root": host.root, "kernel": host.kernel, **host.versions}
        found |= {f"{host.host}, {name}": version for name, version in every.items()}
    return found


# --- what of them ---------------------------------------------------------------------------------


def _uneven(new: Sequence[Attempt], earlier: Sequence[Sequence[Attempt]]) -> Iterator[str]:
    label, other = _label(new), {attempt.case.expect for run in earlier for attempt in run}
    if other - {new[0].case.expect}:
        yield f"{label}: attempts of which other things were expected don't count as failed or not"
    strayed = [attempt for attempt in new if not _as_asked(attempt)]
    if strayed:
        yield (
            f"{label}: {len(strayed)} of {len(new)} attempts ended otherwise than they should: "
            "they are failed ones, and in no other figure"
        )


def _as_asked(attempt: Attempt) -> bool:
    return attempt.outcome == attempt.case.expect.outcome


def _samples(new: Sequence[Attempt], earlier: Sequence[Sequence[Attempt]]) -> Iterator[Sample]:
    label, expect = _label(new), new[0].case.expect

    def sample(figure: str, seen: Callable[[Attempt], Span | None], error: float) -> Sample:
        before = tuple(tuple(map(seen, run)) for run in earlier)
        return Sample(label, figure, before, tuple(map(seen, new)), error)

    for column in FIGURES:
        error = max(_error(column, new), _error(column, [one for run in earlier for one in run]))
        yield sample(column.name, partial(seen, column), error)
    rate = tuple(
        tuple(_failed(attempt) for attempt in run if attempt.case.expect == expect)
        for run in (*earlier, new)
    )
    yield Sample(label, FAILED, rate[:-1], rate[-1], rate=True)


def seen(column: FigureColumn, attempt: Attempt) -> Span | None:
    """From the least to the most that a figure can be, in ms; None: not measured, or the attempt
    ended otherwise than asked, so that its times are another story's."""
    measured = column.measure(attempt) if _as_asked(attempt) else None
    if measured is None or (column.outage and attempt.floor is None):
        return None
    if measured.at_least:
        return measured.ms, float("inf")
    in_floor = column.outage and not measured.ms
    return measured.ms, measured.error_ms if in_floor else measured.ms


def _failed(attempt: Attempt) -> Span:
    return (0.0, 0.0) if attempt.passed else (1.0, 1.0)


def _error(column: FigureColumn, attempts: Sequence[Attempt]) -> float:
    """In the middle: what a value may be off, and of an outage no less than the meter's floor."""
    every: list[tuple[FigureValue, float]] = [
        (measured, FLOOR.measure(attempt).ms if column.outage and attempt.floor else 0.0)  # type: ignore[union-attr]
        for attempt in attempts
        if (measured := column.measure(attempt)) is not None
    ]
    return float(np.median([max(one.error_ms, floor) for one, floor in every])) if every else 0.0
