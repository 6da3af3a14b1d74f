"""What is wrong with a file is told in words, and all of it at once."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

import migrate
from migrate.checks import quarantine
from migrate.cli.main import status
from migrate.errors import MOST_AT_ONCE, CombinedConfigurationError, ConfigurationError
from migrate.images.initramfs import read_recipe
from migrate.lab.kinds import load_lab
from migrate.model import TextForm
from migrate.scenario.loader import for_modes, load, load_all


def lines(act: Callable[[], object]) -> list[str]:
    """All that is told by what ``act`` raises."""
    with pytest.raises(ConfigurationError) as caught:
        act()
    return str(caught.value).splitlines()


def written(folder: Path, text: str, name: str = "x.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


# --- all at once ---

SCENARIO = """\
colour = "green"
[policy]
hops = -1
speed = 3
[interface]
mode = "token-ring"
mac = "zz"
[matrix]
"guest.vcpu" = [1]
"workload.dirty_mib" = []
[[variants]]
[[variants]]
name = "b"
shape = "round"
"""


def test_a_scenario_tells_all_of_its_errors(tmp_path: Path) -> None:
    path = written(tmp_path, SCENARIO)
    found = lines(lambda: load(path))
    for words in (
        "line 1: colour: there is no such key",
        "line 3: policy.hops: -1 is not allowed",
        "line 4: policy.speed: there is no such key",
        "line 6: interface.mode: 'token-ring' is not allowed",
        'line 7: interface.mac = "zz": six pairs of hexadecimal digits',
        "line 10: matrix.workload.dirty_mib: the axis is empty",
        "variants.0.name: a variant has no name",
        "variants.1.shape: there is no such key",
    ):
        assert any(words in line for line in found), (words, found)
    assert "more)" not in "".join(found)


def test_a_rule_that_all_cases_break_is_told_once(tmp_path: Path) -> None:
    text = (
        '[policy]\nmethod = "save-restore"\npostcopy = "after-precopy"\n'
        '[matrix]\n"guest.vcpus" = [1, 2, 3]\n'
    )
    path = written(tmp_path, text)
    found = lines(lambda: load(path))
    assert len(found) == len(set(found)) < 3


def test_several_files_and_several_settings_are_told_together(tmp_path: Path) -> None:
    one = written(tmp_path, "[policy]\nhops = -1\n", "one.toml")
    two = written(tmp_path, "[policy]\nhops = 'x'\n", "two.toml")
    first, second = lines(lambda: load_all([one, two]))
    assert ("one.toml" in first, "two.toml" in second) == (True, True)
    good = written(tmp_path, "")
    found = lines(lambda: load(good, ("x", "polcy.hops=2")))
    assert "this is not key=value" in found[0]
    assert "did you mean 'policy'?" in found[1]


def test_a_lab_file_tells_all_of_its_errors(tmp_path: Path) -> None:
    text = 'name = "Ux4"\ncolour = 1\n[hosts.A]\nroot = "--help"\n[hosts.b]\nhuge_pages = -1\n'
    path = written(tmp_path, text)
    found = lines(lambda: load_lab(path))
    words = "a small letter, then at most seven small letters or digits"
    assert f'{path}, line 1: name = "Ux4": {words} -- e.g. lab1' in found
    assert f"{path}, line 3: hosts.A: {words} -- e.g. lab1" in found
    assert any("line 2: colour: there is no such key" in line for line in found)
    assert any('line 4: hosts.A.root = "--help": ' in line for line in found)
    assert any("line 6: hosts.b.huge_pages: -1 is not allowed" in line for line in found)


def test_a_name_of_the_command_line_is_refused_with_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "colour = 1\n")
    first, second = lines(lambda: load_lab(path, "Ux4"))
    assert first.startswith("use --name 'Ux4': a small letter, then at most seven small letters")
    assert "colour" in second


def test_a_quarantine_list_and_a_recipe_tell_all_of_their_errors(tmp_path: Path) -> None:
    path = written(tmp_path, '[[quarantine]]\ncase = ""\nexpires = "soon"\n')
    found = lines(lambda: quarantine.load(path))
    assert len(found) == 5, "owner, bug and reason are not there, two values are wrong"
    assert any("line 3: quarantine.0.expires" in line for line in found)
    recipe = written(tmp_path, 'suite = "X"\nkernel = "-o"\ncolour = 1\n')
    assert len(lines(lambda: read_recipe(recipe))) == 4


def test_of_very_many_errors_the_first_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, "[[faults]]\n" * 60)
    with pytest.raises(CombinedConfigurationError) as caught:
        load(path)
    many = len(caught.value.errors)
    assert many >= 60
    assert status(["run", str(path)]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == MOST_AT_ONCE + 1
    assert told[-1] == (
        f"migrate-lab: {many - MOST_AT_ONCE} more errors are not shown -- mend these first"
    )
    assert all(line.startswith("migrate-lab: ") for line in told)


# --- where ---


def test_errors_of_modes_name_the_option(tmp_path: Path) -> None:
    (line,) = lines(lambda: for_modes(["virtio", "token-ring"]))
    assert line.startswith("--modes: interface.mode: 'token-ring' is not allowed -- ")
    (line,) = lines(lambda: for_modes(["virtio", "virtio"], written(tmp_path, "")))
    assert line.startswith("--modes: interface.mode: 'virtio' is there twice")


# --- in words ---


def modules() -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(migrate.__path__, "migrate."):
        if found.name.startswith(("migrate.model", "migrate.lab", "migrate.images")):
            yield importlib.import_module(found.name)


def forms() -> list[TextForm]:
    """Every form of a text that somebody writes."""
    found = []
    for module in modules():
        for value in vars(module).values():
            parts = getattr(value, "__metadata__", ())
            found += [part for part in (value, *parts) if isinstance(part, TextForm)]
    return list(dict.fromkeys(found))


def test_the_example_of_each_form_is_right() -> None:
    assert len(forms()) > 10
    for form in forms():
        assert form.fits(form.example), form
        assert not form.fits("\n"), form
        assert not form.fits(f"{form.example}\n"), form
