"""Somebody at a terminal: a program is started there, read, typed to, and its window is resized."""

from __future__ import annotations

import os
import select
import subprocess
import termios
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from migrate.clock import Deadline
from migrate.drivers.terminal import AT_TERMINAL
from selftests.command_line import PATIENCE_S
from selftests.helpers import ROOT

SIZE = (37, 91)
"""Rows and columns."""


class Keyboard:
    """A program that leads a session at a terminal of its own; ``screen`` is all that it showed."""

    def __init__(self, argv: Sequence[str], size: tuple[int, int]) -> None:
        self.screen = ""
        self._ours, self._theirs = os.openpty()
        self.resize(size)
        ends = self._theirs
        self._process = subprocess.Popen(
            [*AT_TERMINAL, *argv], stdin=ends, stdout=ends, stderr=ends, cwd=ROOT
        )

    @property
    def modes(self) -> list[object]:
        """What is done to keys: tcgetattr(3)."""
        return list(termios.tcgetattr(self._theirs))

    @property
    def name(self) -> str:
        """Of the terminal."""
        return os.ttyname(self._theirs)

    def resize(self, size: tuple[int, int]) -> None:
        """Whoever is in the foreground hears of it (SIGWINCH)."""
        termios.tcsetwinsize(self._ours, size)

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._ours, keys.encode())

    def await_text(self, text: str) -> None:
        """Read until the screen has it."""
        deadline = Deadline.after(PATIENCE_S)
        while text not in self.screen:
            assert self._read(deadline.left()), f"never showed {text!r}: {self.screen!r}"

    def wait(self) -> int:
        """Read to the program's end; its exit status."""
        deadline = Deadline.after(PATIENCE_S)
        while self._process.poll() is None:
            assert not deadline.passed(), f"it goes on: {self.screen!r}"
            self._read(0.05)
        while self._read(0):
            pass
        return self._process.returncode

    def _read(self, seconds: float) -> bool:
        if not select.select([self._ours], [], [], seconds)[0]:
            return False
        self.screen += os.read(self._ours, 1 << 16).decode(errors="replace")
        return True

    def close(self) -> None:
        """End it, if it goes on."""
        self._process.kill()
        self._process.wait()
        os.close(self._ours)
        os.close(self._theirs)


@contextmanager
def at_keyboard(argv: Sequence[str], size: tuple[int, int] = SIZE) -> Iterator[Keyboard]:
    """A program at a terminal while the block runs."""
    keyboard = Keyboard(argv, size)
    try:
        yield keyboard
    finally:
        keyboard.close()
