"""The one door to QMP: a monitor of a QEMU of ours, asked from ordinary code.

Source: QEMU docs/interop/qmp-spec; https://qemu.readthedocs.io/projects/python-qemu-qmp.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from qemu.qmp import EventListener, ExecuteError, Message, QMPClient, QMPError, Runstate

from migrate.clock import Deadline
from migrate.errors import HostError

_Value = TypeVar("_Value")


class Monitor:
    """A connection to one QEMU's monitor; it belongs to the block that opened it."""

    def __init__(self, client: QMPClient, runner: asyncio.Runner, host: str) -> None:
        self._client = client
        self._runner = runner
        self._host = host

    @property
    def version(self) -> tuple[int, int, int]:
        """QEMU's, as its greeting tells it; 0.0.0 from one that has not greeted."""
        greeting = self._client.greeting
        if greeting is None:
            return 0, 0, 0
        told: Any = greeting.QMP.version["qemu"]
        return int(told["major"]), int(told["minor"]), int(told["micro"])

    @property
    def connected(self) -> bool:
        """Whether QEMU is there still, as far as is known: one that has ended is not."""
        return self._client.runstate is Runstate.RUNNING

    def execute(self, command: str, deadline: Deadline, **arguments: Any) -> Any:
        """One command and what it returns; HostError in QEMU's words."""
        return self._run(
            command, lambda: self._client.execute(command, arguments or None), deadline
        )

    def execute_all(
        self, commands: Sequence[tuple[str, Mapping[str, Any]]], deadline: Deadline
    ) -> list[tuple[Any, bool]]:
        """Commands in one go: what each returns, and whether that came before any event.

        None for one that QEMU refused. Events and answers come over one connection in their order:
        an event that was not taken by :meth:`event` yet when an answer comes, came before it.
        """
        events = self._client.events

        async def answer(command: str, arguments: Mapping[str, Any]) -> tuple[Any, bool]:
            try:
                answer = await self._client.execute(command, dict(arguments) or None)
            except ExecuteError:
                return None, events.empty()
            return answer, events.empty()

        async def work() -> list[tuple[Any, bool]]:
            return await asyncio.gather(*(answer(*command) for command in commands))

        return self._run(f"{len(commands)} commands", work, deadline)

    def event(self, deadline: Deadline) -> Mapping[str, Any] | None:
        """The next event since the monitor was opened, in their order; None at the deadline."""

        async def work() -> Message | None:
            if not self._client.events.empty():
                return await self._client.events.get()
            return await _next(self._client, self._client.events, deadline.left())

        return self._run("wait for an event", work, deadline.later(5))

    def pending(self) -> Sequence[Mapping[str, Any]]:
        """Take the events that came, and were not taken yet; without waiting for more."""
        return self._client.events.clear()

    def migrate(self, command: str, deadline: Deadline, **arguments: Any) -> None:
        """``migrate`` or ``migrate-incoming``: returns when QEMU says that it is completed."""

        async def work() -> str:
            with self._client.listener("MIGRATION") as events:
                await self._client.execute(command, arguments)
                status = ""
                while status not in ("completed", "failed"):
                    event: Any = await _next(self._client, events)
                    status = str(event["data"]["status"])
            return status

        status = self._run(command, work, deadline)
        if status != "completed":
            state = self.execute("query-migrate", deadline)
            raise HostError(command, host=self._host, said=state.get("error-desc", status))

    def _run(self, tried: str, work: Callable[[], Awaitable[_Value]], deadline: Deadline) -> _Value:
        return _run(self._runner, tried, self._host, work, deadline)


@contextmanager
def monitor(place: Path | socket.socket, host: str, deadline: Deadline) -> Iterator[Monitor]:
    """The monitor behind a unix socket, or a connection to it, while the block runs."""
    address = str(place) if isinstance(place, Path) else place
    client = QMPClient(host)
    with asyncio.Runner() as runner:
        _run(runner, "connect to QEMU's monitor", host, lambda: client.connect(address), deadline)
        try:
            yield Monitor(client, runner, host)
        except BaseException:
            with suppress(HostError):  # what the block says of it tells more
                _leave(client, runner, host)
            raise
        _leave(client, runner, host)


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
    except (ExecuteError, QMPError, OSError, EOFError) as error:
        raise HostError(tried, host=host, said=str(error) or type(error).__name__) from error
