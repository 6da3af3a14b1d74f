"""How a QEMU ended, by its log, which libvirt writes to as well.

libvirt logs ``<UTC>: starting up``, the command line with a backslash at the end of each line but
the last, and ``<UTC>: shutting down, reason=<virDomainShutoffReason>`` (qemu_process.c). What
stands between is QEMU's: with ``-msg timestamp=on`` a line begins with UTC in ISO 8601; of an
assertion or an abort it does not.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from migrate.formats.log_lines import cut
from migrate.model import QemuEnd

BY_ITSELF = ("crashed", "failed", "unknown")
"""Reasons by which nobody had asked for it; ``failed`` is also what libvirt does to a QEMU whose
incoming migration fails, by SIGTERM, which QEMU logs. So ``failed`` counts only if QEMU logged
something earlier, or nothing at all: then it had ended before libvirt sent the signal."""
LINES, LETTERS = 4, 600
"""Of the last words."""
BEFORE = timedelta(seconds=10)
"""A line that is so much older than the end is not of the end."""

_START = ": starting up "
_DOWN = re.compile(
    r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3})\+0000: shutting down, reason=([\w-]+)"
)
_STAMP = re.compile(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,6})Z ")
_SIGNAL = re.compile(r"terminating on signal (\d+)(?: from pid (.*))?$")
_ASSERTION = re.compile(r"\bAssertion [`'].*failed|^\*\*$|ERROR:.*assertion failed|\bBUG: ")
"""Of assert(3), and of GLib's g_assert()."""
_NOISE = re.compile(
    r"vmstate_downtime_|^char device redirected to|\bwarning: |^\d+@\d+\.\d+:"
    r"|^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}\+0000: "
)
"""Trace points, warnings of the start, and what libvirt writes: of taints, and of a migration."""


def qemu_end(log: str, host: str) -> QemuEnd | None:
    """The end of the last QEMU in ``log``; None: it goes on, or it ended as it was asked to."""
    lines = _last_run([cut(line) for line in log.splitlines()])
    number = next((n for n, line in enumerate(lines) if _DOWN.match(line)), None)
    down = _DOWN.match(lines[number]) if number is not None else None
    if number is None or down is None or down[2] not in BY_ITSELF:
        return None
    words = _last_words(lines[:number], _moment(down[1]))
    ended_by_libvirt = any(map(_SIGNAL.search, lines[number:]))
    if down[2] == "failed" and not words and ended_by_libvirt:
        return None
    signals = [match for line in words if (match := _SIGNAL.search(line))]
    how = f"signal {signals[-1][1]}" if signals else f"by libvirt: {down[2]}"
    said = " / ".join(_assertion_first(words))
    return QemuEnd(host=host, how=how, last_words=said[:LETTERS])


def _assertion_first(words: list[str]) -> list[str]:
    """The last lines, an assertion that failed before all others: it is why QEMU ended."""
    assertion = next((line for line in words if _ASSERTION.search(line)), None)
    last = [line for line in words[-LINES:] if line != assertion]
    return last if assertion is None else [assertion, *last[1 - LINES :]]


def _last_run(lines: list[str]) -> list[str]:
    """What follows the last command line."""
    starts = [number for number, line in enumerate(lines) if _START in line]
    if not starts:
        return lines
    after = starts[-1] + 1
    while after < len(lines) and lines[after].endswith("\\"):
        after += 1
    return lines[after + 1 :]


def _moment(stamp: str) -> datetime | None:
    """Of a line; None: there is no such day or hour."""
    try:
        return datetime.fromisoformat(f"{stamp}+00:00")
    except ValueError:
        return None


def _last_words(lines: list[str], end: datetime | None) -> list[str]:
    """What QEMU said about then, without stamps: since the last line that is older."""
    words: list[str] = []
    for line in lines:
        stamp = _STAMP.match(line)
        at = _moment(stamp[1]) if stamp else None
        if at and end and end - at > BEFORE:
            words.clear()
        elif not _NOISE.search(line) and line.strip():
            words.append(line[stamp.end() :] if stamp else line.strip())
    return words
