"""One table, from one pure value: for a terminal, a pipe and the HTML report.

A cell is the median of a case's attempts with the smallest and the largest beside it. What was
not measured says so; an outage that did not rise above the meter's floor says that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Literal

from migrate.model import Attempt, Direction, Run, Verdict

if TYPE_CHECKING:
    from rich.console import Group

    from migrate.stats import Spread

NOT_MEASURED = "not measured"
IN_FLOOR = "in the floor"


@dataclass(frozen=True, slots=True)
class Measured:
    """A length in milliseconds, or its lower bound if the observation ended before it did."""

    ms: float
    at_least: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    """``text`` is the figure, ``spread`` what belongs below it; ``bad`` draws the eye."""

    text: str
    spread: str = ""
    bad: bool = False

    def line(self) -> str:
        """Both on one line."""
        return f"{self.text} {self.spread}".rstrip()


@dataclass(frozen=True, slots=True)
class Table:
    """Heads, rows of as many cells, and the lines below: how to read it, skips, comparisons."""

    heads: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    skips: tuple[str, ...] = ()
    """Cases that can't run in this lab, and tries that left no attempt: a line each."""


def longest(attempt: Attempt, direction: Direction) -> Measured | None:
    """The longest gap in a direction; 0 if none rose above the floor, None if not measured."""
    if attempt.gaps is None:
        return None
    found = [gap for gap in attempt.gaps if gap.direction == direction]
    if not found:
        return Measured(0.0)
    return Measured(
        max(gap.length_ms for gap in found), at_least=any(gap.open_ended for gap in found)
    )


def _stall(attempt: Attempt) -> Measured | None:
    if attempt.stalls is None:
        return None
    return Measured(max((stall.length_ns / 1e6 for stall in attempt.stalls), default=0.0))


def _floor(attempt: Attempt) -> Measured | None:
    """The worse of the two ways."""
    floor = attempt.floor
    return None if floor is None else Measured(max(floor.egress_ms, floor.ingress_ms))


def _plain(value: float | None) -> Measured | None:
    return None if value is None else Measured(value)


COLUMNS: tuple[tuple[str, Callable[[Attempt], Measured | None]], ...] = (
    ("downtime reported, ms", lambda attempt: _plain(attempt.reported.downtime_ms)),
    ("outage seen, egress, ms", lambda attempt: longest(attempt, "egress")),
    ("outage seen, ingress, ms", lambda attempt: longest(attempt, "ingress")),
    ("guest stall, ms", _stall),
    ("total time, ms", lambda attempt: _plain(attempt.reported.total_ms)),
    ("floor, ms", _floor),
)
COMPARED = 6
"""More rows than this are not compared pair by pair: the table is no comparison then."""
SEVERAL = 3
"""Fewer attempts than this have no spread to compare."""
OUTAGES = frozenset({"outage seen, egress, ms", "outage seen, ingress, ms"})


def table(run: Run, attempts: Sequence[Attempt]) -> Table:
    """A row a case, in the order in which the cases were first tried."""
    groups: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        groups.setdefault(attempt.case.id, []).append(attempt)
    labels = _labels(groups)
    rows = tuple(_row(labels[case], group) for case, group in groups.items())
    return Table(
        heads=("mode" if _by_mode(groups) else "case", "n", *(h for h, _ in COLUMNS), "verdict"),
        rows=rows,
        notes=tuple(_notes({labels[case]: group for case, group in groups.items()})),
        skips=(*_told(run),),
    )


def _told(run: Run) -> Iterator[str]:
    for skip in run.skips:
        yield f"{skip.case.id}: not here: {skip.reason}; it takes: {skip.remedy}"
    for mishap in run.mishaps:
        problem = mishap.problem
        where = f" on {problem.host}" if problem.host else ""
        todo = f"; {problem.remedy}" if problem.remedy else ""
        yield (
            f"{mishap.case_id}/{mishap.number}: no attempt: "
            f"{problem.tried}{where}: {problem.said}{todo}"
        )


def _by_mode(groups: dict[str, list[Attempt]]) -> bool:
    modes = [group[0].case.interface.mode for group in groups.values()]
    return len(set(modes)) == len(modes)


def _labels(groups: dict[str, list[Attempt]]) -> dict[str, str]:
    by_mode = _by_mode(groups)
    return {
        case: group[0].case.interface.mode if by_mode else case for case, group in groups.items()
    }


def _row(label: str, group: Sequence[Attempt]) -> tuple[Cell, ...]:
    values = (
        _cell([measure(attempt) for attempt in group], outage=head in OUTAGES)
        for head, measure in COLUMNS
    )
    return (Cell(label), Cell(str(len(group))), *values, _verdict(group))


def _cell(values: Sequence[Measured | None], *, outage: bool) -> Cell:
    from migrate.stats import spread  # noqa: PLC0415 - numpy is heavy

    known = [value for value in values if value is not None]
    if not known:
        return Cell(NOT_MEASURED)
    found = spread(value.ms for value in known)
    bound = "≥ " if any(value.at_least for value in known) else ""
    text = bound + _figure(found.median, outage=outage)
    shown = f"[{_figure(found.minimum, outage=outage)}..{_figure(found.maximum, outage=outage)}]"
    missing = f" {len(known)}/{len(values)} measured" if len(known) < len(values) else ""
    return Cell(text, (shown if len(known) > 1 else "") + missing)


def _figure(ms: float | None, *, outage: bool) -> str:
    if ms is None:
        return NOT_MEASURED
    if outage and ms == 0:
        return IN_FLOOR
    return f"{ms:.0f}" if ms >= 100 else f"{ms:.1f}"


def _verdict(group: Sequence[Attempt]) -> Cell:
    passed = sum(attempt.passed for attempt in group)
    if passed == len(group):
        return Cell("pass", f"{passed}/{len(group)}")
    wrong = [verdict for attempt in group for verdict in against(attempt)]
    checks = dict.fromkeys(f"{verdict.check} {verdict.result}" for verdict in wrong)
    return Cell("FAIL", f"{passed}/{len(group)} passed: {', '.join(checks) or 'no verdict'}", True)


def against(attempt: Attempt) -> tuple[Verdict, ...]:
    """The verdicts that keep an attempt from passing."""
    allowed = attempt.case.expect.allow_unmeasured
    return tuple(
        verdict
        for verdict in attempt.verdicts
        if verdict.result == "fail"
        or (verdict.result == "unmeasured" and verdict.check not in allowed)
    )


def _notes(groups: dict[str, list[Attempt]]) -> Iterator[str]:
    yield (
        "A figure is the median of n attempts, [smallest..largest] beside it. Outage: the longest "
        "gap of an attempt that way; egress is guest to peer. In the floor: no gap longer than "
        "the meter shows with no migration going on. Guest stall: the longest that the guest's "
        "own tick stood still or came late. Floor: the worse way."
    )
    several = [label for label, group in groups.items() if len(group) >= SEVERAL]
    if len(several) < len(groups):
        yield f"Rows with n below {SEVERAL} have no spread worth the name: they can't be ranked."
    for one, other in combinations(several, 2) if len(several) <= COMPARED else ():
        alike = [
            head.removesuffix(", ms")
            for head, measure in COLUMNS[:-1]
            if _alike(_spread(groups[one], measure), _spread(groups[other], measure))
        ]
        if alike:
            yield f"{one} and {other} are indistinguishable in {'; '.join(alike)}."


def _spread(group: Sequence[Attempt], measure: Callable[[Attempt], Measured | None]) -> Spread:
    from migrate.stats import spread  # noqa: PLC0415 - numpy is heavy

    return spread(value.ms if (value := measure(attempt)) else None for attempt in group)


def _alike(one: Spread, other: Spread) -> bool:
    from migrate.stats import indistinguishable  # noqa: PLC0415 - numpy is heavy

    return bool(one.n and other.n) and indistinguishable(one, other)


# --- rendering ----------------------------------------------------------------------------------


def plain(of: Table) -> str:
    """Columns of fixed width for a pipe; nothing is cut off."""
    lines = [of.heads, *(tuple(cell.line() for cell in row) for row in of.rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(of.heads))]
    body = [
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    body.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(clean(line) for line in (*body, *of.skips, *of.notes)) + "\n"


def rich(of: Table) -> Group:
    """The same for a terminal, spread below the figure; markup in it means nothing."""
    from rich.console import Group  # noqa: PLC0415 - only for a terminal
    from rich.table import Table as RichTable  # noqa: PLC0415 - only for a terminal
    from rich.text import Text  # noqa: PLC0415 - only for a terminal

    drawn = RichTable(box=None, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)
    for number, head in enumerate(of.heads):
        drawn.add_column(Text(head), justify=_side(number, len(of.heads)), overflow="fold")
    for row in of.rows:
        drawn.add_row(
            *(
                Text.assemble(
                    (clean(cell.text), "bold red" if cell.bad else "bold"),
                    (f"\n{clean(cell.spread)}", "dim") if cell.spread else "",
                )
                for cell in row
            )
        )
    below = [Text(clean(line), "yellow") for line in of.skips]
    return Group(drawn, *below, *(Text(clean(line), "dim") for line in of.notes))


def _side(number: int, columns: int) -> Literal["left", "right"]:
    return "left" if number in (0, columns - 1) else "right"


def clean(text: str) -> str:
    """Without control characters: a reason may quote a log, and a terminal would obey it."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
