"""Programs of this machine, and of whatever a prefix of their argument lists enters."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from migrate.clock import Deadline
from migrate.drivers.shell import Completed, piped, run
from migrate.lab.api import Programs


class HerePrograms:
    """This machine's; see :class:`migrate.lab.api.Programs`."""

    def run(
        self,
        argv: Sequence[str],
        deadline: Deadline,
        *,
        text: str | None = None,
        check: bool = True,
    ) -> Completed:
        """See Runs."""
        return run(argv, deadline, text=text, check=check)

    def piped(
        self, argv: Sequence[str], _deadline: Deadline
    ) -> AbstractContextManager[socket.socket]:
        """See Programs."""
        return piped(argv)


@dataclass(frozen=True, slots=True)
class Entered:
    """Others, each started by way of a prefix, e.g. ``ip netns exec NAME``."""

    programs: Programs
    prefix: Sequence[str]

    def run(
        self,
        argv: Sequence[str],
        deadline: Deadline,
        *,
        text: str | None = None,
        check: bool = True,
    ) -> Completed:
        """See Runs."""
        return self.programs.run([*self.prefix, *argv], deadline, text=text, check=check)

    def piped(
        self, argv: Sequence[str], deadline: Deadline
    ) -> AbstractContextManager[socket.socket]:
        """See Programs."""
        return self.programs.piped([*self.prefix, *argv], deadline)
