"""What went on inside of a move."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from migrate.model.base import NotNegative, Value
from migrate.model.observation import (
    Direction,
)


class Span(Value):
    """A stretch of a gap, or of the guest's stop, and what went on in it."""

    what: str
    begin_ns: int
    end_ns: int
    error_ns: int = 0
    host: str = ""
    """Where it went on; empty: between the hosts, or on the network."""
    explained: bool = True
    """False: nothing that was recorded tells what went on."""

    @property
    def length_ms(self) -> float:
        """Milliseconds."""
        return (self.end_ns - self.begin_ns) / 1e6


class MonitorGap(Span):
    """A stretch in which QEMU did not answer, and what was missed by it."""

    missed: int | None = None
    """Looks at the progress that were due and were not had; None: not reckoned."""
    stop: bool | None = None
    """Whether the guest was stopped in it: the source's STOP; None: no STOP is on record."""
    stopped_ms: NotNegative | None = None
    """So much of the guest's stop, from STOP to RESUME, lies in it; None: one of them is not on
    record."""


class Explained(Value):
    """What a gap contains: spans in order that cover it from its begin to its end."""

    direction: Direction
    begin_ns: int
    length_ns: int
    spans: tuple[Span, ...]

    @property
    def unexplained_ms(self) -> float:
        """Together, of all spans that nothing tells of."""
        return sum(span.length_ms for span in self.spans if not span.explained)

    @property
    def share(self) -> float:
        """Of the gap that is explained: 0 to 1."""
        return 1 - self.unexplained_ms * 1e6 / self.length_ns if self.length_ns else 1.0


class Difference(Value):
    """One field of a device's state that is not the same on the two ends of a move."""

    field: str
    before: str
    after: str
    lawful: bool
    why: str
    """With the section of the virtio specification, or QEMU's own rule."""


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
    """Fields that one end alone told, with which one: these are not compared."""


class RingAudit(Value):
    """A virtqueue as it lay in the guest's memory when the source had stopped."""

    device: str
    queue: int
    kind: Literal["split", "packed"]
    size: int
    broken: tuple[str, ...] = ()
    """Rules that it breaks, each with the figures and the section of the specification."""
    unchecked: tuple[str, ...] = ()
    facts: dict[str, str] = Field(default={})
    """Indices, flags and wrap counters by name, as people read them."""


class ConvergenceForecast(Value):
    """When pre-copy can stop the guest, by the rates that were known; None: never at these."""

    converges_in: int | None = None
    """The pass after which it can."""
    syncs: int | None = None
    """QEMU's ``dirty-sync-count`` at the end."""
    seconds: NotNegative | None = None
    """From the begin of the first pass to the stop."""


class Convergence(Value):
    """Of one pre-copy: when it should converge, beside what happened."""

    memory_bytes: int | None = None
    """To be sent in the first pass: what is not zero."""
    bandwidth_bytes_s: NotNegative | None = None
    """The policy's, or else what was seen."""
    seen_bytes_s: NotNegative | None = None
    """The median of the rates that QEMU told meanwhile."""
    foretold: ConvergenceForecast | None = None
    """None: the memory or the bandwidth is not known."""
    syncs: int | None = None
    """QEMU's ``dirty-sync-count``, as it was told last."""
    switched_over: bool = False
    stopped_s: NotNegative | None = None
    """From the begin of the first pass to the guest's stop."""
    suspended: bool = False
    """That stop was the policy's, at its time limit."""
    throttle_seen: tuple[int, ...] | None = None
    """Auto-converge's steps in percent; None: it was not asked for."""
    throttle_due: tuple[int, ...] | None = None
    """As many steps as were seen, as they should be."""


class Inside(Value):
    """What went on inside of one move; None: it could not be seen."""

    hop: int = 1
    stop: tuple[Span, ...] | None = None
    """The guest's stop by stage, from the source's STOP to the RESUME that ended it."""
    devices: tuple[DeviceHandoff, ...] | None = None
    rings: tuple[RingAudit, ...] | None = None
    announced: int | None = None
    """Announcements heard on the fabric after the resume."""
    first_announce_ms: float | None = None
    """After the resume; negative: before the target ran."""
    convergence: Convergence | None = None
    """Of a pre-copy whose progress was seen."""
    announced_by: dict[str, int] | None = None
    """How many of each kind were among them: ``garp`` and ``na`` are the guest's, ``rarp`` is
    QEMU's; 0: listened for, and not heard."""
    announce_rounds_asked: int | None = None
    """By the target's ``announce-rounds``: QEMU announces so often, and asks the guest to."""
    announce_last_due_ms: NotNegative | None = None
    """After QEMU's first round its last one is due."""
    listened_ms: NotNegative | None = None
    """After the resume: so long the fabric was listened to for this hop."""
    first_egress_ms: float | None = None
    """After the resume the first packet of the guest arrived at its peer."""
    first_egress_error_ms: NotNegative | None = None
    first_ingress_ms: float | None = None
    """After the resume the first packet arrived in the guest, by its kernel's stamp."""
    first_ingress_error_ms: NotNegative | None = None
    silent: tuple[Direction, ...] = ()
    """Ways in which no packet arrived from the resume to the end of the hop."""
    postcopy_blocktime_ms: NotNegative | None = None
    """Together, while *every* processor waited for a page; by the target, after post-copy."""
    postcopy_cpus_blocktime_ms: tuple[NotNegative, ...] = ()
    """Of each processor; empty: not measured."""
    blind: tuple[MonitorGap, ...] = ()
    """When QEMU did not answer, and what was not seen meanwhile."""
    unseen: tuple[str, ...] = ()
    """What could not be seen, and why."""
    placed: bool = True
    """False: a clock was set, or a connection broke. Events are missing on the axis: see
    ``unseen``."""
