"""One attempt, from lease to verdicts. Start reading here.

:func:`attempt` puts the world into a state (two hosts, a backend on each, a guest with its probe, a
peer, traffic), acts (moves the guest), and judges (what the network saw, what the guest felt, what
the hypervisor reports, who holds the guest now). What it did is undone when it ends, however it
ends; then it looks for leftovers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from migrate import checks
from migrate.clock import Deadline, Offset, now_ns
from migrate.domain import CONSOLE, NAME, QEMU_LOG, domain_xml
from migrate.errors import GuestError
from migrate.faults import armed
from migrate.guest import Order, holders, running
from migrate.image import ensure_image
from migrate.interfaces import Backend, module_for
from migrate.lab.hosts import Host, Lab
from migrate.lab.lease import leased
from migrate.libvirt_client import Domain, Hypervisor
from migrate.migration import End, Move, Moved, act, judged
from migrate.model import Attempt, Case, Event, Nic, Phase, Reported, Sample
from migrate.observe.events import Listener, listening
from migrate.observe.progress import sampling
from migrate.observe.traffic import Taken, Traffic, guest_probe, peer_probe, take
from migrate.outage import Measurement, measure
from migrate.results import RunWriter
from migrate.timeline import Arrivals, GuestClock, phases

START_S = 60.0
"""For a guest to start and its probe to answer: a cold boot under emulation takes a few seconds."""
LEASE_S = 600.0
TAKE_S = 60.0
"""For the probes' logs to be read back."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Where an attempt happens, and who wants to hear of it."""

    lab: Lab
    writer: RunWriter
    accelerator: str = "qemu"
    say: Callable[[str], None] = lambda _text: None
    on_sample: Callable[[Sample], None] = lambda _sample: None


@dataclass(frozen=True, slots=True)
class Hop:
    """One move of an attempt, and the stretch of the axis that belongs to it."""

    source: str
    target: str
    moved: Moved
    begin_ns: int
    end_ns: int


@dataclass(slots=True)
class Seen:
    """What an attempt gathers while it goes on."""

    begin_ns: int
    floor: tuple[int, int]
    start_ms: float
    nic: Nic
    hops: list[Hop] = field(default_factory=list)
    taken: Taken | None = None
    events: tuple[Event, ...] = ()
    samples: list[Sample] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def attempt(case: Case, number: int, setting: Setting, pair: tuple[Host, Host]) -> Attempt:
    """Try ``case`` once on ``pair`` (source, target) and write all of it down.

    A migration that fails is an attempt; an exception means that there is none to record.
    """
    names = [host.name for host in pair]
    with leased(setting.lab.leases, names, Deadline.after(LEASE_S), setting.say):
        with ExitStack() as stack:
            seen = _live(case, setting, pair, stack)
        leftovers = setting.lab.leftovers(names)
    moved = _phases(seen)
    found = _measured(case, seen, moved)
    record = _record(case, number, pair, seen, found)
    record = record.model_copy(update={"leftovers": leftovers, "phases": moved})
    record = record.model_copy(update={"verdicts": checks.judge(record)})
    arrivals = _on_axis(seen)
    setting.writer.write_attempt(record, seen.events, seen.samples, arrivals, seen.files)
    return record


# --- putting the world into a state, and acting -------------------------------------------------


def _live(case: Case, setting: Setting, pair: tuple[Host, Host], stack: ExitStack) -> Seen:
    """Everything that needs hosts; what it makes goes when ``stack`` does."""
    begin_ns = now_ns()
    deadline = Deadline.after(START_S)
    ends = [End(host, stack.enter_context(host.connect())) for host in pair]
    for host in pair:
        host.run(["rm", "-f", CONSOLE, QEMU_LOG], deadline)
    listener = stack.enter_context(listening({end.host.name: end for end in ends}))
    module = module_for(case.interface.mode)
    backends = [
        stack.enter_context(module.provide(host, case.interface, deadline)) for host in pair
    ]
    peer = stack.enter_context(peer_probe(setting.lab, deadline))
    order = _order(case, setting, ends, backends[0])
    asked_ns = now_ns()
    domain = stack.enter_context(
        running(order, ends[0].hypervisor, pair, _preparing(setting.lab, deadline), deadline)
    )
    probe = stack.enter_context(guest_probe(domain, deadline))
    start_ms = (now_ns() - asked_ns) / 1e6
    traffic = Traffic(probe, peer, setting.lab, case.workload)
    stack.callback(traffic.release)
    nic = traffic.start(deadline)
    setting.say(f"the guest is ready on {domain.host}; measuring the floor")
    _listen_for(case.workload.floor_s, listener, domain)
    seen = Seen(begin_ns, (traffic.began_ns, now_ns()), start_ms, nic)
    seen.files["source.xml"] = domain.xml()
    rewrites = module.adapt(*backends)
    for number in range(case.policy.hops):
        source, target = ends if number % 2 == 0 else ends[::-1]
        moving = Move(source, target, case.policy, rewrites, setting.lab.shared / "warm")
        hop = _hop(case, moving, domain, listener, seen, setting)
        if hop.moved.held_by != (target.host.name,):
            break
        domain = _found(stack.enter_context(target.host.connect()))
        traffic.follow(domain, Deadline.after(START_S))
        seen.files["target.xml"] = domain.xml()
    _listen_for(case.workload.settle_s, listener, None)
    held = seen.hops[-1].moved.held_by
    seen.taken = take(traffic, guest_is_there=bool(held), deadline=Deadline.after(TAKE_S))
    seen.events = (*listener.events(), *traffic.announcements())
    _logs(pair, seen)
    return seen


def _found(hypervisor: Hypervisor) -> Domain:
    domain = hypervisor.find(NAME)
    if domain is None:
        raise GuestError("find the guest", host=hypervisor.host, said="it ran, and is gone now")
    return domain


def _order(case: Case, setting: Setting, ends: Sequence[End], backend: Backend) -> Order:
    image = ensure_image(case.guest.image, setting.lab.shared, setting.say)
    module = module_for(case.interface.mode)
    # The older of the two: a machine type that both know.
    machine = min(
        (end.hypervisor.machine(case.guest.machine) for end in ends), key=_version_of_machine
    )
    xml = domain_xml(
        case.guest,
        case.interface,
        image,
        module.describe(case.interface, backend),
        machine=machine,
        accelerator=setting.accelerator,
    )
    return Order(xml, image, case.guest.start == "warm", setting.lab.shared)


def _version_of_machine(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in name.rpartition("-")[2].split(".") if part.isdigit())


def _preparing(lab: Lab, deadline: Deadline) -> Callable[[Domain], None]:
    """Once after a cold boot; a saved state remembers it."""

    def prepare(domain: Domain) -> None:
        with guest_probe(domain, deadline) as probe:
            probe.address(lab.guest_address, lab.prefix)

    return prepare


def _listen_for(seconds: float, listener: Listener, domain: Domain | None) -> None:
    """Let the streams run; with a ``domain``, it has to run all the while."""
    mark = listener.mark()
    ended = listener.wait(
        lambda event: event.name in ("STOP", "SHUTDOWN") and domain is not None,
        Deadline.after(seconds),
        mark,
    )
    if ended is not None:
        raise GuestError(
            "measure the floor",
            host=ended.host,
            said=f"the guest stopped by itself ({ended.name})",
            remedy="its console and QEMU's log are on the host",
        )


def _hop(
    case: Case, moving: Move, domain: Domain, listener: Listener, seen: Seen, setting: Setting
) -> Hop:
    hosts = {"source": moving.source.host, "target": moving.target.host}
    setting.say(f"moving the guest from {hosts['source'].name} to {hosts['target'].name}")
    begin_ns = now_ns()
    with (
        armed(case.faults, hosts, listener) as faults,
        sampling(domain, setting.on_sample) as samples,
    ):
        acted = act(domain, moving, listener, faults.react)
    seen.samples += samples
    seen.notes += faults.not_done()
    moved = judged(acted, holders(tuple(hosts.values())), moving)
    hop = Hop(hosts["source"].name, hosts["target"].name, moved, begin_ns, now_ns())
    seen.hops.append(hop)
    return hop


def _logs(pair: tuple[Host, Host], seen: Seen) -> None:
    for host, side in zip(pair, ("source", "target"), strict=True):
        for name, path in (("qemu", QEMU_LOG), ("console", CONSOLE)):
            log = host.run(["cat", path], Deadline.after(10), check=False)
            if log.status == 0:
                seen.files[f"logs/{side}-{name}.log"] = log.out


# --- judging ------------------------------------------------------------------------------------


def _phases(seen: Seen) -> tuple[Phase, ...]:
    """Hop by hop: each owns the axis until the next one begins."""
    found: list[Phase] = []
    end_ns = seen.taken.end_ns if seen.taken else now_ns()
    borders = [hop.begin_ns for hop in seen.hops[1:]] + [end_ns]
    for hop, border in zip(seen.hops, borders, strict=True):
        mine = [event for event in seen.events if hop.begin_ns <= event.at_ns < border]
        found += phases(mine, hop.source, hop.target, border)
    return tuple(found)


PEER_CLOCK = Offset("peer", 0, 0)
"""The peer of a local lab shares the controller's clock."""


def _measured(case: Case, seen: Seen, moved: tuple[Phase, ...]) -> Measurement | None:
    if seen.taken is None:
        return None
    interval_ns = case.workload.interval_us * 1000
    observed = seen.taken.observation(PEER_CLOCK, interval_ns, seen.floor, seen.floor[0])
    return measure(dataclasses.replace(observed, phases=moved))


def _on_axis(seen: Seen) -> dict[str, Arrivals]:
    """Both streams with both stamps on the axis, as the run folder wants them."""
    if seen.taken is None or not len(seen.taken.egress) or not len(seen.taken.ingress):
        return {}
    out, into = seen.taken.egress, seen.taken.ingress
    guest = GuestClock.fit(out, into)
    return {
        "egress": dataclasses.replace(out, sent_ns=guest.to_axis(out.sent_ns)),
        "ingress": dataclasses.replace(into, received_ns=guest.to_axis(into.received_ns)),
    }


def _record(
    case: Case, number: int, pair: tuple[Host, Host], seen: Seen, found: Measurement | None
) -> Attempt:
    last = seen.hops[-1].moved
    taken = seen.taken
    return Attempt(
        case=case,
        number=number,
        source=pair[0].name,
        target=pair[1].name,
        begin_ns=seen.begin_ns,
        end_ns=now_ns(),
        outcome=last.outcome,
        held_by=last.held_by,
        reported=_reported([hop.moved.reported for hop in seen.hops]),
        gaps=found.gaps if found else None,
        streams=found.streams if found else None,
        stalls=found.stalls if found else None,
        floor=found.floor if found else None,
        start_ms=seen.start_ms,
        memory=taken.memory if taken else None,
        tcp=taken.tcp if taken else None,
        nic_before=seen.nic,
        nic_after=taken.nic if taken else None,
        error=last.error,
        notes=(*seen.notes, *(taken.notes if taken else ()), *(found.notes if found else ())),
    )


def _reported(hops: list[Reported]) -> Reported:
    """Of several hops: the longest downtime, and the time of all."""
    if len(hops) == 1:
        return hops[0]
    downtimes = [hop.downtime_ms for hop in hops]
    totals = [hop.total_ms for hop in hops]
    known = [value for value in downtimes if value is not None]
    spent = [value for value in totals if value is not None]
    return Reported(
        downtime_ms=max(known) if len(known) == len(hops) else None,
        total_ms=sum(spent) if len(spent) == len(hops) else None,
    )
