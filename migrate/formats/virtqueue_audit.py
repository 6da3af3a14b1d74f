"""A virtqueue checked by the rules of its kind, with its indices and flags by name."""

from __future__ import annotations

from itertools import pairwise

from migrate.formats.packed_queue import check_packed
from migrate.formats.split_queue import check_split
from migrate.formats.virtqueue import LARGEST_QUEUE, Audit, Ring, in_memory, regions


def tables(ring: Ring) -> tuple[tuple[int, int], ...]:
    """Address and length of the indirect tables that an audit misses in ``memory``, to be captured
    in a second round: only the queue itself says where they are."""
    return tuple(audit(ring).tables)


def audit(ring: Ring) -> Audit:
    """Decode a queue and check the rules of its kind; one of size 0 is not set up.

    Time and sentences are bounded by the ring's size, whatever lies in memory.
    """
    result = Audit()
    if not ring.size:
        result.unchecked.append("the driver did not set this queue up")
        return result
    _layout(ring, result)
    if ring.size > LARGEST_QUEUE:
        return result
    if not ring.indices_known:
        result.unchecked.append("the device's indices: a backend still worked the queue")
        return result
    missing = [
        f"{length} bytes at {address:#x}"
        for address, length in regions(ring)
        if len(ring.memory.get(address, b"")) < length
    ]
    if missing:
        result.unchecked.append(f"not captured: {', '.join(missing)}")
        return result
    if not ring.ranges:
        result.unchecked.append("buffers' places: the guest's memory map is not known")
    if ring.kind == "split":
        check_split(ring, result)
    else:
        check_packed(ring, result)
    result.count_the_rest()
    if result.tables_read:
        result.facts["indirect tables"] = str(result.tables_read)
    if result.tables:
        address, length = next(iter(result.tables))
        result.unchecked.append(
            f"indirect: {len(result.tables)} tables were not captured, the first one of {length} "
            f"bytes at {address:#x}"
        )
    return result


def _layout(ring: Ring, result: Audit) -> None:
    """The queue's size, and where its three parts lie (2.7, 2.8.10.1)."""
    split = ring.kind == "split"
    section, parts = ("2.7", "2.7.1") if split else ("2.8", "2.8.11")
    if ring.size > LARGEST_QUEUE:
        said = f"{ring.size} entries, and the largest queue has {LARGEST_QUEUE}"
        result.breaks("size", said, section)
        return
    if split and ring.size & (ring.size - 1):
        result.breaks("size", f"{ring.size} entries, which is no power of two", section)
    names = ("descriptor", "driver", "device")
    alignments = (16, 2, 4) if split else (16, 4, 4)
    areas = regions(ring)
    for name, (address, length), alignment in zip(names, areas, alignments, strict=True):
        if address % alignment:
            said = f"the {name} area begins at {address:#x}, no multiple of {alignment}"
            result.breaks("layout", said, parts)
        if not in_memory(ring, address, length):
            said = f"the {name} area is {length} bytes at {address:#x}, outside of the guest's"
            result.breaks("layout", f"{said} memory", section if split else "2.8.10.1")
    unused = 0 if ring.event_idx or not split else 2
    sized = [(begin, begin + length - unused * (name != "descriptor"), name)
             for name, (begin, length) in zip(names, areas, strict=True)]  # fmt: skip
    for (_, end, name), (begin, _, other) in pairwise(sorted(sized)):
        if begin < end:  # each is written by one side alone, but a packed queue's descriptors
            said = f"the {name} area and the {other} area overlap"
            result.breaks("layout", said, "2.7" if split else "2.8.10")
