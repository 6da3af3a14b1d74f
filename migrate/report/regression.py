"""The result of comparing a run with earlier ones, as text and as JSON."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from migrate.report.baseline import Baseline
from migrate.report.table_model import NOT_MEASURED, Cell, Grid, GridSection
from migrate.report.table_text import plain_sections
from migrate.statistics.censored import Interval, bounds_text, ms_text
from migrate.statistics.comparison import Comparison, Rules

HEADS = (
    *("case", "figure", "n", "baseline", "this run", "change", "floor", "larger", "p", "result"),
)


LOUD = ("worse", "no attempt", "unreadable")
"""Results that are no pass, whatever is allowed of figures."""


def document(
    comparisons: Sequence[Comparison], baseline: Baseline, rules: Rules
) -> dict[str, object]:
    """All comparisons as JSON; what has no upper end, or no lower one, is null there."""
    return {
        "rules": asdict(rules),
        "baseline": {case: list(runs) for case, runs in baseline.used.items()},
        "notes": list(baseline.notes),
        "left_out": list(baseline.left_out),
        "compared": [_finite(asdict(comparison)) for comparison in comparisons],
    }


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def plain(comparisons: Sequence[Comparison], baseline: Baseline, rules: Rules) -> str:
    """How many comparisons came out how and why, then their figures, and what these are of."""
    grid = Grid(HEADS, tuple(_row(comparison) for comparison in comparisons))
    used = [f"{case}: {', '.join(runs) or 'none'}" for case, runs in baseline.used.items()]
    result = GridSection(_title(comparisons), None, tuple(_reasons(comparisons)))
    sections = [
        GridSection("Figures", grid if comparisons else None),
        GridSection("How to read it", None, tuple(_notes(comparisons, rules))),
        GridSection("Baseline, oldest first", None, tuple(used)),
        GridSection("Not used", None, baseline.left_out),
        GridSection("Notes", None, baseline.notes),
    ]
    return plain_sections([result, *(one for one in sections if one.grid or one.lines)])


def _row(comparison: Comparison) -> tuple[Cell, ...]:
    tested = comparison.adjusted is not None
    new = _n(comparison.n_new, comparison.missing_new)
    earlier = _n(comparison.n_earlier, comparison.missing_earlier)
    return (
        Cell(comparison.case),
        Cell(comparison.figure),
        Cell(f"{new} : {earlier}"),
        Cell(_figure(comparison.median_earlier, rate=comparison.rate)),
        Cell(_figure(comparison.median_new, rate=comparison.rate)),
        Cell(_change(comparison)) if tested else Cell(""),
        Cell(_ms(comparison.floor)) if tested and not comparison.rate else Cell(""),
        Cell(f"{comparison.superiority:.0%}") if comparison.superiority is not None else Cell(""),
        Cell(f"{comparison.adjusted:.2g}") if tested else Cell(""),
        Cell(_result(comparison)),
    )


def _result(comparison: Comparison) -> str:
    return comparison.result.upper() if comparison.result in LOUD else comparison.result


def _title(comparisons: Sequence[Comparison]) -> str:
    """How many came out how, what is worse first."""
    counts = Counter(map(_result, comparisons))
    loud_first = sorted(counts.items(), key=lambda item: (not item[0].isupper(), -item[1]))
    listed = ", ".join(f"{number} {result}" for result, number in loud_first)
    return f"Against earlier runs: {listed}" if listed else "Against earlier runs"


def _reasons(comparisons: Sequence[Comparison]) -> Iterator[str]:
    """Why, each reason once, with the cases and figures that it is of."""
    same: dict[tuple[str, str], dict[str, list[str]]] = {}
    for comparison in comparisons:
        if comparison.why:
            of_reason = same.setdefault((_result(comparison), comparison.why), {})
            of_reason.setdefault(comparison.case, []).append(comparison.figure)
    for (result, why), cases in same.items():
        of = "; ".join(f"{case} ({', '.join(figures)})" for case, figures in cases.items())
        yield f"{result}: {why}: {of}"


def _n(known: int, missing: int) -> str:
    return f"{known} of {known + missing}" if missing else str(known)


def _ms(value: float | None) -> str:
    return "?" if value is None or math.isinf(value) else ms_text(value)


def _figure(middle: Interval | None, *, rate: bool) -> str:
    if middle is None:
        return NOT_MEASURED
    if rate:
        return f"{middle[0]:.0%}"
    return f"{bounds_text(middle)} ms"


def _change(comparison: Comparison) -> str:
    if comparison.rate:
        low, high = comparison.low or 0.0, comparison.high or 0.0
        return f"{comparison.change:+.0%} [{low:+.0%}..{high:+.0%}]"
    return f"{_signed(comparison.change)} [{_signed(comparison.low)}..{_signed(comparison.high)}]"


def _signed(value: float | None) -> str:
    return ("+" if value and value > 0 and not math.isinf(value) else "") + _ms(value)


def _notes(comparisons: Sequence[Comparison], rules: Rules) -> Iterator[str]:
    tested = sum(comparison.adjusted is not None for comparison in comparisons)
    if not tested:
        yield "Nothing could be compared."
        return
    units = "earlier runs" if rules.unit == "run" else "attempts, assuming that runs do not differ"
    yield (
        f"{tested} comparisons in one family: if nothing has changed, the probability that any is "
        f"called worse is at most {rules.alpha:.0%}, and the same for better. Unit: {units}. "
        "n: attempts of this run : of the baseline. Change: of the medians, in ms, with an "
        "interval at the level of the whole family. Floor: a smaller change is ignored. Larger: "
        "how often an attempt of this run is larger than one of the baseline. p: one-sided, by "
        "Holm. No change found does not mean that nothing changed. Can't tell is not a pass."
    )
