"""Whether the workload runs at the pace that it was asked for, by the guest's own count.

A guest that has just been started is slow: an emulated processor translates all its code anew, and
addresses are resolved. A floor that is measured meanwhile is none.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

from migrate.analysis.work import SHORTEST_NS, short_rates
from migrate.clock import Deadline, now_ns
from migrate.formats.proc_files import PAGE_MIB
from migrate.guest.probe import Probe
from migrate.model import Workload

LOGGER = logging.getLogger(__name__)

PACE_S = 10.0
"""At most so long a guest is given to come to its pace: one that can't would take for ever."""


class PacedFloor(NamedTuple):
    """The stretch of the axis in which the floor was measured, and what is to be told of it."""

    window: tuple[int, int]
    notes: tuple[str, ...] = ()


class _Count(NamedTuple):
    at_ns: int
    packets: int
    pages: int


def measure_at_pace(
    guest: Probe, workload: Workload, run_floor: Callable[[], None], deadline: Deadline
) -> PacedFloor:
    """Run a floor in which the workload is at its pace: one during which it fell short is run
    again until the deadline, and is taken then, with a note. A guest at its pace waits for nothing.
    """
    began_ns = now_ns()
    notes: tuple[str, ...] = ()
    while True:
        before = _counted(guest, workload)
        run_floor()
        after = _counted(guest, workload)
        short = _short(before, after, workload)
        window = (before.at_ns, after.at_ns)
        if not short:
            return PacedFloor(window, notes)
        seconds = (after.at_ns - began_ns) / 1e9
        if deadline.passed():
            said = f"the workload had not reached its rate after {seconds:.1f} s: {short}"
            return PacedFloor(window, (said,))
        LOGGER.info("the workload is below its rate (%s): measuring the floor again", short)
        notes = (f"the floor was measured again after {seconds:.1f} s: until then {short}",)


def _counted(guest: Probe, workload: Workload) -> _Count:
    pages = guest.pages_written() if workload.dirty_mib else 0
    return _Count(now_ns(), guest.stream_status().sent, pages)


def _short(before: _Count, after: _Count, asked: Workload) -> str:
    """What was done and asked for, of what fell short; empty: nothing, or it can't be told."""
    if after.at_ns - before.at_ns < SHORTEST_NS:
        return ""
    seconds = (after.at_ns - before.at_ns) / 1e9
    written = (after.pages - before.pages) * PAGE_MIB / seconds
    sent = (after.packets - before.packets) / seconds
    return ", ".join(short_rates(asked, dirty_mib_s=written, packets_s=sent))
