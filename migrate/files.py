"""Files on this machine: written whole or not at all, in folders that no other user can change.

A name that somebody else could guess and take is never opened: what is written first gets a name of
its own (``mkstemp``: ``O_EXCL``, ``O_NOFOLLOW``), and takes its place by a rename, which replaces a
link and does not follow it.
"""

from __future__ import annotations

import errno
import os
import pwd
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from migrate.errors import HostError

PART = ".part"
"""End of the name of a file that is being written: ``.NAME.xxxxxxxx.part``."""
STALE_S = 86_400.0
"""Nobody writes a file for so long."""
PRIVATE = 0o700
_MOST_NAME = 200
"""Bytes of a file's name in that of its part: 255 are a file system's most."""


# --- written whole ------------------------------------------------------------------------------


def replace_file(path: Path, data: str | bytes, mode: int = 0o644) -> None:
    """Write all of it or nothing; in text, ``?`` replaces what UTF-8 can't encode. OSError.

    Of several writers at once the last one's is what stays, whole. Whatever the umask is, the file
    has ``mode``.
    """
    with replacing(path) as (file, _):
        file.write(data if isinstance(data, bytes) else data.encode("utf-8", "replace"))
        os.fchmod(file.fileno(), mode)


@contextmanager
def replacing(path: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A new file beside ``path``, mode 0600, and where it is; it takes the place of ``path`` once
    the block has ended well."""
    descriptor, name = tempfile.mkstemp(prefix=_part_of(path), suffix=PART, dir=path.parent)
    part = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file, part
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _part_of(path: Path) -> str:
    name = os.fsencode(path.name)[:_MOST_NAME].decode(errors="ignore")
    return f".{name}."


def remove_stale_parts(path: Path) -> None:
    """Remove what writers of ``path`` left that were killed more than :data:`STALE_S` ago."""
    before = time.time() - STALE_S
    with suppress(OSError):
        for entry in os.scandir(path.parent):
            if not (entry.name.startswith(_part_of(path)) and entry.name.endswith(PART)):
                continue
            with suppress(OSError):
                if entry.is_file(follow_symlinks=False) and entry.stat().st_mtime < before:
                    Path(entry.path).unlink()


def sync_folder(folder: Path) -> None:
    """``fsync`` a folder, so that a rename in it survives a crash."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- what to do about it ------------------------------------------------------------------------

_ADVICE = {
    errno.EDQUOT: "your disk quota there is used up: make room, have it raised, or {other}",
    errno.EROFS: "it is mounted read-only: mount it for writing, or {other}",
    errno.EACCES: "{user} may not write there: use an account that may, or {other}",
    errno.EPERM: "{user} may not do that there (is it immutable, see lsattr?): {other}",
    errno.EMFILE: "this process has too many files open: raise `ulimit -n`",
    errno.ENFILE: "this machine has too many files open: raise fs.file-max, or end what has them",
    errno.ENAMETOOLONG: "the name or the path is too long: a shorter name, or {other}",
    errno.ELOOP: "there is a symbolic link where none may be: look where it leads and who made it, "
    "then remove it, or {other}",
    errno.EXDEV: "its parts lie on different file systems: {other}, one that is on one",
    errno.ENOTDIR: "a part of the path is a file: remove that, or {other}",
    errno.EISDIR: "there is a folder of that name: remove it, or {other}",
    errno.ENOENT: "it went away, or a part of the path never was: make it, or {other}",
    errno.EIO: "the disk fails, or the file server is away: the kernel's log may tell (dmesg)",
    errno.ESTALE: "the file server forgot it: mount it anew, or {other}",
    errno.EFBIG: "a file may not be that large there: raise `ulimit -f`, or {other}",
    errno.ENOLCK: "its file system has no room for locks, or no lock server: {other}",
}


def advice(error: OSError, folder: Path) -> str:
    """What to do about an error of writing in ``folder``, by its number."""
    if error.errno == errno.ENOSPC:
        return f"{_room(folder)}: make room there, or name another folder"
    text = _ADVICE.get(error.errno or 0, "{other}")
    return text.format(user=user_name(os.geteuid()), other=f"name another folder than {folder}")


@contextmanager
def as_host_error(tried: str, folder: Path) -> Iterator[None]:
    """Re-raise an OSError of ``folder`` as a HostError: a full or a read-only disk is this
    machine's trouble, and no error of ours."""
    try:
        yield
    except OSError as error:
        raise HostError(tried, said=str(error), remedy=advice(error, folder)) from error


def _room(folder: Path) -> str:
    """``FOLDER has 0 MiB free``, or that it can take no more files, though it has room."""
    there = next((part for part in (folder, *folder.parents) if part.is_dir()), Path("/"))
    try:
        free, status = shutil.disk_usage(there).free, os.statvfs(there)
    except OSError:
        return f"{folder} is full"
    if status.f_files and not status.f_favail:
        return f"{folder} can take no more files (all inodes are used)"
    return f"{folder} has {free / 2**20:.0f} MiB free"


def user_name(number: int) -> str:
    """The name of a user, ``user 1000`` for one without."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


# --- folders that are ours ----------------------------------------------------------------------


def make_private(folder: Path) -> Path:
    """Have ``folder``, which no other user can enter; those above it that are missing are made the
    same way. HostError: it can't be made, or see :func:`private_folder`."""
    private_folder(folder)
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    with as_host_error(f"make the folder {folder}", folder.parent):
        for path in reversed(missing):
            with suppress(FileExistsError):
                path.mkdir(PRIVATE)
    return private_folder(folder)


def private_folder(folder: Path) -> Path:
    """``folder``, if it is not there or nobody else can change what is in it; else HostError.

    One of ours that others can read, as older versions made it, is closed to them. One that they
    may pass but not read (0711) stays so: a rack's hosts reach files in it as other users.
    """
    absolute = Path(os.path.abspath(folder))  # noqa: PTH100 - resolve() would follow links
    for path in (*reversed(absolute.parents), absolute):
        _check_ours(path, folder)
    with suppress(FileNotFoundError):
        status = absolute.stat()
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o022:
            raise _not_ours(
                folder,
                f"others may write in it (mode {mode:04o}), so that what is in it may be theirs",
                f"look at what is in it, then `chmod 700 {folder}`, or remove it",
            )
        if mode & 0o044 and status.st_uid == os.geteuid():
            absolute.chmod(PRIVATE)
    return folder


def _check_ours(path: Path, folder: Path, links: int = 0) -> None:
    """That nobody but root and us can put something else in the place of ``path``."""
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise _not_ours(folder, str(error), "run this as root, with sudo") from error
    if status.st_uid not in (0, os.geteuid()):
        raise _not_ours(
            folder,
            f"{path} belongs to {user_name(status.st_uid)}, who can put anything there",
            f"remove it, or `chown {user_name(os.geteuid())}` it after a look at what is in it",
        )
    if stat.S_ISLNK(status.st_mode):
        if links > 40:  # the kernel's own limit, path_resolution(7)
            raise _not_ours(folder, f"{path} leads in a circle", "remove that link")
        target = Path(os.path.abspath(path.parent / path.readlink()))  # noqa: PTH100 - as above
        for part in (*reversed(target.parents), target):
            _check_ours(part, folder, links + 1)
    elif stat.S_ISDIR(status.st_mode):
        if status.st_mode & 0o002 and not status.st_mode & stat.S_ISVTX:
            raise _not_ours(
                folder,
                f"everybody may rename what is in {path} (mode {status.st_mode & 0o7777:04o})",
                f"`chmod o-w {path}`",
            )
    else:
        raise _not_ours(folder, f"{path} is no folder", "remove it")


def _not_ours(folder: Path, said: str, remedy: str) -> HostError:
    return HostError(
        f"use the folder {folder}",
        said=said,
        remedy=f"{remedy}; or name another one (MIGRATE_LAB_CACHE, MIGRATE_LAB_STATE)",
    )
