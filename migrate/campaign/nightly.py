"""A night: as many tries as its time allows, the most informative first, resumed after a crash.

The run folder is the state: what is finished is in it, and whoever goes on there reads it again.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from migrate.analysis.outage import longest_gap
from migrate.campaign import session
from migrate.campaign.priority import Choice, Past, costs, order
from migrate.campaign.session import Session, Watcher
from migrate.cleanup.leftovers import leftovers
from migrate.clock import Deadline
from migrate.errors import ConfigurationError, LabError, MeasurementError
from migrate.lab import manager
from migrate.lab.api import Host, Lab
from migrate.lab.config import LabConfig
from migrate.lab.lease.file_lock import lock_hosts
from migrate.model import (
    DIRECTIONS,
    Attempt,
    Case,
    HostFacts,
    NotReached,
    Plan,
    Quarantined,
    Run,
    Skip,
)
from migrate.results.reader import find_run, read_run
from migrate.results.writer import RunWriter
from migrate.scenario.loader import Scenario, parse

RUNS = 60
"""So many of the latest runs of a lab are its history."""
LEASE_S = 600.0
LOCK = ".nightly.lock"
NO_TIME, INTERRUPTED = "for lack of time", "interrupted"

WHY = {
    "failed": "it failed last time",
    "changed": "the hosts' versions are others than last time",
    "doubt": "it does not always pass, or was tried few times",
    "spread": "its outage is not well known",
    "age": "it was not tried for long",
}


# --- history --------------------------------------------------------------------------------------


def versions_of(hosts: Sequence[HostFacts]) -> str:
    """Roots, kernels and versions of the hosts, as one text."""
    found = {host.host: [host.root, host.kernel, host.versions] for host in hosts}
    return json.dumps(found, sort_keys=True)


def past_of(run: Run, attempts: Sequence[Attempt]) -> Iterator[tuple[str, Past]]:
    """Case id and outcome of each try of a run; one that left no attempt did not pass."""
    began = datetime.fromisoformat(run.began).timestamp()
    versions = versions_of(run.hosts)
    for mishap in run.mishaps:
        yield mishap.case_id, Past(began, False, versions)
    first = min((one.begin_ns for one in attempts), default=0)
    for one in sorted(attempts, key=lambda done: done.begin_ns):
        at_s = began + (one.begin_ns - first) / 1e9
        yield one.case.id, _past(one, at_s, versions, (one.end_ns - one.begin_ns) / 1e9)


def _past(one: Attempt, at_s: float, versions: str, seconds: float) -> Past:
    outage_ms = None
    if one.gaps is not None:
        gaps = [longest_gap(one.gaps, direction) for direction in DIRECTIONS]
        outage_ms = max((gap.length_ms for gap in gaps if gap), default=0.0)
    return Past(at_s, one.passed, versions, max(0.0, seconds), outage_ms)


def history_of(results: Path, lab: str, say: Callable[[str], None]) -> dict[str, list[Past]]:
    """What earlier runs in ``lab`` came to, by case, in order of time; damaged ones are told."""
    found: dict[str, list[Past]] = {}
    folders = sorted(path.parent for path in results.glob("*/run.json"))
    read = 0
    for folder in reversed(folders):
        if read == RUNS:
            break
        try:
            if json.loads((folder / "run.json").read_bytes()).get("lab") != lab:
                continue
            record = read_run(folder)
            tries = list(past_of(record.run, [one.attempt for one in record.attempts]))
        except (MeasurementError, OSError, ValueError, AttributeError) as error:
            say(f"not in the history: {folder.name}: {error}")
            continue
        read += 1
        for case_id, past in tries:
            found.setdefault(case_id, []).append(past)
    return {case: sorted(past, key=lambda one: one.at_s) for case, past in found.items()}


# --- the night ------------------------------------------------------------------------------------


Placed = dict[str, tuple[Case, tuple[Host, Host]]]
"""Case, source and target by case id."""


@dataclass(slots=True)
class Night:
    """Chooses, tries, and writes down what was not reached. ``now_s`` is the wall clock."""

    going: Session
    cases: Sequence[Case]
    plan: Plan
    history: dict[str, list[Past]] = field(default_factory=dict)
    now_s: Callable[[], float] = time.time

    def go(self) -> None:
        """Until all is done or the time is over; Ctrl-C goes on to the caller."""
        self.going.writer.change(not_reached=())
        placed = self._placed()
        reason = INTERRUPTED
        try:
            while (choice := self._next(placed)) is not None:
                self._try(choice, placed)
            reason = NO_TIME
        finally:
            self.going.writer.change(not_reached=self._not_reached(placed, reason))

    def _placed(self) -> Placed:
        known = {skip.case.id for skip in self.going.run.skips}
        placed: Placed = {}
        for case in self.cases:
            place = self.going.place(case)
            if not isinstance(place, Skip):
                placed[case.id] = case, place
            elif case.id not in known:
                self.going.skip(place)
        return placed

    def _tries(self) -> Counter[str]:
        made = Counter(done.case.id for done in self.going.attempts)
        return made + Counter(mishap.case_id for mishap in self.going.run.mishaps)

    @property
    def left_s(self) -> float:
        """Until no attempt may go on."""
        return datetime.fromisoformat(self.plan.until).timestamp() - self.now_s()

    def _next(self, placed: Placed) -> Choice | None:
        tries = self._tries()
        open_ones = [case for case in placed if tries[case] < self.plan.repeat]
        versions = versions_of(self.going.run.hosts)
        for choice in order(open_ones, self.history, self.now_s(), versions):
            if choice.cost_s <= self.left_s:
                return choice
        return None

    def _try(self, choice: Choice, placed: Placed) -> None:
        case, pair = placed[choice.case_id]
        tries, watcher = self._tries(), self.going.watcher
        number, total = 1 + tries[case.id], self.plan.repeat * len(placed)
        made = sum(min(tries[name], self.plan.repeat) for name in placed)
        why = WHY[choice.worth.most] if choice.worth else "it was never tried in this lab"
        watcher.say(
            f"[{made + 1}/{total}, {lasting(self.left_s)} left] {case.id}, attempt {number}, "
            f"about {choice.cost_s:.0f} s: {why}"
        )
        began_s, versions = self.now_s(), versions_of(self.going.run.hosts)
        past = Past(began_s, False, versions)
        try:
            done = self.going.attempt(case, number, pair)
            past = _past(done, began_s, versions, self.now_s() - began_s)
        except LabError as error:
            watcher.say(f"no attempt: {error}")
        self.history.setdefault(case.id, []).append(past)

    def _not_reached(self, placed: Placed, reason: str) -> tuple[NotReached, ...]:
        tries, cost_s = self._tries(), costs(list(placed), self.history)
        return tuple(
            NotReached(case_id=case, tries=missing, expected_s=cost_s[case], reason=reason)
            for case in placed
            if (missing := self.plan.repeat - tries[case]) > 0
        )


def lasting(seconds: float) -> str:
    """``3 h 10 min``, ``12 min``, ``40 s``."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


# --- beginning and resuming -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asked for. A resumed run has scenarios, repeat and quarantine itself,
    and its own end if there is no ``budget_s``."""

    config: LabConfig
    results: Path
    scenarios: Sequence[Scenario]
    budget_s: float | None
    repeat: int
    quarantine: tuple[Quarantined, ...] = ()
    command: tuple[str, ...] = ()
    keep_lab: bool = False


@contextmanager
def night(asked: Asked, watcher: Watcher, resume: str | None = None) -> Iterator[Night]:
    """A night in a new run folder, or in the one called ``resume``, on a lab that is up.

    Raises ConfigurationError where there is nothing that can be resumed, and all of a lab's.
    """
    say, config = watcher.say, asked.config
    with ExitStack() as stack:
        if resume is None:
            until = _from_now(asked.budget_s or 0.0)
            lab = stack.enter_context(session.lab_up(config, say, keep=asked.keep_lab))
            yield stack.enter_context(begun(lab, until, asked, watcher))
        else:
            found = stack.enter_context(left(resume, asked))
            put_right(config, say)
            lab = stack.enter_context(session.lab_up(config, say, keep=asked.keep_lab))
            yield found.going_on(lab, asked.results, watcher)


@contextmanager
def begun(lab: Lab, until: str, asked: Asked, watcher: Watcher) -> Iterator[Night]:
    """A night in a new run folder."""
    going = session.begin(lab, asked.results, asked.scenarios, watcher, asked.command)
    with _alone(going.writer.folder):
        plan = Plan(until=until, repeat=asked.repeat)
        going.writer.change(quarantine=asked.quarantine, plan=plan)
        history = history_of(asked.results, going.run.lab, watcher.say)
        cases = [case for scenario in asked.scenarios for case in scenario.cases]
        yield Night(going, cases, plan, history)


@dataclass(frozen=True, slots=True)
class ResumedRun:
    """A nightly run to go on with: its folder is ours, and what was cut off there is removed."""

    writer: RunWriter
    attempts: tuple[Attempt, ...]
    plan: Plan
    cases: tuple[Case, ...]

    def going_on(self, lab: Lab, results: Path, watcher: Watcher) -> Night:
        """The night on a lab that is up. Raises ConfigurationError: its hosts have changed."""
        facts = session.look(lab, watcher.say)
        if versions_of(facts) != versions_of(self.writer.run.hosts):
            raise ConfigurationError(
                f"resume {self.writer.folder}",
                said="the hosts' versions are others than when it began",
                remedy="begin a new run: one run is of one state of its hosts",
            )
        history = history_of(results, self.writer.run.lab, watcher.say)
        going = Session(lab, facts, self.writer, watcher, list(self.attempts))
        return Night(going, self.cases, self.plan, history)


@contextmanager
def left(name: str, asked: Asked) -> Iterator[ResumedRun]:
    """The run called ``name``, while no one else is at it. Raises ConfigurationError."""
    folder = find_run(asked.results, name)
    run = read_run(folder).run
    if run.plan is None or run.lab != asked.config.name:
        raise ConfigurationError(
            f"resume {folder}",
            said=f"it is no nightly run in the lab {asked.config.name}",
            remedy="name one that is, or begin one without --resume",
        )
    with _alone(folder):
        until = run.plan.until if asked.budget_s is None else _from_now(asked.budget_s)
        if datetime.fromisoformat(until).timestamp() <= time.time():
            raise ConfigurationError(
                f"resume {folder}", said=f"its time was over at {until}", remedy="--budget 2h"
            )
        writer, attempts = RunWriter.resume(folder)
        plan = run.plan.model_copy(update={"until": until})
        writer.change(plan=plan)
        defaults = asked.config.scenario_defaults()
        cases = [
            case
            for path, text in run.scenarios.items()
            for case in parse(text, path, (), defaults).cases
        ]
        yield ResumedRun(writer, attempts, plan, tuple(cases))


def put_right(config: LabConfig, say: Callable[[str], None]) -> None:
    """Take a lab down in which the killed run left something; leave a clean one up."""
    if manager.is_persistent(config) or (lab := manager.find(config, say)) is None:
        return
    hosts = lab.hosts
    with closing(lab), lock_hosts(lab.leases, list(hosts), Deadline.after(LEASE_S), say):
        remains = leftovers(hosts.values())
    if remains:
        say(f"taking the lab down, for what was left in it: {', '.join(remains)}")
        manager.down(config)


def _from_now(seconds: float) -> str:
    until = datetime.fromtimestamp(time.time() + seconds, UTC)
    return until.isoformat(timespec="seconds")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """The folder's lock, which ends with its holder. Raises ConfigurationError: it is held."""
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise ConfigurationError(
            f"resume {folder}", said="another process is at it", remedy="wait for its end"
        ) from error
    except OSError as error:
        raise MeasurementError(
            f"write in {folder}", said=str(error), remedy="name a results folder that can be"
        ) from error
    try:
        yield
    finally:
        lock.release()
