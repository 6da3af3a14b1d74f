"""One table, from one pure value: for a terminal, a pipe and the HTML report.

A cell is the median of a case's attempts with the smallest and the largest beside it. What was
not measured says so; an outage that did not rise above the meter's floor says that. Below it stands
the outage by part of the move, in rows of the same order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from migrate.analysis.figures import COLUMNS, PART_COLUMNS, FigureColumn, counted
from migrate.checks import quarantine
from migrate.errors import visible
from migrate.model import Attempt, Gap, Run
from migrate.report.machines import busy_lines, busy_mark
from migrate.report.outage_breakdown import outage_breakdown
from migrate.report.ranking import ranking_notes
from migrate.report.table_model import NOT_COUNTED, NOT_MEASURED, Cell, Grid, GridSection
from migrate.results.reader import UnreadableAttempt
from migrate.statistics.censored import bounds_text, median, quantile

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table as RichTable

NO_PHASE = "no such phase"

PARTS_TITLE = "Outage by part of the move: the longest gap of each part, never a sum"
ABOUT: Mapping[str, str] = {
    "nested": (
        "This lab is nested: its hosts are virtual machines, their cards and vDPA devices emulated "
        "or simulated. It can tell the order and the parts of an outage, what the protocols do, "
        "and bugs. It can't tell the milliseconds of a product's silicon: take no figure of it for "
        "one."
    ),
}
"""What figures can show, and what not, by the kind of lab."""


@dataclass(frozen=True, slots=True)
class RunTable(Grid):
    """The figures, the outage by part in rows of the same order, and the lines below both."""

    parts: Grid
    went: tuple[GridSection, ...] = ()
    """What the longest outage each way consists of; empty where no gap was explained."""
    about: str = ""
    """What a lab of this kind can show and what not; empty where the lab's docs say enough."""
    notes: tuple[str, ...] = ()
    """How to read it, and what can't be ranked."""
    skips: tuple[str, ...] = ()
    """Cases that can't run in this lab, tries that left no attempt or were not reached, what each
    quarantine entry covers: a line each."""
    remarks: tuple[str, ...] = ()
    """What the backends and the meter reported about attempts."""


def run_table(
    run: Run, attempts: Sequence[Attempt], unreadable: Sequence[UnreadableAttempt] = ()
) -> RunTable:
    """A row a case, in the order in which the cases were first tried; no figure is of a void
    attempt.

    A case of which an attempt is ``unreadable`` did not pass.
    """
    lost = Counter(attempt.case_id for attempt in unreadable)
    groups: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        groups.setdefault(attempt.case.id, []).append(attempt)
    labels = _labels(groups)
    named = {labels[case]: group for case, group in groups.items()}
    figures = {label: counted(group) for label, group in named.items()}
    first = "mode" if _by_mode(groups) else "case"
    return RunTable(
        heads=(first, "n", *(column.head for column in COLUMNS), "verdict"),
        rows=tuple(
            (
                Cell(labels[case], busy_mark(group)),
                _number(run, case, group),
                *_row_cells(figures[labels[case]], COLUMNS),
                _verdict(run, group, lost[case]),
            )
            for case, group in groups.items()
        ),
        parts=Grid(
            (first, *(column.head for column in PART_COLUMNS)),
            tuple(
                (Cell(label), *_row_cells(group, PART_COLUMNS)) for label, group in figures.items()
            ),
        ),
        went=outage_breakdown(figures),
        about=ABOUT.get(run.lab_kind, ""),
        notes=(
            *_notes({label: group for label, group in figures.items() if group}),
            *ranking_notes(figures),
        ),
        skips=(*(attempt.describe() for attempt in unreadable), *_skip_lines(run, attempts)),
        remarks=(*busy_lines(named), *_remarks(named)),
    )


def _skip_lines(run: Run, attempts: Sequence[Attempt]) -> Iterator[str]:
    for skip in run.skips:
        yield f"{skip.case.id}: not here: {skip.reason}; it takes: {skip.remedy}"
    for attempt in attempts:
        if attempt.void:
            yield f"{attempt.case.id}/{attempt.number}: void: {attempt.void_reason}"
    for mishap in run.mishaps:
        problem = mishap.problem
        where = f" on {problem.host}" if problem.host else ""
        todo = f"; {problem.remedy}" if problem.remedy else ""
        yield (
            f"{mishap.case_id}/{mishap.number}: no attempt: "
            f"{problem.tried}{where}: {problem.said}{todo}"
        )
    for reason in dict.fromkeys(missed.reason for missed in run.not_reached):
        same_reason = [missed for missed in run.not_reached if missed.reason == reason]
        listed = ", ".join(f"{missed.case_id} ({missed.tries})" for missed in same_reason)
        tries = sum(missed.tries for missed in same_reason)
        yield f"{tries} attempts not reached, {reason}: {listed}"
    yield from quarantine.summary_lines(run, attempts)


def _by_mode(groups: dict[str, list[Attempt]]) -> bool:
    modes = [group[0].case.interface.mode for group in groups.values()]
    return len(set(modes)) == len(modes)


def _labels(groups: dict[str, list[Attempt]]) -> dict[str, str]:
    by_mode = _by_mode(groups)
    return {
        case: group[0].case.interface.mode if by_mode else case for case, group in groups.items()
    }


def _row_cells(group: Sequence[Attempt], columns: Sequence[FigureColumn]) -> Iterator[Cell]:
    """A cell a column, of the attempts that count; of none there is nothing to show."""
    if not group:
        yield from (Cell(NOT_COUNTED) for _ in columns)
        return
    for column in columns:
        if not group:
            yield Cell(NOT_MEASURED)
            continue
        yield _cell([attempt for attempt in group if column.applies(attempt)], column)


def _cell(group: Sequence[Attempt], column: FigureColumn) -> Cell:
    if not group:
        return Cell(NO_PHASE)
    values = [value for attempt in group if (value := column.measure(attempt)) is not None]
    known = [value.bounds for value in values]
    middle, floor = median(known), max((value.floor_ms for value in values), default=0.0)
    if middle is None:
        return Cell(
            NOT_MEASURED, ", ".join(filter(None, dict.fromkeys(map(column.why_none, group))))
        )
    ends = [bounds_text(quantile(known, share) or middle, floor, "floor") for share in (0, 1)]
    shown = "" if len(known) < 2 or ends == ["floor", "floor"] else f"[{'..'.join(ends)}]"
    missing = f" {len(known)}/{len(group)} measured" if len(known) < len(group) else ""
    return Cell(bounds_text(middle, floor), (shown + missing).strip())


def _number(run: Run, case: str, group: Sequence[Attempt]) -> Cell:
    """How many attempts the figures are of, and what became of the other tries."""
    void = sum(bool(attempt.void) for attempt in group)
    otherwise = len(group) - len(counted(group)) - void
    none = sum(mishap.case_id == case for mishap in run.mishaps)
    rest = ((otherwise, "ended otherwise"), (void, "void"), (none, "left no attempt"))
    words = ", ".join(f"{number} {what}" for number, what in rest if number)
    number = len(counted(group))
    return Cell(f"{number} of {len(group) + none}" if words else str(number), words)


def _verdict(run: Run, group: Sequence[Attempt], unreadable: int) -> Cell:
    passed = sum(attempt.passed for attempt in group)
    if unreadable:
        number = len(group) + unreadable
        return Cell("FAIL", f"{passed}/{number} passed: {unreadable} can't be read", True)
    void = sum(bool(attempt.void) for attempt in group)
    if void == len(group):
        return Cell("VOID", f"{void}/{len(group)}", True)
    if passed == len(group):
        return Cell("pass", f"{passed}/{len(group)}")
    judged = [attempt for attempt in group if not attempt.void]
    wrong = [verdict for attempt in judged for verdict in attempt.failed_verdicts]
    checks = dict.fromkeys(f"{verdict.check} {verdict.result}" for verdict in wrong)
    if void:
        listed = ", ".join([f"{void} void", *checks])
        return Cell("FAIL" if wrong else "VOID", f"{passed}/{len(group)} passed: {listed}", True)
    if all(attempt.passed or quarantine.excuses(run, attempt) for attempt in group):
        listed = ", ".join(checks) or "no verdict"
        return Cell("quarantined", f"{passed}/{len(group)} passed: {listed}")
    return Cell("FAIL", f"{passed}/{len(group)} passed: {', '.join(checks) or 'no verdict'}", True)


def attempt_lines(attempt: Attempt) -> Iterator[str]:
    """How an attempt ended, and every verdict with its evidence: a line each."""
    holders = ", ".join(attempt.held_by or ()) or "nobody that is known"
    if attempt.void:
        yield clean(f"{attempt.case.id}/{attempt.number}: VOID: {attempt.void_reason}")
    yield f"{attempt.case.id}/{attempt.number}: {attempt.outcome}, held by {holders}"
    for verdict in attempt.verdicts:
        against = f" against {verdict.limit} {verdict.unit}".rstrip() if verdict.limit else ""
        yield clean(
            f"  {verdict.check:15} {verdict.result:10} "
            f"{verdict.measured}{against}: {verdict.evidence}"
        )
    if attempt.error is not None:
        yield clean(f"{attempt.error.tried} on {attempt.error.host}: {attempt.error.said}")


def _notes(groups: Mapping[str, Sequence[Attempt]]) -> Iterator[str]:
    yield (
        "A figure is the median of the n attempts that ended as asked, [smallest..largest] beside "
        "it. Outage: the longest gap of an attempt that way; egress is guest to peer. In the "
        "floor: no gap longer than the meter shows with no migration going on. ≤, ≥, x to y: the "
        "median of outages of which some are in the floor, or had not ended, is known so far only. "
        "Guest stall: the longest that the guest's own tick stood still or came late. Floor: the "
        "worse way."
    )
    if groups:
        yield (
            "Parts: start is before the stop (a primary unplugged, shadow virtqueues switched on), "
            "switchover touches it, tail is after the resume (announcements, a primary plugged in "
            "again)."
        )
    for label, group in groups.items():
        outside = [gap for attempt in group if (gap := _gap_outside_move(attempt)) is not None]
        if outside:
            most = max(outside, key=lambda gap: gap.length_ns)
            yield (
                f"{label}: the longest gap lies in no phase of the move in {len(outside)} of "
                f"{len(group)} (up to {most.length_ms:.0f} ms, {most.direction}): the lab's own "
                "noise, or the target's QEMU that starts meanwhile."
            )
    out = [label for label, group in groups.items() if group[0].case.policy.method == "reattach"]
    if out:
        yield (
            f"{', '.join(out)}: moved by reattach. There is no interface from before the move "
            "until after it, so its outage is one gap over all parts; it stands under switchover."
        )


def _gap_outside_move(attempt: Attempt) -> Gap | None:
    """The longest gap of an attempt, if it lies in no part of the move."""
    most = max(attempt.gaps or (), key=lambda gap: gap.length_ns, default=None)
    return most if most and most.part == "none" else None


def _remarks(groups: Mapping[str, Sequence[Attempt]]) -> Iterator[str]:
    for label, group in groups.items():
        remarks: dict[str, list[str]] = {}
        for attempt in group:
            for note in dict.fromkeys(attempt.notes):
                remarks.setdefault(note, []).append(str(attempt.number))
        for note, numbers in remarks.items():
            if len(numbers) == len(group):
                which = "every attempt" if len(group) > 1 else f"attempt {numbers[0]}"
            else:
                which = f"attempt{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}"
            yield f"{label}, {which}: {note}"


# --- rendering ----------------------------------------------------------------------------------


def plain(table: RunTable) -> str:
    """The table in columns of fixed width for a pipe; nothing is cut off."""
    lines = _fixed(table)
    if table.parts.rows:
        lines += ["", PARTS_TITLE, *_fixed(table.parts), ""]
    for section in table.went:
        lines += [*_section_lines(section), ""]
    return "\n".join(map(clean, (*lines, *_lines_below(table)))) + "\n"


def _fixed(grid: Grid) -> list[str]:
    lines = [grid.heads, *(tuple(clean(cell.line()) for cell in row) for row in grid.rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(grid.heads))]
    body = [
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    body.insert(1, "  ".join("-" * width for width in widths))
    return body


def _section_lines(section: GridSection) -> list[str]:
    grid = _fixed(section.grid) if section.grid else []
    return [section.title, *grid, *section.lines]


def plain_sections(sections: Sequence[GridSection]) -> str:
    """Sections as text for a pipe, or a terminal."""
    lines = [line for section in sections for line in (*_section_lines(section), "")]
    return "\n".join(map(clean, lines)) + "\n"


def _lines_below(table: RunTable) -> tuple[str, ...]:
    return (*table.skips, *table.remarks, *((table.about,) if table.about else ()), *table.notes)


def rich(table: RunTable) -> Group:
    """The table for a terminal, spread below the figure; markup in it means nothing."""
    from rich.console import Group  # noqa: PLC0415 - only for a terminal
    from rich.text import Text  # noqa: PLC0415 - only for a terminal

    below: list[RenderableType] = []
    if table.parts.rows:
        below = [Text(f"\n{PARTS_TITLE}", "bold"), _draw_grid(table.parts), Text("")]
    for section in table.went:
        below += [Text(clean(section.title), "bold")]
        below += [_draw_grid(section.grid)] if section.grid else []
        below += [Text("")]
    loud = [Text(clean(line), "yellow") for line in (*table.skips, *table.remarks)]
    about = [Text(table.about, "bold")] if table.about else []
    return Group(
        _draw_grid(table), *below, *loud, *about, *(Text(clean(n), "dim") for n in table.notes)
    )


def _draw_grid(grid: Grid) -> RichTable:
    from rich.table import Table as RichTable  # noqa: PLC0415 - only for a terminal
    from rich.text import Text  # noqa: PLC0415 - only for a terminal

    drawn = RichTable(box=None, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)
    for number, head in enumerate(grid.heads):
        drawn.add_column(Text(head), justify=_side(number, grid.heads), overflow="fold")
    for row in grid.rows:
        drawn.add_row(
            *(
                Text.assemble(
                    (clean(cell.text), "bold red" if cell.bad else "bold"),
                    (f"\n{clean(cell.spread)}", "dim") if cell.spread else "",
                )
                for cell in row
            )
        )
    return drawn


def _side(number: int, heads: Sequence[str]) -> Literal["left", "right"]:
    return "left" if number == 0 or heads[number] == "verdict" else "right"


def clean(text: str) -> str:
    """The text without control characters, which a quoted log may have."""
    return visible(text)
