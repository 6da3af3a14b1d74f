"""The upper panel of the figure: what hypervisor, backend and guest report, in lanes."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from migrate.analysis.phases import primary_carries
from migrate.model import Event, Phase, PhaseName, Span
from migrate.report.figure_data import INK, Bar, FigureData, missing
from migrate.report.figure_machines import machine_bars, machine_lanes

STALL, REPORTED, PRIMARY, STANDBY = "#cc79a7", "#1f2933", "#56b4e9", "#e69f00"
STAGES, UNEXPLAINED = ("#f0a875", "#f7cfae"), "#b00020"
PHASES: dict[PhaseName, str] = {
    "setup": "#d8dee6",
    "wait-unplug": "#f3e19b",
    "standby": "#f7efcf",
    "precopy": "#bcdcf0",
    "pre-switchover": "#8fc3e3",
    "stopped": "#f6c8a4",
    "device": "#ef9d62",
    "postcopy-device": "#e8b79a",
    "postcopy": "#d9c2e6",
    "postcopy-paused": "#b58ccb",
    "postcopy-recover-setup": "#cdb0dc",
    "postcopy-recover": "#c4a0d6",
    "colo": "#d9c2e6",
    "cancelling": "#e6c3c3",
    "failing": "#e0a5a5",
    "resumed": "#c3e6d8",
    "announce": "#93d1bb",
    "replug": "#e3c65a",
    "settled": "#eceff3",
}
OVERLAY: tuple[PhaseName, ...] = ("standby", "replug")
"""Phases that overlap the others, so they have a lane of their own."""
LANE_PX, LEVEL, PX = 24, 0.62, 1000
"""Height of a lane; of a label above them, in lanes; roughly the width of the panels."""
LETTER_PX = 7


def lanes(data: FigureData) -> dict[str, float]:
    """Heights of the lanes by name, from the top; only lanes that have content."""
    names = ["phase"]
    if any(phase.name in OVERLAY for phase in data.attempt.phases):
        names.append("primary")
    if _carriers(data):
        names.append("traffic goes over")
    if _stages(data):
        names.append("stop by stage")
    names += ["downtime reported", "guest stall"]
    names += machine_lanes(data)
    return {name: float(len(names) - 1 - number) for number, name in enumerate(names)}


def top(data: FigureData, window: tuple[float, float]) -> float:
    """Height of the panel, in lanes, with room for the labels above."""
    levels = 1 + max((level for _, level, _ in labels(data, window)), default=0)
    return len(lanes(data)) - 0.4 + LEVEL * levels


def draw(drawn: Any, go: Any, data: FigureData, window: tuple[float, float]) -> None:
    """Phases, primary, who carries the traffic, stages, downtime, the guest's stall, machines."""
    at = lanes(data)
    for bar in (
        *_phase_bars(data, at, window),
        *_carrier_bars(data, at, window),
        *_stop_bars(data, at, window),
        *machine_bars(data, at),
    ):
        _draw_bar(drawn, go, bar)
    for x, level, text in labels(data, window):
        _write(drawn, x, at["phase"] + 0.45 + LEVEL * level, text, yanchor="bottom")
    reported = data.attempt.reported.downtime_ms
    if reported is None:
        missing(drawn, "y", at["downtime reported"], "not reported")
    else:
        hover = f"downtime as reported: {reported:.1f} ms<br>a length only, drawn from the stop"
        text = f"{reported:.1f} ms"
        _draw_bar(drawn, go, Bar(at["downtime reported"], 0.0, reported, REPORTED, hover, text))
    if data.attempt.stalls is None:
        missing(drawn, "y", at["guest stall"], "not measured")
    for bar in _stall_bars(data, at["guest stall"]):
        _draw_bar(drawn, go, bar)


def bands(data: FigureData) -> Iterator[tuple[Phase, str]]:
    """Phases that tint the panels below, with their colours; not one that spans the others."""
    for phase in data.attempt.phases:
        if phase.name != "standby":
            yield phase, PHASES[phase.name]


def labels(data: FigureData, window: tuple[float, float]) -> Iterator[tuple[float, int, str]]:
    """x, level and text of the phases' names, stacked so that none hides another."""
    per_px = (window[1] - window[0]) / PX
    level_ends: list[float] = []
    for phase in data.attempt.phases:
        if phase.name in OVERLAY:
            continue  # written in a lane of their own
        x, text = data.ms(phase.begin_ns), _name(phase)
        level = next((n for n, end in enumerate(level_ends) if end <= x), len(level_ends))
        end = x + (LETTER_PX * len(text) + 8) * per_px
        level_ends[level : level + 1] = [end]
        yield x, level, text


def _name(phase: Phase) -> str:
    return f"{phase.name} {phase.number}" if phase.name == "precopy" else phase.name


def _phase_bars(
    data: FigureData, at: dict[str, float], window: tuple[float, float]
) -> Iterator[Bar]:
    for phase in data.attempt.phases:
        begin, end = data.ms(phase.begin_ns), data.ms(phase.end_ns)
        hover = f"{_name(phase)}<br>{end - begin:.1f} ms"
        colour = PHASES[phase.name]
        if phase.name in OVERLAY:
            bar = Bar(at["primary"], begin, end, colour, hover, phase.name)
            yield _fit_name(bar, window, beside=phase.name == "replug")
        else:
            yield Bar(at["phase"], begin, end, colour, hover)


def _carriers(data: FigureData) -> Sequence[Event]:
    return [event for event in data.events if event.name == "carried-by"]


def _removals_ns(data: FigureData, carrier: Event, until_ns: int) -> list[int]:
    """When the device that carried the traffic was taken out, on the axis."""
    device = carrier.data.get("device")
    return [
        event.at_ns
        for event in data.events
        if event.name == "lower-gone"
        and event.data.get("device") == device
        and carrier.at_ns < event.at_ns < until_ns
    ]


def _carrier_bars(
    data: FigureData, at: dict[str, float], window: tuple[float, float]
) -> Iterator[Bar]:
    """A bar for each lower device, from the event that names it to the next, or its removal."""
    carriers = _carriers(data)
    if not carriers:
        return
    sent = [int(log.sent_ns.max()) for log in data.arrivals.values() if len(log)]
    last = max([*(phase.end_ns for phase in data.attempt.phases), *sent, carriers[-1].at_ns])
    ends = [
        min([after_ns, *_removals_ns(data, event, after_ns)])
        for event, after_ns in zip(
            carriers, [*(later.at_ns for later in carriers[1:]), last], strict=True
        )
    ]
    for event, end_ns in zip(carriers, ends, strict=True):
        device, driver = (str(event.data.get(key, "")) for key in ("device", "driver"))
        text = html.escape(f"{device} ({driver})" if device else driver or "nothing")
        begin, end = data.ms(event.at_ns), data.ms(end_ns)
        colour = PRIMARY if primary_carries(event) else STANDBY
        error = f"± {event.off_ns / 1e6:.1f} ms"
        hover = f"{text}<br>begin {error}"
        yield _fit_name(Bar(at["traffic goes over"], begin, end, colour, hover, text), window)


def _stages(data: FigureData) -> Sequence[Span]:
    return [span for hop in data.attempt.inside for span in hop.stop or ()]


def _stop_bars(
    data: FigureData, at: dict[str, float], window: tuple[float, float]
) -> Iterator[Bar]:
    """Bars for the stages of the guest's stop, in alternating colours."""
    for number, span in enumerate(_stages(data)):
        what = html.escape(span.what if span.explained else f"unexplained: {span.what}")
        where = f" on {html.escape(span.host)}" if span.host else ""
        hover = f"{what}{where}<br>{span.length_ms:.1f} ± {span.error_ns / 1e6:.1f} ms"
        colour = STAGES[number % len(STAGES)] if span.explained else UNEXPLAINED
        begin, end = data.ms(span.begin_ns), data.ms(span.end_ns)
        yield _fit_name(Bar(at["stop by stage"], begin, end, colour, hover, what), window)


def _stall_bars(data: FigureData, y: float) -> Iterator[Bar]:
    longest = max(data.attempt.stalls or (), key=lambda stall: stall.length_ns, default=None)
    for stall in data.attempt.stalls or ():
        begin, length = data.ms(stall.begin_ns), stall.length_ns / 1e6
        text = f"{length:.1f} ± {stall.error_ns / 1e6:.1f} ms"
        hover = f"the guest's tick {stall.kind.replace('-', ' ')}<br>{text}"
        # Stalls crowd around the stop: only the longest has its length written beside it.
        yield Bar(y, begin, begin + length, STALL, hover, text if stall is longest else "")


# --- drawing ------------------------------------------------------------------------------------


def _fit_name(bar: Bar, window: tuple[float, float], *, beside: bool = False) -> Bar:
    """The bar with its name inside if it fits, else beside it, or without a name."""
    room = (min(bar.end, window[1]) - max(bar.begin, window[0])) * PX / (window[1] - window[0])
    if room >= LETTER_PX * len(bar.text) + 8:
        return replace(bar, inside_from=max(bar.begin, window[0]))
    return bar if beside else replace(bar, text="")


def _draw_bar(drawn: Any, go: Any, bar: Bar) -> None:
    low, high = bar.y - 0.36, bar.y + 0.36
    x = [bar.begin, bar.end, bar.end, bar.begin, bar.begin]
    drawn.add_trace(
        go.Scatter(
            x=x, y=[low, low, high, high, low], fill="toself", fillcolor=bar.colour, mode="lines",
            line={"width": 1, "color": bar.colour}, hoveron="fills", hoverinfo="text",
            text=bar.hover, showlegend=False,
        ),
        row=1, col=1,
    )  # fmt: skip
    if bar.text:
        x_text = bar.end if bar.inside_from is None else bar.inside_from
        _write(drawn, x_text, bar.y, f" {bar.text}")


def _write(drawn: Any, x: float, y: float, text: str, yanchor: str = "middle") -> None:
    drawn.add_annotation(
        x=x, y=y, xref="x", yref="y", text=text, showarrow=False, xanchor="left", yanchor=yanchor,
        font={"size": 11, "color": INK},
    )  # fmt: skip
