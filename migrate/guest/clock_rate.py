"""Whether a guest's clock runs as fast as the axis of time.

Linux measures its TSC against another timer while it boots. In an emulated guest on a busy machine
that may come out at a multiple of what it is: such a guest's clock ran at 2.8 times the pace, in
every attempt that was started from its saved state.
"""

from __future__ import annotations

from migrate.analysis.clock_bounds import MOST_DRIFT
from migrate.clock import now_ns, pause
from migrate.errors import GuestError
from migrate.guest.probe import Probe

WATCH_S = 0.5
ROUNDS = 16


class ClockRateError(GuestError):
    """A guest's clock that no drift explains: it was measured wrongly as the guest booted."""


def check_clock_rate(probe: Probe) -> None:
    """Raise ClockRateError if the guest's clock surely drifts by more than the meter allows for."""
    began_ns, before = now_ns(), probe.clock_offset("guest", ROUNDS)
    pause(WATCH_S)
    after, took_ns = probe.clock_offset("guest", ROUNDS), now_ns() - began_ns
    gained_ns = before.offset_ns - after.offset_ns
    if abs(gained_ns) - before.error_ns - after.error_ns <= MOST_DRIFT * took_ns:
        return
    raise ClockRateError(
        "use the guest's clock",
        host=probe.where,
        said=f"it gained {gained_ns / 1e6:.1f} ms in {took_ns / 1e6:.0f} ms",
        remedy="start the guest on a quieter machine: it measures its clock as it boots",
    )
