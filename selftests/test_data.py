"""The project's files are found from any working folder; what lies there goes first."""

from __future__ import annotations

from pathlib import Path

import pytest

from migrate.data import data_path, shipped
from migrate.errors import ConfigurationError
from migrate.lab.kinds import load_lab
from migrate.scenario.loader import load


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["domains/guest.xml.j2", "guest-images/probe/main.c"])
def test_a_file_of_the_project_is_there(name: str) -> None:
    assert data_path(name).is_file()


@pytest.mark.usefixtures("empty")
def test_shipped_scenarios_and_labs_are_known_in_an_empty_folder() -> None:
    assert load(Path("testcases/scenarios/quickstart.toml")).name == "quickstart"
    assert load_lab(Path("labs/nested.toml")).kind == "nested"


def test_a_file_of_the_working_folder_goes_first(empty: Path) -> None:
    own = empty / "labs/nested.toml"
    own.parent.mkdir()
    own.write_text('name = "mine"')
    assert load_lab(Path("labs/nested.toml")).name == "mine"
    assert shipped(Path("labs")) == Path("labs")


@pytest.mark.usefixtures("empty")
def test_what_is_nowhere_is_called_as_it_was_named() -> None:
    assert shipped(Path("labs/nowhere.toml")) == Path("labs/nowhere.toml")
    with pytest.raises(ConfigurationError, match=r"read the lab file labs/nowhere.toml"):
        load_lab(Path("labs/nowhere.toml"))
