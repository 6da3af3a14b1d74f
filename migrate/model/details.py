"""The details of a move: its stop by stage, device states, rings, convergence, announcements."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from migrate.model.base import NotNegative, Value
from migrate.model.observation import (
    Direction,
)


class Span(Value):
    """A stretch of a gap, or of the guest's stop, and what happened in it."""

    what: str
    begin_ns: int
    end_ns: int
    error_ns: int = 0
    host: str = ""
    """Where it happened; empty: between the hosts, or on the network."""
    explained: bool = True
    """False: nothing that was recorded shows what happened."""

    @property
    def length_ms(self) -> float:
        """The span's length in milliseconds."""
        return (self.end_ns - self.begin_ns) / 1e6


class MonitorGap(Span):
    """A stretch in which QEMU did not answer, and what was missed by it."""

    missed: int | None = None
    """Samples of the progress that were missed; None: not known how many."""
    stop: bool | None = None
    """Whether the guest was stopped in it: the source's STOP; None: no STOP is on record."""
    stopped_ms: NotNegative | None = None
    """How much of the guest's stop, from STOP to RESUME, lies in it; None: one of them is not on
    record."""


class GapExplanation(Value):
    """A gap, explained: spans in order that cover it from its begin to its end."""

    direction: Direction
    begin_ns: int
    length_ns: int
    spans: tuple[Span, ...]

    @property
    def unexplained_ms(self) -> float:
        """The length of all unexplained spans together, in milliseconds."""
        return sum(span.length_ms for span in self.spans if not span.explained)

    @property
    def share(self) -> float:
        """The share of the gap that is explained: 0 to 1."""
        if not self.length_ns:
            return 1.0
        return min(1.0, max(0.0, 1 - self.unexplained_ms * 1e6 / self.length_ns))


class Difference(Value):
    """One field of a device's state that is not the same on the two ends of a move."""

    field: str
    before: str
    after: str
    lawful: bool
    why: str
    """Why it is allowed, or not: the section of the virtio specification, or QEMU's own rule."""


class DeviceHandoff(Value):
    """A device's state as it left the source and arrived on the target."""

    device: str
    """QEMU's name of its section in the stream, e.g. ``0000:00:02.0/virtio-net``."""
    save_ms: NotNegative | None = None
    load_ms: NotNegative | None = None
    size_bytes: int | None = None
    compared: bool = False
    """Whether its state was read at the source's stop and at the target before it ran on."""
    differences: tuple[Difference, ...] = ()
    untold: tuple[str, ...] = ()
    """Fields that only one end reported, with which one: these are not compared."""
    fields_compared: int | None = None
    """How many fields both ends reported; None: not known how many."""

    @property
    def parts_not_compared(self) -> tuple[str, ...]:
        """What a driver relies on and one end alone reported: status, features, a queue's index."""
        names = (field.rpartition(" (")[0] for field in self.untold)
        parts = (name.partition(": last available") for name in names)
        wanted = (part for part, sep, _ in parts if sep or part in ("status", "features"))
        return tuple(dict.fromkeys(wanted))


class RingAudit(Value):
    """A virtqueue in the guest's memory when the source had stopped, and the rules it breaks."""

    device: str
    queue: int
    kind: Literal["split", "packed"]
    size: int
    broken: tuple[str, ...] = ()
    """Rules that are broken, each with figures and the section of the specification."""
    unchecked: tuple[str, ...] = ()
    facts: dict[str, str] = Field(default={})
    """Indices, flags and wrap counters by name, as people read them."""

    @property
    def unread(self) -> bool:
        """Whether nothing of it could be read: it is neither sound nor broken."""
        return bool(self.unchecked) and not self.facts and not self.broken


class ConvergenceForecast(Value):
    """When pre-copy can stop the guest, by the known rates; None: never at these rates."""

    converges_in: int | None = None
    """Passes that are needed before the guest can be stopped."""
    syncs: int | None = None
    """QEMU's ``dirty-sync-count`` at the end."""
    seconds: NotNegative | None = None
    """Time from the begin of the first pass to the stop."""


class Convergence(Value):
    """One pre-copy: when it should converge, beside what happened."""

    memory_bytes: int | None = None
    """Memory to be sent in the first pass: all that is not zero."""
    bandwidth_bytes_s: NotNegative | None = None
    """The policy's bandwidth, or else ``seen_bytes_s``."""
    seen_bytes_s: NotNegative | None = None
    """The median of the rates that QEMU reported."""
    foretold: ConvergenceForecast | None = None
    """The forecast; None: the memory or the bandwidth is not known."""
    syncs: int | None = None
    """QEMU's ``dirty-sync-count``, as it was reported last."""
    switched_over: bool = False
    stopped_s: NotNegative | None = None
    """Time from the begin of the first pass to the guest's stop."""
    suspended: bool = False
    """The stop was the policy's, at its time limit."""
    throttle_seen: tuple[int, ...] | None = None
    """Auto-converge's steps in percent; None: it was off."""
    throttle_due: tuple[int, ...] | None = None
    """The steps that were expected, as many as were seen."""


DetailsPart = Literal["stop", "devices", "rings", "bytes"]
"""What of a move's details has reasons of its own where it is not available."""


class MoveDetails(Value):
    """The details of one move; None: not available."""

    hop: int = 1
    stop: tuple[Span, ...] | None = None
    """The guest's stop by stage, from the source's STOP to the RESUME that ended it."""
    devices: tuple[DeviceHandoff, ...] | None = None
    rings: tuple[RingAudit, ...] | None = None
    announced: int | None = None
    """Announcements captured on the fabric after the resume."""
    first_announce_ms: float | None = None
    """The first announcement, after the resume; negative: before the target ran."""
    announce_error_ms: NotNegative | None = None
    """Of the first announcement after the resume, and of how long was listened for one."""
    convergence: Convergence | None = None
    """The convergence of a pre-copy whose progress was sampled."""
    announced_by: dict[str, int] | None = None
    """Announcements by kind: ``garp`` and ``na`` are the guest's, ``rarp`` is QEMU's; 0: none
    captured."""
    announce_rounds_asked: int | None = None
    """The target's ``announce-rounds``: how often QEMU announces, and asks the guest to."""
    announce_last_due_ms: NotNegative | None = None
    """When QEMU's last round is due, after its first one."""
    listened_ms: NotNegative | None = None
    """How long after the resume the fabric was captured for this hop."""
    first_egress_ms: float | None = None
    """When the first packet of the guest arrived at its peer, after the resume."""
    first_egress_error_ms: NotNegative | None = None
    first_ingress_ms: float | None = None
    """When the first packet arrived in the guest, after the resume, by its kernel's stamp."""
    first_ingress_error_ms: NotNegative | None = None
    first_sent_before_stop: tuple[Direction, ...] = ()
    """Directions whose first packet had been sent before the guest was stopped, and lay in a queue:
    it does not tell when the sender came to send again."""
    silent: tuple[Direction, ...] = ()
    """Directions in which no packet arrived from the resume to the end of the hop."""
    postcopy_blocktime_ms: NotNegative | None = None
    """Time in which *every* processor waited for a page; by the target, after post-copy."""
    postcopy_cpus_blocktime_ms: tuple[NotNegative, ...] = ()
    """Time in which each processor waited for a page; empty: not measured."""
    blind: tuple[MonitorGap, ...] = ()
    """Stretches in which QEMU did not answer, and what was missed."""
    unseen: tuple[str, ...] = ()
    """What is not available, and why."""
    missing: dict[DetailsPart, tuple[str, ...]] = Field(default={})
    """Of ``unseen``, why these are not available, or not whole; empty in older records."""
    begin_ns: int | None = None
    end_ns: int | None = None
    """Of the stretch of the axis that belongs to it: until the next move begins, or for ever."""
    reported_downtime_ms: NotNegative | None = None
    """As the hypervisor reports it of this move."""
    placed: bool = True
    """False: a clock was set, or a connection broke. Events are missing on the axis: see
    ``unseen``."""

    def reasons(self, part: DetailsPart) -> tuple[str, ...]:
        """Why a part is not available; in an older record all reasons there are."""
        return self.missing.get(part, ()) if self.missing else self.unseen
