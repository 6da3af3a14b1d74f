"""What whoever carries on finds: editors' settings, pre-commit's linters, templates, fragments."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from selftests.helpers import ROOT

FOLDERS = ("migrate", "selftests", "testcases", "bench", "docs", "labs", "domains", "changes")
SUFFIXES = {".py", ".md", ".toml", ".yml", ".json", ".js", ".css", ".j2", ".sh", ".svg"}
OTHERS = ("check", "prepare.sh", "quickstart", "README.md", "CONTRIBUTING.md", "CHANGELOG.md")


def files() -> Iterator[Path]:
    """Those that people write; what was recorded is as it came."""
    yield from (ROOT / name for name in OTHERS)
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            recorded = {"recordings", "samples"} & set(path.parts)
            if path.suffix in SUFFIXES and path.is_file() and not recorded:
                yield path


def faults_of(content: bytes) -> list[str]:
    """Where it is not as .editorconfig has it."""
    lines = content.decode().split("\n")
    return [
        *(["no line's end at the end"] if content and lines[-1] else []),
        *(["carriage returns"] if b"\r" in content else []),
        *(
            f"line {number}: blanks at its end"
            for number, line in enumerate(lines, 1)
            if line != line.rstrip()
        ),
        *(f"line {number}: a tab" for number, line in enumerate(lines, 1) if line.startswith("\t")),
    ]


def test_files_are_as_the_editors_settings_have_them() -> None:
    parser = configparser.ConfigParser()
    parser.read_string("[top]\n" + (ROOT / ".editorconfig").read_text())
    rules = parser["*"]
    assert rules["end_of_line"] == "lf"
    assert rules["insert_final_newline"] == rules["trim_trailing_whitespace"] == "true"
    found = list(files())
    assert len(found) > 500
    wrong = {str(path.relative_to(ROOT)): faults_of(path.read_bytes()) for path in found}
    assert {name: faults for name, faults in wrong.items() if faults} == {}


def test_a_file_that_is_otherwise_is_noticed() -> None:
    assert faults_of(b"a \r\n\tb") == [
        "no line's end at the end",
        "carriage returns",
        "line 1: blanks at its end",
        "line 2: a tab",
    ]
    assert faults_of(b"") == faults_of(b"a\n  b\n") == []


def test_pre_commit_has_the_linters_of_the_quick_lane() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local", "by the locked versions"
    entries = [hook["entry"] for hook in repository["hooks"]]
    lint = re.findall(r'"\$bin/(.*?)"([\w -]*)', (ROOT / "check").read_text())
    linters = {
        f"{name}{words}".strip() for name, words in lint if name in {"ruff", "zensical", "mypy"}
    }
    linters -= {"zensical"}  # is it there?
    assert len(linters) == 4
    for linter in linters:
        words = linter.removesuffix(" .").split()
        assert any(entry.startswith(f".venv/bin/{' '.join(words)}") for entry in entries), linter


PAIRS = [
    (".github/ISSUE_TEMPLATE/bug.md", ".gitlab/issue_templates/Bug.md"),
    (".github/PULL_REQUEST_TEMPLATE.md", ".gitlab/merge_request_templates/Default.md"),
]


@pytest.mark.parametrize(("github", "gitlab"), PAIRS)
def test_templates_ask_for_a_run_folder_and_are_alike(github: str, gitlab: str) -> None:
    text = (ROOT / gitlab).read_text()
    assert (ROOT / github).read_text().endswith(text)
    assert "run folder" in text
    assert "run.json" in text


# --- the changelog ------------------------------------------------------------------------------

TOWNCRIER = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["towncrier"]
TYPES = [kind["directory"] for kind in TOWNCRIER["type"]]
FRAGMENTS = [path for path in (ROOT / "changes").iterdir() if path.name != "README.md"]


@pytest.mark.parametrize("path", FRAGMENTS, ids=lambda path: path.name)
def test_a_fragment_is_of_a_known_type_and_says_something(path: Path) -> None:
    assert re.fullmatch(rf"(\+[\w-]+|\d+)\.({'|'.join(TYPES)})(\.\d+)?\.md", path.name)
    assert len(path.read_text().strip()) > 20


def test_the_types_are_explained() -> None:
    text = (ROOT / "changes/README.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == TYPES
    assert (ROOT / "CHANGELOG.md").read_text().count(TOWNCRIER["start_string"]) == 1


def test_a_release_takes_every_fragment_into_the_changelog() -> None:
    pytest.importorskip("towncrier")
    words = ["-m", "towncrier", "build", "--draft", "--version", "0.1.0"]
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=True
    )
    told = " ".join(done.stdout.split())
    assert told.startswith("## 0.1.0, ")
    for path in FRAGMENTS:
        assert " ".join(path.read_text().split())[:60] in told, path.name
