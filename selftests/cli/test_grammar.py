"""All commands read like one program's: an option has one spelling and one meaning, wherever it
is; what prints a result prints it as JSON, too; help texts are sentences."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from migrate.cli import run
from migrate.cli.main import cli, status
from migrate.lab import manager
from migrate.lab.local.lab import LocalLab
from migrate.model import Case
from selftests.command_line import LEAVES
from selftests.doubles import synthetic
from selftests.helpers import ROOT, SCENARIOS

OF_A_LAB = {
    *("run", "compare", "nightly", "doctor", "trend", "lease register", "lease show"),
    *(f"lab {verb}" for verb in ("prepare", "up", "status", "down", "shell", "ready", "repair")),
}
OF_CASES = {"run", "compare", "nightly", "analyze", "gate", "trend"}
OF_RUNS = OF_CASES | {"show", "report", "prune"}
MAKE_RUNS = {"run", "compare", "nightly"}
GRAMMAR = {
    "--lab": OF_A_LAB,
    "--name": OF_A_LAB,
    "--results": OF_RUNS,
    "--case": OF_CASES,
    "--attempt": {"analyze"},
    "--set": MAKE_RUNS,
    "--repeat": MAKE_RUNS,
    "--keep-lab": MAKE_RUNS,
    # What `lab shell` prints is its program's.
    "--json": set(LEAVES) - {"lab shell"},
    "--junit": {"run", "nightly"},
    "--quarantine": {"run", "nightly"},
    "--dry-run": {"prune", "lab repair"},
}
"""Which commands have an option: all in which it makes sense. ``show`` may have more."""
SELECT_BY = {"trend"}
"""Here `--lab` and `--name` choose among runs, and say so; spelled and read as elsewhere."""
ODD = ("anew", "wish", "lest", "Hold ", "tell ", "told", "had", "of one's")
"""Words that no help text has: there are plainer ones."""


def options(command: click.Command) -> dict[str, click.Option]:
    return {
        name: option
        for option in command.params
        if isinstance(option, click.Option)
        for name in option.opts
    }


@pytest.mark.parametrize("name", GRAMMAR)
def test_an_option_is_where_it_makes_sense_and_nowhere_else(name: str) -> None:
    having = {path for path, command in LEAVES.items() if name in options(command)}
    assert having - {"show"} == GRAMMAR[name] - {"show"}


@pytest.mark.parametrize("name", GRAMMAR)
def test_an_option_means_the_same_everywhere(name: str) -> None:
    meanings = {
        (type(option.type).__name__, option.metavar, option.multiple, option.is_flag)
        for option in (options(command).get(name) for command in LEAVES.values())
        if option is not None
    }
    assert len(meanings) == 1, meanings
    helps = {
        options(command)[name].help
        for path, command in LEAVES.items()
        if name in options(command) and path not in SELECT_BY | {"show", "schema"}
    }
    assert len(helps) == 1 or name in ("--dry-run", "--repeat"), helps


@pytest.mark.parametrize("path", LEAVES)
def test_help_is_a_sentence(path: str) -> None:
    command = LEAVES[path]
    texts = [command.get_short_help_str(200), *(o.help or "" for o in options(command).values())]
    for text in texts:
        assert re.match(r"[A-Z]", text), (path, text)
        assert text.endswith("."), (path, text)
        assert not [word for word in ODD if word in text], (path, text)
    verb = texts[0].split()[0]
    assert verb.removesuffix(",") in {
        *("Run", "Show", "Judge", "Compare", "Write", "Print", "Remove", "Build", "Bring"),
        *("Take", "Open", "Prepare", "Clean", "Register"),
    }, "an imperative"


@pytest.mark.parametrize("path", ["", "lab", "lease", *LEAVES])
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_fits_a_terminal(path: str, flag: str) -> None:
    done = CliRunner().invoke(cli, [*path.split(), flag])
    assert done.exit_code == 0
    assert all(len(line) <= 80 for line in done.output.splitlines())
    assert "…  " not in done.output.partition("Commands:")[2], "no summary is cut off"
    assert "...\n" not in done.output.partition("Commands:")[2]


def test_the_words_that_help_uses() -> None:
    helps = {path: options(command) for path, command in LEAVES.items()}
    assert helps["run"]["--set"].help == (
        "Override a scenario key, e.g. --set policy.hops=2; a list makes one case per value."
    )
    assert LEAVES["lab repair"].help == "Clean up hosts after a migrate-lab process was killed."


def test_the_documentation_has_every_command_and_every_shared_option() -> None:
    page = (ROOT / "docs/README.md").read_text()
    for path in LEAVES:
        assert f"`migrate-lab {path}" in page, path
    for name in GRAMMAR:
        assert f"| `{name}" in page, name


# --- JSON ---


@pytest.mark.parametrize(
    ("words", "document"),
    [
        ("prepare", {"lab": "local", "prepared": True}),
        ("down", {"lab": "local", "down": True}),
    ],
)
def test_what_is_done_to_a_lab_is_told_in_json(
    words: str, document: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("prepare", "down"):
        monkeypatch.setattr(manager, name, lambda _: None)
    done = CliRunner().invoke(cli, ["lab", words, "--json"])
    assert json.loads(done.stdout) == document


def test_a_lab_is_told_in_json_when_it_comes_up(shared_lab: LocalLab) -> None:
    done = CliRunner().invoke(cli, ["lab", "up", "--json", "--name", shared_lab.name])
    assert json.loads(done.stdout)["config"]["name"] == shared_lab.name


def test_init_and_schema_have_json(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["init", "--json", str(tmp_path)])
    files = json.loads(done.stdout)["files"]
    assert sorted(files) == sorted(map(str, tmp_path.iterdir()))
    assert CliRunner().invoke(cli, ["schema", "--json"]).stdout == (
        CliRunner().invoke(cli, ["schema"]).stdout
    )


# --- one case ---


def chosen(monkeypatch: pytest.MonkeyPatch, *words: str) -> list[str]:
    """Ids of the cases that ``run`` would try."""
    cases: list[Case] = []
    monkeypatch.setattr(
        run, "_run", lambda _config, files, *_: cases.extend(c for f in files for c in f.cases)
    )
    cli.main([*words], standalone_mode=False)
    return [case.id for case in cases]


def test_cases_are_chosen_by_a_pattern(monkeypatch: pytest.MonkeyPatch) -> None:
    file = str(SCENARIOS / "modes.toml")
    every = chosen(monkeypatch, "run", file)
    some = chosen(monkeypatch, "run", file, "--case", "*-virtio-*")
    assert 0 < len(some) < len(every)
    assert all("-virtio-" in case for case in some)
    compared = chosen(
        monkeypatch, "compare", "--modes", "virtio,vhost-user", "--case", "compare-vh*"
    )
    assert compared == ["compare-vhost-user"]


def test_a_pattern_that_no_case_matches_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", str(SCENARIOS / "quickstart.toml"), "--case", "quickstart-virtoi"]
    assert status(words) == 2
    said = capsys.readouterr().err
    assert "--case 'quickstart-virtoi': no case matches" in said
    assert "did you mean 'quickstart-virtio'?" in said


def test_attempts_are_chosen_by_case_and_number(tmp_path: Path) -> None:
    made = [synthetic.attempt(synthetic.case("virtio", name), n) for name in "ab" for n in (1, 2)]
    synthetic.write_run(tmp_path, made)
    words = ["analyze", "--json", "--results", str(tmp_path), "--case", "b-*", "--attempt", "2"]
    attempts = json.loads(CliRunner().invoke(cli, words).stdout)["attempts"]
    assert [(each["case_id"], each["number"]) for each in attempts] == [("b-virtio", 2)]


# --- old spellings ---


def test_a_night_takes_its_lab_by_position_for_one_more_release(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = str(ROOT / "labs/local.toml")
    words = ["--name", "night", "--resume", "latest", "--results", str(tmp_path)]
    assert status(["nightly", "--lab", lab, *words]) == 5
    assert "now" not in capsys.readouterr().err
    assert status(["nightly", lab, *words]) == 5
    said = capsys.readouterr().err
    assert "`nightly LAB` is now `nightly --lab LAB`" in said
    assert f"find run latest in {tmp_path}" in said
    scenario = str(SCENARIOS / "quickstart.toml")
    assert status(["nightly", scenario, *words]) == 2, "a scenario is none"


def test_trend_takes_a_labs_file_and_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        attempts = [synthetic.attempt(synthetic.case("virtio", name))]
        synthetic.write_run(tmp_path / "runs", attempts, name=name, lab=name)
    file = tmp_path / "one.toml"
    file.write_text('name = "one"\n')

    def labs(*words: str) -> tuple[set[str], str]:
        assert status(["trend", "--json", "--results", str(tmp_path / "runs"), *words]) == 0
        printed = capsys.readouterr()
        return {series["lab"] for series in json.loads(printed.out)["series"]}, printed.err

    assert labs() == ({"one", "two"}, "")
    assert labs("--lab", str(file)) == ({"one"}, "")
    assert labs("--name", "two") == ({"two"}, "")
    found, warning = labs("--lab", "two")
    assert found == {"two"}
    assert "`trend --lab NAME` is now `trend --name NAME`" in warning
