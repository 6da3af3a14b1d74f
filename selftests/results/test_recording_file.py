"""A recording that is none, or far too much of one, is an error that names the file."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from migrate.errors import MeasurementError
from migrate.results import recording_file
from migrate.results.recording_file import RECORDING, read_recording

REAL = Path(__file__).parents[1] / "recordings" / "virtio" / RECORDING
TEXT = gzip.decompress(REAL.read_bytes())
COLUMN = b'"seq":['
HOSTILE = {
    "deep": b'{"a":' * 100_000,
    "a list": b"[]",
    "nothing": b"",
    "no schema": b"{}",
    "a schema of words": b'{"schema_number": "one"}',
    "a schema of lists": b'{"schema_number": []}',
    "a number of 5,000 digits": b'{"schema_number": ' + b"9" * 5000 + b"}",
    "a number that no column holds": TEXT.replace(COLUMN, COLUMN + b"9" * 30 + b",", 1),
    "words in a column": TEXT.replace(COLUMN, COLUMN + b'"x",', 1),
    "columns within columns": TEXT.replace(COLUMN, COLUMN + b"[1],", 1),
}


def folder_with(folder: Path, data: bytes) -> Path:
    (folder / RECORDING).write_bytes(data)
    return folder


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_recording_is_an_error_of_few_words(name: str, tmp_path: Path) -> None:
    folder_with(tmp_path, gzip.compress(HOSTILE[name]))
    with pytest.raises(MeasurementError) as raised:
        read_recording(tmp_path)
    assert RECORDING in str(raised.value)
    assert len(str(raised.value)) < 2000


@pytest.mark.parametrize("data", [b"", b"GIF89a", REAL.read_bytes()[:-9], REAL.read_bytes() + b"x"])
def test_what_is_not_compressed_or_cut_short_is_an_error(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(MeasurementError):
        read_recording(folder_with(tmp_path, data))


def test_a_file_that_unpacks_without_end_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording_file, "LARGEST", 10_000)
    folder_with(tmp_path, gzip.compress(b" " * 10_000_000))
    with pytest.raises(MeasurementError, match="more than 10000 bytes"):
        read_recording(tmp_path)


def test_a_folder_without_a_recording_has_none(tmp_path: Path) -> None:
    assert read_recording(tmp_path) is None
