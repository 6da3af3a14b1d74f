"""A scale of milliseconds: where on a drawing's width they stand, in per cent, and its ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEFT, RIGHT = 1.5, 97.0
"""Per cent of the width that are used: marks at the ends are whole."""
MOST_RATIO = 40.0
"""Of the largest and the smallest that are drawn; beyond it the scale is logarithmic."""
TICKS = 5
APART = 9.0
"""Per cent of the width between two ticks at least."""


@dataclass(frozen=True, slots=True)
class Tick:
    """``at``: per cent of the width."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Scale:
    """From ``low`` (0 where it is linear) to ``high`` milliseconds."""

    high: float
    low: float = 0.0

    @property
    def logarithmic(self) -> bool:
        """Whether equal distances are equal ratios."""
        return self.low > 0

    def at(self, ms: float) -> float:
        """Per cent of the width; what lies outside is put on its edge."""
        if self.logarithmic:
            share = math.log(max(ms, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = ms / self.high
        return round(LEFT + (RIGHT - LEFT) * min(1.0, max(0.0, share)), 2)

    def ticks(self) -> tuple[Tick, ...]:
        """A few round numbers."""
        ticks: list[Tick] = []
        for ms in self._round_numbers():
            if not ticks or self.at(ms) - ticks[-1].at >= APART:
                ticks.append(Tick(self.at(ms), f"{ms:g}"))
        return tuple(ticks)

    def _round_numbers(self) -> list[float]:
        if self.logarithmic:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            every = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
            within = [ms for ms in every if self.low <= ms <= self.high]
            return within if len(within) <= TICKS + 2 else [ms for ms in within if _power(ms)]
        step = 10.0 ** math.floor(math.log10(self.high / TICKS))
        step *= next(n for n in (1, 2, 5, 10) if self.high / (n * step) <= TICKS + 0.5)
        return [step * number for number in range(math.floor(self.high / step + 1e-9) + 1)]


def _power(ms: float) -> bool:
    return abs(math.log10(ms) - round(math.log10(ms))) < 1e-9


def scale_for(values: Sequence[float], *, linear: bool = False) -> Scale:
    """One on which all of the values have a place; of none, of anything."""
    positive = [value for value in values if value > 0 and math.isfinite(value)]
    high = max(positive, default=1.0)
    low = min(positive, default=1.0)
    if linear or high / low <= MOST_RATIO:
        return Scale(high)
    return Scale(high, low)
