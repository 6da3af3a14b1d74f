"""The run folder's names: ``docs/run-folder.md`` holds the schema.

An attempt is written into ``.partial-<number>`` and renamed when it is whole; every file comes by a
temporary one, ``fsync`` and ``os.replace``. So readers see finished attempts only, and a run that
was killed up to its last one.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from migrate.errors import MeasurementError

PARTIAL = ".partial-"
INDEX = "attempts.parquet"
"""A row an attempt, of a run that is done: made of the rest, and made anew when it is missing."""
PRUNED = "pruned.json"
"""Exists once bulky parts of the run were removed; says when, and which."""


def run_name() -> str:
    """UTC date and time to the microsecond: sorts by age, e.g. ``20260102-030405-678901``."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}"


def damaged(path: Path, said: str) -> MeasurementError:
    """The error for a file of a run that can't be read."""
    return MeasurementError(
        f"read {path}", said=said, remedy="name a run folder with a whole run.json and attempts"
    )
