"""The end of a log on a host, however long it and its lines are, and whatever bytes are in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from migrate.clock import Deadline
from migrate.drivers.shell import Completed
from migrate.formats.log_lines import last_lines

if TYPE_CHECKING:
    from migrate.lab.api import Runs

TAIL_BYTES = 4 << 20
"""Of a log that are read."""


def read_tail(host: Runs, path: str, lines: int, deadline: Deadline) -> Completed:
    """What the host says: status 0 and the last lines, each cut (formats.log_lines), or why the
    log can't be read. Raises HostError where the host can't be asked."""
    done = host.run(["tail", f"--bytes={TAIL_BYTES}", path], deadline, check=False)
    # A log that is longer begins in the middle of a line.
    whole = len(done.out.encode()) < TAIL_BYTES
    return Completed(done.argv, done.status, last_lines(done.out, lines, whole=whole), done.err)
