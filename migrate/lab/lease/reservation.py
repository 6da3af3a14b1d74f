"""Hosts that are held across controllers: reserved at a labgrid coordinator, and kept so.

What the coordinator does with reservations, and why a lease is one:
:mod:`migrate.lab.lease.coordinator`."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from migrate.clock import Deadline
from migrate.errors import HostError, LeaseLostError
from migrate.lab.lease.coordinator import (
    CALL_S,
    CoordinatorSession,
    RefusedError,
    Reservation,
    UnreachableError,
)
from migrate.waiting import EVERY_S, tell_wait, waiting

LOGGER = logging.getLogger(__name__)

MARKER = "migrate-lab/settled"
"""Acquired once those who had a lease before the coordinator started had time to take it up."""
RETRY_S = 0.5
"""Between two tries to reach a coordinator that is away."""


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds. ``refresh`` < ``lost`` < 60 (the coordinator's own patience) <= ``settle``."""

    refresh: float = 10.0
    """Between two polls of a lease."""
    lost: float = 45.0
    """After the last good poll, its holder has to stop: others may have the hosts 15 s later."""
    settle: float = 60.0
    """After the coordinator started, before anybody new is served."""
    repeat: float = EVERY_S
    """Between two messages of one who waits."""


TIMES = Times()


def _boot_s() -> float:
    """Seconds that go on while the machine is suspended, as they do for the coordinator."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class ReservedPlaces:
    """Places that are held, all or none, until :meth:`close`; a thread keeps them so."""

    def __init__(
        self,
        address: str,
        who: str,
        *,
        times: Times = TIMES,
        on_lost: Callable[[LeaseLostError], None] = lambda _error: None,
    ) -> None:
        self._address = address
        self._who = who
        self._times = times
        self._on_lost = on_lost
        self._tokens: dict[str, str] = {}
        self._good_s = _boot_s()
        self._lost: LeaseLostError | None = None
        self._stop = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._session = CoordinatorSession(address, who, Deadline.after(CALL_S))

    def check(self) -> None:
        """Whoever uses the hosts asks before each step; raises :class:`LeaseLostError`."""
        if self._lost is None and self._stale():
            self._lose(f"the coordinator was not reached for {self._times.lost:g} s")
        if self._lost is not None:
            raise self._lost

    def _stale(self) -> bool:
        return _boot_s() - self._good_s > self._times.lost

    def _lose(self, said: str) -> None:
        names = " and ".join(sorted(self._tokens))
        self._lost = LeaseLostError(
            f"keep the lease of {names}",
            said=said,
            remedy="others may use the hosts now: run the case again; docs/leases.md",
        )
        self._on_lost(self._lost)

    # --- taking ---

    def take(self, places: Iterable[str], deadline: Deadline) -> None:
        """Hold all of ``places``, or none: then :class:`HostError` at the deadline."""
        names = sorted(set(places))  # one order for all: no two wait for each other
        for name in names:
            if self._session.place(name) is None:
                raise HostError(
                    "lease the host",
                    host=name,
                    said=f"the coordinator at {self._address} has no such place",
                    remedy="`migrate-lab lease register --lab FILE`",
                )
        for name in names:
            while not self._take(name, deadline):
                LOGGER.info(
                    "the coordinator at %s lost our reservation: queueing again", self._address
                )
        self._keeper.start()

    def _take(self, name: str, deadline: Deadline) -> bool:
        """Whether it is held now; False: its turn in the queue was forgotten."""
        self._settle(deadline)
        mine = self._session.reserve({"name": name})
        token = mine.token
        try:
            granted = self._wait(name, mine, deadline)
        except BaseException:
            with suppress(HostError):
                self._session.cancel(token)
            raise
        if granted:
            self._own(name, token)
        return granted

    def _wait(self, name: str, mine: Reservation, deadline: Deadline) -> bool:
        """Whether its turn came; says for whom it waits, now and then."""
        began_s, said_s = _boot_s(), float("-inf")
        turn: Reservation | None = mine
        while turn is not None and turn.waiting:
            if deadline.passed():
                raise HostError(
                    "lease the host",
                    host=name,
                    said=f"held by {self._session.holder(name)} until the deadline",
                )
            if _boot_s() - said_s >= self._times.repeat:
                said_s = _boot_s()
                words = f"waiting for host {name}, held by {self._session.holder(name)}"
                waited_s = said_s - began_s
                tell_wait(words, waited_s, waited_s + deadline.left())
            pause = deadline.sooner(min(self._times.refresh, self._times.repeat))
            self._session.wait(partial(self._has, name, mine.token), pause)
            turn = self._again(mine.token, deadline)
        return turn is not None and turn.granted

    def _has(self, name: str, token: str) -> bool:
        place = self._session.place(name)
        return place is not None and place.reservation == token

    def _own(self, name: str, token: str) -> None:
        if not self._tokens:
            self._good_s = _boot_s()
        self._tokens[name] = token
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        self._session.note(name, f"{token} {self._who}, since {now}")

    def _again(self, token: str, deadline: Deadline) -> Reservation | None:
        """Poll what is held and the turn in the queue; a coordinator that is away is waited for."""
        while True:
            try:
                self._refresh()
                return self._session.poll(token)
            except UnreachableError:
                if deadline.passed():
                    raise
                self._stop.wait(RETRY_S)
                if self._tokens:
                    self.check()

    def _settle(self, deadline: Deadline) -> None:
        """Wait until those who had a lease when the coordinator started have it again."""
        session = self._session
        session.register(MARKER)
        if (place := session.place(MARKER)) is not None and place.acquired:
            return
        LOGGER.info(
            "the coordinator at %s has just started: waiting %g s for jobs that had a lease before",
            self._address,
            self._times.settle,
        )
        until = deadline.sooner(self._times.settle)

        def settled() -> bool:
            marker = session.place(MARKER)
            return marker is not None and bool(marker.acquired)

        with waiting("jobs that had a lease before", until):
            session.wait(settled, until)
        if deadline.passed():
            raise HostError(
                "lease hosts", said="the coordinator had just started when the deadline came"
            )
        with suppress(RefusedError):  # somebody else waited as well
            session.acquire(MARKER)

    # --- keeping ---

    def _keep(self) -> None:
        while not self._stop.is_set() and self._lost is None:
            self._session.wait(self._disturbed, Deadline.after(self._times.refresh))
            if self._stop.is_set():
                return
            try:
                self._refresh()
            except UnreachableError:
                self._stop.wait(RETRY_S)
                if self._stale():
                    self._lose(f"the coordinator was not reached for {self._times.lost:g} s")
            except LeaseLostError:
                return

    def _disturbed(self) -> bool:
        tokens = self._tokens.items()
        return self._stop.is_set() or not all(self._has(name, token) for name, token in tokens)

    def _refresh(self) -> None:
        """Poll all that is held; UnreachableError is for now, LeaseLostError for good."""
        began_s = _boot_s()
        anew = self._session.ended
        if anew:
            self._session = CoordinatorSession(self._address, self._who, Deadline.after(CALL_S))
        for name, token in tuple(self._tokens.items()):
            self.check()
            reservation = self._session.poll(token)
            if reservation is None and anew:  # the coordinator was started anew, and we come first
                reservation = self._session.reserve({"name": name}, priority=1.0)
                if reservation.granted:
                    self._own(name, reservation.token)
                else:
                    self._session.cancel(reservation.token)
            if reservation is None or not reservation.granted:
                state = "gone" if reservation is None else reservation.state.name
                self._lose(f"the reservation of {name} is {state}")
                self.check()
        self._good_s = began_s

    def close(self) -> None:
        """Give all back; what can't be given back expires."""
        self._stop.set()
        self._session.wake()
        if self._keeper.ident is not None:
            self._keeper.join()
        with suppress(UnreachableError):
            for token in self._tokens.values():
                self._session.cancel(token)
        self._session.close()


@contextmanager
def reserve_places(
    address: str,
    places: Iterable[str],
    who: str,
    deadline: Deadline,
    *,
    times: Times = TIMES,
) -> Iterator[ReservedPlaces]:
    """Hold ``places`` (``LAB/HOST``) of the coordinator at ``address`` while the block runs.

    Raises :class:`HostError` if they are not free by the deadline, :class:`UnreachableError` if the
    coordinator does not answer.
    """
    lease = ReservedPlaces(address, who, times=times)
    try:
        lease.take(places, deadline)
        yield lease
    finally:
        lease.close()
