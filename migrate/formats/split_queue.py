"""Split virtqueues (virtio 1.3, section 2.7): what they say, and which rules they break."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from migrate.formats.virtqueue import (
    INDICES,
    NEXT,
    Audit,
    Descriptor,
    Ring,
    check_buffer,
    check_in_flight,
    descriptors,
)


def check_split(ring: Ring, result: Audit) -> None:
    """Hold a captured split queue against its rules; adds to ``result``."""
    size = ring.size
    driver, device = ring.memory[ring.driver], ring.memory[ring.device]
    flags, avail, *heads = struct.unpack_from(f"<{2 + size}H", driver)
    used_flags, used = struct.unpack_from("<2H", device)
    waiting = (avail - ring.last_avail) % INDICES
    flying = (ring.last_avail - ring.used) % INDICES
    result.facts |= {"available": str(avail), "taken": str(ring.last_avail), "used": str(used)}
    result.facts |= _suppression(ring, driver, device, flags, used_flags)
    if waiting > size:
        result.broken.append(
            f"available: {waiting} buffers wait (index {avail}, taken {ring.last_avail}) in a "
            f"queue of {size} (2.7.6)"
        )
    if ring.shadow_avail is not None and (ring.shadow_avail - ring.last_avail) % INDICES > waiting:
        result.broken.append(
            f"available: the device saw index {ring.shadow_avail}, the driver is at {avail} and "
            f"{ring.last_avail} were taken (2.7.6)"
        )
    if flying > size:
        result.broken.append(
            f"used: {flying} buffers are in flight (taken {ring.last_avail}, used {ring.used}) in "
            f"a queue of {size} (2.7.8)"
        )
    out = (avail - ring.used) % INDICES
    if waiting <= size and flying <= size < out:
        result.broken.append(
            f"used: {out} buffers are out (index {avail}, used {ring.used}) in a queue of {size} "
            "(2.7.5)"
        )
    check_in_flight(ring, flying, result)
    if out <= size:
        flying_heads = [heads[(ring.used + n) % size] for n in range(flying)]
        if wrong := [head for head in flying_heads if head >= size]:
            result.broken.append(f"head: {wrong[0]}, taken, is no descriptor of {size} (2.7.6)")
    _used_ids(ring, device, used, result)
    if used != ring.used:
        result.broken.append(f"used: memory says {used}, the device {ring.used} (2.7.8)")
    if waiting <= size:
        wanted = [heads[(ring.last_avail + n) % size] for n in range(waiting)]
        _heads(ring, wanted, result)


def _used_ids(ring: Ring, device: bytes, used: int, result: Audit) -> None:
    """Ids in the used ring are descriptors; entries that were never written are left out."""
    ids = [id_ for id_, _ in struct.iter_unpack("<2I", device[4 : 4 + 8 * min(used, ring.size)])]
    if wrong := [id_ for id_ in ids if id_ >= ring.size]:
        result.broken.append(f"used: {wrong[0]} is no descriptor of {ring.size} (2.7.8)")


def _suppression(
    ring: Ring, driver: bytes, device: bytes, flags: int, used_flags: int
) -> dict[str, str]:
    """Which notifications are wanted: by a flag, or from an index on (2.7.7, 2.7.10)."""
    if not ring.event_idx:
        words = ("wanted", "not wanted")
        return {"interrupts": words[flags & 1], "notifications": words[used_flags & 1]}
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


def _heads(ring: Ring, heads: list[int], result: Audit) -> None:
    if wrong := [head for head in heads if head >= ring.size]:
        result.broken.append(f"head: {wrong[0]} is no descriptor of {ring.size} (2.7.6)")
        return
    if len(set(heads)) < len(heads):
        twice = next(head for head in heads if heads.count(head) > 1)
        result.broken.append(f"head: {twice} is available twice (2.7.13)")
    entries = descriptors(ring)
    owners: dict[int, int] = {}
    for head in dict.fromkeys(heads):
        for index in _chain(ring, entries, head, result):
            if owners.setdefault(index, head) != head:
                result.broken.append(f"chain: descriptor {index} is in two chains (2.7.5)")
            check_buffer(ring, entries[index], f"descriptor {index}", result)


def _chain(ring: Ring, entries: list[Descriptor], head: int, result: Audit) -> Iterator[int]:
    index, passed = head, set[int]()
    while True:
        passed.add(index)
        yield index
        if not entries[index].flags & NEXT:
            return
        index = entries[index].other
        if index >= ring.size:
            result.broken.append(f"chain: {index} is no descriptor of {ring.size} (2.7.5)")
            return
        if index in passed:
            result.broken.append(f"chain: the one that begins at {head} loops (2.7.5.1)")
            return
