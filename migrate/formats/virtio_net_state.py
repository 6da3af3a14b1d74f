"""virtio-net's state in a migration stream: an opaque blob for the stream's own description.

Its parts in their order, big-endian (QEMU, names of functions):

1. PCI: version, configuration space, interrupt lines (``vmstate_pci_device``), the MSI-X table and
   its pending bits (``msix_save``), the configuration's vector (``virtio_pci_save_config``);
2. virtio: status to queues (``virtio_save``);
3. the network device (``vmstate_virtio_net_device``), with a subsection if it has RSS;
4. virtio's subsections, each with its name (``vmstate_virtio``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from migrate.errors import MeasurementError
from migrate.formats.byte_reader import ByteReader
from migrate.formats.virtio_features import feature_mask, feature_names

VIRTIO_NET = "virtio-net"
"""QEMU's name of such a device, and the last part of its section's."""
QUEUE_MAX = 1024
"""QEMU's VIRTIO_QUEUE_MAX: so many are in each subsection, used or not."""
SUBSECTION = 0x05
STATUSES = {
    1: "acknowledge",
    2: "driver",
    4: "driver_ok",
    8: "features_ok",
    64: "device_needs_reset",
    128: "failed",
}
"""Bits of the device status by name (virtio 1.3, section 2.1)."""
_PCI_LISTS, _CAPABILITIES, _MSI_X, _EXPRESS = 0x06, 0x34, 0x11, 0x10
_VLANS = 4096 // 8
_LONGEST_CONFIG = 4096
"""Bytes; what there is of it has less than a hundred (virtio 1.3, 5.1.4)."""
_MOST_ADDRESSES = 1024
"""In a MAC filter; QEMU's MAC_TABLE_ENTRIES is 64."""
_GUEST_OFFLOADS = feature_mask(["ctrl_guest_offloads"])


@dataclass(frozen=True, slots=True)
class QueueState:
    """One queue; None: it is not in the stream, or only for rings of the other kind."""

    size: int
    descriptors: int
    last_avail: int
    vector: int | None = None
    available: int | None = None
    used_ring: int | None = None
    avail_wrap: bool | None = None
    """From here on packed rings only: their device keeps these."""
    used: int | None = None
    used_wrap: bool | None = None
    in_flight: int | None = None


@dataclass(frozen=True, slots=True)
class NetState:
    """What QEMU saves of a virtio network device on PCI; addresses are guest-physical."""

    mac: str
    link_up: bool
    promiscuous: bool
    all_multicast: bool
    mac_table: tuple[str, ...]
    vlans: int
    """Identifiers that pass the filter."""
    queue_pairs: int
    """Queue pairs in use: QEMU's curr_queue_pairs."""
    max_queue_pairs: int
    guest_offloads: tuple[str, ...] | None
    """None: without ctrl_guest_offloads they are not in the stream."""
    config: str
    """The configuration space as the guest last read it, in hexadecimal."""
    status: tuple[str, ...] = ()
    interrupt_status: int = 0
    features: tuple[str, ...] = ()
    queues: tuple[QueueState, ...] = ()
    started: bool = False
    broken: bool = False
    subsections: tuple[str, ...] = ()
    unread: str = ""
    """Why not all of it was read; empty: it was, to the last byte."""


@dataclass(slots=True)
class _Decoded:
    """What is decoded so far, which later subsections replace."""

    features: int
    queues: list[QueueState]
    seen: list[str] = field(default_factory=list)
    started: bool = False
    broken: bool = False


def decode_net_state(blob: bytes) -> NetState:
    """Read the blob; MeasurementError with the byte if it can't be one."""
    cursor = ByteReader(blob)
    has_vectors = _pci(cursor)
    status = cursor.number(1, "device status")
    interrupts = cursor.number(1, "interrupt status")
    cursor.skip(2, "selected queue")
    features = cursor.number(4, "features")
    length = cursor.number(4, "length of the configuration")
    if length > _LONGEST_CONFIG:
        raise cursor.damaged(f"a configuration of {length} bytes")
    config = cursor.take(length, "configuration")
    decoded = _Decoded(features, list(_queues(cursor, has_vectors)))
    net = _net(cursor, config, features)
    unread = ""
    try:
        _subsections(cursor, decoded)
    except MeasurementError as error:
        unread = error.said
    packed = "ring_packed" in feature_names(decoded.features)
    return replace(
        net,
        status=tuple(word for bit, word in STATUSES.items() if status & bit),
        interrupt_status=interrupts,
        features=feature_names(decoded.features),
        queues=tuple(queue if packed else _without_packed(queue) for queue in decoded.queues),
        started=decoded.started,
        broken=decoded.broken,
        subsections=tuple(decoded.seen),
        unread=unread,
    )


def _without_packed(queue: QueueState) -> QueueState:
    """A split ring's indices are in the guest's memory; those of a packed one mean nothing."""
    return replace(queue, avail_wrap=None, used=None, used_wrap=None, in_flight=None)


def _pci(cursor: ByteReader) -> bool:
    """Skip the PCI device's part; returns whether it has MSI-X, and so vectors."""
    cursor.skip(4, "version of the PCI device")
    begin = cursor.skip(256, "PCI configuration space")
    space = cursor.data[begin : cursor.at]
    capabilities = dict(_capabilities(space))
    if _EXPRESS in capabilities:
        cursor.skip(4096 - 256, "extended configuration space")
    cursor.skip(16, "interrupt lines")
    at = capabilities.get(_MSI_X)
    if at is None:
        return False
    entries = (int.from_bytes(space[at + 2 : at + 4], "little") & 0x7FF) + 1
    cursor.skip(16 * entries + (entries + 7) // 8, "MSI-X table")
    cursor.skip(2, "vector of the configuration")
    return True


def _capabilities(space: bytes) -> Iterator[tuple[int, int]]:
    """The list of capabilities of a PCI device: what, and where (PCI 3.0, section 6.7)."""
    at = space[_CAPABILITIES] if space[_PCI_LISTS] & 0x10 else 0
    for _ in range(48):  # so many fit; a list that loops ends here, too
        if not 0x40 <= at <= 0xFC:
            return
        yield space[at], at
        at = space[at + 1]


def _queues(cursor: ByteReader, has_vectors: bool) -> Iterator[QueueState]:
    count = cursor.number(4, "number of queues")
    if count > QUEUE_MAX:
        raise cursor.damaged(f"{count} queues")
    for number in range(count):
        what = f"queue {number}"
        yield QueueState(
            size=cursor.number(4, what),
            descriptors=cursor.number(8, what),
            last_avail=cursor.number(2, what),
            vector=cursor.number(2, what) if has_vectors else None,
        )


# --- the network device ------------------------------------------------------------------------


def _net(cursor: ByteReader, config: bytes, features: int) -> NetState:
    mac = cursor.take(6, "MAC address")
    cursor.skip(4 + 4, "tx_waiting, mergeable_rx_bufs")
    status = cursor.number(2, "link status")
    promiscuous, all_multicast = (cursor.number(1, "receive filter") for _ in range(2))
    in_use = cursor.number(4, "MAC table")
    if in_use > _MOST_ADDRESSES:
        raise cursor.damaged(f"a filter of {in_use} addresses")
    table = cursor.take(6 * in_use, "MAC table")
    vlans = cursor.take(_VLANS, "VLAN filter")
    cursor.skip(4 + 2 + 4 + 1, "vnet header, filter, UFO")
    # Of several pairs the guest read the most there may be; of one, or none read, nothing is saved.
    most = int.from_bytes(config[8:10], "little") if len(config) >= 10 else 1
    pairs = 1
    if most > 1:
        most = cursor.number(2, "max_queue_pairs")
        pairs = cursor.number(2, "curr_queue_pairs")
        cursor.skip(4 * max(0, pairs - 1), "tx_waiting")
    offloads = None
    if features & _GUEST_OFFLOADS:
        offloads = feature_names(cursor.number(8, "guest offloads"))
    return NetState(
        mac=mac.hex(":"),
        link_up=bool(status & 1),
        promiscuous=bool(promiscuous),
        all_multicast=bool(all_multicast),
        mac_table=tuple(table[at : at + 6].hex(":") for at in range(0, len(table), 6)),
        vlans=sum(byte.bit_count() for byte in vlans),
        queue_pairs=pairs,
        max_queue_pairs=max(most, 1),
        guest_offloads=offloads,
        config=config.hex(),
    )


# --- subsections -------------------------------------------------------------------------------


def _subsections(cursor: ByteReader, decoded: _Decoded) -> None:
    while cursor.at < cursor.end:
        kind = cursor.number(1, "a subsection")
        if kind != SUBSECTION:
            raise cursor.damaged(f"no subsection, but 0x{kind:02x}")
        name = cursor.name("a subsection's name")
        if name in decoded.seen:
            raise cursor.damaged(f"subsection {name!r} comes twice")
        cursor.skip(4, "a subsection's version")
        _subsection(cursor, decoded, name)
        decoded.seen.append(name)


def _subsection(cursor: ByteReader, decoded: _Decoded, name: str) -> None:
    if name == "virtio/64bit_features":
        decoded.features = cursor.number(8, name)
    elif name == "virtio/128bit_features":
        decoded.features |= cursor.number(8, name) << 64
    elif name == "virtio/virtqueues":
        _each_queue(cursor, decoded, name, 16, _rings)
    elif name == "virtio/packed_virtqueues":
        _each_queue(cursor, decoded, name, 10, _packed)
    elif name in ("virtio/started", "virtio/broken"):
        setattr(decoded, name.partition("/")[2], bool(cursor.number(1, name)))
    elif name == "virtio-net-device/rss":
        cursor.skip(3 + 4, name)
        cursor.skip(2 * (cursor.number(2, name)) + 2 + 40, name)
    elif name in SIZES:
        cursor.skip(SIZES[name], name)
    else:
        raise cursor.damaged(f"subsection {name!r} is not known: what follows was not read")


SIZES = {
    "virtio/device_endian": 1,
    "virtio/disabled": 1,
    "virtio/ringsize": 4 * QUEUE_MAX,
    "virtio/extra_state": 0,  # what follows is a subsection of its own
    "virtio_pci/modern_state": 4 + 4 + 8 + 28 * QUEUE_MAX,
    "virtio_pci/modern_state/features128": 8,
}
"""Bytes of subsections that are skipped: known from elsewhere, or not needed."""


_Fill = Callable[[ByteReader, QueueState], QueueState]


def _each_queue(cursor: ByteReader, decoded: _Decoded, name: str, size: int, fill: _Fill) -> None:
    part = ByteReader(cursor.data, cursor.skip(size * QUEUE_MAX, name), cursor.at)
    decoded.queues = [fill(part, queue) for queue in decoded.queues]


def _rings(cursor: ByteReader, queue: QueueState) -> QueueState:
    what = "addresses of the rings"
    return replace(queue, available=cursor.number(8, what), used_ring=cursor.number(8, what))


def _packed(cursor: ByteReader, queue: QueueState) -> QueueState:
    what = "indices of packed rings"
    return replace(
        queue,
        last_avail=cursor.number(2, what),
        avail_wrap=bool(cursor.number(1, what)),
        used=cursor.number(2, what),
        used_wrap=bool(cursor.number(1, what)),
        in_flight=cursor.number(4, what),
    )
