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
NEXT, INDIRECT = 1, 4
AVAIL, USED = 1 << 7, 1 << 15
_ENTRY = 16
"""Bytes of a descriptor, of either kind."""
_LARGEST_TABLE = _ENTRY << 15
"""Bytes: as many entries as the largest queue has (2.7, 2.8); a larger one is left unread."""
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
    told: bool = True
    """QEMU told the device's indices; it can't while a backend still works the queue."""


@dataclass(slots=True)
class Audit:
    """``broken`` and ``unchecked`` are sentences, ``facts`` what the queue says by name."""

    broken: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    tables: list[tuple[int, int]] = field(default_factory=list)
    """Indirect tables of waiting buffers that were not captured: address and length."""
    tables_read: int = 0


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


def tables(ring: Ring) -> tuple[tuple[int, int], ...]:
    """Address and length of the indirect tables that an audit misses in ``memory``, to be captured
    in a second round: only the queue itself says where they are."""
    return tuple(
        (address, length)
        for address, length in dict.fromkeys(audit(ring).tables)
        if length <= _LARGEST_TABLE and _inside(ring, address, length)
    )


def audit(ring: Ring) -> Audit:
    """Decode a queue and hold it against the rules of its kind; one of size 0 is not set up."""
    found = Audit()
    if not ring.size:
        found.unchecked.append("the driver did not set this queue up")
        return found
    if not ring.told:
        found.unchecked.append("the device's indices: a backend still worked the queue")
        return found
    missing = [
        f"{length} bytes at {address:#x}"
        for address, length in regions(ring)
        if len(ring.memory.get(address, b"")) < length
    ]
    if missing:
        found.unchecked.append(f"not captured: {', '.join(missing)}")
        return found
    if not ring.ranges:
        found.unchecked.append("buffers' places: the guest's memory map is not known")
    if ring.kind == "split":
        _split(ring, found)
    else:
        _packed(ring, found)
    if found.tables_read:
        found.facts["indirect tables"] = str(found.tables_read)
    if found.tables:
        address, length = found.tables[0]
        found.unchecked.append(
            f"indirect: {len(found.tables)} tables were not captured, the first one of {length} "
            f"bytes at {address:#x}"
        )
    return found


def _entries(ring: Ring) -> list[Entry]:
    return _parsed(ring, ring.memory[ring.descriptors][: _ENTRY * ring.size])


def _parsed(ring: Ring, table: bytes) -> list[Entry]:
    rows = struct.iter_unpack("<QIHH", table)
    if ring.kind == "split":
        return [Entry(*row) for row in rows]
    return [Entry(address, length, flags, id_) for address, length, id_, flags in rows]


def _inside(ring: Ring, address: int, length: int) -> bool:
    """Whether it lies in the guest's memory, as far as its map is known."""
    return not ring.ranges or any(
        begin <= address and address + length <= end for begin, end in ring.ranges
    )


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
    out = (avail - ring.used) % INDICES
    if waiting <= size and flying <= size < out:
        found.broken.append(
            f"used: {out} buffers are out (index {avail}, used {ring.used}) in a queue of {size} "
            "(2.7.5)"
        )
    _flight(ring, flying, found)
    if out <= size:
        taken = [heads[(ring.used + n) % size] for n in range(flying)]
        if wrong := [head for head in taken if head >= size]:
            found.broken.append(f"head: {wrong[0]}, taken, is no descriptor of {size} (2.7.6)")
    _used_ids(ring, device, used, found)
    if used != ring.used:
        found.broken.append(f"used: memory says {used}, the device {ring.used} (2.7.8)")
    if waiting <= size:
        wanted = [heads[(ring.last_avail + n) % size] for n in range(waiting)]
        _heads(ring, wanted, found)


def _used_ids(ring: Ring, device: bytes, used: int, found: Audit) -> None:
    """What was never written is left out; of an index below the size that is all that follows."""
    ids = [id_ for id_, _ in struct.iter_unpack("<2I", device[4 : 4 + 8 * min(used, ring.size)])]
    if wrong := [id_ for id_ in ids if id_ >= ring.size]:
        found.broken.append(f"used: {wrong[0]} is no descriptor of {ring.size} (2.7.8)")


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
    (avail,), (used,) = (struct.unpack_from("<H", area, 2) for area in (driver, device))
    return {
        "interrupt at used": _reach(used_event, used, ring.size),
        "notification at available": _reach(avail_event, avail, ring.size),
    }


def _reach(event: int, index: int, size: int) -> str:
    """No rule: who polls may leave an old index there (2.7.7.1, 2.7.10.2: "MAY use")."""
    return str(event) if (event - index) % INDICES < size else f"{event}, not within reach"


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


def _placed(ring: Ring, entry: Entry, what: str, found: Audit) -> None:
    if not _inside(ring, entry.address, entry.length):
        found.broken.append(
            f"memory: {what} is {entry.length} bytes at {entry.address:#x}, outside of the guest's "
            "memory (2.7.5)"
        )


def _buffer(ring: Ring, entry: Entry, what: str, found: Audit) -> None:
    _placed(ring, entry, what, found)
    if not entry.flags & INDIRECT:
        return
    if not ring.indirect:
        found.broken.append(f"indirect: {what} is an indirect table, not negotiated (2.7.5.3)")
    if entry.flags & NEXT:
        section = "2.7.5.3.1" if ring.kind == "split" else "2.8.19"
        found.broken.append(f"indirect: {what} is a table and goes on ({section})")
    if not entry.length or entry.length % _ENTRY:
        found.broken.append(f"indirect: the table of {what} has {entry.length} bytes (2.7.5.3)")
        return
    table = ring.memory.get(entry.address, b"")[: entry.length]
    if len(table) < entry.length:
        found.tables.append((entry.address, entry.length))
        return
    found.tables_read += 1
    if ring.kind == "split":
        _split_table(ring, _parsed(ring, table), what, found)
    else:  # all of it, one after the other (2.8.7)
        for index, one in enumerate(_parsed(ring, table)):
            _in_table(ring, one, f"entry {index} of the table of {what}", found)


def _split_table(ring: Ring, table: list[Entry], what: str, found: Audit) -> None:
    """A chain that begins with the first (2.7.5.3)."""
    index, passed = 0, set[int]()
    while True:
        passed.add(index)
        _in_table(ring, table[index], f"entry {index} of the table of {what}", found)
        if not table[index].flags & NEXT:
            return
        index = table[index].other
        if index >= len(table):
            found.broken.append(
                f"indirect: {index} is no entry of the {len(table)} of {what} (2.7.5.3)"
            )
            return
        if index in passed:
            found.broken.append(f"indirect: the table of {what} loops (2.7.5.3.1)")
            return


def _in_table(ring: Ring, entry: Entry, what: str, found: Audit) -> None:
    if entry.flags & INDIRECT:
        section = "2.7.5.3.1" if ring.kind == "split" else "2.8.19"
        found.broken.append(f"indirect: {what} is a table, too ({section})")
    else:
        _placed(ring, entry, what, found)


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
    unsure = ring.in_flight is None and len(waiting) == ring.size
    found.facts |= {"taken": str(ring.last_avail), "used": str(ring.used)}
    found.facts["wrap counter"] = "not known" if unsure else str(int(wrap))
    found.facts["available"] = str(len(waiting))
    if unsure:
        found.unchecked.append(
            "wrap counter: all is marked available, and nobody tells whether it is in flight"
        )
    for name, place in (("interrupts", ring.driver), ("notifications", ring.device)):
        found.facts[name] = _packed_event(ring, name, ring.memory[place], found)
    _flight(ring, flying, found)
    if flying + len(waiting) > ring.size:
        found.broken.append(
            f"available: {len(waiting)} descriptors wait and {flying} are in flight in a ring of "
            f"{ring.size} (2.8.16)"
        )
    _taken_marks(ring, entries, wrap, waiting, found)
    _flying_marks(ring, entries, flying, found)
    _ids(ring, entries, [] if unsure else waiting, found)
    for place in waiting:
        _buffer(ring, entries[place], f"descriptor {place}", found)
    if waiting and entries[waiting[-1]].flags & NEXT:
        found.broken.append(
            f"chain: descriptor {waiting[-1]} goes on, and what follows is not available (2.8.17)"
        )


def _taken_marks(
    ring: Ring, entries: list[Entry], wrap: bool, waiting: list[int], found: Audit
) -> None:
    for place in set(range(ring.last_avail)) - set(waiting):
        if bool(entries[place].flags & AVAIL) != wrap:
            found.broken.append(
                f"flags: descriptor {place} was taken in this lap and is marked for the one "
                f"before (wrap counter {int(wrap)}, 2.8.1)"
            )
            return


def _flying_marks(ring: Ring, entries: list[Entry], flying: int, found: Audit) -> None:
    for step in range(flying):
        place = (ring.used + step) % ring.size
        if bool(entries[place].flags & AVAIL) == bool(entries[place].flags & USED):
            found.broken.append(f"flags: descriptor {place} is in flight and marked used (2.8.1)")
            return


def _ids(ring: Ring, entries: list[Entry], waiting: list[int], found: Audit) -> None:
    """A buffer's id is in its last descriptor; that of the others is not read (2.8.6)."""
    ids = set[int]()
    for place in waiting:
        entry = entries[place]
        if entry.flags & NEXT:
            continue
        if entry.other >= ring.size:
            found.broken.append(f"id: descriptor {place} has id {entry.other} (2.8.6)")
        if entry.other in ids:
            found.broken.append(f"id: {entry.other} is available twice, at {place} too (2.8)")
        ids.add(entry.other)


def _wrap(ring: Ring, entries: list[Entry]) -> bool:
    """The device's wrap counter, which QEMU does not tell: read from the marks around its place.

    A descriptor whose two marks are equal was used in the lap before. One whose marks differ is
    available in this lap, or the tail of a chain of the lap before; nothing is available then, and
    the place before it still has this lap's mark. It has not if the whole ring is available, and
    then nothing is in flight: with something in flight it only looks so.
    """
    here = entries[ring.last_avail].flags
    mark = bool(here & AVAIL)
    if mark == bool(here & USED):
        return not mark
    if len(list(_waiting(ring, entries, mark))) == ring.size:
        return mark if not ring.in_flight else not mark
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


def _packed_event(ring: Ring, name: str, suppression: bytes, found: Audit) -> str:
    place, flags = struct.unpack_from("<2H", suppression)
    offset, wrap = place & 0x7FFF, place >> 15
    told = _PACKED_EVENTS[flags & 3]
    if flags & 3 == 3:
        found.broken.append(f"event: the flags of {name} are 3, which is reserved (2.8.10)")
    if flags & 3 != 2:
        return told
    if not ring.event_idx:
        found.broken.append(f"event: {name} at a descriptor were not negotiated (2.8.10)")
    if offset >= ring.size:
        found.broken.append(f"event: {name} at descriptor {offset} of {ring.size} (2.8.10)")
    return f"{told} {offset} of wrap {wrap}"
