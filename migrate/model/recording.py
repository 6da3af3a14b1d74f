"""All that is gathered of an attempt: values that collectors return and the analysis reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, PlainSerializer, PlainValidator

from migrate.clock import Offset
from migrate.model.attempt import Problem, QemuEnd
from migrate.model.base import Positive, Value
from migrate.model.case import Outcome
from migrate.model.machine import MachineRecording
from migrate.model.observation import (
    ClockReading,
    DirtyRate,
    Event,
    LowerChange,
    MemoryCheck,
    Nic,
    ReportedFigures,
    Sample,
    TcpCheck,
    WorkSample,
)

RECORDING_SCHEMA = 1
"""Of a recording as it is written; a newer reader reads older numbers."""

# --- what arrived -------------------------------------------------------------------------------


def _differences(column: NDArray[np.int64]) -> list[int]:
    """The first value, and each one's distance from the one before: short where steps are even."""
    steps: list[int] = np.diff(column, prepend=np.int64(0)).tolist()
    return steps


def _column(given: Any) -> NDArray[np.int64]:
    """A column as it is, or out of its :func:`_differences`."""
    if isinstance(given, np.ndarray):
        return given
    return np.cumsum(np.asarray(given, dtype=np.int64), dtype=np.int64)


Column = Annotated[
    NDArray[np.int64],
    PlainValidator(_column),
    PlainSerializer(_differences, return_type=list[int], when_used="json"),
]


Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Arrivals:
    """What one receiver logged, one row a packet in the order of arrival; equal lengths.

    ``sent_ns`` is the sender's stamp by the sender's clock, ``received_ns`` the receiver's kernel
    stamp by the receiver's clock; which clocks these are is said by whoever holds the log.
    Raises ValueError if the columns differ in length or are not one-dimensional.
    """

    seq: Column
    sent_ns: Column
    received_ns: Column

    def __post_init__(self) -> None:
        for name in ("seq", "sent_ns", "received_ns"):
            column = np.asarray(getattr(self, name), dtype=np.int64)
            if column.ndim != 1:
                raise ValueError(f"{name} must have one dimension, not {column.ndim}")
            object.__setattr__(self, name, column)
        if not len(self.seq) == len(self.sent_ns) == len(self.received_ns):
            raise ValueError(
                f"columns differ in length: seq {len(self.seq)}, sent_ns {len(self.sent_ns)}, "
                f"received_ns {len(self.received_ns)}"
            )

    @classmethod
    def empty(cls) -> Arrivals:
        """Nothing arrived."""
        none = np.empty(0, dtype=np.int64)
        return cls(none, none, none)

    def __len__(self) -> int:
        return len(self.seq)

    def select(self, mask: Flags | Column) -> Arrivals:
        """The rows that ``mask`` picks: booleans, or indices in the order wanted."""
        return Arrivals(self.seq[mask], self.sent_ns[mask], self.received_ns[mask])


@dataclass(frozen=True, slots=True, eq=False)
class Sends:
    """When a sender sent packets, by number; both columns of one length, numbers in order.

    Raises ValueError if the columns differ in length.
    """

    seq: Column
    sent_ns: Column

    def __post_init__(self) -> None:
        if len(self.seq) != len(self.sent_ns):
            raise ValueError(
                f"columns differ in length: seq {len(self.seq)}, sent_ns {len(self.sent_ns)}"
            )

    @classmethod
    def empty(cls) -> Sends:
        """Nothing is on record."""
        none = np.empty(0, dtype=np.int64)
        return cls(none, none)

    def __len__(self) -> int:
        return len(self.seq)


class MeterLoss(Value):
    """What a receiving probe knows to have lost itself: it is not the network's loss."""

    full: bool = False
    """Its log was full: what arrived after the last row is not on record."""
    drops: tuple[tuple[int, int], ...] = ()
    """``(row, count)``: how many packets its socket had dropped by the time that a row of its log
    was received, in order of the rows and of the counts."""
    dropped: int = 0
    """How many it had dropped in all, those after the last row included."""


class TrafficLog(Value):
    """What the probes had logged when the workload ended; None where the guest could not be asked.

    Stamps of the peer are on the axis, those of the guest by the guest's own clock.
    """

    egress: Arrivals
    ingress: Arrivals
    sent_egress: int | None
    sent_ingress: int
    end_ns: int
    jumps: tuple[tuple[int, int], ...] | None
    """Ticks of the guest that came late: when, by the guest's clock, and by how much."""
    jumps_missed: int = 0
    """Late ticks before these that are no longer on record."""
    memory: MemoryCheck | None = None
    tcp: TcpCheck | None = None
    nic: Nic | None = None
    lowers: tuple[LowerChange, ...] | None = None
    from_receipts: bool = False
    """The guest is gone: ``ingress`` was rebuilt from the receipts in its egress packets."""
    notes: tuple[str, ...] = ()
    looped: Offset | None = None
    """What stands in for the peer's clock where the network returned the guest's own stream."""
    nothing_logged: bool = False
    """The only log went with the guest."""
    peer_error_ns: int = 0
    """Of the peer's stamps."""
    unreceived_egress: Sends | None = None
    """When the guest sent what did not arrive, by its clock; None: not on record."""
    unreceived_ingress: Sends | None = None
    """When the peer sent what did not arrive, on the axis; None: not on record."""
    lost_by_peer: MeterLoss | None = None
    """Of egress; None: not known."""
    lost_by_guest: MeterLoss | None = None
    """Of ingress; None: not known."""
    work: tuple[WorkSample, ...] | None = None
    """What the workload had done, second by second, by the guest's clock; None: not told."""


# --- one move -----------------------------------------------------------------------------------


class GuestState(Value):
    """What is said of the guest on one host."""

    host: str
    libvirt: str
    """State and reason in libvirt's words: ``paused (postcopy-failed)``; ``no domain``; or why it
    could not be asked."""
    qemu: str | None = None
    """QEMU's run state: ``finish-migrate``; None: there is no QEMU."""
    migration: str | None = None
    """QEMU's migration status: ``postcopy-paused``."""

    def __str__(self) -> str:
        parts = [f"libvirt on {self.host}: {self.libvirt}"]
        if self.qemu is not None:
            parts.append(f"QEMU: {self.qemu}")
        if self.migration is not None:
            parts.append(f"its migration: {self.migration}")
        return ", ".join(parts)


class MoveResult(Value):
    """How a move ended."""

    outcome: Outcome
    held_by: tuple[str, ...]
    """Hosts on which the guest runs now."""
    reported: ReportedFigures = ReportedFigures()
    error: Problem | None = None
    states: tuple[GuestState, ...] = ()
    """On both hosts, when a move had ended that did not complete."""


class AnnounceParameters(Value):
    """QEMU's ``announce-*`` parameters: in what rounds it announces a guest that has arrived."""

    rounds: int
    initial_ms: int
    step_ms: int
    max_ms: int

    @property
    def last_due_ms(self) -> int:
        """After the first round, which is sent at once; each pause is a step longer."""
        pauses = (self.initial_ms + number * self.step_ms for number in range(self.rounds - 1))
        return sum(p if 0 <= p <= self.max_ms else self.max_ms for p in pauses)


class Blocktime(Value):
    """How long processors waited for pages in post-copy, by the target's QEMU.

    Source: qapi/migration.json, MigrationInfo, ``postcopy-blocktime`` and
    ``postcopy-vcpu-blocktime``.
    """

    every_ms: int
    """While all of them waited."""
    each_ms: tuple[int, ...]


DeviceStates = dict[str, dict[str, Any]]
"""virtio network devices by QEMU's path: its answers as they are, VLANs as ranges."""

SAMPLE_INTERVAL_S = 0.02
"""Between two questions for the progress."""


class QemuRecording(Value):
    """What both QEMUs answered in one move; None: not known."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    interval_s: Positive = SAMPLE_INTERVAL_S
    """Between two questions for the progress."""
    source: DeviceStates | None = None
    """When the source had stopped."""
    target: DeviceStates | None = None
    """Before the guest ran on there."""
    vhost: bool | None = None
    """Whether a backend works the source's queues."""
    memory: dict[int, bytes] = Field(default={})
    """Of the guest, at the source's stop: what its rings lie in, by address."""
    samples: tuple[Sample, ...] = ()
    answered_ns: tuple[int, ...] = ()
    """When the source answered, in order, whatever it was asked; the last time is when it ended, or
    was given up, if it owed an answer then."""
    announce: AnnounceParameters | None = None
    """The target's."""
    blocktime: Blocktime | None = None
    unseen: tuple[str, ...] = ()
    """What was not seen, and why."""


class DeviceSection(Value):
    """One device's section in the stream."""

    name: str
    instance: int
    size_bytes: int
    """Headers and all."""
    mac: str = ""
    """Of a virtio network device; empty: it is none, or was not read."""


class StreamRecording(Value):
    """What is known of the stream that carried the guest."""

    sections: tuple[DeviceSection, ...] = ()
    """In their order; of a live stream those after the guest's stop."""
    network: dict[str, dict[str, Any]] = Field(default={})
    """What it has of virtio network devices by their sections (formats.virtio_net_state)."""
    unseen: str = ""
    """Why the sections of a live stream are not known."""
    account: dict[str, Any] = Field(default={}, exclude=True)
    """All that the stream tells of itself; it lies beside the recording, in ``stream.json``."""


class HopRecording(Value):
    """All that was gathered of one move, and the stretch of the axis that belongs to it."""

    source: str
    target: str
    result: MoveResult
    begin_ns: int
    end_ns: int
    qemu: QemuRecording = QemuRecording()
    stream: StreamRecording = StreamRecording()
    missed_events: tuple[str, ...] = ()
    """Hosts whose events were not all received, and why."""
    void: tuple[str, ...] = ()
    """Why the move tells nothing of what was to be tested: a fault was not done."""
    silent: bool = False
    """The guest's probe did not answer when the move had ended."""
    notes: tuple[str, ...] = ()
    files: dict[str, str] = Field(default={}, exclude=True)
    """For people, by name; they lie beside the recording."""


# --- the attempt --------------------------------------------------------------------------------


class StartRecording(Value):
    """What was gathered before the first move."""

    begin_ns: int
    floor_window: tuple[int, int]
    """The stretch of the axis in which nothing went on but the streams."""
    start_ms: float
    """From the ask for a guest to its ready probe."""
    nic: Nic
    """The guest's interface as the guest saw it."""
    dirty_rates: tuple[DirtyRate, ...] = ()
    """Empty if the case does not ask for them; so are those after the moves."""
    primaries: tuple[str, ...] | None = None
    """Hosts with a device that carries the traffic while a standby waits; None: not on record, or
    the interface has no standby."""
    notes: tuple[str, ...] = ()
    files: dict[str, str] = Field(default={}, exclude=True)
    """For people, by name; they lie beside the recording."""


class Recording(Value):
    """All that was gathered of an attempt."""

    schema_number: int = RECORDING_SCHEMA
    start: StartRecording
    hops: tuple[HopRecording, ...]
    traffic: TrafficLog
    events: tuple[Event, ...] = ()
    """Of all sources, on the axis by all readings of the clocks."""
    clocks: tuple[ClockReading, ...] = ()
    listened_until_ns: int | None = None
    """The fabric was listened to for announcements until then."""
    dirty_rates: tuple[DirtyRate, ...] = ()
    """After the last move."""
    machines: tuple[MachineRecording, ...] = ()
    """All that the attempt ran on; empty: not recorded."""
    backend_failed: tuple[str, ...] | None = None
    """By the log of QEMU where the guest ended; None: it was not read."""
    no_trace_points: dict[str, str] = Field(default={})
    """By host: why the log of its QEMU tells nothing of the guest's stop."""
    qemu_ends: tuple[QemuEnd, ...] = ()
    """By the logs of both QEMUs."""
    void: tuple[str, ...] = ()
    """What of the attempt as a whole was not had, so that it tells nothing."""
    notes: tuple[str, ...] = ()
    files: dict[str, str] = Field(default={}, exclude=True)
    """For people, by name below the attempt's folder; they lie beside the recording."""
