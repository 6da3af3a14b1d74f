"""What the gate found, as text and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from migrate.report.baseline import Baseline
from migrate.report.move_details import Section
from migrate.report.table import plain_sections
from migrate.report.table_model import IN_FLOOR, NOT_MEASURED, Cell, Grid
from migrate.statistics.regression import Comparison, Rules
from migrate.statistics.spread import Interval

HEADS = (
    *("case", "figure", "n", "baseline", "this run", "change", "floor", "larger", "p", "result"),
)


def document(found: Sequence[Comparison], baseline: Baseline, rules: Rules) -> dict[str, object]:
    """All of it; what has no upper end, or no lower one, is null there."""
    return {
        "rules": asdict(rules),
        "baseline": {case: list(runs) for case, runs in baseline.used.items()},
        "notes": list(baseline.notes),
        "left_out": list(baseline.left_out),
        "compared": [_finite(asdict(one)) for one in found],
    }


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {name: _finite(of) for name, of in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(of) for of in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def plain(found: Sequence[Comparison], baseline: Baseline, rules: Rules) -> str:
    """A table, what it was made of, and how to read it."""
    grid = Grid(HEADS, tuple(_row(one) for one in found))
    used = [f"{case}: {', '.join(runs) or 'none'}" for case, runs in baseline.used.items()]
    sections = [
        Section("Against earlier runs", grid if found else None, (*_reading(found, rules),)),
        Section("Baseline, oldest first", None, tuple(used)),
        Section("Not used", None, baseline.left_out),
        Section("To know", None, baseline.notes),
    ]
    return plain_sections([one for one in sections if one.grid or one.lines])


def _row(one: Comparison) -> tuple[Cell, ...]:
    tested = one.adjusted is not None
    return (
        Cell(one.case),
        Cell(one.figure),
        Cell(f"{_n(one.n_new, one.missing_new)} : {_n(one.n_earlier, one.missing_earlier)}"),
        Cell(_figure(one.median_earlier, rate=one.rate)),
        Cell(_figure(one.median_new, rate=one.rate)),
        Cell(_change(one)) if tested else Cell(""),
        Cell(_ms(one.floor)) if tested and not one.rate else Cell(""),
        Cell(f"{one.superiority:.0%}") if one.superiority is not None else Cell(""),
        Cell(f"{one.adjusted:.2g}") if tested else Cell(""),
        Cell(one.result.upper() if one.result == "worse" else one.result, one.why),
    )


def _n(known: int, missing: int) -> str:
    return f"{known} of {known + missing}" if missing else str(known)


def _ms(value: float | None) -> str:
    if value is None or math.isinf(value):
        return "?"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}"


def _figure(middle: Interval | None, *, rate: bool) -> str:
    if middle is None:
        return NOT_MEASURED
    low, high = middle
    if rate:
        return f"{low:.0%}"
    if math.isinf(high):
        return f"≥ {_ms(low)} ms"
    if low == high:
        return f"{_ms(low)} ms"
    return f"{IN_FLOOR} ({_ms(high)} ms)" if not low else f"{_ms(low)} to {_ms(high)} ms"


def _change(one: Comparison) -> str:
    if one.rate:
        low, high = one.low or 0.0, one.high or 0.0
        return f"{one.change:+.0%} [{low:+.0%}..{high:+.0%}]"
    return f"{_signed(one.change)} [{_signed(one.low)}..{_signed(one.high)}]"


def _signed(value: float | None) -> str:
    return ("+" if value and value > 0 and not math.isinf(value) else "") + _ms(value)


def _reading(found: Sequence[Comparison], rules: Rules) -> Iterator[str]:
    tested = sum(one.adjusted is not None for one in found)
    if not tested:
        yield "Nothing could be compared."
        return
    units = "earlier runs" if rules.unit == "run" else "attempts, runs taken to be all alike"
    yield (
        f"{tested} comparisons in one family: at most {rules.alpha:.0%} that any is called "
        f"worse if nothing has changed, and as much that any is called better. Unit: {units}. "
        "n: attempts of this run : of the baseline. Change: of the medians, in ms, with its own "
        "95 % interval. Floor: less is called no change. Larger: how often an attempt of this run "
        "is larger than one of the baseline. p: of one side, by Holm. "
        "No change found is not: nothing changed."
    )
