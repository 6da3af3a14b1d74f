"""The command line, as its users start it: exit codes, JSON, plain text, refusals."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import click
import pytest

from migrate.campaign.session import Session
from migrate.cli import main as cli
from migrate.cli import run
from migrate.errors import GuestError
from migrate.guest.domain_xml import CONSOLE
from migrate.lab.local.lab import LocalLab
from migrate.model import AttemptError, Case, Problem
from migrate.stage.stage import Stage
from selftests.command_line import Run
from selftests.doubles import synthetic
from selftests.doubles.keyboard import at_keyboard
from selftests.helpers import SCENARIOS

ONE = (SCENARIOS / "quickstart.toml", "--set", "interface.mode=virtio")
ESCAPE = "\x1b"


@pytest.fixture
def in_lab(shared_lab: LocalLab, tmp_path: Path) -> tuple[object, ...]:
    """Where to run: a lab that is up already, and stays."""
    return ("--name", shared_lab.name, "--results", tmp_path)


# --- runs ---


def test_a_run_that_passes(in_lab: tuple[object, ...], tmp_path: Path, migrate_lab: Run) -> None:
    ended = migrate_lab("run", *ONE, *in_lab)
    assert ended.status == 0, ended.err
    assert "PASS: 1 of 1 attempts passed" in ended.out
    assert ESCAPE not in ended.out + ended.err
    (folder,) = tmp_path.iterdir()
    assert f"run folder: {folder}\n" in ended.out
    assert (folder / "report.html").exists()
    assert (folder / "junit.xml").exists()
    shown = migrate_lab("show", "--results", tmp_path)
    assert (shown.status, shown.out) == (0, ended.out.partition("run folder:")[0])
    reported = migrate_lab("report", "--json", "--results", tmp_path)
    assert json.loads(reported.out) == {"report": str(folder / "report.html")}


@pytest.mark.parametrize(
    "words",
    [
        ("run", SCENARIOS / "modes.toml"),
        ("compare", "--modes", "virtio"),
        ("compare", "--modes", "virtio", "--scenario", SCENARIOS / "modes.toml"),
    ],
)
def test_a_labs_own_workload_is_that_of_its_cases(
    words: tuple[object, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lab = tmp_path / "slow.toml"
    lab.write_text('kind = "nested"\n[workload]\ninterval_us = 7000\nsettle_s = 5\n')
    cases: list[Case] = []
    monkeypatch.setattr(
        run, "_run", lambda _config, files, *_: cases.extend(c for f in files for c in f.cases)
    )
    line = [*map(str, words), "--lab", str(lab), "--set", "workload.settle_s=2"]
    cli.cli(line, standalone_mode=False)
    assert cases
    found = {(case.workload.interval_us, case.workload.settle_s) for case in cases}
    assert found == {(7000, 2)}


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ((), None),
        (("--wait-quiet",), 300),
        (("--wait-quiet=1h30min",), 5400),
        (("--wait-quiet", "--repeat", "2"), 300),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_how_long_to_wait_for_a_quiet_machine(
    words: tuple[str, ...], seconds: float | None, first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scenario after the option is none of its value."""
    waits: list[float | None] = []
    monkeypatch.setattr(
        run, "_run", lambda _config, _files, given, *_: waits.append(given.wait_quiet)
    )
    scenario = str(SCENARIOS / "modes.toml")
    line = ["run", *words, scenario] if first else ["run", scenario, *words]
    cli.cli(line, standalone_mode=False)
    assert waits == [seconds]


@pytest.mark.parametrize("word", ["--wait-quiet=soon", "--wait-quiet=0s"])
def test_what_is_no_time_to_wait(word: str) -> None:
    with pytest.raises(click.UsageError, match="no length of time"):
        cli.cli(["run", word, str(SCENARIOS / "modes.toml")], standalone_mode=False)


def test_a_verdict_that_fails_is_exit_code_1(in_lab: tuple[object, ...], migrate_lab: Run) -> None:
    ended = migrate_lab("run", *ONE, "--set", "expect.outage_egress_ms=0.001", "--json", *in_lab)
    assert ended.status == 1, ended.err
    (attempt,) = json.loads(ended.out)["attempts"]
    failed = [v["check"] for v in attempt["verdicts"] if v["result"] != "pass"]
    assert (attempt["passed"], failed) == (False, ["outage.egress"])
    assert "FAIL: outage.egress " in ended.err


def test_a_run_of_nothing_but_skips_is_exit_code_3(
    in_lab: tuple[object, ...], migrate_lab: Run
) -> None:
    ended = migrate_lab("run", *ONE, "--set", "needs=['moonlight']", "--json", *in_lab)
    assert ended.status == 3, ended.err
    document = json.loads(ended.out)
    assert document["attempts"] == []
    (skip,) = document["run"]["skips"]
    assert skip["reason"] == "not looked for"
    assert "can't run in this lab: not looked for; it needs: " in ended.err


def test_compare_tells_what_it_could_not_compare(
    in_lab: tuple[object, ...], migrate_lab: Run
) -> None:
    ended = migrate_lab("compare", "--modes", "virtio,failover", *in_lab)
    assert ended.status == 0, ended.err
    assert "compare-failover" in ended.out
    assert "PASS: 1 of 1 attempts passed" in ended.out


# --- the lab ---


def test_a_shell_on_a_host(shared_lab: LocalLab, migrate_lab: Run) -> None:
    name = ("--name", shared_lab.name)
    ended = migrate_lab("lab", "shell", *name, "b", "--", "hostname")
    assert (ended.status, ended.out) == (0, "b\n")
    assert migrate_lab("lab", "shell", *name, "b", "--", "sh", "-c", "exit 7").status == 7
    ended = migrate_lab("lab", "shell", *name, "c")
    assert ended.status == 2
    assert "no such host -- a, b" in ended.err


def test_a_shell_at_a_terminal_has_one_of_its_own(shared_lab: LocalLab) -> None:
    """And so `virsh console` shows the guest's console, and virsh says nothing of polkit."""
    shell = [sys.executable, "-m", "migrate.cli", "lab", "shell", "--name", shared_lab.name, "b"]
    with at_keyboard([*shell, "--", "sh", "-c", "tty; stty size; exit 7"]) as keyboard:
        assert keyboard.wait() == 7
        assert re.search(r"/dev/pts/[0-9]+\r\n37 91\r\n", keyboard.screen), keyboard.screen
    with at_keyboard(shell) as keyboard:
        keyboard.await_text("# ")
        keyboard.type("virsh uri; exit 4\n")
        assert keyboard.wait() == 4
        assert "qemu:///system" in keyboard.screen
        assert not re.search("polkit|authority|agent", keyboard.screen), keyboard.screen


def test_virsh_console_shows_the_guests_console(going: Session) -> None:
    case = Case(id="console")
    pair = going.place(case)
    assert isinstance(pair, tuple)
    with going.build_world(case, pair) as world:
        stage = Stage(world)
        name, host = going.lab.name, stage.source.name
        shell = [sys.executable, "-m", "migrate.cli", "lab", "shell", "--name", name, host]
        with at_keyboard([*shell, "--", "virsh", "console", stage.guest.uuid]) as keyboard:
            keyboard.await_text("Escape character is ^]")
            stage.guest.succeed("echo hello from inside >/dev/console")
            keyboard.await_text("hello from inside")
            keyboard.type("\x1d")
            assert keyboard.wait() == 0
            assert "polkit" not in keyboard.screen
        assert "hello from inside" in stage.source.succeed(f"cat {CONSOLE}"), "it is logged, too"


def test_a_lab_that_is_up_says_so(shared_lab: LocalLab, migrate_lab: Run) -> None:
    name = ("--name", shared_lab.name)
    ended = migrate_lab("lab", "status", *name)
    assert ended.status == 0
    assert ended.out.splitlines()[0].startswith("a: root debian-13")
    assert json.loads(migrate_lab("lab", "status", "--json", *name).out)["complete"] is True
    assert migrate_lab("lab", "up", *name).out == f"{shared_lab.name} is up: a, b\n"


def test_a_lab_that_is_not_up(lab_name: str, migrate_lab: Run) -> None:
    name = ("--name", lab_name)
    ended = migrate_lab("lab", "status", *name)
    assert (ended.status, ended.out) == (3, f"{lab_name} is not up\n")
    ended = migrate_lab("lab", "status", "--json", *name)
    assert (ended.status, json.loads(ended.out)) == (3, None)
    ended = migrate_lab("lab", "shell", *name, "a")
    assert (ended.status, "it is not up" in ended.err) == (2, True)
    assert migrate_lab("lab", "down", *name).status == 0, "nothing to do is no error"


def test_doctor_tells_each_host(shared_lab: LocalLab, migrate_lab: Run) -> None:
    ended = migrate_lab("doctor", "--json", "--name", shared_lab.name)
    assert ended.status == 0, ended.err
    hosts = json.loads(ended.out)
    assert [host["host"] for host in hosts] == ["a", "b"]
    for finding in (found for host in hosts for found in host["capabilities"]):
        assert finding["able"] or (finding["reason"] and finding["remedy"]), finding
    plain = migrate_lab("doctor", "--name", shared_lab.name)
    assert "virtio" in plain.out
    assert ESCAPE not in plain.out


# --- refusals ---


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "nothing.toml"], "read scenario nothing.toml"),
        (["run", *ONE, "--set", "policy.hopps=2"], "did you mean 'hops'?"),
        (["run", *ONE, "--set", "policy.hops=-1"], "policy.hops"),
        (["run", *ONE, "--lab", "nothing.toml"], "the lab file nothing.toml"),
        (["run", *ONE, "--name", "Not A Name"], "--name 'Not A Name'"),
        (["compare", "--modes", "virtio,virtio"], "there twice"),
        (["compare", "--modes", "token-ring"], "token-ring"),
        (["run"], "Missing argument"),
        (["run", *ONE, "--repeat", "0"], "--repeat"),
        (["dance"], "No such command"),
    ],
)
def test_nonsense_is_refused_before_a_host_is_touched(
    words: list[str], said: str, migrate_lab: Run
) -> None:
    ended = migrate_lab(*words)
    assert ended.status == 2, ended.err
    assert said in ended.err
    assert ended.out == ""
    assert "Traceback" not in ended.err
    assert "making namespaces" not in ended.err


def test_a_run_that_is_not_there_is_exit_code_5(tmp_path: Path, migrate_lab: Run) -> None:
    ended = migrate_lab("show", "--results", tmp_path)
    assert ended.status == 5
    assert ended.err.startswith(f"migrate-lab: find run latest in {tmp_path}: ")
    assert "run something first" in ended.err


@pytest.mark.needs_root  # to give it up
def test_without_root(tmp_path: Path, migrate_lab: Run) -> None:
    nobody = ["setpriv", "--reuid=65534", "--clear-groups", "--"]
    ended = migrate_lab("lab", "up", "--name", "nobody", prefix=nobody)
    assert ended.status == 3
    assert "run the same command with sudo" in ended.err
    assert len(ended.err.splitlines()) == 1


# --- what guests and hosts say ---


def test_hostile_text_reaches_no_terminal_and_leaves_json_whole(
    tmp_path: Path, migrate_lab: Run
) -> None:
    problem = Problem(tried="migrate to b", host="a", said=synthetic.HOSTILE)
    attempt = synthetic.attempt(synthetic.case(), outcome="failed", error=problem)
    verdict = attempt.verdicts[0].model_copy(update={"result": "fail", "evidence": problem.said})
    attempt = attempt.model_copy(update={"verdicts": (verdict,)})
    writer = synthetic.write_run(tmp_path, [attempt])
    mishap = AttemptError(case_id=attempt.case.id, number=2, problem=problem, exit_code=4)
    writer.update(writer.run.model_copy(update={"mishaps": (mishap,)}))
    plain = migrate_lab("show", "--results", tmp_path)
    assert plain.status == 0, plain.err
    assert "alert(1)" in plain.out, "it is told"
    assert all(letter.isprintable() or letter == "\n" for letter in plain.out)
    told = json.loads(migrate_lab("show", "--json", "--results", tmp_path).out)
    assert told["attempts"][0]["error"]["said"] == problem.said
    assert told["run"]["mishaps"][0]["problem"]["said"] == problem.said


def test_an_error_that_quotes_a_guest_reaches_no_terminal() -> None:
    error = GuestError("read the console", said=synthetic.HOSTILE, remedy="look\tat it")
    assert all(letter.isprintable() or letter == "\n" for letter in str(error))
    assert "alert(1)" in str(error)
    assert error.said == synthetic.HOSTILE.strip(), "the record keeps it as it was said"
