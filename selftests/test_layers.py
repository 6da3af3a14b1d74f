"""The plan of the house: imports go down only, and each third-party library has one door."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "migrate"

COMMANDS = ("cli_output", "cli_gate", "cli_lease", "cli_nightly", "cli_repair", "cli_trend")

LAYERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("leaves", ("errors", "clock", "call", "virtio_features", "model")),
    (
        "pure",
        (
            *(
                "clocks",
                "evidence",
                "timeline",
                "phases",
                "outage",
                "checks_inside",
                "checks",
                "virtqueue",
                "stats",
                "gate",
            ),
            *("traces", "announcing", "explain", "handoff", "convergence"),
            *("cursor", "virtio_net_state", "vmstate_stream"),
            *("quarantine", "priority"),
            *("scenario", "results", "prune"),
        ),
    ),
    ("adapters", ("shell", "netns", "ssh", "libvirt_client", "qmp_client")),
    (
        "nouns",
        (
            "kernel_image",
            "image",
            "boot_sector",
            "domain",
            "lab",
            "disk_image",
            "interfaces",
            "guest",
        ),
    ),
    ("verbs", ("probe", "observe", "plugging", "migration", "faults", "repair")),
    ("readers", ("report",)),
    ("the story", ("seen", "stage", "inside", "experiment", "session", "nightly", "shared")),
    ("doors", ("progress", *COMMANDS, "cli", "pytest_plugin", "avocado_plugin")),
)
"""From the bottom up. A module imports what is named before it, and nothing else of ours."""

ORDER = {
    module: number
    for number, module in enumerate(module for _, modules in LAYERS for module in modules)
}

DOORS: dict[str, tuple[str, ...]] = {
    "libvirt": ("libvirt_client",),
    "libvirt_qemu": ("libvirt_client",),
    "paramiko": ("ssh",),
    "qemu": ("qmp_client",),
    # Beside the shell: pipes that stay open (a host's start, a probe), bytes, a terminal.
    "subprocess": (
        *("shell", "lab.carrier", "lab.fabric", "lab.hosts", "lab.rack", "kernel_image", "image"),
        *("probe", "cli"),
    ),
    "duckdb": ("report.store",),
    "labgrid": ("lab.coordinator",),
    "grpc": ("lab.coordinator",),
    "click": ("cli", *COMMANDS),
    "jinja2": ("domain", "report.html", "report.trend_page"),
    "plotly": ("report",),
    "pyarrow": ("results",),
    "pytest": ("pytest_plugin",),
    "avocado": ("avocado_plugin",),
}
"""Who may import a library; a package's name stands for all that is in it."""

RUN_FOLDERS_ONLY = {"report"}
"""What sees only what was recorded, and never a lab."""

"""Importing these must not import anything heavy: `migrate-lab --help` waits for it."""


def name_of(path: Path, package: Path) -> str:
    """``migrate/lab/local.py`` is ``lab.local``; a package is its folder's name."""
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports(tree: ast.AST) -> Iterator[str]:
    """Full names of all that is imported, wherever in the file: also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield "relative"
            elif node.module == "migrate":
                yield from (f"migrate.{alias.name}" for alias in node.names)
            elif node.module:
                yield node.module


def violations(package: Path) -> list[str]:
    """What is wrong with the imports of the package, one sentence each."""
    found: list[str] = []
    for path in sorted(package.rglob("*.py")):
        name = name_of(path, package)
        if not name:
            continue  # the package itself
        if (unit := name.partition(".")[0]) not in ORDER:
            found.append(f"{name} is in no layer: give it a place in LAYERS in {__file__}")
            continue
        for imported in imports(ast.parse(path.read_text())):
            found += filter(None, [judged(name, unit, imported)])
    return found


def judged(name: str, unit: str, imported: str) -> str | None:
    """What is wrong with one import, if anything."""
    top, _, rest = imported.partition(".")
    if top == "relative":
        return f"{name} imports relatively: write the full name"
    if top == "migrate":
        return judged_ours(name, unit, rest.partition(".")[0])
    doors = DOORS.get(top)
    if doors is None or any(name == door or name.startswith(f"{door}.") for door in doors):
        return None
    return f"{name} imports {top}: its door is {' and '.join(doors)}"


def judged_ours(name: str, unit: str, other: str) -> str | None:
    """The same for a module of this package."""
    if other in {"", "__version__", unit}:
        return None
    if other not in ORDER:
        return f"{name} imports {other}, which is in no layer"
    if ORDER[other] > ORDER[unit]:
        return f"{name} imports {other}: imports go down only"
    if unit in RUN_FOLDERS_ONLY and ORDER[other] >= ORDER["shell"]:
        return f"{name} imports {other}: it reads run folders only"
    return None


def test_imports_go_down_only_and_libraries_have_one_door() -> None:
    found = violations(PACKAGE)
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("module", "text", "said"),
    [
        ("clock", "import migrate.experiment", "imports go down only"),
        ("outage", "from migrate import guest", "imports go down only"),
        ("timeline", "from migrate.outage import gaps", "imports go down only"),
        ("guest", "def f():\n    import libvirt", "its door is libvirt_client"),
        ("lab/local", "from plotly.graph_objects import Figure", "its door is report"),
        ("report/table", "import subprocess", "its door is shell"),
        ("report/table", "from migrate.lab.local import up", "it reads run folders only"),
        ("guest", "from . import domain", "imports relatively"),
        ("guest", "from migrate.nowhere import something", "nowhere, which is in no layer"),
        ("nowhere", "", "nowhere is in no layer: give it a place"),
    ],
)
def test_a_violation_is_told(tmp_path: Path, module: str, text: str, said: str) -> None:
    path = tmp_path / f"{module}.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    (found,) = violations(tmp_path)
    assert said in found
    assert module.replace("/", ".") in found


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("report/figure", "from plotly import graph_objects\nfrom migrate.results import read_run"),
        ("lab/carrier", "from migrate.lab.journal import read_record\nimport subprocess"),
        ("experiment", "from migrate import checks\nfrom migrate.guest import boot"),
        ("__init__", "import anything"),
    ],
)
def test_what_is_right_is_left_alone(tmp_path: Path, module: str, text: str) -> None:
    path = tmp_path / f"{module}.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    assert violations(tmp_path) == []


def exists(module: str) -> bool:
    path = PACKAGE / module.replace(".", "/")
    return path.with_suffix(".py").exists() or path.is_dir()


HEAVY = ("numpy", "scipy", "pyarrow", "plotly", "jinja2", "libvirt", "paramiko", "duckdb", "grpc")
LIGHT = ("cli", "cli_trend", "model", "scenario", "lab.config", "report.table")


@pytest.mark.parametrize("module", [module for module in LIGHT if exists(module)])
def test_a_light_module_imports_nothing_heavy(module: str) -> None:
    script = (
        f"import sys, migrate.{module}\n"
        f"print(*sorted({{name.partition('.')[0] for name in sys.modules}} & {set(HEAVY)}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_every_door_is_a_module_of_a_layer() -> None:
    named = {door.partition(".")[0] for doors in DOORS.values() for door in doors}
    assert named <= set(ORDER)
