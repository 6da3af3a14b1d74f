"""`migrate-lab analyze`: a run that is judged anew, and what it says of one that can't be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from migrate.cli.main import cli
from migrate.model import Attempt
from migrate.results.prune import KeepRule, prune
from migrate.results.recording_file import RECORDING
from selftests.doubles import synthetic
from selftests.helpers import ROOT

RECORDED = ROOT / "selftests" / "recordings" / "virtio"


@pytest.fixture
def attempt(tmp_path: Path) -> Path:
    """The folder of an attempt with its recording, in a run of its own."""
    recorded = Attempt.model_validate_json((RECORDED / "attempt.json").read_text())
    writer = synthetic.write_run(tmp_path, [recorded])
    (folder,) = writer.folder.glob("cases/*/1")
    shutil.copy(RECORDED / RECORDING, folder)
    return folder


def analyze(results: Path, *options: str) -> Result:
    return CliRunner().invoke(cli, ["analyze", "--results", str(results), *options])


def test_a_run_of_today_is_the_same(attempt: Path, tmp_path: Path) -> None:
    ended = analyze(tmp_path)
    assert (ended.exit_code, ended.output.count("the same")) == (0, 1)


def test_what_differs_is_told_field_by_field_and_nothing_is_overwritten(
    attempt: Path, tmp_path: Path
) -> None:
    path = attempt / "attempt.json"
    document = json.loads(path.read_text())
    document["start_ms"] = 7.0
    document["verdicts"][0]["result"] = "fail"
    path.write_text(json.dumps(document))
    before = path.read_bytes()
    ended = analyze(tmp_path)
    assert ended.exit_code == 1
    check = document["verdicts"][0]["check"]
    assert "2 fields differ" in ended.output
    assert "start_ms: 7.0 -> " in ended.output
    assert f'verdicts.{check}.result: "fail" -> "pass"' in ended.output
    assert path.read_bytes() == before
    (told,) = json.loads(analyze(tmp_path, "--json").output)["attempts"]
    assert {change["field"] for change in told["changes"]} == {
        "start_ms",
        f"verdicts.{check}.result",
    }


def test_an_attempt_without_a_recording_says_so_beside_the_others(
    attempt: Path, tmp_path: Path
) -> None:
    shutil.copytree(attempt, attempt.with_name("2"))
    (attempt.with_name("2") / RECORDING).unlink()
    ended = analyze(tmp_path)
    assert ended.exit_code == 0
    assert "the same" in ended.output
    assert f"no {RECORDING}" in ended.output


def test_a_run_without_recordings_could_not_be_judged(attempt: Path, tmp_path: Path) -> None:
    (attempt / RECORDING).unlink()
    assert analyze(tmp_path).exit_code == 3


@pytest.mark.parametrize("content", [b"", b"no gzip", (RECORDED / RECORDING).read_bytes()[:-9]])
def test_a_damaged_recording_is_told(attempt: Path, tmp_path: Path, content: bytes) -> None:
    (attempt / RECORDING).write_bytes(content)
    ended = analyze(tmp_path)
    assert ended.exit_code == 3
    assert "cut short or damaged" in ended.output


def test_a_recording_goes_with_what_is_large(attempt: Path, tmp_path: Path) -> None:
    (attempt.parents[2] / "junit.xml").write_text("<testsuites/>")
    list(prune(tmp_path, KeepRule(days=0, runs=0)))
    assert not (attempt / RECORDING).exists()
    assert analyze(tmp_path).exit_code == 3
