"""An attempt's place in the report: one line while it is folded, and all that it opens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from migrate.analysis.figures import COLUMNS, FigureColumn, FigureValue, longest_outage
from migrate.errors import MeasurementError
from migrate.model import DIRECTIONS, Attempt, Event, Gap, MachineRecording, Sample, Unmeasured
from migrate.model.recording import Arrivals
from migrate.report.event_lines import event_lines
from migrate.report.figure import figure
from migrate.report.figure_data import FigureData
from migrate.report.machines import machine_sections
from migrate.report.move_details import sections
from migrate.report.overview import PANELS, figure_words
from migrate.report.table_model import NOT_MEASURED, Cell, Grid, GridSection
from migrate.report.verdict_text import limit_text, why_not_passed
from migrate.report.work import work_sections
from migrate.results.reader import AttemptRecord
from migrate.statistics.censored import below_floor

Content = TypeVar("Content")
Stretch = TypeVar("Stretch", Gap, Unmeasured)

GAPS = 20
"""Gaps listed for an attempt, and stretches that were not measured: the longest.
``attempt.json`` has them all."""
MOST_EVIDENCE = 600
"""Letters of a verdict's evidence that are listed."""


@dataclass(frozen=True, slots=True)
class AttemptSection:
    """What the page says of an attempt."""

    anchor: str
    attempt: Attempt
    headline: str
    figures: tuple[tuple[str, str], ...]
    """Its main figures, by title: what the line of a folded one has."""
    why: tuple[str, ...]
    """Why it did not pass."""
    damage: tuple[str, ...]
    """Parts of it that can't be read."""
    figure: str
    verdicts: Grid
    details: tuple[GridSection, ...]
    """Folded, but for the first :attr:`shown`."""
    shown: int
    events: tuple[str, ...]
    """Lines of text, some of several that are alike."""
    event_count: int
    files: tuple[str, ...]


def attempt_section(record: AttemptRecord) -> AttemptSection:
    """Read what is large of an attempt."""
    attempt = record.attempt
    damage: list[str] = []
    events: Sequence[Event] = _whole(record.events, damage) or ()
    arrivals: dict[str, Arrivals] = _whole(record.arrivals, damage) or {}
    samples: Sequence[Sample] = _whole(record.samples, damage) or ()
    machines: Sequence[MachineRecording] = _whole(record.machines, damage) or ()
    data = FigureData(attempt, arrivals, samples, events, machines)
    inside = sections(attempt)
    return AttemptSection(
        anchor=f"{attempt.case.id}/{attempt.number}",
        attempt=attempt,
        headline=headline(attempt),
        figures=tuple(_main_figures(attempt)),
        why=why_not_passed(attempt),
        damage=tuple(damage),
        figure=figure(data, headline(attempt)),
        verdicts=_verdicts(attempt),
        details=(
            *inside,
            *work_sections(attempt),
            *machine_sections(attempt),
            *_gaps(data),
            *_unmeasured(data),
        ),
        shown=sum(section.title.startswith("Where the outage went") for section in inside),
        events=event_lines(data),
        event_count=len(events),
        files=tuple(str(p.relative_to(record.folder)) for p in sorted(record.folder.rglob("*.*"))),
    )


def _whole(read: Callable[[], Content], damage: list[str]) -> Content | None:
    """A part of an attempt; None if it can't be read, and why goes to ``damage``."""
    try:
        return read()
    except MeasurementError as error:
        damage.append(str(error))
        return None


def _main_figures(attempt: Attempt) -> Iterator[tuple[str, str]]:
    columns = {column.name: column for column in COLUMNS}
    for name, (title, _) in PANELS.items():
        yield title.lower().replace(",", ""), _figure_text(attempt, columns[name])


def _figure_text(attempt: Attempt, column: FigureColumn) -> str:
    value = column.measure(attempt) if column.applies(attempt) else None
    return NOT_MEASURED if value is None else figure_words(value)


def _verdicts(attempt: Attempt) -> Grid:
    """What did not pass comes first."""
    order = ("fail", "unmeasured", "pass")
    wrong = attempt.failed_verdicts
    return Grid(
        ("check", "result", "measured", "limit", "evidence"),
        tuple(
            (
                Cell(verdict.check),
                Cell(
                    verdict.result,
                    "allowed" if verdict.result != "pass" and verdict not in wrong else "",
                    bad=verdict in wrong,
                ),
                Cell(f"{verdict.measured} {verdict.unit}" if verdict.measured else NOT_MEASURED),
                Cell(limit_text(verdict) or "none"),
                Cell(_cut(verdict.evidence)),
            )
            for verdict in sorted(attempt.verdicts, key=lambda v: order.index(v.result))
        ),
    )


def _cut(text: str) -> str:
    more = len(text) - MOST_EVIDENCE
    return f"{text[:MOST_EVIDENCE]} … ({more} letters more)" if more > 0 else text


def _gaps(data: FigureData) -> Iterator[GridSection]:
    gaps = data.attempt.gaps
    if gaps is None:
        return
    heads = (
        "direction",
        "part",
        "from, ms",
        "length, ms",
        "± ms",
        "lost",
        "late",
        "overlaps (at most)",
    )
    rows = tuple(
        (
            Cell(gap.direction),
            Cell(gap.part),
            Cell(f"{data.ms(gap.begin_ns):+.1f}"),
            Cell(f"{'≥ ' if gap.open_ended or gap.next_to_unmeasured else ''}{gap.length_ms:.1f}"),
            Cell(f"{gap.error_ns / 1e6:.1f}"),
            Cell(str(gap.lost)),
            Cell(str(gap.late)),
            Cell(", ".join(gap.phases)),
        )
        for gap in _longest(gaps)
    )
    yield GridSection(f"{len(gaps)} gaps", Grid(heads, rows) if rows else None, _left(gaps))


def _unmeasured(data: FigureData) -> Iterator[GridSection]:
    blanks = data.attempt.unmeasured
    if not blanks:
        return
    rows = tuple(
        (
            Cell(blank.direction),
            Cell(f"{data.ms(blank.begin_ns):+.1f}"),
            Cell(f"{blank.length_ns / 1e6:.1f}"),
            Cell(blank.reason),
        )
        for blank in _longest(blanks)
    )
    heads = ("direction", "from, ms", "length, ms", "why")
    yield GridSection(f"Not measured: {len(blanks)} stretches", Grid(heads, rows), _left(blanks))


def _longest(stretches: Sequence[Stretch]) -> list[Stretch]:
    """In order of time."""
    by_length = sorted(stretches, key=lambda stretch: stretch.length_ns, reverse=True)
    return sorted(by_length[:GAPS], key=lambda stretch: stretch.begin_ns)


def _left(stretches: Sequence[object]) -> tuple[str, ...]:
    more = len(stretches) - GAPS
    return (f"The longest {GAPS}; {more} more are in attempt.json.",) if more > 0 else ()


def headline(attempt: Attempt) -> str:
    """Outcome, holder and the two figures that matter, in a sentence."""
    holders = " and ".join(attempt.held_by) or "no host"
    parts = [f"{attempt.outcome}, the guest runs on {holders}"]
    if attempt.void:
        parts.insert(0, f"void, so it neither passes nor fails: {attempt.void_reason}")
    for direction in DIRECTIONS:
        outage = longest_outage(attempt, direction)
        where = f" ({outage.part})" if outage and outage.part != "none" else ""
        length = _outage_text(outage) if outage else NOT_MEASURED
        parts.append(f"outage {direction} {length}{where}")
    reported = attempt.reported.downtime_ms
    parts.append(
        f"downtime reported {f'{reported:.1f} ms' if reported is not None else NOT_MEASURED}"
    )
    wrong = [verdict.check for verdict in attempt.failed_verdicts]
    if wrong:
        parts.append(f"not passed: {', '.join(wrong)}")
    return "; ".join(parts)


def _outage_text(outage: FigureValue) -> str:
    low, high = outage.bounds
    if outage.only_floor:
        return below_floor(outage.floor_ms)
    if outage.at_least or low == high:
        return f"{'at least ' if outage.at_least else ''}{outage.ms:.1f} ms"
    return f"{low:.1f} to {high:.1f} ms"
