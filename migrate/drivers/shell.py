"""The one door to other programs: argument lists in, what they said out, never past a deadline."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from migrate.clock import Deadline, now_ns
from migrate.errors import HostError

LOGGER = logging.getLogger(__name__)
LOGGED = 300
"""Letters of a command line that are logged at most: some are whole scripts."""


@dataclass(frozen=True, slots=True)
class Completed:
    """What a program said, and its exit status."""

    argv: tuple[str, ...]
    status: int
    out: str
    err: str


def run(
    argv: Sequence[str],
    deadline: Deadline,
    *,
    host: str = "",
    text: str | None = None,
    check: bool = True,
    remedy: str = "",
) -> Completed:
    """Run a program to its end; with ``check`` a status other than 0 is a :class:`HostError`.

    ``text`` is its standard input (none: empty). A program that outlives the deadline is killed,
    and all that it started: `nsenter`, for one, leaves the real work to a child.
    """
    tried = " ".join(argv)
    began_ns = now_ns()
    with _interrupts_later() as deliver, _start(argv, host, remedy) as process:
        try:
            deliver()
            out, err = process.communicate(text or "", timeout=deadline.left())
        except subprocess.TimeoutExpired as error:
            _kill_all(process)
            raise HostError(
                tried, host=host, said=f"no end after {error.timeout:.1f} s", remedy=remedy
            ) from error
        except BaseException:  # interrupted: nothing goes on behind our back
            _kill_all(process)
            raise
    done = Completed(tuple(argv), process.returncode, out, err)
    log_end(LOGGER, done, began_ns, host)
    if check and done.status != 0:
        said = (err or out).strip() or f"exit status {done.status}"
        raise HostError(tried, host=host, said=said[-2000:], remedy=remedy)
    return done


@contextmanager
def piped(argv: Sequence[str]) -> Iterator[socket.socket]:
    """A program's input and output as one socket while the block runs; it ends with its input."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        try:
            process = subprocess.Popen(
                list(argv),
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise HostError(" ".join(argv), said=f"{argv[0]} is not installed") from error
        with process:
            theirs.close()
            try:
                yield ours
            finally:
                ours.close()


def log_end(logger: logging.Logger, done: Completed, began_ns: int, host: str) -> None:
    """A detail for who debugs: which program ended how, and how long it took."""
    command = " ".join(done.argv)[:LOGGED]
    where = f"{host}: " if host else ""
    took_ms = (now_ns() - began_ns) / 1e6
    logger.debug("%s%s: exit status %d after %.0f ms", where, command, done.status, took_ms)


def _start(argv: Sequence[str], host: str, remedy: str) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise HostError(
            " ".join(argv), host=host, said=f"{argv[0]} is not installed", remedy=remedy
        ) from error


@contextmanager
def _interrupts_later() -> Iterator[Callable[[], None]]:
    """Hold a Ctrl-C back until ``deliver`` is called, at the latest at the end of the block: one
    that comes while a program is started would leave it without anybody who knows of it."""
    came: list[int] = []
    handler = signal.getsignal(signal.SIGINT)
    held_back = threading.current_thread() is threading.main_thread() and callable(handler)

    def deliver() -> None:
        if held_back:
            signal.signal(signal.SIGINT, handler)
        if came:
            came.clear()
            signal.raise_signal(signal.SIGINT)

    if held_back:
        signal.signal(signal.SIGINT, lambda number, _frame: came.append(number))
    try:
        yield deliver
    finally:
        deliver()


def _kill_all(process: subprocess.Popen[str]) -> None:
    """End the process group that the program leads; it was not waited for, so its id is its own."""
    if process.returncode is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def tail(path: Path, lines: int = 8) -> str:
    """The last lines of a log, or that there is none."""
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return f"{path} does not exist"
