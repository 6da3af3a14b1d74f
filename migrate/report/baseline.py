"""Earlier runs of the same lab and case: which ones, and which of their figures are compared."""

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
from migrate.results.reader import RunRecord, find_run, read_run
from migrate.statistics.censored import Interval
from migrate.statistics.regression import FigureSample

FIGURES = tuple(column for column in COLUMNS if column is not FLOOR)
FAILED = "failed attempts"
LAST = 10
"""Earlier runs of a case that are its baseline: the lab of older ones has changed since."""
NO_SETTING = {"id", "expect", "needs", "source_file", "row"}
"""Keys of a case that change its name and what is expected, and nothing that is done."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """``used``: the runs that each case is compared with, oldest first; ``notes``: what to know of
    them, such as versions that changed; ``left_out``: runs that were not used, and why."""

    samples: tuple[FigureSample, ...]
    used: dict[str, tuple[str, ...]]
    notes: tuple[str, ...]
    left_out: tuple[str, ...]


def case_key(case: Case) -> str:
    """A digest of a case's settings: equal for cases that do the same to the same guest.

    Asking for dirty rates is a setting: they are measured before and during the move.
    """
    settings = case.model_dump(mode="json", exclude=NO_SETTING)
    settings["dirty rates"] = case.expect.dirty_rate_within is not None
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def run_folders(places: Sequence[str], results: Path) -> list[Path]:
    """Run folders of ``places``, newest first: runs by path or name, or folders of runs.

    Raises MeasurementError for a place that is neither.
    """
    folders: dict[Path, None] = {}
    for place in places:
        runs = [path.parent for path in Path(place).glob("*/run.json")]
        is_run = not runs or (Path(place) / "run.json").is_file()
        folders |= dict.fromkeys(
            path.resolve() for path in ([find_run(results, place)] if is_run else runs)
        )
    return sorted(folders, key=lambda path: path.name, reverse=True)


def gather_baseline(new: RunRecord, places: Sequence[Path], last: int = LAST) -> Baseline:
    """The figures of ``new`` and of the ``last`` comparable runs of each case.

    A run that can't be read, is of another lab or is no earlier one is in ``left_out``, with why.
    """
    cases = _by_case(new)
    earlier: dict[str, list[RunRecord]] = {key: [] for key in cases}
    left_out, notes = [], [*_incomplete(new)]
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
        if why := _why_unfit(record.run, new.run, names):
            left_out.append(f"{folder.name}: {why}")
            continue
        has = earlier.keys() & _by_case(record).keys()
        wanted = [key for key in has if len(earlier[key]) < last]
        if not wanted:
            why = f"older than the last {last}" if has else "none of this run's cases"
            left_out.append(f"{folder.name}: {why}")
        for key in wanted:
            earlier[key].append(record)
    used = {record.folder: record for runs in earlier.values() for record in runs}
    for record in used.values():
        notes += _incomplete(record)
    notes += _version_changes(new.run, [record.run for record in used.values()])
    samples: list[FigureSample] = []
    for key, attempts in cases.items():
        before = [_by_case(record)[key] for record in reversed(earlier[key])]
        samples += _figure_samples(attempts, before)
        notes += _unequal_notes(attempts, before)
    named = {
        _case_ids(attempts): tuple(record.folder.name for record in reversed(earlier[key]))
        for key, attempts in cases.items()
    }
    return Baseline(tuple(samples), named, tuple(dict.fromkeys(notes)), tuple(left_out))


def _by_case(record: RunRecord) -> dict[str, list[Attempt]]:
    cases: dict[str, list[Attempt]] = {}
    for record_of_attempt in record.attempts:
        cases.setdefault(case_key(record_of_attempt.attempt.case), []).append(
            record_of_attempt.attempt
        )
    return cases


def _case_ids(attempts: Sequence[Attempt]) -> str:
    return " and ".join(dict.fromkeys(attempt.case.id for attempt in attempts))


# --- which runs -----------------------------------------------------------------------------------


def _lab(run: Run) -> dict[str, object]:
    """The properties of a run's lab that must be equal for figures to be compared."""
    return {
        "lab": run.lab,
        "kind": run.lab_kind,
        "hosts": sorted(host.host for host in run.hosts),
        "KVM on": sorted(host.host for host in run.hosts if host.capability("kvm").able),
    }


def _why_unfit(run: Run, new: Run, used: Collection[str]) -> str:
    new_lab, other_lab = _lab(new), _lab(run)
    unlike = [name for name, value in new_lab.items() if other_lab[name] != value]
    if unlike:
        listed = ", ".join(f"{name} {_in_words(other_lab[name])}" for name in unlike)
        return f"another lab: {listed}"
    if run.name == new.name:
        return "the same run"
    if run.name in used:
        return "a copy of one that is used"
    times = _begin_time(run), _begin_time(new)
    if None in times:
        return "no time of its begin that could be read"
    return "" if times < times[::-1] else "no earlier run"


def _in_words(value: object) -> str:
    return (", ".join(value) or "none") if isinstance(value, list) else str(value)


def _begin_time(run: Run) -> tuple[datetime, str] | None:
    try:
        begun = datetime.fromisoformat(run.began)
    except ValueError:
        return None
    return (begun if begun.tzinfo else begun.replace(tzinfo=UTC)), run.name


def _incomplete(record: RunRecord) -> Iterator[str]:
    name = record.folder.name
    if record.unfinished:
        yield f"{name} was cut off: {', '.join(record.unfinished)} not in it"
    if record.run.schema_number < SCHEMA:
        yield (
            f"{name} has schema {record.run.schema_number}, and this migrate-lab {SCHEMA}: what it "
            "did not have is not measured"
        )


def _version_changes(new: Run, used: Sequence[Run]) -> Iterator[str]:
    """Versions that not all runs of the baseline had."""
    if not used:
        return
    for name, version in _versions(new).items():
        before = dict.fromkeys(_versions(run).get(name, "none") for run in used)
        if set(before) != {version}:
            yield f"{name}: {version}, in the baseline {' and '.join(before)}"


def _versions(run: Run) -> dict[str, str]:
    versions = {f"controller, {name}": version for name, version in run.controller.items()}
    for host in run.hosts:
        of_host = {"root": host.root, "kernel": host.kernel, **host.versions}
        versions |= {f"{host.host}, {name}": version for name, version in of_host.items()}
    return versions


# --- which figures --------------------------------------------------------------------------------


def _unequal_notes(new: Sequence[Attempt], earlier: Sequence[Sequence[Attempt]]) -> Iterator[str]:
    label, other = _case_ids(new), {attempt.case.expect for run in earlier for attempt in run}
    if other - {new[0].case.expect}:
        yield f"{label}: attempts of which other things were expected don't count as failed or not"
    strayed = [attempt for attempt in new if not _ended_as_expected(attempt)]
    if strayed:
        yield (
            f"{label}: {len(strayed)} of {len(new)} attempts ended otherwise than they should: "
            "they are failed ones, and in no other figure"
        )


def _ended_as_expected(attempt: Attempt) -> bool:
    return attempt.outcome == attempt.case.expect.outcome


def _figure_samples(
    new: Sequence[Attempt], earlier: Sequence[Sequence[Attempt]]
) -> Iterator[FigureSample]:
    label, expect = _case_ids(new), new[0].case.expect

    def sample(
        figure: str, seen: Callable[[Attempt], Interval | None], error: float
    ) -> FigureSample:
        before = tuple(tuple(map(seen, run)) for run in earlier)
        return FigureSample(label, figure, before, tuple(map(seen, new)), error)

    for column in FIGURES:
        error = max(
            _error(column, new), _error(column, [attempt for run in earlier for attempt in run])
        )
        yield sample(column.name, partial(figure_interval, column), error)
    rate = tuple(
        tuple(_failed(attempt) for attempt in run if attempt.case.expect == expect)
        for run in (*earlier, new)
    )
    yield FigureSample(label, FAILED, rate[:-1], rate[-1], rate=True)


def figure_interval(column: FigureColumn, attempt: Attempt) -> Interval | None:
    """The least and the most that a figure can be, in ms; None: not measured, or the attempt did
    not end as expected, so that its times do not compare."""
    measured = column.measure(attempt) if _ended_as_expected(attempt) else None
    if measured is None or (column.outage and attempt.floor is None):
        return None
    if measured.at_least:
        return measured.ms, float("inf")
    in_floor = column.outage and not measured.ms
    return measured.ms, measured.error_ms if in_floor else measured.ms


def _failed(attempt: Attempt) -> Interval:
    return (0.0, 0.0) if attempt.passed else (1.0, 1.0)


def _error(column: FigureColumn, attempts: Sequence[Attempt]) -> float:
    """The median error of a figure's values; of an outage no less than the meter's floor."""
    errors: list[tuple[FigureValue, float]] = [
        (measured, FLOOR.measure(attempt).ms if column.outage and attempt.floor else 0.0)  # type: ignore[union-attr]
        for attempt in attempts
        if (measured := column.measure(attempt)) is not None
    ]
    return (
        float(np.median([max(value.error_ms, floor) for value, floor in errors])) if errors else 0.0
    )
