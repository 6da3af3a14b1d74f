"""A night: its budget, what it tries first, what it leaves, and that it goes on after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, cast

import click
import pytest

from migrate.campaign import nightly, session
from migrate.campaign.nightly import (
    Night,
    NightRequest,
    clean_lab,
    duration,
    night,
    past_tries,
    read_history,
    resumed_run,
)
from migrate.campaign.priority import PastReport, PastTry, report_s
from migrate.campaign.progress import Progress
from migrate.campaign.session import Session, begin
from migrate.cli.options import Duration
from migrate.errors import ConfigurationError, HostError
from migrate.lab import manager
from migrate.lab.api import Host, Lab
from migrate.lab.local.config import LocalConfig
from migrate.lab.local.lab import LocalLab
from migrate.model import (
    Attempt,
    AttemptError,
    Case,
    Plan,
    Problem,
    QuarantineEntry,
    Skip,
    UnreachedTries,
)
from migrate.report.table import run_table
from migrate.report.table_text import plain
from migrate.report.unreached import unreached_lines
from migrate.results.layout import PARTIAL
from migrate.results.reader import read_run
from migrate.results.writer import RunWriter
from migrate.scenario.loader import parse
from selftests.command_line import Run, started
from selftests.doubles import synthetic
from selftests.helpers import ROOT, SaidSoFar, traces

NOW = 1_800_000_000.0
EPOCH = datetime.fromtimestamp(NOW, UTC).isoformat()
VERSIONS = nightly.versions_of(synthetic.run().hosts)
NO_LAB = cast("Lab", None)
PAIR = (cast("Host", None), cast("Host", None))


@dataclass(slots=True)
class StandIn(Session):
    """Takes an attempt's time from a clock of its own, and writes what a real one writes."""

    clock: float = NOW
    takes_s: float = 60.0
    broken: tuple[str, ...] = ()
    interrupted_at: int = 0

    def place(self, case: Case) -> tuple[Host, Host] | Skip:
        return Skip(case=case, reason="not here", remedy="move") if case.needs else PAIR

    def attempt(self, case: Case, number: int, *pairs: tuple[Host, Host]) -> Attempt:
        assert pairs == (PAIR,)
        if len(self.attempts) + 1 == self.interrupted_at:
            raise KeyboardInterrupt
        self.clock += self.takes_s
        if case.id in self.broken:
            self._note(case, number, HostError("start", host="alpha", said="it burns"))
            raise HostError("start", host="alpha", said="it burns")
        done = synthetic.attempt(case, number)
        self.writer.write_attempt(done)
        self.attempts.append(done)
        return done


def stand_in(folder: Path, **fields: Any) -> StandIn:
    writer = RunWriter.create(folder, synthetic.run(skips=(), began=EPOCH))
    return StandIn(NO_LAB, writer.run.hosts, writer, Progress(quiet=True), **fields)


def cases(*names: str) -> list[Case]:
    return [synthetic.case("virtio", name) for name in names]


Histories = Mapping[str, list[PastTry]] | None


AT_ONCE = (PastReport(attempts=1000, seconds=0.0),)
"""Reports that took no time."""


def go(
    going: StandIn,
    of: list[Case],
    budget_s: float,
    repeat: int = 1,
    past: Histories = None,
    reports: Sequence[PastReport] = AT_ONCE,
) -> None:
    """A night of ``budget_s``; ``past`` by the case's name."""
    until = datetime.fromtimestamp(NOW + budget_s, UTC).isoformat()
    history = {f"{name}-virtio": found for name, found in (past or {}).items()}
    plan = Plan(until=until, repeat=repeat)
    Night(going, of, plan, history, reports, lambda: going.clock).go()


def tried(going: Session) -> list[tuple[str, int]]:
    return [(one.case.id.removesuffix("-virtio"), one.number) for one in going.attempts]


def earlier(passed: bool = True, seconds: float = 60.0) -> list[PastTry]:
    return [PastTry(NOW - 86400, passed, VERSIONS, seconds, 100.0)]


# --- the budget, with a clock of its own ---


def test_all_is_tried_where_there_is_time(tmp_path: Path, told: SaidSoFar) -> None:
    going = stand_in(tmp_path)
    go(going, cases("a", "b"), 3600, repeat=2)
    assert sorted(tried(going)) == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]
    assert going.run.not_reached == ()
    assert going.exit_code == 0
    assert "[1/4, 1 h 0 min left] a-virtio, attempt 1" in told
    assert "[4/4, 57 min left]" in told
    assert "about 60 s (assumed: no try in this lab is known yet): never tried in this lab" in told


def test_what_fails_is_first_and_what_there_is_no_time_for_is_told(
    tmp_path: Path, told: SaidSoFar
) -> None:
    going = stand_in(tmp_path)
    past = {"a": earlier(), "b": earlier(passed=False), "c": earlier()}
    go(going, cases("a", "b", "c"), 150, past=past)
    assert tried(going) == [("b", 1), ("a", 1)]
    (missed,) = read_run(going.writer.folder).run.not_reached
    assert (missed.case_id, missed.tries, missed.expected_s) == ("c-virtio", 1, 60.0)
    assert missed.reason == "for lack of time"
    assert going.exit_code == 0, "it fails no run"
    shown = plain(run_table(going.run, going.attempts))
    assert "Not run: c-virtio (1 try, about 60 s; 30 s were left)" in shown
    going.finish()
    said = (going.writer.folder / "junit.xml").read_text()
    assert "not run: 1 try, about 60 s; 30 s were left" in said


def test_the_reports_time_is_in_the_budget(tmp_path: Path, told: SaidSoFar) -> None:
    """Two tries of a minute, and a report of the two that takes ten seconds."""
    reports = (PastReport(attempts=2, seconds=10.0),)
    short, enough = stand_in(tmp_path / "short"), stand_in(tmp_path / "enough")
    go(short, cases("a", "b"), 129, reports=reports)
    assert len(tried(short)) == 1
    (missed,) = short.run.not_reached
    assert (missed.reason, missed.left_s) == ("for lack of time", 59.0)
    go(enough, cases("a", "b"), 130, reports=reports)
    assert len(tried(enough)) == 2
    assert "2 min left] a-virtio" in told, "for tries"


def test_how_long_a_report_is_expected_to_take() -> None:
    assert report_s(10, ()) == 10.0, "assumed: 5 s, and half a second each"
    past = [PastReport(10, 4.0), PastReport(10, 5.0), PastReport(5, 60.0)]
    assert report_s(10, past) == 5.0, "the median"
    assert report_s(1, past) == 5.0, "one of fewer attempts as long"
    assert report_s(100, past) == 50.0
    assert report_s(3, [PastReport(0, 2.0)]) == 6.0


def test_how_long_the_report_took_is_known_to_the_next_night(tmp_path: Path) -> None:
    going = stand_in(tmp_path)
    assert going.run.report_s is None
    going.attempt(cases("a")[0], 1, PAIR)
    going.finish()
    took_s = read_run(going.folder).run.report_s
    assert took_s is not None and took_s > 0
    assert read_history(tmp_path, going.run.lab).reports == (PastReport(1, took_s),)


def test_a_case_that_is_known_to_fail_comes_after_all_others(
    tmp_path: Path, told: SaidSoFar
) -> None:
    going = stand_in(tmp_path)
    entry = QuarantineEntry(
        case="a-*", owner="me", bug="1", expires=date(9999, 1, 1), reason="known to fail"
    )
    going.writer.change(quarantine=(entry,))
    go(going, cases("a", "b"), 190, repeat=2, past={"a": earlier(passed=False), "b": earlier()})
    assert tried(going) == [("b", 1), ("b", 2), ("a", 1)]
    assert "a-virtio, attempt 1, about 60 s: quarantined; its last try failed" in told


def test_what_is_too_short_for_any_try_says_what_was_assumed(
    tmp_path: Path, told: SaidSoFar
) -> None:
    going = stand_in(tmp_path)
    go(going, cases("a", "b"), 55, repeat=3)
    each = "3 tries, about 60 s each, assumed: no try in this lab is known yet"
    (line,) = unreached_lines(going.run.not_reached)
    assert line == f"Not run: a-virtio ({each}), b-virtio ({each}); 55 s were left"


def test_what_was_not_run_in_words() -> None:
    fields = {"case_id": "moves-vhost-user", "tries": 3, "expected_s": 11.0}
    short = UnreachedTries(**fields, reason="for lack of time", left_s=5.0)
    old = UnreachedTries(**fields, reason="for lack of time")
    cut = UnreachedTries(**fields, reason="interrupted", left_s=900.0)
    assert [*unreached_lines([short])] == [
        "Not run: moves-vhost-user (3 tries, about 11 s each; 5 s were left)"
    ]
    assert [*unreached_lines([old])] == ["Not run: moves-vhost-user (3 tries, about 11 s each)"]
    assert [*unreached_lines([cut])] == [
        "Not run, interrupted: moves-vhost-user (3 tries, about 11 s each)"
    ]


def test_what_does_not_fit_is_passed_over_for_what_does(tmp_path: Path, told: SaidSoFar) -> None:
    going = stand_in(tmp_path)
    go(going, cases("long", "short"), 100, past={"long": earlier(False, 500), "short": earlier()})
    assert tried(going) == [("short", 1)]
    assert [one.case_id for one in going.run.not_reached] == ["long-virtio"]


def test_no_time_at_all_is_no_proof(tmp_path: Path, told: SaidSoFar) -> None:
    going = stand_in(tmp_path)
    go(going, cases("a"), 10)
    assert (tried(going), going.exit_code) == ([], session.NOTHING_RAN)
    assert [one.tries for one in going.run.not_reached] == [1]


def test_a_case_that_leaves_no_attempt_is_not_tried_for_ever(
    tmp_path: Path, told: SaidSoFar
) -> None:
    going = stand_in(tmp_path, broken=("a-virtio",))
    go(going, cases("a", "b"), 3600, repeat=2)
    assert tried(going) == [("b", 1), ("b", 2)]
    assert [one.number for one in going.run.mishaps] == [1, 2]
    assert going.exit_code == 3
    assert "no attempt: start on host alpha: it burns" in told


def test_a_case_that_can_not_run_here_is_skipped_once(tmp_path: Path, told: SaidSoFar) -> None:
    going = stand_in(tmp_path)
    wanted = [synthetic.case("virtio", "a", needs=["moon"]), *cases("b")]
    go(going, wanted, 3600)
    go(going, wanted, 3600)
    assert [skip.case.id for skip in going.run.skips] == ["a-virtio"]
    assert tried(going) == [("b", 1)]


def test_an_interrupt_says_what_is_left_and_goes_on_to_the_caller(
    tmp_path: Path, told: SaidSoFar
) -> None:
    going = stand_in(tmp_path, interrupted_at=2)
    with pytest.raises(KeyboardInterrupt):
        go(going, cases("a", "b"), 3600)
    assert [(one.case_id, one.reason) for one in going.run.not_reached] == [
        ("b-virtio", "interrupted")
    ]
    going.interrupted_at = 0
    go(going, cases("a", "b"), 3600)
    assert tried(going) == [("a", 1), ("b", 1)]
    assert going.run.not_reached == ()


@pytest.mark.parametrize(
    ("text", "seconds"), [("8h", 28800), ("1h30min", 5400), ("1h 5m", 3900), ("45s", 45)]
)
def test_a_length_of_time(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "8", "h", "0h", "8 days", "-1h", "1.5h", "5h x"])
def test_what_is_no_length_of_time(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Duration().convert(text, None, None)


def test_what_is_left_in_words() -> None:
    assert [duration(s) for s in (11400, 720, 59.9, -1)] == ["3 h 10 min", "12 min", "59 s", "0 s"]


# --- history ---


def test_the_history_is_that_of_the_lab_and_a_damaged_run_is_told(
    tmp_path: Path, told: SaidSoFar
) -> None:
    one = synthetic.case()
    problem = Problem(tried="start")
    mishap = AttemptError(case_id="other", number=1, problem=problem, exit_code=4)
    synthetic.write_run(tmp_path, [synthetic.attempt(one, 1)], name="1", mishaps=[mishap])
    synthetic.write_run(tmp_path, [synthetic.attempt(one, 1, gaps=None)], name="2", began=EPOCH)
    synthetic.write_run(tmp_path, [synthetic.attempt(one, 1)], name="3", lab="elsewhere")
    cut = synthetic.write_run(tmp_path, [], name="4").folder
    (cut / "run.json").write_text('{"lab": "local"')
    found = read_history(tmp_path, "local").tries
    assert sorted(found) == ["other", one.id]
    first, second = found[one.id]
    assert (first.passed, first.versions, first.outage_ms) == (True, VERSIONS, 810.0)
    assert (second.at_s, second.outage_ms) == (NOW, None)
    assert first.at_s < second.at_s
    assert first.seconds == pytest.approx(5.5, abs=0.1)
    assert (found["other"][0].passed, found["other"][0].seconds) == (False, None)
    assert "not in the history: 4" in told


def test_no_gap_above_the_floor_is_a_measurement() -> None:
    ((_, past),) = past_tries(synthetic.run(), [synthetic.attempt(synthetic.case(), gaps=())])
    assert past.outage_ms == 0.0


# --- resuming ---

SMALL = 'name = "small"\n[interface]\nmode = "virtio"\n'


def request(folder: Path, name: str, budget_s: float | None = None) -> NightRequest:
    scenarios = [parse(SMALL, "small.toml")]
    return NightRequest(LocalConfig(name=name), folder, scenarios, budget_s, repeat=1)


def planned(folder: Path, hours: float = 1, **fields: Any) -> RunWriter:
    until = datetime.now(UTC).timestamp() + 3600 * hours
    plan = Plan(until=datetime.fromtimestamp(until, UTC).isoformat(), repeat=1)
    good = {"plan": plan, "scenarios": {"small.toml": SMALL}, "lab": "paper"}
    return synthetic.write_run(folder, [synthetic.attempt(synthetic.case())], **(good | fields))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"plan": None}, "it is no nightly run in the lab paper"),
        ({"lab": "rack"}, "it is no nightly run in the lab paper"),
        ({"hours": -1}, "its time was over at"),
    ],
)
def test_what_can_not_be_resumed(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    planned(tmp_path, **fields)
    with (
        pytest.raises(ConfigurationError, match=said),
        resumed_run("latest", request(tmp_path, "paper")),
    ):
        raise AssertionError


def test_a_run_whose_time_is_over_gets_another_one(tmp_path: Path) -> None:
    writer = planned(tmp_path, hours=-1)
    with resumed_run("latest", request(tmp_path, "paper", 60)) as found:
        until = datetime.fromisoformat(found.plan.until).timestamp()
        assert until == pytest.approx(datetime.now(UTC).timestamp() + 60, abs=30)
    assert read_run(writer.folder).run.plan == found.plan


def test_what_was_cut_off_is_removed_and_what_is_finished_stays(tmp_path: Path) -> None:
    writer = planned(tmp_path)
    partial = writer.attempt_folder(synthetic.case("vdpa"), 1)
    (partial / "log").touch()
    (writer.folder / ".junit.xml.part").touch()
    before = read_run(writer.folder)
    assert before.unfinished
    with resumed_run("latest", request(tmp_path, "paper")) as found:
        assert [case.id for case in found.cases] == ["small"]
        assert found.attempts == tuple(one.attempt for one in before.attempts)
    assert not list(writer.folder.rglob(f"{PARTIAL}*"))
    assert not list(writer.folder.rglob("*.part"))
    assert read_run(writer.folder).attempts == before.attempts


def test_two_processes_at_one_folder_are_refused(tmp_path: Path) -> None:
    writer = planned(tmp_path)
    partial = writer.attempt_folder(synthetic.case("vdpa"), 1)
    with resumed_run("latest", request(tmp_path, "paper")):
        again = resumed_run("latest", request(tmp_path, "paper"))
        partial.mkdir()
        with pytest.raises(ConfigurationError, match=f"held by process {os.getpid()}"), again:
            raise AssertionError
        assert partial.exists(), "the other one's attempt is left alone"


def test_other_versions_are_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = planned(tmp_path)
    hosts = writer.run.hosts
    monkeypatch.setattr(session, "look", lambda _lab: hosts)
    with resumed_run("latest", request(tmp_path, "paper")) as found:
        begun = begin(NO_LAB, found, Progress(quiet=True))
        assert (begun.run.plan, len(begun.attempts)) == (writer.run.plan, 1)
        hosts = (hosts[0].model_copy(update={"versions": {"qemu": "11"}}), *hosts[1:])
        with pytest.raises(ConfigurationError, match="versions have changed"):
            begin(NO_LAB, found, Progress(quiet=True))


KILLED = """
import os, signal, sys
from pathlib import Path
from selftests.campaign import test_nightly as it
from selftests.helpers import SaidSoFar

class Killed(it.StandIn):
    def attempt(self, case, number, pair):
        if len(self.attempts) == 2:
            (self.writer.attempt_folder(case, number) / "half").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().attempt(case, number, pair)

writer = it.RunWriter.create(Path(sys.argv[1]), it.synthetic.run(skips=(), began=it.EPOCH))
going = Killed(None, writer.run.hosts, writer, it.Progress(quiet=True))
it.go(going, it.cases("a", "b", "c", "d"), 3600)
"""


def test_a_killed_night_goes_on_where_it_was(tmp_path: Path, told: SaidSoFar) -> None:
    argv = [sys.executable, "-c", KILLED, str(tmp_path)]
    done = subprocess.run(argv, cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    (folder,) = tmp_path.iterdir()
    before = read_run(folder)
    assert (len(before.attempts), len(before.unfinished)) == (2, 1)
    writer, attempts = RunWriter.resume(folder)
    going = StandIn(NO_LAB, writer.run.hosts, writer, Progress(quiet=True), list(attempts))
    go(going, cases("a", "b", "c", "d"), 3600)
    assert sorted(tried(going)) == [("a", 1), ("b", 1), ("c", 1), ("d", 1)]
    assert "[3/4," in told
    assert "[1/4," not in told
    after = read_run(folder)
    assert (len(after.attempts), after.unfinished) == (4, ())


# --- on a lab ---


def words(folder: Path, lab_name: str) -> tuple[object, ...]:
    """A night in a lab without huge pages."""
    lab = folder / "lab.toml"
    lab.write_text(f'name = "{lab_name}"\n[hosts.a]\nhuge_pages = 0\n[hosts.b]\nhuge_pages = 0\n')
    return ("nightly", "--lab", lab, "--results", folder / "results")


def test_killed_in_the_second_attempt_and_resumed_on_a_lab(
    lab_name: str, tmp_path: Path, migrate_lab: Run
) -> None:
    scenario, junit = tmp_path / "small.toml", tmp_path / "out" / "junit.xml"
    scenario.write_text(SMALL + "[workload]\nsettle_s = 1\n")
    line = words(tmp_path, lab_name)
    new = ("--budget", "1h", "--repeat", 2, "--junit", junit)
    with started(*line, scenario, *new) as command:
        command.await_line("moving the guest", times=2)
        command.kill()
        command.wait()
    (folder,) = (tmp_path / "results").iterdir()
    first = folder / "cases" / "small" / "1" / "attempt.json"
    before = first.stat()
    scenario.unlink()  # it is in the run
    ended = migrate_lab(*line, "--resume", "latest", "--json", "--junit", junit)
    assert ended.status == 0, ended.err
    assert "taking the lab down, for what was left in it" in ended.err
    assert "[1/2" not in ended.err
    assert "[2/2, " in ended.err
    document = json.loads(ended.out)
    assert [one["number"] for one in document["attempts"]] == [1, 2]
    assert document["run"]["not_reached"] == document["unfinished"] == []
    assert (first.stat().st_ino, first.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert junit.read_bytes() == (folder / "junit.xml").read_bytes()
    assert (folder / "report.html").exists()
    assert traces(lab_name) == []


def test_interrupted_a_night_has_its_report(lab_name: str, tmp_path: Path) -> None:
    scenario, junit = tmp_path / "small.toml", tmp_path / "junit.xml"
    scenario.write_text(SMALL)
    line = words(tmp_path, lab_name)
    with started(*line, scenario, "--budget", "1h", "--junit", junit) as command:
        command.await_line("[1/3, ")
        command.interrupt()
        ended = command.wait()
    assert ended.status == 130, ended.err
    assert "Traceback" not in ended.err
    (folder,) = (tmp_path / "results").iterdir()
    assert (folder / "report.html").exists()
    assert junit.exists()
    (missed,) = read_run(folder).run.not_reached
    assert (missed.tries, missed.reason) == (3, "interrupted")
    assert traces(lab_name) == []


def test_a_clean_lab_is_left_up(
    shared_lab: LocalLab, told: SaidSoFar, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean_lab(shared_lab.record.config)
    assert told.lines == []
    down: list[LocalConfig] = []
    monkeypatch.setattr("migrate.campaign.nightly.leftovers", lambda _hosts: ("a guest",))
    monkeypatch.setattr(manager, "down", down.append)
    clean_lab(shared_lab.record.config)
    assert down == [shared_lab.record.config]
    assert "for what was left in it: a guest" in told


def test_known_failures_and_expired_entries_decide_the_exit_code(
    shared_lab: LocalLab, tmp_path: Path, migrate_lab: Run
) -> None:
    scenario, known = tmp_path / "small.toml", tmp_path / "quarantine.toml"
    scenario.write_text(SMALL + "[expect]\noutage_egress_ms = 0.001\n")
    entry = '[[quarantine]]\ncase = "small"\ncheck = "outage.egress"\nowner = "Ada"\n'
    entry += 'bug = "7"\nreason = "slow"\nexpires = '
    line = ("run", scenario, "--name", shared_lab.name, "--results", tmp_path / "results")
    known.write_text(entry + "2999-01-01\n")
    ended = migrate_lab(*line, "--quarantine", known)
    assert ended.status == 0, ended.err
    assert "quarantined small/1: outage.egress " in ended.out
    known.write_text(entry + "2020-01-01\n")
    ended = migrate_lab(*line, "--set", "expect.outage_egress_ms=9000", "--quarantine", known)
    assert ended.status == 1, ended.err
    assert "expired on 2020-01-01, so it fails the run: Ada must fix 7" in ended.out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "how long may it take?"),
        (("--budget", "soon"), "is no length of time"),
        (("--resume", "latest", "--repeat", "2"), "give none of them"),
        (("--resume", "latest"), "runs there: 0"),
        (("--budget", "1h", "--junit", "/proc/no/junit.xml"), "write --junit /proc/no"),
        (("--budget", "1h", "--quarantine", "nowhere.toml"), "read the quarantine list"),
    ],
)
def test_refusals(more: tuple[str, ...], said: str, tmp_path: Path, migrate_lab: Run) -> None:
    lab = ("--lab", ROOT / "labs/local.toml")
    ended = migrate_lab("nightly", *lab, "--results", tmp_path, *more)
    assert ended.status == (5 if "runs there" in said else 2), ended.err
    assert said in ended.err


def test_a_night_that_finds_no_lab_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_lab(*_: object, **_more: object) -> None:
        raise HostError("bring the lab up", said="no")

    monkeypatch.setattr(manager, "up", no_lab)
    with pytest.raises(HostError), night(request(tmp_path, "paper", 60), Progress(quiet=True)):
        raise AssertionError
    assert list(tmp_path.iterdir()) == []
