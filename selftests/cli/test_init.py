"""A folder to begin with: whole or not at all. ``selftests/test_wheel.py`` runs what is in it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from migrate.cli.init import STARTER
from migrate.cli.main import cli
from migrate.errors import ConfigurationError
from migrate.lab.kinds import load_lab
from migrate.scenario.loader import load


def init(*words: object) -> Result:
    return CliRunner().invoke(cli, ["init", *map(str, words)])


def refusal(result: Result) -> ConfigurationError:
    assert isinstance(result.exception, ConfigurationError)
    return result.exception


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_new_folder_gets_files_that_load(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    done = init(folder)
    assert done.exit_code == 0
    assert done.output.split() == [str(folder / name) for name in STARTER]
    assert names(folder) == set(STARTER)
    assert load_lab(folder / "lab.toml").kind == "local"
    assert [case.id for case in load(folder / "first-move.toml").cases] == ["first-move-virtio"]
    assert yaml.safe_load((folder / ".gitlab-ci.yml").read_text())["moves"]["script"]


def test_without_a_folder_it_is_the_working_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert init().exit_code == 0
    assert names(tmp_path) == set(STARTER)


@pytest.mark.parametrize("name", STARTER)
def test_nothing_is_written_over(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    assert refusal(init(tmp_path)).said == f"{name} is there already"
    assert names(tmp_path) == {name}
    assert (tmp_path / name).read_text() == "mine"


def test_a_place_where_nothing_can_be_written_is_told() -> None:
    assert refusal(init("/proc/new")).tried == "write a starter to /proc/new"
