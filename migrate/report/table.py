"""One table, from one pure value: for a terminal, a pipe and the HTML report.

A cell is the median of a case's attempts with the smallest and the largest beside it. What was
not measured says so; an outage that did not rise above the meter's floor says that. Below it stands
the outage by part of the move, in rows of the same order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from migrate.analysis.figures import COLUMNS, PART_COLUMNS, FigureColumn, counted
from migrate.checks import quarantine
from migrate.model import Attempt, Gap, Run, UnreachedTries, Verdict
from migrate.report.about import about
from migrate.report.answer import answers, too_close_line
from migrate.report.machines import busy_lines, busy_mark
from migrate.report.outage_breakdown import outage_breakdown
from migrate.report.ranking import LEVEL_NOTE, RowRanks, rank_rows
from migrate.report.table_model import NOT_COUNTED, NOT_MEASURED, Cell, Grid, GridSection
from migrate.report.unreached import unreached_lines
from migrate.report.verdict_text import verdict_text
from migrate.results.reader import UnreadableAttempt
from migrate.statistics.censored import bounds_text, median, quantile

NO_PHASE = "no such phase"
MOST_CHECKS = 2
"""Checks that a row names, of those that did not pass."""

PARTS_TITLE = "Outage by part of the move: the longest gap of each part, never a sum"


@dataclass(frozen=True, slots=True)
class RunTable(Grid):
    """The figures, the outage by part in rows of the same order, and the lines below both."""

    parts: Grid
    went: tuple[GridSection, ...] = ()
    """What the longest outage each way consists of; empty where no gap was explained."""
    answers: tuple[str, ...] = ()
    """What the run has shown, a sentence each; which rows are too close to rank is in them."""
    about: tuple[str, ...] = ()
    """What the figures can show and what not, by what hosts and guests are made of."""
    notes: tuple[str, ...] = ()
    """How to read it, and what can't be ranked."""
    skips: tuple[str, ...] = ()
    """Cases that can't run in this lab, tries that were not run, what each quarantine entry
    covers: a line each. What failed is in :mod:`migrate.report.failures`."""
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
    named = labelled(attempts)
    figures = {label: counted(group) for label, group in named.items()}
    ranks = rank_rows(figures)
    first = "case" if any(label == group[0].case.id for label, group in named.items()) else "mode"
    return RunTable(
        heads=(first, "n", *(column.head for column in COLUMNS), "verdict"),
        rows=tuple(
            (
                Cell(label, busy_mark(group)),
                _number(run, group[0].case.id, group),
                *_row_cells(figures[label], COLUMNS),
                _verdict(run, group, lost[group[0].case.id]),
            )
            for label, group in named.items()
        ),
        parts=Grid(
            (first, *(column.head for column in PART_COLUMNS)),
            tuple(
                (Cell(label), *_row_cells(group, PART_COLUMNS)) for label, group in figures.items()
            ),
        ),
        went=outage_breakdown(figures),
        answers=answers(figures, ranks),
        about=about(run),
        notes=(
            *_notes({label: group for label, group in figures.items() if group}),
            *_rank_notes(ranks),
        ),
        skips=tuple(_skip_lines(run, attempts)),
        remarks=(*busy_lines(named), *_remarks(named)),
    )


def _skip_lines(run: Run, attempts: Sequence[Attempt]) -> Iterator[str]:
    for skip in run.skips:
        yield f"{skip.case.id}: can't run in this lab: {skip.reason}; it needs: {skip.remedy}"
    yield from unreached_lines(run.not_reached)
    yield from quarantine.summary_lines(run, attempts)


def _tries_text(missed: UnreachedTries) -> str:
    """``moves-vhost-user (3 tries, about 11 s each)``."""
    number = f"{missed.tries} {'try' if missed.tries == 1 else 'tries'}"
    each = " each" if missed.tries > 1 else ""
    return f"{missed.case_id} ({number}, about {missed.expected_s:.0f} s{each})"


def labelled(attempts: Sequence[Attempt]) -> dict[str, list[Attempt]]:
    """Attempts by case, in the order in which the cases were first tried: each by its mode where
    no two are of the same, else by its id."""
    groups: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        groups.setdefault(attempt.case.id, []).append(attempt)
    modes = [group[0].case.interface.mode for group in groups.values()]
    if len(set(modes)) < len(modes):
        return groups
    return dict(zip(modes, groups.values(), strict=True))


def _rank_notes(ranks: RowRanks) -> Iterator[str]:
    """What keeps rows from being ranked, all that is too close on one line, and the level."""
    yield from ranks.limits
    if line := too_close_line(ranks):
        yield line
    if ranks.ranked:
        yield LEVEL_NOTE


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
    checks = _checks(wrong)
    if void:
        listed = ", ".join([f"{void} void", *checks])
        return Cell("FAIL" if wrong else "VOID", f"{passed}/{len(group)} passed: {listed}", True)
    if all(attempt.passed or quarantine.excuses(run, attempt) for attempt in group):
        listed = ", ".join(checks) or "no verdict"
        return Cell("quarantined", f"{passed}/{len(group)} passed: {listed}")
    return Cell("FAIL", f"{passed}/{len(group)} passed: {', '.join(checks) or 'no verdict'}", True)


def _checks(wrong: Sequence[Verdict]) -> tuple[str, ...]:
    """Each check that did not pass once, failures first, with the figures of its first one."""
    by_check: dict[str, list[Verdict]] = {}
    for verdict in sorted(wrong, key=lambda verdict: verdict.result != "fail"):
        by_check.setdefault(verdict.check, []).append(verdict)
    named = [
        verdict_text(verdicts[0]) + (f" ({len(verdicts)} times)" if len(verdicts) > 1 else "")
        for verdicts in by_check.values()
    ]
    more = len(named) - MOST_CHECKS
    return (*named[:MOST_CHECKS], *([f"and {more} more"] if more > 0 else []))


def _notes(groups: Mapping[str, Sequence[Attempt]]) -> Iterator[str]:
    yield (
        "A figure is the median of the n attempts that ended as expected, [smallest..largest] "
        "beside it. Outage: the longest gap of an attempt that way; egress is guest to peer. "
        "Floor: the longest gap with no migration going on, of the worse direction; a shorter "
        "gap can't be seen. ≤, ≥, x to y: some of the outages are below floor or had not ended, "
        "so their median is known only between bounds. "
        "Guest stall: the longest time that the guest's clock stopped or its tick was late."
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
                f"{label}: in {len(outside)} of {len(group)} the longest gap is outside all phases "
                f"of the move (up to {most.length_ms:.0f} ms, {most.direction}): noise of the "
                "lab, or the start of the target's QEMU."
            )
    out = [label for label, group in groups.items() if group[0].case.policy.method == "reattach"]
    if out:
        yield (
            f"{', '.join(out)}: moved by reattach. There is no interface from before the move "
            "until after it, so the outage is one gap over all parts, counted as switchover."
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
