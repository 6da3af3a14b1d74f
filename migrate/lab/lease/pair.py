"""Which pair of hosts: the first that is free, of all that could do it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from migrate.clock import Deadline
from migrate.errors import HostError
from migrate.lab.api import Host, Lab
from migrate.lab.lease.file_lock import (
    BusyError,
    Lease,
    at_coordinator,
    lease_key,
    leased,
    leased_pair,
)

Pair = tuple[Host, Host]
"""Source and target."""
POLL_S = 0.1
"""Between two looks at leases: a lock wakes who waits for it, not who waits for one of many."""


@contextmanager
def one_leased(
    lab: Lab, pairs: Sequence[Pair], job: str, deadline: Deadline, say: Callable[[str], None]
) -> Iterator[tuple[Pair, Lease]]:
    """Hold the first of ``pairs`` that is free while the block runs; and its lease.

    Waits for any of them, and says for whom; HostError at the deadline.
    """
    with ExitStack() as held:
        if len(pairs) == 1:
            yield pairs[0], held.enter_context(leased_pair(lab, pairs[0], job, deadline, say))
        else:
            pair = _any(lab, pairs, held, job, deadline, say)
            yield pair, held.enter_context(at_coordinator(lab, pair, job, deadline, say))


def _any(
    lab: Lab,
    pairs: Sequence[Pair],
    held: ExitStack,
    job: str,
    deadline: Deadline,
    say: Callable[[str], None],
) -> Pair:
    never = threading.Event()
    said: tuple[str, ...] = ()
    while True:
        waits: dict[str, None] = {}
        for pair in pairs:
            keys = [lease_key(host) for host in pair]
            try:
                held.enter_context(leased(lab.leases, keys, Deadline.after(0), say, job=job))
            except BusyError as busy:
                waits[f"waiting for host {busy.host}, {busy.said}"] = None
            else:
                return pair
        if not said:
            said = tuple(waits)
            for line in said:
                say(line.removesuffix(" until the deadline"))
        if deadline.passed():
            raise HostError(
                "lease two hosts",
                said=f"none of {len(pairs)} pairs was free until the deadline: {'; '.join(said)}",
            )
        never.wait(POLL_S)
