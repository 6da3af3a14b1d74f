"""pytest's door: fixtures with which a test is three sentences. No logic: it calls the layer below.

- ``lab``: a :class:`~migrate.campaign.session.Session`, one for the whole test run: a lab that is
  up, what its hosts can do, and a run folder. Workers of pytest-xdist share lab and run folder.
- ``pair``: a function from a case to its source and target; skips the test where there are none.
- ``scenario``: a function that runs a case (or the only case of a scenario file) and returns the
  :class:`~migrate.model.Attempt`.
- ``case``: a function that makes the only case of a scenario file, to be changed in Python.
- ``boot``: a context manager: a guest running under load, on a
  :class:`~migrate.stage.stage.Stage`; the test acts on it by hand.
- ``verdicts``: a function that fails the test, with the table of verdicts, unless all passed.

A scenario file that is named, as an argument or by ``--scenario``, is a file of tests: its cases.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from migrate.data import shipped

if TYPE_CHECKING:
    from migrate.campaign.progress import Progress
    from migrate.campaign.session import Session
    from migrate.lab.api import Host
    from migrate.lab.config import LabConfig
    from migrate.model import Attempt, Case
    from migrate.stage.stage import Invariant, Stage

Pair = Callable[["Case"], tuple["Host", "Host"]]
Scenario = Callable[..., "Attempt"]
Boot = Callable[..., AbstractContextManager["Stage"]]
MakeCase = Callable[..., "Case"]
Verdicts = Callable[["Attempt"], None]

SHARED = pytest.StashKey[tempfile.TemporaryDirectory[str]]()
"""In the process that has workers: the folder by which these share a lab and a run."""
SHARED_KEY = "migrate_lab_shared"
NEEDS = "needs(*names): skip the test where no two hosts have these capabilities or modes"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where the cases run, which ones, how often, and where their results go."""
    group = parser.getgroup("migrate-lab")
    group.addoption("--lab", type=Path, help="lab file; default: two hosts on this machine")
    group.addoption("--lab-name", help="another name for the lab")
    group.addoption("--results", type=Path, default=Path("results"), help="where runs are kept")
    group.addoption(
        "--scenario",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="test every case of this scenario file; may be given several times",
    )
    group.addoption(
        "--repeat", type=int, default=1, metavar="N", help="attempts of each case (default: 1)"
    )


def pytest_configure(config: pytest.Config) -> None:
    """A scenario file that is named by the option is one more thing to collect."""
    config.addinivalue_line("markers", NEEDS)
    if config.getoption("--repeat") < 1:
        raise pytest.UsageError("--repeat: at least 1")
    if config.getoption("--lab") is not None or config.getoption("--lab-name") is not None:
        from migrate.errors import ConfigurationError

        try:
            _lab_config(config)
        except ConfigurationError as error:
            raise pytest.UsageError(str(error)) from error
    files = [str(shipped(path)) for path in config.getoption("--scenario")]
    if files:
        named = config.args_source is pytest.Config.ArgsSource.ARGS
        config.args = [*(config.args if named else ()), *files]


# --- scenario files as files of tests ---


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """One that was named; TOML files that merely lie around are none."""
    if file_path.suffix != ".toml":
        return None
    # One that lies in a folder that is named too is no initial path any more.
    config = parent.config
    named = file_path in (config.invocation_params.dir / name for name in config.args)
    if not named and not parent.session.isinitpath(file_path):
        return None
    return ScenarioFile.from_parent(parent, path=file_path)


class ScenarioFile(pytest.File):
    """Its tests are its cases, each as often as asked for, in turns."""

    def collect(self) -> Iterator[pytest.Item]:
        """Ids as in the run folder: the case's, and the attempt's number if there are several."""
        from migrate.bug_report import program_errors
        from migrate.errors import LabError
        from migrate.scenario.loader import load

        repeat = self.config.getoption("--repeat")
        try:
            with program_errors(f"read {self.path}"):
                loaded = load(self.path, (), _lab_config(self.config).scenario_defaults())
        except LabError as error:
            raise self.CollectError(str(error)) from error
        for number in range(1, repeat + 1):
            for case in loaded.cases:
                name = case.id if repeat == 1 else f"{case.id}/{number}"
                item = CaseItem.from_parent(self, name=name, callobj=_passes)
                item.case, item.number = case, number
                yield item


class CaseItem(pytest.Function):
    """A case of a scenario file: a test like any other, with all fixtures."""

    case: Case
    number: int

    def reportinfo(self) -> tuple[Path, None, str]:
        """It is in no module."""
        return self.path, None, self.name


def _passes(request: pytest.FixtureRequest, scenario: Scenario, verdicts: Verdicts) -> None:
    item = request.node
    verdicts(scenario(item.case, number=item.number))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test that makes an attempt is repeated."""
    turns = range(1, metafunc.config.getoption("--repeat") + 1)
    if len(turns) > 1 and "_turn" in metafunc.fixturenames:
        metafunc.parametrize("_turn", turns, indirect=True)


@pytest.fixture
def _turn(request: pytest.FixtureRequest) -> int:
    """Which of several repetitions this is."""
    return getattr(request, "param", 1)


@pytest.fixture(autouse=True)
def _needed(request: pytest.FixtureRequest) -> None:
    """A test whose marker names what the lab lacks is skipped, with reason and remedy."""
    names = [name for mark in request.node.iter_markers("needs") for name in mark.args]
    if names:
        lab: Session = request.getfixturevalue("lab")
        if (unmet := lab.unmet_needs(names)) is not None:
            pytest.skip(f"{unmet.reason}; it needs: {unmet.remedy}")


# --- workers of pytest-xdist ---


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """A worker is told the folder that it shares with the others."""
    stash = node.config.stash
    if SHARED not in stash:
        stash[SHARED] = tempfile.TemporaryDirectory(prefix="migrate-lab-")
    node.workerinput[SHARED_KEY] = stash[SHARED].name


def pytest_unconfigure(config: pytest.Config) -> None:
    """The workers have ended: what they wrote becomes one report."""
    shared = config.stash.get(SHARED, None)
    if shared is None:
        return
    with shared as name:
        if any(Path(name).iterdir()):
            from migrate import log
            from migrate.plugins.xdist_shared import SharedRun

            display = _progress(config)
            with log.shown(display.say, display.level, display.say_wait):
                SharedRun(Path(name)).close(_lab_config(config))


# --- fixtures ---


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest) -> Iterator[Session]:
    """A lab that is up, with a run folder; taken down at the end if it was not up before."""
    from migrate.campaign.run_source import NewRun
    from migrate.campaign.session import open_session

    config, results = _lab_config(request.config), request.config.getoption("--results")
    reporter = _progress(request.config)
    folder = getattr(request.config, "workerinput", {}).get(SHARED_KEY)
    if folder is None:
        opened = open_session(config, NewRun(results, sys.argv), reporter)
    else:
        from migrate.plugins.xdist_shared import SharedRun

        opened = SharedRun(Path(folder)).session(config, results, reporter, sys.argv)
    with opened as session:
        yield session


@pytest.fixture
def pair(lab: Session) -> Pair:
    """Source and target for a case; a case that can't run here skips the test, with the reason."""
    return lambda case: _pairs(lab, case)[0]


@pytest.fixture
def scenario(request: pytest.FixtureRequest, lab: Session, _turn: int) -> Scenario:
    """Run a case, or the only case that a scenario file makes with the given overrides.

    ``variant`` names one of the file's variants; what the file leaves open is the lab's to say.
    ``number`` is the attempt's, or the next one that is free.
    """
    from migrate.errors import LabError

    def run(
        what: Case | Path, *overrides: str, variant: str = "", number: int | None = None
    ) -> Attempt:
        """What leaves no attempt fails the test in one line."""
        case = _case(what, overrides, variant, lab, judged=True)
        pairs = _pairs(lab, case)
        try:
            attempt = lab.attempt(case, lab.next_number(case, number), *pairs)
        except LabError as error:
            where = lab.folder
            pytest.fail(f"{case.id}: no attempt: {error}\nrun folder: {where}", pytrace=False)
        request.node.user_properties += _evidence(attempt, lab.folder)
        return attempt

    return run


@pytest.fixture
def case(lab: Session) -> MakeCase:
    """The only case of a scenario file, as ``scenario`` would run it."""

    def make(what: Case | Path, *overrides: str, variant: str = "") -> Case:
        return _case(what, overrides, variant, lab)

    return make


@pytest.fixture
def boot(lab: Session) -> Boot:
    """A guest under load, a source and a target; the test moves it, or does what else it wants.

    ``invariants``: looked at after each move, instead of the usual ones.
    """
    from migrate.stage.invariants import INVARIANTS
    from migrate.stage.stage import Stage

    @contextmanager
    def start(
        what: Case | Path,
        *overrides: str,
        variant: str = "",
        invariants: Sequence[Invariant] = INVARIANTS,
    ) -> Iterator[Stage]:
        case = _case(what, overrides, variant, lab)
        pairs = _pairs(lab, case)
        lab.count_stage()
        with lab.build_world(case, *pairs) as world:
            yield Stage(world, invariants)

    return start


@pytest.fixture
def verdicts(lab: Session) -> Verdicts:
    """Judge: every verdict of the attempt must be a pass, or an `unmeasured` that is allowed."""

    def judge(attempt: Attempt) -> None:
        from migrate.report.attempt_text import attempt_lines

        if not attempt.passed:
            lines = (*attempt_lines(attempt), f"run folder: {lab.folder}")
            pytest.fail("\n".join(lines), pytrace=False)

    return judge


def _lab_config(config: pytest.Config) -> LabConfig:
    from migrate.lab.kinds import load_lab

    return load_lab(config.getoption("--lab"), config.getoption("--lab-name"))


def _progress(config: pytest.Config) -> Progress:
    from migrate.campaign.progress import Progress

    return Progress(quiet=config.get_verbosity() < 1)


def _pairs(lab: Session, case: Case) -> tuple[tuple[Host, Host], ...]:
    from migrate.model import Skip

    pairs = lab.candidate_pairs(case)
    if isinstance(pairs, Skip):
        lab.skip(pairs)
        pytest.skip(f"{pairs.reason}; it needs: {pairs.remedy}")
    return pairs


def _evidence(attempt: Attempt, run: Path) -> Iterable[tuple[str, str]]:
    """For JUnit's file, one property each."""
    from migrate.analysis.outage import longest_gap

    yield "run folder", str(run)
    yield "attempt", f"cases/{attempt.case.id}/{attempt.number}"
    for verdict in attempt.verdicts:
        yield f"verdict {verdict.check}", f"{verdict.result}: {verdict.measured}"
    yield "reported downtime, ms", _number(attempt.reported.downtime_ms)
    for direction in ("egress", "ingress"):
        gap = longest_gap(attempt.gaps, direction)
        none = "not measured" if attempt.gaps is None else "none"
        yield f"seen {direction} outage, ms", none if gap is None else _number(gap.length_ms)


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.1f}"


def _case(
    what: Case | Path,
    overrides: tuple[str, ...],
    variant: str,
    lab: Session,
    *,
    judged: bool = False,
) -> Case:
    from migrate.errors import ConfigurationError
    from migrate.scenario.loader import load
    from migrate.scenario.rules import check_rules

    if not isinstance(what, Path):
        check_rules(what, judged=judged)
        return what
    loaded = load(what, overrides, lab.lab.scenario_defaults)
    wanted = f"{loaded.name}-{variant}"
    cases = [case for case in loaded.cases if not variant or case.id == wanted]
    if not cases:
        raise ConfigurationError(
            f"run the variant {variant!r} of {what}",
            said="there is no such case",
            remedy=", ".join(case.id for case in loaded.cases),
        )
    if len(cases) != 1:
        raise ConfigurationError(
            f"run the only case of {what}",
            said=f"it makes {len(cases)}: {', '.join(case.id for case in cases)}",
            remedy="narrow it by a variant, or by overrides such as interface.mode=virtio",
        )
    return cases[0]
