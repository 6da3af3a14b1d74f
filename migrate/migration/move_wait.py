"""What a move without visible progress is doing.

While QEMU loads device state, e.g., it answers no query, and the display would not change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from migrate.clock import now_ns
from migrate.model import PhaseName, Sample

DOES: dict[PhaseName, str] = {
    "wait-unplug": "the guest releases its device",
    "device": "device state is sent and loaded",
    "postcopy": "the remaining memory is sent",
    "cancelling": "QEMU cancels the migration",
}
"""What happens in phases that can be long; docs/phases.md has all phases."""


@dataclass(slots=True)
class MoveWait:
    """One move to the host ``target``; fed from several threads."""

    target: str
    clock: Callable[[], int] = now_ns
    _phase: PhaseName | None = None
    _since_ns: int = 0
    _progressed: bool = False

    def on_phase(self, phase: PhaseName) -> None:
        """A phase begins."""
        self._phase, self._since_ns = phase, self.clock()

    def heard(self, on_sample: Callable[[Sample], None]) -> Callable[[Sample], None]:
        """``on_sample``, and that there was something to show."""

        def hear(sample: Sample) -> None:
            self._progressed |= not sample.is_empty
            on_sample(sample)

        return hear

    def words(self) -> str | None:
        """What is waited for; None: progress was shown since the last call."""
        progressed, self._progressed = self._progressed, False
        if progressed:
            return None
        if (phase := self._phase) is None:
            return f"the move to host {self.target} to begin"
        seconds = (self.clock() - self._since_ns) / 1e9
        does = f": {DOES[phase]}" if phase in DOES else ""
        return f"the move to host {self.target} (phase {phase} for {seconds:.0f} s{does})"
