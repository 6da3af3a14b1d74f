"""Earlier runs of the same lab and case: which ones, and which of their figures are compared."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path

from migrate.analysis.figures import ended_as_asked
from migrate.errors import MeasurementError
from migrate.model import SCHEMA, Attempt, Run
from migrate.report.baseline_cases import (
    CaseId,
    EarlierCase,
    by_case,
    case_labels,
    names_tried,
    same_case,
    untold_cases,
)
from migrate.report.baseline_figures import figure_samples
from migrate.results.layout import damaged
from migrate.results.reader import RunRecord, find_run, read_run, runs_below
from migrate.statistics.comparison import Comparison, FigureSample

LAST = 10
"""Earlier runs of a case that are its baseline: the lab of older ones has changed since."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """``used``: the runs that each case is compared with, oldest first; ``untold``: cases of which
    there is nothing to compare, and why; ``notes``: what to know, such as versions that changed;
    ``left_out``: runs that were not used, and why."""

    samples: tuple[FigureSample, ...]
    used: dict[str, tuple[str, ...]]
    untold: tuple[Comparison, ...]
    notes: tuple[str, ...]
    left_out: tuple[str, ...]

    def only(self, pattern: str) -> Baseline:
        """That of the cases whose id matches a pattern, as a shell's."""
        return replace(
            self,
            samples=tuple(each for each in self.samples if fnmatchcase(each.case, pattern)),
            untold=tuple(each for each in self.untold if fnmatchcase(each.case, pattern)),
            used={case: runs for case, runs in self.used.items() if fnmatchcase(case, pattern)},
        )


def run_folders(places: Sequence[str], results: Path) -> list[Path]:
    """Run folders of ``places``, newest first: runs by path or name, or folders of runs.

    Raises MeasurementError for a place that is neither.
    """
    folders: dict[Path, None] = {}
    for place in places:
        runs, refused = runs_below(Path(place))
        for folder, why in refused.items():
            raise damaged(folder, why)
        is_run = not runs or os.path.isfile(Path(place, "run.json"))  # noqa: PTH113 - never raises
        folders |= dict.fromkeys(
            path.resolve() for path in ([find_run(results, place)] if is_run else runs)
        )
    return sorted(folders, key=lambda path: path.name, reverse=True)


def gather_baseline(new: RunRecord, places: Sequence[Path], last: int = LAST) -> Baseline:
    """The figures of ``new`` and of the ``last`` comparable runs of each case.

    A run that can't be read, is of another lab or is no earlier one is in ``left_out``, with why.
    """
    cases = by_case(new)
    earlier: dict[CaseId, list[EarlierCase]] = {case: [] for case in cases}
    related: list[RunRecord] = []
    left_out: list[str] = []
    tried = names_tried(new)
    for folder in places:
        if len(related) >= last and all(len(runs) >= last for runs in earlier.values()):
            break
        if folder == new.folder.resolve():
            continue
        try:
            record = read_run(folder)
        except MeasurementError as error:
            left_out.append(f"{folder.name}: {error}")
            continue
        if record.unreadable:
            left_out.append(f"{folder.name}: {record.unreadable[0].describe()}")
            continue
        if why := _why_unfit(record.run, new.run, {other.run.name for other in related}):
            left_out.append(f"{folder.name}: {why}")
            continue
        of_run = by_case(record)
        has = {case: match for case in cases if (match := same_case(case, cases, of_run))}
        wanted = [case for case in has if len(earlier[case]) < last]
        if wanted or tried & {case.name for case in of_run}:
            related.append(record)
        if not wanted:
            why = f"older than the last {last}" if has else "none of this run's cases"
            left_out.append(f"{folder.name}: {why}")
        for case in wanted:
            earlier[case].append(EarlierCase(record, has[case]))
    return _baseline(new, cases, earlier, related[:last], left_out)


def _baseline(
    new: RunRecord,
    cases: Mapping[CaseId, Sequence[Attempt]],
    earlier: Mapping[CaseId, Sequence[EarlierCase]],
    related: Sequence[RunRecord],
    left_out: Sequence[str],
) -> Baseline:
    used = {run.record.folder: run.record for runs in earlier.values() for run in runs}
    notes = [*_incomplete(new), *(note for run in used.values() for note in _incomplete(run))]
    notes += _version_changes(new.run, [record.run for record in used.values()])
    samples: list[FigureSample] = []
    labels = case_labels(cases)
    for case, attempts in cases.items():
        before = [run.attempts for run in reversed(earlier[case])]
        samples += figure_samples(labels[case], attempts, before)
        notes += _case_notes(labels[case], attempts, before)
    return Baseline(
        tuple(samples),
        {
            labels[case]: tuple(run.record.folder.name for run in reversed(runs))
            for case, runs in earlier.items()
        },
        tuple(untold_cases(new, cases, related)),
        tuple(dict.fromkeys(notes)),
        tuple(left_out),
    )


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
        return "a copy of a run in the baseline"
    times = _begin_time(run), _begin_time(new)
    if None in times:
        return "its start time is unreadable"
    return "" if times < times[::-1] else "not earlier than this run"


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


def _case_notes(
    name: str, new: Sequence[Attempt], earlier: Sequence[Sequence[Attempt]]
) -> Iterator[str]:
    other = {attempt.case.expect for run in earlier for attempt in run}
    if other - {new[0].case.expect}:
        yield f"{name}: attempts with other expectations do not count in the rate of failures"
    void = sum(bool(attempt.void) for attempt in new)
    if void:
        yield f"{name}: {void} of {len(new)} attempts are void and in no figure"
    strayed = [attempt for attempt in new if not attempt.void and not ended_as_asked(attempt)]
    if strayed:
        yield (
            f"{name}: {len(strayed)} of {len(new)} attempts did not end as expected: "
            "they count as failed, and are in no other figure"
        )
