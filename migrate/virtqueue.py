"""Virtqueues as they lie in a guest's memory: what they say, and which rules they break.

Split queues: virtio 1.3, section 2.7; packed ones: 2.8. All numbers in them are little-endian. The
device's own indices are those that QEMU tells (x-query-virtio-queue-status): of a split queue they
count up and wrap at 65536, of a packed one they are places in the ring.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

INDICES = 1 << 16
NEXT, WRITE, INDIRECT = 1, 2, 4
AVAIL, USED = 1 << 7, 1 << 15
_ENTRY = 16
"""Bytes of a descriptor, of either kind."""
_PACKED_EVENTS = ("enabled", "disabled", "at a descriptor", "reserved")

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


@dataclass(slots=True)
class Audit:
    """``broken`` and ``unchecked`` are sentences, ``facts`` what the queue says by name."""

    broken: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)


class Entry(NamedTuple):
    """A descriptor; ``other`` is the next one's index (split), or the buffer's id (packed)."""

    address: int
    length: int
    flags: int
    other: int


def regions(ring: Ring) -> tuple[tuple[int, int], ...]:
    """Address and length of what has to be captured for an audit."""
    if ring.kind == "packed":
        return ((ring.descriptors, _ENTRY * ring.size), (ring.driver, 4), (ring.device, 4))
    return (
        (ring.descriptors, _ENTRY * ring.size),
        (ring.driver, 6 + 2 * ring.size),
        (ring.device, 6 + 8 * ring.size),
    )


def audit(ring: Ring) -> Audit:
    """Decode a queue and hold it against the rules of its kind; one of size 0 is not set up."""
    found = Audit()
    if not ring.size:
        found.unchecked.append("the driver did not set this queue up")
        return found
    missing = [
        f"{length} bytes at {address:#x}"
        for address, length in regions(ring)
        if len(ring.memory.get(address, b"")) < length
    ]
    if missing:
        found.unchecked.append(f"not captured: {', '.join(missing)}")
    elif ring.kind == "split":
        _split(ring, found)
    else:
        _packed(ring, found)
    return found


def _entries(ring: Ring) -> list[Entry]:
    if ring.kind == "split":
        rows = struct.iter_unpack("<QIHH", ring.memory[ring.descriptors][: _ENTRY * ring.size])
        return [Entry(*row) for row in rows]
    packed = struct.iter_unpack("<QIHH", ring.memory[ring.descriptors][: _ENTRY * ring.size])
    return [Entry(address, length, flags, id_) for address, length, id_, flags in packed]


# --- split --------------------------------------------------------------------------------------


def _split(ring: Ring, found: Audit) -> None:
    size = ring.size
    driver, device = ring.memory[ring.driver], ring.memory[ring.device]
    flags, avail, *heads = struct.unpack_from(f"<{2 + size}H", driver)
    used_flags, used = struct.unpack_from("<2H", device)
    waiting = (avail - ring.last_avail) % INDICES
    flying = (ring.last_avail - ring.used) % INDICES
    found.facts |= {"available": str(avail), "taken": str(ring.last_avail), "used": str(used)}
    found.facts |= _suppression(ring, driver, device, flags, used_flags)
    if waiting > size:
        found.broken.append(
            f"available: {waiting} buffers wait (index {avail}, taken {ring.last_avail}) in a "
            f"queue of {size} (2.7.6)"
        )
    if ring.shadow_avail is not None and (ring.shadow_avail - ring.last_avail) % INDICES > waiting:
        found.broken.append(
            f"available: the device saw index {ring.shadow_avail}, the driver is at {avail} and "
            f"{ring.last_avail} were taken (2.7.6)"
        )
    if flying > size:
        found.broken.append(
            f"used: {flying} buffers are in flight (taken {ring.last_avail}, used {ring.used}) in "
            f"a queue of {size} (2.7.8)"
        )
    _flight(ring, flying, found)
    if used != ring.used:
        found.broken.append(f"used: memory says {used}, the device {ring.used} (2.7.8)")
    if waiting <= size:
        wanted = [heads[(ring.last_avail + n) % size] for n in range(waiting)]
        _heads(ring, wanted, found)


def _flight(ring: Ring, flying: int, found: Audit) -> None:
    if ring.in_flight is not None and ring.in_flight != flying:
        found.broken.append(
            f"in flight: the device counts {ring.in_flight}, its indices say {flying} (2.7.8)"
        )


def _suppression(
    ring: Ring, driver: bytes, device: bytes, flags: int, used_flags: int
) -> dict[str, str]:
    """Notifications that are wanted: a flag, or an index that is waited for (2.7.7, 2.7.10)."""
    if not ring.event_idx:
        told = ("wanted", "not wanted")
        return {"interrupts": told[flags & 1], "notifications": told[used_flags & 1]}
    (used_event,) = struct.unpack_from("<H", driver, 4 + 2 * ring.size)
    (avail_event,) = struct.unpack_from("<H", device, 4 + 8 * ring.size)
    return {"interrupt at used": str(used_event), "notification at available": str(avail_event)}


def _heads(ring: Ring, heads: list[int], found: Audit) -> None:
    if wrong := [head for head in heads if head >= ring.size]:
        found.broken.append(f"head: {wrong[0]} is no descriptor of {ring.size} (2.7.6)")
        return
    if len(set(heads)) < len(heads):
        twice = next(head for head in heads if heads.count(head) > 1)
        found.broken.append(f"head: {twice} is available twice (2.7.13)")
    entries = _entries(ring)
    owners: dict[int, int] = {}
    for head in dict.fromkeys(heads):
        for index in _chain(ring, entries, head, found):
            if owners.setdefault(index, head) != head:
                found.broken.append(f"chain: descriptor {index} is in two chains (2.7.5)")
            _buffer(ring, entries[index], f"descriptor {index}", found)


def _chain(ring: Ring, entries: list[Entry], head: int, found: Audit) -> Iterator[int]:
    index, passed = head, set[int]()
    while True:
        passed.add(index)
        yield index
        if not entries[index].flags & NEXT:
            return
        index = entries[index].other
        if index >= ring.size:
            found.broken.append(f"chain: {index} is no descriptor of {ring.size} (2.7.5)")
            return
        if index in passed:
            found.broken.append(f"chain: the one that begins at {head} loops (2.7.5.1)")
            return


def _buffer(ring: Ring, entry: Entry, what: str, found: Audit) -> None:
    if ring.ranges and not any(
        begin <= entry.address and entry.address + entry.length <= end for begin, end in ring.ranges
    ):
        found.broken.append(
            f"memory: {what} is {entry.length} bytes at {entry.address:#x}, outside of the guest's "
            "memory (2.7.5)"
        )
    if not entry.flags & INDIRECT:
        return
    if not ring.indirect:
        found.broken.append(f"indirect: {what} is an indirect table, not negotiated (2.7.5.3)")
    if not entry.length or entry.length % _ENTRY:
        found.broken.append(f"indirect: the table of {what} has {entry.length} bytes (2.7.5.3)")
    if ring.kind == "split" and entry.flags & NEXT:
        found.broken.append(f"indirect: {what} is a table and goes on (2.7.5.3.1)")


# --- packed -------------------------------------------------------------------------------------


def _packed(ring: Ring, found: Audit) -> None:
    entries = _entries(ring)
    if not (0 <= ring.last_avail < ring.size and 0 <= ring.used < ring.size):
        found.broken.append(
            f"place: taken {ring.last_avail}, used {ring.used} in a ring of {ring.size} (2.8.1)"
        )
        return
    wrap = _wrap(ring, entries)
    flying = (ring.last_avail - ring.used) % ring.size
    if not flying and ring.in_flight == ring.size:
        flying = ring.size
    waiting = list(_waiting(ring, entries, wrap))
    found.facts |= {"taken": str(ring.last_avail), "used": str(ring.used)}
    found.facts |= {"wrap counter": str(int(wrap)), "available": str(len(waiting))}
    found.facts["interrupts"] = _packed_event(ring.memory[ring.driver])
    found.facts["notifications"] = _packed_event(ring.memory[ring.device])
    _flight(ring, flying, found)
    for place in set(range(ring.last_avail)) - set(waiting):
        if bool(entries[place].flags & AVAIL) != wrap:
            found.broken.append(
                f"flags: descriptor {place} was taken in this lap and is marked for the one "
                f"before (wrap counter {int(wrap)}, 2.8.1)"
            )
            break
    for step in range(flying):
        place = (ring.used + step) % ring.size
        if bool(entries[place].flags & AVAIL) == bool(entries[place].flags & USED):
            found.broken.append(f"flags: descriptor {place} is in flight and marked used (2.8.1)")
            break
    for place in waiting:
        entry = entries[place]
        _buffer(ring, entry, f"descriptor {place}", found)
        if entry.other >= ring.size:
            found.broken.append(f"id: descriptor {place} has id {entry.other} (2.8.6)")
    if len(waiting) == ring.size and all(entries[place].flags & NEXT for place in waiting):
        found.broken.append("chain: no descriptor of the whole ring ends one (2.8.6)")


def _wrap(ring: Ring, entries: list[Entry]) -> bool:
    """The device's wrap counter, which QEMU does not tell: read from the marks around its place.

    A descriptor whose two marks are equal was used in the lap before. One whose marks differ is
    available in this lap, or the tail of a chain of the lap before; nothing is available then, and
    the place before it still has this lap's mark. It has not if the driver owns the whole ring.
    """
    here = entries[ring.last_avail].flags
    mark = bool(here & AVAIL)
    if mark == bool(here & USED):
        return not mark
    if len(list(_waiting(ring, entries, mark))) == ring.size:
        return mark if ring.in_flight != ring.size else not mark
    before = bool(entries[ring.last_avail - 1].flags & AVAIL)
    return before if ring.last_avail else not before


def _waiting(ring: Ring, entries: list[Entry], wrap: bool) -> Iterator[int]:
    """Places that the driver has made available, from the next one on, over the lap's end."""
    for step in range(ring.size):
        place = ring.last_avail + step
        turn = wrap if place < ring.size else not wrap
        place %= ring.size
        flags = entries[place].flags
        if bool(flags & AVAIL) != turn or bool(flags & USED) == turn:
            return
        yield place


def _packed_event(suppression: bytes) -> str:
    place, flags = struct.unpack_from("<2H", suppression)
    told = _PACKED_EVENTS[flags & 3]
    at = f" {place & 0x7FFF} of wrap {place >> 15}" if flags & 3 == 2 else ""
    return f"{told}{at}"
