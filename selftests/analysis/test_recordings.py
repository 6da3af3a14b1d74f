"""Recorded attempts are analysed and judged as they were when they were recorded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from migrate.analysis.findings import analyse
from migrate.analysis.guest_clock import GuestClock
from migrate.model.recording import Arrivals
from migrate.report.reanalysis import reanalyse
from migrate.results.reader import read_attempt
from migrate.results.recording_file import RECORDING, read_recording, recording_bytes

RECORDINGS = sorted(path.parent for path in Path(__file__).parents[1].glob(f"*/*/{RECORDING}"))


def name(folder: Path) -> str:
    return folder.name


@pytest.mark.parametrize("folder", RECORDINGS, ids=name)
def test_findings_and_verdicts_are_those_on_record(folder: Path) -> None:
    again = reanalyse(read_attempt(folder))
    assert (again.reason, again.changes) == ("", ())


@pytest.mark.parametrize("folder", RECORDINGS, ids=name)
def test_a_recording_is_the_same_when_it_was_written_and_read(folder: Path, tmp_path: Path) -> None:
    recording = read_recording(folder)
    assert recording is not None
    (tmp_path / RECORDING).write_bytes(recording_bytes(recording))
    again = read_recording(tmp_path)
    assert again is not None
    assert again.model_dump_json() == recording.model_dump_json()
    for way in ("egress", "ingress"):
        before, after = (getattr(one.traffic, way) for one in (recording, again))
        for column in ("seq", "sent_ns", "received_ns"):
            assert np.array_equal(getattr(before, column), getattr(after, column))


def test_the_guests_clock_is_fitted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fits = 0
    fit = GuestClock.fit

    def counted(egress: Arrivals, ingress: Arrivals) -> GuestClock:
        nonlocal fits
        fits += 1
        return fit(egress, ingress)

    monkeypatch.setattr(GuestClock, "fit", counted)
    folder = next(path for path in RECORDINGS if path.name == "two-hops")
    recording = read_recording(folder)
    assert recording is not None
    analyse(recording, read_attempt(folder).attempt.case)
    assert fits == 1


def test_there_is_one_of_each_kind() -> None:
    records = [read_attempt(folder).attempt for folder in RECORDINGS]
    modes = {record.case.interface.mode for record in records}
    assert modes == {"virtio", "vhost-user", "vdpa", "hostdev", "failover"}
    assert {record.outcome for record in records} == {"completed", "aborted", "failed", "lost"}
    assert max(len(record.inside) for record in records) == 2
