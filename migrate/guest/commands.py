"""A command in the guest: by its probe, with a deadline, to its end or a clear failure.

It costs the guest time like any other program in it: what is measured meanwhile has it in.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from migrate.clock import Deadline
from migrate.errors import GuestError, quoted
from migrate.guest.answers import MOST_OUTPUT, Ran
from migrate.guest.probe import Probe

MOST_COMMAND = 2047
"""Bytes of a command (``guest-images/README.md``)."""
MOST_LINE = 3900
"""Bytes of a command as JSON: a request has 4095."""
WAIT_MS = 1000
"""A probe waits at most so long for a command before it answers that it goes on."""
TAIL = 500
"""Characters of an output that an error quotes, the last ones."""
BY_SIGNAL = 128
"""A shell's status of a command that a signal ended is so much more than its number."""


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command ended, and what it wrote."""

    command: str
    status: int
    """Its exit status; 128 and the signal's number if one ended it, as a shell has it."""
    output: str
    """Of its standard output."""
    errors: str
    """Of its standard error."""

    @property
    def said(self) -> str:
        """The last words of it, for an error."""
        words = (self.errors.strip() or self.output.strip() or "it said nothing")[-TAIL:]
        return f"it ended with {self.status}: {words}"


def run_command(probe: Probe, command: str, deadline: Deadline) -> CommandResult:
    """Run it by the guest's shell, in a process group of its own, with no input.

    It has ended when the shell has: what that left in the background goes on, with nowhere to write
    to. Raises GuestError if it can't be started, has not ended by the deadline (it is killed then),
    or wrote more than :data:`~migrate.guest.answers.MOST_OUTPUT` bytes to an output.
    """
    tried = f"run {quoted(command)} in the guest"
    _check(tried, command, probe.where)
    try:
        probe.call("run.start", command=command)
    except GuestError as error:
        raise GuestError(
            tried,
            host=probe.where,
            said=f"{error.tried}: {error.said}",
            remedy=error.remedy
            or "it takes a guest with /bin/sh or BusyBox, and this version's "
            "probe: build the image anew",
        ) from error
    while not (answer := _wait(probe, deadline)).ended:
        if deadline.passed():
            probe.call("run.kill")
            words = _result(command, _wait(probe, deadline)).said
            raise GuestError(
                tried,
                host=probe.where,
                said=f"it took too long, and was killed; {words}",
                remedy="a longer timeout_s",
            )
    longest = max(answer.out_bytes, answer.errors_bytes)
    if longest > MOST_OUTPUT:
        raise GuestError(
            tried,
            host=probe.where,
            said=f"it wrote {longest} bytes; at most {MOST_OUTPUT} of an output come back",
            remedy="pipe it to tail -c 60000, or to a file in the guest",
        )
    return _result(command, answer)


def _check(tried: str, command: str, where: str) -> None:
    wrong = (
        "it is empty"
        if not command
        else "it has what is not ASCII"
        if not command.isascii() or "\0" in command
        else f"it is longer than {MOST_COMMAND} bytes"
        if len(command) > MOST_COMMAND or len(json.dumps(command)) > MOST_LINE
        else ""
    )
    if wrong:
        remedy = "a shorter command in ASCII; a longer script goes in parts to a file in the guest"
        raise GuestError(tried, host=where, said=wrong, remedy=remedy)


def _wait(probe: Probe, deadline: Deadline) -> Ran:
    """What there is to be told of it when it has ended, or a while later."""
    return probe.ask("run.wait", Ran, ms=min(WAIT_MS, max(0, int(deadline.left() * 1000))))


def _result(command: str, answer: Ran) -> CommandResult:
    return CommandResult(
        command,
        BY_SIGNAL + answer.signal if answer.signal else answer.status,
        answer.out.decode(errors="replace"),
        answer.errors.decode(errors="replace"),
    )
