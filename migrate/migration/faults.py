"""Things that go wrong on purpose, at a named phase, each with its way back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from threading import Lock, Timer
from typing import Any

from migrate.backends.base import BackendMode
from migrate.backends.registry import backend_mode
from migrate.clock import Deadline, now_ns
from migrate.errors import HostError, LabError
from migrate.formats.qemu_migration import FAULT, FAULT_OVER
from migrate.guest.lifecycle import signal_qemu
from migrate.lab.api import Host, Power
from migrate.model import Event, Fault, PhaseName
from migrate.model.recording import HopRecording
from migrate.recorder.base import Hop
from migrate.recorder.events import Listener

PATIENCE_S = 10.0

Undo = Callable[[], None]
Action = Callable[[Host], Undo]
"""What a fault does to a host, and how that is put back."""


class _Once:
    """Puts a fault back, however often and from wherever it is called; whoever comes second waits
    for the first."""

    def __init__(self, undo: Undo) -> None:
        self._undo: Undo | None = undo
        self._lock = Lock()

    def __call__(self) -> None:
        with self._lock:
            if self._undo is not None:
                self._undo()
                self._undo = None


@dataclass(slots=True)
class FaultInjection:
    """Faults that wait for their phase."""

    pending: Sequence[Fault]
    hosts: Mapping[str, Host]
    """By side: source and target."""
    listener: Listener
    actions: Mapping[str, Action]
    troubles: list[str] = field(default_factory=list)
    """What was not done, or did not go back: the attempt is not the one that was asked for."""
    undos: list[tuple[str, Undo]] = field(default_factory=list)

    def on_phase(self, phase: PhaseName) -> None:
        """Do what is due as ``phase`` begins, once."""
        for fault in [fault for fault in self.pending if fault.at == phase]:
            self.pending = [other for other in self.pending if other is not fault]
            host = self.hosts[fault.on]
            began_ns = now_ns()  # its effect may be seen before it returns
            try:
                undo = self.actions[fault.do](host)
            except LabError as error:
                self._note(f"fault failed: {fault.do}", host, began_ns)
                self.troubles.append(f"{_named(fault)} was not done: {error}")
                continue
            self._note(FAULT + fault.do, host, began_ns)
            put_back = _Once(undo if undo is nothing else partial(self._over, fault, host, undo))
            self.undos.append((f"{_named(fault)} on {host.name}", put_back))
            if fault.for_s is not None:
                timer = Timer(fault.for_s, _end, (put_back,))
                timer.start()
                self.undos.append(("a timer", timer.cancel))

    def _over(self, fault: Fault, host: Host, undo: Undo) -> None:
        undo()
        self._note(FAULT_OVER + fault.do, host, now_ns())

    def _note(self, name: str, host: Host, at_ns: int) -> None:
        self.listener.add(Event(at_ns=at_ns, source="controller", host=host.name, name=name))

    def put_back(self) -> None:
        """Undo what can be; what can't is told, and the rest goes on."""
        for what, undo in reversed(self.undos):
            try:
                undo()
            except LabError as error:
                self.troubles.append(f"{what} was not put back: {error}")

    def not_done(self) -> tuple[str, ...]:
        """Faults whose phase never came."""
        return tuple(
            f"{_named(fault)} was not done: the phase never came" for fault in self.pending
        )

    def add_to(self, recording: HopRecording) -> HopRecording:
        """A move whose faults were not done, or not put back, is not the one that was asked for."""
        void = (*recording.void, *self.troubles, *self.not_done())
        return recording.model_copy(update={"void": void})


def _end(put_back: Undo) -> None:
    """In a thread of its own, when a fault's time is over; what fails is tried again, and is told,
    when the move has ended."""
    with suppress(LabError):
        put_back()


def nothing() -> None:
    """Nothing is put back of what has ended for good."""


def _named(fault: Fault) -> str:
    return f"the fault {fault.do} at {fault.at}"


@contextmanager
def inject_faults(hop: Hop) -> Iterator[FaultInjection]:
    """Have the case's faults happen while the block runs; what can be put back is, after it."""
    hosts = {"source": hop.source, "target": hop.target}
    mode = backend_mode(hop.case.interface.mode)
    actions: dict[str, Action] = {
        **HOST_FAULTS,
        **{name: partial(fault, hop.guest) for name, fault in GUEST_FAULTS.items()},
        **{name: partial(fault, mode) for name, fault in BACKEND_FAULTS.items()},
    }
    injection = FaultInjection(hop.case.faults, hosts, hop.listener, actions)
    hop.phases.subscribe(injection.on_phase)
    try:
        yield injection
    finally:
        injection.put_back()


def kill_guest(uuid: str, host: Host) -> Undo:
    """The guest's QEMU is killed (SIGKILL); this can't be undone.

    By the process id that libvirt recorded, if it is this guest's.
    """
    if not signal_qemu(host, uuid, "KILL"):
        raise HostError("end the guest's QEMU", host=host.name, said="it does not run there")
    return nothing


def freeze_guest(uuid: str, host: Host) -> Undo:
    """The guest's QEMU is stopped (SIGSTOP), as if its host gave it no CPU, and continued
    afterwards."""
    if not signal_qemu(host, uuid, "STOP"):
        raise HostError("freeze the guest's QEMU", host=host.name, said="it does not run there")

    def thaw() -> None:
        signal_qemu(host, uuid, "CONT")  # one that has ended needs none

    return thaw


def stop_libvirtd(host: Host) -> Undo:
    """libvirtd is killed, while its guests keep running; it is started again afterwards."""
    deadline = Deadline.after(PATIENCE_S)
    pid = host.run(["cat", "/run/libvirtd.pid"], deadline).out.strip()
    host.run(["kill", "-KILL", pid], deadline)
    return lambda: host.start_libvirt(Deadline.after(PATIENCE_S))


def cut_migration_link(host: Host) -> Undo:
    """The host's port on the migration network is set down, and up again afterwards."""
    link = ["ip", "link", "set", host.resources.migration_link]
    host.run([*link, "down"], Deadline.after(PATIENCE_S))

    def mend() -> None:
        host.run([*link, "up"], Deadline.after(PATIENCE_S))

    return mend


def stop_backend(mode: BackendMode[Any], host: Host) -> Undo:
    """The process that backs the guest's interface is killed; it is started again for the next
    guest."""
    mode.crash(host, Deadline.after(PATIENCE_S))
    return nothing


def kill_host(host: Host) -> Undo:
    """The host is switched off with all that runs on it, and replaced by another one
    afterwards."""
    power = _power(host)
    power.kill()
    return power.replace


def hang_host(host: Host) -> Undo:
    """The host is stopped, with all that runs on it, and continued afterwards."""
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

GUEST_FAULTS: Mapping[str, Callable[[str, Host], Undo]] = {
    "kill-guest": kill_guest,
    "freeze-guest": freeze_guest,
}
"""By the guest's UUID."""
HOST_FAULTS: Mapping[str, Action] = {
    "stop-libvirtd": stop_libvirtd,
    "cut-migration-link": cut_migration_link,
    "kill-host": kill_host,
    "hang-host": hang_host,
}
BACKEND_FAULTS: Mapping[str, Callable[[BackendMode[Any], Host], Undo]] = {
    "stop-backend": stop_backend,
}
"""Of modes whose interface a process serves."""
