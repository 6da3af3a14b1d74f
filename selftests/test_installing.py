"""What is installed: by the lock files, from Debian, and what says so when an extra is missing."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable
from importlib import metadata

import numpy as np
import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from migrate.errors import ConfigurationError
from migrate.results.database import open_store
from migrate.statistics.significance import attempts_test
from selftests.helpers import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize(
    ("extra", "library", "use"),
    [
        ("gate", "scipy", lambda: attempts_test(np.arange(8), 3)),
        ("trend", "duckdb", lambda: open_store(ROOT / "results")),
    ],
)
def test_a_library_that_is_not_installed_is_told_with_its_extra(
    extra: str, library: str, use: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigurationError) as caught:
        use()
    assert caught.value.said == f"{library} is not installed"
    assert caught.value.remedy == f"pip install 'migrate-lab[{extra}]'"
    assert any(line.startswith(library) for line in PROJECT["optional-dependencies"][extra])


def test_other_modules_do_without_the_extras() -> None:
    """All that a run, its table and its report import; plugins and the gate's statistics aside."""
    libraries = ("scipy", "duckdb", "labgrid", "grpc", "avocado", "lxml", "yaml", "hypothesis")
    script = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({libraries}))\n"
        "import migrate.attempt, migrate.campaign.session, migrate.campaign.nightly\n"
        "import migrate.cli.main, migrate.plugins.pytest, migrate.report.html\n"
        "from migrate.statistics.spread import spread\n"
        "assert spread(range(20)).level > 0.95"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


# --- lock files ---------------------------------------------------------------------------------


def locked(lock: str) -> dict[str, str]:
    """Versions by name; each requirement of the file has its hashes."""
    pattern = r"^([\w.-]+)==(\S+)(?: ;[^\n]*?)? \\\n    --hash=sha256:"
    return dict(re.findall(pattern, (ROOT / lock).read_text(), re.MULTILINE))


def names(requirements: Iterable[str]) -> set[str]:
    found = {re.split(r"[^\w.-]", requirement)[0] for requirement in requirements}
    return {name.lower().replace(".", "-").replace("_", "-") for name in found}


def test_the_locks_have_all_that_is_asked_for() -> None:
    needed = names(PROJECT["dependencies"])
    extras = (PROJECT["optional-dependencies"][name] for name in ("dev", "gate", "trend"))
    assert needed <= locked("requirements.lock").keys()
    more = needed.union(*map(names, extras)) - {"migrate-lab"}
    assert more <= locked("requirements-dev.lock").keys()


def test_the_check_has_the_versions_that_quickstart_has() -> None:
    run, check = locked("requirements.lock"), locked("requirements-dev.lock")
    assert run.items() <= check.items()


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_a_lock_pins_every_line_and_names_no_host(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert len(locked(lock)) == len(re.findall(r"^\w", text, re.MULTILINE))
    assert "://" not in text


def closure(requirements: Iterable[str]) -> set[str]:
    """The names of all that is installed for these here, by what each package says it needs."""
    found: set[str] = set()
    left = [Requirement(text) for text in requirements]
    while left:
        requirement = left.pop()
        asked = [{"extra": extra} for extra in ("", *requirement.extras)]
        mark = f"{canonicalize_name(requirement.name)}[{','.join(sorted(requirement.extras))}]"
        if mark in found:
            continue
        found.add(mark)
        for text in metadata.requires(requirement.name) or ():
            needed = Requirement(text)
            if needed.marker is None or any(needed.marker.evaluate(given) for given in asked):
                left.append(needed)
    return {mark.partition("[")[0] for mark in found}


OF_THIS_PYTHON = re.compile(r"^([\w.-]+)==\S+(?: ; ([^\n]*?))? \\\n", re.MULTILINE)


def test_the_lock_names_what_is_needed_and_nothing_else() -> None:
    """A package that was dropped, or came with a new version of another, is seen here."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["build"]
    lines = OF_THIS_PYTHON.findall((ROOT / "requirements.lock").read_text())
    here = {name for name, marker in lines if not marker or Marker(marker).evaluate()}
    assert closure([*PROJECT["dependencies"], *build]) == here


INSTALLERS = ["prepare.sh", *(f"docs/ci/{path.name}" for path in (ROOT / "docs/ci").iterdir())]


@pytest.mark.parametrize("name", INSTALLERS)
def test_nothing_is_installed_that_has_no_hash(name: str) -> None:
    """By quickstart, by the check, by the ready files for CI: also our own package, which is built
    by what the lock names, and brings nothing with it."""
    installs = re.findall(r"pip\"? install (.*)", (ROOT / name).read_text())
    assert len(installs) >= 2
    for words in installs:
        assert "--require-hashes" in words or "--no-deps --no-build-isolation" in words, words


# --- packages of the system ---------------------------------------------------------------------


def test_the_page_has_the_packages_that_quickstart_installs() -> None:
    listed = re.search(r"^packages=\((.*?)^\)", (ROOT / "prepare.sh").read_text(), re.M | re.S)
    assert listed
    wanted = [word for line in listed[1].splitlines() for word in line.split("#")[0].split()]
    page = (ROOT / "docs/installing.md").read_text()
    lines = re.findall(r"^# apt-get install --no-install-recommends (.*)$", page, re.MULTILINE)
    assert sorted(" ".join(lines).split()) == sorted(wanted)
