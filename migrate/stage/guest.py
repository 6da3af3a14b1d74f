"""The guest, for who writes a test: run something in it, stop it, find it."""

from __future__ import annotations

from migrate.clock import Deadline, until
from migrate.errors import GuestError, quoted
from migrate.guest.commands import CommandResult, run_command
from migrate.guest.lifecycle import holders
from migrate.migration.hop import follow
from migrate.recorder.base import Rig

COMMAND_S = 10.0
"""For a command, if its test does not say; times the lab's patience, as all timeouts here."""
UNTIL_S = 30.0
AGAIN_S = 0.2
"""Between two tries of a command that has not succeeded yet."""


class Guest:
    """The guest of a stage, wherever it runs now."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig

    # --- a command in it ---

    def run(self, command: str, timeout_s: float = COMMAND_S) -> CommandResult:
        """Run a command by the guest's shell to its end, however that is.

        GuestError if it can't be run, is not over in time, or writes more than 64 KiB: see
        :func:`migrate.guest.commands.run_command`.
        """
        return self._run(command, self._rig.env.deadline(timeout_s))

    def succeed(self, command: str, timeout_s: float = COMMAND_S) -> str:
        """Run a command that has to end with 0; what it wrote to its standard output."""
        result = self.run(command, timeout_s)
        if result.status != 0:
            raise self._error(f"run {quoted(command)} in the guest", result.said)
        return result.output

    def fail(self, command: str, timeout_s: float = COMMAND_S) -> CommandResult:
        """Run a command that has to end with another status than 0."""
        result = self.run(command, timeout_s)
        if result.status == 0:
            raise self._error(f"see {quoted(command)} fail in the guest", result.said)
        return result

    def until(self, command: str, timeout_s: float = UNTIL_S) -> str:
        """Run a command again and again until it ends with 0; what it wrote then."""
        deadline = self._rig.env.deadline(timeout_s)
        last: CommandResult | None = None

        def succeeds() -> bool:
            nonlocal last
            last = self._run(command, deadline)
            return last.status == 0

        if not until(succeeds, deadline, AGAIN_S) or last is None:
            said = f"after {timeout_s:g} s {last.said}" if last else ""
            raise self._error(f"wait until {quoted(command)} succeeds in the guest", said)
        return last.output

    def _run(self, command: str, deadline: Deadline) -> CommandResult:
        self._rig.env.check()
        if (state := self.state) != "running":
            tried, remedy = f"run {quoted(command)} in the guest", ""
            if state == "paused":
                remedy = "guest.resume()"
            raise GuestError(tried, host=self.host, said=f"it is {state}", remedy=remedy)
        return run_command(self._rig.traffic.guest, command, deadline)

    def _error(self, tried: str, said: str) -> GuestError:
        return GuestError(tried, host=self.host, said=said)

    # --- its processors ---

    @property
    def state(self) -> str:
        """``running``, ``paused``, ``gone`` or another word of libvirt's."""
        return self._rig.domain.state()

    def pause(self) -> None:
        """Stop its processors: an outage that no move has made."""
        self._rig.env.check()
        self._rig.domain.suspend()

    def resume(self) -> None:
        """Let them go on."""
        self._rig.env.check()
        self._rig.domain.resume()

    # --- where it is ---

    @property
    def host(self) -> str:
        """The name of the host on which it was last found."""
        return self._rig.domain.host

    @property
    def uuid(self) -> str:
        """By which ``virsh`` knows it."""
        return self._rig.domain.uuid

    def find(self) -> str:
        """Ask both hosts where it runs, and go on with it there: after a move by other hands.

        The host's name. GuestError if it runs nowhere, or on both.
        """
        rig = self._rig
        rig.env.check()
        names = holders(rig.pair, rig.domain.uuid)
        if len(names) != 1:
            said = "it runs nowhere" if not names else f"it runs on {' and on '.join(names)}"
            raise GuestError("find the guest", said=said)
        (host,) = (host for host in rig.pair if host.name == names[0])
        if host.name != rig.domain.host:
            follow(rig, host)
        return host.name
