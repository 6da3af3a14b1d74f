"""Packed virtqueues (virtio 1.3, section 2.8): what they say, and which rules they break."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from migrate.formats.virtqueue import (
    AVAIL,
    NEXT,
    USED,
    Audit,
    Descriptor,
    Ring,
    check_buffer,
    check_in_flight,
    descriptors,
)

_PACKED_EVENTS = ("enabled", "disabled", "at a descriptor", "reserved")


def check_packed(ring: Ring, result: Audit) -> None:
    """Hold a captured packed queue against its rules; adds to ``result``."""
    entries = descriptors(ring)
    if not (0 <= ring.last_avail < ring.size and 0 <= ring.used < ring.size):
        result.broken.append(
            f"place: taken {ring.last_avail}, used {ring.used} in a ring of {ring.size} (2.8.1)"
        )
        return
    wrap = _wrap(ring, entries)
    flying = (ring.last_avail - ring.used) % ring.size
    if not flying and ring.in_flight == ring.size:
        flying = ring.size
    waiting = list(_waiting(ring, entries, wrap))
    unsure = ring.in_flight is None and len(waiting) == ring.size
    result.facts |= {"taken": str(ring.last_avail), "used": str(ring.used)}
    result.facts["wrap counter"] = "not known" if unsure else str(int(wrap))
    result.facts["available"] = str(len(waiting))
    if unsure:
        result.unchecked.append(
            "wrap counter: all is marked available, and nobody tells whether it is in flight"
        )
    for name, place in (("interrupts", ring.driver), ("notifications", ring.device)):
        result.facts[name] = _packed_event(ring, name, ring.memory[place], result)
    check_in_flight(ring, flying, result)
    if flying + len(waiting) > ring.size:
        result.broken.append(
            f"available: {len(waiting)} descriptors wait and {flying} are in flight in a ring of "
            f"{ring.size} (2.8.16)"
        )
    _taken_marks(ring, entries, wrap, waiting, result)
    _flying_marks(ring, entries, flying, result)
    _ids(ring, entries, [] if unsure else waiting, result)
    for place in waiting:
        check_buffer(ring, entries[place], f"descriptor {place}", result)
    if waiting and entries[waiting[-1]].flags & NEXT:
        result.broken.append(
            f"chain: descriptor {waiting[-1]} goes on, and what follows is not available (2.8.17)"
        )


def _taken_marks(
    ring: Ring, entries: list[Descriptor], wrap: bool, waiting: list[int], result: Audit
) -> None:
    for place in set(range(ring.last_avail)) - set(waiting):
        if bool(entries[place].flags & AVAIL) != wrap:
            result.broken.append(
                f"flags: descriptor {place} was taken in this lap and is marked for the one "
                f"before (wrap counter {int(wrap)}, 2.8.1)"
            )
            return


def _flying_marks(ring: Ring, entries: list[Descriptor], flying: int, result: Audit) -> None:
    for step in range(flying):
        place = (ring.used + step) % ring.size
        if bool(entries[place].flags & AVAIL) == bool(entries[place].flags & USED):
            result.broken.append(f"flags: descriptor {place} is in flight and marked used (2.8.1)")
            return


def _ids(ring: Ring, entries: list[Descriptor], waiting: list[int], result: Audit) -> None:
    """A buffer's id is in its last descriptor; that of the others is not read (2.8.6)."""
    ids = set[int]()
    for place in waiting:
        entry = entries[place]
        if entry.flags & NEXT:
            continue
        if entry.other >= ring.size:
            result.broken.append(f"id: descriptor {place} has id {entry.other} (2.8.6)")
        if entry.other in ids:
            result.broken.append(f"id: {entry.other} is available twice, at {place} too (2.8)")
        ids.add(entry.other)


def _wrap(ring: Ring, entries: list[Descriptor]) -> bool:
    """The device's wrap counter, which QEMU does not report: read from the marks around its place.

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


def _waiting(ring: Ring, entries: list[Descriptor], wrap: bool) -> Iterator[int]:
    """Places that the driver has made available, from the next one on, over the lap's end."""
    for step in range(ring.size):
        place = ring.last_avail + step
        turn = wrap if place < ring.size else not wrap
        place %= ring.size
        flags = entries[place].flags
        if bool(flags & AVAIL) != turn or bool(flags & USED) == turn:
            return
        yield place


def _packed_event(ring: Ring, name: str, suppression: bytes, result: Audit) -> str:
    place, flags = struct.unpack_from("<2H", suppression)
    offset, wrap = place & 0x7FFF, place >> 15
    word = _PACKED_EVENTS[flags & 3]
    if flags & 3 == 3:
        result.broken.append(f"event: the flags of {name} are 3, which is reserved (2.8.10)")
    if flags & 3 != 2:
        return word
    if not ring.event_idx:
        result.broken.append(f"event: {name} at a descriptor were not negotiated (2.8.10)")
    if offset >= ring.size:
        result.broken.append(f"event: {name} at descriptor {offset} of {ring.size} (2.8.10)")
    return f"{word} {offset} of wrap {wrap}"
