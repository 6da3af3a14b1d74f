"""The upper panel of the picture: what the hypervisor, the backend and the guest say, in lanes."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from migrate.analysis.phases import primary_carries
from migrate.model import Event, Phase, PhaseName, Span
from migrate.report.figure_data import INK, FigureData, missing

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
    "postcopy": "#d9c2e6",
    "resumed": "#c3e6d8",
    "announce": "#93d1bb",
    "replug": "#e3c65a",
    "settled": "#eceff3",
}
OVERLAY: tuple[PhaseName, ...] = ("standby", "replug")
"""These go on beside the others, so they have a lane of their own."""
LANE_PX, LEVEL, PX = 24, 0.62, 1000
"""Height of a lane; of a label above them, in lanes; roughly the width of the panels."""
LETTER_PX = 7


@dataclass(frozen=True, slots=True)
class Bar:
    """A stretch in a lane; ``told`` when pointed at, ``text`` written beside it, or inside."""

    y: float
    begin: float
    end: float
    colour: str
    told: str
    text: str = ""
    inside_from: float | None = None


def lanes(seen: FigureData) -> dict[str, float]:
    """Names of the lanes by their height, from the top; only those that have something to say."""
    names = ["phase"]
    if any(phase.name in OVERLAY for phase in seen.attempt.phases):
        names.append("primary")
    if _carriers(seen):
        names.append("traffic goes over")
    if _stages(seen):
        names.append("stop by stage")
    names += ["downtime reported", "guest stall"]
    return {name: float(len(names) - 1 - number) for number, name in enumerate(names)}


def top(seen: FigureData, window: tuple[float, float]) -> float:
    """Of the lanes' panel, in lanes: room for the labels above."""
    levels = 1 + max((level for _, level, _ in labels(seen, window)), default=0)
    return len(lanes(seen)) - 0.4 + LEVEL * levels


def draw(drawn: Any, go: Any, seen: FigureData, window: tuple[float, float]) -> None:
    """Phases, primary, who carries the traffic, the stop by stage, downtime, the guest's stall."""
    at = lanes(seen)
    for bar in (
        *_phases(seen, at, window),
        *_carried(seen, at, window),
        *_stopped(seen, at, window),
    ):
        _bar(drawn, go, bar)
    for x, level, text in labels(seen, window):
        _write(drawn, x, at["phase"] + 0.45 + LEVEL * level, text, yanchor="bottom")
    reported = seen.attempt.reported.downtime_ms
    if reported is None:
        missing(drawn, "y", at["downtime reported"], "not reported")
    else:
        told = f"downtime as reported: {reported:.1f} ms<br>a length only, drawn from the stop"
        text = f"{reported:.1f} ms"
        _bar(drawn, go, Bar(at["downtime reported"], 0.0, reported, REPORTED, told, text))
    if seen.attempt.stalls is None:
        missing(drawn, "y", at["guest stall"], "not measured")
    for bar in _stalls(seen, at["guest stall"]):
        _bar(drawn, go, bar)


def bands(seen: FigureData) -> Iterator[tuple[Phase, str]]:
    """The phases that tint the panels below, with their colours: not one that spans the others."""
    for phase in seen.attempt.phases:
        if phase.name != "standby":
            yield phase, PHASES[phase.name]


def labels(seen: FigureData, window: tuple[float, float]) -> Iterator[tuple[float, int, str]]:
    """x, level and text of the phases' names, stacked so that none hides another."""
    per_px = (window[1] - window[0]) / PX
    taken: list[float] = []
    for phase in seen.attempt.phases:
        if phase.name in OVERLAY:
            continue  # written in a lane of their own
        x, text = seen.ms(phase.begin_ns), _name(phase)
        level = next((n for n, end in enumerate(taken) if end <= x), len(taken))
        end = x + (LETTER_PX * len(text) + 8) * per_px
        taken[level : level + 1] = [end]
        yield x, level, text


def _name(phase: Phase) -> str:
    return f"{phase.name} {phase.number}" if phase.name == "precopy" else phase.name


def _phases(seen: FigureData, at: dict[str, float], window: tuple[float, float]) -> Iterator[Bar]:
    for phase in seen.attempt.phases:
        begin, end = seen.ms(phase.begin_ns), seen.ms(phase.end_ns)
        told = f"{_name(phase)}<br>{end - begin:.1f} ms"
        colour = PHASES[phase.name]
        if phase.name in OVERLAY:
            bar = Bar(at["primary"], begin, end, colour, told, phase.name)
            yield _named(bar, window, beside=phase.name == "replug")
        else:
            yield Bar(at["phase"], begin, end, colour, told)


def _carriers(seen: FigureData) -> Sequence[Event]:
    return [event for event in seen.events if event.name == "carried-by"]


def _gone(seen: FigureData, carrier: Event, until_ns: int) -> list[int]:
    """When the device that carries was taken out, on the axis."""
    device = carrier.data.get("device")
    return [
        event.at_ns
        for event in seen.events
        if event.name == "lower-gone"
        and event.data.get("device") == device
        and carrier.at_ns < event.at_ns < until_ns
    ]


def _carried(seen: FigureData, at: dict[str, float], window: tuple[float, float]) -> Iterator[Bar]:
    """Each lower device from the event that names it to the next, or until it is gone."""
    told = _carriers(seen)
    if not told:
        return
    sent = [int(log.sent_ns.max()) for log in seen.arrivals.values() if len(log)]
    last = max([*(phase.end_ns for phase in seen.attempt.phases), *sent, told[-1].at_ns])
    ends = [
        min([after_ns, *_gone(seen, event, after_ns)])
        for event, after_ns in zip(told, [*(later.at_ns for later in told[1:]), last], strict=True)
    ]
    for event, end_ns in zip(told, ends, strict=True):
        device, driver = (str(event.data.get(key, "")) for key in ("device", "driver"))
        text = html.escape(f"{device} ({driver})" if device else driver or "nothing")
        begin, end = seen.ms(event.at_ns), seen.ms(end_ns)
        colour = PRIMARY if primary_carries(event) else STANDBY
        error = f"± {event.off_ns / 1e6:.1f} ms"
        told_more = f"{text}<br>begin {error}"
        yield _named(Bar(at["traffic goes over"], begin, end, colour, told_more, text), window)


def _stages(seen: FigureData) -> Sequence[Span]:
    return [span for hop in seen.attempt.inside for span in hop.stop or ()]


def _stopped(seen: FigureData, at: dict[str, float], window: tuple[float, float]) -> Iterator[Bar]:
    """What went on while the guest was stopped, in colours that take turns."""
    for number, span in enumerate(_stages(seen)):
        what = html.escape(span.what if span.explained else f"unexplained: {span.what}")
        where = f" on {html.escape(span.host)}" if span.host else ""
        told = f"{what}{where}<br>{span.length_ms:.1f} ± {span.error_ns / 1e6:.1f} ms"
        colour = STAGES[number % len(STAGES)] if span.explained else UNEXPLAINED
        begin, end = seen.ms(span.begin_ns), seen.ms(span.end_ns)
        yield _named(Bar(at["stop by stage"], begin, end, colour, told, what), window)


def _stalls(seen: FigureData, y: float) -> Iterator[Bar]:
    longest = max(seen.attempt.stalls or (), key=lambda stall: stall.length_ns, default=None)
    for stall in seen.attempt.stalls or ():
        begin, length = seen.ms(stall.begin_ns), stall.length_ns / 1e6
        text = f"{length:.1f} ± {stall.error_ns / 1e6:.1f} ms"
        told = f"the guest's tick {stall.kind.replace('-', ' ')}<br>{text}"
        # Stalls crowd around the stop: only the longest has its length written beside it.
        yield Bar(y, begin, begin + length, STALL, told, text if stall is longest else "")


# --- drawing ------------------------------------------------------------------------------------


def _named(bar: Bar, window: tuple[float, float], *, beside: bool = False) -> Bar:
    """Its name inside if there is room in the window, else beside it if nothing follows there."""
    room = (min(bar.end, window[1]) - max(bar.begin, window[0])) * PX / (window[1] - window[0])
    if room >= LETTER_PX * len(bar.text) + 8:
        return replace(bar, inside_from=max(bar.begin, window[0]))
    return bar if beside else replace(bar, text="")


def _bar(drawn: Any, go: Any, bar: Bar) -> None:
    low, high = bar.y - 0.36, bar.y + 0.36
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
        x_text = bar.end if bar.inside_from is None else bar.inside_from
        _write(drawn, x_text, bar.y, f" {bar.text}")


def _write(drawn: Any, x: float, y: float, text: str, yanchor: str = "middle") -> None:
    drawn.add_annotation(
        x=x, y=y, xref="x", yref="y", text=text, showarrow=False, xanchor="left", yanchor=yanchor,
        font={"size": 11, "color": INK},
    )  # fmt: skip
