"""Which pair of hosts: the first that is free, of all that could do it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from migrate.clock import Deadline, now_ns, until
from migrate.errors import HostError
from migrate.lab.api import Host, Lab
from migrate.lab.lease.file_lock import (
    Lease,
    lease_hosts,
    lease_key,
    lock_hosts,
    reserve_hosts,
)
from migrate.locks import LockedError
from migrate.waiting import EVERY_S, tell_wait

Pair = tuple[Host, Host]
"""Source and target."""
POLL_S = 0.1
"""Between two looks at leases: a lock wakes who waits for it, not who waits for one of many."""


@contextmanager
def lease_first_free(
    lab: Lab, pairs: Sequence[Pair], job: str, deadline: Deadline
) -> Iterator[tuple[Pair, Lease]]:
    """Hold the first of ``pairs`` that is free while the block runs; and its lease.

    Waits for any of them, and says for whom; HostError at the deadline.
    """
    with ExitStack() as leases:
        if len(pairs) == 1:
            yield pairs[0], leases.enter_context(lease_hosts(lab, pairs[0], job, deadline))
        else:
            pair = _first_free(lab, pairs, leases, job, deadline)
            yield pair, leases.enter_context(reserve_hosts(lab, pair, job, deadline))


def _first_free(
    lab: Lab,
    pairs: Sequence[Pair],
    leases: ExitStack,
    job: str,
    deadline: Deadline,
) -> Pair:
    """Wait for any of ``pairs``; its locks are in ``leases`` then."""
    began_ns, most_s, say_again = now_ns(), deadline.left(), Deadline.after(0)
    holders: dict[str, None] = {}

    def free_pair() -> Pair | None:
        nonlocal say_again
        holders.clear()
        for pair in pairs:
            keys = [lease_key(host) for host in pair]
            try:
                leases.enter_context(lock_hosts(lab.leases, keys, Deadline.after(0), job=job))
            except LockedError as busy:
                said = busy.said.removesuffix(" until the deadline")
                holders[f"waiting for host {busy.host}, {said}"] = None
            else:
                return pair
        if say_again.passed():
            tell_wait("; ".join(holders), (now_ns() - began_ns) / 1e9, most_s)
            say_again = Deadline.after(EVERY_S)
        return None

    pair = until(free_pair, deadline, POLL_S)
    if pair is None:
        raise HostError(
            "lease two hosts",
            said=f"none of {len(pairs)} pairs was free until the deadline: {'; '.join(holders)}",
        )
    return pair
