"""Logging: progress for a person, details for who debugs, and the log of each run.

A module logs by ``logging.getLogger(__name__)``. INFO is progress: what a person waits for, one
short line each. DEBUG is a detail, shown by ``--verbose``. A run's ``run.log`` has both. Nothing is
shown or written unless a block of this module asks for it.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from migrate.clock import now_ns
from migrate.errors import visible

LOGGER = logging.getLogger("migrate")
"""All loggers of the package are below it."""
RUN_LOG = "run.log"
"""In a run folder."""
REMEMBERED = 200
"""Lines that are kept for a bug report."""
LONGEST = 1000
"""Letters of such a line."""
WAIT = {"is_wait": True}
"""``extra`` of a record about a wait: on a terminal the next line replaces it."""
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def shown(
    say: Callable[[str], None],
    level: int = logging.INFO,
    say_wait: Callable[[str], None] | None = None,
) -> Iterator[None]:
    """Hand each line of ``level`` and above to ``say`` while the block runs.

    Lines about a wait go to ``say_wait``, if it is given. What these functions raise is raised
    where the line was logged.
    """
    with _handled_by(_Display(say, level, say_wait or say)):
        yield


@contextmanager
def recorded() -> Iterator[RunLog]:
    """Keep all that is logged while the block runs; it is written once a file is named.

    An exception that ends the block is its last line.
    """
    run_log = RunLog()
    with _handled_by(run_log):
        try:
            yield run_log
        except BaseException as error:
            LOGGER.debug("ended by %s: %s", type(error).__name__, error)
            raise


_LAST: deque[str] = deque(maxlen=REMEMBERED)


@contextmanager
def remembered() -> Iterator[None]:
    """Keep the last lines of all that is logged while the block runs, for :func:`last_lines`."""
    _LAST.clear()
    with _handled_by(_Memory(logging.DEBUG)):
        yield


def last_lines() -> list[str]:
    """The end of the log, as far as it is remembered."""
    return list(_LAST)


class _Memory(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        text = self.format(record)[:LONGEST]
        _LAST.append(f"{now_ns() / 1e9:.3f} {record.levelname} {record.name}: {text}")


@contextmanager
def _handled_by(handler: logging.Handler) -> Iterator[None]:
    if not LOGGER.handlers:
        LOGGER.addHandler(_PRINTABLE)
    LOGGER.addHandler(handler)
    _set_level()
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        if LOGGER.handlers == [_PRINTABLE]:
            LOGGER.removeHandler(_PRINTABLE)
        _set_level()
        handler.close()


def _set_level() -> None:
    """Handlers choose what they take; without any, the application's own setting counts."""
    LOGGER.setLevel(logging.DEBUG if LOGGER.handlers else logging.NOTSET)


class _Printable(logging.Handler):
    """Comes first, and makes of what a record says text that any handler after it can write.

    That is also an application's own, or pytest's: its workers end at half of a surrogate pair,
    which a guest's console may have.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """See the class."""
        record.msg, record.args = visible(record.getMessage(), lines=True), None
        if record.exc_info and not record.exc_text:
            trace = logging.Formatter().formatException(record.exc_info)
            record.exc_text = visible(trace, lines=True)


_PRINTABLE = _Printable(logging.DEBUG)


class _Display(logging.Handler):
    """Lines for a person; details name the module that they come from."""

    def __init__(
        self, say: Callable[[str], None], level: int, say_wait: Callable[[str], None]
    ) -> None:
        super().__init__(level)
        self._say, self._say_wait = say, say_wait

    def emit(self, record: logging.LogRecord) -> None:
        """Say it."""
        text = self.format(record)
        say = self._say_wait if getattr(record, "is_wait", False) else self._say
        say(f"{record.name}: {text}" if record.levelno < logging.INFO else text)


class RunLog(logging.Handler):
    """One line a record: UTC, seconds on the axis of time, process, level, logger, message."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self._early: list[str] = []
        self._file: TextIO | None = None

    def write_to(self, path: Path) -> None:
        """Write what was kept to the end of ``path``, and all that comes. Raises OSError."""
        self.acquire()
        try:
            descriptor = os.open(path, _APPEND, 0o644)
            self._file = os.fdopen(descriptor, "a", encoding="utf-8")
            for line in self._early:
                self._write(line)
            self._early.clear()
        finally:
            self.release()

    def emit(self, record: logging.LogRecord) -> None:
        """Write it at once: the log of a run that is killed is whole up to its end."""
        at = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
        head = f"{at}Z {now_ns() / 1e9:.6f} {os.getpid()} {record.levelname} {record.name}"
        line = visible(f"{head}: {self.format(record)}") + "\n"
        if self._file is None:
            self._early.append(line)
        else:
            self._write(line)

    def _write(self, line: str) -> None:
        """A disk that is full ends no run for the sake of its log."""
        if self._file is not None:
            with suppress(OSError):
                self._file.write(line)
                self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
        super().close()
