"""One try at a case."""

from __future__ import annotations

from typing import Literal

from migrate.model.base import SCHEMA, NotNegative, Value
from migrate.model.case import Case, Outcome
from migrate.model.details import GapExplanation, MoveDetails
from migrate.model.machine import MachineState
from migrate.model.observation import (
    Carrier,
    CarrierCheckpoint,
    ClockReading,
    Direction,
    DirtyRate,
    Floor,
    Gap,
    Loss,
    MemoryCheck,
    Nic,
    Phase,
    ReportedFigures,
    Stall,
    Stream,
    TcpCheck,
    Unmeasured,
    WorkDone,
)


class Problem(Value):
    """Why an attempt did not go as asked, in the words of who said it."""

    tried: str
    host: str = ""
    said: str = ""
    remedy: str = ""


class QemuEnd(Value):
    """A QEMU of the guest that ended though nobody had asked it to."""

    host: str
    how: str
    """By what signal, or by libvirt's reason: ``crashed``, ``failed``."""
    last_words: str = ""
    """The end of its log; empty: it said nothing."""

    def __str__(self) -> str:
        words = f": {self.last_words}" if self.last_words else ", without a word"
        return f"QEMU on {self.host} ended ({self.how}){words}"


class Verdict(Value):
    """One check of one attempt."""

    check: str
    result: Literal["pass", "fail", "unmeasured"]
    measured: str = ""
    limit: str = ""
    unit: str = ""
    evidence: str = ""


class Findings(Value):
    """What the analysis makes of all that was gathered of an attempt."""

    begin_ns: int
    outcome: Outcome
    held_by: tuple[str, ...]
    """Hosts on which the guest runs at the end; more than one, or none, is the worst find."""
    reported: ReportedFigures = ReportedFigures()
    phases: tuple[Phase, ...] = ()
    gaps: tuple[Gap, ...] | None = None
    unmeasured: tuple[Unmeasured, ...] = ()
    """Stretches in which the meter can't tell whether a direction was served: neither gap nor not.
    An outage may have been as long as a stretch, and the gaps next to it together."""
    streams: tuple[Stream, ...] | None = None
    loss: tuple[Loss, ...] | None = None
    """Window by window, each way; the floor's first."""
    stalls: tuple[Stall, ...] | None = None
    stalls_seen_from_ms: NotNegative | None = None
    """A shorter stall may not be among them; None: not known, or none can be seen at all."""
    explained: tuple[GapExplanation, ...] | None = None
    """The longest gap of each direction; None: no gaps or no events to explain them by."""
    inside: tuple[MoveDetails, ...] = ()
    """Details of each hop's move."""
    dirty_rates: tuple[DirtyRate, ...] | None = None
    """Rates by every method, refused ones included; None: not asked for."""
    floor: Floor | None = None
    no_floor: tuple[str, ...] = ()
    """Why there is none; empty: there is one, or it is not on record."""
    work: tuple[WorkDone, ...] | None = None
    """What the workload did, stretch by stretch; None: the guest did not tell."""
    start_ms: NotNegative | None = None
    """From the ask for a guest to its ready probe."""
    memory: MemoryCheck | None = None
    tcp: TcpCheck | None = None
    nic_before: Nic | None = None
    nic_after: Nic | None = None
    carriers: tuple[Carrier, ...] | None = None
    """Which device of a failover pair carried the traffic, in order; None: there is no pair, or the
    guest could not be asked."""
    carrier_checkpoints: tuple[CarrierCheckpoint, ...] | None = None
    """Where the carrier is judged; None as :attr:`carriers`."""
    failover_hosts: tuple[str, ...] | None = None
    """Hosts that back the interface by a failover pair, with a primary for the guest; None: not on
    record, or no such mode."""
    backend_failed: tuple[str, ...] | None = None
    """Lines of QEMU's log, where the guest ended, about a failed backend; None: not read."""
    error: Problem | None = None
    qemu_ends: tuple[QemuEnd, ...] = ()
    """QEMUs that ended by themselves, or were killed; :attr:`error` begins with them."""
    void: tuple[str, ...] = ()
    """Why it is neither pass nor fail: a question of ours ended the guest, a fault was not done."""
    bug_report: str = ""
    """The file of the attempt that tells of an error of this program; empty: there was none."""
    notes: tuple[str, ...] = ()
    clocks: tuple[ClockReading, ...] = ()
    """Readings of both hosts' clocks and the peer's, before, during and after; empty: none."""
    machine: MachineState | None = None
    """How busy the machines were; None: not recorded."""


class Attempt(Findings):
    """One try at a case, from lease to verdicts; a migration that fails is one, too."""

    schema_number: int = SCHEMA
    case: Case
    number: int
    source: str
    target: str
    end_ns: int
    leftovers: tuple[str, ...] | None = None
    verdicts: tuple[Verdict, ...] = ()

    def seen_from_ms(self, direction: Direction) -> float | None:
        """From which length on a gap is seen: the floor's, and two packets'; None: no floor."""
        if self.floor is None:
            return None
        return self.floor.seen_from_ms(direction, self.case.workload.interval_us)

    @property
    def failed_verdicts(self) -> tuple[Verdict, ...]:
        """The verdicts that keep it from passing."""
        allowed = self.case.expect.allow_unmeasured
        return tuple(
            verdict
            for verdict in self.verdicts
            if verdict.result == "fail"
            or (verdict.result == "unmeasured" and verdict.check not in allowed)
        )

    @property
    def void_reason(self) -> str:
        """Why it is void, in one; empty: it is not."""
        return "; ".join(self.void)

    @property
    def passed(self) -> bool:
        """A green one must mean something: no verdict at all is no pass, nor is a void attempt."""
        return bool(self.verdicts) and not self.failed_verdicts and not self.void

    @property
    def result(self) -> Literal["pass", "fail", "void"]:
        """``void``: it tells nothing of what was to be tested."""
        if self.void:
            return "void"
        return "pass" if self.passed else "fail"
