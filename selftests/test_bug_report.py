"""The last net: whatever no one thought of is one line, a file, and exit code 70."""

from __future__ import annotations

import logging
import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from migrate import log
from migrate.bug_report import bug_report, program_errors
from migrate.campaign import session
from migrate.cli import main as cli
from migrate.errors import GuestError, ProgramError
from migrate.report import reanalysis
from migrate.results.reader import read_run
from selftests.campaign.test_session import case, going
from selftests.command_line import LEAVES, Run
from selftests.doubles import synthetic
from selftests.helpers import ROOT

__all__ = ["going"]

ERRORS = [KeyError("queue"), RecursionError("too deep"), MemoryError(), UnicodeError("\udcff")]


def the_file(folder: Path) -> Path:
    (path,) = folder.glob("migrate-lab-error-*.txt")
    return path


def no_write(*_: object) -> int:
    raise PermissionError(13, "Permission denied")


# --- the file ---


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_of_the_program_is_one_of_our_tree_with_a_file(
    error: Exception, tmp_path: Path
) -> None:
    with log.remembered(), pytest.raises(ProgramError) as caught, program_errors("try", tmp_path):
        logging.getLogger("migrate.x").debug("the last that was done")
        raise error
    path = the_file(tmp_path)
    assert f"attach {path} to a bug report" in str(caught.value)
    assert caught.value.exit_code == 70
    text = path.read_text()
    for part in (
        "Traceback",
        type(error).__name__,
        "the last that was done",
        "Python",
        "migrate-lab",
    ):
        assert part in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("end", [KeyboardInterrupt(), SystemExit(3), GuestError("boot")])
def test_what_is_no_error_of_the_program_goes_on_as_it_is(
    end: BaseException, tmp_path: Path
) -> None:
    with pytest.raises(type(end)) as caught, program_errors("try", tmp_path):
        raise end
    assert caught.value is end
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("said", "secret"),
    [
        ("get https://ada:hunter2@mirror.example/debian", "hunter2"),
        ("password=hunter2", "hunter2"),
        ("{'api_key': 'hunter2'}", "hunter2"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2\n-----END", "hunter2"),
    ],
)
def test_what_looks_like_a_secret_is_left_out(
    said: str, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["migrate-lab", "run", said])
    text = bug_report(ValueError(said), said)
    assert secret not in text
    assert "run" in text


def test_a_traceback_without_an_end_is_cut() -> None:
    def deeper() -> None:
        deeper()

    with pytest.raises(RecursionError) as caught:
        deeper()
    assert bug_report(caught.value, "try").count("\n") < 1000


def test_another_folder_takes_it_where_the_first_can_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ProgramError), program_errors("try", tmp_path / "nowhere"):
        raise ValueError
    assert the_file(tmp_path)


def test_where_no_folder_takes_it_the_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "open", no_write)
    with pytest.raises(ProgramError, match="no folder takes a file"), program_errors("try"):
        raise ValueError


# --- the doors ---


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_command_ends_with_70_one_line_and_a_file(
    error: Exception,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(LEAVES["schema"], "callback", fail)
    assert cli.status(["schema"]) == 70
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "Traceback" not in said
    assert str(the_file(tmp_path)) in said


@pytest.mark.parametrize(
    ("end", "code"), [(SystemExit(3), 3), (KeyboardInterrupt(), 130), (GuestError("boot"), 4)]
)
def test_other_ends_of_a_command_keep_their_exit_code(
    end: BaseException, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise end

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(LEAVES["schema"], "callback", fail)
    assert cli.status(["schema"]) == code
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("redirected", "code"),
    [("| true", 141), (">&-", 0), (">/dev/full", 5), ("<&- 2>&-", 0), ("| cat", 0)],
)
def test_standard_streams_that_are_closed_full_or_not_read(redirected: str, code: int) -> None:
    line = f"set -o pipefail; {shlex.quote(sys.executable)} -m migrate.cli schema {redirected}"
    ended = subprocess.run(
        ["bash", "-c", line], check=False, cwd=ROOT, capture_output=True, text=True
    )
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    "environment",
    [
        ["-u", "HOME", "-u", "PATH"],
        ["COLUMNS=0"],
        ["COLUMNS=-3", "LINES=x", "TERM=", "LC_ALL=C", "PYTHONUTF8=0", "PYTHONCOERCECLOCALE=0"],
        ["TMPDIR=/nowhere", "TEMP=", "TMP="],
    ],
    ids=lambda words: " ".join(words)[:30],
)
@pytest.mark.parametrize("words", [("show", "--inside"), ("trend",)])
def test_an_odd_environment_changes_nothing(
    environment: list[str], words: tuple[str, ...], tmp_path: Path, migrate_lab: Run
) -> None:
    synthetic.write_run(tmp_path, [synthetic.attempt(synthetic.case())])
    prefix = ["/usr/bin/env", *environment]
    ended = migrate_lab(*words, "--results", tmp_path, prefix=prefix)
    assert ended.status == 0, ended.err
    assert "Traceback" not in ended.err


# --- an attempt ---


def test_an_attempt_that_meets_one_is_none_and_the_run_goes_on(
    going: session.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def fail(wanted: object, number: int, *_: object) -> None:
        tried.append(f"{wanted.id}/{number}")  # type: ignore[attr-defined]
        raise KeyError("queue")

    monkeypatch.setattr(session, "attempt", fail)
    going.try_all([case("one"), case("two")], 2)
    assert tried == ["one-virtio/1", "two-virtio/1", "one-virtio/2", "two-virtio/2"]
    mishaps = read_run(going.folder).run.mishaps
    assert [mishap.exit_code for mishap in mishaps] == [70] * 4
    assert "KeyError: 'queue'" in mishaps[0].problem.said
    assert len([*going.folder.glob("migrate-lab-error-*.txt")]) >= 4
    assert going.exit_code == 70


def test_an_attempt_whose_analysis_met_one_is_void_and_the_run_ends_with_70(
    going: session.Session,
) -> None:
    attempt = synthetic.attempt(
        synthetic.case(), void=("not analysed",), bug_report="bug-report.txt"
    )
    going.attempts.append(attempt)
    assert going.exit_code == 70


def test_an_old_attempt_that_can_not_be_judged_anew_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("queue")

    monkeypatch.chdir(tmp_path)
    writer = synthetic.write_run(tmp_path / "r", [synthetic.attempt(synthetic.case())])
    (record,) = read_run(writer.folder).attempts
    monkeypatch.setattr(reanalysis, "read_recording", lambda _folder: object())
    monkeypatch.setattr(reanalysis, "analyse", fail)
    judged = reanalysis.reanalyse(record)
    assert "KeyError" in judged.reason
    assert reanalysis.exit_code([judged]) == 70
