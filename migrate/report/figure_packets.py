"""The panels of packets: each one's delay by the time at which it was sent, and the gaps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from migrate.model import Direction, Gap
from migrate.model.recording import Arrivals
from migrate.report.downsample import Rows, downsample, gap_edges, lost_stretches
from migrate.report.drawing import NAMES_PX, Drawing, stretches
from migrate.report.figure_data import TENTH, FigureData, Span
from migrate.report.figure_labels import Label, Place
from migrate.report.figure_lanes import Bar
from migrate.report.svg import UNITS, dots, element, number

LABEL_ROWS_PX = 28
"""Above a panel: room for the labels of its gaps."""
PANEL_PX = 132
LEAST_DELAY_MS = 0.05
"""Points below are drawn here: the axis is logarithmic, and a clock's error can make them less."""
TICKS_MS = (0.1, 1, 10, 100, 1000, 10000, 100000)
ROOM = 0.1
"""Powers of ten above the longest delay."""
LOST_MOST, LOST_Y = 100, UNITS - UNITS // 40
"""Stretches without an arrival that are drawn for a direction: the longest, at the bottom."""
GAPS_MOST = 10
"""Gaps of a direction, and stretches that were not measured, that have an outline and say more when
pointed at; gaps have a label where there is room, too. The others are shaded."""
PHASES_MOST = 5
"""Phases of a gap that are named when it is pointed at."""
EDGES_MOST = 16
"""Gaps of a direction of which the packets on either side are drawn for certain."""
LABEL_ROWS = (21.0, 7.5)
"""Middles of the rows of labels, from the top of their room."""


def delay_range(data: FigureData) -> tuple[float, float]:
    """Of both directions, as powers of ten, with room above for labels."""
    longest = [
        float((log.received_ns - log.sent_ns).max()) / 1e6
        for log in data.arrivals.values()
        if len(log)
    ]
    return math.log10(LEAST_DELAY_MS * 0.6), math.log10(max([10.0, *longest])) + ROOM


def packets_panel(
    drawing: Drawing, data: FigureData, direction: Direction, near: Sequence[Span]
) -> None:
    """One direction; ``near``: windows of which more packets are drawn."""
    rows_top, bounds = drawing.height, delay_range(data)
    drawing.height += LABEL_ROWS_PX
    top, gaps = drawing.height, important_gaps(data, direction)
    _frame(drawing, data, direction, bounds, len(gaps))
    blanks = sorted(_unmeasured(data, direction), key=lambda bar: bar.begin - bar.end)
    drawing.shades(blanks[GAPS_MOST:], top, PANEL_PX, "g blank", "not measured")
    for bar in blanks[:GAPS_MOST]:
        drawing.bar(bar, top, PANEL_PX, "g")
    drawing.shades([_gap_bar(data, gap) for gap in gaps[GAPS_MOST:]], top, PANEL_PX, "g gap", "gap")
    for gap in gaps[:GAPS_MOST]:
        drawing.bar(_gap_bar(data, gap), top, PANEL_PX, "g")
    drawing.labels += [_gap_label(drawing, data, gap, rows_top) for gap in gaps[:GAPS_MOST]]
    log = data.arrivals.get(direction)
    if log is None or not len(log):
        text = "not measured" if log is None else "nothing arrived"
        drawing.missing(text, top + PANEL_PX / 2)
    else:
        _packets(drawing, data, log, gaps[:EDGES_MOST], near, bounds)
    drawing.height += PANEL_PX


# --- the frame ----------------------------------------------------------------------------------


def _frame(
    drawing: Drawing,
    data: FigureData,
    direction: Direction,
    bounds: tuple[float, float],
    gaps: int,
) -> None:
    top = drawing.height
    way = "guest → peer" if direction == "egress" else "peer → guest"
    log = data.arrivals.get(direction)
    counts = [f"{gaps} gaps" if gaps != 1 else "1 gap"] if data.attempt.gaps is not None else []
    counts += [f"{len(log)} packets"] if log is not None else []
    drawing.name(direction, top - 2, "f-head")
    for turn, text in enumerate((way, "delay, ms", "", *counts)):
        if text:
            drawing.name(text, top + 15 + 14 * turn, "f-note")
    for tick in TICKS_MS:
        share = (math.log10(tick) - bounds[0]) / (bounds[1] - bounds[0])
        if 0 <= share <= 1:
            y = top + PANEL_PX * (1 - share)
            drawing.name(f"{tick:g}", y, "f-note", x=NAMES_PX - 6)
            drawing.pieces.append(element("line", kind="rule", x2="100%", y1=y, y2=y))
    drawing.pieces.append(element("rect", kind="frame", width="100%", y=top, height=PANEL_PX))


# --- gaps ---------------------------------------------------------------------------------------


def important_gaps(data: FigureData, direction: Direction) -> list[Gap]:
    """Those over the case's limit first, then the longest of each part of a move, then by length.

    One that did not end may be as long as it likes.
    """
    limit_ms = _limit_ms(data, direction)
    gaps = [gap for gap in data.attempt.gaps or () if gap.direction == direction]
    gaps.sort(key=lambda gap: gap.length_ns, reverse=True)
    first_of_part = {gap.part: gap for gap in reversed(gaps)}

    def importance(gap: Gap) -> tuple[bool, bool, bool]:
        over = limit_ms is not None and gap.length_ms > limit_ms
        return (not over, not gap.open_ended, first_of_part[gap.part] is not gap)

    return sorted(gaps, key=importance)


def _limit_ms(data: FigureData, direction: Direction) -> float | None:
    expect = data.attempt.case.expect
    return expect.outage_egress_ms if direction == "egress" else expect.outage_ingress_ms


def _gap_bar(data: FigureData, gap: Gap) -> Bar:
    begin = data.ms(gap.begin_ns)
    lines = [
        f"gap, {gap.direction}: {_length(gap)} ms",
        f"from {begin:+.1f} ms; {gap.lost} lost, {gap.late} late",
    ]
    if gap.phases:
        names = tuple(dict.fromkeys(gap.phases))
        more = ["…"] if len(names) > PHASES_MOST else []
        lines.append(", ".join((*names[:PHASES_MOST], *more)))
    if gap.next_to_unmeasured:
        lines.append("next to a stretch that was not measured: may be longer")
    kind = "gap open" if gap.open_ended else "gap"
    return Bar(begin, begin + gap.length_ms, kind, "\n".join(lines))


def _length(gap: Gap) -> str:
    bound = "≥ " if gap.open_ended or gap.next_to_unmeasured else ""
    return f"{bound}{gap.length_ms:.1f} ± {gap.error_ns / 1e6:.1f}"


def _gap_label(drawing: Drawing, data: FigureData, gap: Gap, top: float) -> Label:
    begin = data.ms(gap.begin_ns)
    limit_ms = _limit_ms(data, gap.direction)
    over = limit_ms is not None and gap.length_ms > limit_ms
    text = f"{_length(gap)} ms" + (f" > {limit_ms:g}" if over else "")
    places = tuple(Place("mid", top + y, top + LABEL_ROWS_PX) for y in LABEL_ROWS)
    share = drawing.window.share
    return Label(
        text, share(begin), share(begin + gap.length_ms), places, "over" if over else "gap"
    )


def _unmeasured(data: FigureData, direction: Direction) -> Iterator[Bar]:
    for blank in data.attempt.unmeasured:
        if blank.direction == direction:
            begin, length = data.ms(blank.begin_ns), blank.length_ns / 1e6
            hover = f"not measured: {length:.1f} ms\n{blank.reason}"
            yield Bar(begin, begin + length, "blank", hover)


# --- packets ------------------------------------------------------------------------------------


def _packets(
    drawing: Drawing,
    data: FigureData,
    log: Arrivals,
    gaps: Sequence[Gap],
    near: Sequence[Span],
    bounds: tuple[float, float],
) -> None:
    sent = (log.sent_ns - data.zero_ns) / 1e6
    delay = np.maximum((log.received_ns - log.sent_ns) / 1e6, LEAST_DELAY_MS)
    rows = _rows(sent, delay, gap_edges(log, tuple(gaps)), near, data.points)
    share = (np.log10(delay[rows]) - bounds[0]) / (bounds[1] - bounds[0])
    x = np.rint(sent[rows] * TENTH).astype(np.int64)
    y = np.rint(UNITS * (1 - share)).astype(np.int64)
    content = element("path", kind="dots", d=dots(x, y)) + _lost(data, log)
    low, high = map(number, bounds)
    drawing.stretched(content, drawing.height, PANEL_PX, data_delay=f"{low} {high}")


def _rows(
    sent: np.ndarray[tuple[int], np.dtype[np.float64]],
    delay: np.ndarray[tuple[int], np.dtype[np.float64]],
    edges: Rows,
    near: Sequence[Span],
    most: int,
) -> Rows:
    """As many points for all of it as for each window: the closer a window, the more of it."""
    share = most // (1 + len(near))
    chosen = [downsample(sent, delay, edges, share)]
    for window in near:
        inside = np.flatnonzero((sent >= window.begin) & (sent <= window.end))
        none = np.empty(0, dtype=np.int64)
        some = downsample(sent[inside], delay[inside], none, share)
        chosen.append(inside[some])
    rows = np.unique(np.concatenate(chosen))
    return np.asarray(rows[np.argsort(sent[rows], kind="stable")], dtype=np.int64)


def _lost(data: FigureData, log: Arrivals) -> str:
    """What never arrived, at the bottom, where it was sent."""
    longest = sorted(lost_stretches(log), key=lambda pair: pair[0] - pair[1])[:LOST_MOST]
    path = stretches(
        ((data.ms(begin), data.ms(end)) for begin, end in longest), UNITS - UNITS // 40
    )
    return element("path", kind="lost", d=path) if path else ""
