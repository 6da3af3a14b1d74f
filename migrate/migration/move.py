"""Moving a guest: libvirt's migration with typed parameters, or saved here and restored there; with
its interface, or without: then it is taken out here and another one is plugged in there.

Whoever moves has its listener on before. What phase it is is known from QEMU's events; time limits
are deadlines, and what then happens is the policy's.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from migrate.backends.xml import Rewrite, rewritten
from migrate.clock import Deadline, now_ns
from migrate.drivers.background_call import BackgroundCall
from migrate.drivers.libvirt import Domain, Hypervisor
from migrate.errors import HostError, LabError, MeasurementError
from migrate.formats.answers import MalformedError
from migrate.formats.qemu_migration import JOB, ORDER, pass_of
from migrate.formats.virtio_features import refusal_remedy
from migrate.formats.vmstate_stream import StreamAccount, read_stream
from migrate.lab.api import Host
from migrate.migration.hotplug import plug_in, unplug
from migrate.migration.postcopy import PostcopyEnd
from migrate.model import Event, Outcome, PhaseName, Policy, Problem, ReportedFigures
from migrate.model.recording import MoveResult
from migrate.recorder.events import Listener
from migrate.recorder.phase_tracker import PhaseTracker

ACCOUNT_S = 2.0
"""For libvirt's account of a job to arrive after the job."""
GRACE_S = 45.0
"""After an abort libvirt may wait for a peer that is gone until its keepalive gives up; a guest
that was suspended, or went over to post-copy, still has memory to send."""

LOST = (
    "the connection to libvirt on {} broke while the guest was moved, so its outcome is who holds "
    "the guest now, as both hosts say, and libvirt's account was not had"
)


class End(NamedTuple):
    """One end of a move."""

    host: Host
    hypervisor: Hypervisor


class Swap(NamedTuple):
    """Devices, as XML, that can't come along; None: there is none on that side."""

    out: str | None
    """Taken out before the move, and put back if that fails."""
    into: str | None
    """Plugged in on the target."""


@dataclass(frozen=True, slots=True)
class Move:
    """What is to be moved from where to where, and how."""

    source: End
    target: End
    policy: Policy
    rewrites: tuple[Rewrite, ...]
    save: Path
    """A file that both hosts see under the same path: where a saved guest lies in between."""
    swap: Swap | None = None


@dataclass(frozen=True, slots=True)
class MigrateCall:
    """Result of the libvirt call; who holds the guest now is another question."""

    call: BackgroundCall
    aborted: bool
    reported: ReportedFigures
    notes: tuple[str, ...] = ()
    stream: StreamAccount | None = None
    """Of what was saved; None: nothing was, or a note says why it could not be read."""
    lost: bool = False
    """The connection broke over which it was asked for: its error tells nothing of the guest."""
    void: tuple[str, ...] = ()
    """What the policy asks for and was not done, so that this is not the move that was meant."""


@dataclass(slots=True)
class _Saved:
    """What the saved file had to say of itself."""

    account: StreamAccount | None = None
    notes: tuple[str, ...] = ()

    def read(self, path: Path) -> None:
        """Take its account; a file that can't be read is a note, and the move goes on."""
        try:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
                self.account = read_stream(data)
        except (MeasurementError, OSError, ValueError) as error:  # ValueError: it is empty
            self.notes = (f"no account of the saved stream: {error}",)


def perform_move(
    domain: Domain, move: Move, listener: Listener, phases: PhaseTracker
) -> MigrateCall:
    """Make one move; returns when libvirt's call has ended, or has not by all deadlines.

    ``phases`` is fed with every new event while the move goes on: faults come from there.
    """
    since = listener.mark()
    orders = _Orders(domain, move.source.host.name, listener, since)
    begun: set[PhaseName] = set()
    phases.subscribe(begun.add)
    phases.subscribe(lambda phase: orders.abort() if phase == move.policy.abort_at else None)
    saved = _Saved()
    orders.note(_asked_for(move))
    if move.policy.method == "save-restore":
        call = BackgroundCall(
            "save and restore", lambda: _save_restore(domain, move, saved, orders)
        )
    elif (swap := move.swap) is not None:
        tried = f"take the interface out and migrate to {move.target.host.name}"
        call = BackgroundCall(tried, lambda: _swap(domain, move, swap, listener))
    else:
        call = _begin(domain, move)
    _attend(move, call, listener, phases, orders)
    reported, unread = _reported(listener, since, move.source.host.name, call)
    notes = (*orders.refused(), *unread)
    if move.policy.method == "save-restore":
        notes = (*notes, "libvirt reports on the save alone, not on the restore", *saved.notes)
    lost = call.error is not None and not domain.reachable()
    if lost:
        notes = (*notes, f"{LOST.format(move.source.host.name)}: {call.error}")
    void = tuple(_not_done(move.policy, begun, call))
    return MigrateCall(call, orders.aborted, reported, notes, saved.account, lost, void)


def _not_done(policy: Policy, begun: Collection[PhaseName], call: BackgroundCall) -> Iterator[str]:
    """What was to be tested, and was not: its phase never came."""
    if policy.abort_at is not None and policy.abort_at not in begun:
        yield f"the abort at {policy.abort_at} was not done: the phase never came"
    if policy.method == "postcopy" and "postcopy" not in begun and call.error is None:
        yield "the switch to post-copy was not done: the phase never came"


def longest_s(policy: Policy) -> float:
    """How long :func:`perform_move` takes at most: what the policy wants at its time limit, and
    giving up where that does not end it."""
    more_s = 0.0 if policy.on_timeout == "abort" else policy.timeout_s + GRACE_S
    return policy.timeout_s + more_s + GRACE_S


def classify_outcome(
    ended: MigrateCall, held_by: tuple[str, ...], move: Move, postcopy: PostcopyEnd | None = None
) -> MoveResult:
    """How a move ended, given the hosts that hold the guest, and what became of a post-copy that
    went on when libvirt's call had ended."""
    outcome = _outcome(ended, held_by, move, postcopy)
    return MoveResult(
        outcome=outcome,
        held_by=held_by,
        reported=ended.reported,
        error=None if outcome == "completed" else _problem(ended.call, move),
    )


@dataclass(slots=True)
class _Orders:
    """What is asked of libvirt while a move goes on; answers are not waited for: QEMU may answer
    no more."""

    domain: Domain
    host: str
    """That the guest leaves."""
    listener: Listener
    since: int
    """Events from this number on are the move's."""
    aborted: bool = False
    calls: list[BackgroundCall] = field(default_factory=list)

    def order(self, tried: str, function: Callable[[], None]) -> None:
        """Ask for something."""
        self.note(tried)
        self.calls.append(BackgroundCall(tried, function))

    def note(self, tried: str) -> None:
        """Put on the axis what is asked for."""
        name = ORDER + tried
        event = Event(at_ns=now_ns(), source="controller", host=self.host, name=name)
        self.listener.add(event)

    def abort(self) -> None:
        """Ask for the move to be given up."""
        self.aborted = True
        self.order("give up the move", self.domain.abort_job)

    def postcopy(self) -> None:
        """Ask for the guest to run on at the target."""
        self.order("switch to post-copy", self.domain.start_postcopy)

    def time_is_up(self, policy: Policy) -> None:
        """Ask for what the policy wants at its time limit."""
        if policy.on_timeout == "suspend":
            self.order("suspend the guest", self.domain.suspend)
        elif policy.on_timeout == "postcopy":
            self.postcopy()
        else:
            self.abort()

    def refused(self) -> tuple[str, ...]:
        """What libvirt did not do, in its words."""
        return tuple(f"{call.tried}: {call.error}" for call in self.calls if call.error)


def _asked_for(move: Move) -> str:
    target = move.target.host.name
    if move.policy.method == "save-restore":
        return "save"
    return f"migrate to {target}" if move.swap is None else f"take out, migrate to {target}"


def _begin(domain: Domain, move: Move) -> BackgroundCall:
    policy = move.policy
    # A disk lies in a folder that both hosts see and is opened with cache=none, so it is safe to
    # move; but libvirt knows only network file systems to be shared, and takes others for unsafe.
    flags = {"live", "unsafe"}
    address = move.target.host.migration_address
    # What listens for the guest does so there alone, whatever the target's qemu.conf says.
    parameters: dict[str, Any] = {"migrate_uri": f"tcp://{address}", "listen_address": address}
    if policy.transport == "peer-to-peer":
        flags.add("peer-to-peer")
    if policy.may_postcopy:
        flags.add("postcopy")
    if policy.auto_converge:
        flags.add("auto-converge")
    if policy.parallel_connections:
        flags.add("parallel")
        parameters["parallel.connections"] = policy.parallel_connections
    if policy.compression != "none":
        flags.add("compressed")
        parameters["compression"] = policy.compression
    if policy.bandwidth_mib_s:
        parameters["bandwidth"] = policy.bandwidth_mib_s
    if policy.postcopy_bandwidth_mib_s:
        parameters["bandwidth.postcopy"] = policy.postcopy_bandwidth_mib_s
    if policy.downtime_limit_ms:
        domain.limit_downtime(policy.downtime_limit_ms)
    if move.rewrites:
        parameters["destination_xml"] = rewritten(domain.xml(migratable=True), move.rewrites)
    uri = move.target.host.libvirt_target
    return domain.migrate(move.target.hypervisor, uri, frozenset(flags), parameters)


def _save_restore(domain: Domain, move: Move, saved: _Saved, orders: _Orders) -> None:
    path = move.save
    path.unlink(missing_ok=True)  # of a controller that was killed
    xml = rewritten(domain.xml(migratable=True), move.rewrites) if move.rewrites else None
    try:
        domain.save(str(path))
        deadline = Deadline.after(move.policy.timeout_s)
        orders.note(f"restore on {move.target.host.name}")
        try:
            move.target.hypervisor.restore(str(path), deadline, xml)
        finally:
            saved.read(path)  # not before the restore: the guest would stand still for it
    finally:
        path.unlink(missing_ok=True)


def _swap(domain: Domain, move: Move, swap: Swap, listener: Listener) -> None:
    if swap.out is not None:
        unplug(domain, swap.out, listener)
    call = _begin(domain, move)
    # Whoever attends to the move has it given up before that.
    call.wait(Deadline.after(2 * (move.policy.timeout_s + GRACE_S)))
    if call.error is not None:
        _put_back(domain, swap, listener, call.error)
        raise call.error
    moved = move.target.hypervisor.find(domain.uuid)
    if moved is None:
        raise HostError(call.tried, host=move.target.host.name, said="the guest is not there")
    if swap.into is not None:
        plug_in(moved, swap.into, listener)


def _put_back(domain: Domain, swap: Swap, listener: Listener, why: Exception) -> None:
    if swap.out is None or domain.state() != "running":
        return
    try:
        plug_in(domain, swap.out, listener)
    except HostError as error:
        said = f"{error.said}; it was taken out for a move that failed: {why}"
        raise HostError(error.tried, host=error.host, said=said) from error


def _attend(
    move: Move, call: BackgroundCall, listener: Listener, phases: PhaseTracker, orders: _Orders
) -> None:
    """Act on phases, passes and the time limit until the call has ended."""
    policy, source = move.policy, move.source.host.name
    call.then(lambda: listener.add(_ended(source)))
    deadline = Deadline.after(policy.timeout_s)
    since = orders.since
    overdue = False
    while True:
        event = listener.wait(lambda _event: True, deadline, since)
        if event is None:
            if orders.aborted and overdue:
                return  # even the grace has passed: the holders will tell
            if overdue:
                orders.abort()  # what the policy wanted did not end it either
            else:
                orders.time_is_up(policy)
            overdue = True
            deadline = Deadline.after(GRACE_S if orders.aborted else policy.timeout_s + GRACE_S)
            continue
        since += 1
        if event.name == "call-ended":
            return
        phases.feed(event)
        if _postcopy_is_due(event, policy, source):
            orders.postcopy()


def _postcopy_is_due(event: Event, policy: Policy, source: str) -> bool:
    """When the pass after the wanted one begins."""
    return (
        policy.method == "postcopy"
        and event.host == source
        and pass_of(event) == policy.postcopy_after_pass
    )


def _ended(source: str) -> Event:
    return Event(at_ns=now_ns(), source="controller", host=source, name="call-ended")


def _outcome(
    ended: MigrateCall, held: tuple[str, ...], move: Move, postcopy: PostcopyEnd | None
) -> Outcome:
    if postcopy == "stuck":
        return "recoverable"
    if not held:
        return "lost"
    went_on = ended.lost or postcopy == "completed"
    succeeded = ended.call.ended and (ended.call.error is None or went_on)
    if succeeded and held == (move.target.host.name,):
        return "completed"
    gave_up = ended.aborted and ended.call.ended and held == (move.source.host.name,)
    return "aborted" if gave_up else "failed"


def _problem(call: BackgroundCall, move: Move) -> Problem | None:
    host = move.source.host.name
    if not call.ended:
        return Problem(tried=call.tried, host=host, said="libvirt's call did not end")
    error = call.error
    if error is None:
        return None
    if isinstance(error, LabError):
        remedy = error.remedy or refusal_remedy(error.said)
        return Problem(tried=error.tried, host=error.host, said=error.said, remedy=remedy)
    return Problem(tried=call.tried, host=host, said=str(error), remedy=refusal_remedy(str(error)))


def _reported(
    listener: Listener, since: int, source: str, call: BackgroundCall
) -> tuple[ReportedFigures, tuple[str, ...]]:
    """libvirt's account of the job, as the source tells it when the job has ended; and why it can't
    be read, if it makes no sense.

    The event comes over another connection than the end of the call, so it may come later; of a
    job that failed there is none.
    """
    succeeded = call.ended and call.error is None
    ended = listener.wait(
        lambda event: event.name == "job-completed" and event.host == source,
        Deadline.after(ACCOUNT_S if succeeded else 0),
        since,
    )
    if ended is None:
        return ReportedFigures(), ()
    try:
        job = JOB.of(ended.data, "read libvirt's account of the job", host=source)
    except MalformedError as error:
        return ReportedFigures(), (f"not measured: {error}",)
    figures = ReportedFigures(
        downtime_ms=job.downtime,
        total_ms=job.time_elapsed,
        setup_ms=job.setup_time,
        transferred_bytes=job.data_processed,
        iterations=job.memory_iteration,
    )
    return figures, ()
