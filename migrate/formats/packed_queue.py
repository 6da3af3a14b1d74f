"""Packed virtqueues (virtio 1.3, section 2.8): what they say, and which rules they break.

Places from the device's used index to its next available one are *in flight*, those that follow and
are marked available *wait*, and the rest is *free*: there lies what was used in the lap before, and
what the driver has begun to write and not yet made available (2.8.6: a list's first descriptor is
made so last), in whatever order.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from migrate.formats.virtqueue import (
    AVAIL,
    NEXT,
    USED,
    Audit,
    Descriptor,
    Ring,
    descriptors,
)
from migrate.formats.virtqueue_buffer import Buffers, Link

_EVENTS = ("enabled", "disabled", "at a descriptor", "reserved")
_ZERO = Descriptor(0, 0, 0, 0)


def check_packed(ring: Ring, result: Audit) -> None:
    """Check a captured packed queue by its rules; adds to ``result``."""
    for name, place in (("interrupts", ring.driver), ("notifications", ring.device)):
        result.facts[name] = _event(ring, name, ring.memory[place], result)
    if not (0 <= ring.last_avail < ring.size and 0 <= ring.used < ring.size):
        said = f"taken {ring.last_avail}, used {ring.used} in a ring of {ring.size}"
        result.breaks("place", said, "2.8.1")
        return
    entries = descriptors(ring)
    flying = _flying(ring, result)
    readings = [_read(ring, entries, flying, wrap) for wrap in (True, False)]
    reading = min(readings, key=lambda reading: reading.rank)
    result.facts |= {"taken": str(ring.last_avail), "used": str(ring.used)}
    if all(not each.wrong and each.half_written == 0 for each in readings):
        result.facts["wrap counter"] = result.facts["available"] = "not known"
        result.unchecked.append(
            "wrap counter: all is marked available, and nobody tells whether it is in flight"
        )
        return
    result.facts["wrap counter"] = str(int(reading.wrap))
    result.facts["available"] = str(len(reading.waiting))
    for breach in reading.wrong:
        result.breaks(*breach)
    found = Audit()
    _waiting_buffers(ring, entries, reading, found)
    _ids(ring, entries, flying, reading, found)
    if sum(not each.wrong for each in readings) > 1 and found.broken:
        result.unchecked.append("what waits: its marks fit either value of the wrap counter")
        return
    result.take(found)


def _flying(ring: Ring, result: Audit) -> int:
    """How many descriptors are in flight, by the device's places and its own count."""
    flying = (ring.last_avail - ring.used) % ring.size
    if not flying and ring.in_flight == ring.size:
        flying = ring.size
    if ring.in_flight is not None and ring.in_flight != flying:
        said = f"the device counts {ring.in_flight}, its places say {flying}"
        result.breaks("in flight", said, "2.8.1")
    return flying


# --- marks --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Reading:
    """What a ring says if the device's wrap counter is ``wrap``, which QEMU does not report."""

    wrap: bool
    waiting: tuple[int, ...]
    """Places that the driver has made available, from the next one on, over the lap's end."""
    free: tuple[int, ...]
    wrong: tuple[tuple[str, str, str], ...]
    """What can't be with this counter: rule, sentence and section."""
    half_written: int
    """Free places that would be of a list that the driver has not made available yet."""
    near: bool
    """The place before the next one has this lap's mark."""

    @property
    def rank(self) -> tuple[int, int, bool]:
        """The likelier, the lower."""
        return len(self.wrong), self.half_written, not self.near


def _read(ring: Ring, entries: Sequence[Descriptor], flying: int, wrap: bool) -> _Reading:
    """The ring by one value of the wrap counter.

    A descriptor of this lap has its mark AVAIL as the counter is, one of the lap before the other
    way round; USED differs from it while it is available, and in those that a list or a batch
    skipped when it was used.
    """
    size = ring.size

    def lap(place: int) -> bool:  # of what was last written at a place, if nothing waits there
        return wrap if place < ring.last_avail else not wrap

    def available(place: int, turn: bool) -> bool:
        flags = entries[place].flags
        return bool(flags & AVAIL) == turn and bool(flags & USED) != turn

    ahead = [(ring.last_avail + step) % size for step in range(size)]
    number = next(
        (n for n, place in enumerate(ahead) if not available(place, not lap(place))), size
    )
    waiting, free = ahead[:number], ahead[number : size - flying]
    in_flight = [(ring.used + step) % size for step in range(flying)]
    wrong = []
    if flying + number > size:
        said = f"{number} descriptors wait and {flying} are in flight in a ring of {size}"
        wrong.append(("available", said, "2.8.16"))
    else:
        wrong += _marks_in_flight(entries, [(place, lap(place)) for place in in_flight])
    for place in free:
        flags = entries[place].flags
        if bool(flags & AVAIL) == bool(flags & USED) != lap(place):
            said = f"descriptor {place} is marked used in a lap in which it was not available"
            wrong.append(("flags", f"{said} (wrap counter {int(wrap)})", "2.8.1"))
    half_written = sum(available(place, not lap(place)) for place in free[1:])
    skipped = sum(available(place, lap(place)) for place in free)
    if len(free) == size == skipped and ring.in_flight is not None:
        # Nothing is out: the last buffer that was returned has left its mark, or it was overwritten
        said = "no descriptor is marked used, and none waits"
        wrong.append(("flags", said, "2.8.1"))
    before = bool(entries[ring.last_avail - 1].flags & AVAIL)
    near = before == (wrap if ring.last_avail else not wrap)
    return _Reading(wrap, tuple(waiting), tuple(free), tuple(wrong), half_written, near)


def _marks_in_flight(
    entries: Sequence[Descriptor], places: Sequence[tuple[int, bool]]
) -> Iterator[tuple[str, str, str]]:
    for place, turn in places:
        flags = entries[place].flags
        if bool(flags & AVAIL) == bool(flags & USED):
            yield "flags", f"descriptor {place} is in flight and marked used", "2.8.1"
        elif bool(flags & AVAIL) != turn:
            yield "flags", f"descriptor {place} is in flight and marked for another lap", "2.8.1"


# --- what waits ---------------------------------------------------------------------------------


def _waiting_buffers(
    ring: Ring, entries: Sequence[Descriptor], reading: _Reading, result: Audit
) -> None:
    buffers, chain = Buffers(ring, result), list[Link]()
    for place in reading.waiting:
        chain.append((place, entries[place]))
        if not entries[place].flags & NEXT:
            buffers.check(chain)
            chain = []
    if chain:
        said = f"descriptor {chain[-1][0]} goes on, and what follows is not available"
        result.breaks("chain", said, "2.8.17")
        buffers.check(chain)


def _ids(
    ring: Ring, entries: Sequence[Descriptor], flying: int, reading: _Reading, result: Audit
) -> None:
    """A buffer's id is in its last descriptor; that of the others is not read (2.8.6)."""
    in_flight = _ids_in_flight(ring, entries, flying, reading)
    seen = set[int]()
    for place in reading.waiting:
        entry = entries[place]
        if entry.flags & NEXT:
            continue
        if entry.other >= ring.size:
            result.breaks("id", f"descriptor {place} has id {entry.other}", "2.8.22")
        if entry.other in in_flight:
            said = f"{entry.other} is in flight, and available again at {place}"
            result.breaks("id", said, "2.8.21.1")
        elif entry.other in seen:
            said = f"{entry.other} is available twice, at {place} too"
            result.breaks("id", said, "2.8.21.1")
        seen.add(entry.other)


def _ids_in_flight(
    ring: Ring, entries: Sequence[Descriptor], flying: int, reading: _Reading
) -> set[int]:
    """Ids that are in flight for certain.

    A device that keeps to an order holds what lies between its places. Any other may have returned
    some of it: then it wrote a used descriptor with that id, which is as long as the buffer (2.8.6)
    and is overwritten only by what was made available since.
    """
    places = [(ring.used + step) % ring.size for step in range(flying)]
    last = [place for place in places if not entries[place].flags & NEXT]
    held = {entries[place].other: place for place in last}
    if ring.ordered or ring.in_order:
        return set(held)
    if reading.half_written:
        return set()
    returned = _returned(entries, reading)
    lengths = dict(returned)
    others = [id_ for id_, _ in returned if id_ not in held]
    # Nothing of what was returned is overwritten: in the first lap; nor before the first return of
    # what was returned twice, which for the second was made available after all that is held.
    first_lap = any(entries[place] == _ZERO for place in reading.free[:1])
    complete = first_lap or len(set(others)) < len(others)
    return {
        id_
        for id_, place in held.items()
        if (
            complete if id_ not in lengths else lengths[id_] not in _lengths(entries, places, place)
        )
    }


def _returned(entries: Sequence[Descriptor], reading: _Reading) -> list[tuple[int, int]]:
    """Ids of used descriptors among what is free, with their buffers' lengths, the oldest first."""
    marked = [
        (step, entries[place].other)
        for step, place in enumerate(reading.free)
        if bool(entries[place].flags & AVAIL) == bool(entries[place].flags & USED)
        and entries[place] != _ZERO
    ]
    return [
        (id_, following - step)
        for (step, id_), (following, _) in pairwise((*marked, (len(reading.free), 0)))
    ]


def _lengths(entries: Sequence[Descriptor], places: Sequence[int], last: int) -> range:
    """How long the buffer in flight that ends at ``last`` may be: its begin may be overwritten."""
    begin = end = places.index(last)
    while begin and entries[places[begin - 1]].flags & NEXT:
        begin -= 1
    flags = entries[places[begin] - 1].flags
    overwritten = bool(flags & AVAIL) == bool(flags & USED) or bool(flags & NEXT)
    least = end - begin + 1
    return range(least, len(entries) + 1 if not begin and overwritten else least + 1)


def _event(ring: Ring, name: str, suppression: bytes, result: Audit) -> str:
    place, flags = struct.unpack_from("<2H", suppression)
    offset, wrap = place & 0x7FFF, place >> 15
    word = _EVENTS[flags & 3]
    if flags & ~3:
        result.breaks("event", f"{name} have reserved flags, {flags:#x}", "2.8.14")
    if flags & 3 == 3:
        result.breaks("event", f"the flags of {name} are 3, which is reserved", "2.8.10")
    if flags & 3 != 2:
        return word
    if not ring.event_idx:
        result.breaks("event", f"{name} at a descriptor were not negotiated", "2.8.10")
    if offset >= ring.size:
        result.breaks("event", f"{name} at descriptor {offset} of {ring.size}", "2.8.10")
    return f"{word} {offset} of wrap {wrap}"
