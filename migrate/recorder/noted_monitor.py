"""A monitor whose questions are on the axis: if QEMU ends, what we asked stands beside its end.

What libvirt itself asks of every guest that moves is not held against us, and not noted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from migrate.clock import Deadline, now_ns
from migrate.drivers.qmp import Monitor, MonitorEvent
from migrate.errors import HostError
from migrate.formats.answers import MalformedError
from migrate.formats.qemu_migration import QEMU_ENDED, QUESTION
from migrate.model import Event
from migrate.recorder.events import Listener

ASKED_BY_LIBVIRT = frozenset(
    (
        *("query-migrate", "query-migrate-parameters", "query-migrate-capabilities"),
        *("migrate-set-capabilities", "qom-get", "query-dirty-rate"),
    )
)


class NotedMonitor:
    """As :class:`Monitor`; ``host`` is the name of the one that its QEMU runs on."""

    def __init__(self, qemu: Monitor, host: str, listener: Listener) -> None:
        self._qemu, self.host, self._listener = qemu, host, listener
        self._shutdown = ""

    @property
    def version(self) -> tuple[int, int, int]:
        """QEMU's."""
        return self._qemu.version

    def execute(self, command: str, deadline: Deadline, **arguments: Any) -> object:
        """One command and what it returns; HostError in QEMU's words."""
        with self._question([command], deadline):
            return self._qemu.execute(command, deadline, **arguments)

    def execute_all(
        self, commands: Sequence[tuple[str, Mapping[str, Any]]], deadline: Deadline
    ) -> list[tuple[object, bool]]:
        """Commands in one go: what each returns, and whether that came before any event."""
        with self._question([name for name, _ in commands], deadline):
            return self._qemu.execute_all(commands, deadline)

    def event(self, deadline: Deadline) -> MonitorEvent | None:
        """The next event, in their order; None at the deadline."""
        event = self._qemu.event(deadline)
        return None if event is None else self._heard(event)

    def pending(self) -> Sequence[MonitorEvent]:
        """The events that came, and were not taken yet."""
        return [self._heard(event) for event in self._qemu.pending()]

    def note_end(self) -> None:
        """Put on the axis that QEMU has ended, if it has; why, if it said so (SHUTDOWN)."""
        with suppress(MalformedError):  # it is told where it was awaited
            self.pending()  # what it said last came before its end
        if not self._qemu.connected:
            self._add(QEMU_ENDED, now_ns(), {"shutdown": self._shutdown})

    def _heard(self, event: MonitorEvent) -> MonitorEvent:
        if event.name == "SHUTDOWN":
            self._shutdown = str(event.data.get("reason", "unknown"))
        return event

    @contextmanager
    def _question(self, commands: Sequence[str], deadline: Deadline) -> Iterator[None]:
        wanted = [name for name in dict.fromkeys(commands) if name not in ASKED_BY_LIBVIRT]
        asked_ns, answered_ns = now_ns(), None
        try:
            yield
            answered_ns = now_ns()
        except HostError:
            if self._qemu.connected and not deadline.passed():  # it was refused
                answered_ns = now_ns()
            raise
        finally:
            if wanted:
                self._add(QUESTION, asked_ns, {"commands": wanted, "answered_ns": answered_ns})

    def _add(self, name: str, at_ns: int, data: dict[str, Any]) -> None:
        self._listener.add(
            Event(at_ns=at_ns, source="controller", host=self.host, name=name, data=data)
        )


@contextmanager
def noted(qemu: Monitor, host: str, listener: Listener) -> Iterator[NotedMonitor]:
    """The monitor of a host's QEMU while the block runs; if that has ended by then, it is noted."""
    monitor = NotedMonitor(qemu, host, listener)
    try:
        yield monitor
    finally:
        monitor.note_end()
