"""The end of a log on a host, of which a guest may have written as much as it liked: however long
it and its lines are, and whatever bytes are in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from migrate.formats.log_lines import last_lines

if TYPE_CHECKING:
    from migrate.clock import Deadline
    from migrate.lab.api import Runs

MOST_BYTES = 2 << 20
"""Of a log that are read."""
TAIL = """
[ -e "$1" ]
for file in "$1.0" "$1"; do
    [ ! -e "$file" ] || tail --bytes="$2" "$file"
done | tail --bytes="$2"
"""
"""virtlogd renames a log that is full: the one before is read, too (virtlogd.conf, max_size)."""


def log_tail(host: Runs, path: str, deadline: Deadline, lines: int) -> str | None:
    """The last lines, of at most :data:`MOST_BYTES` in all, each cut where it is longer than any
    that is written there (formats.log_lines); None: there is no such log.

    Raises HostError for a host that can't be reached.
    """
    words = ["sh", "-ec", TAIL, "sh", path, str(MOST_BYTES)]
    done = host.run(words, deadline, check=False)
    if done.status != 0:
        return None
    # A log that is longer begins in the middle of a line.
    return last_lines(done.out, lines, whole=len(done.out.encode()) < MOST_BYTES)
