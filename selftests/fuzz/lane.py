"""A lane: one door to the outside, real samples of what comes in by it, and what it may cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["bytes", "json", "lines"]
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Lane:
    """Its door takes bytes, and returns or raises an error of our tree, within bounds."""

    name: str
    door: Callable[[bytes], object]
    """What is under test; what it returns is of no interest."""
    seeds: Callable[[], Sequence[bytes]]
    """Real samples, which the door takes without an error: called once a run."""
    kind: Kind = "bytes"
    """Which mutations reach beyond the first check: a format's own."""
    headed: bool = False
    """The first line of a seed tells the door what to do, and is not mutated."""
    most_s: float = 5.0
    """Of processor time for one input."""
    most_bytes: int = 64 * MIB
    """Of memory that one input may take at its peak, besides :attr:`factor` a byte of it."""
    factor: int = 100
    """A door that keeps some objects for each few bytes takes about this."""

    def bound(self, data: bytes) -> int:
        """Bytes of memory that ``data`` may take."""
        return self.most_bytes + self.factor * len(data)
