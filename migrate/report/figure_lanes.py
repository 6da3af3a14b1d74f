"""The upper part of the figure: what hypervisor, backend and guest report, lane by lane."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from migrate.analysis.phases import primary_carries
from migrate.model import Event, Phase, PhaseName, Span
from migrate.report.figure_data import FigureData

PHASES: dict[PhaseName, str] = {
    "setup": "calm",
    "wait-unplug": "swap",
    "standby": "swap",
    "precopy": "copy",
    "pre-switchover": "switch",
    "stopped": "stop",
    "device": "stop2",
    "postcopy-device": "stop2",
    "postcopy": "post",
    "postcopy-paused": "post2",
    "postcopy-recover-setup": "post",
    "postcopy-recover": "post2",
    "colo": "post",
    "cancelling": "fail",
    "failing": "fail",
    "resumed": "run",
    "announce": "run2",
    "replug": "swap",
    "settled": "calm",
}
"""Their tints, as ``figure.css`` names them; each phase is named in words beside."""
OVERLAY: tuple[PhaseName, ...] = ("standby", "replug")
"""Phases that overlap the others, so they have a lane of their own."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A stretch in a lane, in ms; ``hover`` when pointed at, ``text`` written in it or beside."""

    begin: float
    end: float
    kind: str
    hover: str
    text: str = ""
    level: float = 1.0
    """Share of the lane's height, from its bottom."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment in a lane: a sign of one letter, with words beside it where there is room."""

    at: float
    letter: str
    kind: str
    hover: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Lane:
    """A row of the upper part; ``missing``: what is said where there is nothing to draw."""

    name: str
    bars: Sequence[Bar] = ()
    marks: Sequence[Mark] = ()
    missing: str = ""
    rows: int = 0
    """Of labels above it."""
    hover: str = field(default="")
    """Of its name."""


def report_lanes(data: FigureData) -> Iterator[Lane]:
    """Phases, primary, who carries the traffic, stages, downtime and stall; those with content."""
    yield Lane("phase", list(_phase_bars(data, overlay=False)), rows=3)
    if overlay := list(_phase_bars(data, overlay=True)):
        yield Lane("primary", overlay)
    if carriers := list(_carrier_bars(data)):
        yield Lane("traffic goes over", carriers)
    if stages := list(_stop_bars(data)):
        yield Lane("stop by stage", stages)
    reported = data.attempt.reported.downtime_ms
    if reported is None:
        yield Lane("downtime reported", missing="not reported")
    else:
        hover = f"downtime as reported: {reported:.1f} ms\na length only, drawn from the stop"
        bar = Bar(0.0, reported, "reported", hover, f"{reported:.1f} ms")
        yield Lane("downtime reported", (bar,))
    stalls = list(_stall_bars(data))
    missing = "not measured" if data.attempt.stalls is None else ""
    yield Lane("guest stall", stalls, missing=missing)


def bands(data: FigureData) -> Sequence[Bar]:
    """Phases that tint the panels below; not one that spans the others."""
    return [bar for bar in _phase_bars(data, overlay=False) if bar.kind not in ("copy", "calm")]


def _phase_bars(data: FigureData, *, overlay: bool) -> Iterator[Bar]:
    for phase in data.attempt.phases:
        if (phase.name in OVERLAY) != overlay:
            continue
        begin, end, name = data.ms(phase.begin_ns), data.ms(phase.end_ns), _name(phase)
        yield Bar(begin, end, PHASES[phase.name], f"{name}: {end - begin:.1f} ms", name)


def _name(phase: Phase) -> str:
    return f"{phase.name} {phase.number}" if phase.name == "precopy" else phase.name


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


def _carrier_bars(data: FigureData) -> Iterator[Bar]:
    """A bar for each lower device, from the event that names it to the next, or its removal."""
    carriers = [event for event in data.events if event.name == "carried-by"]
    if not carriers:
        return
    sent = [int(log.sent_ns.max()) for log in data.arrivals.values() if len(log)]
    last = max([*(phase.end_ns for phase in data.attempt.phases), *sent, carriers[-1].at_ns])
    begins = [event.at_ns for event in carriers]
    for event, after_ns in zip(carriers, [*begins[1:], last], strict=True):
        end_ns = min([after_ns, *_removals_ns(data, event, after_ns)])
        device, driver = (str(event.data.get(key, "")) for key in ("device", "driver"))
        text = f"{device} ({driver})" if device else driver or "nothing"
        error = "not known" if event.error_ns is None else f"± {event.error_ns / 1e6:.1f} ms"
        kind = "primary" if primary_carries(event) else "standby"
        yield Bar(data.ms(event.at_ns), data.ms(end_ns), kind, f"{text}\nbegin {error}", text)


def _stages(data: FigureData) -> Sequence[Span]:
    return [span for hop in data.attempt.inside for span in hop.stop or ()]


def _stop_bars(data: FigureData) -> Iterator[Bar]:
    """Bars for the stages of the guest's stop, in alternating tints."""
    for turn, span in enumerate(_stages(data)):
        what = span.what if span.explained else f"unexplained: {span.what}"
        where = f" on {span.host}" if span.host else ""
        hover = f"{what}{where}\n{span.length_ms:.1f} ± {span.error_ns / 1e6:.1f} ms"
        kind = ("stop", "stop2")[turn % 2] if span.explained else "unexplained"
        yield Bar(data.ms(span.begin_ns), data.ms(span.end_ns), kind, hover, what)


def _stall_bars(data: FigureData) -> Iterator[Bar]:
    longest = max(data.attempt.stalls or (), key=lambda stall: stall.length_ns, default=None)
    for stall in data.attempt.stalls or ():
        begin, length = data.ms(stall.begin_ns), stall.length_ns / 1e6
        text = f"{length:.1f} ± {stall.error_ns / 1e6:.1f} ms"
        hover = f"the guest's tick {stall.kind.replace('-', ' ')}\n{text}"
        # Stalls crowd around the stop: only the longest has its length written beside it.
        yield Bar(begin, begin + length, "stall", hover, text if stall is longest else "")
