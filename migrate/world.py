"""The world in a state: two hosts, a backend on each, a peer, a guest with its probe, and traffic.

A :class:`World` is there while its ``with`` block runs, and everything that it made goes with it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from migrate.analysis.device_state import ring_regions
from migrate.analysis.host_clocks import clock_steps, realign
from migrate.backends.base import Backend
from migrate.backends.registry import backend_mode
from migrate.backends.xml import Rewrite
from migrate.clock import Deadline, now_ns
from migrate.drivers.libvirt import Domain
from migrate.errors import ConfigurationError, GuestError, HostError
from migrate.formats.log_events import parse_qemu_log
from migrate.guest.disk_overlay import overlay
from migrate.guest.domain_xml import CONSOLE, LOGS, NAME, QEMU_LOG, domain_xml, has_interface
from migrate.guest.lifecycle import Order, bring_probe, end_left, holders, running, settled
from migrate.images.disk import Disk, ensure_disk, is_disk
from migrate.images.initramfs import Image, ensure_image
from migrate.lab.api import Host, Lab
from migrate.migration.faults import Armed, armed
from migrate.migration.hotplug import put_in, until_it_carries
from migrate.migration.move import GRACE_S, End, Move, MoveResult, Swap, act, judged
from migrate.model import (
    Case,
    DirtyWhen,
    Event,
    PhaseName,
    Problem,
    Sample,
)
from migrate.recorder.clocks import Clocks
from migrate.recorder.dirty_rate import during_move, in_attempt
from migrate.recorder.events import Begins, Listener, listening
from migrate.recorder.progress import with_vfio
from migrate.recorder.qemu_state import INTERVAL_S, watch_qemus
from migrate.recorder.qmp_queries import State
from migrate.recorder.seen import Hop, Seen, stream_file
from migrate.recorder.stream_capture import StreamCapture, capture_stream
from migrate.recorder.traffic import Traffic, guest_probe, peer_probe, take

START_S = 60.0
"""For a guest to start and its probe to answer: a cold boot under emulation takes a few seconds."""
DISK_START_S = 240.0
"""For a disk to boot by its own loader, its agent to answer, and the probe to be brought in."""
LOG_LINES = 2000
"""Of each log of a host: libvirt's and the backend's go on from one attempt to the next."""
TAKE_S = 60.0
"""For the probes' logs to be read back."""
BACK_S = 60.0
"""For a device that was plugged in to carry in the guest."""


@dataclass(frozen=True, slots=True)
class AttemptEnv:
    """Where an attempt happens, and who wants to hear of it."""

    lab: Lab
    accelerator: str = "qemu"
    say: Callable[[str], None] = lambda _text: None
    check: Callable[[], None] = lambda: None
    """Whether the hosts are still ours to use, asked before each step."""
    on_sample: Callable[[Sample], None] = lambda _sample: None
    on_phase: Callable[[PhaseName], None] = lambda _phase: None

    def deadline(self, seconds: float) -> Deadline:
        """So far off as a real host would need, times the lab's patience."""
        return Deadline.after(seconds * self.lab.patience)


@contextmanager
def build_world(case: Case, setting: AttemptEnv, pair: tuple[Host, Host]) -> Iterator[World]:
    """Bring ``case``'s world about on ``pair`` (source, target), with its floor measured."""
    begin_ns = now_ns()
    image = guest_image(case, setting)
    deadline = setting.deadline(DISK_START_S if isinstance(image, Disk) else START_S)
    with ExitStack() as stack:
        ends = [End(host, stack.enter_context(host.connect())) for host in pair]
        for end in ends:
            _cleared(end, setting, deadline)
        listener = stack.enter_context(listening({end.host.name: end for end in ends}))
        mode = backend_mode(case.interface.mode)
        backends = [
            stack.enter_context(mode.create(host, case.interface, deadline)) for host in pair
        ]
        if backends[0].missing_primary is not None:
            raise backends[0].missing_primary
        rewrites = {
            pair[0].name: mode.target_rewrites(*backends),
            pair[1].name: mode.target_rewrites(*reversed(backends)),
        }
        plugs = {
            host.name: mode.hotplug_xml(case.interface, backend)
            for host, backend in zip(pair, backends, strict=True)
        }
        peer = stack.enter_context(peer_probe(setting.lab, deadline))
        asked_ns = now_ns()
        boot: Image | Path
        if isinstance(image, Disk):
            place = setting.lab.shared / "warm" / f"overlay-{setting.lab.name}-{pair[0].name}.qcow2"
            boot = stack.enter_context(overlay(image, pair[0], place, deadline))
        else:
            boot = image
        xml = _xml(case, setting, boot, ends, backends[0])
        warm = case.guest.start == "warm" and backends[0].supports_save
        order = Order(xml, image, warm, setting.lab.shared, backends[0].save_key)
        prepare = preparing(setting.lab, image, deadline)
        domain = stack.enter_context(running(order, ends[0].hypervisor, pair, prepare, deadline))
        probe = stack.enter_context(guest_probe(domain, deadline))
        if (device := plugs[pair[0].name]) is not None:
            probe.lower_start()
            known = len(probe.lower_log())
            put_in(domain, device, listener)
            until_it_carries(probe, known, setting.lab, deadline)
        start_ms = (now_ns() - asked_ns) / 1e6
        traffic = Traffic(probe, peer, setting.lab, case.workload, loops=backends[0].loopback)
        stack.callback(traffic.release)
        nic = traffic.start(deadline)
        setting.say(f"the guest is ready on {domain.host}; measuring the floor")
        _must_run(case.workload.floor_s, listener)
        seen = Seen(begin_ns, (traffic.began_ns, now_ns()), start_ms, nic)
        seen.files["source.xml"] = domain.xml()
        seen.notes += [note for backend in backends for note in backend.notes]
        if case.guest.start == "warm" and not warm:
            seen.notes.append("started cold: with this backend a saved guest can't be gone on with")
        clocks = Clocks(pair, peer, listener.first_readings)
        clocks.read()
        stage = World(case, setting, pair, domain, traffic, listener, rewrites, plugs, seen, clocks)
        stage.measure_dirty_rates("before", (domain.host,))
        yield stage


def _cleared(end: End, setting: AttemptEnv, deadline: Deadline) -> None:
    """Nothing of an earlier attempt is on the host, whatever became of that."""
    if end_left(end.host, end.hypervisor):
        setting.say(f"host {end.host.name} had a guest that a killed job left: it is ended")
    end.host.run(["rm", "-f", CONSOLE, QEMU_LOG], deadline)


@dataclass(slots=True)
class World:
    """A running guest under load; ``domain`` is where it runs now."""

    case: Case
    setting: AttemptEnv
    pair: tuple[Host, Host]
    domain: Domain
    traffic: Traffic
    listener: Listener
    rewrites: Mapping[str, tuple[Rewrite, ...]]
    """By the host that the guest is moved from."""
    plugs: Mapping[str, str | None]
    """By host: the device that the guest is plugged in there."""
    seen: Seen
    clocks: Clocks

    def move(self) -> MoveResult:
        """Move the guest to the other host, once, by the case's policy and with its faults."""
        self.setting.check()
        source, target = self._direction()
        self.setting.say(f"moving the guest from {source.name} to {target.name}")
        self.traffic.look()
        swap = self._swap(source, target)
        known = len(self.traffic.guest.lower_log()) if any(self.plugs.values()) else 0
        begin_ns = now_ns()
        with ExitStack() as stack:
            ends = [End(host, stack.enter_context(host.connect())) for host in (source, target)]
            moving = Move(
                source=ends[0],
                target=ends[1],
                policy=self.case.policy,
                rewrites=self.rewrites[source.name],
                save=self._shared(f"saved-{self.setting.lab.name}-{source.name}.sav"),
                swap=swap,
            )
            hosts = {"source": source, "target": target}
            mode = backend_mode(self.case.interface.mode)
            tell = self.setting.on_sample
            interval_s = INTERVAL_S * self.setting.lab.patience
            with (
                armed(self.case.faults, hosts, self.listener, mode) as faults,
                watch_qemus(source, target, self.listener, tell, self._rings, interval_s) as looked,
                self._tail(source, target) as tail,
                self.clocks.meanwhile(),
            ):
                acted = act(self.domain, moving, self.listener, self._heard(source, faults))
            self.seen.samples += looked.samples
            if self.case.expect.dirty_rate_within is not None:
                self.seen.dirty_rates.append(during_move(source.name, looked.samples))
            self.seen.notes += faults.not_done()
            self.seen.notes += acted.notes
            if acted.lost and not settled((source, target), self.setting.deadline(GRACE_S)):
                self.seen.notes.append("libvirt has not ended the move: asked who holds the guest")
            moved = judged(acted, holders((source, target)), moving)
            deaf = self.listener.hear_again(source, target)
            self.seen.notes += deaf
            reported = with_vfio(moved.reported, looked.samples, self.listener.events())
            moved = dataclasses.replace(moved, reported=reported)
        end_ns = now_ns()
        if moved.held_by == (target.name,):
            self._follow(target)
            self.seen.files["target.xml"] = self.domain.xml()
        elif moved.held_by == (source.name,) and self._out_of_sight():
            self._follow(source)
        if len(moved.held_by) == 1 and self.plugs[moved.held_by[0]] is not None:
            moved = self._until_back(moved, swap, known)
        hop = Hop(
            source.name, target.name, moved, begin_ns, end_ns, looked, acted.stream, tail, deaf
        )
        self.seen.hops.append(hop)
        return moved

    def _tail(self, source: Host, target: Host) -> AbstractContextManager[StreamCapture | None]:
        """The end of the stream; of a guest that is saved there is none on the wire."""
        if self.case.policy.method == "save-restore":
            return nullcontext()
        return capture_stream(source, target.migration_address, self.listener)

    def _rings(
        self, state: State, memory: Mapping[int, bytes], vhost: bool
    ) -> Sequence[tuple[int, int]]:
        """What of the guest's memory is wanted."""
        if not self.case.expect.rings:
            return ()
        return ring_regions(state, memory, self.case.guest.memory_mib, vhost=vhost)

    def _swap(self, source: Host, target: Host) -> Swap | None:
        """A device stays behind if that is how it is moved, or if only one host has one."""
        swap = Swap(self.plugs[source.name], self.plugs[target.name])
        alone = (swap.out is None) != (swap.into is None)
        return swap if alone or self.case.policy.method == "reattach" else None

    def _until_back(self, moved: MoveResult, swap: Swap | None, known: int) -> MoveResult:
        """Wait for the host's device if the guest lost one, or had none.

        One that does not come is a note if there is a standby, and else the move has failed.
        """
        guest, lab = self.traffic.guest, self.setting.lab
        try:
            lost = any(change.what == "gone" for change in guest.lower_log()[known:])
            if lost or (swap is not None and swap.out is None):
                address = lab if swap is not None else None
                until_it_carries(guest, known, address, self.setting.deadline(BACK_S))
        except GuestError as error:
            if swap is None:
                self.seen.notes.append(str(error))
                return moved
            problem = Problem(tried=error.tried, said=error.said, remedy=error.remedy)
            return dataclasses.replace(moved, outcome="failed", error=moved.error or problem)
        return moved

    def _out_of_sight(self) -> bool:
        """Whether the connection broke over which the guest was followed: libvirtd is new."""
        try:
            self.domain.state()
        except HostError:
            return True
        return False

    def _heard(self, source: Host, faults: Armed) -> Callable[[Event], None]:
        begins = Begins(source.name)

        def hear(event: Event) -> None:
            for phase in begins.phases(event):
                self.setting.on_phase(phase)
            faults.react(event)

        return hear

    def _shared(self, name: str) -> Path:
        """A file that both hosts see. The lab's name is in its own: `lab down` finds it by that."""
        return self.setting.lab.shared / "warm" / name

    def _direction(self) -> tuple[Host, Host]:
        first, second = self.pair
        return (first, second) if self.domain.host == first.name else (second, first)

    def _follow(self, host: Host) -> None:
        hypervisor = host.connect()
        domain = hypervisor.find(NAME)
        if domain is None:
            hypervisor.close()
            raise GuestError("find the guest", host=host.name, said="it ran, and is gone now")
        self.domain = domain
        self.traffic.follow(hypervisor, domain, self.setting.deadline(START_S))

    def listen(self, seconds: float) -> None:
        """Let the streams run on."""
        self.setting.check()
        self.listener.wait(lambda _event: False, Deadline.after(seconds))

    def measure_dirty_rates(self, when: DirtyWhen, held: tuple[str, ...]) -> None:
        """By every method on the host that has the guest, if the case asks for it.

        It costs the guest time: neither the floor is measured meanwhile, nor is it moved.
        """
        if self.case.expect.dirty_rate_within is None:
            return
        self.setting.say(f"measuring the dirty rate {when} the move")
        hosts = [host for host in self.pair if host.name in held]
        self.seen.dirty_rates += in_attempt(hosts, when, self.case.guest.memory_mib)

    def end(self) -> Seen:
        """End the workload, and read back all that was seen."""
        self.setting.check()
        held = self.seen.hops[-1].moved.held_by if self.seen.hops else (self.domain.host,)
        self.measure_dirty_rates("after", held)
        self.setting.say("reading the probes' logs back")
        deadline = self.setting.deadline(TAKE_S)
        self.clocks.read()
        self.seen.clocks, notes = tuple(self.clocks.readings), self.clocks.notes
        told = [step.describe(self.seen.begin_ns) for step in clock_steps(self.seen.clocks)]
        self.seen.notes += [*notes, *told]
        heard = self._placed(self.listener.events())
        stops = sorted(e.at_ns for e in heard if e.name == "STOP" and e.error_ns is not None)
        taken = take(self.traffic, guest_is_there=bool(held), deadline=deadline, stops=stops)
        self.seen.taken = taken
        mode = backend_mode(self.case.interface.mode)
        logged: list[Event] = []
        for host, side in zip(self.pair, ("source", "target"), strict=True):
            logs = logs_of(host, self.case)
            wall = self.listener.walls[host.name]
            logged += parse_qemu_log(logs.get("qemu", ""), host.name, wall)
            logged += mode.log_events(logs, host.name, wall)
            for name, text in logs.items():
                self.seen.files[f"logs/{side}-{name}.log"] = text
                if name == "qemu" and held == (host.name,):
                    self.seen.backend_failed = mode.backend_errors(text)
        states = [
            {"hop": number, "source": hop.looked.source, "target": hop.looked.target}
            for number, hop in enumerate(self.seen.hops, 1)
        ]
        self.seen.files["handoff.json"] = json.dumps(states, indent=1) + "\n"
        self.seen.files |= stream_file(self.seen.hops)
        self.seen.heard_until_ns = now_ns()
        self.seen.events = (
            *heard,
            *self._placed(self.traffic.announcements()),
            *taken.lower_events(),
            *(event for event in self._placed(logged) if event.at_ns >= self.seen.begin_ns),
        )
        return self.seen

    def _placed(self, events: Sequence[Event]) -> list[Event]:
        """By all readings of the clocks that tell of them."""
        return list(realign(events, self.listener.walls, self.clocks.readings))


def logs_of(host: Host, case: Case) -> dict[str, str]:
    """The last lines of each log that ``host`` has of a guest, its libvirt and its backend."""
    paths = {**LOGS, **backend_mode(case.interface.mode).logs}
    last = f"--lines={LOG_LINES}"
    said = {
        name: host.run(["tail", last, path], Deadline.after(10), check=False)
        for name, path in paths.items()
    }
    return {name: log.out for name, log in said.items() if log.status == 0}


def _must_run(seconds: float, listener: Listener) -> None:
    """Let the streams run for their floor: the guest has to run all the while."""
    ended = listener.wait(
        lambda event: event.name in ("STOP", "SHUTDOWN"), Deadline.after(seconds), listener.mark()
    )
    if ended is not None:
        raise GuestError(
            "measure the floor",
            host=ended.host,
            said=f"the guest stopped by itself ({ended.name})",
            remedy="its console and QEMU's log are on the host",
        )


def guest_image(case: Case, setting: AttemptEnv) -> Image | Disk:
    """What the case's guest boots, built or copied if it has to be."""
    name = case.guest.image
    if not is_disk(name):
        return ensure_image(name, setting.lab.shared, setting.say)
    if case.guest.start == "warm":
        raise ConfigurationError(
            f"start a guest from the disk {name}, key guest.start",
            said="a disk can't be started warm: a saved state goes with one content of its disk",
            remedy='guest.start = "cold"',
        )
    return ensure_disk(name, setting.lab.shared, setting.say)


def _xml(
    case: Case, setting: AttemptEnv, boot: Image | Path, ends: Sequence[End], backend: Backend
) -> str:
    # The older of the two: a machine type that both know.
    machine = min(
        (end.hypervisor.machine(case.guest.machine) for end in ends), key=_version_of_machine
    )
    return domain_xml(
        case.guest,
        case.interface,
        boot,
        backend,
        machine=machine,
        accelerator=setting.accelerator,
        cpu_model=setting.lab.cpu_model,
    )


def _version_of_machine(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in name.rpartition("-")[2].split(".") if part.isdigit())


def preparing(lab: Lab, image: Image | Disk, deadline: Deadline) -> Callable[[Domain], None]:
    """Once after a cold boot; a saved state remembers it."""

    def prepare(domain: Domain) -> None:
        if isinstance(image, Disk):
            bring_probe(domain, image.probe, deadline)
        with guest_probe(domain, deadline) as probe:
            if has_interface(domain.xml()):  # else it gets its address when it is plugged in
                probe.address(lab.guest_address, lab.prefix)

    return prepare
