"""Many attempts: a lab that is up, what its hosts can do, a run folder, and the cases in turn."""

from __future__ import annotations

import itertools
import os
import platform
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from migrate import __version__
from migrate.attempt import attempt
from migrate.backends.registry import INSPECTIONS, MODES, backend_mode
from migrate.checks import quarantine
from migrate.clock import Deadline
from migrate.errors import LabError
from migrate.images.initramfs import ensure_image
from migrate.lab import capabilities as facts
from migrate.lab import manager
from migrate.lab.api import Host, Lab
from migrate.lab.config import LabConfig, cache_folder
from migrate.lab.kvm_boot import BOOT_S
from migrate.lab.lease.file_lock import Lease
from migrate.lab.lease.pair import Pair, lease_first_free
from migrate.migration.faults import NEEDS_POWER
from migrate.model import (
    Attempt,
    AttemptError,
    Capability,
    Case,
    HostFacts,
    PhaseName,
    Problem,
    Run,
    Sample,
    Skip,
)
from migrate.recorder.base import AttemptEnv
from migrate.recorder.collect import logs_of
from migrate.report.html import write_report
from migrate.report.junit import junit
from migrate.results.index import write_index
from migrate.results.layout import run_name
from migrate.results.writer import RunWriter
from migrate.scenario.loader import Scenario
from migrate.world import World, build_world

LEASE_S = 600.0
"""To wait for two hosts that others use."""
NOTHING_RAN = 3
"""Exit code where no case could run here: nothing was proved."""


@dataclass(frozen=True, slots=True)
class Watcher:
    """Who wants to hear how it goes."""

    say: Callable[[str], None] = lambda _text: None
    on_sample: Callable[[Sample], None] = lambda _sample: None
    on_phase: Callable[[PhaseName], None] = lambda _phase: None
    on_attempt: Callable[[Attempt], None] = lambda _attempt: None


def lab_up(
    config: LabConfig, say: Callable[[str], None], *, keep: bool = False
) -> AbstractContextManager[Lab]:
    """See :func:`migrate.lab.manager.opened`."""
    return manager.opened(config, say, keep=keep)


def look(lab: Lab, say: Callable[[str], None], *, fresh: bool = False) -> tuple[HostFacts, ...]:
    """What each host can do, asked of all at once."""
    image = ensure_image("tiny", cache_folder(), say)

    def ask(host: Host) -> HostFacts:
        with host.connect() as hypervisor:
            return facts.gather(
                host,
                hypervisor,
                cache_folder(),
                image,
                INSPECTIONS,
                fresh=fresh,
                seconds=BOOT_S * lab.patience,
            )

    say("asking the hosts what they can do")
    with ThreadPoolExecutor() as pool:
        return tuple(pool.map(ask, lab.hosts.values()))


def needs_of_modes() -> dict[str, tuple[str, ...]]:
    """What each mode takes, by the names of capabilities."""
    return {name: mode.needs for name, mode in MODES.items()}


def needs_to_migrate() -> dict[str, tuple[str, ...]]:
    """What a mode takes beside its needs for its guest to be migrated as it is."""
    return {name: mode.needs_to_migrate for name, mode in MODES.items()}


@dataclass(slots=True)
class Session:
    """Cases are placed and tried; what came of it is in the run folder at once."""

    lab: Lab
    facts: tuple[HostFacts, ...]
    writer: RunWriter
    watcher: Watcher
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def run(self) -> Run:
        """The head of the run folder."""
        return self.writer.run

    def place(self, case: Case) -> Pair | Skip:
        """Source and target for ``case``, or why this lab has none."""
        found = self.places(case)
        return found if isinstance(found, Skip) else found[0]

    def places(self, case: Case) -> tuple[Pair, ...] | Skip:
        """All pairs that ``case`` can be tried on, those first that the lab file has first."""
        reasons: list[Skip] = []
        found: dict[frozenset[str], Pair] = {}
        for source, target in itertools.permutations(self.lab.hosts.values(), 2):
            lacking = self._lacking(case, source, target)
            if lacking is None:
                # Where one way is not free, the other isn't.
                found.setdefault(frozenset((source.name, target.name)), (source, target))
            else:
                reasons.append(Skip(case=case, reason=lacking.reason, remedy=lacking.remedy))
        return tuple(found.values()) or reasons[0]

    def lacks(self, names: Sequence[str]) -> Skip | None:
        """Why no two hosts have all of these capabilities and modes; None if two have."""
        modes = [mode for mode in MODES if mode in names]
        needs = [need for mode in modes for need in backend_mode(mode).needs]
        needs += [name for name in names if name not in modes]
        found = self.places(Case(id="needs", needs=tuple(needs)))
        return found if isinstance(found, Skip) else None

    def _lacking(self, case: Case, source: Host, target: Host) -> Capability | None:
        if case.roots is not None and case.roots != (source.root, target.root):
            has = ", ".join(host.root for host in self.lab.hosts.values())
            return Capability(
                name="roots",
                able=False,
                reason=f"it wants hosts with the roots {' and '.join(case.roots)}; here are {has}",
                remedy="a lab file with such hosts, e.g. --lab labs/versions.toml",
            )
        if source.power is None and any(fault.do in NEEDS_POWER for fault in case.faults):
            return Capability(
                name="power",
                able=False,
                reason="its hosts have no switch to turn them off by",
                remedy="--lab labs/nested.toml",
            )
        needs = [*backend_mode(case.interface.mode).needs, *case.needs]
        if case.policy.may_postcopy:
            needs.append("userfaultfd")
        if case.guest.dirty_ring is not None:
            needs.append("kvm")
        for host in (source, target):
            known = next(found for found in self.facts if found.host == host.name)
            for need in needs:
                capability = known.capability(need)
                if not capability.able:
                    return capability
        return None

    def skip(self, skip: Skip) -> None:
        """Say once that a case can't run here."""

        def note(run: Run) -> Run:
            known = [one for one in run.skips if one.case.id != skip.case.id]
            return run.model_copy(update={"skips": (*known, skip)})

        self.writer.amend(note)
        self.watcher.say(f"{skip.case.id}: not here: {skip.reason}; it takes: {skip.remedy}")

    def _setting(self, pair: Pair, lease: Lease) -> AttemptEnv:
        source, target = pair
        chosen = {host.name for host in pair}
        kvm = all(found.capability("kvm").able for found in self.facts if found.host in chosen)
        return AttemptEnv(
            self.lab.isolate_pair(source.name, target.name),
            accelerator="kvm" if kvm else "qemu",
            say=self.watcher.say,
            on_sample=self.watcher.on_sample,
            on_phase=self.watcher.on_phase,
            check=lease.check,
        )

    def next_number(self, case: Case, wanted: int | None = None) -> int:
        """The number of the next try at ``case``, ``wanted`` if it is free: nobody else gets it."""
        tried = sum(done.case.id == case.id for done in self.attempts)
        return self.writer.claim(case, wanted or 1 + tried)

    @contextmanager
    def build_world(self, case: Case, *pairs: Pair) -> Iterator[World]:
        """The case's world in a state, to act on by hand, on the first pair that is free."""
        with (
            self._leased(pairs, case.id) as (pair, lease),
            build_world(case, self._setting(pair, lease), pair) as stage,
        ):
            yield stage

    def attempt(self, case: Case, number: int, *pairs: Pair) -> Attempt:
        """One try on the first of ``pairs`` that is free.

        A LabError is noted in the run before it goes on to the caller.
        """
        pair: Pair | None = None
        with ExitStack() as lease:
            try:
                pair, held = lease.enter_context(self._leased(pairs, f"{case.id}-{number}"))
                done = attempt(case, number, self._setting(pair, held), pair, self.writer)
            except LabError as error:
                self._note(case, number, error)
                self.writer.disclaim(case, number)
                if pair is not None:
                    self._mend(case, number, pair)
                raise
        self.attempts.append(done)
        self.watcher.on_attempt(done)
        return done

    def _leased(
        self, pairs: Sequence[Pair], job: str
    ) -> AbstractContextManager[tuple[Pair, Lease]]:
        return lease_first_free(self.lab, pairs, job, Deadline.after(LEASE_S), self.watcher.say)

    def _mend(self, case: Case, number: int, pair: Pair) -> None:
        """While nobody else has the hosts."""
        self._keep_logs(case, number, pair)
        for name in self.lab.replace_dead_hosts():
            self.watcher.say(f"host {name} was off: it has been replaced")

    def _keep_logs(self, case: Case, number: int, pair: Pair) -> None:
        """Without an attempt there is no folder for them: they lie beside ``run.json``."""
        for host in pair:
            try:
                logs = logs_of(host, case)
            except LabError as error:
                self.watcher.say(f"no logs of host {host.name}: {error}")
                continue
            for name, text in logs.items():
                self.writer.write(f"mishap-{case.id}-{number}-{host.name}-{name}.log", text)

    def _note(self, case: Case, number: int, error: LabError) -> None:
        problem = Problem(tried=error.tried, host=error.host, said=error.said, remedy=error.remedy)
        mishap = AttemptError(
            case_id=case.id, number=number, problem=problem, exit_code=error.exit_code
        )
        self.writer.amend(lambda run: run.model_copy(update={"mishaps": (*run.mishaps, mishap)}))

    def try_all(self, cases: Sequence[Case], repeat: int) -> None:
        """Every case ``repeat`` times, in turns, so that a drift of the machine meets all alike."""
        placed: dict[str, tuple[Pair, ...]] = {}
        for case in cases:
            places = self.places(case)
            if isinstance(places, Skip):
                self.skip(places)
            else:
                placed[case.id] = places
        ready = [case for case in cases if case.id in placed]
        total = repeat * len(ready)
        for number, (turn, case) in enumerate(itertools.product(range(1, repeat + 1), ready), 1):
            self.watcher.say(f"[{number}/{total}] {case.id}, attempt {turn}")
            try:
                self.attempt(case, turn, *placed[case.id])
            except LabError as error:
                self.watcher.say(f"no attempt: {error}")

    def finish(self) -> Path:
        """Write JUnit's file, the index and the report; returns the report's path."""
        self.watcher.say("writing the report")
        return write_readers(self.writer, self.attempts)

    @property
    def exit_code(self) -> int:
        """0: all passed, but for what is quarantined; 1: a verdict failed, or an entry of the
        quarantine list has expired; else that of the worst error; 3: nothing ran."""
        if self.run.mishaps:
            return max(mishap.exit_code for mishap in self.run.mishaps)
        if not self.attempts:
            return NOTHING_RAN
        return int(quarantine.fails(self.run, self.attempts))


def write_readers(writer: RunWriter, attempts: Sequence[Attempt]) -> Path:
    """What is made of a whole run, for readers; the report's path."""
    writer.write("junit.xml", junit(writer.run, attempts))
    write_index(writer.folder)
    return write_report(writer.folder)


def begin(
    lab: Lab,
    results: Path,
    scenarios: Sequence[Scenario],
    watcher: Watcher,
    command: Sequence[str] = (),
) -> Session:
    """Look at the hosts and make a run folder."""
    found = look(lab, watcher.say)
    run = Run(
        name=run_name(),
        began=datetime.now(UTC).isoformat(timespec="seconds"),
        lab=lab.name,
        lab_kind=lab.kind,
        command=tuple(command),
        controller={
            "migrate-lab": __version__,
            "python": platform.python_version(),
            "kernel": platform.release(),
            "processors": str(os.cpu_count()),
        },
        hosts=found,
        scenarios={scenario.path: scenario.text for scenario in scenarios},
        seed=secrets.randbits(32),
    )
    return Session(lab, found, RunWriter.create(results, run), watcher)
