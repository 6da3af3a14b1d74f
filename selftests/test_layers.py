"""The plan of the house: imports go down only, and each third-party library has one door."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from selftests.helpers import ROOT

PACKAGE = ROOT / "migrate"
PLAN = ROOT / "docs" / "architecture.md"

DOORS: dict[str, tuple[str, ...]] = {
    "libvirt": (
        "drivers.libvirt",
        "drivers.libvirt_domain",
        "drivers.libvirt_events",
        "drivers.libvirt_channel",
    ),
    "libvirt_qemu": ("drivers.libvirt", "drivers.libvirt_domain"),
    "paramiko": ("drivers.ssh", "drivers.ssh_address"),
    "qemu": ("drivers.qmp",),
    # Beside the shell: pipes that stay open (a host's start, a probe), bytes, a terminal.
    "subprocess": (
        *("drivers.shell", "lab.namespaces", "lab.fabric", "lab.api", "lab.rack.lab"),
        *("images.kernel", "images.initramfs", "guest.transport", "drivers.terminal"),
    ),
    # A lock has a deadline, and tells who has it; a terminal is made by ioctl(2).
    "fcntl": ("locks", "drivers.terminal"),
    "duckdb": ("results.database",),
    "scipy": ("statistics.significance",),
    "labgrid": ("lab.lease.coordinator",),
    "grpc": ("lab.lease.coordinator",),
    "click": ("cli",),
    "jinja2": ("backends.xml", "report.html"),
    "pyarrow": ("results.tables",),
    "pytest": ("plugins.pytest",),
    "avocado": ("plugins.avocado",),
}
"""Who may import a library; a package's name stands for all that is in it."""


def rooms() -> tuple[str, ...]:
    """The folders and modules of the package from the top down, as the plan has them."""
    block = PLAN.read_text().split("```")[1]
    return tuple(re.findall(r"^(\w+)(?:/|\.py) ", block, re.M))


def modules(package: Path) -> Mapping[str, Path]:
    """``migrate/lab/api.py`` is ``lab.api``; a package is its folder's name."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


def imports(tree: ast.AST) -> Iterator[str]:
    """Full names of all that is imported, wherever in the file: also inside functions.

    ``from migrate.lab import api`` is ``migrate.lab.api``, so is ``from migrate.lab.api import x``.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield "relative"
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def violations(package: Path, plan: tuple[str, ...]) -> list[str]:
    """What is wrong with the imports of the package, one sentence each."""
    order = {room: number for number, room in enumerate(plan)}
    return [
        said
        for name, path in modules(package).items()
        if name
        for imported in imports(ast.parse(path.read_text()))
        if (said := violation(name, imported, order)) is not None
    ]


def violation(name: str, imported: str, order: Mapping[str, int]) -> str | None:
    """What is wrong with one import, if anything."""
    top, _, rest = imported.partition(".")
    if top == "relative":
        return f"{name} imports relatively: write the full name"
    if top == "migrate":
        room, other = name.partition(".")[0], rest.partition(".")[0]
        if other in {"", "__version__", room} or room not in order:
            return None
        if other not in order or order[other] < order[room]:
            return f"{name} imports {rest}: imports go down only"
        return None
    doors = DOORS.get(top)
    if doors is None or any(name == door or name.startswith(f"{door}.") for door in doors):
        return None
    return f"{name} imports {top}: its door is {' and '.join(doors)}"


def circles(package: Path) -> list[str]:
    """Modules that can reach themselves by their imports."""
    known = modules(package)
    needs = {name: set(_ours(path, known)) - {name} for name, path in known.items()}
    reach = {name: set(found) for name, found in needs.items()}
    for middle in known:
        for reached in reach.values():
            if middle in reached:
                reached.update(reach[middle])
    return sorted(name for name, found in reach.items() if name in found)


def _ours(path: Path, known: Mapping[str, Path]) -> Iterator[str]:
    for imported in imports(ast.parse(path.read_text())):
        top, _, rest = imported.partition(".")
        if top == "migrate":
            yield rest if rest in known else rest.rpartition(".")[0]


def test_the_plan_names_what_is_there() -> None:
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert there - {"__init__", "__pycache__"} == set(rooms())


def test_imports_go_down_only_and_libraries_have_one_door() -> None:
    found = violations(PACKAGE, rooms())
    assert not found, "\n".join(found)


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert not circles(PACKAGE)


@pytest.mark.parametrize(
    ("module", "text", "said"),
    [
        ("model/case", "import migrate.attempt", "imports go down only"),
        ("analysis/outage", "from migrate import guest", "imports go down only"),
        ("lab/local/lab", "from migrate.campaign.session import begin", "imports go down only"),
        ("guest/probe", "def f():\n    import libvirt", "its door is drivers.libvirt"),
        ("lab/fabric", "import jinja2", "its door is"),
        ("report/table", "import subprocess", "its door is drivers.shell"),
        ("report/table", "from migrate.lab.local.lab import up", "imports go down only"),
        ("guest/probe", "from . import lifecycle", "imports relatively"),
        ("guest/probe", "from migrate.nowhere import something", "imports go down only"),
    ],
)
def test_a_violation_is_told(tmp_path: Path, module: str, text: str, said: str) -> None:
    path = tmp_path / f"{module}.py"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    (found,) = violations(tmp_path, rooms())
    assert said in found
    assert module.replace("/", ".") in found


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("report/figure", "from plotly import io\nfrom migrate.results.reader import read_run"),
        ("lab/namespaces", "from migrate.lab.state import read_record\nimport subprocess"),
        ("attempt", "from migrate.checks import basic\nfrom migrate.guest.lifecycle import boot"),
        ("__init__", "import anything"),
    ],
)
def test_what_is_right_is_left_alone(tmp_path: Path, module: str, text: str) -> None:
    path = tmp_path / f"{module}.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    assert violations(tmp_path, rooms()) == []


def test_a_circle_is_told(tmp_path: Path) -> None:
    for name, other in (("one", "two"), ("two", "three"), ("three", "one"), ("four", "one")):
        (tmp_path / f"{name}.py").write_text(f"from migrate.{other} import x")
    assert circles(tmp_path) == ["one", "three", "two"]


SLEEPS = re.compile(r"\btime\.sleep\(|\bEvent\(\)\.wait\(")
"""Waiting for time to pass: :func:`migrate.clock.until` and ``pause`` do it for all."""


def test_nobody_sleeps_but_the_clock() -> None:
    sleepers = [name for name, path in modules(PACKAGE).items() if SLEEPS.search(path.read_text())]
    assert sleepers == ["clock"]


HEAVY = ("numpy", "scipy", "pyarrow", "jinja2", "libvirt", "paramiko", "duckdb", "grpc")
LIGHT = ("cli.main", "cli.trend", "model", "scenario.loader", "lab.kinds", "report.table")
"""Importing these must not import anything heavy: ``migrate-lab --help`` waits for it."""


@pytest.mark.parametrize("module", LIGHT)
def test_a_light_module_imports_nothing_heavy(module: str) -> None:
    script = (
        f"import sys, migrate.{module}\n"
        f"print(*sorted({{name.partition('.')[0] for name in sys.modules}} & {set(HEAVY)}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


BY_HAND = re.compile(r"\bjson\.loads?\(|\bfromstring\(|\bXMLParser\(|\bXMLPullParser\(")
READERS = {
    "campaign.nightly",  # run folders, whose reader checks them
    "formats.vmstate_description",  # bytes of a stream, word by word
    "formats.xml_document",
    "results.reader",
    "results.recording_file",
}
"""Modules that may read JSON or XML by hand; all others have a shape for it (formats.answers)."""


def test_nobody_reads_what_a_host_answers_without_a_shape() -> None:
    readers = {name for name, path in modules(PACKAGE).items() if BY_HAND.search(path.read_text())}
    assert readers <= READERS, f"use migrate.formats.answers: {readers - READERS}"
