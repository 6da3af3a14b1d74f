"""Will pre-copy ever converge, and in which pass? A forecast from rates, beside what then happens.

Each pass sends what the one before left dirty; QEMU stops the guest when what is left can be sent
within the downtime limit (migration/migration.c, ``threshold_size``).
"""

from __future__ import annotations

from dataclasses import dataclass

PASSES_MOST = 1000
"""A forecast of more is none: rates do not hold for so long."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """``passes``: bytes that each pass sends, the first all that is not zero.

    ``converges_in``: the passes until the guest can be stopped; None: it never can, at these rates.
    """

    passes: tuple[int, ...]
    converges_in: int | None


def forecast(
    *,
    memory: int,
    working_set: int,
    dirty_per_s: float,
    bandwidth_per_s: float,
    downtime_s: float,
) -> Forecast:
    """From bytes, and bytes a second.

    ``memory``: what is not zero; ``working_set``: what is written to over and over, which bounds
    what can be dirty. Raises ValueError for a bandwidth that is not above 0.
    """
    if bandwidth_per_s <= 0:
        raise ValueError("a bandwidth is above 0")
    threshold = bandwidth_per_s * downtime_s
    passes = [memory]
    while len(passes) < PASSES_MOST:
        left = min(float(working_set), dirty_per_s * passes[-1] / bandwidth_per_s)
        if left <= threshold:
            return Forecast(tuple(passes), len(passes))
        if len(passes) > 1 and left >= passes[-1]:
            return Forecast(tuple(passes), None)
        passes.append(round(left))
    return Forecast(tuple(passes), None)
