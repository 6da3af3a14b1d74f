"""The figure of one attempt: lanes and panels over one axis of time, as a piece of HTML.

It needs :func:`style` in the page once, and :func:`script` at its end for zooming and pointing;
without the script, and on paper, it is all there but for what is said when pointed at. Zero of the
axis is the first stop of the guest, or the begin of the attempt if it never stopped. Names are the
guests' and hosts' own: all text is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib import resources

from migrate.model import DIRECTIONS
from migrate.report.drawing import NAMES_PX, Drawing
from migrate.report.figure_data import FigureData, Span, windows
from migrate.report.figure_lanes import bands, report_lanes
from migrate.report.figure_machines import machine_lanes
from migrate.report.figure_orders import orders_lane
from migrate.report.figure_packets import packets_panel
from migrate.report.figure_progress import progress_panel
from migrate.report.svg import element, escape, group, number, percent

AXIS_PX = 24
"""Below the last panel: the axis."""
BETWEEN_PX = 10
"""Between panels."""
TICKS = 8
"""On the axis, about."""


def style() -> str:
    """What figures need in the page's style; its colours are variables, which a page may set."""
    return resources.files("migrate.report").joinpath("page", "figure.css").read_text("utf-8")


def script() -> str:
    """What figures need as a script at the end of the page."""
    return resources.files("migrate.report").joinpath("page", "figure.js").read_text("utf-8")


HELP = (
    "Left to right is time. Each dot is one packet: across, when it was sent; up, how long it took "
    "to arrive (logarithmic). A thick line at the bottom is packets that never arrived. A shaded "
    "stretch is a gap: from the last packet served to the next one served, with its length and "
    "error; a packet that arrives too late is not served, so dots within it are late ones. The "
    "most important gaps are labelled: those over a limit, the longest of each part of the move. "
    "The tints behind are the phases named along the top. The downtime reported is a length "
    "without a place, drawn from the stop. “asked and done”: calls to libvirt, faults, and QMP "
    "commands of migrate-lab. Point at anything to see what it is; drag to zoom, double-click to "
    "zoom out. Of many similar packets only some are drawn, but always the edges of the longest "
    "gaps and the extremes of delay."
)
"""How to read a figure: once for all."""


def figure(data: FigureData, title: str = "") -> str:
    """The figure as HTML; ``title`` is what it shows, for those who can't see it."""
    shown = windows(data)
    names = list(shown)
    window = shown[names[0]]
    drawing = Drawing(window)
    for lane in (*orders_lane(data), *report_lanes(data), *machine_lanes(data)):
        drawing.lane(lane)
    lanes_end = drawing.height
    for direction in DIRECTIONS:
        packets_panel(drawing, data, direction, [shown[name] for name in names[:-1]])
    drawing.height += BETWEEN_PX
    progress_panel(drawing, data)
    behind = (*_bands(drawing, data, lanes_end), _ticks(drawing), _zero(drawing, data))
    labels = group(label.svg() for label in drawing.placed())
    height = drawing.height + AXIS_PX
    column = element("svg", "".join(drawing.names), kind="fig-names", width=NAMES_PX, height=height)
    plot = element(
        "svg",
        "".join((*behind, *drawing.pieces, labels)),
        kind="fig-plot", width="100%", height=height, role="img", aria_label=title or None,
    )  # fmt: skip
    body = element("div", column + plot, kind="fig-body")
    return element("div", _buttons(shown) + body, kind="fig", data_w=_range(window))


def _range(window: Span) -> str:
    return f"{number(window.begin)} {number(window.end)}"


def _buttons(shown: dict[str, Span]) -> str:
    buttons = "".join(
        element("button", escape(name), type="button", data_w=_range(window))
        for name, window in shown.items()
    )
    return element("div", buttons, kind="fig-zoom")


def _bands(drawing: Drawing, data: FigureData, top: float) -> Iterator[str]:
    """The phases behind the panels."""
    for bar in bands(data):
        begin, end = drawing.window.share(bar.begin), drawing.window.share(bar.end)
        yield element(
            "rect", kind=f"t {bar.kind}", x=percent(begin), width=percent(end - begin),
            y=top, height=drawing.height - top,
        )  # fmt: skip


def _zero(drawing: Drawing, data: FigureData) -> str:
    """The stop as a line through all of it, and what the axis counts from."""
    drawing.name(
        "ms from the stop" if data.stopped else "ms from begin", drawing.height + 14, "f-note"
    )
    if not data.stopped:
        return ""
    x = percent(drawing.window.share(0.0))
    return element("line", kind="zero", x1=x, x2=x, y1=0, y2=drawing.height)


def _ticks(drawing: Drawing) -> str:
    """``figure.js`` makes them again for another window."""
    window, bottom = drawing.window, drawing.height
    pieces = []
    for at in tick_values(window):
        x = percent(window.share(at))
        pieces.append(element("line", x1=x, x2=x, y1=0, y2=bottom + 4))
        pieces.append(element("text", number(at), x=x, y=bottom + 14))
    return group(pieces, kind="fig-ticks")


def tick_values(window: Span) -> list[float]:
    """Round numbers, about :data:`TICKS` of them."""
    rough = window.length / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough)
    first, last = math.ceil(window.begin / step), math.floor(window.end / step)
    return [turn * step for turn in range(first, last + 1)]
