"""Progress for people: one changing line on a terminal, plain lines elsewhere. Goes to stderr."""

from __future__ import annotations

import logging
import sys
import threading
import time
from typing import Protocol, TextIO

from migrate.errors import visible
from migrate.model import Attempt, PhaseName, Sample
from migrate.report.verdict_text import why_not_passed

EVERY_S = 1.0
"""Between two plain lines about the same move."""


class Reporter(Protocol):
    """Shows a person what goes on in a session."""

    level: int
    """Of the lines that are logged those are wanted that have this level of ``logging``, or more:
    INFO is progress, DEBUG details, too."""

    def say(self, text: str) -> None:
        """A line that was logged."""

    def say_wait(self, text: str) -> None:
        """A line about a wait: the next line may replace it."""

    def on_phase(self, phase: PhaseName) -> None:
        """What the migration is doing from now on."""

    def on_sample(self, sample: Sample) -> None:
        """How far a migration is."""


class Progress:
    """Says what is going on, with the seconds since the start."""

    def __init__(
        self, stream: TextIO | None = None, *, quiet: bool = False, verbose: bool = False
    ) -> None:
        self.level = logging.DEBUG if verbose else logging.INFO
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._terminal = self._stream.isatty()
        self._began = time.monotonic()
        self._last_sample = 0.0
        self._open_line = False
        self._writing = threading.Lock()
        self._phase: PhaseName | None = None

    def say(self, text: str) -> None:
        """A line that stays."""
        self._write(self._at_its_time(text), stays=True)

    def say_wait(self, text: str) -> None:
        """A line about a wait: on a terminal the next line replaces it."""
        self._write(self._at_its_time(text), stays=not self._terminal)

    def _at_its_time(self, text: str) -> str:
        return f"[{time.monotonic() - self._began:6.1f} s] {text}"

    def on_phase(self, phase: PhaseName) -> None:
        """What the migration is doing from now on."""
        self._phase = phase

    def on_sample(self, sample: Sample) -> None:
        """How far a migration is: a terminal sees each, a log one a second."""
        if sample.is_empty:
            return
        now = time.monotonic()
        if not self._terminal and now - self._last_sample < EVERY_S:
            return
        self._last_sample = now
        phase = f"{self._phase}, " if self._phase else ""
        self._write(f"{'':11}{phase}{describe(sample)}", stays=not self._terminal)

    def end_line(self) -> None:
        """End a line that would be replaced, so that what is written next begins a new one."""
        with self._writing:
            if self._open_line:
                self._stream.write("\n")
                self._stream.flush()
            self._open_line = False

    def _write(self, line: str, *, stays: bool) -> None:
        if self._quiet:
            return
        with self._writing:  # progress of a move and lines about waits come from other threads
            start = "\r\x1b[K" if self._open_line else ""
            self._stream.write(f"{start}{visible(line)}" + ("\n" if stays else ""))
            self._open_line = not stays
            self._stream.flush()


def outcome(attempt: Attempt) -> str:
    """How an attempt ended, the first reason why it did not pass, and that its machine was busy."""
    busy = "; the machine was busy" if attempt.machine and attempt.machine.busy else ""
    if attempt.passed:
        return f"{attempt.outcome}: pass{busy}"
    if attempt.void:
        return f"{attempt.outcome}: VOID ({attempt.void_reason})"
    first, *others = why_not_passed(attempt)
    more = f" (and {len(others)} more)" if others else ""
    return f"{attempt.outcome}: FAIL: {first}{more}{busy}"


def describe(sample: Sample) -> str:
    """Iteration, remaining, transferred, rate: what is known of them."""
    known = {
        "iteration": sample.iteration,
        "remaining": _mib(sample.remaining_bytes),
        "transferred": _mib(sample.transferred_bytes),
        "rate": None if sample.rate_bytes_s is None else f"{_mib(sample.rate_bytes_s)}/s",
    }
    return ", ".join(f"{name} {value}" for name, value in known.items() if value is not None)


def _mib(count: int | None) -> str | None:
    return None if count is None else f"{count / 2**20:.1f} MiB"
