"""Why the log of a host's QEMU tells nothing of the guest's stop: what is missing differs."""

from __future__ import annotations

from migrate.clock import Deadline
from migrate.errors import HostError
from migrate.formats.log_events import unreadable_trace_point
from migrate.guest.domain_xml import QEMU_LOG
from migrate.lab.api import Runs
from migrate.lab.capabilities import No
from migrate.lab.trace_points import ask_trace_points

READ_S = 10.0
SHOWN = 160
"""Characters of a line that is told."""


def why_no_trace_points(host: Runs, log: str | None) -> str:
    """The reason, given what was read of the log of a QEMU that a guest has left or come to.

    ``log`` is None if it was not read. Raises nothing: a host that can't be asked is a reason.
    """
    try:
        if log is None:
            return f"the log of QEMU was not read: {_refusal(host)}"
        if line := unreadable_trace_point(log):
            return f"the trace points in QEMU's log are in a form that is not known: {line[:SHOWN]}"
        answer = ask_trace_points(host)
    except HostError as error:
        return f"the host can't be asked why: {error.said}"
    if isinstance(answer, No):
        return f"{answer.reason}; it takes {answer.remedy}"
    return "this QEMU has the trace points, and what was read of its log has none"


def _refusal(host: Runs) -> str:
    """What the host says of the log now."""
    tail = host.run(["tail", "--bytes=1", QEMU_LOG], Deadline.after(READ_S), check=False)
    return tail.err.strip() or f"it can be read by now, and could not be before ({QEMU_LOG})"
