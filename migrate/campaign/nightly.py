"""A nightly run: as many tries as its budget allows, the most informative first.

The run folder is its state: a run that was killed is resumed from what it finished.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from migrate import log
from migrate.analysis.outage import longest_gap
from migrate.campaign.priority import Choice, PastReport, PastTry, costs, order, report_s
from migrate.campaign.progress import Reporter
from migrate.campaign.run_source import NewRun, check_images, check_results
from migrate.campaign.session import Session, open_session
from migrate.checks import quarantine
from migrate.cleanup.leftovers import leftovers
from migrate.clock import Deadline
from migrate.errors import ConfigurationError, LabError, MeasurementError
from migrate.input_file import read_bounded
from migrate.lab import manager
from migrate.lab.api import Host, Lab
from migrate.lab.config import LabConfig
from migrate.lab.lease.file_lock import lock_hosts
from migrate.locks import LockedError, acquire
from migrate.model import (
    DIRECTIONS,
    Attempt,
    Case,
    HostFacts,
    Plan,
    QuarantineEntry,
    Run,
    Skip,
    UnreachedTries,
)
from migrate.results.files import as_measurement_error
from migrate.results.reader import LARGEST, find_run, read_run, runs_below
from migrate.results.writer import RunWriter
from migrate.scenario.loader import Scenario, matching, parse

LOGGER = logging.getLogger(__name__)
RUNS = 60
"""The latest runs of a lab that are its history."""
LEASE_S = 600.0
LOCK = ".nightly.lock"
NO_TIME, INTERRUPTED = "for lack of time", "interrupted"


# --- history --------------------------------------------------------------------------------------


def versions_of(hosts: Sequence[HostFacts]) -> str:
    """Roots, kernels and versions of the hosts, as one text."""
    versions = {host.host: [host.root, host.kernel, host.versions] for host in hosts}
    return json.dumps(versions, sort_keys=True)


def past_tries(run: Run, attempts: Sequence[Attempt]) -> Iterator[tuple[str, PastTry]]:
    """Case id and result of each try of a run; one that left no attempt did not pass."""
    began = datetime.fromisoformat(run.began).timestamp()
    versions = versions_of(run.hosts)
    for mishap in run.mishaps:
        yield mishap.case_id, PastTry(began, False, versions)
    first = min((attempt.begin_ns for attempt in attempts), default=0)
    for attempt in sorted(attempts, key=lambda done: done.begin_ns):
        at_s = began + (attempt.begin_ns - first) / 1e9
        seconds = (attempt.end_ns - attempt.begin_ns) / 1e9
        yield attempt.case.id, _past_try(attempt, at_s, versions, seconds)


def _past_try(attempt: Attempt, at_s: float, versions: str, seconds: float) -> PastTry:
    outage_ms = None
    if attempt.gaps is not None:
        gaps = [longest_gap(attempt.gaps, direction) for direction in DIRECTIONS]
        outage_ms = max((gap.length_ms for gap in gaps if gap), default=0.0)
    return PastTry(at_s, attempt.passed, versions, max(0.0, seconds), outage_ms)


class PastRuns(NamedTuple):
    """What earlier runs in a lab tell of this night."""

    tries: dict[str, list[PastTry]]
    """By case, in order of time."""
    reports: tuple[PastReport, ...]


def read_history(results: Path, lab: str) -> PastRuns:
    """Earlier runs in ``lab``; damaged ones are logged."""
    history: dict[str, list[PastTry]] = {}
    reports: list[PastReport] = []
    folders, refused = runs_below(results)
    for why in refused.values():
        LOGGER.info("not in the history: %s", why)
    read = 0
    for folder in reversed(folders):
        if read == RUNS:
            break
        try:
            if json.loads(read_bounded(folder / "run.json", LARGEST)).get("lab") != lab:
                continue
            record = read_run(folder)
            tries = list(past_tries(record.run, [entry.attempt for entry in record.attempts]))
        except (MeasurementError, OSError, ValueError, AttributeError, RecursionError) as error:
            LOGGER.info("not in the history: %s: %s", folder.name, error)
            continue
        read += 1
        for case_id, past in tries:
            history.setdefault(case_id, []).append(past)
        if record.run.report_s is not None:
            reports.append(PastReport(len(record.attempts), record.run.report_s))
    by_case = {case: sorted(past, key=lambda one: one.at_s) for case, past in history.items()}
    return PastRuns(by_case, tuple(reports))


# --- the night ------------------------------------------------------------------------------------


Placed = dict[str, tuple[Case, tuple[Host, Host]]]
"""Case, source and target by case id."""


@dataclass(slots=True)
class Night:
    """Chooses, tries, and writes down what was not reached. ``now_s`` is the wall clock."""

    session: Session
    cases: Sequence[Case]
    plan: Plan
    history: dict[str, list[PastTry]] = field(default_factory=dict)
    reports: Sequence[PastReport] = ()
    now_s: Callable[[], float] = time.time

    def go(self) -> None:
        """Try until all is done or the time is over; Ctrl-C goes on to the caller."""
        self.session.writer.change(not_reached=())
        placed = self._placed()
        reason = INTERRUPTED
        try:
            while (choice := self._next(placed)) is not None:
                self._try(choice, placed)
            reason = NO_TIME
        finally:
            self.session.writer.change(not_reached=self._not_reached(placed, reason))

    def _placed(self) -> Placed:
        known = {skip.case.id for skip in self.session.run.skips}
        placed: Placed = {}
        for case in self.cases:
            place = self.session.place(case)
            if not isinstance(place, Skip):
                placed[case.id] = case, place
            elif case.id not in known:
                self.session.skip(place)
        return placed

    def _tries(self) -> Counter[str]:
        made = Counter(done.case.id for done in self.session.attempts)
        return made + Counter(mishap.case_id for mishap in self.session.run.mishaps)

    @property
    def left_s(self) -> float:
        """Seconds of the budget without the expected time to write the report, which will have one
        attempt more."""
        until_s = datetime.fromisoformat(self.plan.until).timestamp()
        return until_s - report_s(len(self.session.attempts) + 1, self.reports) - self.now_s()

    def _next(self, placed: Placed) -> Choice | None:
        tries = self._tries()
        open_ones = [case for case in placed if tries[case] < self.plan.repeat]
        versions = versions_of(self.session.run.hosts)
        known = quarantine.covered_cases(self.session.run, open_ones)
        for choice in order(open_ones, self.history, self.now_s(), versions, known):
            if choice.cost.seconds <= self.left_s:
                return choice
        return None

    def _try(self, choice: Choice, placed: Placed) -> None:
        case, pair = placed[choice.case_id]
        tries = self._tries()
        number, total = 1 + tries[case.id], self.plan.repeat * len(placed)
        made = sum(min(tries[name], self.plan.repeat) for name in placed)
        why = choice.reason(self.history.get(case.id, ()), self.now_s())
        LOGGER.info(
            "[%d/%d, %s left] %s, attempt %d, %s: %s",
            *(made + 1, total, duration(self.left_s), case.id, number, choice.cost, why),
        )
        began_s, versions = self.now_s(), versions_of(self.session.run.hosts)
        past = PastTry(began_s, False, versions)
        try:
            done = self.session.attempt(case, number, pair)
            past = _past_try(done, began_s, versions, self.now_s() - began_s)
        except LabError as error:
            LOGGER.info("no attempt: %s", error)
        self.history.setdefault(case.id, []).append(past)

    def _not_reached(self, placed: Placed, reason: str) -> tuple[UnreachedTries, ...]:
        tries, cost = self._tries(), costs(list(placed), self.history)
        return tuple(
            UnreachedTries(
                case_id=case,
                tries=missing,
                expected_s=cost[case].seconds,
                reason=reason,
                assumed=cost[case].basis == "assumed",
                left_s=max(0.0, self.left_s),
            )
            for case in placed
            if (missing := self.plan.repeat - tries[case]) > 0
        )


def duration(seconds: float) -> str:
    """``3 h 10 min``, ``12 min``, ``40 s``."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


# --- beginning and resuming -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NightRequest:
    """What the command line asks for. A resumed run has scenarios, repeat and quarantine itself,
    and its own end if there is no ``budget_s``."""

    config: LabConfig
    results: Path
    scenarios: Sequence[Scenario]
    budget_s: float | None
    repeat: int
    quarantine: tuple[QuarantineEntry, ...] = ()
    command: tuple[str, ...] = ()
    keep_lab: bool = False
    junit_copy: Path | None = None
    overrides: tuple[str, ...] = ()
    case: str = "*"


@contextmanager
def night(request: NightRequest, reporter: Reporter, resume: str | None = None) -> Iterator[Night]:
    """A night in a new run folder, or in the one called ``resume``, on a lab that is up.

    Raises ConfigurationError where there is nothing that can be resumed, and all of a lab's.
    """
    with ExitStack() as stack:
        source: NewNight | ResumedRun
        if resume is None:
            source = NewNight(request, stack)
        else:
            source = stack.enter_context(resumed_run(resume, request))
            with log.shown(reporter.say, reporter.level, reporter.say_wait):
                clean_lab(request.config)
        session = stack.enter_context(
            open_session(
                request.config,
                source,
                reporter,
                keep_lab=request.keep_lab,
                junit_copy=request.junit_copy,
            )
        )
        past = read_history(request.results, session.run.lab)
        yield Night(session, source.cases, source.plan, past.tries, past.reports)


class NewNight:
    """A nightly run that begins: nobody else works in its folder until ``stack`` ends."""

    def __init__(self, request: NightRequest, stack: ExitStack) -> None:
        self.plan = Plan(
            until=_from_now(request.budget_s or 0.0),
            repeat=request.repeat,
            overrides=request.overrides,
            case=request.case,
        )
        self.cases = tuple(case for scenario in request.scenarios for case in scenario.cases)
        self._request = request
        self._stack = stack

    def check(self) -> None:
        """See RunSource."""
        check_results(self._request.results)
        check_images(self.cases)

    def start(self, lab: Lab, facts: tuple[HostFacts, ...]) -> tuple[RunWriter, list[Attempt]]:
        """Make the run folder, and lock it."""
        asked = self._request
        run = NewRun(asked.results, asked.command, asked.scenarios, asked.quarantine, self.plan)
        writer, attempts = run.start(lab, facts)
        self._stack.enter_context(_locked(writer.folder))
        return writer, attempts


@dataclass(frozen=True, slots=True)
class ResumedRun:
    """A nightly run to go on with: its folder is locked, what was cut off there is removed."""

    writer: RunWriter
    attempts: tuple[Attempt, ...]
    plan: Plan
    cases: tuple[Case, ...]

    def check(self) -> None:
        """See RunSource."""
        check_images(self.cases)

    def start(self, _lab: Lab, facts: tuple[HostFacts, ...]) -> tuple[RunWriter, list[Attempt]]:
        """Go on in its folder. Raises ConfigurationError: the hosts have changed."""
        if versions_of(facts) != versions_of(self.writer.run.hosts):
            raise ConfigurationError(
                f"resume {self.writer.folder}",
                said="the hosts' versions have changed since it began",
                remedy="start a new run: a run is of one state of its hosts",
            )
        return self.writer, list(self.attempts)


@contextmanager
def resumed_run(name: str, request: NightRequest) -> Iterator[ResumedRun]:
    """The run called ``name``, while nobody else works in its folder. Raises ConfigurationError."""
    folder = find_run(request.results, name)
    run = read_run(folder).run
    if run.plan is None or run.lab != request.config.name:
        raise ConfigurationError(
            f"resume {folder}",
            said=f"it is no nightly run in the lab {request.config.name}",
            remedy="name one that is, or begin one without --resume",
        )
    with _locked(folder):
        until = run.plan.until if request.budget_s is None else _from_now(request.budget_s)
        if datetime.fromisoformat(until).timestamp() <= time.time():
            raise ConfigurationError(
                f"resume {folder}", said=f"its time was over at {until}", remedy="--budget 2h"
            )
        writer, attempts = RunWriter.resume(folder)
        plan = run.plan.model_copy(update={"until": until})
        writer.change(plan=plan)
        defaults = request.config.scenario_defaults()
        scenarios = [
            parse(text, path, plan.overrides, defaults) for path, text in run.scenarios.items()
        ]
        cases = [case for scenario in matching(scenarios, plan.case) for case in scenario.cases]
        yield ResumedRun(writer, attempts, plan, tuple(cases))


def clean_lab(config: LabConfig) -> None:
    """Take a lab down in which the killed run left something; leave a clean one up."""
    if manager.is_persistent(config) or (lab := manager.find(config)) is None:
        return
    with (
        closing(lab),
        lock_hosts(lab.leases, list(lab.hosts), Deadline.after(LEASE_S)),
    ):
        remains = leftovers(lab.hosts.values())
    if remains:
        LOGGER.info("taking the lab down, for what was left in it: %s", ", ".join(remains))
        manager.down(config)


def _from_now(seconds: float) -> str:
    until = datetime.fromtimestamp(time.time() + seconds, UTC)
    return until.isoformat(timespec="seconds")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The folder's lock, which ends with its holder. Raises ConfigurationError: it is held."""
    tried = f"resume {folder}"
    with as_measurement_error(folder):
        try:
            descriptor = acquire(folder / LOCK, Deadline.after(0), tried)
        except LockedError as error:
            said = error.said.removesuffix(" until the deadline")
            raise ConfigurationError(tried, said=said, remedy=error.remedy) from error
    try:
        yield
    finally:
        os.close(descriptor)
