"""What a move is waited for, told where it shows no progress of its own.

A QEMU that loads devices, say, answers nobody for so long, and the display stands still.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from migrate.clock import now_ns
from migrate.model import PhaseName, Sample

DOES: dict[PhaseName, str] = {
    "wait-unplug": "until the guest has let its device go",
    "device": "while the state of the devices is sent and loaded",
    "postcopy": "until all memory has come",
    "cancelling": "until it is given up",
}
"""What a phase is about that may be a long one; docs/phases.md has them all."""


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
        """What to tell; None: progress was shown since the last time."""
        progressed, self._progressed = self._progressed, False
        if progressed:
            return None
        if (phase := self._phase) is None:
            return f"the move to host {self.target}, which has not begun yet"
        seconds = (self.clock() - self._since_ns) / 1e9
        does = f", {DOES[phase]}" if phase in DOES else ""
        return f"the move to host {self.target} ({phase} for {seconds:.0f} s{does})"
