"""The phases of a move, read from the events of QEMU, libvirt, the fabric and the probe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from migrate.formats.qemu_migration import (
    GAVE_UP,
    INTERRUPTED,
    POSTCOPY,
    STATUS_PHASES,
    pass_of,
    status_of,
)
from migrate.model import STANDBY_DRIVER, Event, Part, Phase, PhaseName

SPANS: Mapping[PhaseName, str] = {
    "setup": "the source's status of this name, until the next one",
    "wait-unplug": (
        "the source's status of this name: QEMU waits for the guest to unplug the primary"
    ),
    "standby": "the end of `wait-unplug` to the begin of `replug`: the standby carries the traffic",
    "precopy": "`precopy(n)`: pass n over the memory",
    "pre-switchover": "the source's status of this name, until the next one",
    "stopped": "the source's STOP to the target's RESUME, or the source's own if the move failed",
    "device": "the source's status of this name, until the next one, at most to the resume",
    "postcopy-device": (
        "the source's status of this name: it has sent the devices and waits for the target to"
        " load them (QEMU 11.1 has it, 10.0 not)"
    ),
    "postcopy": "the source's status `postcopy-active`, until the next one",
    "postcopy-paused": (
        "the source's status of this name, or the target's if the source's QEMU is gone, until the"
        " next one or to the end: the connection is lost"
    ),
    "postcopy-recover-setup": "as `postcopy-paused`: the recovery is being set up",
    "postcopy-recover": "as `postcopy-paused`: the recovery is under way",
    "colo": "the source's status of this name, until the next one",
    "cancelling": "the source's status of this name, until the next one",
    "failing": "the source's status of this name, until the next one (QEMU 11.1 has it, 10.0 not)",
    "resumed": "the resume to the first announcement",
    "announce": "the first announcement to the last",
    "replug": (
        "the target negotiates failover, or libvirt sends *device-added*, not before the resume,"
        " until the primary carries the traffic again"
    ),
    "settled": "everything after that",
}
"""What each phase spans, for the documentation."""


def phase_label(phase: Phase) -> str:
    """A phase's name as people read it: ``precopy(2)``, ``stopped``."""
    return f"{phase.name}({phase.number})" if phase.number else phase.name


_PARTS: tuple[tuple[Part, frozenset[str]], ...] = (
    ("switchover", frozenset({"stopped", "pre-switchover", "device", "postcopy-device"})),
    ("start", frozenset({"setup", "wait-unplug", "precopy"})),
    ("tail", frozenset({*POSTCOPY, "colo", "resumed", "announce", "replug", "settled"})),
    # It spans the stop, so it decides nothing where there is another phase; alone it is a move
    # that was given up while the primary was on its way out.
    ("start", frozenset({"standby", "cancelling", "failing"})),
)
"""In the order in which they win."""


def move_parts(moved: Iterable[Phase]) -> frozenset[Part]:
    """The parts that a move had: one that was given up before the stop has no switchover."""
    names = {phase.name for phase in moved}
    return frozenset(part for part, members in _PARTS if names & members)


def gap_part(touched: Iterable[Phase]) -> Part:
    """The part of the move that a gap with these phases is in: the stop wins, then before it.

    An interface that was taken out before the move and put back after it makes one gap, which lies
    over all three: it is of the switchover.
    """
    names = {phase.name for phase in touched}
    return next((part for part, members in _PARTS if names & members), "none")


def phases(events: Iterable[Event], source: str, target: str, end_ns: int) -> tuple[Phase, ...]:
    """The phases of one move, by begin; of an attempt of several hops, ask hop by hop.

    Read from QEMU's own events (MIGRATION, MIGRATION_PASS, STOP, RESUME, FAILOVER_NEGOTIATED), the
    fabric's ``announce``, and what the probe says carries the traffic; the statuses are the
    source's, see :func:`_statuses`.

    - ``setup``, ``wait-unplug``, ``pre-switchover``, ``device``, ``postcopy``, and all else that
      QEMU has a status for (STATUS_PHASES): from their status to the next one; ``device`` and
      ``postcopy-device`` at most to the resume, a post-copy that is interrupted to ``end_ns`` if no
      other status came. ``setup`` begins with the controller's ``detached`` if the interface was
      taken out before.
    - ``precopy(n)``: from pass n to the next pass or the end of pre-copy; without passes one
      stretch with no number.
    - ``stopped``: from the source's STOP to the first RESUME on the target after it, else to the
      source's own. The phases between lie inside it; phases may overlap.
    - ``resumed``: from that RESUME to the first announcement, or to ``end_ns`` if there was none.
    - ``announce``: from the first announcement after the resume to the last.
    - ``standby``: from the end of wait-unplug (the primary is unplugged) to the begin of replug; to
      ``end_ns`` if there was none, or if the probe reports carriers and no primary any more.
    - ``replug``: see :func:`_replug`; for an interface that was taken out, from the resume (or from
      the status that ended the move) to the controller's ``attached``.
    - ``settled``: after the last announcement and the last status, unless a post-copy is
      interrupted then; without a stop, from the status ``failed`` or ``cancelled`` to ``end_ns``.

    An event that is missing makes no phase rather than a wrong one.
    """
    ordered = sorted(events, key=lambda event: event.at_ns)
    qemu = [event for event in ordered if event.source == "qemu"]
    source_events = [event for event in qemu if event.host == source]
    out = next((event for event in ordered if event.name == "detached"), None)
    statuses = _from(out, _statuses(qemu, source))
    end = Event(at_ns=end_ns, source="controller", host="", name="end")
    stop, resume = switchover(qemu, source, target)
    gave_up = statuses[-1] if statuses and status_of(statuses[-1]) in GAVE_UP else None
    back = resume or (None if stop else gave_up)
    phases = [*_by_status(statuses, resume, end), *_precopy(source_events, statuses, stop)]
    if stop and resume:
        phases.append(_phase("stopped", stop, resume))
    if resume:
        phases += _after_resume(ordered, statuses, resume, end)
    elif not stop and gave_up:
        phases.append(_phase("settled", gave_up, end))
    if out:
        phases += _reattached(ordered, out, statuses, back)
    elif back:
        phases += _failover(ordered, statuses, back, end)
    return tuple(
        sorted(
            (phase for phase in phases if phase.begin_ns <= phase.end_ns),
            key=lambda phase: phase.begin_ns,
        )
    )


def _phase(name: PhaseName, begin: Event, end: Event, number: int = 0) -> Phase:
    error = max(begin.off_ns, end.off_ns)
    return Phase(name=name, number=number, begin_ns=begin.at_ns, end_ns=end.at_ns, error_ns=error)


def switchover(
    events: Sequence[Event], source: str, target: str
) -> tuple[Event | None, Event | None]:
    """The source's last STOP before the guest ran again, and the RESUME that made it run."""
    stops = [event for event in events if event.host == source and event.name == "STOP"]
    resumes = [event for event in events if event.name == "RESUME"]
    if not stops:
        return None, None
    on_target = [e for e in resumes if e.host == target and e.at_ns >= stops[0].at_ns]
    if on_target:
        before = [event for event in stops if event.at_ns <= on_target[0].at_ns]
        return before[-1], on_target[0]
    again = [e for e in resumes if e.host == source and e.at_ns >= stops[-1].at_ns]
    return stops[-1], again[0] if again else None


def _after_resume(
    ordered: Sequence[Event], statuses: Sequence[Event], resume: Event, end: Event
) -> list[Phase]:
    heard = [e for e in ordered if e.name == "announce" and e.at_ns >= resume.at_ns]
    if not heard:
        return [_phase("resumed", resume, end)]
    last = max([heard[-1], *statuses], key=_at)
    phases = [_phase("resumed", resume, heard[0]), _phase("announce", heard[0], heard[-1])]
    if not _interrupted(statuses):
        phases.append(_phase("settled", last, end))
    return phases


def _statuses(qemu: Sequence[Event], source: str) -> list[Event]:
    """The source's MIGRATION events, in order.

    A source whose QEMU is gone does not say that its post-copy is interrupted: the target does.
    """
    migration = [event for event in qemu if event.name == "MIGRATION"]
    own = [event for event in migration if event.host == source]
    if not own or _interrupted(own):
        return own
    others = [e for e in migration if e.host != source and e.at_ns > own[-1].at_ns]
    return [*own, *(event for event in others if status_of(event) in INTERRUPTED)]


def _interrupted(statuses: Sequence[Event]) -> bool:
    """Whether the last word is that a post-copy waits for its recovery."""
    return bool(statuses) and status_of(statuses[-1]) in INTERRUPTED


def _by_status(statuses: Sequence[Event], resume: Event | None, end: Event) -> list[Phase]:
    phases = []
    for event, following in pairwise([*statuses, *([end] if _interrupted(statuses) else [])]):
        name = STATUS_PHASES.get(status_of(event))
        if name is None or name == "precopy":  # which has passes
            continue
        ends = [following]
        if name in ("device", "postcopy-device") and resume and resume.at_ns >= event.at_ns:
            ends.append(resume)
        phases.append(_phase(name, event, min(ends, key=lambda end: end.at_ns)))
    return phases


def _precopy(
    source_events: Sequence[Event], statuses: Sequence[Event], stop: Event | None
) -> list[Phase]:
    """Pass 1 may be announced while still in setup: it begins with the status ``active``."""
    active = next((event for event in statuses if status_of(event) == "active"), None)
    if active is None:
        return []
    enders = [event for event in statuses if event.at_ns > active.at_ns]
    if stop and stop.at_ns > active.at_ns:
        enders.append(stop)
    if not enders:
        return []
    last = min(enders, key=lambda event: event.at_ns)
    passes = [event for event in source_events if pass_of(event) and event.at_ns < last.at_ns]
    if not passes:
        return [_phase("precopy", active, last)]
    phases = []
    for event, following in pairwise([*passes, last]):
        begin = max(event, active, key=lambda candidate: candidate.at_ns)
        phases.append(_phase("precopy", begin, following, pass_of(event)))
    return phases


# --- phases of an interface that goes and comes back --------------------------------------------


def _at(event: Event) -> int:
    return event.at_ns


def _first(events: Iterable[Event], since: Event, *names: str) -> Event | None:
    return next((e for e in events if e.name in names and e.at_ns >= since.at_ns), None)


def _failover(
    ordered: Sequence[Event], statuses: Sequence[Event], back: Event, end: Event
) -> list[Phase]:
    """``standby`` and ``replug``; ``back`` is the resume, or the status by which the guest stayed.

    Where the probe says what carries the traffic it is believed: a primary that never carried any
    again did not come back, whatever was plugged in.
    """
    asked, unplugged = next(
        ((a, b) for a, b in pairwise(statuses) if status_of(a) == "wait-unplug"), (None, None)
    )
    carriers = [event for event in ordered if event.name == "carried-by"]
    begin = _replug(ordered, statuses, back, unplugged)
    primary = _primary(carriers, asked, begin or back)
    phases = []
    if unplugged:
        ends = begin if primary or not carriers else None
        phases.append(_phase("standby", unplugged, ends or primary or end))
    if begin and not carriers:
        primary = _first((e for e in ordered if e.host == back.host), begin, "device-added")
    if begin and primary and primary.at_ns > begin.at_ns:
        phases.append(_phase("replug", begin, primary))
    return phases


def _replug(
    ordered: Sequence[Event], statuses: Sequence[Event], back: Event, unplugged: Event | None
) -> Event | None:
    """Where the primary's coming back begins.

    With the FAILOVER_NEGOTIATED of the host on which the guest runs on, or libvirt's
    ``device-added`` there, whichever is first; on the source QEMU says neither, and plugs the
    primary in again with the status that ended the move. The target negotiates while it loads the
    guest's state: the begin is laid on the resume then, since nothing can come to a guest that
    stands still. It ends with :func:`_primary`; without any word of the probe with
    ``device-added``, and where that is its begin, too, its length is not known.
    """
    names = ("FAILOVER_NEGOTIATED", *(("device-added",) if unplugged else ()))
    signs = [event for event in ordered if event.host == back.host and event.name in names]
    if unplugged:
        signs += [e for e in statuses if e.host == back.host and status_of(e) in GAVE_UP]
        signs = [event for event in signs if event.at_ns >= unplugged.at_ns]
    sign = min(signs, key=_at, default=None)
    return max(sign, back, key=_at) if sign else None


def _primary(carriers: Sequence[Event], asked: Event | None, since: Event) -> Event | None:
    """The first event of the probe from ``since`` on that says that the primary carries again.

    Its driver is not virtio_net; or, for a primary that is a virtio device itself, it is another
    device than the one that took over when QEMU ``asked`` for the unplug.
    """
    over = [e for e in carriers if asked and asked.at_ns <= e.at_ns < since.at_ns]
    standby = {e.data.get("device") for e in over[-1:] if not primary_carries(e)}
    for event in carriers:
        device = event.data.get("device")
        other = bool(standby and device) and device not in standby
        if event.at_ns >= since.at_ns and (other or primary_carries(event)):
            return event
    return None


def primary_carries(event: Event) -> bool:
    """Whether the probe says by this event that the primary carries the guest's traffic."""
    driver = str(event.data.get("driver", ""))
    return event.name == "carried-by" and driver not in ("", STANDBY_DRIVER)


def _from(out: Event | None, statuses: list[Event]) -> list[Event]:
    """Statuses of a move whose interface was taken out before: its setup begins there."""
    if out is None or not statuses or status_of(statuses[0]) != "setup":
        return statuses
    begin = statuses[0].model_copy(update={"at_ns": min(out.at_ns, statuses[0].at_ns)})
    return [begin, *statuses[1:]]


def _reattached(
    ordered: Sequence[Event], out: Event, statuses: Sequence[Event], back: Event | None
) -> list[Phase]:
    """From ``detached`` to ``attached``; a move that was refused at once has no other phase."""
    attached = _first(ordered, out, "attached")
    if attached is None:
        return []
    if not statuses:
        return [_phase("setup", out, attached)]
    return [_phase("replug", back, attached)] if back else []
