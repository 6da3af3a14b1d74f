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
NEXT, INDIRECT = 1, 4
AVAIL, USED = 1 << 7, 1 << 15
DESCRIPTOR_BYTES = 16
"""Bytes of a descriptor, of either kind."""
LARGEST_TABLE = DESCRIPTOR_BYTES << 15
"""Bytes: as many entries as the largest queue has (2.7, 2.8); a larger one is left unread."""

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
    tables: list[tuple[int, int]] = field(default_factory=list)
    """Indirect tables of waiting buffers that were not captured: address and length."""
    tables_read: int = 0


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
    return not ring.ranges or any(
        begin <= address and address + length <= end for begin, end in ring.ranges
    )


def check_in_flight(ring: Ring, flying: int, result: Audit) -> None:
    """The device's count of buffers in flight is what its indices say."""
    if ring.in_flight is not None and ring.in_flight != flying:
        result.broken.append(
            f"in flight: the device counts {ring.in_flight}, its indices say {flying} (2.7.8)"
        )


def check_place(ring: Ring, entry: Descriptor, what: str, result: Audit) -> None:
    """A descriptor's buffer lies in the guest's memory."""
    if not in_memory(ring, entry.address, entry.length):
        result.broken.append(
            f"memory: {what} is {entry.length} bytes at {entry.address:#x}, outside of the guest's "
            "memory (2.7.5)"
        )


def check_buffer(ring: Ring, entry: Descriptor, what: str, result: Audit) -> None:
    """A buffer lies in memory, and so does what its indirect table lists."""
    check_place(ring, entry, what, result)
    if not entry.flags & INDIRECT:
        return
    if not ring.indirect:
        result.broken.append(f"indirect: {what} is an indirect table, not negotiated (2.7.5.3)")
    if entry.flags & NEXT:
        section = "2.7.5.3.1" if ring.kind == "split" else "2.8.19"
        result.broken.append(f"indirect: {what} is a table and goes on ({section})")
    if not entry.length or entry.length % DESCRIPTOR_BYTES:
        result.broken.append(f"indirect: the table of {what} has {entry.length} bytes (2.7.5.3)")
        return
    table = ring.memory.get(entry.address, b"")[: entry.length]
    if len(table) < entry.length:
        result.tables.append((entry.address, entry.length))
        return
    result.tables_read += 1
    if ring.kind == "split":
        _split_table(ring, parse_table(ring, table), what, result)
    else:  # all of it, one after the other (2.8.7)
        for index, nested in enumerate(parse_table(ring, table)):
            _in_table(ring, nested, f"entry {index} of the table of {what}", result)


def _split_table(ring: Ring, table: list[Descriptor], what: str, result: Audit) -> None:
    """The table of a split queue is a chain that begins with its first entry (2.7.5.3)."""
    index, passed = 0, set[int]()
    while True:
        passed.add(index)
        _in_table(ring, table[index], f"entry {index} of the table of {what}", result)
        if not table[index].flags & NEXT:
            return
        index = table[index].other
        if index >= len(table):
            result.broken.append(
                f"indirect: {index} is no entry of the {len(table)} of {what} (2.7.5.3)"
            )
            return
        if index in passed:
            result.broken.append(f"indirect: the table of {what} loops (2.7.5.3.1)")
            return


def _in_table(ring: Ring, entry: Descriptor, what: str, result: Audit) -> None:
    if entry.flags & INDIRECT:
        section = "2.7.5.3.1" if ring.kind == "split" else "2.8.19"
        result.broken.append(f"indirect: {what} is a table, too ({section})")
    else:
        check_place(ring, entry, what, result)
