"""The bench of reports, and what it is held to: the size of a report, by attempt."""

from __future__ import annotations

from pathlib import Path

from bench.report import RECORDINGS, make_run, measure
from migrate.results.reader import read_run
from migrate.results.recording_file import RECORDING

LARGEST = 60_000
"""Bytes an attempt, besides what a report without attempts has."""


def test_a_report_of_real_attempts_has_60_kb_for_each(tmp_path: Path) -> None:
    recorded = len(list(RECORDINGS.glob(f"*/{RECORDING}")))
    folder = make_run(tmp_path, recorded + 1)
    record = read_run(folder)
    assert len(record.attempts) == recorded + 1
    assert sorted({entry.attempt.number for entry in record.attempts}) == [1, 2]
    result = measure(folder)
    assert 10_000 < result["bytes"] <= LARGEST
    assert result["fixed bytes"] < LARGEST
