"""Many attempts: a lab that is up, what its hosts can do, a run folder, and the cases in turn.

:func:`open_session` is the one way in, for every door.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from migrate import log
from migrate.attempt import attempt
from migrate.bug_report import program_errors
from migrate.campaign import placement
from migrate.campaign.hosts import look
from migrate.campaign.progress import Reporter, outcome
from migrate.campaign.quiet import wait_quiet
from migrate.campaign.run_source import RunSource
from migrate.checks import quarantine
from migrate.clock import Deadline, now_ns
from migrate.errors import (
    ConfigurationError,
    HostError,
    LabError,
    MeasurementError,
    ProgramError,
)
from migrate.files import advice
from migrate.lab import manager
from migrate.lab.api import Host, Lab
from migrate.lab.config import LabConfig
from migrate.lab.lease.file_lock import Lease
from migrate.lab.lease.pair import Pair, lease_first_free
from migrate.model import (
    Attempt,
    AttemptError,
    Case,
    HostFacts,
    Problem,
    Run,
    Skip,
)
from migrate.recorder.base import AttemptEnv
from migrate.recorder.collect import logs_of
from migrate.report.readers import write_readers
from migrate.results.files import copy_out
from migrate.results.writer import RunWriter
from migrate.world import World, build_world

LOGGER = logging.getLogger(__name__)
LEASE_S = 600.0
"""To wait for two hosts that others use."""
NOTHING_RAN = 3
"""Exit code where no case could run here: nothing was proved."""


# --- one way in -----------------------------------------------------------------------------------


@contextmanager
def open_session(
    config: LabConfig,
    source: RunSource,
    reporter: Reporter,
    *,
    keep_lab: bool = False,
    junit_copy: Path | None = None,
) -> Iterator[Session]:
    """Cases can be tried while the block runs: the lab is up, its hosts' abilities are known.

    Afterwards the report is written, and JUnit's XML also to ``junit_copy``; then the lab is taken
    down if it was this that brought it up, unless ``keep_lab``. What goes on is shown by
    ``reporter``, and is in the run's ``run.log``. Raises ConfigurationError before the lab is
    touched for what ``source`` can tell by then.
    """
    source.check()
    with (
        log.shown(reporter.say, reporter.level, reporter.say_wait),
        log.recorded() as run_log,
        manager.opened(config, keep=keep_lab) as lab,
    ):
        session = begin(lab, source, reporter, run_log)
        try:
            yield session
        finally:
            with program_errors("write the report", session.folder):
                session.finish(junit_copy)


def begin(
    lab: Lab, source: RunSource, reporter: Reporter, run_log: log.RunLog | None = None
) -> Session:
    """A session on a lab that is up; the report and the lab's end are the caller's."""
    facts = look(lab)
    writer, attempts = source.start(lab, facts)
    if run_log is not None:
        write_log(run_log, writer)
    return Session(lab, facts, writer, reporter, attempts)


def write_log(run_log: log.RunLog, writer: RunWriter) -> None:
    """Have the log of the run in its folder. Raises MeasurementError."""
    path = writer.folder / log.RUN_LOG
    try:
        run_log.write_to(path)
    except OSError as error:
        remedy = advice(error, writer.folder)
        raise MeasurementError(f"write {path}", said=str(error), remedy=remedy) from error


def unnamed_error(case: Case) -> str | None:
    """What to write into a case that expects a failure and no word of it; None: it is whole."""
    expect = case.expect
    if expect.error is not None or expect.outcome in ("completed", "aborted"):
        return None
    if "error" in expect.allow_unmeasured:
        return None
    return (
        f"{case.id}: it expects {expect.outcome!r}, but no error message: set expect.error to a "
        "pattern of it, or it will not pass"
    )


# --- the session ----------------------------------------------------------------------------------


@dataclass(slots=True)
class Session:
    """Cases are placed and tried; each result is in the run folder at once."""

    lab: Lab
    facts: tuple[HostFacts, ...]
    writer: RunWriter
    reporter: Reporter
    attempts: list[Attempt] = field(default_factory=list)
    quiet_s: float | None = None
    """How long an attempt may wait for a quiet machine; None: it does not."""

    @property
    def run(self) -> Run:
        """The head of the run folder."""
        return self.writer.run

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.writer.folder

    @property
    def report(self) -> Path:
        """The report for people; there once the session has ended."""
        return self.writer.folder / "report.html"

    # --- where ---

    def place(self, case: Case) -> Pair | Skip:
        """Source and target for ``case``, or why this lab has none."""
        pairs = self.candidate_pairs(case)
        return pairs if isinstance(pairs, Skip) else pairs[0]

    def candidate_pairs(self, case: Case) -> tuple[Pair, ...] | Skip:
        """All pairs that ``case`` can be tried on, those first that the lab file has first."""
        return placement.candidate_pairs(case, self._hosts, self.facts)

    def unmet_needs(self, names: Sequence[str]) -> Skip | None:
        """Why no two hosts have all of these capabilities and modes; None if two have."""
        return placement.unmet_needs(names, self._hosts, self.facts)

    @property
    def _hosts(self) -> tuple[Host, ...]:
        return tuple(self.lab.hosts.values())

    def skip(self, skip: Skip) -> None:
        """Say once that a case can't run here."""

        def note(run: Run) -> Run:
            others = [known for known in run.skips if known.case.id != skip.case.id]
            return run.model_copy(update={"skips": (*others, skip)})

        self.writer.amend(note)
        LOGGER.info(
            "%s: can't run in this lab: %s; it needs: %s", skip.case.id, skip.reason, skip.remedy
        )

    def count_stage(self) -> None:
        """One more guest that a test moves by hand: the report says that it is not in there."""
        self.writer.amend(lambda run: run.model_copy(update={"stages": run.stages + 1}))

    # --- attempts ---

    def next_number(self, case: Case, wanted: int | None = None) -> int:
        """The number of the next try at ``case``, ``wanted`` if it is free: nobody else gets it."""
        tried = sum(done.case.id == case.id for done in self.attempts)
        return self.writer.claim(case, wanted or 1 + tried)

    @contextmanager
    def build_world(self, case: Case, *pairs: Pair) -> Iterator[World]:
        """The case's world in a state, to act on by hand, on the first pair that is free."""
        with (
            self._leased(pairs, case.id) as (pair, lease),
            build_world(case, self._env(pair, lease), pair) as world,
        ):
            yield world

    def attempt(self, case: Case, number: int, *pairs: Pair) -> Attempt:
        """One try on the first of ``pairs`` that is free.

        A LabError is noted in the run before it goes on to the caller; an exception that is none
        becomes one first, a ProgramError.
        """
        pair: Pair | None = None
        with ExitStack() as stack:
            try:
                with program_errors(f"try {case.id}, attempt {number}", self.folder):
                    pair, lease = stack.enter_context(self._leased(pairs, f"{case.id}-{number}"))
                    env = self._env(pair, lease)
                    if self.quiet_s is not None:
                        notes = wait_quiet(env.lab, pair, self.quiet_s, lease.check)
                        env = replace(env, notes=notes)
                    done = attempt(case, number, env, pair, self.writer)
            except LabError as error:
                self._note(case, number, error)
                self.writer.disclaim(case, number)
                if pair is not None:
                    self._mend(case, number, pair)
                raise
            if done.void:
                self._replace_dead_hosts()
        self.attempts.append(done)
        LOGGER.info("%s", outcome(done))
        return done

    def try_all(self, cases: Sequence[Case], repeat: int) -> None:
        """Every case ``repeat`` times, in turns, so that a drift of the machine meets all alike."""
        placed: dict[str, tuple[Pair, ...]] = {}
        for case in cases:
            pairs = self.candidate_pairs(case)
            if isinstance(pairs, Skip):
                self.skip(pairs)
            else:
                placed[case.id] = pairs
        ready = [case for case in cases if case.id in placed]
        for case in ready:
            if (advice := unnamed_error(case)) is not None:
                LOGGER.info("%s", advice)
        total = repeat * len(ready)
        for number, (turn, case) in enumerate(itertools.product(range(1, repeat + 1), ready), 1):
            LOGGER.info("[%d/%d] %s, attempt %d", number, total, case.id, turn)
            try:
                self.attempt(case, turn, *placed[case.id])
            except LabError as error:
                LOGGER.info("no attempt: %s", error)

    def _env(self, pair: Pair, lease: Lease) -> AttemptEnv:
        source, target = pair
        names = {host.name for host in pair}
        kvm = all(known.capability("kvm").able for known in self.facts if known.host in names)
        return AttemptEnv(
            self.lab.isolate_pair(source.name, target.name),
            accelerator="kvm" if kvm else "qemu",
            run=self.run.name,
            on_sample=self.reporter.on_sample,
            on_phase=self.reporter.on_phase,
            check=lease.check,
            observers={known.host: known.observers for known in self.facts if known.host in names},
        )

    def _leased(
        self, pairs: Sequence[Pair], job: str
    ) -> AbstractContextManager[tuple[Pair, Lease]]:
        return lease_first_free(self.lab, pairs, job, Deadline.after(LEASE_S))

    def _note(self, case: Case, number: int, error: LabError) -> None:
        problem = Problem(tried=error.tried, host=error.host, said=error.said, remedy=error.remedy)
        # The code of a wrong file or option says that no host was touched: by now some were.
        touched = isinstance(error, ConfigurationError)
        code = HostError.exit_code if touched else error.exit_code
        mishap = AttemptError(case_id=case.id, number=number, problem=problem, exit_code=code)
        self.writer.amend(lambda run: run.model_copy(update={"mishaps": (*run.mishaps, mishap)}))

    def _mend(self, case: Case, number: int, pair: Pair) -> None:
        """Keep the hosts' logs, and replace hosts that are off, while nobody else has them."""
        self._keep_logs(case, number, pair)
        self._replace_dead_hosts()

    def _replace_dead_hosts(self) -> None:
        for name in self.lab.replace_dead_hosts():
            LOGGER.info("host %s was off: it has been replaced", name)

    def _keep_logs(self, case: Case, number: int, pair: Pair) -> None:
        """Without an attempt there is no folder for them: they lie beside ``run.json``."""
        for host in pair:
            try:
                with program_errors(f"keep the logs of {host.name}", self.folder):
                    logs = logs_of(host, case)
            except LabError as error:
                LOGGER.info("no logs of host %s: %s", host.name, error)
                continue
            for name, text in logs.items():
                self.writer.write(f"mishap-{case.id}-{number}-{host.name}-{name}.log", text)

    # --- the end ---

    def finish(self, junit_copy: Path | None = None) -> Path:
        """Write JUnit's file, the index and the report; returns the report's path."""
        LOGGER.info("writing the report")
        began_ns = now_ns()
        report = write_readers(self.writer, self.attempts)
        took_s = (now_ns() - began_ns) / 1e9
        self.writer.amend(lambda run: run.model_copy(update={"report_s": took_s}))
        if junit_copy is not None:
            copy_out(self.folder / "junit.xml", junit_copy)
        return report

    @property
    def exit_code(self) -> int:
        """0: all passed, but for what is quarantined; 1: a verdict failed, or an entry of the
        quarantine list has expired; else that of the worst error; 3: nothing ran; 5: a void
        attempt, which tells nothing; 70: an error of this program."""
        voids = [
            (ProgramError if attempt.bug_report else MeasurementError).exit_code
            for attempt in self.attempts
            if attempt.void
        ]
        if worst := [*(mishap.exit_code for mishap in self.run.mishaps), *voids]:
            return max(worst)
        if not self.attempts:
            return NOTHING_RAN
        return int(quarantine.fails(self.run, self.attempts))
