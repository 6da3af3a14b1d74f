"""Events, phases, and what was measured of an attempt."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import Field

from migrate.model.base import NotNegative, Positive, Value
from migrate.model.case import DirtyMethod, DirtyWhen, PhaseName

Direction = Literal["egress", "ingress"]


DIRECTIONS: tuple[Direction, ...] = get_args(Direction)


Part = Literal["start", "switchover", "tail", "none"]
"""Part of a move: before the stop, around it, after the resume; ``none``: outside any move."""


class Event(Value):
    """Something that happened, who reported it, and its place on the axis with an error."""

    at_ns: int
    error_ns: int | None = 0
    """None: its clock was set meanwhile, and when it happened is not known."""
    clock: str = "controller"
    source: Literal["qemu", "libvirt", "fabric", "probe", "backend", "controller"]
    host: str
    name: str
    data: dict[str, Any] = Field(default={})

    @property
    def off_ns(self) -> int:
        """The error of a place that is known; ValueError for one that is not."""
        if self.error_ns is None:
            raise ValueError(f"when {self.name} happened on {self.host} is not known")
        return self.error_ns


class ClockReading(Value):
    """A host's wall clock, or its peer's, at a point: ``axis = reading + offset_ns``."""

    host: str
    at_ns: int
    offset_ns: int
    error_ns: int


class Phase(Value):
    """A stretch of the axis; ``number`` counts the passes of pre-copy."""

    name: PhaseName
    number: int = 0
    begin_ns: int
    end_ns: int
    error_ns: int = 0


class Gap(Value):
    """The outage between the last packet served and the next one served, in one direction.

    ``begin_ns`` and ``length_ns`` are of the outage as it is most likely; it lasted ``length_ns``
    give or take ``error_ns``, which all that the meter can't know is in.
    """

    direction: Direction
    begin_ns: int
    length_ns: int
    error_ns: int
    place_error_ns: int | None = None
    """Of ``begin_ns`` on the axis; None: as that of the length."""
    lost: int = 0
    late: int = 0
    duplicated: int = 0
    reordered: int = 0
    open_ended: bool = False
    """Nothing was served any more until the observation ended: at least this long."""
    next_to_unmeasured: bool = False
    """It begins or ends where the meter can't tell: it may have been longer, by that stretch."""
    phases: tuple[str, ...] = ()
    part: Part = "none"

    @property
    def length_ms(self) -> float:
        """The gap's length in milliseconds."""
        return self.length_ns / 1e6

    @property
    def place_off_ns(self) -> int:
        """The error of its place on the axis."""
        return self.error_ns if self.place_error_ns is None else self.place_error_ns

    @property
    def least_ns(self) -> int:
        """It was out for so long at least."""
        return max(0, self.length_ns - self.error_ns)

    @property
    def most_ns(self) -> int:
        """It was out for no longer than this, unless it is open-ended."""
        return self.length_ns + self.error_ns


class Unmeasured(Value):
    """A stretch of the axis in which the meter can't tell whether a direction was served.

    Its log was full, its socket dropped packets, the sender sent nothing, or a clock is not known
    well enough to tell late from on time: there may have been an outage as long as the stretch.
    """

    direction: Direction
    begin_ns: int
    length_ns: int
    reason: str
    open_ended: bool = False
    """Whether it had not ended when the observation did."""


class Stall(Value):
    """The guest's own monotonic tick stood still (lost time against the axis) or jumped."""

    kind: Literal["stood-still", "jumped"]
    begin_ns: int
    length_ns: int
    error_ns: int


class Floor(Value):
    """The same meter in the same lab with no migration going on: the longest gap each way."""

    egress_ms: NotNegative
    ingress_ms: NotNegative
    egress_delay_ms: float
    """Median delay one way. Only the two together are a round trip: their split is assumed even."""
    ingress_delay_ms: float
    seconds: Positive
    packets: int

    def ms(self, direction: Direction) -> float:
        """The longest gap that way, in milliseconds."""
        return self.egress_ms if direction == "egress" else self.ingress_ms

    def seen_from_ms(self, direction: Direction, interval_us: int) -> float:
        """From which length on a gap that way is seen: the floor's, and two packets'."""
        return max(self.ms(direction), 2 * interval_us / 1e3)


class Stream(Value):
    """The account of one direction over the whole observation."""

    direction: Direction
    sent: int
    received: int
    lost: int
    late: int
    duplicated: int
    reordered: int
    unknown: int = 0
    """Whether they arrived is not known; ``received + lost + unknown = sent``."""


LossWindow = Literal["floor", "move", "after"]
"""``move``: from the window before to the end of a move; ``after``: what follows the last one."""


class Loss(Value):
    """Packets of one direction, sent in a window, that no outage accounts for.

    ``sent`` leaves out what was sent in an outage and not served; of it ``lost`` never arrived and
    ``late`` was not served in time, outside gaps.
    """

    direction: Direction
    window: LossWindow
    hop: int
    """Which move, from 1; 0 for the floor's window."""
    begin_ns: int
    end_ns: int
    sent: int
    lost: int
    late: int
    late_in_gaps: int
    """Late in a gap that is no outage by itself."""


class Sample(Value):
    """One look at the progress of a migration."""

    at_ns: int
    host: str
    iteration: int | None = None
    remaining_bytes: int | None = None
    transferred_bytes: int | None = None
    rate_bytes_s: int | None = None
    dirty_pages_s: int | None = None
    throttle_percent: int | None = None
    postcopy_requests: int | None = None
    zero_pages: int | None = None
    multifd_bytes: int | None = None
    postcopy_blocktime_ms: int | None = None
    ring_full_us: int | None = None
    """Mean time in which a processor fills its dirty ring; only under a dirty limit."""
    vfio_bytes: int | None = None
    """Bytes of VFIO devices' state sent, by QEMU; only where a VF moves with its guest."""

    @property
    def is_empty(self) -> bool:
        """Whether QEMU was asked before there was anything to tell."""
        return not self.transferred_bytes and not self.remaining_bytes


class DirtyRate(Value):
    """How fast the guest dirtied its memory, by one method: MiB of pages a second.

    A page that is written again while it is measured counts once; by ``migration``, once a pass.
    """

    when: DirtyWhen
    method: DirtyMethod
    host: str
    mib_s: NotNegative | None = None
    error_mib_s: NotNegative = 0.0
    """QEMU reports whole MiB/s; page sampling adds twice the deviation of its sample."""
    per_vcpu_mib_s: tuple[NotNegative, ...] = ()
    """The rate of each virtual processor; by the dirty ring only."""
    reason: str = ""
    """Why it was not measured, with QEMU's message where it refused."""
    written_mib_s: NotNegative | None = None
    """What the guest wrote meanwhile, by its own count; None: it was not asked."""


class ReportedFigures(Value):
    """The hypervisor's own figures of a move."""

    downtime_ms: NotNegative | None = None
    total_ms: NotNegative | None = None
    setup_ms: NotNegative | None = None
    transferred_bytes: int | None = None
    iterations: int | None = None
    vfio_precopy_bytes: int | None = None
    """Bytes of a VF's state sent before the guest was stopped."""
    vfio_stopcopy_bytes: int | None = None
    """Bytes of a VF's state sent after the stop, as last sampled: QEMU ends with the move."""


class Nic(Value):
    """The guest's interface as the guest sees it."""

    name: str
    driver: str
    mac: str
    mtu: int
    carrier: bool
    features: str = ""
    """Bits as the kernel prints them, lowest first; empty for a device that is no virtio device."""
    rx_queues: int = 1
    tx_queues: int = 1


class MemoryCheck(Value):
    """The pattern that was written while the guest moved, read back afterwards."""

    pages: int
    writes: int
    wrong_page: int | None = None
    """The first page that was wrong, counted from 0; None: all were right."""
    expected: str = ""
    found: str = ""


class TcpCheck(Value):
    """Connections that were opened before the move and are asked about after it."""

    opened: int
    alive: int
    resets: int
    longest_stall_ms: NotNegative
    """The longest that a connection waited for its next byte."""
    waiting_ms: tuple[NotNegative, ...] | None = None
    """How long each open one had been without a byte when it was asked; None: not told."""
    asked_ns: int | None = None
    """When they were asked about, on the axis, or a little before."""
    answered: int | None = None
    """On so many a byte came back after the last move; None: not known."""


class WorkSample(Value):
    """What the workload had done since it began, at a moment of the guest's clock."""

    at_ns: int
    pages: NotNegative
    """Written."""
    packets: NotNegative
    """Sent."""
    tcp_bytes: NotNegative
    """That came back over TCP."""


class WorkDone(Value):
    """What the workload did in a stretch of an attempt, against what it was asked to."""

    window: Literal["floor", "move", "after"]
    hop: int = 0
    """Which move it was, from 1; 0: none."""
    seconds: Positive
    """Of the axis: also those in which the guest stood still."""
    dirty_mib_s: NotNegative
    packets_s: NotNegative
    tcp_bytes_s: NotNegative


class LowerChange(Value):
    """Something changed about a device that can carry the guest's traffic."""

    at_ns: int
    device: str
    driver: str
    """Its own, by ethtool: ``virtio_net``, ``igbvf``; empty if that could not be told."""
    what: Literal["appeared", "gone", "up", "down", "carries", "counted"]
    """``up``: it has carrier. ``carries``: of all of them it sends most, from now on. ``counted``:
    nothing but its counters, whenever another one begins to carry, and at the end."""
    sent: int | None = None
    """Packets since the device is there, by its own counter; so is ``received``. None: unknown."""
    received: int | None = None


class Carrier(Value):
    """A stretch of the axis in which one device of the guest carried its traffic."""

    device: str
    driver: str
    begin_ns: int
    end_ns: int
    error_ns: int
    sent: int | None = None
    """Packets meanwhile, by the device's own counter; so is ``received``. None: not counted."""
    received: int | None = None

    @property
    def is_standby(self) -> bool:
        """Whether it is a failover pair's virtio device: Linux takes none as a primary.

        Source: linux drivers/net/net_failover.c, net_failover_slave_pre_register.
        """
        return self.driver == STANDBY_DRIVER


class CarrierCheckpoint(Value):
    """Which device of a failover pair carried the guest's traffic at a point that is judged."""

    when: Literal["before the move", "at the end"]
    host: str
    """Where the guest ran then."""
    carrier: Carrier | None
    """None: no device carried anything."""


STANDBY_DRIVER = "virtio_net"
"""In the guest; a lower device with another driver is the primary."""
