"""A program for who sits at the controller: with our streams, or at a terminal of its own.

A host of this machine has a devpts of its own, in which our terminal is not: ttyname(3) finds it
nowhere, and `tty`, job control and `virsh console` do without one. So a pseudo-terminal is made of
the host's own devpts (ioctl_tty(2), TIOCGPTPEER: by its descriptor, whatever is mounted where), and
what comes in and out is relayed to ours, as ssh does it for hosts that are elsewhere.
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
"""Of Linux' asm-generic/ioctls.h; Python names neither."""
AT_TERMINAL = ("setsid", "--ctty", "--")
"""Before a program's argument list: it leads a session there, whose terminal is its input."""
CHUNK = 1 << 16


def is_terminal() -> bool:
    """Whether a person sits at our input and output. With one of them in a pipe or a file the bytes
    are what is wanted: a terminal would add carriage returns."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def run_attached(argv: Sequence[str]) -> int:
    """Run a program with our standard streams; its exit status, as a shell tells it."""
    return _status(subprocess.run(list(argv), check=False).returncode)


def run_at_terminal(argv: Sequence[str], ptmx: Path, here: int = 0) -> int:
    """Run a program at a new terminal of ``ptmx``'s devpts, relayed to the terminal ``here``; its
    exit status, as a shell tells it. ``argv`` has :data:`AT_TERMINAL` in it.

    All keys are the program's, Ctrl-C among them. HostError where no terminal can be had.
    """
    ours, theirs = _pseudo_terminal(ptmx)
    with ours, theirs, _raw(here), _resized_with(here, ours.fileno()):
        process = subprocess.Popen(list(argv), stdin=theirs, stdout=theirs, stderr=theirs)
        # Where the relay breaks off, the terminal goes before the process is waited for: a hang-up.
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
        raise HostError(f"make a terminal of {ptmx}", said=str(error)) from error


@contextmanager
def _raw(here: int) -> Iterator[None]:
    """Nothing is done to what is typed, while the block runs."""
    before = termios.tcgetattr(here)
    tty.setraw(here, termios.TCSADRAIN)
    try:
        yield
    finally:
        termios.tcsetattr(here, termios.TCSADRAIN, before)


@contextmanager
def _resized_with(here: int, ours: int) -> Iterator[None]:
    """The one terminal has the other's size, also when that changes, while the block runs."""

    def copy(*_signal: object) -> None:
        with suppress(OSError, termios.error):  # one of them is gone: the relay notices
            termios.tcsetwinsize(ours, termios.tcgetwinsize(here))

    before = signal.signal(signal.SIGWINCH, copy)
    copy()
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


def _relay(pid: int, here: int, ours: int) -> None:
    """Both ways, until the process has ended and all that it said is out, or one side hung up."""
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
    """Hand keys to the program; those that it can't take yet."""
    with suppress(OSError):  # BlockingIOError: later; any other: nobody is there to take them
        keys = keys[os.write(ours, keys) :] if keys else keys
    return keys


def _shown(ours: int, *, all_of_it: bool) -> bool:
    """Show what the program said; False: nobody has the terminal open any more."""
    while True:
        try:
            said = memoryview(os.read(ours, CHUNK))
        except BlockingIOError:
            return True
        except OSError:  # EIO, of which ends are told here
            return False
        while said:
            said = said[os.write(sys.stdout.fileno(), said) :]
        if not all_of_it:
            return True
