"""Files of a run: each is written whole or not at all, and a run is locked while it is written."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from migrate.clock import Deadline
from migrate.errors import HostError, MeasurementError
from migrate.files import advice, replace_file
from migrate.locks import SHORT_S, LockedError, acquire

WRITING = ".writing.lock"
"""In a run folder: each of its writers has it, shared, as long as it lives."""
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


def join_writers(folder: Path) -> int:
    """Be a writer of the run in ``folder`` until the descriptor is closed. MeasurementError."""
    with as_measurement_error(folder):
        deadline = Deadline.after(SHORT_S)
        return acquire(folder / WRITING, deadline, f"write to {folder}", shared=True)


@contextmanager
def exclusive(folder: Path) -> Iterator[bool]:
    """Lock the run in ``folder`` against writers; yields False if somebody is writing it.

    A writer on this machine holds a lock. One on another machine that shares the folder can't be
    seen: a run that has not ended (no ``junit.xml``) counts as written for :data:`ABANDONED_S`.
    MeasurementError: it is not ours to write, or can't be written.
    """
    with as_measurement_error(folder):
        try:
            descriptor = acquire(folder / WRITING, Deadline.after(0), f"have {folder} alone")
        except LockedError:
            yield False
            return
    try:
        yield (folder / "junit.xml").exists() or _is_abandoned(folder)
    finally:
        os.close(descriptor)


def _is_abandoned(folder: Path) -> bool:
    """Whether nothing of a run changed for :data:`ABANDONED_S`; that a lock of it was looked at,
    which may make the lock's file, is no change."""
    parts = (folder / "run.json", folder / "cases", *folder.glob("cases/*/*"))
    newest = max((path.stat().st_mtime for path in parts if path.exists()), default=0.0)
    return time.time() - newest > ABANDONED_S


@contextmanager
def as_measurement_error(folder: Path) -> Iterator[None]:
    """Re-raise an OSError of writing in ``folder``, and any error of its locks, as a
    MeasurementError."""
    try:
        yield
    except HostError as error:
        raise MeasurementError(error.tried, said=error.said, remedy=error.remedy) from error
    except OSError as error:
        raise MeasurementError(
            "results could not be written", said=str(error), remedy=advice(error, folder)
        ) from error


def path_below(folder: Path, name: str) -> Path:
    """The path of a file called ``name`` below ``folder``. ValueError if it would be elsewhere."""
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts or path == folder:
        raise ValueError(f"{name!r} is no name of a file below the attempt's folder")
    return path


def make_results(root: Path) -> None:
    """Have the folder of all runs. MeasurementError: everybody can rename what is in it, so that a
    run could be written to where somebody else wants it."""
    for folder in reversed([path for path in (root, *root.parents) if not path.exists()]):
        folder.mkdir(0o755, exist_ok=True)
    status = root.stat()
    if status.st_mode & 0o002 and not status.st_mode & stat.S_ISVTX:
        raise MeasurementError(
            f"write runs to {root}",
            said=f"everybody can rename what is in it (mode {stat.S_IMODE(status.st_mode):04o})",
            remedy=f"`chmod o-w {root}`, or `chmod +t {root}`; or name another folder",
        )


def make_folder(folder: Path, top: Path) -> None:
    """Make ``folder`` and those between it and ``top``, readable by all whatever the umask."""
    while folder != top:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        folder = folder.parent
