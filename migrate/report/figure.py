"""The figure of one attempt: four panels over one axis of time, as plotly's JSON.

Zero of the axis is the first stop of the guest, or the begin of the attempt if it never stopped.
Words in the figure are our own or escaped: plotly reads its labels as markup.
"""

from __future__ import annotations

import html
import math
from typing import Any

import numpy as np

from migrate.model import Direction, Gap
from migrate.report.downsample import downsample, gap_edges, lost_stretches
from migrate.report.figure_data import INK, FigureData, missing, windows
from migrate.report.figure_lanes import LANE_PX, bands, draw, lanes, top

# Okabe and Ito's colours, told apart by colour-blind eyes too.
EGRESS, INGRESS, GAP, RATE = "#0072b2", "#009e73", "#d55e00", "#0072b2"
REMAINING, LOST, RULE = "#e69f00", "#b00020", "#e3e8ee"
LEAST_DELAY_MS = 0.05
"""Points below are drawn here: the axis is logarithmic, and a clock's error can make them less."""
ROWS: dict[Direction, int] = {"egress": 2, "ingress": 3}
LOST_MOST = 2000
"""Stretches without an arrival that are drawn for a direction, at most."""
LABELS_MOST = 60
"""Gaps of a direction that are labelled with their length: the longest ones. All are shaded."""
PANEL_PX = 190
"""Height of each panel below the lanes."""


HELP = (
    "Left to right is time. Each dot is one packet: across, when it was sent; up, how long it took "
    "to arrive (the scale is logarithmic). A red line at the bottom is packets that never arrived. "
    "Orange is a gap: from the last packet served to the next one served, with its length and "
    "error. Drag to zoom, double-click to go back."
)
_SCRIPT = """
const draw = (place) => {
  if (place.classList.contains("drawn")) return;
  place.classList.add("drawn");
  const figure = JSON.parse(place.nextElementSibling.textContent);
  Plotly.newPlot(place, figure.data, figure.layout, { responsive: true, displaylogo: false });
};
const watch = new IntersectionObserver((seen) => {
  for (const one of seen) if (one.isIntersecting) { watch.unobserve(one.target); draw(one.target); }
}, { rootMargin: "600px" });
document.querySelectorAll(".plot").forEach((place) => watch.observe(place));
"""


def style() -> str:
    """What figures need in the page's style."""
    return ".plot { min-height: 760px; background: #fff; }"


def script() -> str:
    """What figures need as a script at the end of the page."""
    from plotly.offline import get_plotlyjs  # noqa: PLC0415 - heavy

    return f"{get_plotlyjs()}{_SCRIPT}"


def figure(data: FigureData, title: str = "") -> str:
    """A figure as a piece of HTML."""
    text = plot(data).replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    return (
        f'<div class="plot" role="img" aria-label="{html.escape(title)}"></div>'
        f'<script type="application/json">{text}</script>'
    )


def plot(data: FigureData) -> str:
    """A plotly figure as JSON text, without the library."""
    from plotly import graph_objects as go  # noqa: PLC0415 - heavy
    from plotly.subplots import make_subplots  # noqa: PLC0415 - heavy

    whole, move, stop = windows(data)
    lanes_px = LANE_PX * top(data, move)
    drawn = make_subplots(
        rows=4,
        shared_xaxes=True,
        vertical_spacing=0.03,
        row_heights=[lanes_px, PANEL_PX, PANEL_PX, PANEL_PX],
        specs=[[{}], [{}], [{}], [{"secondary_y": True}]],
    )
    _bands(drawn, data)
    draw(drawn, go, data, move)
    for direction in ROWS:
        _direction(drawn, go, data, direction)
    _progress(drawn, go, data)
    _layout(drawn, data, {"the move": move, "around the stop": stop, "all of it": whole})
    return str(drawn.to_json())


# --- the panels ---------------------------------------------------------------------------------


def _delays(data: FigureData) -> list[float]:
    """The range of delays of both directions, as powers of ten, with room above for labels."""
    longest = [
        float((log.received_ns - log.sent_ns).max()) / 1e6
        for log in data.arrivals.values()
        if len(log)
    ]
    return [math.log10(LEAST_DELAY_MS * 0.6), math.log10(max([10.0, *longest])) + 0.8]


def _direction(drawn: Any, go: Any, data: FigureData, direction: Direction) -> None:
    """Each packet's delay by the time at which it was sent; what never arrived; the gaps."""
    row, colour = ROWS[direction], EGRESS if direction == "egress" else INGRESS
    gaps = tuple(gap for gap in data.attempt.gaps or () if gap.direction == direction)
    log = data.arrivals.get(direction)
    drawn.add_trace(go.Scatter(x=[None], y=[None], showlegend=False), row=row, col=1)
    if log is None or not len(log):
        missing(drawn, f"y{row}", None, "not measured" if log is None else "nothing arrived")
    else:
        sent = (log.sent_ns - data.zero_ns) / 1e6
        delay = np.maximum((log.received_ns - log.sent_ns) / 1e6, LEAST_DELAY_MS)
        rows = downsample(sent, delay, gap_edges(log, gaps), data.points)
        drawn.add_trace(
            go.Scatter(
                x=np.round(sent[rows], 2), y=delay[rows].astype(np.float32), mode="markers",
                marker={"size": 3, "color": colour, "opacity": 0.75},
                name=f"{direction}: {len(rows)} of {len(log)} packets",
                hovertemplate="sent at %{x:.1f} ms<br>arrived %{y:.2f} ms later<extra></extra>",
            ),
            row=row, col=1,
        )  # fmt: skip
        _lost(drawn, go, data, direction)
    _gaps(drawn, data, gaps, row)


def _lost(drawn: Any, go: Any, data: FigureData, direction: Direction) -> None:
    row, log = ROWS[direction], data.arrivals[direction]
    x: list[float | None] = []
    for begin, end in lost_stretches(log)[:LOST_MOST]:
        x += [data.ms(begin), data.ms(end), None]
    y = [None if value is None else LEAST_DELAY_MS for value in x]
    if x:
        drawn.add_trace(
            go.Scatter(
                x=x, y=y, mode="lines+markers", name=f"{direction}: sent, never arrived",
                line={"color": LOST, "width": 4}, marker={"size": 4, "color": LOST},
                hoverinfo="skip",
            ),
            row=row, col=1,
        )  # fmt: skip


def _gaps(drawn: Any, data: FigureData, gaps: tuple[Gap, ...], row: int) -> None:
    """Each gap shaded; the longest labelled. All at once: one by one plotly copies all before."""
    by_length = sorted(gaps, key=lambda gap: gap.length_ns, reverse=True)
    labelled = sorted(by_length[:LABELS_MOST], key=lambda gap: gap.begin_ns)
    drawn.layout.shapes += tuple(_shade(data, gap, row) for gap in gaps)
    drawn.layout.annotations += tuple(
        _label(data, gap, row, number) for number, gap in enumerate(labelled)
    )


def _shade(data: FigureData, gap: Gap, row: int) -> dict[str, Any]:
    begin, end = data.ms(gap.begin_ns), data.ms(gap.begin_ns + gap.length_ns)
    return {
        "type": "rect", "x0": begin, "x1": end, "y0": 0, "y1": 1, "xref": "x",
        "yref": f"y{row} domain", "layer": "below", "fillcolor": "rgba(213,94,0,.24)",
        "line": {"width": 1, "color": GAP},
    }  # fmt: skip


def _label(data: FigureData, gap: Gap, row: int, number: int) -> dict[str, Any]:
    bound = "≥ " if gap.open_ended else ""
    return {
        "x": data.ms(gap.begin_ns + gap.length_ns // 2), "y": 1 - 0.12 * (number % 3), "xref": "x",
        "yref": f"y{row} domain", "showarrow": False, "yanchor": "top",
        "text": f"<b>{bound}{gap.length_ms:.1f} ± {gap.error_ns / 1e6:.1f} ms</b>",
        "bgcolor": "rgba(255,255,255,.75)",
        "font": {"size": 12, "color": "#a04000"},
    }  # fmt: skip


def _progress(drawn: Any, go: Any, data: FigureData) -> None:
    """Transfer rate, and the memory that is left to copy."""
    mib = 2**20
    x: list[float | None] = [round(data.ms(sample.at_ns), 1) for sample in data.samples]
    rate = [s.rate_bytes_s / mib if s.rate_bytes_s is not None else None for s in data.samples]
    left = [
        s.remaining_bytes / mib if s.remaining_bytes is not None else None for s in data.samples
    ]
    if all(value is None for value in (*rate, *left)):
        missing(drawn, "y4", None, "not measured")
    for name, values, colour, dash, second in (
        ("transfer rate", rate, RATE, "solid", False),
        ("memory left to copy", left, REMAINING, "dot", True),
    ):
        drawn.add_trace(
            go.Scatter(
                x=x or [None], y=values or [None], mode="lines+markers", name=name,
                line={"color": colour, "width": 2, "dash": dash}, marker={"size": 4},
                hovertemplate=f"%{{x:.0f}} ms: %{{y:.1f}} MiB{'' if second else '/s'}"
                "<extra></extra>",
            ),
            row=4, col=1, secondary_y=second,
        )  # fmt: skip


# --- what is common -----------------------------------------------------------------------------


def _bands(drawn: Any, data: FigureData) -> None:
    """The phases behind the three lower panels, and the stop as a line through all of them."""
    for phase, colour in bands(data):
        for axis in ("y2", "y3", "y4"):
            drawn.add_shape(
                type="rect", x0=data.ms(phase.begin_ns), x1=data.ms(phase.end_ns), y0=0, y1=1,
                xref="x", yref=f"{axis} domain", fillcolor=colour, opacity=0.16,
                line={"width": 0}, layer="below",
            )  # fmt: skip
    if data.stopped:
        drawn.add_shape(
            type="line", x0=0, x1=0, y0=0, y1=1, xref="x", yref="paper",
            line={"color": INK, "width": 1, "dash": "dot"},
        )  # fmt: skip


def _layout(drawn: Any, data: FigureData, shown: dict[str, tuple[float, float]]) -> None:
    height = top(data, shown["the move"])
    buttons = [
        {"label": name, "method": "relayout", "args": [{"xaxis4.range": list(window)}]}
        for name, window in shown.items()
    ]
    drawn.update_layout(
        template="plotly_white", height=round(LANE_PX * height + 3 * PANEL_PX + 190),
        margin={"l": 130, "r": 70, "t": 50, "b": 90},
        font={"family": "system-ui, sans-serif", "size": 12, "color": INK},
        legend={"orientation": "h", "y": -0.09, "x": 0, "yanchor": "top", "itemsizing": "constant"},
        hovermode="closest", dragmode="zoom",
        updatemenus=[
            {
                "type": "buttons", "direction": "right", "buttons": buttons, "x": 0, "y": 1.005,
                "xanchor": "left", "yanchor": "bottom", "showactive": True, "pad": {"b": 2},
                "bgcolor": "#ffffff", "bordercolor": "#b6c0cc", "font": {"size": 11},
            }
        ],
    )  # fmt: skip
    drawn.update_xaxes(
        range=list(shown["the move"]), gridcolor=RULE, zeroline=False, ticks="outside"
    )
    drawn.update_yaxes(gridcolor=RULE, zeroline=False)
    at = lanes(data)
    zero = "first stop of the guest" if data.stopped else "begin of the attempt"
    drawn.update_xaxes(title_text=f"time from the {zero}, ms", row=4, col=1)
    drawn.update_yaxes(
        row=1, col=1, tickvals=list(at.values()), showgrid=False, fixedrange=True,
        ticktext=list(at), range=[-0.6, height],
    )  # fmt: skip
    for direction, row in ROWS.items():
        way = "guest → peer" if direction == "egress" else "peer → guest"
        drawn.update_yaxes(
            row=row, col=1, type="log", title_text=f"{direction}, {html.escape(way)}<br>delay, ms",
            tickvals=[0.1, 1, 10, 100, 1000, 10000], tickformat="~g", matches="y2",
            range=_delays(data),
        )  # fmt: skip
    drawn.update_yaxes(
        row=4, col=1, secondary_y=False, title_text="rate, MiB/s", rangemode="tozero"
    )
    drawn.update_yaxes(
        row=4, col=1, secondary_y=True, title_text="memory left, MiB", rangemode="tozero",
        showgrid=False,
    )  # fmt: skip
