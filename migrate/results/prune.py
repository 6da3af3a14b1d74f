"""Removes bulky parts of old runs, and nothing that a verdict or a figure needs.

What stays of a pruned run: ``run.json``, ``junit.xml``, ``attempts.parquet``, and ``attempt.json``
of each attempt. So :func:`migrate.results.reader.read_run` reads it as before, and a baseline
loses nothing. Files of other names than ours are left where they are."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from migrate.errors import ConfigurationError, LabError, MeasurementError
from migrate.files import PART
from migrate.log import RUN_LOG
from migrate.model import SCHEMA, Run
from migrate.results.files import exclusive, write_file
from migrate.results.layout import PARTIAL, PRUNED
from migrate.results.reader import read_attempts, read_head, runs_below
from migrate.results.recording_file import RECORDING
from migrate.results.tables import MACHINES

BULKY = (
    *(
        "arrivals.parquet",
        "samples.parquet",
        MACHINES,
        "events.jsonl",
        "handoff.json",
        "stream.json",
    ),
    RECORDING,
    *("source.xml", "target.xml", "logs"),
)
"""Files of an attempt that are removed."""
BULKY_OF_RUN = ("report.html", RUN_LOG, "mishap-*.log")
TRASH = ".pruned-"
"""Prefix to which files are renamed before they are deleted: readers see all or nothing."""


@dataclass(frozen=True, slots=True)
class KeepRule:
    """A run stays whole if it is younger than ``days``, or one of its lab's last ``runs``."""

    days: float
    runs: int


@dataclass(frozen=True, slots=True)
class PruneResult:
    """What was done to one run; ``freed`` in bytes of files, 0 for one that was ``left``."""

    run: str
    freed: int = 0
    left: str = ""
    """Why nothing was done to it; empty: it was pruned."""
    unreadable: bool = False
    """That is why: it, or what is in it, can't be read at all."""
    kept: tuple[str, ...] = ()
    """Attempts of it that can't be read: nothing of them is removed, and no one knows its worth."""


def prune(
    root: Path,
    keep: KeepRule,
    *,
    whole: bool = False,
    dry: bool = False,
    now: datetime | None = None,
) -> Iterator[PruneResult]:
    """Prune run by run, oldest first; ``whole``: the run's folder goes; ``dry``: only say so.

    Raises ConfigurationError: ``root`` is no folder. What can't be read as a run is left as it is.
    """
    if not root.is_dir():
        raise ConfigurationError(
            f"prune {root}", said="no such folder", remedy="name one by --results"
        )
    if not dry:
        _sweep(root)
    runs: list[tuple[datetime, Path, Run]] = []
    folders, refused = runs_below(root)
    for folder, why in refused.items():
        yield PruneResult(folder.name, left=f"read {folder}: {why}", unreadable=True)
    for folder in folders:
        if folder.is_symlink():
            continue
        try:
            run = read_head(folder)
            runs.append((_time(run.began), folder, run))
        except (LabError, ValueError) as error:
            yield PruneResult(folder.name, left=str(error), unreadable=True)
    before = (now or datetime.now(UTC)) - timedelta(days=keep.days)
    removal = _remove if whole else _strip
    for began, folder in _old(sorted(runs, key=lambda run: run[:2]), keep.runs):
        if began < before:
            yield from _prune_run(folder, removal, dry=dry)


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _old(runs: list[tuple[datetime, Path, Run]], kept: int) -> Iterator[tuple[datetime, Path]]:
    """All runs but the last ``kept`` of each lab."""
    left: dict[str, int] = {}
    for _, _, run in runs:
        left[run.lab] = left.get(run.lab, 0) + 1
    for began, folder, run in runs:
        if left[run.lab] > kept:
            yield began, folder
        left[run.lab] -= 1


Removal = Callable[[Path, bool], int]


def _prune_run(folder: Path, removal: Removal, *, dry: bool) -> Iterator[PruneResult]:
    try:
        with exclusive(folder) as exclusively:
            if not exclusively:
                yield PruneResult(folder.name, left="it is being written, or has no end yet")
            elif freed := removal(folder, dry):
                kept = () if removal is _remove else tuple(_unreadable(folder))
                yield PruneResult(folder.name, freed, kept=kept)
    except OSError as error:
        yield PruneResult(folder.name, left=str(error))
    except MeasurementError as error:
        yield PruneResult(folder.name, left=str(error), unreadable=True)


def _remove(folder: Path, dry: bool) -> int:
    """Remove all of a run. Returns bytes."""
    freed = _size(folder)
    if not dry:
        trash = folder.with_name(f"{TRASH}{folder.name}")
        folder.rename(trash)
        shutil.rmtree(trash)
    return freed


def _strip(folder: Path, dry: bool) -> int:
    """Remove the bulky parts of a run. Returns bytes; 0 if it has none any more."""
    paths = list(_bulky(folder))
    freed = sum(_size(path) for path in paths)
    if not paths or dry:
        return freed
    # First: a run that is pruned in part is one that was pruned.
    document = {
        "schema_number": SCHEMA,
        "pruned": datetime.now(UTC).isoformat(timespec="seconds"),
        "removed": sorted({path.name for path in paths}),
    }
    write_file(folder / PRUNED, json.dumps(document, indent=1) + "\n")
    trash = folder / f"{TRASH}parts"
    trash.mkdir(exist_ok=True)
    for number, path in enumerate(paths):
        path.rename(trash / str(number))
    shutil.rmtree(trash)
    return freed


def _bulky(folder: Path) -> Iterator[Path]:
    for pattern in BULKY_OF_RUN:
        yield from folder.glob(pattern)
    yield from folder.glob(f".*{PART}")  # of a writer that was killed: nobody writes here now
    yield from folder.glob(f"cases/*/{PARTIAL}*")
    for record in read_attempts(folder)[0]:
        yield from (path for name in BULKY if (path := record.folder / name).exists())


def _unreadable(folder: Path) -> Iterator[str]:
    yield from (attempt.name for attempt in read_attempts(folder)[1])


def _size(path: Path) -> int:
    """Bytes of all files in ``path``; links are not followed."""
    if path.is_symlink() or path.is_file():
        return path.lstat().st_size
    return sum(
        (Path(top) / name).lstat().st_size for top, _, names in os.walk(path) for name in names
    )


def _sweep(root: Path) -> None:
    """Delete what a prune that was killed had renamed already."""
    for trash in (*root.glob(f"{TRASH}*"), *root.glob(f"*/{TRASH}parts")):
        with suppress(OSError):
            shutil.rmtree(trash)
