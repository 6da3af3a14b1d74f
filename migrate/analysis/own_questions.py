"""Whether a question of ours ended the guest, as far as what was recorded can tell.

The rule. A QEMU *ended by itself* if our monitor there broke off, or libvirt says that the guest
failed or crashed there, and QEMU had not said that somebody ended it (SHUTDOWN by a signal or by
``quit``); or if QEMU said that the guest shut down, was reset or panicked. Such an end is held
against the last question that we had put to that QEMU, if that was out when it ended, or was put
to it within :data:`MOMENTS_NS` before; but not if something else explains it that is on record
before: a fault of the case on that host, or at the target that QEMU had called the migration
failed itself (one that can't load what comes ends by itself). The end of a source whose guest has
left it is no end of the guest. Questions that libvirt asks of every guest that moves are none of
ours (:mod:`migrate.recorder.noted_monitor`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from migrate.analysis.hops import by_hop
from migrate.formats.qemu_migration import FAULT, QEMU_ENDED, QUESTION, status_of
from migrate.model import Event
from migrate.model.recording import HopRecording, Recording

MOMENTS_NS = 1_000_000_000
LOAD_FAILED = "load of migration failed"
"""A QEMU's last words that explain its end by the move (migration/migration.c)."""
_STOPPED_BY_ITSELF = (2, 5)
"""libvirt's VIR_DOMAIN_EVENT_STOPPED_CRASHED and _FAILED."""
_FROM_OUTSIDE = ("host-signal", "host-qmp-quit", "host-ui", "host-qmp-system-reset")
"""QEMU's ShutdownCause, where it is neither the guest nor an error (qapi/run-state.json)."""


class _End(NamedTuple):
    at_ns: int
    what: str


def void_by_question(recording: Recording) -> tuple[str, ...]:
    """Why the attempt is void, a sentence for each guest that a question of ours may have ended."""
    return tuple(
        reason
        for hop, events, _ in by_hop(recording)
        for host in (hop.source, hop.target)
        if (reason := _ended_by_question(hop, host, events))
    )


def _ended_by_question(hop: HopRecording, host: str, events: Sequence[Event]) -> str:
    end = min(_ends(hop, host, events), default=None)
    if end is None or _explained(hop, host, events, end):
        return ""
    asked = [e for e in events if _is(e, QUESTION, host) and e.at_ns <= end.at_ns]
    question = asked[-1] if asked else None
    if question is None:
        return ""
    answered_ns = question.data.get("answered_ns")
    out = answered_ns is None or answered_ns > end.at_ns
    since_ns = end.at_ns - question.at_ns
    if not out and since_ns > MOMENTS_NS:
        return ""
    commands = ", ".join(question.data["commands"])
    state = "was not answered" if out else "had been answered"
    return (
        f"{end.what} on {host} {since_ns / 1e6:.1f} ms after we asked {commands}, which {state}: "
        "our question may have ended it"
    )


def _ends(hop: HopRecording, host: str, events: Sequence[Event]) -> Iterator[_End]:
    """Signs that the guest's QEMU ended by itself there, or the guest did."""
    if host == hop.source and hop.target in hop.result.held_by:
        return  # the guest has left it
    runs_until_ns = hop.end_ns if host in hop.result.held_by else hop.begin_ns
    ours = [event for event in events if event.host == host and event.at_ns >= runs_until_ns]
    asked_to = any(_is_ended(event) and event.data["shutdown"] in _FROM_OUTSIDE for event in ours)
    for event in ours:
        reason = str(event.data.get("reason", "unknown"))
        if event.name == "SHUTDOWN" and reason not in _FROM_OUTSIDE:
            yield _End(event.at_ns, f"the guest ended ({reason})")
        elif not asked_to and (_is_ended(event) or _has_failed(event)):
            yield _End(event.at_ns, "QEMU ended")


def _is_ended(event: Event) -> bool:
    return (event.source, event.name) == ("controller", QEMU_ENDED)


def _has_failed(event: Event) -> bool:
    """Whether libvirt says that QEMU is gone, and that it had not been told to go."""
    stopped = (event.source, event.name) == ("libvirt", "stopped")
    return stopped and event.data.get("detail") in _STOPPED_BY_ITSELF


def _explained(hop: HopRecording, host: str, events: Sequence[Event], end: _End) -> bool:
    """Whether a fault of the case, or at the target the move's own failure, had come before."""
    before = [event for event in events if event.host == host and event.at_ns <= end.at_ns]
    if any(event.source == "controller" and event.name.startswith(FAULT) for event in before):
        return True
    if host != hop.target:
        return False
    error = hop.result.error
    failed = any(event.name == "MIGRATION" and status_of(event) == "failed" for event in before)
    return failed or (error is not None and LOAD_FAILED in error.said)


def _is(event: Event, name: str, host: str) -> bool:
    return (event.name, event.host) == (name, host)
