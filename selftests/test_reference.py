"""The tables of the documentation are those of the registries, and say what the program takes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from migrate.analysis.phases import SPANS
from migrate.checks.registry import CHECKS
from migrate.model import Expect, GuestSpec, PhaseName, Value
from migrate.model.docstrings import field_meanings
from migrate.scenario.loader import schema
from selftests.helpers import ROOT
from selftests.reference import COMMAND, FAULT_NAMES, FAULTS, PAGES, TABLES, keys, with_tables


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_tables_of_a_page_are_those_of_the_registries(page: Path) -> None:
    text = page.read_text()
    assert text == with_tables(page.name, text), COMMAND


def test_a_page_without_a_place_for_its_table_is_noticed() -> None:
    with pytest.raises(KeyError, match="no place for the table checks"):
        with_tables("checks.md", "# Every check\n")


def test_every_place_for_a_table_is_known() -> None:
    for page in (ROOT / "docs").glob("*.md"):
        places = re.findall(r"^<!-- table: (.*) -->$", page.read_text(), re.MULTILINE)
        assert sorted(places) == sorted(TABLES.get(page.name, ())), page.name


def test_every_fault_and_phase_is_told() -> None:
    assert set(FAULT_NAMES) == set(FAULTS)
    assert list(get_args(PhaseName)) == list(SPANS)


def test_every_key_of_a_check_is_one_of_expect() -> None:
    assert {check.key for check in CHECKS if check.key} <= set(Expect.model_fields)


def test_a_row_says_what_a_key_takes_what_it_is_without_and_what_it_means() -> None:
    rows = keys(GuestSpec).splitlines()
    assert "| `memory_mib` | a whole number, 96 to 1048576 | `128` | its memory |" in rows
    assert '| `machine` | `"q35"`, `"pc"` | `"q35"` |' in "\n".join(rows)


class Told(Value):
    """A value with one field that is explained, and one that is not."""

    first: int = 1
    """Of ``two``
    lines."""
    second: int = 2


class More(Told):
    """Its own beside those of its base."""

    third: int = 3
    """Another."""


def test_what_a_field_means_is_the_docstring_below_it() -> None:
    assert field_meanings(More) == {"first": "Of `two` lines.", "third": "Another."}


def test_an_editor_shows_what_every_key_means() -> None:
    definitions = schema()["$defs"]
    assert definitions["Policy"]["properties"]["hops"]["description"].startswith("Moves in one")
    silent = [
        f"{name}.{key}"
        for name, part in definitions.items()
        for key, value in part["properties"].items()
        if not value.get("description")
    ]
    assert silent == []
