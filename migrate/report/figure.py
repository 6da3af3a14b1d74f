"""The picture of one attempt: four panels over one axis of time, as a plotly figure in JSON.

Zero of the axis is the first stop of the guest, or the begin of the attempt if it never stopped.
Words in the figure are our own or escaped: plotly reads its labels as markup.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from migrate.model import Attempt, Direction, Gap, Phase, Sample
from migrate.report.thin import edges, lost, thinned
from migrate.timeline import Arrivals

# Okabe and Ito's colours, told apart by colour-blind eyes too.
EGRESS, INGRESS, GAP, STALL, RATE = "#0072b2", "#009e73", "#d55e00", "#cc79a7", "#0072b2"
REMAINING, REPORTED, LOST, INK, RULE = "#e69f00", "#1f2933", "#b00020", "#1f2933", "#e3e8ee"
PHASES = {
    "setup": "#d8dee6",
    "precopy": "#bcdcf0",
    "pre-switchover": "#8fc3e3",
    "stopped": "#f6c8a4",
    "device": "#ef9d62",
    "postcopy": "#d9c2e6",
    "resumed": "#c3e6d8",
    "announce": "#93d1bb",
    "settled": "#eceff3",
}
LEAST_DELAY_MS = 0.05
"""Points below are drawn here: the axis is logarithmic, and a clock's error can make them less."""
LANES = {"phase": 2, "downtime": 1, "stall": 0}
ROWS: dict[Direction, int] = {"egress": 2, "ingress": 3}
LOST_MOST = 2000
"""Stretches without an arrival that are drawn of a direction."""
LABELS_MOST = 60
"""Gaps of a direction that are labelled with their length: the longest. All are shaded."""
PX = 1000
"""Roughly the width of the panels, to tell whether a label has room."""
UNIT_PX, LEVEL, PANEL_PX = 24, 0.62, 190
"""Height of a lane; of a label above them, in lanes; of each panel below."""


@dataclass(frozen=True, slots=True)
class Seen:
    """All that a picture is made of."""

    attempt: Attempt
    arrivals: dict[str, Arrivals]
    samples: Sequence[Sample]
    points: int = 4000
    """Of each direction that are drawn, at most, besides edges and extremes."""

    @property
    def zero_ns(self) -> int:
        """The first stop."""
        stops = [p.begin_ns for p in self.attempt.phases if p.name in ("stopped", "device")]
        return min(stops, default=self.attempt.begin_ns)

    @property
    def stopped(self) -> bool:
        """Whether the guest ever stopped."""
        return any(phase.name in ("stopped", "device") for phase in self.attempt.phases)

    def ms(self, at_ns: float) -> float:
        """A point of the axis in the picture."""
        return (at_ns - self.zero_ns) / 1e6


def figure(seen: Seen) -> str:
    """A plotly figure as JSON text, without the library."""
    from plotly import graph_objects as go  # noqa: PLC0415 - heavy
    from plotly.subplots import make_subplots  # noqa: PLC0415 - heavy

    whole, move, stop = windows(seen)
    lanes_px = UNIT_PX * _top(seen, move)
    drawn = make_subplots(
        rows=4,
        shared_xaxes=True,
        vertical_spacing=0.03,
        row_heights=[lanes_px, PANEL_PX, PANEL_PX, PANEL_PX],
        specs=[[{}], [{}], [{}], [{"secondary_y": True}]],
    )
    _bands(drawn, seen)
    _lanes(drawn, go, seen, move)
    for direction in ROWS:
        _direction(drawn, go, seen, direction)
    _progress(drawn, go, seen)
    _layout(drawn, seen, {"the move": move, "around the stop": stop, "all of it": whole})
    return str(drawn.to_json())


def windows(seen: Seen) -> tuple[tuple[float, float], ...]:
    """What the three buttons show, in ms: all that was seen, the move, and around the stop."""
    attempt = seen.attempt
    spans = [(seen.ms(p.begin_ns), seen.ms(p.end_ns)) for p in attempt.phases]
    gaps = [(seen.ms(g.begin_ns), seen.ms(g.begin_ns + g.length_ns)) for g in attempt.gaps or ()]
    sent = [seen.ms(at) for log in seen.arrivals.values() if len(log) for at in _ends(log.sent_ns)]
    points = [*(x for span in (*spans, *gaps) for x in span), *sent]
    if not points:
        points = [seen.ms(attempt.begin_ns), seen.ms(attempt.end_ns)]
    working = [
        span
        for phase, span in zip(attempt.phases, spans, strict=True)
        if phase.name not in ("settled", "setup")
    ]
    stop = [
        x
        for phase, span in zip(attempt.phases, spans, strict=True)
        if phase.name in ("pre-switchover", "stopped", "device")
        for x in span
    ]
    whole = _padded(points, 0.02)
    move = _padded([x for span in (*working, *gaps) for x in span] or points, 0.06)
    if not stop:
        return whole, move, move
    length = max(max(stop) - min(stop), 20.0)
    near = (min(stop) - 2 * length, max(stop) + 6 * length)
    return whole, move, (max(near[0], whole[0]), min(near[1], whole[1]))


def _ends(times: Any) -> tuple[float, float]:
    return float(times.min()), float(times.max())


def _padded(points: Sequence[float], share: float) -> tuple[float, float]:
    low, high = min(points), max(points)
    pad = max((high - low) * share, 5.0)
    return low - pad, high + pad


# --- the panels ---------------------------------------------------------------------------------


def _lanes(drawn: Any, go: Any, seen: Seen, move: tuple[float, float]) -> None:
    """What the hypervisor and the guest say: phases, reported downtime, the guest's stall."""
    attempt = seen.attempt
    for phase in attempt.phases:
        span = (seen.ms(phase.begin_ns), seen.ms(phase.end_ns))
        told = f"{_name(phase)}<br>{span[1] - span[0]:.1f} ms"
        _bar(drawn, go, Bar("phase", *span, PHASES[phase.name], told))
    for x, level, text in labels(seen, move):
        drawn.add_annotation(
            x=x, y=2.45 + LEVEL * level, xref="x", yref="y", text=text, showarrow=False,
            xanchor="left", yanchor="bottom", font={"size": 11, "color": INK},
        )  # fmt: skip
    reported = attempt.reported.downtime_ms
    if reported is None:
        _missing(drawn, "y", LANES["downtime"], "not reported")
    else:
        told = f"downtime as reported: {reported:.1f} ms<br>a length only, drawn from the stop"
        _bar(drawn, go, Bar("downtime", 0.0, reported, REPORTED, told, f"{reported:.1f} ms"))
    if attempt.stalls is None:
        _missing(drawn, "y", LANES["stall"], "not measured")
    longest = max(attempt.stalls or (), key=lambda stall: stall.length_ns, default=None)
    for stall in attempt.stalls or ():
        begin, length = seen.ms(stall.begin_ns), stall.length_ns / 1e6
        text = f"{length:.1f} ± {stall.error_ns / 1e6:.1f} ms"
        told = f"the guest's tick {stall.kind.replace('-', ' ')}<br>{text}"
        # Stalls crowd around the stop: only the longest has its length written beside it.
        beside = text if stall is longest else ""
        _bar(drawn, go, Bar("stall", begin, begin + length, STALL, told, beside))


@dataclass(frozen=True, slots=True)
class Bar:
    """A stretch in a lane; ``told`` when pointed at, ``text`` written beside it."""

    lane: str
    begin: float
    end: float
    colour: str
    told: str
    text: str = ""


def _bar(drawn: Any, go: Any, bar: Bar) -> None:
    y = LANES[bar.lane]
    low, high = y - 0.36, y + 0.36
    x = [bar.begin, bar.end, bar.end, bar.begin, bar.begin]
    drawn.add_trace(
        go.Scatter(
            x=x, y=[low, low, high, high, low], fill="toself", fillcolor=bar.colour, mode="lines",
            line={"width": 1, "color": bar.colour}, hoveron="fills", hoverinfo="text",
            text=bar.told, showlegend=False,
        ),
        row=1, col=1,
    )  # fmt: skip
    if bar.text:
        drawn.add_annotation(
            x=bar.end, y=y, xref="x", yref="y", text=f" {bar.text}", showarrow=False,
            xanchor="left", font={"size": 11, "color": INK},
        )  # fmt: skip


def _name(phase: Phase) -> str:
    return f"{phase.name} {phase.number}" if phase.name == "precopy" else phase.name


def labels(seen: Seen, window: tuple[float, float]) -> Iterator[tuple[float, int, str]]:
    """x, level and text of the phases' names, stacked so that none hides another."""
    per_px = (window[1] - window[0]) / PX
    taken: list[float] = []
    for phase in seen.attempt.phases:
        x, text = seen.ms(phase.begin_ns), _name(phase)
        level = next((n for n, end in enumerate(taken) if end <= x), len(taken))
        end = x + (7 * len(text) + 8) * per_px
        taken[level : level + 1] = [end]
        yield x, level, text


def _delays(seen: Seen) -> list[float]:
    """Of both directions, so that they compare: powers of ten, room above for the labels."""
    longest = [
        float((log.received_ns - log.sent_ns).max()) / 1e6
        for log in seen.arrivals.values()
        if len(log)
    ]
    return [math.log10(LEAST_DELAY_MS * 0.6), math.log10(max([10.0, *longest])) + 0.8]


def _top(seen: Seen, window: tuple[float, float]) -> float:
    """Of the lanes' panel, in lanes: room for the labels above."""
    return 2.6 + LEVEL * (1 + max((level for _, level, _ in labels(seen, window)), default=0))


def _direction(drawn: Any, go: Any, seen: Seen, direction: Direction) -> None:
    """Each packet's delay by the time at which it was sent; what never arrived; the gaps."""
    row, colour = ROWS[direction], EGRESS if direction == "egress" else INGRESS
    gaps = tuple(gap for gap in seen.attempt.gaps or () if gap.direction == direction)
    log = seen.arrivals.get(direction)
    drawn.add_trace(go.Scatter(x=[None], y=[None], showlegend=False), row=row, col=1)
    if log is None or not len(log):
        _missing(drawn, f"y{row}", None, "not measured" if log is None else "nothing arrived")
    else:
        sent = (log.sent_ns - seen.zero_ns) / 1e6
        delay = np.maximum((log.received_ns - log.sent_ns) / 1e6, LEAST_DELAY_MS)
        rows = thinned(sent, delay, edges(log, gaps), seen.points)
        drawn.add_trace(
            go.Scatter(
                x=np.round(sent[rows], 2), y=delay[rows].astype(np.float32), mode="markers",
                marker={"size": 3, "color": colour, "opacity": 0.75},
                name=f"{direction}: {len(rows)} of {len(log)} packets",
                hovertemplate="sent at %{x:.1f} ms<br>arrived %{y:.2f} ms later<extra></extra>",
            ),
            row=row, col=1,
        )  # fmt: skip
        _lost(drawn, go, seen, direction)
    _gaps(drawn, seen, gaps, row)


def _lost(drawn: Any, go: Any, seen: Seen, direction: Direction) -> None:
    row, log = ROWS[direction], seen.arrivals[direction]
    x: list[float | None] = []
    for begin, end in lost(log)[:LOST_MOST]:
        x += [seen.ms(begin), seen.ms(end), None]
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


def _gaps(drawn: Any, seen: Seen, gaps: tuple[Gap, ...], row: int) -> None:
    """Each gap shaded; the longest labelled. All at once: one by one plotly copies all before."""
    by_length = sorted(gaps, key=lambda gap: gap.length_ns, reverse=True)
    labelled = sorted(by_length[:LABELS_MOST], key=lambda gap: gap.begin_ns)
    drawn.layout.shapes += tuple(_shade(seen, gap, row) for gap in gaps)
    drawn.layout.annotations += tuple(
        _label(seen, gap, row, number) for number, gap in enumerate(labelled)
    )


def _shade(seen: Seen, gap: Gap, row: int) -> dict[str, Any]:
    begin, end = seen.ms(gap.begin_ns), seen.ms(gap.begin_ns + gap.length_ns)
    return {
        "type": "rect", "x0": begin, "x1": end, "y0": 0, "y1": 1, "xref": "x",
        "yref": f"y{row} domain", "layer": "below", "fillcolor": "rgba(213,94,0,.24)",
        "line": {"width": 1, "color": GAP},
    }  # fmt: skip


def _label(seen: Seen, gap: Gap, row: int, number: int) -> dict[str, Any]:
    bound = "≥ " if gap.open_ended else ""
    return {
        "x": seen.ms(gap.begin_ns + gap.length_ns // 2), "y": 1 - 0.12 * (number % 3), "xref": "x",
        "yref": f"y{row} domain", "showarrow": False, "yanchor": "top",
        "text": f"<b>{bound}{gap.length_ms:.1f} ± {gap.error_ns / 1e6:.1f} ms</b>",
        "bgcolor": "rgba(255,255,255,.75)",
        "font": {"size": 12, "color": "#a04000"},
    }  # fmt: skip


def _progress(drawn: Any, go: Any, seen: Seen) -> None:
    """Transfer rate, and the memory that is left to copy."""
    mib = 2**20
    x: list[float | None] = [round(seen.ms(sample.at_ns), 1) for sample in seen.samples]
    rate = [s.rate_bytes_s / mib if s.rate_bytes_s is not None else None for s in seen.samples]
    left = [
        s.remaining_bytes / mib if s.remaining_bytes is not None else None for s in seen.samples
    ]
    if all(value is None for value in (*rate, *left)):
        _missing(drawn, "y4", None, "not measured")
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


def _missing(drawn: Any, axis: str, y: float | None, text: str) -> None:
    where = {"y": 0.5, "yref": f"{axis} domain"} if y is None else {"y": y, "yref": axis}
    drawn.add_annotation(
        x=0.5, xref="x domain", text=f"<i>{text}</i>", showarrow=False,
        font={"size": 13, "color": "#6b7785"}, **where,
    )  # fmt: skip


# --- what is common -----------------------------------------------------------------------------


def _bands(drawn: Any, seen: Seen) -> None:
    """The phases behind the three lower panels, and the stop as a line through all of them."""
    for phase in seen.attempt.phases:
        for axis in ("y2", "y3", "y4"):
            drawn.add_shape(
                type="rect", x0=seen.ms(phase.begin_ns), x1=seen.ms(phase.end_ns), y0=0, y1=1,
                xref="x", yref=f"{axis} domain", fillcolor=PHASES[phase.name], opacity=0.16,
                line={"width": 0}, layer="below",
            )  # fmt: skip
    if seen.stopped:
        drawn.add_shape(
            type="line", x0=0, x1=0, y0=0, y1=1, xref="x", yref="paper",
            line={"color": INK, "width": 1, "dash": "dot"},
        )  # fmt: skip


def _layout(drawn: Any, seen: Seen, shown: dict[str, tuple[float, float]]) -> None:
    top = _top(seen, shown["the move"])
    buttons = [
        {"label": name, "method": "relayout", "args": [{"xaxis4.range": list(window)}]}
        for name, window in shown.items()
    ]
    drawn.update_layout(
        template="plotly_white", height=round(UNIT_PX * top + 3 * PANEL_PX + 190),
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
    zero = "first stop of the guest" if seen.stopped else "begin of the attempt"
    drawn.update_xaxes(title_text=f"time from the {zero}, ms", row=4, col=1)
    drawn.update_yaxes(
        row=1, col=1, tickvals=list(LANES.values()), showgrid=False, fixedrange=True,
        ticktext=["phase", "downtime reported", "guest stall"],
        range=[-0.6, top],
    )  # fmt: skip
    for direction, row in ROWS.items():
        way = "guest → peer" if direction == "egress" else "peer → guest"
        drawn.update_yaxes(
            row=row, col=1, type="log", title_text=f"{direction}, {html.escape(way)}<br>delay, ms",
            tickvals=[0.1, 1, 10, 100, 1000, 10000], tickformat="~g", matches="y2",
            range=_delays(seen),
        )  # fmt: skip
    drawn.update_yaxes(
        row=4, col=1, secondary_y=False, title_text="rate, MiB/s", rangemode="tozero"
    )
    drawn.update_yaxes(
        row=4, col=1, secondary_y=True, title_text="memory left, MiB", rangemode="tozero",
        showgrid=False,
    )  # fmt: skip
