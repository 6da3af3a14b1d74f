"""Virtqueues as they lie in a guest's memory: their descriptors, and the rules both kinds share.

Split queues: virtio 1.3, section 2.7; packed ones: 2.8. All numbers in them are little-endian. The
device's own indices are those that QEMU reports (x-query-virtio-queue-status): of a split queue
they count up and wrap at 65536, of a packed one they are places in the ring.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

INDICES = 1 << 16
_ADDRESSES = 1 << 64
NEXT, WRITE, INDIRECT = 1, 2, 4
AVAIL, USED = 1 << 7, 1 << 15
DESCRIPTOR_BYTES = 16
"""Bytes of a descriptor, of either kind."""
LARGEST_QUEUE = 1 << 15
"""Entries, of either kind (2.7, 2.8)."""
MOST_SENTENCES = 5
"""On each rule that a ring breaks; how often it is broken beyond that is counted."""

Memory = Mapping[int, bytes]
"""What was captured of the guest's memory, by its physical address."""


@dataclass(frozen=True, slots=True)
class Ring:
    """One queue: where it lies, what the device knows of it, and what was captured."""

    kind: Literal["split", "packed"]
    size: int
    descriptors: int
    driver: int
    """Address of the available ring, or of the driver's event suppression."""
    device: int
    """Address of the used ring, or of the device's event suppression."""
    last_avail: int
    used: int
    memory: Memory
    shadow_avail: int | None = None
    in_flight: int | None = None
    event_idx: bool = False
    indirect: bool = False
    in_order: bool = False
    """IN_ORDER was negotiated: one used element may stand for a batch of buffers (2.7.9, 2.8.8)."""
    ordered: bool = False
    """The device is known to return buffers in the order in which it took them."""
    ranges: tuple[tuple[int, int], ...] = ()
    """Begin and end of the guest's memory; empty: its map is not known."""
    indices_known: bool = True
    """QEMU reported the device's indices; it can't while a backend still works the queue."""


@dataclass(slots=True)
class Audit:
    """What an audit found: ``broken`` and ``unchecked`` are sentences, ``facts`` values by name."""

    broken: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    tables: dict[tuple[int, int], None] = field(default_factory=dict)
    """Indirect tables of buffers that were not captured: address and length."""
    tables_read: int = 0
    breaches: dict[str, int] = field(default_factory=dict, compare=False)
    """How often each rule was broken."""

    def breaks(self, rule: str, said: str, section: str) -> None:
        """Note that ``rule`` is broken; a ring of garbage breaks one as often as it has entries."""
        self.breaches[rule] = self.breaches.get(rule, 0) + 1
        if self.breaches[rule] <= MOST_SENTENCES:
            self.broken.append(f"{rule}: {said} ({section})")

    def take(self, found: Audit) -> None:
        """What another audit of the same ring found, too."""
        self.broken += found.broken
        self.unchecked += found.unchecked
        self.facts |= found.facts
        self.tables |= found.tables
        self.tables_read += found.tables_read
        for rule, number in found.breaches.items():
            self.breaches[rule] = self.breaches.get(rule, 0) + number

    def count_the_rest(self) -> None:
        """A sentence for each rule that was broken more often than there are sentences of it."""
        for rule, number in self.breaches.items():
            if number > MOST_SENTENCES:
                self.broken.append(f"{rule}: and {number - MOST_SENTENCES} more of this kind")


class Descriptor(NamedTuple):
    """A descriptor; ``other`` is the next one's index (split), or the buffer's id (packed)."""

    address: int
    length: int
    flags: int
    other: int


def regions(ring: Ring) -> tuple[tuple[int, int], ...]:
    """Address and length of what has to be captured for an audit."""
    if ring.kind == "packed":
        return (
            (ring.descriptors, DESCRIPTOR_BYTES * ring.size),
            (ring.driver, 4),
            (ring.device, 4),
        )
    return (
        (ring.descriptors, DESCRIPTOR_BYTES * ring.size),
        (ring.driver, 6 + 2 * ring.size),
        (ring.device, 6 + 8 * ring.size),
    )


def descriptors(ring: Ring) -> list[Descriptor]:
    """All descriptors of a ring that was captured."""
    return parse_table(ring, ring.memory[ring.descriptors][: DESCRIPTOR_BYTES * ring.size])


def parse_table(ring: Ring, table: bytes) -> list[Descriptor]:
    """The descriptors in ``table``, laid out as the ring's kind is."""
    rows = struct.iter_unpack("<QIHH", table)
    if ring.kind == "split":
        return [Descriptor(*row) for row in rows]
    return [Descriptor(address, length, flags, id_) for address, length, id_, flags in rows]


def in_memory(ring: Ring, address: int, length: int) -> bool:
    """Whether a range lies in the guest's memory, as far as its map is known."""
    if not ring.ranges:
        return address + length <= _ADDRESSES
    return any(begin <= address and address + length <= end for begin, end in ring.ranges)
