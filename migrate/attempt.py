"""One attempt, on two hosts that are leased, to its verdicts. Start reading here.

:func:`attempt` puts the world into a state (two hosts, a backend on each, a guest with its probe, a
peer, traffic: :mod:`migrate.world`), acts (moves the guest), and judges (what the network saw, what
the guest felt, what the hypervisor reports, who holds the guest now). What it did is undone when it
ends, however it ends; then it looks for leftovers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from migrate.analysis.guest_clock import GuestClock
from migrate.analysis.move_details import explained_of, hop_events, inside_of
from migrate.analysis.outage import Measurement, measure
from migrate.analysis.phases import phases
from migrate.checks.registry import run_checks
from migrate.cleanup.leftovers import leftovers
from migrate.clock import now_ns
from migrate.lab.api import Host
from migrate.model import Attempt, Case, Phase, Reported
from migrate.model.recording import Arrivals
from migrate.recorder.seen import Seen
from migrate.results.run_folder import RunWriter
from migrate.world import AttemptEnv, build_world


def attempt(
    case: Case, number: int, setting: AttemptEnv, pair: tuple[Host, Host], writer: RunWriter
) -> Attempt:
    """Try ``case`` once on ``pair`` (source, target: leased) and write all of it down.

    A migration that fails is an attempt; an exception means that there is none to record.
    """
    with build_world(case, setting, pair) as world:
        for _ in range(case.policy.hops):
            if world.move().outcome != "completed":
                break
        world.listen(case.workload.settle_s)
        seen = world.end()
    setting.check()
    left = leftovers(pair)
    arrivals = _on_axis(seen)
    record = judged(case, number, pair, seen, arrivals, left)
    writer.write_attempt(record, seen.events, seen.samples, arrivals, seen.files)
    return record


def judged(
    case: Case,
    number: int,
    pair: tuple[Host, Host],
    seen: Seen,
    arrivals: Mapping[str, Arrivals],
    left: tuple[str, ...] | None,
) -> Attempt:
    """Measure what was seen, and judge it by what the case expects; ``arrivals`` by direction."""
    moved = _phases(seen)
    record = _record(case, number, pair, seen, _measured(case, seen, moved))
    told = hop_events(seen, case.interface.mac)
    inner = {
        "inside": inside_of(seen, told, case, arrivals),
        "explained": explained_of(told, record, arrivals),
    }
    record = record.model_copy(update={"leftovers": left, "phases": moved, **inner})
    return record.model_copy(update={"verdicts": run_checks(record)})


def _phases(seen: Seen) -> tuple[Phase, ...]:
    """Hop by hop; none of a hop if a clock stepped: not known when, they would be wrong."""
    end_ns = seen.taken.end_ns if seen.taken else now_ns()
    return tuple(
        phase
        for hop, events, border in seen.by_hop(end_ns)
        if not seen.stepped(hop.source, hop.target)
        for phase in phases(events, hop.source, hop.target, border)
    )


def _measured(case: Case, seen: Seen, moved: tuple[Phase, ...]) -> Measurement | None:
    if seen.taken is None or seen.taken.nothing_logged or seen.stepped():
        return None
    interval_ns = case.workload.interval_us * 1000
    observed = seen.taken.observation(interval_ns, seen.floor, seen.floor[0])
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
        dirty_rates=tuple(seen.dirty_rates) or None,
        floor=found.floor if found else None,
        start_ms=seen.start_ms,
        memory=taken.memory if taken else None,
        tcp=taken.tcp if taken else None,
        nic_before=seen.nic,
        nic_after=taken.nic if taken else None,
        backend_failed=seen.backend_failed,
        error=last.error,
        clocks=tuple(seen.clocks),
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
