"""Things that go wrong on purpose, at a named phase, each with its way back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from migrate.backends.base import BackendMode
from migrate.clock import Deadline, now_ns
from migrate.errors import HostError
from migrate.guest.domain_xml import NAME
from migrate.lab.api import Host, Power
from migrate.model import Event, Fault
from migrate.recorder.events import Begins, Listener

PATIENCE_S = 10.0

Undo = Callable[[], None]


@dataclass(slots=True)
class Armed:
    """Faults that wait for their phase; :meth:`react` is called with every event."""

    faults: Sequence[Fault]
    hosts: Mapping[str, Host]
    """By side: source and target."""
    listener: Listener
    undo: ExitStack
    begins: Begins
    deeds: Mapping[str, Callable[[Host], Undo]]

    def react(self, event: Event) -> None:
        """Do what is due at this event, once."""
        begun = self.begins.phases(event)
        for fault in [fault for fault in self.faults if fault.at in begun]:
            self.faults = [other for other in self.faults if other is not fault]
            host = self.hosts[fault.on]
            self.undo.callback(self.deeds[fault.do](host))
            self.listener.add(
                Event(
                    at_ns=now_ns(), source="controller", host=host.name, name=f"fault: {fault.do}"
                )
            )

    def not_done(self) -> tuple[str, ...]:
        """Faults whose phase never came: a test that meant to have them must know."""
        return tuple(f"the fault {fault.do} at {fault.at} was never due" for fault in self.faults)


@contextmanager
def armed(
    faults: Sequence[Fault],
    hosts: Mapping[str, Host],
    listener: Listener,
    mode: BackendMode[Any],
) -> Iterator[Armed]:
    """Have ``faults`` happen while the block runs, and put back what can be put back after it;
    ``mode`` is that of the guest's interface."""
    deeds: dict[str, Callable[[Host], Undo]] = {
        **_DO,
        "stop-backend": partial(stop_backend, mode),
    }
    with ExitStack() as undo:
        yield Armed(faults, hosts, listener, undo, Begins(hosts["source"].name), deeds)


def kill_guest(host: Host) -> Undo:
    """End the guest's QEMU by the id that libvirt recorded."""
    deadline = Deadline.after(PATIENCE_S)
    pid = host.run(["cat", f"/run/libvirt/qemu/{NAME}.pid"], deadline).out.strip()
    host.run(["kill", "-KILL", pid], deadline)
    return lambda: None


def stop_libvirtd(host: Host) -> Undo:
    """End libvirtd as a crash would; its guests run on."""
    deadline = Deadline.after(PATIENCE_S)
    pid = host.run(["cat", "/run/libvirtd.pid"], deadline).out.strip()
    host.run(["kill", "-KILL", pid], deadline)
    return lambda: host.start_libvirt(Deadline.after(PATIENCE_S))


def cut_migration_link(host: Host) -> Undo:
    """Take down the host's port on the migration network."""
    link = ["ip", "link", "set", host.resources.migration_link]
    host.run([*link, "down"], Deadline.after(PATIENCE_S))

    def mend() -> None:
        host.run([*link, "up"], Deadline.after(PATIENCE_S))

    return mend


def stop_backend(mode: BackendMode[Any], host: Host) -> Undo:
    """End what serves the guest's interface as a crash would; the next guest's is started anew."""
    mode.crash(host, Deadline.after(PATIENCE_S))
    return lambda: None


def kill_host(host: Host) -> Undo:
    """Switch the host off with all that runs on it; another one takes its place afterwards."""
    power = _power(host)
    power.kill()
    return power.replace


def hang_host(host: Host) -> Undo:
    """Have the host stand still; it goes on afterwards."""
    power = _power(host)
    power.hang()
    return power.resume


def _power(host: Host) -> Power:
    if host.power is None:
        raise HostError(
            "switch the host off",
            host=host.name,
            said="this lab has no switch for it",
            remedy="--lab labs/nested.toml",
        )
    return host.power


NEEDS_POWER = frozenset({"kill-host", "hang-host"})
"""Faults that only a lab can do whose hosts have a switch."""

_DO: Mapping[str, Callable[[Host], Undo]] = {
    "kill-guest": kill_guest,
    "stop-libvirtd": stop_libvirtd,
    "cut-migration-link": cut_migration_link,
    "kill-host": kill_host,
    "hang-host": hang_host,
}
