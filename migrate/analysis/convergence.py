"""Will pre-copy ever converge, and in which pass? A forecast from rates, beside what then happens.

QEMU sends in windows of 100 ms. Where what is left could be sent within the downtime limit, it asks
which pages are dirty by now: that ends a pass. If it still could, the guest is stopped, and if not,
the next pass begins (migration/migration.c, ``migration_iteration_run``, ``threshold_size``).

And what auto-converge does about a guest that dirties too fast, step by step (migration/ram.c,
``migration_trigger_throttle``, ``mig_throttle_guest_down``).
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from migrate.model import Convergence, ConvergenceForecast, Policy, Sample, Workload

PASSES_MOST = 1000
"""A forecast of more is none: rates do not hold for so long."""
WINDOW_S = 0.1
"""QEMU's BUFFER_DELAY: it looks at what is left once in each."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """``passes``: bytes that each pass sends before the guest stops.

    ``passes_needed``: until the guest can be stopped; None: it never can, at these rates. ``rest``:
    bytes that are left for the stop then. ``seconds``: until then; None with the others.
    """

    passes: tuple[int, ...]
    passes_needed: int | None
    rest: int | None = None
    seconds: float | None = None

    @property
    def syncs(self) -> int | None:
        """QEMU's ``dirty-sync-count`` at the end: one at the start, one a pass, one at the stop."""
        return None if self.passes_needed is None else self.passes_needed + 2


def forecast(
    *,
    memory: int,
    working_set: int,
    dirty_per_s: float,
    bandwidth_per_s: float,
    downtime_s: float,
) -> Forecast:
    """Simulate pre-copy; arguments in bytes, and bytes a second.

    ``memory``: what is not zero; ``working_set``: what is written to over and over, which bounds
    what can be dirty. Raises ValueError for a bandwidth that is not above 0.
    """
    if bandwidth_per_s <= 0:
        raise ValueError("a bandwidth is above 0")
    threshold = bandwidth_per_s * downtime_s
    dirty = float(memory)
    passes: list[int] = []
    while len(passes) < PASSES_MOST:
        sent = _sent(dirty, threshold, bandwidth_per_s * WINDOW_S)
        passes.append(round(sent))
        kept = dirty - sent
        left = min(kept + dirty_per_s * sent / bandwidth_per_s, max(kept, float(working_set)))
        if left <= threshold:
            seconds = sum(passes) / bandwidth_per_s
            return Forecast(tuple(passes), len(passes), round(left), seconds)
        if len(passes) > 1 and left >= dirty:
            break
        dirty = left
    return Forecast(tuple(passes), None)


def _sent(dirty: float, threshold: float, window: float) -> float:
    """Bytes that one pass sends: whole windows, until what is left is within the threshold."""
    if dirty <= threshold:
        return 0.0
    windows = -((threshold - dirty) // window)
    return min(dirty, windows * window)


# --- auto-converge ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Throttle:
    """QEMU's parameters of auto-converge, in percent, with its defaults.

    ``cpu-throttle-initial``, ``cpu-throttle-increment``, ``max-cpu-throttle``,
    ``throttle-trigger-threshold``; ``cpu-throttle-tailslow`` is taken to be off, as it is.
    """

    initial: int = 20
    increment: int = 10
    most: int = 99
    trigger: int = 50

    def steps(self) -> tuple[int, ...]:
        """All throttle percentages, in order. The first one is not capped by ``most``."""
        percents = [self.initial]
        while self.increment and percents[-1] < self.most:
            percents.append(min(percents[-1] + self.increment, self.most))
        return tuple(percents)


DEFAULTS = Throttle()


@dataclass(frozen=True, slots=True)
class Period:
    """Bytes between two of QEMU's own looks at its rates, a second or more apart."""

    dirtied: int
    sent: int


def throttle_after_periods(periods: Iterable[Period], rule: Throttle = DEFAULTS) -> tuple[int, ...]:
    """The throttle after each period, 0 before the first step.

    A step is taken at every second period in which more than the trigger's share was dirtied; quiet
    ones between the two do not count, and do not start the count anew.
    """
    steps, high, step = rule.steps(), 0, 0
    percents: list[int] = []
    for period in periods:
        high += period.dirtied > period.sent * rule.trigger // 100
        if high == 2:
            high, step = 0, min(step + 1, len(steps))
        percents.append(steps[step - 1] if step else 0)
    return tuple(percents)


@dataclass(frozen=True, slots=True)
class ThrottleSteps:
    """The throttle's steps as samples saw them, and as many as they should have been."""

    seen: tuple[int, ...]
    expected: tuple[int, ...]

    @property
    def agree(self) -> bool:
        """Whether each step is what it should be; true for none."""
        return self.seen == self.expected


def throttle_steps(samples: Sequence[int | None], rule: Throttle = DEFAULTS) -> ThrottleSteps:
    """Steps in the ``throttle_percent`` of a move's samples, in order; None: not reported there.

    QEMU reports nothing, or 0, before the first step and after the end. A throttle that is released
    in between is a step to 0, which should not be. More steps than there can be expect nothing.
    """
    known = [value for value in samples if value is not None]
    while known and not known[-1]:
        known.pop()
    changes = [
        value for before, value in zip([0, *known], known, strict=False) if value != before
    ]  # the zeros before the first step go with this, too
    return ThrottleSteps(tuple(changes), rule.steps()[: len(changes)])


# --- of a move ----------------------------------------------------------------------------------

PRECOPY = ("precopy", "reattach")
"""Methods that are a pre-copy to their end."""
DOWNTIME_LIMIT_MS = 300
"""QEMU's default (migration/options.c, ``DEFAULT_MIGRATE_SET_DOWNTIME``)."""
PAGE = 4096
MIB = 2**20


def assess_convergence(
    samples: Sequence[Sample], policy: Policy, workload: Workload
) -> Convergence | None:
    """When a pre-copy should converge, and what its samples show of it; None without samples.

    Whether and when it stopped is left out: events say that.
    """
    if not samples:
        return None
    memory = first_pass_bytes(samples)
    rates = [sample.rate_bytes_s for sample in samples if sample.rate_bytes_s]
    median_rate = statistics.median(rates) if rates else None
    bandwidth = (
        median_rate if policy.bandwidth_mib_s is None else float(policy.bandwidth_mib_s * MIB)
    )
    known = [sample.iteration for sample in samples if sample.iteration is not None]
    steps = (
        throttle_steps([sample.throttle_percent for sample in samples])
        if policy.auto_converge
        else None
    )
    return Convergence(
        memory_bytes=memory,
        bandwidth_bytes_s=bandwidth,
        seen_bytes_s=median_rate,
        foretold=_forecast_move(memory, bandwidth, policy, workload),
        syncs=max(known, default=None),
        throttle_seen=steps.seen if steps else None,
        throttle_due=steps.expected if steps else None,
    )


def first_pass_bytes(samples: Sequence[Sample]) -> int | None:
    """Bytes of the first pass: what was sent and left at its first sample, less zero pages.

    QEMU finds zero pages while it sends, the last of them in the pass after (or the stop), and
    counts them again whenever they are sent again. None unless both passes were sampled, or if
    more pages are zero than there are.
    """
    first = next(
        (sample for sample in samples if sample.iteration == 1 and sample.remaining_bytes), None
    )
    after = next((sample for sample in reversed(samples) if sample.iteration in (2, 3)), None)
    if first is None or first.remaining_bytes is None or first.transferred_bytes is None:
        return None
    if after is None or after.zero_pages is None or first.zero_pages is None:
        return None
    zero = (after.zero_pages - first.zero_pages) * PAGE
    size = first.remaining_bytes + first.transferred_bytes - zero
    return size if size > 0 else None


def _forecast_move(
    memory: int | None, bandwidth: float | None, policy: Policy, workload: Workload
) -> ConvergenceForecast | None:
    if memory is None or bandwidth is None:
        return None
    model = forecast(
        memory=memory,
        working_set=workload.dirty_mib * MIB,
        dirty_per_s=workload.dirty_mib_s * MIB,
        bandwidth_per_s=bandwidth,
        downtime_s=(policy.downtime_limit_ms or DOWNTIME_LIMIT_MS) / 1000,
    )
    return ConvergenceForecast(
        converges_in=model.passes_needed, syncs=model.syncs, seconds=model.seconds
    )
