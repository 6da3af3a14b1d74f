"""What phase a move is in, told to whoever wants to act on it."""

from __future__ import annotations

from collections.abc import Callable

from migrate.formats.qemu_migration import STATUS_PHASES, status_of
from migrate.model import Event, PhaseName

OnPhase = Callable[[PhaseName], None]
"""Called with each phase as it begins, in the thread that attends to the move."""


class PhaseTracker:
    """The phases of one move as they begin: fed with its events, one by one, in their order."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._unplugging = False
        self._last: PhaseName | None = None
        self._subscribers: list[OnPhase] = []

    def subscribe(self, on_phase: OnPhase) -> None:
        """Call ``on_phase`` with every phase that begins from now on."""
        self._subscribers.append(on_phase)

    def feed(self, event: Event) -> None:
        """Take in the next event; the subscribers are called before this returns."""
        for phase in self._begun_by(event):
            for on_phase in tuple(self._subscribers):
                on_phase(phase)

    def _begun_by(self, event: Event) -> tuple[PhaseName, ...]:
        """``active`` after ``wait-unplug`` begins two: ``standby`` and ``precopy``.

        Both ends report that a post-copy is interrupted: the first of them begins the phase.
        """
        phase = phase_of(event, self._source)
        again = phase == self._last == "postcopy-paused"
        self._last = phase or self._last
        begun: tuple[PhaseName, ...] = (phase,) if phase and not again else ()
        if (event.source, event.host, event.name) == ("qemu", self._source, "MIGRATION"):
            if self._unplugging:
                begun = ("standby", *begun)
            self._unplugging = phase == "wait-unplug"
        return begun


def phase_of(event: Event, source: str) -> PhaseName | None:
    """The phase that an event begins by itself, None for most events.

    The target negotiates failover while it loads the guest's state, so ``replug`` is seen at the
    end of the stop: :func:`migrate.analysis.phases.phases` lays its begin on the resume.
    """
    if event.source != "qemu":
        return None
    if event.name == "RESUME":
        return "resumed"
    status = status_of(event) if event.name == "MIGRATION" else ""
    if event.host != source:
        if event.name == "FAILOVER_NEGOTIATED":
            return "replug"
        return "postcopy-paused" if status == "postcopy-paused" else None
    if event.name == "STOP":
        return "stopped"
    return STATUS_PHASES.get(status)
