"""All that was gathered of an attempt in, what it tells out: the only reader of a recording."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from migrate.analysis import loss
from migrate.analysis.carriers import carrier_checkpoints, failover_carriers
from migrate.analysis.dirty_rate import rate_during
from migrate.analysis.guest_clock import GuestClock
from migrate.analysis.hops import by_hop, hop_events, unknown_times
from migrate.analysis.host_clocks import clock_steps
from migrate.analysis.machines import machine_state
from migrate.analysis.move_details import explanations, move_details
from migrate.analysis.outage import Measurement, measure
from migrate.analysis.own_questions import void_by_question
from migrate.analysis.phases import phases
from migrate.analysis.reported import combined, with_vfio
from migrate.analysis.traffic import arrivals_on_axis, guest_clock, observation
from migrate.analysis.work import as_done, shortfalls, work_done
from migrate.formats.qemu_migration import unknown_statuses
from migrate.model import Case, DirtyRate, Findings, Loss, Phase, Problem, TcpCheck, WorkDone
from migrate.model.recording import Recording


def analyse(recording: Recording, case: Case, clock: GuestClock | None = None) -> Findings:
    """What the network saw, the guest felt and the hypervisor reports.

    ``clock``: the guest's, for whoever has it already. Raises MeasurementError for a log that can't
    be true.
    """
    clock = clock or guest_clock(recording.traffic)
    arrivals = arrivals_on_axis(recording.traffic, clock)
    start, traffic, last = recording.start, recording.traffic, recording.hops[-1].result
    moved = tuple(itertools.chain.from_iterable(phases_by_hop(recording)))
    measured = _measured(recording, case, moved, clock)
    hops = hop_events(recording, case.interface.mac)
    carriers = failover_carriers(recording)
    work = work_done(recording, arrivals)
    short = _short(recording, case, work)
    gaps, floor = (measured.gaps, measured.floor) if measured else (None, None)
    return Findings(
        begin_ns=start.begin_ns,
        outcome=last.outcome,
        held_by=last.held_by,
        reported=combined(
            with_vfio(hop.result.reported, hop.qemu.samples, recording.events)
            for hop in recording.hops
        ),
        phases=moved,
        gaps=gaps,
        unmeasured=measured.unmeasured if measured else (),
        streams=measured.streams if measured else None,
        loss=_loss(recording, case, measured) if measured else None,
        stalls=measured.stalls if measured else None,
        stalls_seen_from_ms=_stalls_seen_from_ms(measured, recording),
        explained=explanations(hops, gaps, floor, case, arrivals),
        inside=move_details(recording, hops, as_done(case, work), arrivals, clock),
        dirty_rates=_dirty_rates(recording, case),
        floor=floor,
        no_floor=(*measured.no_floor, *short) if measured and floor is None else (),
        start_ms=start.start_ms,
        memory=traffic.memory,
        tcp=_tcp(recording),
        nic_before=start.nic,
        nic_after=traffic.nic,
        carriers=carriers,
        carrier_checkpoints=carrier_checkpoints(recording, carriers),
        failover_hosts=start.primaries,
        backend_failed=recording.backend_failed,
        error=_error(recording),
        qemu_ends=recording.qemu_ends,
        void=(*void_by_question(recording), *_void(recording)),
        notes=(
            *_notes(recording, measured.notes if measured else ()),
            *short,
        ),
        clocks=recording.clocks,
        machine=machine_state(recording),
        work=work,
    )


def not_analysed(recording: Recording, error: Exception) -> Findings:
    """What is known without the analysis, which raised ``error``: how the moves ended. It is void,
    and can be judged when the analysis is mended: its recording is kept."""
    last = recording.hops[-1].result
    said = f"{type(error).__name__}: {error}"
    return Findings(
        begin_ns=recording.start.begin_ns,
        outcome=last.outcome,
        held_by=last.held_by,
        error=_error(recording) or Problem(tried="analyse the recording", said=said),
        qemu_ends=recording.qemu_ends,
        void=(
            f"its recording could not be analysed, and is kept: {said}",
            *_void(recording),
        ),
        clocks=recording.clocks,
    )


def _void(recording: Recording) -> tuple[str, ...]:
    """What was not done in a move, and what was not had of the attempt as a whole."""
    return (*(reason for hop in recording.hops for reason in hop.void), *recording.void)


def _error(recording: Recording) -> Problem | None:
    """The last move's; QEMUs that ended come first, before what libvirt made of it."""
    last = recording.hops[-1].result
    if last.outcome == "completed" or not recording.qemu_ends:
        return last.error
    ends = "; ".join(map(str, recording.qemu_ends))
    if last.error is None:
        host = recording.qemu_ends[0].host
        return Problem(tried="run the guest", host=host, said=ends)
    said = "; ".join(filter(None, (ends, last.error.said)))
    return last.error.model_copy(update={"said": said})


def phases_by_hop(recording: Recording) -> tuple[tuple[Phase, ...], ...]:
    """Of each hop; none of a hop if a clock stepped: not known when, they would be wrong."""
    return tuple(
        ()
        if unknown_times(recording, hop.source, hop.target)
        else tuple(phases(events, hop.source, hop.target, border_ns))
        for hop, events, border_ns in by_hop(recording, recording.traffic.end_ns)
    )


def _measured(
    recording: Recording, case: Case, moved: tuple[Phase, ...], clock: GuestClock | None
) -> Measurement | None:
    if recording.traffic.nothing_logged or unknown_times(recording):
        return None
    interval_ns = case.workload.interval_us * 1000
    window = recording.start.floor_window
    return measure(observation(recording.traffic, interval_ns, window, moved), clock)


def _stalls_seen_from_ms(measured: Measurement | None, recording: Recording) -> float | None:
    """None if late ticks are missing: one of them may have been the longest stall."""
    if measured is None or measured.stalls is None or recording.traffic.jumps_missed:
        return None
    if measured.stalls_seen_from_ns is None:
        return None
    return measured.stalls_seen_from_ns / 1e6


def _tcp(recording: Recording) -> TcpCheck | None:
    """With the connections on which a byte came back after the last move.

    A probe that does not tell each one's wait tells the longest: if that is shorter than the time
    since the move, all had one.
    """
    check, moved_ns = recording.traffic.tcp, recording.hops[-1].end_ns
    if check is None:
        return None
    asked_ns = recording.traffic.end_ns if check.asked_ns is None else check.asked_ns
    since_ms = (asked_ns - moved_ns) / 1e6
    if check.waiting_ms is not None:
        answered = sum(waiting < since_ms for waiting in check.waiting_ms)
    elif check.longest_stall_ms < since_ms:
        answered = check.alive
    else:
        return check
    return check.model_copy(update={"answered": answered})


def _loss(recording: Recording, case: Case, measured: Measurement) -> tuple[Loss, ...]:
    parts = loss.windows(recording)
    return tuple(
        account
        for delivery in measured.deliveries
        for gaps in [[gap for gap in measured.gaps if gap.direction == delivery.direction]]
        for account in loss.losses(delivery, gaps, parts, case.workload.interval_us * 1000)
    )


def _dirty_rates(recording: Recording, case: Case) -> tuple[DirtyRate, ...] | None:
    """Before, during and after the moves; None: nobody asked for them."""
    asked = case.expect.dirty_rate_within is not None
    during = [rate_during(hop.source, hop.qemu.samples) for hop in recording.hops if asked]
    return (*recording.start.dirty_rates, *during, *recording.dirty_rates) or None


def _short(recording: Recording, case: Case, work: Sequence[WorkDone] | None) -> tuple[str, ...]:
    loops = recording.traffic.looped is not None
    return tuple(shortfalls(work or (), case.workload, loops=loops))


def _notes(recording: Recording, of_meter: Sequence[str]) -> tuple[str, ...]:
    begin_ns = recording.start.begin_ns
    return (
        *recording.start.notes,
        *(note for hop in recording.hops for note in (*hop.notes, *hop.missed_events)),
        *(f"when the move had ended, {state}" for state in recording.hops[-1].result.states),
        *recording.notes,
        *(step.describe(begin_ns) for step in clock_steps(recording.clocks)),
        *(
            f"QEMU on {host} reports the status {status!r}, which is not known here: what went on "
            "in it is in no phase"
            for host, status in unknown_statuses(recording.events)
        ),
        *recording.traffic.notes,
        *of_meter,
    )
