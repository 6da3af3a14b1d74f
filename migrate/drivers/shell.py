"""The one door to other programs: argument lists in, what they said out, never past a deadline."""

from __future__ import annotations

import logging
import os
import selectors
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
MOST_BYTES = 64 << 20
"""That a program may say, on its output and its error together: a host may be out of its mind."""
CHUNK = 1 << 16


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

    ``text`` is its standard input (none: empty). A program that outlives the deadline, or says more
    than :data:`MOST_BYTES`, is killed, and all that it started: `nsenter`, for one, leaves the real
    work to a child.
    """
    tried = " ".join(argv)
    began_ns, seconds = now_ns(), deadline.left()
    with _interrupts_later() as deliver, _start(argv, host, remedy) as process:
        try:
            deliver()
            out, err = _communicate(process, (text or "").encode(errors="replace"), deadline)
            process.wait(deadline.left())
        except (TimeoutError, subprocess.TimeoutExpired) as error:
            _kill_all(process)
            said = f"no end after {seconds:.1f} s"
            raise HostError(tried, host=host, said=said, remedy=remedy) from error
        except TooMuchError as error:
            _kill_all(process)
            raise HostError(tried, host=host, said=str(error), remedy=remedy) from error
        except BaseException:  # interrupted: nothing goes on behind our back
            _kill_all(process)
            raise
    done = Completed(tuple(argv), process.returncode, decoded(out), decoded(err))
    log_end(LOGGER, done, began_ns, host)
    if check and done.status != 0:
        said = (done.err or done.out).strip() or f"exit status {done.status}"
        raise HostError(tried, host=host, said=said[-2000:], remedy=remedy)
    return done


class TooMuchError(Exception):
    """A program said more than anybody would read."""

    def __init__(self) -> None:
        super().__init__(f"it said more than {MOST_BYTES >> 20} MiB")


def decoded(said: bytes) -> str:
    """What a program said, as text: bytes that are none are replaced."""
    return said.decode(errors="replace")


def _communicate(
    process: subprocess.Popen[bytes], text: bytes, deadline: Deadline
) -> tuple[bytes, bytes]:
    """All that it says until both its streams have ended. TimeoutError at the deadline,
    :class:`TooMuchError` beyond :data:`MOST_BYTES`."""
    streams = process.stdin, process.stdout, process.stderr
    given, out, err = (stream.fileno() for stream in streams if stream is not None)
    said, left = {out: bytearray(), err: bytearray()}, memoryview(text)
    with selectors.DefaultSelector() as selector:
        for stream in said:
            selector.register(stream, selectors.EVENT_READ)
        os.set_blocking(given, False)
        selector.register(given, selectors.EVENT_WRITE)
        while selector.get_map():
            if deadline.passed():
                raise TimeoutError
            for key, _ in selector.select(deadline.left()):
                if key.fd == given:
                    left = _give(given, left)
                    if not left:
                        selector.unregister(given)
                        _close(process)
                elif data := os.read(key.fd, CHUNK):
                    said[key.fd] += data
                    if sum(map(len, said.values())) > MOST_BYTES:
                        raise TooMuchError
                else:
                    selector.unregister(key.fd)
    return bytes(said[out]), bytes(said[err])


def _give(to: int, left: memoryview) -> memoryview:
    """What of a program's input is left; nothing where it has ended without reading on."""
    try:
        return left[os.write(to, left) :] if left else left
    except BlockingIOError:
        return left
    except BrokenPipeError:
        return left[:0]


def _close(process: subprocess.Popen[bytes]) -> None:
    """Its input has ended."""
    if process.stdin is not None:
        process.stdin.close()


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


def _start(argv: Sequence[str], host: str, remedy: str) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise HostError(
            " ".join(argv), host=host, said=f"{argv[0]} is not installed", remedy=remedy
        ) from error
    except (OSError, ValueError) as error:  # too long a list; a NUL in what a host named
        raise HostError(" ".join(argv), host=host, said=str(error), remedy=remedy) from error


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


def _kill_all(process: subprocess.Popen[bytes]) -> None:
    """End the process group that the program leads; it was not waited for, so its id is its own."""
    if process.returncode is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def tail(path: Path, lines: int = 8) -> str:
    """The last lines of a log, or why there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - CHUNK))
            return "\n".join(decoded(file.read(CHUNK)).splitlines()[-lines:])
    except FileNotFoundError:
        return f"{path} does not exist"
    except OSError as error:
        return f"{path} can't be read: {error}"
