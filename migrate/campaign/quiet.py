"""Waiting for a quiet machine before an attempt: bounded, and it says who is in the way.

Who still is at the deadline is noted on the attempt, which is made: its own looks at the machine
mark its figures then, and they are not ranked with those of a quiet one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

from migrate.analysis.machines import busy_lately
from migrate.clock import Deadline, now_ns, pause
from migrate.errors import LabError
from migrate.lab.api import Host, Lab
from migrate.recorder.machines import LOOK_S, machines_of
from migrate.waiting import EVERY_S, tell_wait

LOGGER = logging.getLogger(__name__)
WINDOW_S = 2.0
"""A machine is quiet that was so for this long."""


def wait_quiet(
    lab: Lab, pair: Sequence[Host], seconds: float, check: Callable[[], None]
) -> tuple[str, ...]:
    """Wait until all machines of the attempt are quiet; notes for it where they never were.

    ``check`` is asked before each look whether the hosts are still ours: its errors go on.
    """
    began_ns, deadline, say_again = now_ns(), Deadline.after(seconds), Deadline.after(0.0)
    with ExitStack() as stack:
        looks = _looks(lab, pair, stack)
        while True:
            check()
            try:
                reasons = next(looks)
            except LabError as error:
                return (f"whether the machine was quiet before the attempt is not known: {error}",)
            if not reasons:
                return ()
            if deadline.passed():
                LOGGER.info("the machine is still busy, and the time to wait is over")
                return (f"the machine was not quiet when waiting ended: {'; '.join(reasons)}",)
            if say_again.passed():
                words = f"waiting for a quiet machine ({'; '.join(reasons)})"
                tell_wait(words, (now_ns() - began_ns) / 1e9, seconds)
                say_again = Deadline.after(EVERY_S)


def _looks(lab: Lab, pair: Sequence[Host], stack: ExitStack) -> Iterator[tuple[str, ...]]:
    """Why the machines are busy, look by look. Raises HostError."""

    def soon() -> Deadline:
        return Deadline.after(LOOK_S * lab.patience)

    machines = machines_of(lab, pair, None, stack)
    for machine in machines:
        machine.begin(soon())
    while True:
        pause(WINDOW_S)
        for machine in machines:
            machine.look(soon())
            machine.name_others(soon())
        yield tuple(reason for machine in machines for reason in busy_lately(machine.recording()))
