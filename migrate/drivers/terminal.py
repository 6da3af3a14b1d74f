"""Interactive programs on a host: with our standard streams, or at a pseudo-terminal of the host.

A host of namespaces has its own devpts, which does not contain our terminal: ttyname(3) fails
there, and so do `tty`, job control and `virsh console`. So a pseudo-terminal of the host's devpts
is opened (ioctl_tty(2), TIOCGPTPEER: by descriptor, independent of mounts) and relayed to our
terminal, as ssh does for remote hosts.
"""

from __future__ import annotations

import fcntl
import os
import selectors
import signal
import struct
import subprocess
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from migrate.errors import HostError

TIOCSPTLCK, TIOCGPTPEER = 0x40045431, 0x5441
"""From Linux' asm-generic/ioctls.h; Python has neither."""
AT_TERMINAL = ("setsid", "--ctty", "--")
"""Before a program's argument list: makes it a session leader with its input as the terminal."""
CHUNK = 1 << 16


def is_terminal() -> bool:
    """Whether standard input and output are a terminal. With one of them a pipe or a file, bytes
    have to be passed unchanged, and a terminal would add carriage returns."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def run_attached(argv: Sequence[str]) -> int:
    """Run a program with our standard streams; its exit status, as in a shell."""
    return _status(subprocess.run(list(argv), check=False).returncode)


def run_at_terminal(argv: Sequence[str], ptmx: Path, here: int = 0) -> int:
    """Run a program at a new terminal of ``ptmx``'s devpts, relayed to the terminal ``here``; its
    exit status, as in a shell. ``argv`` has :data:`AT_TERMINAL` in it.

    All keys go to the program, Ctrl-C included. HostError if no pseudo-terminal can be opened.
    """
    ours, theirs = _pseudo_terminal(ptmx)
    with ours, theirs, _raw(here), _resized_with(here, ours.fileno()):
        process = subprocess.Popen(list(argv), stdin=theirs, stdout=theirs, stderr=theirs)
        # If the relay fails, closing the terminal ends the program (SIGHUP): no endless wait.
        with process, ours:
            theirs.close()
            _relay(process.pid, here, ours.fileno())
    return _status(process.returncode)


def _status(returncode: int) -> int:
    return returncode if returncode >= 0 else 128 - returncode


def _pseudo_terminal(ptmx: Path) -> tuple[FileIO, FileIO]:
    """Our end, and the program's."""
    flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
    try:
        ours = FileIO(os.open(ptmx, flags), "r+")
        fcntl.ioctl(ours, TIOCSPTLCK, struct.pack("i", 0))
        return ours, FileIO(fcntl.ioctl(ours, TIOCGPTPEER, flags), "r+")
    except OSError as error:
        raise HostError(f"open a pseudo-terminal by {ptmx}", said=str(error)) from error


@contextmanager
def _raw(here: int) -> Iterator[None]:
    """Raw mode while the block runs."""
    before = termios.tcgetattr(here)
    tty.setraw(here, termios.TCSADRAIN)
    try:
        yield
    finally:
        termios.tcsetattr(here, termios.TCSADRAIN, before)


@contextmanager
def _resized_with(here: int, ours: int) -> Iterator[None]:
    """Keep ``ours`` at the size of the terminal ``here`` while the block runs."""

    def copy(*_signal: object) -> None:
        with suppress(OSError, termios.error):  # one of them is closed: the relay notices
            termios.tcsetwinsize(ours, termios.tcgetwinsize(here))

    before = signal.signal(signal.SIGWINCH, copy)
    copy()
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


def _relay(pid: int, here: int, ours: int) -> None:
    """Both ways, until the process has ended and its output is shown, or one side is closed."""
    os.set_blocking(ours, False)
    typed = b""
    with FileIO(os.pidfd_open(pid)) as ended, selectors.DefaultSelector() as selector:
        for readable in (here, ours, ended.fileno()):
            selector.register(readable, selectors.EVENT_READ)
        while True:
            ready = {key.fd for key, _ in selector.select()}
            if here in ready:
                if not (keys := os.read(here, CHUNK)):
                    return
                typed += keys
            typed = _typed(ours, typed)
            selector.modify(ours, selectors.EVENT_READ | (selectors.EVENT_WRITE if typed else 0))
            if not _shown(ours, all_of_it=ended.fileno() in ready) or ended.fileno() in ready:
                return


def _typed(ours: int, keys: bytes) -> bytes:
    """Write keys to the program; returns those that it can't take yet."""
    with suppress(OSError):  # BlockingIOError: later; any other: the program's end is closed
        keys = keys[os.write(ours, keys) :] if keys else keys
    return keys


def _shown(ours: int, *, all_of_it: bool) -> bool:
    """Show the program's output; False: no process has the terminal open any more."""
    while True:
        try:
            said = memoryview(os.read(ours, CHUNK))
        except BlockingIOError:
            return True
        except OSError:  # EIO: the other end is closed
            return False
        while said:
            said = said[os.write(sys.stdout.fileno(), said) :]
        if not all_of_it:
            return True
