"""What a figure is made of, its axis of time, and the windows on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from migrate.model import Attempt, Event, MachineRecording, Phase, Sample
from migrate.model.recording import Arrivals

T = TypeVar("T", int, float)
STOP_PHASES = ("pre-switchover", "stopped", "device")
STOPS_MOST = 4
"""Stops that have a window of their own: the first ones."""
FAR_NS = 1 << 62
"""Ends of the axis: differences of two times are 64 bits, too."""
TENTH = 10
"""Units of a stretched drawing in a millisecond."""


def on_axis(at_ns: T) -> T:
    """A time that can't be one, in a file that is damaged, is at the axis' end: 146 years off."""
    return max(-FAR_NS, min(FAR_NS, at_ns))


@dataclass(frozen=True, slots=True)
class FigureData:
    """All that the figure of one attempt is made of."""

    attempt: Attempt
    arrivals: dict[str, Arrivals]
    samples: Sequence[Sample]
    events: Sequence[Event] = ()
    machines: Sequence[MachineRecording] = ()
    points: int = 640
    """Packets of each direction that are drawn, about, besides edges and extremes."""
    zero_ns: int = field(init=False)
    """The zero of the figure's axis: the first stop, or the attempt's begin without one."""

    def __post_init__(self) -> None:
        stops = [p.begin_ns for p in self.attempt.phases if p.name in ("stopped", "device")]
        object.__setattr__(self, "zero_ns", on_axis(min(stops, default=self.attempt.begin_ns)))

    @property
    def stopped(self) -> bool:
        """Whether the guest ever stopped."""
        return any(phase.name in ("stopped", "device") for phase in self.attempt.phases)

    def ms(self, at_ns: float) -> float:
        """A point of the axis in the figure, in milliseconds."""
        return (on_axis(at_ns) - self.zero_ns) / 1e6


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of the figure's axis, in milliseconds."""

    begin: float
    end: float

    def share(self, at: float) -> float:
        """Where ``at`` lies in it: 0 is its begin, 1 its end."""
        return (at - self.begin) / (self.end - self.begin)

    @property
    def length(self) -> float:
        """In milliseconds."""
        return self.end - self.begin


def windows(data: FigureData) -> dict[str, Span]:
    """What the figure's buttons show, by their names; it is drawn for the first of them."""
    attempt = data.attempt
    gaps = [
        (data.ms(gap.begin_ns), data.ms(gap.begin_ns + gap.length_ns)) for gap in attempt.gaps or ()
    ]
    spans = [(data.ms(phase.begin_ns), data.ms(phase.end_ns)) for phase in attempt.phases]
    sent = [
        data.ms(at)
        for log in data.arrivals.values()
        if len(log)
        for at in (log.sent_ns.min(), log.sent_ns.max())
    ]
    points = [*(x for span in (*spans, *gaps) for x in span), *sent]
    if not points:
        points = [data.ms(attempt.begin_ns), data.ms(attempt.end_ns)]
    working = [
        span
        for phase, span in zip(attempt.phases, spans, strict=True)
        if phase.name not in ("settled", "setup")
    ]
    whole = _padded(points, 0.02)
    move = _padded([x for span in (*working, *gaps) for x in span] or points, 0.05)
    stops = list(_stops(data, gaps))[:STOPS_MOST]
    name = "the move" if len(stops) < 2 else "the moves"
    shown = {name: _within(move, whole)}
    for turn, stop in enumerate(stops, 1):
        around = "around the stop" if len(stops) == 1 else f"stop {turn}"
        shown[around] = _within(_padded(stop, 0.35), whole)
    return shown | {"all of it": whole}


def _stops(data: FigureData, gaps: Sequence[tuple[float, float]]) -> Iterator[list[float]]:
    """Of each move the stop, and the gaps that it caused: begin and end."""
    for stop in _stop_phases(data.attempt.phases):
        begin, end = data.ms(stop[0].begin_ns), data.ms(stop[-1].end_ns)
        near = [gap for gap in gaps if gap[0] <= end and begin <= gap[1]]
        yield [begin, end, *(x for gap in near for x in gap)]


def _stop_phases(phases: Sequence[Phase]) -> list[list[Phase]]:
    """Phases of the stops, move by move."""
    moves: list[list[Phase]] = [[]]
    for phase in phases:
        if phase.name == "setup":
            moves.append([])
        elif phase.name in STOP_PHASES:
            moves[-1].append(phase)
    return [move for move in moves if move]


def _within(span: Span, whole: Span) -> Span:
    return Span(max(span.begin, whole.begin), min(span.end, whole.end))


def _padded(points: Sequence[float], share: float) -> Span:
    low, high = min(points), max(points)
    pad = max((high - low) * share, 5.0)
    return Span(low - pad, high + pad)
