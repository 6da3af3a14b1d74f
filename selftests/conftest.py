"""One lab for all tests that need a guest, and the command line as its users start it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import settings

from migrate import log
from migrate.campaign.progress import Progress
from migrate.campaign.run_source import NewRun
from migrate.campaign.session import Session, begin
from migrate.images.initramfs import compile_probe
from migrate.lab.local import lab as local
from migrate.lab.local.config import LocalConfig
from migrate.lab.local.lab import LocalLab
from selftests.command_line import LEAVES, Ended, Run, started
from selftests.helpers import SANITIZED, SaidSoFar, new_name, remove_lab

pytest_plugins = ["pytester"]

ROOT_NEEDED = "needs_root: has a lab, network namespaces or mounts; skipped where there is no root"


def pytest_configure(config: pytest.Config) -> None:
    # Ctrl-C is tested, and a shell has it ignored in what it starts in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # How long an example takes is the machine's, and whoever else works on it.
    settings.register_profile("selftests", deadline=None)
    settings.load_profile("selftests")
    config.addinivalue_line("markers", ROOT_NEEDED)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what asks for :func:`root`: ``-m "not needs_root"`` is what any user may run."""
    skip = pytest.mark.skip(reason="needs root")
    for item in items:
        if "root" in getattr(item, "fixturenames", ()):
            item.add_marker("needs_root")
        if os.geteuid() != 0 and item.get_closest_marker("needs_root"):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def root() -> None:
    """Asked for by what makes a lab, a network namespace or a mount."""


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The probe with the sanitizers in it: what they find ends it, and its test."""
    path = tmp_path_factory.mktemp("probe") / "probe"
    compile_probe(path, *SANITIZED)
    return path


@pytest.fixture(scope="session")
def shared_lab(root: None) -> Iterator[LocalLab]:
    """Two hosts that are up for the whole run: tests put back what they break."""
    name = new_name()
    try:
        yield local.KIND.up(LocalConfig(name=name))
    finally:
        remove_lab(name)


@pytest.fixture
def new_lab_name(root: None) -> Iterator[Callable[[], str]]:
    """Names of labs that are not up; whatever is up under them at the end is taken down."""
    given: list[str] = []

    def give() -> str:
        given.append(new_name())
        return given[-1]

    yield give
    for name in given:
        remove_lab(name)


@pytest.fixture
def lab_name(new_lab_name: Callable[[], str]) -> str:
    """The name of a lab that is not up."""
    return new_lab_name()


@pytest.fixture
def told() -> Iterator[SaidSoFar]:
    """What a person is told while the test goes on."""
    said = SaidSoFar()
    with log.shown(said.lines.append):
        yield said


@pytest.fixture
def silent() -> Iterator[None]:
    """Nobody is told anything: no waiting, no work that takes its time."""
    with log.shown(pytest.fail):
        yield


@pytest.fixture
def going(shared_lab: LocalLab, tmp_path: Path) -> Session:
    """A session on the shared lab, with a run folder of its own."""
    return begin(shared_lab, NewRun(tmp_path / "results"), Progress(quiet=True))


@pytest.fixture
def migrate_lab() -> Run:
    """Run ``migrate-lab`` with words as arguments, to its end."""

    def run(*argv: object, prefix: Sequence[str] = ()) -> Ended:
        with started(*argv, prefix=prefix) as command:
            return command.wait()

    return run


@pytest.fixture
def harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands are parsed as ever, and then do nothing."""
    for command in LEAVES.values():
        monkeypatch.setattr(command, "callback", lambda **_options: None)
