"""Locks of files: with a deadline, and in words who has it and how long we wait already.

A lock is the kernel's (``flock(2)``): it ends with its holder, whatever ended that. Its file can be
opened by nobody but its owner and root (0600), so that no other user can hold us up, and stays
where it is: an empty file, or with what its last holder wrote.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from migrate.clock import Deadline, now_ns, until
from migrate.errors import HostError, visible
from migrate.files import as_host_error, user_name
from migrate.waiting import EVERY_S, tell_wait

POLL_S = 0.05
"""Between two tries: a wait for flock(2) can't be given a deadline."""
SILENT_S = 1.0
"""A wait that is shorter is not told."""
REPEAT_S = EVERY_S
"""Between two messages of one who waits."""
SHORT_S = 60.0
"""For locks that are held for as long as it takes to write a file."""
BUILD_S = 3600.0
"""For locks that are held while something large is made: a root takes minutes."""
_NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS})
"""Of a file system that has none."""
_MOST_NOTE = 300
_MOST_COMMAND = 120
_LINE = re.compile(
    r"^\d+: FLOCK +\S+ +\S+ +(\d{1,10}) ([0-9a-f]{1,8}):([0-9a-f]{1,8}):(\d+) ",
    re.MULTILINE | re.ASCII,
)
"""Of /proc/locks: process, major and minor number of the device, inode. A line of one who waits
has ``->`` behind its number (proc_locks(5))."""


class LockedError(HostError):
    """Somebody else had the lock until the deadline."""


@contextmanager
def file_lock(
    path: Path, deadline: Deadline, tried: str, *, note: str = "", host: str = ""
) -> Iterator[None]:
    """Have the lock of the file ``path`` alone while the block runs; ``tried``: what needs it.

    ``note`` tells those who wait what it is held for. LockedError at the deadline; HostError where
    the file is somebody else's, or can't be opened.
    """
    descriptor = acquire(path, deadline, tried, host=host)
    try:
        if note:
            _write_note(descriptor, note)
        yield
    finally:
        if note:
            _write_note(descriptor, "")
        os.close(descriptor)


def _write_note(descriptor: int, note: str) -> None:
    """A disk that is full takes nobody the lock."""
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, note.encode("utf-8", "replace")[:_MOST_NOTE], 0)


def acquire(
    path: Path, deadline: Deadline, tried: str, *, shared: bool = False, host: str = ""
) -> int:
    """The lock as a descriptor: it is held until that is closed. Errors: see :func:`file_lock`.

    Where the file system has no locks, nothing is held.
    """
    began_ns = now_ns()
    silent_s = SILENT_S
    descriptor = _try(path, shared=shared)
    while descriptor is None:
        soon = deadline.sooner(silent_s)
        descriptor = until(lambda: _try(path, shared=shared), soon, POLL_S)
        if descriptor is not None:
            break
        if deadline.left() < POLL_S:
            raise LockedError(
                tried,
                host=host,
                said=f"held by {holders(path)} until the deadline",
                remedy=f"wait for its end, or end it; `fuser -v {path}` shows it, too",
            )
        waited_s = (now_ns() - began_ns) / 1e9
        what = f"{tried} {host}" if host else tried
        words = f"waiting to {what}, held by {holders(path)}"
        tell_wait(words, waited_s, waited_s + deadline.left())
        silent_s = REPEAT_S
    return descriptor


def _try(path: Path, *, shared: bool) -> int | None:
    """A descriptor that has the lock now, or None."""
    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        # Whoever removed the file meanwhile lets the next one lock another.
        if os.fstat(descriptor).st_nlink:
            return descriptor
    except BlockingIOError:
        pass
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return descriptor
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _open(path: Path) -> int:
    """Open a lock's file, made if it is not there; one that others can open is closed to them."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    with as_host_error(f"open the lock {path}", path.parent):
        while True:
            with suppress(FileNotFoundError):
                descriptor, made = os.open(path, flags), False
                break
            with suppress(FileExistsError):
                descriptor, made = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600), True
                break
        try:
            _own(path, descriptor, made=made)
        except BaseException:
            os.close(descriptor)
            raise
    return descriptor


def _own(path: Path, descriptor: int, *, made: bool) -> None:
    """Have the lock be its folder's owner's, and nobody else's: who could open it could hold it
    for ever. Nothing is done to a file that is not: it may be another one's second name."""
    status, folder = os.fstat(descriptor), path.parent.stat()
    if made:
        if folder.st_uid != status.st_uid and os.geteuid() == 0:
            os.fchown(descriptor, folder.st_uid, -1)  # root in a user's folder: both can use it
        return
    if not stat.S_ISREG(status.st_mode):
        raise HostError(f"use the lock {path}", said="it is no file", remedy="remove it")
    ours = {0, os.geteuid()}
    if status.st_uid != folder.st_uid and not {status.st_uid, folder.st_uid} <= ours:
        raise HostError(
            f"use the lock {path}",
            said=f"it belongs to {user_name(status.st_uid)}, and its folder to "
            f"{user_name(folder.st_uid)}",
            remedy="remove it",
        )
    if status.st_mode & 0o077 and os.geteuid() in (0, status.st_uid):
        os.fchmod(descriptor, 0o600)


# --- who has it ---------------------------------------------------------------------------------


def holders(path: Path) -> str:
    """Who has the lock of a file, as a person reads it: process, user, command, and their note."""
    try:
        status, table = path.stat(), Path("/proc/locks").read_text()
    except OSError:
        return "another process"
    device = os.major(status.st_dev), os.minor(status.st_dev)
    pids = holding_processes(table, device, status.st_ino)
    who = " and ".join(_process(pid) for pid in pids[:3]) or "another process"
    more = f" and {len(pids) - 3} others" if len(pids) > 3 else ""
    note = _note(path)
    return f"{who}{more}{f', {note}' if note else ''}"


def holding_processes(table: str, device: tuple[int, int], inode: int) -> tuple[int, ...]:
    """The processes that hold a lock of the file, by the text of /proc/locks.

    Some file systems have another device there than stat(2) has (btrfs, overlayfs): then all are
    named that hold one of a file with this inode.
    """
    lines = [
        (int(pid), (int(major, 16), int(minor, 16)))
        for pid, major, minor, number in _LINE.findall(table)
        if number == str(inode)
    ]
    exact = [pid for pid, at in lines if at == device]
    return tuple(dict.fromkeys(exact or [pid for pid, _ in lines]))


def _process(pid: int) -> str:
    place = Path("/proc", str(pid))
    try:
        user = user_name(place.stat().st_uid)
        words = place.joinpath("cmdline").read_bytes()[: 4 * _MOST_COMMAND].split(b"\0")
    except OSError:
        return f"process {pid}, which has ended: what it started has it"
    command = visible(" ".join(word.decode(errors="replace") for word in words).strip())
    return f"process {pid} of {user} ({command[:_MOST_COMMAND]})"


def _note(path: Path) -> str:
    """What the holder wrote; nothing, where that can't be read."""
    text = b""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            text = os.read(descriptor, _MOST_NOTE)
        finally:
            os.close(descriptor)
    return visible(text.decode(errors="replace").strip())
