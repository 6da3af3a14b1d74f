"""Many attempts in one folder."""

from __future__ import annotations

from datetime import date

from pydantic import Field

from migrate.model.attempt import Problem
from migrate.model.base import SCHEMA, NonEmpty, NotNegative, Positive, Value
from migrate.model.case import Case
from migrate.model.host import HostFacts


class Skip(Value):
    """A case that this lab can't run, and why: never counted as passed."""

    case: Case
    reason: str
    remedy: str


class AttemptError(Value):
    """A try that left no attempt to record, and why: never counted as passed."""

    case_id: str
    number: int
    problem: Problem
    exit_code: int


class QuarantineEntry(Value):
    """An entry of a quarantine list: a failure that is known, has an owner, and an end."""

    case: NonEmpty
    """A pattern of case ids, as a shell's: ``*vhost-user-packed*``."""
    check: NonEmpty | None = None
    """A pattern of names of verdicts; None: whatever the verdicts of the case say."""
    owner: NonEmpty
    bug: NonEmpty
    expires: date
    """The last day on which it covers, in UTC."""
    reason: NonEmpty


class Plan(Value):
    """What a nightly run set out to do."""

    until: str
    """Wall clock, ISO 8601 with zone: no attempt begins that is expected to end later."""
    repeat: int = Field(ge=1)
    """Tries of each case."""
    overrides: tuple[str, ...] = ()
    """``key=value``, over what the scenarios say."""
    case: str = "*"
    """A pattern of case ids, as a shell's: only these are tried."""


class UnreachedTries(Value):
    """Tries that were planned and not begun."""

    case_id: str
    tries: int
    expected_s: Positive
    """How long one was expected to take."""
    reason: str
    assumed: bool = False
    """No try in this lab was known, so that ``expected_s`` is a guess."""
    left_s: NotNegative | None = None
    """What was left of the budget, without the report's time; None: not recorded."""


class Run(Value):
    """The head of a run folder."""

    schema_number: int = SCHEMA
    name: str
    began: str
    """Wall clock, ISO 8601 with zone."""
    lab: str
    lab_kind: str = "local"
    """What the lab's hosts are made of; it decides what a figure can show."""
    command: tuple[str, ...]
    controller: dict[str, str]
    hosts: tuple[HostFacts, ...]
    scenarios: dict[str, str]
    """Scenario files as they were read, by name."""
    seed: int
    skips: tuple[Skip, ...] = ()
    mishaps: tuple[AttemptError, ...] = ()
    quarantine: tuple[QuarantineEntry, ...] = ()
    """The quarantine list as it was read: readers judge by it and the day the run began."""
    plan: Plan | None = None
    """None: not a nightly run."""
    report_s: NotNegative | None = None
    """Seconds to write the report, ``junit.xml`` and the index; None: not recorded."""
    not_reached: tuple[UnreachedTries, ...] = ()
    stages: int = Field(default=0, ge=0)
    """Guests that tests moved by hand (``boot``): none of them is an attempt."""
