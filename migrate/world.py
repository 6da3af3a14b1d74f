"""The world in a state: two hosts, a backend on each, a peer, a guest with its probe, and traffic.

A :class:`World` is there while its ``with`` block runs, and everything that it made goes with it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from migrate.backends.base import Backend
from migrate.backends.registry import backend_mode
from migrate.backends.xml import Rewrite
from migrate.clock import Deadline, now_ns, pause
from migrate.drivers.libvirt import Domain
from migrate.drivers.together import each, together
from migrate.errors import ConfigurationError, GuestError, LeaseLostError
from migrate.guest.clock_rate import check_clock_rate
from migrate.guest.disk_overlay import overlay
from migrate.guest.domain_xml import CONSOLE, MONITOR, QEMU_LOG, domain_xml, has_interface
from migrate.guest.identity import Identity
from migrate.guest.lifecycle import Order, bring_probe, check_name_is_free, end_left, running
from migrate.guest.machine_type import MachineTypes, common_machine
from migrate.guest.probe import Probe
from migrate.images.disk import Disk, ensure_disk, is_disk
from migrate.images.initramfs import Image, ensure_image
from migrate.lab.api import Host, Lab
from migrate.lab.log_tail import log_tail
from migrate.migration.hop import move_guest
from migrate.migration.hotplug import plug_in, wait_for_carrier
from migrate.migration.move import GRACE_S, End
from migrate.migration.silence import fell_silent_at_last, hop_not_made, silent_hop
from migrate.migration.watchdog import watchdog
from migrate.model import Case
from migrate.model.recording import HopRecording, MoveResult, Recording, StartRecording
from migrate.recorder.base import AttemptEnv, Rig
from migrate.recorder.clocks import Clocks
from migrate.recorder.collect import LOG_LINES, collect, measure_dirty_rates
from migrate.recorder.events import Listener, listening
from migrate.recorder.machines import Machines, sampled
from migrate.recorder.pace import PACE_S, measure_at_pace
from migrate.recorder.traffic import Traffic, guest_probe, peer_probe
from migrate.waiting import waiting

LOGGER = logging.getLogger(__name__)

RESTARTS = 6
"""Of a guest whose backend fails it at its start: with vDPA, QEMU 10.0 now and then can't map the
memory of a guest that it restores ("vhost vdpa map fail!")."""
START_S = 60.0
"""For a guest to start and its probe to answer: a cold boot under emulation takes a few seconds."""
DISK_START_S = 240.0
"""For a disk to boot by its own loader, its agent to answer, and the probe to be brought in."""

SPARE_S = 300.0
"""For what an attempt does beside starting and moving its guest."""


def attempt_s(case: Case, start_s: float, patience: float) -> float:
    """How long an attempt may take before it counts as one that hangs: longer than all of its
    deadlines together."""
    move_s = 3 * case.policy.timeout_s + 6 * GRACE_S * patience
    waits_s = case.workload.floor_s + case.workload.settle_s + SPARE_S * patience
    return (1 + RESTARTS) * start_s + case.policy.hops * move_s + waits_s


CLEAR_LOGS = """
rm -f "$1" "$1".[0-9]
[ -e "$2" ] || exit 0
# libvirt goes on with the log of a domain that had the same name: such a one is kept.
# A log that was full is one with a number behind it (virtlogd).
starts=$(cat "$2".[0-9] "$2" 2>/dev/null | grep -c ': starting up') || true
ours=$(cat "$2".[0-9] "$2" 2>/dev/null | grep -c -F "$3") || true
if [ "$starts" -eq "$ours" ]; then
    rm -f "$2" "$2".[0-9]
else
    mv "$2" "$2.$(date +%s)"
fi
"""
"""For a new guest's console, QEMU's log, and what stands in the log of each QEMU of ours."""


@dataclass(slots=True)
class World(Rig):
    """A running guest under load, to be moved; ``domain`` is where it runs now."""

    hops: list[HopRecording] = field(default_factory=list)
    hung: list[str] = field(default_factory=list)
    """Why its guest was ended, if the attempt took too long."""

    def move(self) -> MoveResult:
        """Move the guest to the other host, once, by the case's policy and with its faults.

        What was recorded of the moves before is kept if this one can't be made.
        """
        began_ns = now_ns()
        try:
            self.hops.append(move_guest(self))
        except LeaseLostError:
            raise
        except Exception as error:
            if not self.hops:
                raise
            LOGGER.debug("the move was not made", exc_info=True)
            self.hops.append(hop_not_made(self, began_ns, error))
        return self.hops[-1].result

    def listen(self, seconds: float) -> None:
        """Let the streams run on."""
        self.env.check()
        with waiting("the traffic after the move", seconds):
            pause(seconds)

    def end(self) -> Recording:
        """End the workload, and read back all that was gathered."""
        recording = collect(self, self.hops)
        recording = recording.model_copy(update={"void": (*self.hung, *recording.void)})
        if not self.hops or not fell_silent_at_last(recording):
            return recording
        last = silent_hop(self, self.hops[-1], recording.traffic.notes[0])
        return recording.model_copy(update={"hops": (*recording.hops[:-1], last)})


@contextmanager
def build_world(case: Case, env: AttemptEnv, pair: tuple[Host, Host]) -> Iterator[World]:
    """Bring ``case``'s world about on ``pair`` (source, target), with its floor measured."""
    begin_ns = now_ns()
    image = guest_image(case, env)
    deadline = env.deadline(DISK_START_S if isinstance(image, Disk) else START_S)
    with ExitStack() as stack:
        ends = [End(host, stack.enter_context(host.connect())) for host in pair]
        each(ends, lambda end: _cleared(end, env, deadline))
        listener = stack.enter_context(listening({end.host.name: end for end in ends}))
        backing = stack.enter_context(_backed(case, pair, deadline))
        peer = stack.enter_context(peer_probe(env.lab, deadline))
        machines = stack.enter_context(_sampled(env, pair, peer, deadline))
        asked_ns = now_ns()
        order = stack.enter_context(_ordered(case, env, image, ends, backing.source, deadline))
        limit = Deadline.after(attempt_s(case, deadline.left(), env.lab.patience))
        hung = stack.enter_context(watchdog(pair, order.identity.uuid, limit))
        prepare = preparing(env.lab, image, deadline)
        started = stack.enter_context(_started(case, env.lab, order, ends, prepare, deadline))
        domain, probe = started.domain, started.probe
        if (device := backing.hotplug[domain.host]) is not None:
            probe.lower_start()
            known = len(probe.lower_log())
            plug_in(domain, device, listener)
            wait_for_carrier(probe, known, env.lab, deadline)
        start_ms = (now_ns() - asked_ns) / 1e6
        traffic = Traffic(probe, peer, env.lab, case.workload, loops=backing.source.loopback)
        stack.callback(traffic.release)
        nic = traffic.start(deadline)
        LOGGER.info("the guest is ready on %s; measuring the floor", domain.host)
        floor = measure_at_pace(
            probe,
            case.workload,
            lambda: _must_run(case.workload.floor_s, listener),
            Deadline.after(PACE_S),
        )
        start = StartRecording(
            begin_ns=begin_ns,
            floor_window=floor.window,
            start_ms=start_ms,
            nic=nic,
            primaries=backing.primaries,
            notes=(
                *env.notes,
                *backing.notes,
                *_cold_instead(case, order),
                *started.notes,
                *floor.notes,
            ),
            files={"source.xml": domain.xml()},
        )
        clocks = Clocks(pair, peer, listener.first_readings)
        clocks.read()
        rules = backing.rewrites, backing.hotplug
        world = World(case, env, pair, domain, traffic, listener, clocks, *rules, start, machines)
        dirty_rates = measure_dirty_rates(world, "before", (domain.host,))
        world.start = start.model_copy(update={"dirty_rates": dirty_rates})
        world.hung = hung
        yield world


def _sampled(
    env: AttemptEnv, pair: tuple[Host, Host], peer: Probe, deadline: Deadline
) -> AbstractContextManager[Machines]:
    peer_pid = peer.ready(deadline).pid if env.lab.peer_is_here else None
    return sampled(env.lab, pair, peer_pid)


class _Backing(NamedTuple):
    """The backends of both hosts, and what follows for a guest that is moved between them."""

    source: Backend
    target: Backend
    rewrites: Mapping[str, tuple[Rewrite, ...]]
    """By the host that the guest is moved from."""
    hotplug: Mapping[str, str | None]
    """By host: the device, as XML, that the guest is plugged in there."""

    @property
    def primaries(self) -> tuple[str, ...] | None:
        """Hosts whose backend has a primary; None: the interface has no standby."""
        if not self.source.has_standby:
            return None
        backends = zip(self.hotplug, (self.source, self.target), strict=True)
        return tuple(name for name, backend in backends if backend.missing_primary is None)

    @property
    def notes(self) -> tuple[str, ...]:
        """For the attempt."""
        return (*self.source.notes, *self.target.notes)


@contextmanager
def _backed(case: Case, pair: tuple[Host, Host], deadline: Deadline) -> Iterator[_Backing]:
    mode, interface = backend_mode(case.interface.mode), case.interface
    names = [host.name for host in pair]
    with ExitStack() as stack:
        backends = together([mode.create(host, interface, deadline) for host in pair])
        with waiting(f"the backends to be set up on {' and '.join(names)}", deadline):
            source, target = stack.enter_context(backends)
        if source.missing_primary is not None:
            raise source.missing_primary
        there, back = mode.target_rewrites(source, target), mode.target_rewrites(target, source)
        devices = [mode.hotplug_xml(interface, backend) for backend in (source, target)]
        yield _Backing(
            source,
            target,
            rewrites=dict(zip(names, (there, back), strict=True)),
            hotplug=dict(zip(names, devices, strict=True)),
        )


@contextmanager
def _ordered(
    case: Case,
    env: AttemptEnv,
    image: Image | Disk,
    ends: Sequence[End],
    backend: Backend,
    deadline: Deadline,
) -> Iterator[Order]:
    """The guest that is asked for; a disk has an overlay of its own while the block runs."""
    with ExitStack() as stack:
        boot: Image | Path
        if isinstance(image, Disk):
            source = ends[0].host
            name = f"overlay-{env.lab.name}-{source.name}.qcow2"
            place = env.lab.shared / "warm" / name
            boot = stack.enter_context(overlay(image, source, place, deadline))
        else:
            boot = image
        warm = case.guest.start == "warm" and backend.supports_save
        xml = _xml(case, env, boot, ends, backend)
        identity = Identity.new(env.lab.name, env.run, case.id)
        yield Order(xml, image, warm, env.lab.shared, backend.save_key, identity)


class _Started(NamedTuple):
    domain: Domain
    probe: Probe
    notes: tuple[str, ...]
    """Why it was started again."""


@contextmanager
def _started(
    case: Case,
    lab: Lab,
    order: Order,
    ends: Sequence[End],
    prepare: Callable[[Domain], None],
    deadline: Deadline,
) -> Iterator[_Started]:
    """A running guest; if QEMU's log has errors of its backend, it is destroyed and started again,
    at most :data:`RESTARTS` times. Raises GuestError with the last errors."""
    mode = backend_mode(case.interface.mode)
    host, hypervisor = ends[0].host, ends[0].hypervisor
    pair = [end.host for end in ends]
    notes: tuple[str, ...] = ()
    while True:
        with ExitStack() as stack:
            domain = stack.enter_context(running(order, hypervisor, pair, prepare, deadline))
            with waiting(f"the probe in the guest on host {host.name} to answer", deadline):
                probe = stack.enter_context(guest_probe(domain, lab, deadline))
            log = log_tail(host, QEMU_LOG, deadline, LOG_LINES) or ""
            errors = "; ".join(mode.backend_errors(log))
            if not errors:
                yield _Started(domain, probe, notes)
                return
        if len(notes) == RESTARTS:
            raise GuestError(
                "start the guest with its backend",
                host=host.name,
                said=errors,
                remedy="QEMU's log and the backend's are in the run folder",
            )
        LOGGER.info("QEMU reports a backend error: starting the guest again")
        notes = (*notes, f"guest started again after a backend error of QEMU: {errors}")
        host.run(["rm", "-f", QEMU_LOG], deadline)


def _cold_instead(case: Case, order: Order) -> tuple[str, ...]:
    if case.guest.start != "warm" or order.warm:
        return ()
    return ("started cold: with this backend a saved guest can't be gone on with",)


def _cleared(end: End, env: AttemptEnv, deadline: Deadline) -> None:
    """Nothing of an earlier attempt is on the host, whatever became of that."""
    if end_left(end.host, end.hypervisor):
        LOGGER.info("host %s had a guest that a killed job left: it is ended", end.host.name)
    check_name_is_free(end.hypervisor)
    end.host.run(["sh", "-ec", CLEAR_LOGS, "sh", CONSOLE, QEMU_LOG, MONITOR], deadline)


def _must_run(seconds: float, listener: Listener) -> None:
    """Let the streams run for their floor: the guest has to run all the while."""
    with waiting("the floor to be measured", seconds):
        ended = listener.wait(
            lambda event: event.name in ("STOP", "SHUTDOWN"),
            Deadline.after(seconds),
            listener.mark(),
        )
    if ended is not None:
        raise GuestError(
            "measure the floor",
            host=ended.host,
            said=f"the guest stopped by itself ({ended.name})",
            remedy="its console and QEMU's log are on the host",
        )


def guest_image(case: Case, env: AttemptEnv) -> Image | Disk:
    """What the case's guest boots, built or copied if it has to be."""
    name = case.guest.image
    if not is_disk(name):
        return ensure_image(name, env.lab.shared)
    if case.guest.start == "warm":
        raise ConfigurationError(
            f"start a guest from the disk {name}, key guest.start",
            said="a disk can't be started warm: a saved state goes with one content of its disk",
            remedy='guest.start = "cold"',
        )
    return ensure_disk(name, env.lab.shared)


def _xml(
    case: Case, env: AttemptEnv, boot: Image | Path, ends: Sequence[End], backend: Backend
) -> str:
    kind = case.guest.machine
    known = [
        MachineTypes(
            end.hypervisor.host, end.hypervisor.machine(kind), end.hypervisor.machines(kind)
        )
        for end in ends
    ]
    return domain_xml(
        case.guest,
        case.interface,
        boot,
        backend,
        machine=common_machine(known),
        accelerator=env.accelerator,
        cpu_model=env.lab.cpu_model,
    )


def preparing(lab: Lab, image: Image | Disk, deadline: Deadline) -> Callable[[Domain], None]:
    """Once after a cold boot; a saved state remembers it."""

    def prepare(domain: Domain) -> None:
        if isinstance(image, Disk):
            bring_probe(domain, image.probe, deadline)
        with guest_probe(domain, lab, deadline) as probe:
            if has_interface(domain.xml()):  # else it gets its address when it is plugged in
                probe.address(lab.guest_address, lab.prefix)
            check_clock_rate(probe)

    return prepare
