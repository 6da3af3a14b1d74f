"""The command line as its users start it: in a process group of its own, to its end or not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import click

from migrate.cli.main import cli
from migrate.clock import Deadline
from selftests.helpers import ROOT

PATIENCE_S = 100.0
"""For a command to say a line or to end: it would otherwise be waited for in vain."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended, and what it printed."""

    status: int
    out: str
    err: str


class Command:
    """``migrate-lab`` in a process group of its own, as a shell starts it."""

    def __init__(self, argv: Sequence[str], prefix: Sequence[str] = ()) -> None:
        self.err: list[str] = []
        self._changed = threading.Condition()
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "migrate.cli", *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            cwd=ROOT,
            process_group=0,
        )
        self._out: list[str] = []
        self._readers = [
            threading.Thread(target=self._read, args=(stream, into), daemon=True)
            for stream, into in (
                (self._process.stdout, self._out),
                (self._process.stderr, self.err),
            )
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: IO[str] | None, into: list[str]) -> None:
        assert stream is not None
        with stream:
            for line in stream:
                with self._changed:
                    into.append(line)
                    self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def await_line(self, text: str, times: int = 1) -> None:
        """Wait until so many lines on standard error have ``text``."""
        deadline = Deadline.after(PATIENCE_S)
        with self._changed:
            while sum(text in line for line in self.err) < times:
                ended = self._process.poll() is not None
                assert not ended, f"it ended before it said {text!r}: {''.join(self.err)}"
                assert self._changed.wait(deadline.left()), f"never said {text!r}: {self.err}"

    def file(self, path: Path) -> Path:
        """A file as the command sees it, which may have mounts of its own."""
        return Path(f"/proc/{self._process.pid}/root{path}")

    def kill(self) -> None:
        """``kill -9`` of the controller alone."""
        self._process.kill()

    def interrupt(self) -> None:
        """Ctrl-C: the terminal tells the whole process group."""
        os.killpg(self._process.pid, signal.SIGINT)

    def terminate(self) -> None:
        """SIGTERM to the controller, as a service manager does it."""
        self._process.terminate()

    def wait(self) -> Ended:
        """Wait for its end."""
        try:
            status = self._process.wait(PATIENCE_S)
        finally:
            self.end()
        return Ended(status, "".join(self._out), "".join(self.err))

    def end(self) -> None:
        """End it, if it goes on."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        for reader in self._readers:
            reader.join(PATIENCE_S)


@contextmanager
def started(*argv: object, prefix: Sequence[str] = ()) -> Iterator[Command]:
    """A command that goes on while the block runs."""
    command = Command([str(word) for word in argv], prefix)
    try:
        yield command
    finally:
        command.end()


Run = Callable[..., Ended]


def leaves(
    command: click.Command, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, by the words that lead to it."""
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from leaves(child, (*path, name))
    else:
        yield " ".join(path), command


LEAVES = dict(leaves(cli))
