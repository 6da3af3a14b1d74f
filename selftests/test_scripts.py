"""./quickstart and ./check on a machine that is not fit: one clear line, and nothing half made."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from selftests.command_line import Ended
from selftests.helpers import ROOT

SCRIPTS = ("quickstart", "check")


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder that is looked into before all others for programs."""
    folder = tmp_path / "tools"
    folder.mkdir()
    put(folder, "id", "echo 0")  # whoever runs the tests: it is root to the script
    return folder


def put(tools: Path, name: str, text: str) -> Path:
    """A program that does as ``text`` says in place of the machine's own."""
    path = tools / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


Start = Callable[..., Ended]


@pytest.fixture
def start(tmp_path: Path, tools: Path) -> Start:
    """Run a script with other tools, and variables that stand in for another machine."""
    release = tmp_path / "os-release"
    release.write_text('PRETTY_NAME="Debian"\nID=debian\nVERSION_ID="13"\n')

    def run(script: str, *options: str, **variables: object) -> Ended:
        told = {
            "MIGRATE_LAB_OS_RELEASE": release,
            "MIGRATE_LAB_VENV": tmp_path / "venv",
            "MIGRATE_LAB_NEED_KIB": 1,
            "TMPDIR": tmp_path,
            **variables,
        }
        done = subprocess.run(
            [ROOT / script, *options],
            env={
                **os.environ,
                "PATH": f"{tools}:{os.environ['PATH']}",
                **{name: str(value) for name, value in told.items()},
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            check=False,
            timeout=60,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


def refused(ended: Ended, script: str, tmp_path: Path) -> str:
    """The one line that says what to do; nothing was made."""
    assert ended.status == 3, ended.err
    assert ended.out == ""
    *_, last = ended.err.splitlines()
    assert last.startswith(f"{script}: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["os-release", "tools"]
    return last


@pytest.mark.parametrize("script", SCRIPTS)
def test_without_root(script: str, start: Start, tools: Path, tmp_path: Path) -> None:
    put(tools, "id", "echo 1000")
    ended = start(script)
    assert "run it with sudo" in refused(ended, script, tmp_path)
    assert len(ended.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('ID=ubuntu\nVERSION_ID="24.04"\n', "ubuntu 24.04"),
        ("ID=debian\nVERSION_ID=11\n", "debian 11"),
        ("", "unknown"),
    ],
)
def test_on_another_distribution(text: str, named: str, start: Start, tmp_path: Path) -> None:
    (tmp_path / "os-release").write_text(text)
    ended = start("quickstart")
    line = refused(ended, "quickstart", tmp_path)
    assert f"made for Debian 12 and 13, this is {named}" in line
    assert len(ended.err.splitlines()) == 1


def test_on_another_processor(start: Start, tools: Path, tmp_path: Path) -> None:
    put(tools, "uname", "echo aarch64")
    assert "this is aarch64" in refused(start("check"), "check", tmp_path)


@pytest.mark.parametrize("script", SCRIPTS)
def test_with_a_full_disk(script: str, start: Start, tmp_path: Path) -> None:
    ended = start(script, MIGRATE_LAB_NEED_KIB=10**12)
    assert "make room" in refused(ended, script, tmp_path)
    assert len(ended.err.splitlines()) == 1


def test_offline_for_apt(start: Start, tools: Path, tmp_path: Path) -> None:
    put(tools, "dpkg-query", "exit 1")
    put(tools, "apt-get", "echo 'E: Failed to fetch'; exit 100")
    ended = start("quickstart")
    assert "is a Debian mirror within reach" in refused(ended, "quickstart", tmp_path)
    assert "E: Failed to fetch" in ended.err


def test_offline_for_pip(start: Start, tools: Path, tmp_path: Path) -> None:
    put(tools, "dpkg-query", "echo install ok installed")
    python = put(
        tools,
        "python",
        'mkdir -p "$4/bin" && cp "$0-pip" "$4/bin/pip"',  # -m venv --clear FOLDER
    )
    put(tools, "python-pip", "echo 'ERROR: No matching distribution found'; exit 1")
    ended = start("quickstart", MIGRATE_LAB_PYTHON=python)
    assert "is PyPI within reach" in refused(ended, "quickstart", tmp_path)
    assert "No matching distribution" in ended.err


def can_be_prepared(tools: Path) -> Path:
    """A Python whose environments have a migrate-lab that says what it was asked for."""
    put(tools, "dpkg-query", "echo install ok installed")
    put(tools, "python-pip", "exit 0")
    put(tools, "python-run", 'echo "$@"')
    make = 'mkdir -p "$4/bin" && cp "$0-pip" "$4/bin/pip" && cp "$0-run" "$4/bin/migrate-lab"'
    return put(tools, "python", make)


def test_a_prepared_machine_is_not_prepared_again(
    start: Start, tools: Path, tmp_path: Path
) -> None:
    python = can_be_prepared(tools)
    put(tools, "apt-get", "echo apt-get was called; exit 1")
    first = start("quickstart", MIGRATE_LAB_PYTHON=python)
    assert first.status == 0, first.err
    assert first.out.split() == ["run", "testcases/scenarios/quickstart.toml", "--repeat", "5"]
    assert "making the virtual environment" in first.err
    again = start("quickstart", MIGRATE_LAB_PYTHON=tools / "none")
    assert (again.status, again.err) == (0, "")
    assert (tmp_path / "venv").is_dir()


@pytest.fixture
def prepared(tools: Path, tmp_path: Path, start: Start) -> Path:
    """A machine on which all is there; the migrate-lab of it says what it was asked for."""
    python = can_be_prepared(tools)
    assert start("quickstart", MIGRATE_LAB_PYTHON=python).status == 0
    return tmp_path / "venv/bin/migrate-lab"


LOCAL = "run testcases/scenarios/quickstart.toml"
NESTED = "run testcases/scenarios/all-modes.toml --lab labs/nested.toml --repeat 3"


def prepared_and_run(ended: Ended) -> list[str]:
    """What was run, after both labs were prepared side by side."""
    lines = ended.out.splitlines()
    assert sorted(lines[:2]) == ["lab prepare", "lab prepare --lab labs/nested.toml"]
    return lines[2:]


@pytest.mark.usefixtures("prepared")
def test_quickstart_runs_the_nested_lab_only_if_asked(start: Start) -> None:
    assert start("quickstart").out.splitlines() == [f"{LOCAL} --repeat 5"]
    asked = start("quickstart", "--keep-lab", "--all-modes")
    assert asked.status == 0, asked.err
    assert prepared_and_run(asked) == [f"{LOCAL} --repeat 3 --keep-lab", f"{NESTED} --keep-lab"]


@pytest.mark.parametrize("wrong", ["quickstart", "all-modes"])
def test_all_modes_are_run_whatever_came_of_the_local_lab(
    wrong: str, start: Start, prepared: Path
) -> None:
    put(prepared.parent, "migrate-lab", f'echo "$@"; case $2 in *{wrong}*) exit 1 ;; esac')
    ended = start("quickstart", "--all-modes")
    assert ended.status == 1
    assert prepared_and_run(ended) == [f"{LOCAL} --repeat 3", NESTED]


def test_an_interrupt_in_the_local_lab_ends_all_modes(start: Start, prepared: Path) -> None:
    put(prepared.parent, "migrate-lab", 'echo "$@"; case $2 in *quickstart*) exit 130 ;; esac')
    ended = start("quickstart", "--all-modes")
    assert ended.status == 130
    assert prepared_and_run(ended) == [f"{LOCAL} --repeat 3"]


def test_all_modes_end_where_a_lab_can_not_be_prepared(start: Start, prepared: Path) -> None:
    put(prepared.parent, "migrate-lab", 'echo "$@"; case $* in *nested*) exit 3 ;; esac')
    ended = start("quickstart", "--all-modes")
    assert ended.status == 3
    assert LOCAL not in ended.out


# --- the lanes of ./check ---


@pytest.fixture
def programs(tools: Path, tmp_path: Path) -> Path:
    """Of an environment as ./check makes it here: each says with what it was called."""
    put(tools, "dpkg-query", "echo install ok installed")
    put(tools, "unshare", 'until [ "${1##*/}" = python ]; do shift; done; exec "$@"')
    folder = tmp_path / "programs"
    folder.mkdir()
    put(folder, "pip", "exit 0")
    for name in ("ruff", "zensical", "mypy", "pytest", "python", "migrate-lab"):
        put(folder, name, f'echo "{name} $*"')
    put(tools, "python", f'mkdir -p "$4" && cp -r {folder} "$4/bin"')  # -m venv --clear FOLDER
    return folder


def test_the_quick_lane_needs_no_root_and_has_no_lab(
    programs: Path, start: Start, tools: Path, tmp_path: Path
) -> None:
    shutil.copytree(programs, tmp_path / "venv" / "bin")
    put(tools, "id", "echo 1000")
    ended = start("check", "--quick")
    assert ended.status == 0, ended.err
    words = [line.split()[0] for line in ended.out.splitlines()]
    assert words[:4] == ["ruff", "ruff", "mypy", "python"]
    assert "-m not needs_root" in ended.out
    assert "--lab" not in ended.out


def test_the_quick_lane_says_what_is_missing(start: Start) -> None:
    ended = start("check", "--quick")
    assert ended.status == 3
    assert "pip install -e" in ended.err


@pytest.mark.parametrize(("options", "shipped"), [((), False), (("--all",), True)])
@pytest.mark.usefixtures("programs")
def test_shipped_scenarios_are_run_only_if_all_is_asked_for(
    options: tuple[str, ...], shipped: bool, start: Start, tools: Path
) -> None:
    ended = start("check", *options, MIGRATE_LAB_PYTHON=tools / "python")
    assert ended.status == 0, ended.err
    assert ("python -m testcases.shipped" in ended.out) == shipped
    parts = 4 if shipped else 3
    asked = ended.out.count("pytest testcases")
    assert asked == parts * 2, "each once, and in the account at the end"


@pytest.mark.parametrize("program", ["ruff", "zensical", "mypy", "pytest", "python", "migrate-lab"])
def test_a_part_that_fails_ends_the_check_and_is_named(
    program: str, programs: Path, start: Start, tools: Path
) -> None:
    put(programs, program, "exit 1")
    ended = start("check", "--all", MIGRATE_LAB_PYTHON=tools / "python")
    assert ended.status == 1
    assert "] failed: " in ended.err.splitlines()[-1]


def test_a_lane_that_there_is_not_is_refused(start: Start) -> None:
    ended = start("check", "--fast")
    assert (ended.status, ended.err) == (3, "check: usage: ./check [--quick | --all]\n")
