"""One row an attempt: ``attempts.parquet`` of a run, for queries over many runs.

It is made of the rest of the run folder and holds nothing of its own, so it can be made anew at any
time. Rows are of kinds: tries that left no attempt, unfinished attempts and unreadable ones are
rows too, so that no reader passes over them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import ConfigDict

from migrate.analysis.figures import (
    COLUMNS,
    PART_COLUMNS,
    FigureValue,
    ended_as_asked,
    longest_outage,
)
from migrate.errors import MeasurementError
from migrate.model import DIRECTIONS, SCHEMA, Attempt, Case, HostFacts, Run, Value
from migrate.results.files import write_file
from migrate.results.layout import INDEX
from migrate.results.reader import read_attempts, read_head, unfinished
from migrate.results.tables import to_arrow, to_parquet

RowKind = Literal["attempt", "no-attempt", "cut-off", "damaged", "empty"]
"""``no-attempt``: a try that left none (a mishap); ``empty``: a run without any of the others."""


class AttemptRow(Value):
    """One attempt's row. Lengths in ms; None is not measured.

    An outage that is not known exactly lies between two of them: in the floor from 0 to
    ``…_most_ms``; one that had not ended has no upper end, infinity there. None there: it is exact.
    No median is to be had of either column alone.
    """

    model_config = ConfigDict(allow_inf_nan=True)
    schema_number: int = SCHEMA
    kind: RowKind
    run: str
    began: str
    """When the run began: ``2026-01-02T03:04:05Z``, always UTC, so that texts sort by time."""
    lab: str
    lab_kind: str
    case_id: str | None = None
    mode: str | None = None
    ring: str | None = None
    definition: str | None = None
    """A digest of the case: under the same id another digest is another case."""
    number: int | None = None
    outcome: str | None = None
    passed: bool | None = None
    result: str | None = None
    """``pass``, ``fail`` or ``void``."""
    ended_as_asked: bool | None = None
    """False: its figures are of another end than was asked for, or of a void attempt."""
    downtime_ms: float | None = None
    total_ms: float | None = None
    egress_ms: float | None = None
    egress_most_ms: float | None = None
    ingress_ms: float | None = None
    ingress_most_ms: float | None = None
    egress_in_floor: bool | None = None
    ingress_in_floor: bool | None = None
    """Nothing was seen: it is no longer than what the meter sees, ``…_most_ms``."""
    egress_open: bool | None = None
    """At least this long: the observation ended before the gap did."""
    ingress_open: bool | None = None
    start_egress_ms: float | None = None
    start_egress_most_ms: float | None = None
    """The longest gap of each part of the move; None also where the move had no such part."""
    switchover_egress_ms: float | None = None
    switchover_egress_most_ms: float | None = None
    tail_egress_ms: float | None = None
    tail_egress_most_ms: float | None = None
    start_ingress_ms: float | None = None
    start_ingress_most_ms: float | None = None
    switchover_ingress_ms: float | None = None
    switchover_ingress_most_ms: float | None = None
    tail_ingress_ms: float | None = None
    tail_ingress_most_ms: float | None = None
    stall_ms: float | None = None
    floor_egress_ms: float | None = None
    floor_ingress_ms: float | None = None
    source: str | None = None
    source_root: str | None = None
    source_qemu: str | None = None
    source_libvirt: str | None = None
    source_kernel: str | None = None
    source_ovs: str | None = None
    target: str | None = None
    target_root: str | None = None
    target_qemu: str | None = None
    target_libvirt: str | None = None
    target_kernel: str | None = None
    target_ovs: str | None = None
    problem: str | None = None
    """What was wrong; only in rows that are no attempt."""


VERSIONS = ("root", "qemu", "libvirt", "kernel", "ovs")
"""Versions of a host that are kept; one that differs is a change."""


def _type(annotation: Any) -> type:
    """The type of a column: ``float | None`` gives floats, a literal gives texts."""
    first = next(iter(get_args(annotation)), annotation)
    return first if isinstance(first, type) else str


TYPES: dict[str, type] = {
    name: _type(field.annotation) for name, field in AttemptRow.model_fields.items()
}


def rows_table(rows: Sequence[AttemptRow]) -> Any:
    """Rows as an Arrow table."""
    return to_arrow([row.model_dump() for row in rows], TYPES)


def write_index(folder: Path) -> Any:
    """Write ``attempts.parquet`` of a run that is done, return it as an Arrow table.

    Raises MeasurementError: ``run.json`` can't be read, or the disk does not take it.
    """
    made = rows_table(index_rows(folder))
    write_file(folder / INDEX, to_parquet(made, small=True))
    return made


def index_rows(folder: Path) -> list[AttemptRow]:
    """All rows of a run. Raises MeasurementError: ``run.json`` can't be read."""
    run = read_head(folder)
    rows = [*_attempts(folder, run), *_others(folder, run)]
    return rows or [AttemptRow(kind="empty", **_head(folder, run))]


def _attempts(folder: Path, run: Run) -> Iterator[AttemptRow]:
    attempts, unreadable = read_attempts(folder)
    for record in attempts:
        yield attempt_row(folder, run, record.attempt)
    for attempt in unreadable:
        yield AttemptRow(
            kind="damaged", case_id=attempt.case_id, number=attempt.number, problem=attempt.why,
            **_head(folder, run),
        )  # fmt: skip


def _others(folder: Path, run: Run) -> Iterator[AttemptRow]:
    for mishap in run.mishaps:
        problem = " ".join(filter(None, (mishap.problem.tried, mishap.problem.said)))
        yield AttemptRow(
            kind="no-attempt", case_id=mishap.case_id, number=mishap.number, problem=problem,
            **_head(folder, run),
        )  # fmt: skip
    for name in unfinished(folder):
        case_id, _, number = name.rpartition("/")
        yield AttemptRow(
            kind="cut-off", case_id=case_id, number=int(number) if number.isdecimal() else None,
            problem="cut off, not finished", **_head(folder, run),
        )  # fmt: skip


def _head(folder: Path, run: Run) -> dict[str, Any]:
    """The columns of the run; its name is the folder's, which may have been renamed since."""
    try:
        began = datetime.fromisoformat(run.began)
    except ValueError as error:
        raise MeasurementError(
            f"read {folder / 'run.json'}", said=f"began: {error}", remedy="an ISO 8601 time"
        ) from error
    utc = began.astimezone(UTC) if began.tzinfo else began.replace(tzinfo=UTC)
    return {
        "run": folder.name,
        "began": f"{utc:%Y-%m-%dT%H:%M:%SZ}",
        "lab": run.lab,
        "lab_kind": run.lab_kind,
    }


def attempt_row(folder: Path, run: Run, attempt: Attempt) -> AttemptRow:
    """The row of one attempt of ``run``."""
    case = attempt.case
    return AttemptRow.model_validate(
        {
            "kind": "attempt",
            **_head(folder, run),
            "case_id": case.id,
            "mode": case.interface.mode,
            "ring": case.interface.ring,
            "definition": case_digest(case),
            "number": attempt.number,
            "outcome": attempt.outcome,
            "passed": attempt.passed,
            "result": attempt.result,
            "ended_as_asked": ended_as_asked(attempt),
            **_measured(attempt),
            **_host(run, attempt.source, "source"),
            **_host(run, attempt.target, "target"),
        }
    )


def case_digest(case: Case) -> str:
    """A digest of a case without defaults: a key that a newer version adds changes no digest."""
    return hashlib.sha256(case.model_dump_json(exclude_defaults=True).encode()).hexdigest()[:12]


def _measured(attempt: Attempt) -> dict[str, float | bool | None]:
    figures: dict[str, float | bool | None] = {
        "downtime_ms": attempt.reported.downtime_ms,
        "total_ms": attempt.reported.total_ms,
        "stall_ms": stall.ms if (stall := _STALL.measure(attempt)) else None,
    }
    for way in DIRECTIONS:
        longest = longest_outage(attempt, way)
        figures |= _bounds(way, longest)
        figures[f"{way}_open"] = longest.at_least if longest else None
        figures[f"{way}_in_floor"] = longest.only_floor if longest else None
        figures[f"floor_{way}_ms"] = attempt.floor.ms(way) if attempt.floor else None
    for column in PART_COLUMNS:
        measured = column.measure(attempt) if column.applies(attempt) else None
        figures |= _bounds(column.name.replace(", ", "_"), measured)
    return figures


_STALL = next(column for column in COLUMNS if column.name == "guest stall")


def _bounds(name: str, measured: FigureValue | None) -> dict[str, float | bool | None]:
    if measured is None:
        return {}
    low, high = measured.bounds
    return {f"{name}_ms": low, f"{name}_most_ms": high if high != low else None}


def _host(run: Run, name: str, end: str) -> dict[str, str | None]:
    facts: HostFacts | None = next((host for host in run.hosts if host.host == name), None)
    known = {**facts.versions, "kernel": facts.kernel, "root": facts.root} if facts else {}
    return {end: name, **{f"{end}_{what}": known.get(what) or None for what in VERSIONS}}
