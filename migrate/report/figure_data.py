"""What a figure is made of, its axis of time, and the windows on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from migrate.model import Attempt, Event, MachineRecording, Sample
from migrate.model.recording import Arrivals

INK = "#1f2933"


@dataclass(frozen=True, slots=True)
class FigureData:
    """All that the figure of one attempt is made of."""

    attempt: Attempt
    arrivals: dict[str, Arrivals]
    samples: Sequence[Sample]
    events: Sequence[Event] = ()
    machines: Sequence[MachineRecording] = ()
    points: int = 4000
    """Packets of each direction that are drawn, at most, besides edges and extremes."""

    @property
    def zero_ns(self) -> int:
        """The zero of the figure's axis: the first stop, or the attempt's begin without one."""
        stops = [p.begin_ns for p in self.attempt.phases if p.name in ("stopped", "device")]
        return min(stops, default=self.attempt.begin_ns)

    @property
    def stopped(self) -> bool:
        """Whether the guest ever stopped."""
        return any(phase.name in ("stopped", "device") for phase in self.attempt.phases)

    def ms(self, at_ns: float) -> float:
        """A point of the axis in the figure, in milliseconds."""
        return (at_ns - self.zero_ns) / 1e6


@dataclass(frozen=True, slots=True)
class Bar:
    """A stretch in a lane; ``hover`` when pointed at, ``text`` written beside it, or inside."""

    y: float
    begin: float
    end: float
    colour: str
    hover: str
    text: str = ""
    inside_from: float | None = None


def windows(data: FigureData) -> tuple[tuple[float, float], ...]:
    """Windows of the three buttons, in ms: everything, the move, and around the stop."""
    attempt = data.attempt
    spans = [(data.ms(p.begin_ns), data.ms(p.end_ns)) for p in attempt.phases]
    gaps = [(data.ms(g.begin_ns), data.ms(g.begin_ns + g.length_ns)) for g in attempt.gaps or ()]
    sent = [data.ms(at) for log in data.arrivals.values() if len(log) for at in _ends(log.sent_ns)]
    points = [*(x for span in (*spans, *gaps) for x in span), *sent]
    if not points:
        points = [data.ms(attempt.begin_ns), data.ms(attempt.end_ns)]
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


def missing(drawn: Any, axis: str, y: float | None, text: str) -> None:
    """Write ``text`` where there is nothing to draw."""
    where = {"y": 0.5, "yref": f"{axis} domain"} if y is None else {"y": y, "yref": axis}
    drawn.add_annotation(
        x=0.5, xref="x domain", text=f"<i>{text}</i>", showarrow=False,
        font={"size": 13, "color": "#6b7785"}, **where,
    )  # fmt: skip
