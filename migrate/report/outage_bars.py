"""What the longest outages consist of, as stacked bars: single attempts, whose parts add up.

Of each case the attempt with the median outage has a thick bar, some others thin ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from migrate.model import DIRECTIONS, Attempt, Direction, GapExplanation
from migrate.report.outage_breakdown import explained_or_reason, mean_position, open_ended
from migrate.report.scale import Scale, Tick, scale_for

MOST_CAUSES = 6
"""Causes that have a colour and a number: the longest of all; others are drawn as one."""
OTHER, UNEXPLAINED = "other", "unexplained"
MOST_RATIO = 10.0
"""Of the longest outages of two cases; beyond it each has a scale of its own."""
MOST_BARS = 7
"""Attempts of a case that are drawn: the shortest, the longest, and evenly between."""
LEAST_LABEL = 3.2
"""Per cent of the width that a part needs for its number."""


@dataclass(frozen=True, slots=True)
class Cause:
    """``key``: its number in the picture, from 1, or a word."""

    key: str
    what: str


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a bar; places are per cent of the width."""

    key: str
    begin: float
    width: float
    label: str
    """Its number; empty where there is no room."""
    words: str


@dataclass(frozen=True, slots=True)
class Bar:
    """An attempt's outage; ``median``: it is the case's median one."""

    attempt: str
    parts: tuple[Part, ...]
    end: float
    endless: bool
    median: bool
    words: str


@dataclass(frozen=True, slots=True)
class BarStrip:
    """A case; ``text``: of the median attempt, or why there is no bar."""

    case: str
    bars: tuple[Bar, ...]
    text: str
    share: str = ""


@dataclass(frozen=True, slots=True)
class BarPanel:
    """All cases, one way."""

    way: Direction
    ticks: tuple[Tick, ...]
    strips: tuple[BarStrip, ...]


@dataclass(frozen=True, slots=True)
class OutageBars:
    """``causes``: the legend, in the order in which they come about."""

    causes: tuple[Cause, ...]
    panels: tuple[BarPanel, ...]
    own_scales: bool
    """Whether each case has its own scale: they are too far apart for one."""


Rows = Mapping[str, Sequence[tuple[Attempt, GapExplanation | str]]]
"""By case, the attempts with their explained gaps, or why there is none."""


def outage_bars(groups: Mapping[str, Sequence[Attempt]]) -> OutageBars | None:
    """None: no outage is explained at all."""
    contents: dict[Direction, Rows] = {
        way: {
            label: [(a, explained_or_reason(a, way)) for a in group]
            for label, group in groups.items()
        }
        for way in DIRECTIONS
    }
    every = [
        gap
        for rows in contents.values()
        for row in rows.values()
        for _, gap in row
        if isinstance(gap, GapExplanation)
    ]
    if not every:
        return None
    keys, scales = _keys(every), _scales(contents)
    own = len(set(scales.values())) > 1
    used: set[str] = set()
    panels = []
    for way, rows in contents.items():
        endless = open_ended(groups, way)
        strips = tuple(
            _strip(label, row, keys, scales[label], endless) for label, row in rows.items()
        )
        ticks = () if own else next(iter(scales.values())).ticks()
        panels.append(BarPanel(way, ticks, strips))
        used |= {part.key for strip in strips for bar in strip.bars for part in bar.parts}
    rest = (Cause(OTHER, "all other causes"), Cause(UNEXPLAINED, UNEXPLAINED))
    causes = (*(Cause(key, what) for what, key in keys.items()), *rest)
    return OutageBars(tuple(cause for cause in causes if cause.key in used), tuple(panels), own)


def _scales(contents: Mapping[Direction, Rows]) -> dict[str, Scale]:
    """By case: one for all, unless the longest of one is nothing beside that of another."""
    lengths: dict[str, list[float]] = {}
    for rows in contents.values():
        for label, row in rows.items():
            lengths.setdefault(label, []).extend(
                gap.length_ns / 1e6 for _, gap in row if isinstance(gap, GapExplanation)
            )
    longest = [most for values in lengths.values() if (most := max(values, default=0.0))]
    if longest and max(longest) > MOST_RATIO * min(longest):
        return {label: scale_for(values, linear=True) for label, values in lengths.items()}
    return dict.fromkeys(lengths, scale_for(longest, linear=True))


def _keys(every: Sequence[GapExplanation]) -> dict[str, str]:
    """The causes that are numbered, in the order in which they come about."""
    lengths: Counter[str] = Counter()
    for gap in every:
        for span in gap.spans:
            if span.explained:
                # As a share of its gap, or one case of long outages would name all the causes.
                lengths[span.what] += round(1e6 * span.length_ms / max(gap.length_ns / 1e6, 1e-6))
    longest = [what for what, _ in lengths.most_common(MOST_CAUSES)]
    in_order = sorted(longest, key=lambda what: mean_position(every, what))
    return {what: str(number) for number, what in enumerate(in_order, 1)}


def _strip(
    label: str,
    row: Sequence[tuple[Attempt, GapExplanation | str]],
    keys: Mapping[str, str],
    scale: Scale,
    endless: set[tuple[int, int]],
) -> BarStrip:
    explained = [(attempt, gap) for attempt, gap in row if isinstance(gap, GapExplanation)]
    if not explained:
        return BarStrip(label, (), next((str(why) for _, why in row), "no attempt counts"))
    explained.sort(key=lambda pair: pair[1].length_ns)
    middle = (len(explained) - 1) // 2
    bars = tuple(
        _bar(*explained[number], keys, scale, endless, is_median=number == middle)
        for number in _chosen(len(explained), middle)
    )
    attempt, gap = explained[middle]
    return BarStrip(
        label,
        bars,
        f"{gap.length_ns / 1e6:.0f} ms",
        f"attempt {attempt.number}, {gap.share:.0%} explained",
    )


def _chosen(number: int, middle: int) -> list[int]:
    """Some of so many, with the first, the last and the middle one."""
    if number <= MOST_BARS:
        return list(range(number))
    evenly = {round(step * (number - 1) / (MOST_BARS - 1)) for step in range(MOST_BARS)}
    nearest = min(evenly, key=lambda one: abs(one - middle))
    return sorted((evenly - {nearest}) | {middle})


def _bar(
    attempt: Attempt,
    gap: GapExplanation,
    keys: Mapping[str, str],
    scale: Scale,
    endless: set[tuple[int, int]],
    *,
    is_median: bool,
) -> Bar:
    length_ms = gap.length_ns / 1e6
    return Bar(
        attempt=f"{attempt.case.id}/{attempt.number}",
        parts=tuple(_parts(gap, keys, scale)),
        end=scale.at(length_ms),
        endless=(gap.begin_ns, gap.length_ns) in endless,
        median=is_median,
        words=f"attempt {attempt.number}: {length_ms:.1f} ms",
    )


def _parts(gap: GapExplanation, keys: Mapping[str, str], scale: Scale) -> Iterator[Part]:
    """In order of time; neighbours of one colour are one part."""
    merged: list[tuple[str, float, float, list[str]]] = []
    for span in gap.spans:
        key = keys.get(span.what, OTHER) if span.explained else UNEXPLAINED
        begin, end = ((at - gap.begin_ns) / 1e6 for at in (span.begin_ns, span.end_ns))
        words = f"{span.what}{f' ({span.host})' if span.host else ''}: {span.length_ms:.1f} ms"
        if merged and merged[-1][0] == key:
            _, first, _, before = merged.pop()
            merged.append((key, first, end, [*before, words]))
        else:
            merged.append((key, begin, end, [words]))
    for key, begin, end, words_of in merged:
        left = scale.at(begin)
        width = round(scale.at(end) - left, 2)
        prefix = "" if key != UNEXPLAINED else "UNEXPLAINED: "
        label = {UNEXPLAINED: "?", OTHER: ""}.get(key, key) if width >= LEAST_LABEL else ""
        if width > 0:
            yield Part(key, left, width, label, prefix + "; ".join(words_of))
