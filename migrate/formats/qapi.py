"""Shapes of what QEMU answers, as far as it is read here.

Sources: QEMU qapi/migration.json, virtio.json, net.json, run-state.json, pci.json, machine.json,
introspect.json, from 7.2 to 11.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from migrate.formats.answers import Count, QapiPart, Shape, Signed, Unsigned
from migrate.formats.virtio_net_state import QUEUE_MAX

Rate = Annotated[float, Field(ge=0, le=1e12)]
"""Megabits a second, or MiB."""
RING_MAX = 1 << 15
"""Descriptors of a queue (virtio 1.3, 2.7 and 2.8)."""
VLANS = 4096

# --- migration ----------------------------------------------------------------------------------


class RamStats(QapiPart):
    """MigrationRAMStats."""

    dirty_sync_count: Count | None = None
    remaining: Count | None = None
    transferred: Count | None = None
    mbps: Rate | None = None
    dirty_pages_rate: Count | None = None
    postcopy_requests: Count | None = None
    duplicate: Count | None = None
    multifd_bytes: Count | None = None


class VfioStats(QapiPart):
    """VfioStats."""

    transferred: Count | None = None


class MigrationInfo(QapiPart):
    """What query-migrate returns."""

    status: str | None = None
    ram: RamStats | None = None
    vfio: VfioStats | None = None
    cpu_throttle_percentage: Signed | None = None
    postcopy_blocktime: Count | None = None
    postcopy_vcpu_blocktime: tuple[Count, ...] = ()
    dirty_limit_ring_full_time: Count | None = None
    error_desc: str | None = None
    total_time: Count | None = None
    downtime: Count | None = None


class MigrationParameters(QapiPart):
    """MigrateParameters."""

    announce_rounds: Annotated[int, Field(ge=0, le=1000)] | None = None
    announce_initial: Count | None = None
    announce_step: Count | None = None
    announce_max: Count | None = None


class MigrationCapability(QapiPart):
    """MigrationCapabilityStatus."""

    capability: str
    state: bool


MIGRATION = Shape(MigrationInfo)
PARAMETERS = Shape(MigrationParameters)
CAPABILITIES = Shape(list[MigrationCapability])

# --- how fast memory is dirtied -----------------------------------------------------------------


class VcpuDirtyRate(QapiPart):
    """DirtyRateVcpu."""

    dirty_rate: Count


class DirtyRateInfo(QapiPart):
    """What query-dirty-rate returns."""

    status: str
    dirty_rate: Count | None = None
    vcpu_dirty_rate: tuple[VcpuDirtyRate, ...] = ()


class VcpuDirtyLimit(QapiPart):
    """DirtyLimitInfo."""

    cpu_index: Count
    limit_rate: Count
    current_rate: Count


DIRTY_RATE = Shape(DirtyRateInfo)
DIRTY_LIMITS = Shape(list[VcpuDirtyLimit])

# --- the machine --------------------------------------------------------------------------------


class RunStatus(QapiPart):
    """StatusInfo."""

    status: str


class KvmInfo(QapiPart):
    """KvmInfo."""

    enabled: bool


class SchemaEntity(QapiPart):
    """SchemaInfo."""

    name: str
    meta_type: str


class PciDevice(QapiPart):
    """PciDeviceInfo."""

    irq: Signed | None = None


class PciBus(QapiPart):
    """PciInfo."""

    devices: tuple[PciDevice, ...]


RUN_STATUS = Shape(RunStatus)
KVM = Shape(KvmInfo)
SCHEMA = Shape(list[SchemaEntity])
PCI = Shape(list[PciBus])

# --- virtio network devices ---------------------------------------------------------------------


class VirtioDevice(QapiPart):
    """VirtioInfo."""

    path: str
    name: str


class DeviceStatus(QapiPart):
    """VirtioDeviceStatus."""

    statuses: tuple[str, ...] = ()


class DeviceFeatures(QapiPart):
    """VirtioDeviceFeatures."""

    transports: tuple[str, ...] = ()
    dev_features: tuple[str, ...] = ()
    unknown_dev_features: Unsigned = 0
    unknown_dev_features2: Unsigned = 0


class Protocols(QapiPart):
    """VhostDeviceProtocols."""

    protocols: tuple[str, ...] = ()
    unknown_protocols: Unsigned = 0


class VhostStatus(QapiPart):
    """VhostStatus; an older QEMU tells nothing in it."""

    features: DeviceFeatures | None = None
    acked_features: DeviceFeatures | None = None
    protocol_features: Protocols | None = None
    nvqs: Count | None = None
    max_queues: Count | None = None
    n_mem_sections: Signed | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        parts = (self.acked_features, self.protocol_features, self.nvqs, self.max_queues)
        if self.features is not None and None in (*parts, self.n_mem_sections):
            raise ValueError("it tells features, and not what belongs to them")
        return self


class VirtioStatus(QapiPart):
    """VirtioStatus."""

    status: DeviceStatus
    guest_features: DeviceFeatures
    host_features: DeviceFeatures | None = None
    num_vqs: Annotated[int, Field(ge=0, le=QUEUE_MAX)]
    isr: Unsigned
    broken: bool
    vhost_started: bool
    vhost_dev: VhostStatus | None = None


class VirtQueueStatus(QapiPart):
    """VirtQueueStatus; where a backend works the queue, QEMU may not know the available index."""

    queue_index: Annotated[int, Field(ge=0, lt=QUEUE_MAX)]
    inuse: Unsigned
    vring_num: Annotated[int, Field(ge=0, le=RING_MAX)]
    vring_desc: Unsigned
    vring_avail: Unsigned
    vring_used: Unsigned
    last_avail_idx: Unsigned | None = None
    shadow_avail_idx: Unsigned | None = None
    used_idx: Unsigned
    signalled_used: Unsigned
    signalled_used_valid: bool


class RxFilter(QapiPart):
    """RxFilterInfo."""

    name: str
    main_mac: str | None = None
    unicast_table: tuple[str, ...] = ()
    multicast_table: tuple[str, ...] = ()
    vlan_table: Annotated[
        tuple[Annotated[int, Field(ge=0, lt=VLANS)], ...], Field(max_length=VLANS)
    ] = ()


DEVICES = Shape(list[VirtioDevice])
STATUS = Shape(VirtioStatus)
QUEUE = Shape(VirtQueueStatus)
KEPT: Mapping[str, Shape[Any]] = {
    "x-query-virtio-status": STATUS,
    "x-query-virtio-queue-status": QUEUE,
    "x-query-virtio-vhost-queue-status": Shape(dict[str, Any]),
    "query-rx-filter": Shape(list[RxFilter]),
}
"""Of answers that are kept as they are, once they have their shape."""
