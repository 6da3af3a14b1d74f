"""Every shipped scenario is run by ``./check --all``, and what comes of each is in its table."""

from __future__ import annotations

import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from migrate.checks import quarantine
from migrate.model import Case, Interface, Verdict
from migrate.report.junit import junit
from migrate.scenario.loader import load
from selftests.doubles import synthetic
from selftests.helpers import ROOT, SCENARIOS
from testcases import shipped


def names(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.toml")}


def test_every_scenario_and_every_lab_that_is_shipped_is_run_or_says_why_not() -> None:
    assert {name for scenarios in shipped.FOR.values() for name in scenarios} == names(SCENARIOS)
    assert {*shipped.FOR, *shipped.NOT_RUN} == names(ROOT / "labs")


PROGRAM = """#!/bin/sh
echo "$@" >>{folder}/asked
while [ $# -gt 0 ]; do
    case $1 in
    up) status={up} ;;
    run) status={run} ;;
    --junit) cp {folder}/report.xml "$2" ;;
    esac
    shift
done
echo "the last words" >&2
exit ${{status:-0}}
"""


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    """Where the stand-in for ``migrate-lab`` writes what it was asked for."""
    return tmp_path / "asked"


def stand_in(
    folder: Path, patch: pytest.MonkeyPatch, *, up: int = 0, run: int = 0, report: bytes = b""
) -> None:
    """A Python that takes all programs for this one."""
    (folder / "report.xml").write_bytes(
        report or junit(synthetic.run(), [synthetic.attempt(synthetic.case())])
    )
    program = folder / "python"
    program.write_text(PROGRAM.format(folder=folder, up=up, run=run))
    program.chmod(0o755)
    patch.setattr(sys, "executable", str(program))


def test_a_lab_is_brought_up_once_and_taken_down(
    tmp_path: Path, asked: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(tmp_path, monkeypatch)
    assert shipped.main(["--lab", "oldest", "--results", str(tmp_path)]) == 0
    words = [line.split()[2:4] for line in asked.read_text().splitlines()]
    runs = [["run", f"testcases/scenarios/{name}.toml"] for name in shipped.FOR["oldest"]]
    assert words == [["lab", "up"], *runs, ["lab", "down"]]
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["scenario", "lab", "verdicts", "time,", "s"]
    assert lines[0].split()[:4] == ["quickstart", "oldest", "passed", "1,"]
    assert "not run: rack: " in lines[-1]


def test_what_failed_is_told_and_the_rest_is_run_all_the_same(
    tmp_path: Path, asked: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(tmp_path, monkeypatch, run=2, report=b"<testsuite/>")
    assert shipped.main(["--lab", "oldest", "--results", str(tmp_path)]) == 1
    assert len(asked.read_text().splitlines()) == 4
    out = capsys.readouterr().out
    assert out.count("failed on oldest: exit code 2: the last words") == 2


def test_a_lab_that_does_not_come_up_fails_its_scenarios(
    tmp_path: Path, asked: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(tmp_path, monkeypatch, up=3)
    assert shipped.main(["--scenario", "versions", "--results", str(tmp_path)]) == 1
    assert [line.split()[3] for line in asked.read_text().splitlines()] == ["up", "down"]
    assert "versions  versions  failed 1" in capsys.readouterr().out


def test_a_reason_for_skips_is_told_once() -> None:
    skips = ("a: no card; buy one", "b: no card; buy one")
    lines = shipped.table([shipped.Row("modes", "local", 2.4, 1, (), skips)]).splitlines()
    assert lines[1].split() == ["modes", "local", "passed", "1,", "skipped", "2", "2"]
    assert lines[2] == "skipped on local: a, b: no card; buy one"


def test_a_known_failure_is_told_as_one_and_fails_nothing(
    tmp_path: Path, asked: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (entry,) = quarantine.load(ROOT / "testcases/quarantine/nested-virtio.toml")
    hung = Verdict(check="outcome", result="fail", measured="failed", limit="completed")
    reattach = Case(id="hostdev-reattach", interface=Interface(mode="hostdev"))
    run = synthetic.run(quarantine=(entry,))
    stand_in(
        tmp_path,
        monkeypatch,
        report=junit(run, [synthetic.attempt(reattach, outcome="failed", verdicts=(hung,))]),
    )
    assert shipped.main(["--lab", "nested-virtio", "--results", str(tmp_path)]) == 0
    (line,) = [line for line in asked.read_text().splitlines() if " run " in line]
    assert "--quarantine testcases/quarantine/nested-virtio.toml" in line
    out = capsys.readouterr().out
    assert "hostdev   nested-virtio  known failure 1" in out
    assert "known failure on nested-virtio: hostdev-reattach[1]: quarantined: docs/" in out


def test_a_quarantine_list_is_of_a_lab_and_covers_cases_that_it_runs() -> None:
    for path in (ROOT / "testcases/quarantine").glob("*.toml"):
        cases = [
            case.id
            for name in shipped.FOR[path.stem]
            for case in load(SCENARIOS / f"{name}.toml").cases
        ]
        for entry in quarantine.load(path):
            assert any(fnmatchcase(case, entry.case) for case in cases)


def test_an_interrupt_takes_the_lab_down_and_prints_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, ...]] = []

    def call(_self: shipped.Program, *words: str) -> int:
        asked.append(words[:2])
        if words[1:2] == ("testcases/scenarios/ping-pong.toml",):
            raise KeyboardInterrupt
        return 0

    monkeypatch.setattr(shipped.Program, "__call__", call)
    assert shipped.main(["--lab", "oldest", "--results", str(tmp_path)]) == 130
    assert asked[-1] == ("lab", "down")
    assert "quickstart" in capsys.readouterr().out
