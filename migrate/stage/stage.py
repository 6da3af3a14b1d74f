"""The stage of a test: a guest under load, a source and a target, and what is done with them.

The meter's logs are read once, when the first finding is asked for: reading costs the guest time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from migrate.analysis.one_hop import findings_by_hop
from migrate.analysis.outage import longest_gap
from migrate.clock import now_ns
from migrate.drivers.libvirt import Domain
from migrate.errors import GuestError, HostError, quoted
from migrate.guest.commands import CommandResult
from migrate.lab.api import Host
from migrate.model import Case, Direction, Fault, HopFindings, Outcome, Policy, Problem, Verdict
from migrate.model.recording import MoveResult
from migrate.scenario.rules import check_rules
from migrate.stage.guest import Guest
from migrate.stage.invariants import INVARIANTS, look_at, must_hold
from migrate.world import World

Invariant = Callable[["Stage"], None]
"""A function of the stage that asserts."""
HOST_COMMAND_S = 60.0
"""For a command on a host, if its test does not say."""


@dataclass(frozen=True, slots=True)
class HopResult:
    """How one move went, what held after it, and what was seen of it."""

    number: int
    source: str
    target: str
    case: Case
    """With the policy and the faults that this move had."""
    result: MoveResult
    invariants: tuple[Verdict, ...]
    """What was looked at after it."""
    notes: tuple[str, ...]
    _findings: Callable[[int], HopFindings]

    @property
    def outcome(self) -> Outcome:
        """Whether it completed."""
        return self.result.outcome

    @property
    def held_by(self) -> tuple[str, ...]:
        """The hosts that had the guest when it was over."""
        return self.result.held_by

    @property
    def error(self) -> Problem | None:
        """Why it did not complete."""
        return self.result.error

    @property
    def downtime_ms(self) -> float | None:
        """As libvirt reports it; None: not reported."""
        return self.result.reported.downtime_ms

    @property
    def findings(self) -> HopFindings:
        """What the network saw, the guest felt and the hypervisor reports of it.

        The first time it is asked for, of any move, the workload ends: nothing is moved after that.
        """
        return self._findings(self.number)

    def longest_gap_ms(self, direction: Direction) -> float | None:
        """Of its outages one way; 0: there was none. None: not measured, or a stretch in which
        nothing can be told was longer. See :attr:`findings`."""
        findings = self.findings
        if findings.gaps is None:
            return None
        gap = longest_gap(findings.gaps, direction)
        longest_ns = 0 if gap is None else gap.length_ns
        unknown = (one.length_ns for one in findings.unmeasured if one.direction == direction)
        return None if max(unknown, default=0) > longest_ns else longest_ns / 1e6


class Stage:
    """A running guest under load, to be acted on; it is ended with the block that made it."""

    def __init__(self, world: World, invariants: Sequence[Invariant] = INVARIANTS) -> None:
        self.world = world
        self.invariants: list[Invariant] = list(invariants)
        """Looked at after each move; a test may add its own: functions of the stage that assert."""
        self.hops: list[HopResult] = []
        self.guest = Guest(world)
        self.source, self.target = (StageHost(self, host) for host in world.pair)
        self._ends_ns: list[int] = []
        self._by_hop: tuple[HopFindings, ...] | None = None

    @property
    def case(self) -> Case:
        """What the stage was made for."""
        return self.world.case

    @property
    def pair(self) -> tuple[Host, Host]:
        """Source and target as the lab has them: for what no verb does."""
        return self.world.pair

    @property
    def domain(self) -> Domain:
        """The guest where it runs now, as libvirt has it."""
        return self.world.domain

    def move(
        self, policy: Policy | None = None, faults: Sequence[Fault] | None = None
    ) -> HopResult:
        """Move the guest to the other host, once, let the streams run on for
        ``workload.settle_s``, and look at the invariants.

        What is left out is the case's; ``policy.hops`` plays no part. A move that fails is a
        result; InvariantError if something does not hold after it.
        """
        self._must_go_on("move the guest")
        if (state := self.guest.state) != "running":
            remedy = "guest.resume()" if state == "paused" else ""
            raise GuestError(
                "move the guest", host=self.guest.host, said=f"it is {state}", remedy=remedy
            )
        hop = self._made(_case_of_hop(self.case, policy, faults))
        self.hops.append(hop)
        must_hold(hop.invariants, f"after hop {hop.number}, {hop.source} to {hop.target}")
        return hop

    def _made(self, case: Case) -> HopResult:
        world, usual = self.world, self.world.case
        source, target = world.direction()
        world.case = case
        try:
            world.move()
        finally:
            world.case = usual
        recorded = world.hops[-1]
        world.listen(case.workload.settle_s)
        self._ends_ns.append(now_ns())
        return HopResult(
            number=len(world.hops),
            source=source.name,
            target=target.name,
            case=case,
            result=recorded.result,
            invariants=look_at(self, self.invariants),
            notes=recorded.notes,
            _findings=self._findings,
        )

    def check(self) -> tuple[Verdict, ...]:
        """Look at the invariants now, e.g. after a move by other hands; InvariantError if one does
        not hold."""
        self._must_go_on("look at the invariants")
        verdicts = look_at(self, self.invariants)
        must_hold(verdicts, "now")
        return verdicts

    def listen(self, seconds: float) -> None:
        """Let the streams run on."""
        self.world.listen(seconds)

    def _must_go_on(self, tried: str) -> None:
        if self._by_hop is not None:
            remedy = "ask for findings after the last move"
            raise GuestError(tried, said="its workload has ended", remedy=remedy)

    def _findings(self, number: int) -> HopFindings:
        if self._by_hop is None:
            cases = [hop.case for hop in self.hops]
            self._by_hop = findings_by_hop(self.world.end(), cases, self._ends_ns)
        return self._by_hop[number - 1]


def _case_of_hop(case: Case, policy: Policy | None, faults: Sequence[Fault] | None) -> Case:
    """ConfigurationError for what makes no sense, before anything is done."""
    if policy is not None:
        case = case.with_(policy=policy)
    if faults is not None:
        case = case.with_(faults=tuple(faults))
    check_rules(case, judged=False)
    return case


class StageHost:
    """One of the two hosts."""

    def __init__(self, stage: Stage, host: Host) -> None:
        self._stage, self._host = stage, host

    @property
    def name(self) -> str:
        """As in the lab file."""
        return self._host.name

    @property
    def has_guest(self) -> bool:
        """Whether the guest runs here, as far as the stage knows: see ``guest.find()``."""
        return self._stage.guest.host == self.name

    @property
    def libvirt_uri(self) -> str:
        """By which the other host's libvirt reaches this one: for ``virsh migrate``."""
        return self._host.libvirt_target

    @property
    def migration_uri(self) -> str:
        """Where it listens for guests that come in: for ``virsh migrate``."""
        return f"tcp://{self._host.migration_address}"

    def migrate_from(
        self,
        source: StageHost,
        *,
        policy: Policy | None = None,
        faults: Sequence[Fault] | None = None,
    ) -> HopResult:
        """Move the guest here from ``source``, where it has to be: see :meth:`Stage.move`."""
        if source is self or not source.has_guest:
            where = self._stage.guest.host
            raise GuestError(
                f"move the guest from {source.name} to {self.name}",
                said=f"it is on {where}",
                remedy="guest.find() asks both hosts, if it was moved by other hands",
            )
        return self._stage.move(policy, faults)

    def run(self, command: str, timeout_s: float = HOST_COMMAND_S) -> CommandResult:
        """Run a command on the host, as ``migrate-lab lab shell`` does, to its end.

        HostError if it is not over in time.
        """
        self._stage.world.env.check()
        deadline = self._stage.world.env.deadline(timeout_s)
        done = self._host.run(["sh", "-c", command], deadline, check=False)
        return CommandResult(command, done.status, done.out, done.err)

    def succeed(self, command: str, timeout_s: float = HOST_COMMAND_S) -> str:
        """Run a command on the host that has to end with 0; what it wrote."""
        result = self.run(command, timeout_s)
        if result.status != 0:
            raise HostError(f"run {quoted(command)}", host=self.name, said=result.said)
        return result.output
