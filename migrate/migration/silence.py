"""A guest that falls silent after its move, and a move that can't be made: what was recorded until
then is kept, and judged."""

from __future__ import annotations

from migrate.clock import Deadline, now_ns
from migrate.errors import LabError
from migrate.guest.domain_xml import CONSOLE
from migrate.guest.probe_channel import BROKE, NONSENSE
from migrate.lab.api import Host
from migrate.lab.log_tail import log_tail
from migrate.model import Problem
from migrate.model.recording import HopRecording, MoveResult, Recording
from migrate.recorder.base import Rig

READ_S = 10.0
REMEDY = "its console and QEMU's log are in the attempt's folder, below logs/"
CONSOLE_LINES = 200
WORDS = 400
"""Characters of a console that a sentence quotes."""


def silent_hop(rig: Rig, recording: HopRecording, why: str) -> HopRecording:
    """The hop's recording, for a guest whose probe answers no more: the move has failed."""
    result = recording.result
    where = result.held_by[0] if len(result.held_by) == 1 else ""
    fell_silent = not why.startswith((NONSENSE, BROKE))
    then = "its probe stopped answering" if fell_silent else "its probe sent an invalid answer"
    moved = f"the move to {recording.target} {result.outcome}, then {then}"
    said = f"{moved}: {why}"
    for host in rig.pair:
        if fell_silent and host.name == where and (words := _last_words(host)):
            said = f"{moved}; its console ends with: {words}"
    problem = Problem(tried="reach the guest", host=where, said=said, remedy=REMEDY)
    failed = {"outcome": "failed", "error": result.error or problem}
    return recording.model_copy(
        update={
            "result": result.model_copy(update=failed),
            "silent": True,
            "notes": (*recording.notes, why),
        }
    )


def fell_silent_at_last(recording: Recording) -> bool:
    """Whether a guest that a host has did not answer when its logs were read back, and had before:
    all that is known of it are its receipts."""
    last = recording.hops[-1]
    return recording.traffic.from_receipts and bool(last.result.held_by) and not last.silent


def described(error: Exception) -> str:
    """An error in words; one that is not of our tree with its type."""
    return str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {error}"


def hop_not_made(rig: Rig, begin_ns: int, error: Exception) -> HopRecording:
    """A move that could not be asked for, or not be followed: it tells nothing of what was to be
    tested."""
    source, target = rig.direction()
    problem = Problem(tried=f"move the guest to {target.name}", said=described(error))
    if isinstance(error, LabError):
        problem = Problem(tried=error.tried, host=error.host, said=error.said, remedy=error.remedy)
    held_by = rig.domain.host
    return HopRecording(
        source=source.name,
        target=target.name,
        result=MoveResult(outcome="failed", held_by=(held_by,), error=problem),
        begin_ns=begin_ns,
        end_ns=now_ns(),
        void=(f"the move to {target.name} was not made: {described(error)}",),
    )


def _last_words(host: Host) -> str:
    """The end of the guest's console; empty if it can't be read."""
    try:
        return console_end(log_tail(host, CONSOLE, Deadline.after(READ_S), CONSOLE_LINES) or "")
    except LabError:
        return ""


def console_end(text: str) -> str:
    """The last lines of a console in one: a panic's first one and the last, or the last three."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    panic = next((line for line in lines if "Kernel panic" in line), None)
    if panic is None:
        return " / ".join(lines[-3:])[-WORDS:]
    return " / ".join(line[: WORDS // 2] for line in dict.fromkeys((panic, lines[-1])))
