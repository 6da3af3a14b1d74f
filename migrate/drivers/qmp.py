"""The one door to QMP: a monitor of a QEMU of ours, asked from ordinary code.

What QEMU says is JSON that can be kept, and no more than that: whoever asks holds an answer against
a :class:`~migrate.formats.answers.Shape`. What is no QMP at all is a HostError.

Source: QEMU docs/interop/qmp-spec; https://qemu.readthedocs.io/projects/python-qemu-qmp.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import Field
from qemu.qmp import EventListener, ExecuteError, Message, QMPClient, Runstate

from migrate.clock import Deadline
from migrate.errors import HostError
from migrate.formats.answers import Part, Shape, Unsigned, plain

LOGGER = logging.getLogger(__name__)
logging.getLogger("qemu.qmp").addHandler(logging.NullHandler())  # else it writes to the terminal

_Value = TypeVar("_Value")
SHOWN = 500
"""Characters of a library's complaint that are told."""


class MonitorEvent(Part):
    """An event of QEMU's (docs/interop/qmp-spec)."""

    name: str = Field(alias="event")
    data: dict[str, Any] = Field(default={})

    @property
    def status(self) -> str:
        """Of a MIGRATION event, the status that it tells; empty for any other."""
        return str(self.data.get("status", "")) if self.name == "MIGRATION" else ""


EVENT = Shape(MonitorEvent)


class _Numbers(Part):
    major: Unsigned
    minor: Unsigned
    micro: Unsigned


class _Version(Part):
    qemu: _Numbers


class _Status(Part):
    error: str | None = Field(default=None, alias="error-desc")


_VERSION, _STATUS = Shape(_Version), Shape(_Status)


class Asked(Protocol):
    """A monitor, as one who asks knows it."""

    @property
    def host(self) -> str:
        """The name of the host that its QEMU runs on."""

    def execute(self, command: str, deadline: Deadline, **arguments: Any) -> object:
        """One command and what it returns; HostError in QEMU's words."""


def ask(
    qemu: Asked, command: str, shape: Shape[_Value], deadline: Deadline, **arguments: Any
) -> _Value:
    """One command, and what it returns in its shape; HostError for anything else."""
    return shape.of(qemu.execute(command, deadline, **arguments), command, host=qemu.host)


class Monitor:
    """A connection to one QEMU's monitor; it belongs to the block that opened it."""

    def __init__(self, client: QMPClient, runner: asyncio.Runner, host: str) -> None:
        self._client = client
        self._runner = runner
        self.host = host

    @property
    def version(self) -> tuple[int, int, int]:
        """QEMU's, as its greeting tells it; 0.0.0 from one that has not greeted. HostError for one
        that makes no sense."""
        greeting = self._client.greeting
        if greeting is None:
            return 0, 0, 0
        version = _VERSION.of(greeting.QMP.version, "read QEMU's version", host=self.host).qemu
        return version.major, version.minor, version.micro

    @property
    def connected(self) -> bool:
        """Whether QEMU is there still, as far as is known: one that has ended is not."""
        return self._client.runstate is Runstate.RUNNING

    def execute(self, command: str, deadline: Deadline, **arguments: Any) -> object:
        """One command and what it returns; HostError in QEMU's words."""
        answer = self._run(
            command, lambda: self._client.execute(command, arguments or None), deadline
        )
        return plain(answer, command, host=self.host)

    def execute_all(
        self, commands: Sequence[tuple[str, Mapping[str, Any]]], deadline: Deadline
    ) -> list[tuple[object, bool]]:
        """Commands in one go: what each returns, and whether that came before any event.

        None for one that QEMU refused. Events and answers come over one connection in their order:
        an event that was not taken by :meth:`event` yet when an answer comes, came before it.
        """
        events = self._client.events

        async def answer(command: str, arguments: Mapping[str, Any]) -> tuple[object, bool]:
            try:
                answer = await self._client.execute(command, dict(arguments) or None)
            except ExecuteError:
                return None, events.empty()
            return answer, events.empty()

        async def work() -> list[tuple[object, bool]]:
            return await asyncio.gather(*(answer(*command) for command in commands))

        answers = self._run(f"{len(commands)} commands", work, deadline)
        named = zip(commands, answers, strict=True)
        return [(plain(got, name, host=self.host), first) for (name, _), (got, first) in named]

    def event(self, deadline: Deadline) -> MonitorEvent | None:
        """The next event since the monitor was opened, in their order; None at the deadline."""

        async def work() -> Message | None:
            if not self._client.events.empty():
                return await self._client.events.get()
            return await _next(self._client, self._client.events, deadline.left())

        event = self._run("wait for an event", work, deadline.later(5))
        return None if event is None else self._taken(event)

    def pending(self) -> Sequence[MonitorEvent]:
        """Take the events that came, and were not taken yet; without waiting for more."""
        return [self._taken(event) for event in self._client.events.clear()]

    def _taken(self, event: Message) -> MonitorEvent:
        return EVENT.of(dict(event), "read an event of QEMU's", host=self.host)

    def migrate(self, command: str, deadline: Deadline, **arguments: Any) -> None:
        """``migrate`` or ``migrate-incoming``: returns when QEMU says that it is completed."""

        async def work() -> str:
            with self._client.listener("MIGRATION") as events:
                await self._client.execute(command, arguments)
                status = ""
                while status not in ("completed", "failed"):
                    if (event := await _next(self._client, events)) is not None:
                        status = self._taken(event).status
            return status

        status = self._run(command, work, deadline)
        if status != "completed":
            asked = "query-migrate"
            said = _STATUS.of(self.execute(asked, deadline), asked, host=self.host).error
            raise HostError(command, host=self.host, said=said or status)

    def _run(self, tried: str, work: Callable[[], Awaitable[_Value]], deadline: Deadline) -> _Value:
        return _run(self._runner, tried, self.host, work, deadline)


@contextmanager
def monitor(place: Path | socket.socket, host: str, deadline: Deadline) -> Iterator[Monitor]:
    """The monitor behind a unix socket, or a connection to it, while the block runs."""
    address = str(place) if isinstance(place, Path) else place
    client = QMPClient(host)
    with asyncio.Runner() as runner:
        # What breaks a connection is told to whoever asks; the library tells it once more.
        runner.get_loop().set_exception_handler(_note)
        tried = "connect to QEMU's monitor"
        try:
            _run(runner, tried, host, lambda: client.connect(address), deadline)
            yield Monitor(client, runner, host)
        except BaseException:
            with suppress(HostError):  # what the block says of it tells more
                _leave(client, runner, host)
            raise
        else:
            _leave(client, runner, host)
        finally:
            runner.run(asyncio.sleep(0))  # a connection that broke is closed in the next turn


def _note(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    LOGGER.debug("%s: %s", context.get("message"), context.get("exception"))


def _leave(client: QMPClient, runner: asyncio.Runner, host: str) -> None:
    _run(runner, "leave QEMU's monitor", host, client.disconnect, Deadline.after(5))


async def _next(
    client: QMPClient, events: EventListener, within_s: float | None = None
) -> Message | None:
    """The next event, None if there is none in time; EOFError where QEMU ends before it, of which
    a listener is not told.

    Nothing is cancelled at the end of the time: an event that comes just then would be lost.
    """
    heard = asyncio.ensure_future(events.get())
    ended = asyncio.ensure_future(client.runstate_changed())
    try:
        if client.runstate is Runstate.RUNNING or not events.empty():
            first = asyncio.FIRST_COMPLETED
            done, _ = await asyncio.wait((heard, ended), timeout=within_s, return_when=first)
            if not done:
                return None
        if not heard.done():
            raise EOFError("QEMU has ended")
        return heard.result()
    finally:
        heard.cancel()
        ended.cancel()


def _run(
    runner: asyncio.Runner,
    tried: str,
    host: str,
    work: Callable[[], Awaitable[_Value]],
    deadline: Deadline,
) -> _Value:
    async def timed() -> _Value:
        async with asyncio.timeout(deadline.left()):
            return await work()

    try:
        return runner.run(timed())
    except TimeoutError as late:
        raise HostError(tried, host=host, said="QEMU did not answer before the deadline") from late
    except HostError:  # an event that makes no sense
        raise
    except Exception as error:  # what the library raises of an answer that is no QMP is any type
        said = str(error)[:SHOWN] or type(error).__name__
        raise HostError(tried, host=host, said=said) from error
