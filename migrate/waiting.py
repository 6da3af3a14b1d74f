"""Lines in the log during a long wait: what is waited for, since when, and how long at most.

They come from a thread, since the waiting one is blocked. A wait shorter than :data:`EVERY_S` logs
nothing. On a terminal each line replaces the one before, see :func:`migrate.log.shown`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from migrate.clock import Deadline, now_ns
from migrate.log import WAIT

LOGGER = logging.getLogger(__name__)

EVERY_S = 5.0
"""Between two lines about the same wait."""


def ticks(ended: threading.Event) -> Iterator[float]:
    """The seconds so far, each time that a line is due, until ``ended``."""
    began_ns = now_ns()
    while not ended.wait(EVERY_S):
        yield (now_ns() - began_ns) / 1e9


@contextmanager
def waiting(what: str | Callable[[], str | None], most: float | Deadline) -> Iterator[None]:
    """Log every few seconds, while the block runs, that ``what`` is waited for, ``most`` at most.

    A function is called for each line; it returns None for none. Don't nest: each level would log.
    """
    ended = threading.Event()
    most_s = most.left() if isinstance(most, Deadline) else most

    def tell() -> None:
        with suppress(OSError):  # output is closed: the waiting thread will notice as well
            for waited_s in ticks(ended):
                words = what if isinstance(what, str) else what()
                if words is not None:
                    tell_wait(f"waiting for {words}", waited_s, most_s)

    teller = threading.Thread(target=tell, name="waiting", daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()


def tell_wait(words: str, waited_s: float, most_s: float) -> None:
    """One line of a wait: ``waiting for host b; 12 s so far, 600 s at most``."""
    line = f"{words}; {waited_s:.0f} s so far, {most_s:.0f} s at most"
    LOGGER.info("%s", line, extra=WAIT)
