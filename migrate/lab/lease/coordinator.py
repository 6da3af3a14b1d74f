"""Leases across controllers, kept by a labgrid coordinator (https://labgrid.readthedocs.io).

A coordinator has *places*, here one for each host, and *reservations* of places, served in the
order in which they came. How it treats them decides what a lease is here:

- A place that was acquired stays so when its user dies. A reservation expires 60 s after it was
  last polled, unless its place is acquired. So a lease is a reservation that is polled; the place
  is never acquired. Others can't acquire it either: it is reserved for somebody else.
- A reservation is of one place. A pair is reserved one by one, in one order for all.
- A coordinator that is started anew knows its places, but nobody who had them. Those who had them
  notice at once (their stream ends) and take them up again; nobody else may take anything
  meanwhile. That is what :data:`migrate.lab.lease.reservation.MARKER` is for: a place that is
  acquired stays so *until the coordinator starts anew*. While it is not, newcomers wait, and then
  acquire it.

labgrid 26.0: ``labgrid/remote/coordinator.py`` (``schedule_reservations``, ``load``),
``labgrid/remote/common.py`` (``Reservation.refresh``).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import grpc
from labgrid.remote.common import ReservationState
from labgrid.remote.generated import labgrid_coordinator_pb2 as wire
from labgrid.remote.generated.labgrid_coordinator_pb2_grpc import CoordinatorStub

from migrate.clock import Deadline
from migrate.errors import HostError

CALL_S = 5.0
"""For the coordinator to answer, and to be connected to."""
OPTIONS = (
    ("grpc.keepalive_time_ms", 7500),  # these as labgrid's own client has them
    ("grpc.keepalive_timeout_ms", 10000),
    ("grpc.http2.ping_timeout_ms", 10000),
    ("grpc.http2.max_pings_without_data", 0),
    # The coordinator tells clients apart by their connection: each session has one of its own.
    ("grpc.use_local_subchannel_pool", 1),
)
AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)


class UnreachableError(HostError):
    """The coordinator does not answer."""

    def __init__(self, address: str, said: str) -> None:
        super().__init__(
            f"reach the labgrid coordinator at {address}",
            said=said,
            remedy="start it (`labgrid-coordinator --listen HOST:PORT`), or correct the lab file's"
            " key coordinator; docs/leases.md",
        )


class RefusedError(HostError):
    """The coordinator answers, and says no."""


@dataclass(frozen=True, slots=True)
class Place:
    """A host as the coordinator knows it."""

    name: str
    tags: Mapping[str, str]
    comment: str
    acquired: str
    """Who acquired it with labgrid's own tools; empty: nobody."""
    reservation: str
    """The token of the reservation that has it; empty: none."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """A place reserved for its owner, or a turn in the queue for one."""

    token: str
    state: ReservationState
    place: str
    """Which one was allocated; empty: none yet."""
    owner: str

    @property
    def granted(self) -> bool:
        """Whether its owner may use the place."""
        return self.state is ReservationState.allocated

    @property
    def waiting(self) -> bool:
        """Whether its owner's turn may yet come."""
        return self.state is ReservationState.waiting


class CoordinatorSession:
    """One connection to a coordinator, which says at once when a place changes.

    Raises :class:`UnreachableError` if it does not answer within the deadline, now or later.
    """

    def __init__(self, address: str, owner: str, deadline: Deadline) -> None:
        self.address = address
        self.ended = False
        self._why = "it did not answer in time"
        self._synced = False
        self._places: dict[str, Place] = {}
        self._changed = threading.Condition()
        self._asks: queue.SimpleQueue[wire.ClientInMessage | None] = queue.SimpleQueue()
        self._asks.put(wire.ClientInMessage(startup=wire.StartupDone(version="1", name=owner)))
        self._asks.put(wire.ClientInMessage(subscribe=wire.Subscribe(all_places=True)))
        self._asks.put(wire.ClientInMessage(sync=wire.Sync(id=1)))
        self._channel = grpc.insecure_channel(address, OPTIONS)
        self._stub: Any = CoordinatorStub(self._channel)
        threading.Thread(target=self._listen, name="coordinator", daemon=True).start()
        self.wait(lambda: self._synced, deadline.sooner(CALL_S))
        if not self._synced:
            self.close()
            raise UnreachableError(address, self._why)

    def _listen(self) -> None:
        try:
            for message in self._stub.ClientStream(iter(self._asks.get, None)):
                with self._changed:
                    self._synced |= message.HasField("sync")
                    for update in message.updates:
                        self._take_in(update)
                    self._changed.notify_all()
            why = "it closed the connection"
        except grpc.RpcError as error:
            why = _said(error)
        with self._changed:
            self.ended, self._why = True, why
            self._changed.notify_all()

    def _take_in(self, update: Any) -> None:
        if update.WhichOneof("kind") == "del_place":
            self._places.pop(update.del_place, None)
        elif update.WhichOneof("kind") == "place":
            place = update.place
            self._places[place.name] = Place(
                place.name, dict(place.tags), place.comment, place.acquired, place.reservation
            )

    def close(self) -> None:
        """End the connection; what was reserved stays until it expires."""
        self._asks.put(None)
        self._channel.close()

    def wait(self, predicate: Callable[[], bool], deadline: Deadline) -> None:
        """Wait for ``predicate``, the connection's end or the deadline; asked at each change."""
        with self._changed:
            self._changed.wait_for(lambda: self.ended or predicate(), deadline.left())

    def wake(self) -> None:
        """Have :meth:`wait` ask its predicate again."""
        with self._changed:
            self._changed.notify_all()

    def places(self) -> dict[str, Place]:
        """All places by name, as the coordinator last sent them."""
        with self._changed:
            return dict(self._places)

    def place(self, name: str) -> Place | None:
        """One place, as the coordinator last sent it."""
        return self._places.get(name)

    def _call(self, method: str, **fields: Any) -> Any:
        request = getattr(wire, f"{method}Request")(**fields)
        try:
            return getattr(self._stub, method)(request, timeout=CALL_S)
        except grpc.RpcError as error:
            if error.code() in AWAY:
                raise UnreachableError(self.address, _said(error)) from error
            raise RefusedError(
                f"ask the labgrid coordinator at {self.address} ({method})", said=_said(error)
            ) from error

    def register(self, name: str, tags: Mapping[str, str] | None = None) -> None:
        """Have a place of that name with these tags; it may be there already."""
        if self.place(name) is None:
            with suppress(RefusedError):  # somebody else was quicker
                self._call("AddPlace", name=name)
        if tags:
            self._call("SetPlaceTags", placename=name, tags=dict(tags))

    def acquire(self, name: str) -> None:
        """As labgrid's own tools do; :class:`RefusedError` if somebody has."""
        self._call("AcquirePlace", placename=name)

    def note(self, name: str, comment: str) -> None:
        """Leave a comment at a place, for those who wait for it."""
        self._call("SetPlaceComment", placename=name, comment=comment)

    def reserve(self, wanted: Mapping[str, str], priority: float = 0.0) -> Reservation:
        """Queue for any one place with these tags; every place has its ``name``."""
        filters = {"main": wire.Reservation.Filter(filter=dict(wanted))}
        return _reservation(
            self._call("CreateReservation", filters=filters, prio=priority).reservation
        )

    def poll(self, token: str) -> Reservation | None:
        """How it stands, and keep it from expiring; None: the coordinator knows none such."""
        try:
            return _reservation(self._call("PollReservation", token=token).reservation)
        except RefusedError:
            return None

    def cancel(self, token: str) -> None:
        """Give back what was reserved; it may have gone already."""
        with suppress(RefusedError):
            self._call("CancelReservation", token=token)

    def reservations(self) -> tuple[Reservation, ...]:
        """All reservations, in no order."""
        return tuple(map(_reservation, self._call("GetReservations").reservations))

    def holder(self, name: str) -> str:
        """Who has a place, and since when, as far as it is known."""
        place = self.place(name)
        if place is None:
            return "nobody: the coordinator knows no such place"
        if place.acquired:
            return f"{_clean(place.acquired)}, who acquired it by labgrid's tools"
        token, _, noted = place.comment.partition(" ")
        if place.reservation and token == place.reservation:
            return _clean(noted)
        owners = (has.owner for has in self.reservations() if has.token == place.reservation)
        return _clean(next(owners, "another job"))


def _reservation(message: Any) -> Reservation:
    try:
        state = ReservationState(message.state)
    except ValueError as error:
        raise HostError("read a reservation of the labgrid coordinator", said=str(error)) from error
    return Reservation(message.token, state, message.allocations.get("main", ""), message.owner)


def _said(error: grpc.RpcError) -> str:
    return str(error.details() or error.code().name)


def _clean(text: str) -> str:
    """What others wrote, on one line and not too much of it."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text[:200])


@contextmanager
def session(address: str, owner: str) -> Iterator[CoordinatorSession]:
    """A connection while the block runs."""
    opened = CoordinatorSession(address, owner, Deadline.after(CALL_S))
    try:
        yield opened
    finally:
        opened.close()
