"""The standard streams of a command: all there, and what can't be written to them is an error of
ours."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from migrate.errors import MeasurementError


class OutputError(MeasurementError):
    """Standard output does not take what is printed."""


class ClosedOutputError(OutputError):
    """Whoever was to read standard output has ended, as in ``| head``."""


class _Output(io.TextIOWrapper):
    """Letters that the encoding lacks are shown as escapes. Raises OutputError."""

    def write(self, text: str) -> int:
        """See TextIOWrapper."""
        with _as_output_error():
            return super().write(text)

    def flush(self) -> None:
        """See TextIOWrapper."""
        with _as_output_error():
            super().flush()


@contextmanager
def _as_output_error() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kind = ClosedOutputError if isinstance(error, BrokenPipeError) else OutputError
        raise kind(
            "print to standard output", said=str(error), remedy="send it elsewhere"
        ) from error


def have_streams() -> None:
    """All three are there: else the next file that is opened would be taken for one."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            point_nowhere(number)
    sys.stdin = sys.stdin or os.fdopen(0)
    encoding = sys.stdout.encoding if sys.stdout else "utf-8"
    sys.stdout = _Output(
        io.BufferedWriter(io.FileIO(1, "w", closefd=False)),
        encoding=encoding,
        errors="backslashreplace",
        line_buffering=os.isatty(1),
    )
    sys.stderr = sys.stderr or os.fdopen(2, "w", errors="backslashreplace")


def point_nowhere(number: int) -> None:
    """Make a file descriptor the null device's."""
    null = os.open(os.devnull, os.O_RDWR)
    if null != number:
        os.dup2(null, number)
        os.close(null)
