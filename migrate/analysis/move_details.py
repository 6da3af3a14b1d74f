"""What went on inside of an attempt's moves, from all that was seen of them.

The events tell the stop by stages and what each device took (:mod:`migrate.analysis.stop_stages`);
what was read on both ends tells whether a device arrived as it left
(:mod:`migrate.analysis.device_state`), and whether its rings were sound
(:mod:`migrate.formats.virtqueue`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from migrate.analysis.announcements import count_by_kind, frames_missed_ns
from migrate.analysis.convergence import PRECOPY, assess_convergence
from migrate.analysis.explain import explain_gap
from migrate.analysis.guest_clock import GuestClock
from migrate.analysis.hop_events import HopEvents
from migrate.analysis.hops import FOREVER_NS, by_hop
from migrate.analysis.network_devices import (
    AMBIGUOUS,
    join_devices,
    states_and_rings,
    with_supplement,
)
from migrate.analysis.outage import longest_gap
from migrate.analysis.stop_stages import device_times, stop_stages
from migrate.analysis.traffic import arrival_error_ns
from migrate.formats.qemu_migration import SWITCHED, pass_of, sample_of_job, status_of
from migrate.model import (
    DIRECTIONS,
    Case,
    Convergence,
    Event,
    Floor,
    Gap,
    GapExplanation,
    MonitorGap,
    MoveDetails,
)
from migrate.model.recording import (
    Arrivals,
    HopRecording,
    QemuRecording,
    Recording,
    TrafficLog,
)

BLIND_NS = 250_000_000
"""QEMU is asked for its progress every 20 ms: so long without an answer, and it was blind."""
UNHEARD = (
    "announcements: the fabric sent more frames than its capture keeps, and the first are lost"
)
NO_STAGES = "the stages of the stop are not known"
WORKED = "queues of a vhost backend are not queried: that would stop them"
NO_TRACES = "no trace points vmstate_downtime_* were recorded (QEMU has them since 8.2)"


def move_details(
    recording: Recording,
    hops: Sequence[HopEvents],
    case: Case,
    arrivals: Mapping[str, Arrivals],
    clock: GuestClock | None = None,
) -> tuple[MoveDetails, ...]:
    """What went on inside of each hop; ``arrivals`` on the axis, by the guest's ``clock``."""
    until_ns = recording.listened_until_ns
    end_ns = FOREVER_NS if until_ns is None else until_ns
    stretches = zip(by_hop(recording, end_ns), hops, strict=True)
    return tuple(
        MoveDetails(
            hop=number,
            begin_ns=hop.begin_ns,
            end_ns=None if border_ns == FOREVER_NS else border_ns,
            reported_downtime_ms=hop.result.reported.downtime_ms,
            **_of_hop(hop, events, case, recording),
            **_announced(events, hop.qemu, border_ns, frames_missed_ns(recording.events)),
            **_first_packets(events, recording.traffic, arrivals, border_ns, clock),
        )
        for number, ((hop, _, border_ns), events) in enumerate(stretches, 1)
    )


def explanations(
    hops: Sequence[HopEvents],
    gaps: Sequence[Gap] | None,
    floor: Floor | None,
    case: Case,
    arrivals: Mapping[str, Arrivals],
) -> tuple[GapExplanation, ...] | None:
    """The longest gap of each direction; None without gaps, or if events are missing."""
    if gaps is None or floor is None or any(hop.unplaced for hop in hops):
        return None
    return tuple(_explained(hops, gaps, floor, case, arrivals))


def _explained(
    hops: Sequence[HopEvents],
    gaps: Sequence[Gap],
    floor: Floor,
    case: Case,
    arrivals: Mapping[str, Arrivals],
) -> Iterator[GapExplanation]:
    for way in DIRECTIONS:
        gap = longest_gap(gaps, way)
        if gap is not None and way in arrivals:
            events = replace(_of_gap(hops, gap), egress_ns=arrivals["egress"].received_ns)
            seen_from_ns = round(floor.seen_from_ms(way, case.workload.interval_us) * 1e6)
            yield explain_gap(gap, events, arrivals[way], seen_from_ns)


def _of_gap(hops: Sequence[HopEvents], gap: Gap) -> HopEvents:
    """The hop that a gap ends in."""
    end_ns = gap.begin_ns + gap.length_ns
    begun = [hop for hop in hops if hop.begin_ns <= end_ns]
    return begun[-1] if begun else hops[0]


def _of_hop(
    hop: HopRecording, hop_events: HopEvents, case: Case, recording: Recording
) -> dict[str, Any]:
    """Fields of :class:`MoveDetails` that both QEMUs' events and answers tell."""
    spans, took = stop_stages(hop_events), device_times(hop_events)
    no_stages = _no_stages(hop_events, recording.no_trace_points, known=took is not None)
    stop, resume = hop_events.switchover
    missing = _missing(hop, (*hop_events.unplaced, *no_stages), stop, resume)
    known, memory_mib = with_supplement(hop, recording.start.nic), case.guest.memory_mib
    compared, rings, nonsense = states_and_rings(known, hop_events.events, memory_mib)
    devices, ambiguous = join_devices(hop, took or (), compared)
    told = (nonsense,) if nonsense else ()
    missing["devices"] += (*told, *((AMBIGUOUS,) if ambiguous else ()))
    missing["rings"] += told
    missed_ns = frames_missed_ns(recording.events)
    unheard = stop is not None and missed_ns is not None and missed_ns >= stop.at_ns
    unseen = (*hop.qemu.unseen, *told, *missing["stop"], *missing["bytes"])
    blocktime = hop.qemu.blocktime
    return {
        "stop": spans,
        "rings": rings,
        "devices": devices or None,
        "convergence": _convergence(hop, hop_events, case),
        "postcopy_blocktime_ms": blocktime.every_ms if blocktime else None,
        "postcopy_cpus_blocktime_ms": blocktime.each_ms if blocktime else (),
        "placed": not hop_events.unplaced,
        "blind": tuple(_blind(hop.qemu, hop_events)),
        "unseen": tuple(dict.fromkeys((*unseen, UNHEARD) if unheard else unseen)),
        "missing": missing,
    }


def _missing(
    hop: HopRecording, events: tuple[str, ...], stop: Event | None, resume: Event | None
) -> dict[str, tuple[str, ...]]:
    """Why a part of the details is not available, or not whole, by its name; ``events``: why not
    all of them are there. Rings are read on the source alone, and are no reason for a device."""
    ours, qemu = f"{hop.source}: ", hop.qemu
    no_state: tuple[str, ...] = ()
    if qemu.source is not None and not qemu.source:
        no_state = (f"{ours}it has no virtio network device",)
    elif qemu.source is None and stop is None:
        no_state = (f"{ours}the guest was not stopped there",)
    not_asked = (f"{hop.target}: {WORKED}",) if qemu.vhost and qemu.target else ()
    of_devices = (why for why in qemu.unseen if not why.startswith(f"{ours}its rings"))
    return {
        "stop": events,
        "devices": (*of_devices, *no_state, *not_asked),
        "rings": (*(why for why in qemu.unseen if why.startswith(ours)), *no_state),
        "bytes": (hop.stream.unseen,) if resume is not None and hop.stream.unseen else (),
    }


def _no_stages(hop_events: HopEvents, reasons: Mapping[str, str], *, known: bool) -> Iterator[str]:
    """Why an end has no trace points; ``known``: whether any end has times of devices."""
    stop, resume = hop_events.switchover
    if stop is None or resume is None:
        return
    ends = [hop_events.source]
    if resume.host == hop_events.target:
        ends.append(hop_events.target)
    untraced = [host for host in ends if not hop_events.traced(host)]
    told = [f"{host}: {NO_STAGES}: {reasons[host]}" for host in untraced if host in reasons]
    yield from told
    if not told and not known:
        yield f"{NO_STAGES}: {NO_TRACES}"


def _convergence(hop: HopRecording, hop_events: HopEvents, case: Case) -> Convergence | None:
    """Of a move that was a pre-copy to its end."""
    if case.policy.method not in PRECOPY or not hop.qemu.samples or hop_events.unplaced:
        return None
    ours = [event for event in hop_events.events if event.host == hop.source]
    told = (sample_of_job(event) for event in ours if event.name == "job-completed")
    account = [sample for sample in told if sample is not None]
    converged = assess_convergence([*hop.qemu.samples, *account], case.policy, case.workload)
    statuses = {status_of(event) for event in ours if event.name == "MIGRATION"}
    passes = [event for event in ours if pass_of(event)]
    if converged is None or "postcopy-active" in statuses:
        return None
    stop, _ = hop_events.switchover
    limit_ns = hop_events.begin_ns + round(case.policy.timeout_s * 1e9)
    suspends = case.policy.on_timeout == "suspend"
    of_events = {
        "switched_over": not statuses.isdisjoint(SWITCHED),
        # QEMU tells of those after the last look, too.
        "syncs": pass_of(passes[-1]) if passes else converged.syncs,
        "stopped_s": _stopped_s(stop, passes),
        "suspended": suspends and stop is not None and stop.at_ns >= limit_ns,
    }
    return Convergence.model_validate({**dict(converged), **of_events})


def _stopped_s(stop: Event | None, passes: Sequence[Event]) -> float | None:
    """From the begin of the first pass to the stop; None if it had been stopped before."""
    if stop is None or not passes or stop.at_ns < passes[0].at_ns:
        return None
    return (stop.at_ns - passes[0].at_ns) / 1e9


def _announced(
    hop_events: HopEvents, qemu: QemuRecording, border_ns: int, missed_ns: int | None
) -> dict[str, Any]:
    """What was asked for, and what was heard after the resume on the target; since the stop.

    ``missed_ns``: until when frames of the fabric are missing.
    """
    asked: dict[str, Any] = {}
    if (announce := qemu.announce) is not None:
        asked["announce_rounds_asked"] = announce.rounds
        asked["announce_last_due_ms"] = announce.last_due_ms
    stop, resume = hop_events.switchover
    if stop is None or resume is None or resume.host != hop_events.target or hop_events.unplaced:
        return asked
    if missed_ns is not None and missed_ns >= stop.at_ns:
        return asked
    heard = [e for e in hop_events.events if e.name == "announce" and e.at_ns >= stop.at_ns]
    after = [e for e in heard if e.at_ns >= resume.at_ns]
    listened_ms = None if border_ns == FOREVER_NS else (border_ns - resume.at_ns) / 1e6
    return {
        **asked,
        "announced": len(after),
        "first_announce_ms": (heard[0].at_ns - resume.at_ns) / 1e6 if heard else None,
        "announce_error_ms": (resume.off_ns + (heard[0].off_ns if heard else 0)) / 1e6,
        "announced_by": count_by_kind(after),
        "listened_ms": listened_ms,
    }


def _first_packets(
    hop_events: HopEvents,
    traffic: TrafficLog,
    arrivals: Mapping[str, Arrivals],
    border_ns: int,
    clock: GuestClock | None,
) -> dict[str, Any]:
    """Each way the first packet that arrived after the guest ran again, wherever it did."""
    stop, resume = hop_events.switchover
    if resume is None or hop_events.unplaced:
        return {}
    first: dict[str, Any] = {}
    silent, held = [], []
    for way in DIRECTIONS:
        if way not in arrivals:
            continue
        received_ns = arrivals[way].received_ns
        after = arrivals[way].select((received_ns >= resume.at_ns) & (received_ns < border_ns))
        if not len(after):
            silent.append(way)
            continue
        row = int(after.received_ns.argmin())
        at_ns = int(after.received_ns[row])
        if stop is not None and int(after.sent_ns[row]) < stop.at_ns:
            held.append(way)
        error_ns = resume.off_ns + arrival_error_ns(traffic, way, at_ns, clock)
        first[f"first_{way}_ms"] = (at_ns - resume.at_ns) / 1e6
        first[f"first_{way}_error_ms"] = error_ns / 1e6
    return {**first, "first_sent_before_stop": tuple(held), "silent": tuple(silent)}


def _blind(qemu: QemuRecording, hop_events: HopEvents) -> Iterator[MonitorGap]:
    stop, resume = hop_events.switchover
    for before_ns, after_ns in pairwise(qemu.answered_ns):
        if after_ns - before_ns > BLIND_NS:
            yield MonitorGap(
                what="QEMU did not answer: its progress was not observed",
                begin_ns=before_ns,
                end_ns=after_ns,
                host=hop_events.source,
                explained=False,
                missed=round((after_ns - before_ns) / (qemu.interval_s * 1e9)) - 1,
                stop=None if stop is None else before_ns <= stop.at_ns <= after_ns,
                stopped_ms=_stopped_ms(stop, resume, before_ns, after_ns),
            )


def _stopped_ms(
    stop: Event | None, resume: Event | None, begin_ns: int, end_ns: int
) -> float | None:
    """How much of the guest's stop lies between two points."""
    if stop is None or resume is None:
        return None
    return max(0, min(end_ns, resume.at_ns) - max(begin_ns, stop.at_ns)) / 1e6
