"""A world without a lab: its guest and its peer are probes on this machine, their network is the
loopback, and a move stops the guest's process for a moment. Questions, commands, streams and the
meter are real; hosts, libvirt and QEMU are not."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, cast

from migrate.clock import Deadline, now_ns
from migrate.drivers.libvirt import Domain
from migrate.drivers.shell import Completed, run
from migrate.lab.api import Host, Lab
from migrate.model import Case, Event, Fault, Nic, Outcome, Problem, ReportedFigures
from migrate.model.recording import HopRecording, MoveResult, Recording, StartRecording
from migrate.recorder.base import AttemptEnv
from migrate.recorder.events import Listener
from migrate.recorder.machines import Machines
from migrate.recorder.traffic import Traffic, read_back
from migrate.world import World
from selftests.doubles.probe_process import Running, running
from selftests.helpers import soon

LOOPBACK = "127.0.0.1"
NIC = Nic(name="eth0", driver="virtio_net", mac="52:54:00:6d:6c:01", mtu=1500, carrier=True)
STOP_S = 0.06
"""How long the guest stands still for a move."""


@dataclass(slots=True)
class MadeUpGuest:
    """Where it runs, and whether."""

    probe: Running
    runs_on: list[str]
    state: str = "running"


@dataclass(frozen=True, slots=True)
class MadeUpDomain:
    """The guest, as the libvirt of a host has it."""

    guest: MadeUpGuest
    host: str
    uuid: str = "5f0c0ffe-0000-4000-8000-000000000001"

    def state(self) -> str:
        return self.guest.state if self.host in self.guest.runs_on else "gone"

    def suspend(self) -> None:
        self.guest.probe.process.send_signal(signal.SIGSTOP)
        self.guest.state = "paused"

    def resume(self) -> None:
        self.guest.probe.process.send_signal(signal.SIGCONT)
        self.guest.state = "running"


@dataclass(slots=True)
class MadeUpLibvirt:
    """A connection to it."""

    host: str
    guest: MadeUpGuest

    def __enter__(self) -> MadeUpLibvirt:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        pass

    def find(self, _uuid: str) -> MadeUpDomain | None:
        there = self.host in self.guest.runs_on
        return MadeUpDomain(self.guest, self.host) if there else None


@dataclass(slots=True)
class MadeUpHost:
    """Its libvirt knows the guest, and its programs are this machine's."""

    name: str
    guest: MadeUpGuest
    migration_address: str = LOOPBACK

    @property
    def libvirt_target(self) -> str:
        return f"qemu+tcp://{self.name}/system"

    def connect(self) -> MadeUpLibvirt:
        return MadeUpLibvirt(self.name, self.guest)

    def run(
        self, argv: Sequence[str], deadline: Deadline, *, text: str | None = None, check: bool
    ) -> Completed:
        if "virsh migrate" in argv[-1]:  # by other hands
            self.guest.runs_on[:] = ["b" if self.name == "a" else "a"]
            return Completed(tuple(argv), 0, "", "")
        return run(argv, deadline, host=self.name, text=text, check=check)


@dataclass(slots=True)
class MadeUpWorld(World):
    """It moves by hand; ``breaks`` is done to it in the middle of a move."""

    guest: MadeUpGuest = field(kw_only=True)
    breaks: Callable[[], object] = field(default=lambda: None, kw_only=True)

    def move(self) -> MoveResult:
        """Stop the guest for a moment; a fault or an abort decides how it ends."""
        (source, target), begin_ns = self.direction(), now_ns()
        self.domain.suspend()
        World.listen(self, STOP_S)
        self.domain.resume()
        self.breaks()
        outcome = _outcome(self.case)
        if outcome == "completed":
            self.guest.runs_on[:] = [target.name]
            self.domain = cast("Domain", MadeUpDomain(self.guest, target.name))
        elif outcome == "lost":
            self.guest.runs_on.clear()
        result = MoveResult(
            outcome=outcome,
            held_by=tuple(self.guest.runs_on),
            reported=ReportedFigures(downtime_ms=60.0 if outcome == "completed" else None),
            error=None
            if outcome == "completed"
            else Problem(tried=f"migrate to {target.name}", host=source.name, said="made up"),
        )
        self.hops.append(
            HopRecording(
                source=source.name,
                target=target.name,
                result=result,
                begin_ns=begin_ns,
                end_ns=now_ns(),
            )
        )
        return result

    def end(self) -> Recording:
        """Read back what both probes have logged."""
        there = bool(self.guest.runs_on)
        moved_ns = self.hops[-1].end_ns
        log = read_back(self.traffic, guest_is_there=there, deadline=soon(), moved_ns=moved_ns)
        events = tuple(
            Event(at_ns=at_ns, error_ns=0, source="qemu", host=host, name=name)
            for hop in self.hops
            for at_ns, host, name in (
                (hop.begin_ns, hop.source, "STOP"),
                (hop.end_ns, (*hop.result.held_by, hop.target)[0], "RESUME"),
            )
        )
        return Recording(start=self.start, hops=tuple(self.hops), traffic=log, events=events)


def _outcome(case: Case) -> Outcome:
    if case.policy.abort_at is not None:
        return "aborted"
    faults: tuple[Fault, ...] = case.faults
    if not faults:
        return "completed"
    return "lost" if faults[0].do == "kill-guest" and faults[0].on == "source" else "failed"


def _in_folder(probe: Running, folder: str) -> None:
    """What its commands call /tmp is ``folder``: a guest has one of its own."""
    call = probe.call

    def moved(question: str, *words: Any, **fields: Any) -> Any:
        if "command" in fields:
            fields["command"] = str(fields["command"]).replace("/tmp/", f"{folder}/")
        return call(question, *words, **fields)

    probe.__dict__["call"] = moved


class _OnLoopback(Traffic):
    """The same, but for what takes a right or a network device: nothing is captured."""

    def follow(self, *_words: Any) -> None:
        """It is reached where it was."""


@contextmanager
def made_up_world(case: Case, program: Path) -> Iterator[MadeUpWorld]:
    """A guest under load on host a of two, with its floor measured."""
    with (
        TemporaryDirectory() as folder,
        running(program, where="guest on a") as probe,
        running(program, where="peer") as peer,
    ):
        _in_folder(probe, folder)
        guest = MadeUpGuest(probe, ["a"])
        pair = MadeUpHost("a", guest), MadeUpHost("b", guest)
        lab = SimpleNamespace(
            patience=1.0,
            guest_address=LOOPBACK,
            peer_address=LOOPBACK,
            peer_interface="lo",
            peer_is_here=True,
        )
        for each in (probe, peer):
            each.__dict__.update(capture=lambda _name: None, nic=lambda: NIC)
            each.__dict__.update(lower_start=lambda: None, lower_stop=lambda: None)
            each.__dict__.update(lower_account=lambda: ((), 0))
        traffic = _OnLoopback(probe, peer, cast("Lab", lab), case.workload)
        begin_ns = now_ns()
        traffic.start(soon())
        world = MadeUpWorld(
            case=case,
            env=AttemptEnv(cast("Lab", lab)),
            pair=cast("tuple[Host, Host]", pair),
            domain=cast("Domain", MadeUpDomain(guest, "a")),
            traffic=traffic,
            listener=cast("Listener", None),
            clocks=cast("Any", None),
            rewrites=_NOTHING,
            hotplug={"a": None, "b": None},
            start=cast("StartRecording", None),
            machines=cast("Machines", None),
            guest=guest,
        )
        floor_ns = now_ns()
        world.listen(case.workload.floor_s)
        world.start = StartRecording(
            begin_ns=begin_ns, floor_window=(floor_ns, now_ns()), start_ms=0.0, nic=NIC
        )
        try:
            yield world
        finally:
            probe.process.send_signal(signal.SIGCONT)


_NOTHING: Mapping[str, Any] = {"a": (), "b": ()}
