"""pytest's door: fixtures with which a test is three sentences. No logic: it calls the layer below.

- ``lab``: a :class:`~migrate.session.Session`, one for the whole test run: a lab that is up, what
  its hosts can do, and a run folder.
- ``pair``: a function from a case to its source and target; skips the test where there are none.
- ``scenario``: a function that runs a case (or the only case of a scenario file) and returns the
  :class:`~migrate.model.Attempt`.
- ``boot``: a context manager: a case's world in a state, a guest running under load; the test acts
  on it by hand.
- ``verdicts``: a function that fails the test, with the table of verdicts, unless all passed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from migrate.lab.hosts import Host
    from migrate.model import Attempt, Case
    from migrate.session import Session
    from migrate.stage import Stage

Pair = Callable[["Case"], tuple["Host", "Host"]]
Scenario = Callable[..., "Attempt"]
Boot = Callable[..., AbstractContextManager["Stage"]]
Verdicts = Callable[["Attempt"], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where the cases run, and where their results go."""
    group = parser.getgroup("migrate-lab")
    group.addoption("--lab", type=Path, help="lab file; default: two hosts on this machine")
    group.addoption("--lab-name", help="another name for the lab")
    group.addoption("--results", type=Path, default=Path("results"), help="where runs are kept")


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest) -> Iterator[Session]:
    """A lab that is up, with a run folder; taken down at the end if it was not up before."""
    from migrate import session
    from migrate.lab.config import load_lab
    from migrate.progress import Progress

    option = request.config.getoption
    config = load_lab(option("--lab"), option("--lab-name"))
    progress = Progress(quiet=request.config.get_verbosity() < 1)
    watcher = session.Watcher(
        progress.say, progress.on_sample, progress.on_phase, progress.on_attempt
    )
    with session.lab_up(config, progress.say) as found:
        going = session.begin(found, option("--results"), (), watcher, sys.argv)
        try:
            yield going
        finally:
            going.finish()
            progress.end()


@pytest.fixture
def pair(lab: Session) -> Pair:
    """Source and target for a case; a case that can't run here skips the test, with the reason."""
    from migrate.model import Skip

    def place(case: Case) -> tuple[Host, Host]:
        found = lab.place(case)
        if isinstance(found, Skip):
            lab.skip(found)
            pytest.skip(f"{found.reason}; it takes: {found.remedy}")
        return found

    return place


@pytest.fixture
def scenario(lab: Session, pair: Pair) -> Scenario:
    """Run a case, or the only case that a scenario file makes with the given overrides.

    ``variant`` names one of the file's variants; what the file leaves open is the lab's to say.
    """
    from migrate.errors import LabError

    def run(what: Case | Path, *overrides: str, variant: str = "") -> Attempt:
        """What leaves no attempt fails the test in one line."""
        case = _case(what, overrides, variant, lab)
        place = pair(case)
        try:
            return lab.attempt(case, lab.next_number(case), place)
        except LabError as error:
            pytest.fail(f"{case.id}: no attempt: {error}", pytrace=False)

    return run


@pytest.fixture
def boot(lab: Session, pair: Pair) -> Boot:
    """A case's world in a state; the test moves the guest, or does what else it wants."""

    @contextmanager
    def start(what: Case | Path, *overrides: str, variant: str = "") -> Iterator[Stage]:
        case = _case(what, overrides, variant, lab)
        with lab.staged(case, pair(case)) as stage:
            yield stage

    return start


@pytest.fixture
def verdicts() -> Verdicts:
    """Judge: every verdict of the attempt must be a pass, or an `unmeasured` that is allowed."""

    def judge(attempt: Attempt) -> None:
        from migrate.report.table import told

        if not attempt.passed:
            pytest.fail("\n".join(told(attempt)), pytrace=False)

    return judge


def _case(what: Case | Path, overrides: tuple[str, ...], variant: str, lab: Session) -> Case:
    from migrate.errors import ConfigurationError
    from migrate.scenario import load

    if not isinstance(what, Path):
        return what
    found = load(what, overrides, lab.lab.scenario_defaults)
    wanted = f"{found.name}-{variant}"
    cases = [case for case in found.cases if not variant or case.id == wanted]
    if not cases:
        raise ConfigurationError(
            f"run the variant {variant!r} of {what}",
            said="there is no such case",
            remedy=", ".join(case.id for case in found.cases),
        )
    if len(cases) != 1:
        raise ConfigurationError(
            f"run the only case of {what}",
            said=f"it makes {len(cases)}: {', '.join(case.id for case in cases)}",
            remedy="narrow it by a variant, or by overrides such as interface.mode=virtio",
        )
    return cases[0]
