"""Files of a run: each is written whole or not at all, and a run is locked while it is written."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from migrate.errors import MeasurementError

ABANDONED_S = 86_400
"""A run without an end that nobody touched for so long is not being written any more."""


def copy_out(path: Path, destination: Path) -> None:
    """Copy a file of a run to where CI looks for it, e.g. JUnit's XML. Raises MeasurementError."""
    with as_measurement_error(destination.parent):
        replace_file(destination, path.read_bytes())


def write_file(path: Path, data: str | bytes) -> Path:
    """Write a file of a run, all of it or nothing; returns its path. Raises MeasurementError."""
    with as_measurement_error(path.parent):
        replace_file(path, data)
    return path


@contextmanager
def exclusive(folder: Path) -> Iterator[bool]:
    """Lock the run in ``folder`` against writers; yields False if somebody is writing it.

    A writer on this machine holds a lock. One on another machine that shares the folder can't be
    seen: a run that has not ended (no ``junit.xml``) counts as written for :data:`ABANDONED_S`.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:
            pass  # a file system without locks: what is left is whether it has ended
        yield (folder / "junit.xml").exists() or _is_abandoned(folder)
    finally:
        os.close(descriptor)


def _is_abandoned(folder: Path) -> bool:
    """Whether nothing in a run's folder changed for :data:`ABANDONED_S`."""
    parts = (folder, folder / "run.json", folder / "cases", *folder.glob("cases/*/*"))
    newest = max((path.stat().st_mtime for path in parts if path.exists()), default=0.0)
    return time.time() - newest > ABANDONED_S


@contextmanager
def as_measurement_error(folder: Path) -> Iterator[None]:
    """Re-raise an OSError as a MeasurementError with the free space."""
    try:
        yield
    except OSError as error:
        there = next((part for part in (folder, *folder.parents) if part.is_dir()), Path("/"))
        free = shutil.disk_usage(there).free / 2**20
        raise MeasurementError(
            "results could not be written",
            said=str(error),
            remedy=f"{folder} has {free:.0f} MiB free: make room there, or name another folder",
        ) from error


def path_below(folder: Path, name: str) -> Path:
    """The path of a file called ``name`` below ``folder``. ValueError if it would be elsewhere."""
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts or path == folder:
        raise ValueError(f"{name!r} is no name of a file below the attempt's folder")
    return path


def make_folder(folder: Path, top: Path) -> None:
    """Make ``folder`` and those between it and ``top``, readable by all whatever the umask."""
    while folder != top:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        folder = folder.parent


def replace_file(path: Path, data: str | bytes) -> None:
    """Write all of it or nothing; in text, ``?`` replaces what UTF-8 can't encode. OSError."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as file:
            file.write(data if isinstance(data, bytes) else data.encode("utf-8", "replace"))
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """``fsync`` a folder, so that a rename in it survives a crash."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
