"""The files for CI: they parse, and their commands are ones that the command line takes."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from migrate import errors
from migrate.cli import main as cli
from selftests.command_line import LEAVES
from selftests.helpers import ROOT

FILES = sorted((ROOT / "docs" / "ci").iterdir())
YAML = [path for path in FILES if path.suffix == ".yml"]


def strings(of: Any) -> Iterator[str]:
    """All texts of a document, however deep."""
    if isinstance(of, str):
        yield of
    elif isinstance(of, dict):
        for value in of.values():
            yield from strings(value)
    elif isinstance(of, list):
        for value in of:
            yield from strings(value)


def scripts(path: Path) -> str:
    """All that a file has a shell do, line by line."""
    text = path.read_text()
    said = strings(yaml.safe_load(text)) if path in YAML else re.findall(r"sh '([^']*)'", text)
    return "\n".join(said)


def commands(path: Path) -> list[list[str]]:
    """Words after `migrate-lab` of every command."""
    return [
        shlex.split(said) for said in re.findall(r"bin/migrate-lab ([^)&;>\n]*)", scripts(path))
    ]


def name(path: Path) -> str:
    return path.name


@pytest.mark.parametrize("path", FILES, ids=name)
@pytest.mark.usefixtures("harmless")
def test_commands_are_ones_that_the_command_line_takes(path: Path) -> None:
    found = commands(path)
    assert {words[0] for words in found} == {"run", "nightly", "lab", "report", "gate"}
    assert len(found) == path.read_text().count("bin/migrate-lab ")
    for words in found:
        cli.cli(words, standalone_mode=False)
        for word in words:
            assert not word.endswith(".toml") or (ROOT / word).is_file(), word


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_lab_that_a_job_brings_up_is_taken_down_and_its_results_are_collected(
    path: Path,
) -> None:
    found = commands(path)
    named: dict[str, set[str]] = {words[0]: set() for words in found}
    for words in found:
        if words[0] not in {"report", "gate"}:
            named[words[0]].add(words[words.index("--name") + 1])
    assert named["lab"] == named["run"] | named["nightly"]
    assert all("--junit" in words for words in found if words[0] in {"run", "nightly"})
    text = path.read_text()
    assert text.count("junit.xml") > 2
    assert "results/" in text, "of the moves"
    assert text.count("report.html") == 2, "of the night: written, and collected"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_what_a_job_installs_is_locked(path: Path) -> None:
    """As ./quickstart or ./check has it, and the package itself last."""
    lines = re.findall(r"bin/pip install (.*)", scripts(path))
    assert set(lines[1::2]) == {"--no-deps --no-build-isolation ."}
    locks = [line.removeprefix("--require-hashes -r ") for line in lines[::2]]
    assert set(locks) <= {"requirements.lock", "requirements-dev.lock"}
    assert "requirements-dev.lock" in locks, "the gate needs scipy"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_night_is_held_against_earlier_ones_and_what_can_not_be_told_fails_nothing(
    path: Path,
) -> None:
    (line,) = [line for line in scripts(path).splitlines() if "migrate-lab gate" in line]
    assert line.endswith("> gate.txt || [ $? -eq 3 ]")
    assert path.read_text().count("gate.txt") > 1, "written, and collected"
    assert "docs/morning.md" in path.read_text()


def shell(status: int, tmp_path: Path, line: str) -> int:
    """The exit code of the gate's line of a job, where the gate ends with ``status``."""
    program = tmp_path / ".venv/bin/migrate-lab"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\necho words\nexit {status}\n")
    program.chmod(0o755)
    code = subprocess.run(["bash", "-e", "-c", line], cwd=tmp_path, check=False).returncode
    assert (tmp_path / "gate.txt").read_text() == "words\n"
    return code


@pytest.mark.parametrize("path", FILES, ids=name)
@pytest.mark.parametrize(("status", "code"), [(0, 0), (3, 0), (1, 1), (5, 1)])
def test_the_gate_fails_the_job_unless_it_can_not_be_told(
    path: Path, status: int, code: int, tmp_path: Path
) -> None:
    (line,) = [line for line in scripts(path).splitlines() if "migrate-lab gate" in line]
    assert shell(status, tmp_path, line) == code


def test_github() -> None:
    document = yaml.safe_load((ROOT / "docs/ci/github-actions.yml").read_text())
    assert set(document) == {"name", True, "concurrency", "jobs"}, "YAML takes `on` for a truth"
    for job in document["jobs"].values():
        assert "self-hosted" in job["runs-on"]
        assert all(("run" in step) != ("uses" in step) for step in job["steps"])


def test_gitlab() -> None:
    document = yaml.safe_load((ROOT / "docs/ci/gitlab-ci.yml").read_text())
    for job in ("moves", "night"):
        assert document[job]["script"]
        assert document[job]["artifacts"]["when"] == "always"


def test_jenkins() -> None:
    text = re.sub(r"//.*|'[^']*'", "", (ROOT / "docs/ci/Jenkinsfile").read_text())
    depth = 0
    for letter in text:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        assert depth >= 0
    assert depth == 0
    assert "'" not in text


def test_the_exit_codes_of_errors_are_in_the_table() -> None:
    page = (ROOT / "docs/exit-codes.md").read_text().partition("\n## ")[0]
    table = dict(re.findall(r"^\| (\d+) \| (.*) \|$", page, re.MULTILINE))
    kinds = errors.LabError.__subclasses__()
    assert {str(kind.exit_code) for kind in kinds} | {"0", "1", "130", "141"} == set(table)
    assert "nightly" in LEAVES


def test_exit_codes_stand_on_one_page() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    with_a_table = [page.name for page in pages if "| exit code | means |" in page.read_text()]
    assert with_a_table == ["exit-codes.md"]
