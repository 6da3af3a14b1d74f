"""The spine: what was recorded is kept, whatever comes of its analysis and of the clean-up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from migrate import attempt as spine
from migrate.errors import CleanupError, HostError, LeaseLostError, MeasurementError
from migrate.model import Attempt, Convergence, Findings, MoveDetails
from migrate.model.recording import Recording
from migrate.results.reader import read_run
from migrate.results.recording_file import read_recording
from selftests.doubles import synthetic

PAIR = cast("Any", (SimpleNamespace(name="a"), SimpleNamespace(name="b")))
ENV = cast("Any", SimpleNamespace(check=lambda: None))


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recording:
    recording = synthetic.recording()
    monkeypatch.setattr(spine, "record", lambda *_words: recording)
    monkeypatch.setattr(spine, "leftovers", lambda _pair: ())
    return recording


def tried(tmp_path: Path) -> tuple[Attempt, Recording]:
    """The attempt as it was returned, and its recording as it was kept."""
    writer = synthetic.write_run(tmp_path, [])
    made = spine.attempt(synthetic.case(), 1, ENV, PAIR, writer)
    (entry,) = read_run(writer.folder).attempts
    assert entry.attempt == made
    kept = read_recording(entry.folder)
    assert kept is not None
    return made, kept


def bad_findings(*_words: object) -> Findings:
    negative = Convergence.model_construct(**{**dict(Convergence()), "stopped_s": -0.58})
    details = MoveDetails().model_copy(update={"convergence": negative})
    return Findings(begin_ns=0, outcome="completed", held_by=("b",), inside=(details,))


@pytest.mark.parametrize("error", [KeyError("queue"), MeasurementError("analyse", said="no")])
def test_an_analysis_that_fails_keeps_the_recording_and_says_so(
    recorded: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_words: object) -> None:
        raise error

    monkeypatch.setattr(spine, "analyse", fail)
    made, kept = tried(tmp_path)
    assert kept.hops == recorded.hops
    assert made.result == "void"
    assert made.void[0].startswith("its recording could not be analysed, and is kept: ")
    assert type(error).__name__ in made.void[0]
    assert (made.outcome, made.held_by) == ("completed", ("b",))


@pytest.mark.usefixtures("recorded")
def test_findings_that_no_reader_takes_keep_the_recording_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One value out of its bounds is no reason to lose the attempt, or the run's report."""
    monkeypatch.setattr(spine, "analyse", bad_findings)
    made, _kept = tried(tmp_path)
    assert made.result == "void"
    assert "stopped_s" in made.void[0]


@pytest.mark.usefixtures("recorded")
def test_a_host_that_can_not_be_looked_at_leaves_the_search_unmeasured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_pair: object) -> None:
        raise HostError("connect to libvirt", host="b", said="refused")

    monkeypatch.setattr(spine, "leftovers", gone)
    made, _kept = tried(tmp_path)
    (clean,) = (verdict for verdict in made.verdicts if verdict.check == "clean")
    assert clean.result == "unmeasured"


@pytest.mark.parametrize("lease", [True, False])
def test_what_does_not_go_back_afterwards_voids_the_recording_and_does_not_lose_it(
    monkeypatch: pytest.MonkeyPatch, lease: bool
) -> None:
    recording = synthetic.recording()
    errors = LeaseLostError("keep the lease"), CleanupError("end the guest", [ValueError("no")])

    @contextmanager
    def build(*_words: object) -> Iterator[Any]:
        yield SimpleNamespace(
            move=lambda: recording.hops[0].result,
            listen=lambda _seconds: None,
            end=lambda: recording,
        )
        raise errors[0] if lease else errors[1]

    monkeypatch.setattr(spine, "build_world", build)
    if lease:
        with pytest.raises(LeaseLostError):
            spine.record(synthetic.case(), ENV, PAIR)
        return
    kept = spine.record(synthetic.case(), ENV, PAIR)
    assert kept.void == (
        "what was done did not go back: end the guest: no -- "
        "`migrate-lab lab down` removes what it still can",
    )
