"""What pip installs works without the clone: from an empty folder to a guest that was moved."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml

from migrate.cli.init import STARTER
from migrate.results.reader import read_run
from selftests.helpers import ROOT

pytestmark = pytest.mark.needs_root
"""A lab at the end, and a network for pip."""
PATIENCE_S = 300.0
"""For one command; what is downloaded included."""


def output(*argv: object, cwd: Path, path: Path | None = None) -> str:
    """Both streams of a command that has to succeed; programs in ``path`` go first."""
    found = os.environ["PATH"] if path is None else f"{path}:{os.environ['PATH']}"
    done = subprocess.run(
        [str(word) for word in argv],
        cwd=cwd,
        env={**os.environ, "PATH": found},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, f"{argv}: {done.stdout}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as a packager does it: from the source archive, not from the clone."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-d", folder, "-t"]
    output(*build, "sdist", cwd=ROOT)
    output("tar", "-xzf", next(folder.glob("*.tar.gz")), cwd=folder)
    output(*build, "wheel", cwd=next(path for path in folder.iterdir() if path.is_dir()))
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a new environment that has the wheel, and what the lock file names."""
    folder = tmp_path_factory.mktemp("installed")
    output(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin/python"]
    install = [*pip, "install", "--quiet", "--no-compile", "--no-deps"]
    lock = ROOT / "requirements.lock"
    output(*install, "--require-hashes", "-r", lock, cwd=folder)
    output(*install, wheel, cwd=folder)
    output(*pip, "check", cwd=folder)
    return folder / "bin"


def data_of(wheel: Path) -> set[str]:
    """What it carries of the tree's top folders, by the paths there."""
    below = "migrate/_data/"
    with ZipFile(wheel) as archive:
        files = archive.namelist()
    return {name.removeprefix(below) for name in files if name.startswith(below)}


def test_a_wheel_carries_what_is_read_and_no_more(wheel: Path) -> None:
    patterns = ("domains/*.j2", "guest-images/**/*", "labs/*.toml", "testcases/scenarios/*.toml")
    there = [path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()]
    wanted = {str(path.relative_to(ROOT)) for path in there if path.suffix != ".md"}
    assert len(wanted) > 40
    assert data_of(wheel) == wanted


def test_a_wheel_carries_every_module(wheel: Path) -> None:
    """An ignored name such as ``results`` is left out by whoever builds it, tracked or not."""
    with ZipFile(wheel) as archive:
        carried = {name for name in archive.namelist() if name.endswith(".py")}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "migrate").rglob("*.py")}
    assert modules <= carried


def test_what_is_installed_is_not_the_clone(programs: Path, tmp_path: Path) -> None:
    script = "import migrate, migrate.data as d; print(migrate.__file__, d.data_path('domains'))"
    places = output(programs / "python", "-c", script, cwd=tmp_path).split()
    assert all(Path(place).is_relative_to(programs.parent) for place in places)


@pytest.mark.parametrize("library", ["scipy", "duckdb", "labgrid", "avocado", "lxml"])
def test_what_is_installed_has_no_extras(library: str, programs: Path, tmp_path: Path) -> None:
    script = f"import importlib.util as u; print(u.find_spec({library!r}))"
    assert output(programs / "python", "-c", script, cwd=tmp_path) == "None\n"


def test_a_guest_moves_by_the_starter_in_an_empty_folder(
    programs: Path, tmp_path: Path, lab_name: str
) -> None:
    """By its scenario and by its test, as its CI job says."""
    output("migrate-lab", "init", cwd=tmp_path, path=programs)
    job = yaml.safe_load((tmp_path / ".gitlab-ci.yml").read_text())["moves"]
    for part in ("script", "after_script"):
        script = "\n".join(["set -e", *job[part]]).replace("name ci", f"name {lab_name}")
        output("sh", "-c", script, cwd=tmp_path, path=programs)
    runs = [read_run(path.parent) for path in tmp_path.glob("results/*/run.json")]
    cases = [[one.attempt.case.id for one in record.attempts] for record in runs]
    assert cases == [["first-move-virtio"], ["first-move-virtio"]]
    assert all(one.attempt.passed for record in runs for one in record.attempts)
    left = {path.name for path in tmp_path.iterdir()} - set(STARTER)
    assert left - {".pytest_cache", "__pycache__"} == {
        "results",
        "junit.xml",
        "junit-tests.xml",
    }
