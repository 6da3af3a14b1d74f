"""Split virtqueues (virtio 1.3, section 2.7): what they say, and which rules they break."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from migrate.formats.virtqueue import INDICES, NEXT, Audit, Descriptor, Ring, descriptors
from migrate.formats.virtqueue_buffer import Buffers, Link


def check_split(ring: Ring, result: Audit) -> None:
    """Check a captured split queue by its rules; adds to ``result``."""
    size = ring.size
    driver, device = ring.memory[ring.driver], ring.memory[ring.device]
    _, avail, *heads = struct.unpack_from(f"<{2 + size}H", driver)
    _, used = struct.unpack_from("<2H", device)
    waiting = (avail - ring.last_avail) % INDICES
    flying = (ring.last_avail - ring.used) % INDICES
    out = (avail - ring.used) % INDICES
    result.facts |= {"available": str(avail), "taken": str(ring.last_avail), "used": str(used)}
    result.facts |= _suppression(ring, driver, device, result)
    _indices(ring, avail, waiting, flying, result)
    returned = _returned(ring, device, result)
    if used != ring.used:
        result.breaks("used", f"memory says {used}, the device {ring.used}", "2.7.8")
    taken = _at(heads, ring.used, flying) if out <= size else []
    for head in dict.fromkeys(head for head in taken if head >= size):
        result.breaks("head", f"{head}, taken, is no descriptor of {size}", "2.7.6")
    if waiting <= size:
        wanted = _at(heads, ring.last_avail, waiting)
        known = _in_flight(ring, heads, taken, returned, waiting)
        _chains(ring, known, wanted, result)


def _at(heads: Sequence[int], begin: int, number: int) -> list[int]:
    """Heads in the available ring from an index on."""
    return [heads[(begin + step) % len(heads)] for step in range(number)]


def _indices(ring: Ring, avail: int, waiting: int, flying: int, result: Audit) -> None:
    """The driver's and the device's indices are no further apart than the queue is long."""
    size = ring.size
    if waiting > size:
        said = f"{waiting} buffers wait (index {avail}, taken {ring.last_avail}) in a queue of"
        result.breaks("available", f"{said} {size}", "2.7.6")
    if ring.shadow_avail is not None and (ring.shadow_avail - ring.last_avail) % INDICES > waiting:
        said = f"the device saw index {ring.shadow_avail}, the driver is at {avail} and"
        result.breaks("available", f"{said} {ring.last_avail} were taken", "2.7.6.1")
    if flying > size:
        said = f"{flying} buffers are in flight (taken {ring.last_avail}, used {ring.used}) in a"
        result.breaks("used", f"{said} queue of {size}", "2.7.8")
    out = (avail - ring.used) % INDICES
    if waiting <= size and flying <= size < out:
        said = f"{out} buffers are out (index {avail}, used {ring.used}) in a queue of {size}"
        result.breaks("used", said, "2.7.5")
    if ring.in_flight is not None and ring.in_flight != flying:
        said = f"the device counts {ring.in_flight}, its indices say {flying}"
        result.breaks("in flight", said, "2.7.8")


def _suppression(ring: Ring, driver: bytes, device: bytes, result: Audit) -> dict[str, str]:
    """Which notifications are wanted: by a flag, or from an index on (2.7.7, 2.7.10)."""
    (flags, avail), (used_flags, used) = (
        struct.unpack_from("<2H", area) for area in (driver, device)
    )
    most = 0 if ring.event_idx else 1
    for name, value, section in (
        ("interrupts", flags, "2.7.7.1"),
        ("notifications", used_flags, "2.7.10.2"),
    ):
        if value > most:
            why = "an index tells them" if ring.event_idx else "it may be 0 or 1"
            result.breaks("event", f"the flags of {name} are {value}, and {why}", section)
    if not ring.event_idx:
        words = ("wanted", "not wanted")
        return {"interrupts": words[flags & 1], "notifications": words[used_flags & 1]}
    (used_event,) = struct.unpack_from("<H", driver, 4 + 2 * ring.size)
    (avail_event,) = struct.unpack_from("<H", device, 4 + 8 * ring.size)
    return {
        "interrupt at used": _reach(used_event, used, ring.size),
        "notification at available": _reach(avail_event, avail, ring.size),
    }


def _reach(event: int, index: int, size: int) -> str:
    """No rule: who polls may leave an old index there (2.7.7.1, 2.7.10.2: "MAY use")."""
    return str(event) if (event - index) % INDICES < size else f"{event}, not within reach"


# --- what is in flight --------------------------------------------------------------------------


def _returned(ring: Ring, device: bytes, result: Audit) -> list[int]:
    """Ids in the used ring, the oldest first; entries that were never written are left out.

    With IN_ORDER one entry stands for a batch, at the place of its first buffer, and the others are
    whatever was there (2.7.9): none is known to be one.
    """
    if ring.in_order:
        return []
    entries = list(struct.iter_unpack("<2I", device[4 : 4 + 8 * ring.size]))
    for id_, _ in entries[: min(ring.used, ring.size)]:
        if id_ >= ring.size:
            result.breaks("used", f"{id_} is no descriptor of {ring.size}", "2.7.8")
    newest = (ring.used - 1) % ring.size
    oldest_first = entries[newest + 1 :] + entries[: newest + 1]
    blank = next((n for n, entry in enumerate(oldest_first) if any(entry)), ring.size)
    return [id_ for id_, _ in oldest_first[blank:]]


def _in_flight(
    ring: Ring, heads: Sequence[int], taken: Sequence[int], returned: Sequence[int], waiting: int
) -> list[int]:
    """Heads that are in flight for certain, of those that were ``taken`` last.

    A device that keeps to an order has these, neither more nor less. Any other may have returned
    some of them, and hold older ones: but for what it returned it wrote an entry into the used
    ring, which is as long as the queue, so of a head that is not there it returned none since. An
    entry that is a whole queue older than the head's place in the available ring is of an earlier
    time: all others would have been in flight, and one more.
    """
    places = {head: place for place, head in enumerate(taken) if head < ring.size}
    if ring.ordered or ring.in_order:
        return list(places)
    if returned:
        ages = {id_: len(returned) - place for place, id_ in enumerate(returned)}
        if len(returned) < ring.size:  # a return of head 0 with nothing written looks like no entry
            ages.setdefault(0, 1)
        return [h for h, place in places.items() if place + ages.get(h, ring.size) >= ring.size]
    # A used ring of zeros: nothing was returned yet, if as many were ever taken as are in flight.
    window = _at(heads, ring.last_avail + waiting - ring.size, ring.size - waiting)
    ever = next((len(window) - n for n, head in enumerate(window) if head), 0)
    if not ever < len(window) or ever > len(taken):
        return []
    return [head for head in places if head or ring.used == 0]


# --- chains -------------------------------------------------------------------------------------


def _chains(ring: Ring, flying: Sequence[int], wanted: Sequence[int], result: Audit) -> None:
    """Chains in flight and waiting; each descriptor is walked over once, however many claim it."""
    entries, buffers = descriptors(ring), Buffers(ring, result)
    owners: dict[int, int] = {}
    out, seen, following = set(flying), set[int](), None
    for head in (*flying, *wanted):
        if head >= ring.size:
            result.breaks("head", f"{head} is no descriptor of {ring.size}", "2.7.6")
        elif head in seen:
            again = "is in flight, and available again" if head in out else "is available twice"
            result.breaks("head", f"{head} {again}", "2.7.13")
        else:
            seen.add(head)
            if ring.in_order and following not in (None, head):
                said = f"descriptor {following} is the next one, and {head} was taken"
                result.breaks("in order", said, "2.7.5")
            if chain := list(_chain(ring, entries, head, owners, result)):
                buffers.check(chain)
                following = (chain[-1][0] + 1) % ring.size


def _chain(
    ring: Ring, entries: list[Descriptor], head: int, owners: dict[int, int], result: Audit
) -> Iterator[Link]:
    """The links of a chain, up to what belongs to another one."""
    index = head
    while True:
        if (owner := owners.setdefault(index, head)) != head:
            said = f"descriptor {index} is in two chains, those of {owner} and of {head}"
            result.breaks("chain", said, "2.7.5")
            return
        entry = entries[index]
        yield index, entry
        if not entry.flags & NEXT:
            return
        following = entry.other
        if following >= ring.size:
            result.breaks("chain", f"{following} is no descriptor of {ring.size}", "2.7.5")
            return
        if owners.get(following) == head:
            result.breaks("chain", f"the one that begins at {head} loops", "2.7.5.2")
            return
        if ring.in_order and following != (index + 1) % ring.size:
            said = f"descriptor {index} is followed by {following}"
            result.breaks("in order", said, "2.7.5.2")
        index = following
