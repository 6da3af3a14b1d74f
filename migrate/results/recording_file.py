"""The recording of an attempt as a file of its folder: whoever has it can judge the attempt anew.

JSON, compressed by gzip. Integers are exact; a column of arrivals is its first value and then each
one's distance from the one before; the guest's memory is in base64.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from migrate.errors import MeasurementError
from migrate.input_file import read_at_most, read_bounded

if TYPE_CHECKING:
    from migrate.model.recording import Recording

RECORDING = "recording.json.gz"
LEVEL = 1
"""Of gzip: a tenth larger than its usual 6, and written five times as fast."""
LARGEST = 1 << 30
"""Bytes of its JSON; an hour of both streams has a tenth of it."""
_MOST_SAID = 500
_DAMAGED = (
    *(OSError, EOFError, zlib.error, ValueError, LookupError, TypeError),
    *(ArithmeticError, RecursionError, MemoryError),
)
"""What reading a file raises that is no recording: pydantic's errors are ValueErrors."""


def recording_bytes(recording: Recording) -> bytes:
    """As they are written; the same for the same recording."""
    return gzip.compress(recording.model_dump_json().encode(), LEVEL, mtime=0)


def read_recording(folder: Path) -> Recording | None:
    """The recording of the attempt in ``folder``, without its files; None: it has none.

    Raises MeasurementError: cut short, or of a schema that is newer than this.
    """
    from migrate.model.recording import RECORDING_SCHEMA, Recording  # noqa: PLC0415 - numpy is heavy

    path = folder / RECORDING
    try:
        text = _decompressed(path)
        number = json.loads(text)["schema_number"]
        if number > RECORDING_SCHEMA:
            raise MeasurementError(
                f"read {path}",
                said=f"it has schema {number}, and this migrate-lab knows up to {RECORDING_SCHEMA}",
                remedy="read it with the migrate-lab that wrote it, or a newer one",
            )
        return Recording.model_validate_json(text)
    except FileNotFoundError:
        return None
    except _DAMAGED as error:
        raise MeasurementError(
            f"read {path}",
            said=f"cut short or damaged: {str(error)[:_MOST_SAID]}",
            remedy="without it the attempt can't be judged anew; its attempt.json stays",
        ) from error


def _decompressed(path: Path) -> bytes:
    """A file of zeros is a thousand times as long as it is stored: no longer than ``LARGEST``."""
    with gzip.open(io.BytesIO(read_bounded(path, LARGEST))) as file:
        return read_at_most(file, LARGEST)
