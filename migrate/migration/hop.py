"""One move of an attempt, with all that listens meanwhile, until the guest is in reach again."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import reduce
from pathlib import Path

from migrate.clock import now_ns
from migrate.errors import GuestError, HostError, LabError, LeaseLostError
from migrate.guest.lifecycle import holders, settled
from migrate.lab.api import Host
from migrate.migration.faults import inject_faults
from migrate.migration.hotplug import wait_for_carrier
from migrate.migration.move import (
    GRACE_S,
    End,
    MigrateCall,
    Move,
    Swap,
    classify_outcome,
    longest_s,
    perform_move,
)
from migrate.migration.move_wait import MoveWait
from migrate.migration.postcopy import PostcopyEnd, await_postcopy, guest_states, is_postcopy
from migrate.migration.silence import described, silent_hop
from migrate.model import Event, Problem
from migrate.model.recording import HopRecording, MoveResult
from migrate.recorder.base import Hop, Observation, Observer, Rig
from migrate.recorder.events import Listener
from migrate.recorder.phase_tracker import PhaseTracker
from migrate.recorder.qemu_state import observe_qemus
from migrate.recorder.stream_capture import observe_stream, stream_recording
from migrate.waiting import waiting

LOGGER = logging.getLogger(__name__)

FOLLOW_S = 60.0
"""For the probe to answer over the channel of the host that the guest came to."""
BACK_S = 60.0
"""For a device that was plugged in to carry in the guest."""
OBSERVERS: tuple[Observer, ...] = (inject_faults, observe_qemus, observe_stream)
"""Of every hop, beside the clocks; a fault is put back after all have ended that could tell."""


def move_guest(rig: Rig) -> HopRecording:
    """Move the guest to the other host, once, by the case's policy and with its faults.

    Afterwards ``rig.domain`` is where the guest runs.
    """
    rig.env.check()
    source, target = rig.direction()
    LOGGER.info("moving the guest from %s to %s", source.name, target.name)
    rig.traffic.read_guest_clock()
    swap = _swap(rig, source, target)
    known = len(rig.traffic.guest.lower_log()) if any(rig.hotplug.values()) else 0
    phases = PhaseTracker(source.name)
    phases.subscribe(rig.env.on_phase)
    wait = MoveWait(target.name)
    phases.subscribe(wait.on_phase)
    env = replace(rig.env, on_sample=wait.heard(rig.env.on_sample))
    of_guest = rig.domain.uuid, rig.start.nic
    hop = Hop(rig.case, env, source, target, rig.listener, phases, *of_guest)
    recording = _observed_move(rig, hop, swap, wait)
    try:
        return _reached(rig, recording, swap, known)
    except LeaseLostError:
        raise
    except Exception as error:
        LOGGER.debug("the guest is not in reach", exc_info=True)
        return silent_hop(rig, recording, described(error))


def _reached(rig: Rig, recording: HopRecording, swap: Swap | None, known: int) -> HopRecording:
    """The guest in reach again where it is now; as it is if nobody has it, or half of it."""
    held_by, (source, target) = recording.result.held_by, rig.direction()
    if recording.result.outcome == "recoverable":
        return recording.model_copy(update={"silent": True})
    if held_by == (target.name,):
        follow(rig, target)
        files = {"target.xml": rig.domain.xml()}
        recording = recording.model_copy(update={"files": files})
    elif held_by == (source.name,) and _out_of_reach(rig):
        follow(rig, source)
    if len(held_by) == 1 and rig.hotplug[held_by[0]] is not None:
        recording = until_device_is_back(rig, recording, swap, known)
    return recording


def _observed_move(rig: Rig, hop: Hop, swap: Swap | None, wait: MoveWait) -> HopRecording:
    """The move, and what was seen of it."""
    begin_ns, since = now_ns(), hop.listener.mark()
    ends = (hop.source, hop.target)
    with ExitStack() as stack:
        connected = [End(host, stack.enter_context(host.connect())) for host in ends]
        move = Move(
            source=connected[0],
            target=connected[1],
            policy=hop.case.policy,
            rewrites=rig.rewrites[hop.source.name],
            save=_shared(rig, f"saved-{hop.env.lab.name}-{hop.source.name}.sav"),
            swap=swap,
        )
        observers: Sequence[Observer] = (*OBSERVERS, rig.clocks.observe)
        call: MigrateCall | None = None
        unseen: tuple[str, ...] = ()
        then: tuple[str, ...] = ()
        try:
            with ExitStack() as observing:
                observations = [observing.enter_context(observer(hop)) for observer in observers]
                with waiting(wait.words, longest_s(move.policy)):
                    call = perform_move(rig.domain, move, hop.listener, hop.phases)
                then = _states_at_its_end(rig, call, hop, since)
        except Exception as error:
            if call is None or isinstance(error, LeaseLostError):
                raise
            unseen = (f"an observer failed: {described(error)}",)
        result, notes, void = _how_it_ended(rig, call, move, since)
        recording = HopRecording(
            source=hop.source.name,
            target=hop.target.name,
            result=result,
            begin_ns=begin_ns,
            end_ns=now_ns(),
            stream=stream_recording(call.stream),
            missed_events=_missed_events(hop.listener, ends),
            void=(*unseen, *call.void, *void),
            notes=(*call.notes, *then, *notes),
        )
    return reduce(_add, observations, recording)


def _missed_events(listener: Listener, ends: Sequence[Host]) -> tuple[str, ...]:
    try:
        return listener.resubscribe(*ends)
    except LabError as error:
        return (f"events were not listened to any more: {error}",)


def _add(recording: HopRecording, observation: Observation) -> HopRecording:
    return observation.add_to(recording)


def _may_go_on(call: MigrateCall, events: Sequence[Event], source: str) -> bool:
    """Whether QEMU may go on with a post-copy of which libvirt's call has failed."""
    failed = call.call.error is not None or not call.call.ended
    return failed and is_postcopy(events, source)


def _states_at_its_end(rig: Rig, call: MigrateCall, hop: Hop, since: int) -> tuple[str, ...]:
    """What libvirt said as its call failed in post-copy, before faults are put back."""
    if not _may_go_on(call, hop.listener.since(since), hop.source.name):
        return ()
    states = guest_states((hop.source, hop.target), rig.domain.uuid, ask_qemu=False)
    said = "; ".join(map(str, states))
    why = f"failed in post-copy: {call.call.error}" if call.call.ended else "did not end"
    return (f"libvirt's call {why}; then {said}",)


def _how_it_ended(
    rig: Rig, call: MigrateCall, move: Move, since: int
) -> tuple[MoveResult, tuple[str, ...], tuple[str, ...]]:
    """Its result, when nothing more happens by itself; notes; and why it tells nothing, if a host
    can't be asked who has the guest."""
    ends = (move.source.host, move.target.host)
    uuid = rig.domain.uuid
    try:
        notes = _until_settled(rig, call, ends)
        postcopy: PostcopyEnd | None = None
        if _may_go_on(call, rig.listener.since(since), ends[0].name):
            LOGGER.info("libvirt's call failed in post-copy: waiting for QEMU")
            deadline = rig.env.deadline(move.policy.timeout_s + GRACE_S)
            with waiting("QEMU to finish post-copy", deadline):
                postcopy = await_postcopy(rig.listener, ends, uuid, since, deadline)
        result = classify_outcome(call, holders(ends, uuid), move, postcopy)
    except LeaseLostError:
        raise
    except LabError as error:
        why = f"who holds the guest is not known: {error}"
        problem = Problem(tried=error.tried, host=error.host, said=error.said, remedy=error.remedy)
        return MoveResult(outcome="failed", held_by=(), error=problem), (), (why,)
    if result.outcome == "completed":
        went_on = postcopy == "completed"
        return result, (*notes, *((WENT_ON,) if went_on else ())), ()
    states = guest_states(ends, uuid, ask_qemu=True)
    result = result.model_copy(update={"states": states})
    if result.outcome == "recoverable":
        result = result.model_copy(update={"error": _recoverable(result)})
    return result, notes, ()


WENT_ON = "QEMU went on with the post-copy by itself, and completed it without libvirt's call"
NOT_TRIED = "recoverable; recovering was not tried"


def _recoverable(result: MoveResult) -> Problem:
    said = "; ".join((NOT_TRIED, *map(str, result.states)))
    if result.error is None:
        return Problem(tried="migrate", said=said)
    said = f"{said}; {result.error.said}" if result.error.said else said
    return result.error.model_copy(update={"said": said, "remedy": RESUME})


RESUME = "virsh migrate --postcopy-resume, as long as both QEMUs are there"


def _until_settled(rig: Rig, call: MigrateCall, ends: Sequence[Host]) -> tuple[str, ...]:
    """After a call whose connection broke: libvirt goes on with the move; a note if it does not
    end."""
    if not call.lost:
        return ()
    deadline = rig.env.deadline(GRACE_S)
    with waiting("libvirt to end the migration job", deadline):
        ended = settled(ends, rig.domain.uuid, deadline)
    if ended:
        return ()
    return ("libvirt has not ended the move: asked who holds the guest",)


def _swap(rig: Rig, source: Host, target: Host) -> Swap | None:
    """A device stays behind if that is how it is moved, or if only one host has one."""
    swap = Swap(rig.hotplug[source.name], rig.hotplug[target.name])
    one_sided = (swap.out is None) != (swap.into is None)
    return swap if one_sided or rig.case.policy.method == "reattach" else None


def until_device_is_back(
    rig: Rig, recording: HopRecording, swap: Swap | None, known: int
) -> HopRecording:
    """Wait for the host's device if the guest lost one, or had none.

    ``known``: how long the guest's log of devices was before the move. A device that does not come
    is a note if there is a standby, and else the move has failed.
    """
    guest, lab = rig.traffic.guest, rig.env.lab
    try:
        lost = any(change.what == "gone" for change in guest.lower_log()[known:])
        if lost or (swap is not None and swap.out is None):
            address = lab if swap is not None else None
            wait_for_carrier(guest, known, address, rig.env.deadline(BACK_S))
    except GuestError as error:
        if swap is None:
            return recording.model_copy(update={"notes": (*recording.notes, str(error))})
        problem = Problem(tried=error.tried, said=error.said, remedy=error.remedy)
        failed = {"outcome": "failed", "error": recording.result.error or problem}
        result = recording.result.model_copy(update=failed)
        return recording.model_copy(update={"result": result})
    return recording


def _out_of_reach(rig: Rig) -> bool:
    """Whether the connection broke over which the guest was followed: libvirtd is new."""
    try:
        rig.domain.state()
    except HostError:
        return True
    return False


def follow(rig: Rig, host: Host) -> None:
    """Go on with the guest on ``host``; GuestError if it is not there, or its probe is silent."""
    hypervisor = host.connect()
    domain = hypervisor.find(rig.domain.uuid)
    if domain is None:
        hypervisor.close()
        raise GuestError("find the guest", host=host.name, said="it ran, and is gone now")
    rig.domain = domain
    deadline = rig.env.deadline(FOLLOW_S)
    with waiting(f"the probe in the guest on host {host.name} to answer", deadline):
        rig.traffic.follow(hypervisor, domain, deadline)


def _shared(rig: Rig, name: str) -> Path:
    """A file that both hosts see. The lab's name is in its own: `lab down` finds it by that."""
    return rig.env.lab.shared / "warm" / name
