"""The documentation is true: examples load, commands parse, links lead somewhere, nothing is left
out. No lab is touched."""

from __future__ import annotations

import ast
import importlib
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, get_args

import click
import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from migrate import model
from migrate.backends.registry import MODES
from migrate.checks import quarantine
from migrate.cli.main import cli
from migrate.errors import ConfigurationError
from migrate.images.initramfs import read_recipe
from migrate.lab.kinds import KINDS, load_lab
from migrate.lab.shared_folder import SHARED_AT
from migrate.plugins import pytest as pytest_plugin
from migrate.results import layout
from migrate.scenario.loader import parse
from selftests.command_line import LEAVES
from selftests.helpers import ROOT

PAGES = sorted(
    page for place in ("*.md", "docs/*.md", "changes/README.md") for page in ROOT.glob(place)
)
TEXT = {page: page.read_text(encoding="utf-8") for page in PAGES}


class Block(NamedTuple):
    """A fenced block: where it is, its language, what else its fence says, its text."""

    place: str
    language: str
    about: str
    text: str


def blocks(page: Path, text: str) -> Iterator[Block]:
    for found in re.finditer(r"^```(\w*) ?(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        line = text.count("\n", 0, found.start()) + 1
        yield Block(f"{page.relative_to(ROOT)}:{line}", *found.groups())


def of(*languages: str) -> list[Block]:
    every = (block for page, text in TEXT.items() for block in blocks(page, text))
    return [block for block in every if block.language in languages]


def place(block: Block) -> str:
    return block.place


def without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


# --- examples -----------------------------------------------------------------------------------


def load_example(block: Block, folder: Path) -> object:
    """By the loader of what it is: a lab, a quarantine list, a recipe, else a scenario."""
    keys = tomllib.loads(block.text)
    path = folder / "example.toml"
    path.write_text(block.text)
    if "hosts" in keys or "kind" in keys:
        return load_lab(path)
    if "quarantine" in keys:
        return quarantine.load(path)
    return read_recipe(path) if "suite" in keys else parse(block.text, block.place)


@pytest.mark.parametrize("block", of("toml"), ids=place)
def test_a_toml_example_is_loaded_by_the_real_loader(block: Block, tmp_path: Path) -> None:
    assert load_example(block, tmp_path)


@pytest.mark.parametrize("text", ['nmae = "x"', 'kind = "rack"', 'suite = "x"\nkernle = "y"'])
def test_a_wrong_toml_example_is_noticed(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        load_example(Block("x", "toml", "", text), tmp_path)


@pytest.mark.parametrize("block", of("json"), ids=place)
def test_a_json_example_is_what_it_says(block: Block) -> None:
    """The fence names the type: ```json Gap."""
    kind = getattr(model, block.about)
    assert kind.model_validate_json(block.text, strict=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_json_in_a_sentence_is_json(page: Path) -> None:
    for text in re.findall(r'`(\{".*?\})`', without_blocks(TEXT[page])):
        if "..." not in text:
            json.loads(text)


def unresolved(source: str) -> list[str]:
    """Names that an example imports and that are not there; SyntaxError if it is not Python."""
    missing = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            missing += [a.name for a in node.names if not hasattr(module, a.name)]
    return missing


@pytest.mark.parametrize("block", of("python"), ids=place)
def test_a_python_example_compiles_and_its_imports_resolve(block: Block) -> None:
    compile(block.text, block.place, "exec")
    assert unresolved(block.text) == []


def test_a_wrong_import_is_noticed() -> None:
    assert unresolved("from migrate.model import Case, Csae") == ["Csae"]


def test_the_tests_of_the_examples_have_their_fixtures(tmp_path: Path) -> None:
    """pytest plans them without running them: a fixture that is not there is an error."""
    examples = [block for block in of("python") if "def test_" in block.text]
    assert len(examples) > 2
    for number, block in enumerate(examples):
        (tmp_path / f"test_example_{number}.py").write_text(block.text)
    argv = ["-m", "pytest", "--setup-plan", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, *argv], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stdout


# --- the threat model ---------------------------------------------------------------------------


def test_each_boundary_of_the_threat_model_has_a_test_that_is_there() -> None:
    defined = {
        name
        for path in (ROOT / "selftests").rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)\(", path.read_text(), re.MULTILINE)
    }
    page = TEXT[ROOT / "docs/threat-model.md"]
    fires = re.findall(r"`(test_\w+)`", page)
    assert len(fires) > 20
    assert sorted(set(fires) - defined) == []
    for row in re.findall(r"^\| what could be done.*?\n\n", page + "\n", re.MULTILINE | re.DOTALL):
        for line in row.strip().splitlines()[2:]:
            assert "`test_" in line.rpartition(" | ")[2], f"nothing fires: {line}"


# --- commands -----------------------------------------------------------------------------------


def commands(text: str) -> Iterator[list[str]]:
    """Every `migrate-lab …` of a page, in sentences and in console blocks; as words."""
    said = re.findall(r"`(migrate-lab [^`]*)`", without_blocks(text))
    for block in blocks(ROOT / "x", text):
        if block.language == "console":
            said += re.findall(r"^[$#] (migrate-lab .*)$", block.text, re.MULTILINE)
    for line in said:
        yield shlex.split(line)[1:]


COMMANDS = [(page.name, words) for page, text in TEXT.items() for words in commands(text)]


@pytest.mark.usefixtures("harmless")
@pytest.mark.parametrize(
    "words", [pytest.param(words, id=f"{page}-{' '.join(words)}") for page, words in COMMANDS]
)
def test_a_command_is_one_that_the_command_line_takes(words: list[str]) -> None:
    if " ".join(words) not in LEAVES:  # a sentence may name a command without its arguments
        cli(words, standalone_mode=False)


@pytest.mark.usefixtures("harmless")
@pytest.mark.parametrize(
    "line", ["runn x.toml", "run", "run x --repaet 2", "compare", "lab shell", "run x --repeat 0"]
)
def test_a_wrong_command_is_noticed(line: str) -> None:
    with pytest.raises(click.UsageError):
        cli(shlex.split(line), standalone_mode=False)


def test_files_that_commands_name_are_there() -> None:
    for page, words in COMMANDS:
        for word in words:
            if word.endswith(".toml"):
                assert (ROOT / word).is_file(), f"{page}: {word}"


@pytest.mark.parametrize("name", LEAVES)
def test_every_command_and_option_is_in_the_documentation(name: str) -> None:
    everything = "\n".join(TEXT.values())
    assert f"`migrate-lab {name}" in everything
    for option in LEAVES[name].params:
        if isinstance(option, click.Option):
            assert any(f"`{flag}" in everything for flag in option.opts), option.name


class Recorder:
    """As much of pytest's parser as a plugin asks for."""

    def __init__(self) -> None:
        self.options: list[str] = []

    def getgroup(self, _name: str) -> Recorder:
        return self

    def addoption(self, name: str, **_how: object) -> None:
        self.options.append(name)


def test_every_option_and_fixture_of_pytest_is_in_its_page() -> None:
    text = (ROOT / "docs/pytest.md").read_text()
    recorder = Recorder()
    pytest_plugin.pytest_addoption(recorder)  # type: ignore[arg-type]
    assert recorder.options
    fixtures = ["lab", "pair", "scenario", "case", "boot", "verdicts"]
    assert all(hasattr(pytest_plugin, name) for name in fixtures)
    for name in (*recorder.options, *fixtures):
        assert re.search(rf"^\| `{name}[ `]", text, re.MULTILINE), name


# --- what must be told --------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["README.md", "docs/limits.md"])
def test_every_mode_is_named(page: str) -> None:
    assert all(f"`{mode}`" in (ROOT / page).read_text() for mode in MODES)


def test_a_runs_folder_is_named_as_the_page_says() -> None:
    page = TEXT[ROOT / "docs/run-files.md"]
    (example,) = re.findall(r"named by its begin in UTC to the microsecond \(`(.*?)`\)", page)
    shape = re.sub(r"\d", "0", example)
    assert re.sub(r"\d", "0", layout.run_name()) == shape


def test_each_kind_of_lab_is_named_with_the_key_that_has_it() -> None:
    (row,) = re.findall(r"^\| `lab`, `lab_kind`.*$", TEXT[ROOT / "docs/run-files.md"], re.MULTILINE)
    assert all(f"`{kind}`" in row for kind in KINDS)


def keys_of(*kinds: type[BaseModel]) -> set[str]:
    """The keys of values and of all that is in them, but for those with a page of their own."""
    keys: set[str] = set()
    done: set[type[BaseModel]] = {model.Case, model.HostFacts}
    todo = list(kinds)
    while todo:
        if (kind := todo.pop()) not in done:
            done.add(kind)
            keys |= kind.model_fields.keys()
            todo += [inner for field in kind.model_fields.values() for inner in values_in(field)]
    return keys


def values_in(field: FieldInfo) -> Iterator[type[BaseModel]]:
    parts: list[object] = [field.annotation]
    while parts:
        part = parts.pop()
        parts += get_args(part)
        if isinstance(part, type) and issubclass(part, BaseModel):
            yield part


@pytest.mark.parametrize("kind", [model.Attempt, model.Run])
def test_every_key_of_a_runs_files_is_in_their_page(kind: type[BaseModel]) -> None:
    keys = keys_of(kind)
    assert {"begin_ns", "length_ns"} <= keys or {"skips", "reason"} <= keys
    page = TEXT[ROOT / "docs/run-files.md"]
    assert sorted(key for key in keys if f"`{key}`" not in page) == []


def test_the_limits_of_a_guest_are_those_of_its_xml() -> None:
    """One interface (or a failover pair), no firmware but QEMU's BIOS: as the page says."""
    page = TEXT[ROOT / "docs/limits.md"]
    assert all(f"**{limit}.**" in page for limit in ("One network interface", "BIOS only"))
    assert "**Our own XML.**" in page
    for path in (ROOT / "domains/golden").iterdir():
        text = path.read_text()
        pair = "failover" in path.name
        assert len(re.findall(r"<interface\b", text)) <= 1 + pair, path.name
        assert not re.search(r"<loader|firmware=|<tpm", text), path.name


def test_a_page_says_that_hosts_see_no_file_of_the_machine_but_a_shared_folder() -> None:
    _, _, section = TEXT[ROOT / "docs/lab-files.md"].partition("\n## What a host sees")
    section, _, _ = section.partition("\n## ")
    assert "**Files of this machine are not seen in it**" in section
    assert "--share" in section
    assert SHARED_AT in section


def test_every_bench_is_in_the_table_of_its_page() -> None:
    programs = {
        path.stem
        for path in (ROOT / "bench").glob("*.py")
        if ('if __name__ == "__main__":' in path.read_text() and "argparse" in path.read_text())
        or "options(__doc__" in path.read_text()
    }
    head = TEXT[ROOT / "docs/benchmarks.md"].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", head, re.MULTILINE)) == programs


# --- links --------------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    """Headings, as GitHub turns them into anchors."""
    headings = re.findall(r"^#+ (.*)$", without_blocks(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


def broken(page: Path, text: str) -> list[str]:
    """Links to files or headings that are not there."""
    found = []
    for target in re.findall(r"\]\(([^)\s]+)\)", without_blocks(text)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name) if name else page
        inside = path.suffix != ".md" or not anchor or anchor in anchors(path.read_text())
        if not path.exists() or not inside:
            found.append(target)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert broken(page, TEXT[page]) == []


def test_a_broken_link_is_noticed() -> None:
    text = "[a](nowhere.md) [b](README.md#nothing) [c](README.md) [d](https://example.org)"
    assert broken(ROOT / "x.md", text) == ["nowhere.md", "README.md#nothing"]


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs/README.md").read_text()
    pages = [page.name for page in (ROOT / "docs").glob("*.md") if page.name != "README.md"]
    assert pages
    assert [name for name in pages if f"]({name})" not in index] == []


def test_pictures_are_small() -> None:
    pictures = list((ROOT / "docs/images").iterdir())
    assert pictures
    assert all(picture.stat().st_size < 300_000 for picture in pictures)


# --- one purpose, one place ---------------------------------------------------------------------


def sentences(text: str) -> set[str]:
    """What a page says: sentences and cells of more than a few words, without their links."""
    plain = re.sub(
        r"\]\([^)]*\)",
        "]",
        re.sub(r"<!-- table: .*?<!-- end: ", "", without_blocks(text), flags=re.S),
    )
    parts = re.split(r"(?<=[.:;?!])\s+|\n| \| ", plain)
    words = (" ".join(re.findall(r"\w+", part.lower())) for part in parts)
    return {sentence for sentence in words if len(sentence) >= 45}


def said_twice(texts: dict[str, str]) -> dict[str, list[str]]:
    """Sentences that stand on more than one page."""
    places: dict[str, list[str]] = {}
    for page, text in texts.items():
        for sentence in sentences(text):
            places.setdefault(sentence, []).append(page)
    return {sentence: pages for sentence, pages in places.items() if len(pages) > 1}


def test_no_sentence_stands_on_two_pages() -> None:
    pages = {page.name: text for page, text in TEXT.items() if page.name != "CHANGELOG.md"}
    assert said_twice(pages) == {}


def test_a_sentence_on_two_pages_is_noticed() -> None:
    sentence = "A gap runs from one packet that was served to the next one served."
    assert said_twice({"a.md": f"x. {sentence}", "b.md": f"# y\n{sentence}\n"})
    assert not said_twice({"a.md": sentence, "b.md": f"```\n{sentence}\n```\n"})


LONGEST_PARAGRAPH = 700
"""Letters, without links' targets: more is a wall, and wants to be a list, a table or two."""


def walls(text: str) -> list[str]:
    """The begins of paragraphs that are too long; a row of a table is none."""
    plain = re.sub(r"\]\([^)]*\)", "]", without_blocks(text))
    lines = (line for line in plain.splitlines() if not line.startswith("|"))
    return [line[:60] for line in lines if len(line) > LONGEST_PARAGRAPH]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_paragraph_is_a_wall(page: Path) -> None:
    if page.name != "CHANGELOG.md":
        assert walls(TEXT[page]) == []


def test_a_wall_is_noticed() -> None:
    assert walls(f"short\n\nlong {'word ' * 200}\n")
    assert not walls(f"| {'cell ' * 200} |\n\n[a]({'x' * 900})\n")


RIDDLES = re.compile(
    r"(?<![`*.])\b(lends?|lent|deaf|foretold|(?:be|is|are|was|were|not|been) had)\b(?![`*]|\.\*)"
)
"""Words that a maintainer of QEMU or libvirt would not write: provides, reserves, is obtained."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_is_in_the_words_of_the_field(page: Path) -> None:
    if page.name != "CHANGELOG.md":
        assert RIDDLES.findall(without_blocks(TEXT[page])) == []


def test_a_riddle_is_noticed() -> None:
    assert RIDDLES.findall("what it lends can't be had; `lends` and `foretold` are keys") == [
        "lends",
        "be had",
    ]
