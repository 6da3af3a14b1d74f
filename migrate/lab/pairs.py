"""Which pair of hosts: the first that is free, of all that could do it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from migrate.clock import Deadline
from migrate.errors import HostError
from migrate.lab.hosts import Host
from migrate.lab.lease import BusyError, leased

Pair = tuple[Host, Host]
"""Source and target."""
POLL_S = 0.1
"""Between two looks at leases: a lock wakes who waits for it, not who waits for one of many."""


@contextmanager
def one_leased(
    folder: Path, pairs: Sequence[Pair], deadline: Deadline, say: Callable[[str], None]
) -> Iterator[Pair]:
    """Hold the first of ``pairs`` that is free while the block runs.

    Waits for any of them, and says for whom; HostError at the deadline.
    """
    with ExitStack() as held:
        if len(pairs) == 1:
            held.enter_context(leased(folder, _names(pairs[0]), deadline, say))
            yield pairs[0]
        else:
            yield _any(folder, pairs, held, deadline, say)


def _any(
    folder: Path,
    pairs: Sequence[Pair],
    held: ExitStack,
    deadline: Deadline,
    say: Callable[[str], None],
) -> Pair:
    never = threading.Event()
    said: tuple[str, ...] = ()
    while True:
        waits: list[str] = []
        for pair in pairs:
            with suppress(BusyError):
                held.enter_context(leased(folder, _names(pair), Deadline.after(0), waits.append))
                return pair
        if not said:
            said = tuple(dict.fromkeys(waits))
            for line in said:
                say(line)
        if deadline.passed():
            raise HostError(
                "lease two hosts",
                said=f"none of {len(pairs)} pairs was free until the deadline: {'; '.join(said)}",
            )
        never.wait(POLL_S)


def _names(pair: Pair) -> list[str]:
    return [host.name for host in pair]
