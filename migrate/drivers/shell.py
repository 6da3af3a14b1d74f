"""The one door to other programs: argument lists in, what they said out, never past a deadline."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from collections.abc import Sequence
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
    try:
        process = subprocess.Popen(
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
            tried, host=host, said=f"{argv[0]} is not installed", remedy=remedy
        ) from error
    with process:
        try:
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


def log_end(logger: logging.Logger, done: Completed, began_ns: int, host: str) -> None:
    """A detail for who debugs: which program ended how, and how long it took."""
    command = " ".join(done.argv)[:LOGGED]
    where = f"{host}: " if host else ""
    took_ms = (now_ns() - began_ns) / 1e6
    logger.debug("%s%s: exit status %d after %.0f ms", where, command, done.status, took_ms)


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
