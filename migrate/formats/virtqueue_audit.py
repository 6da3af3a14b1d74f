"""A virtqueue held against the rules of its kind, with what it says by name."""

from __future__ import annotations

from migrate.formats.packed_queue import check_packed
from migrate.formats.split_queue import check_split
from migrate.formats.virtqueue import LARGEST_TABLE, Audit, Ring, in_memory, regions


def tables(ring: Ring) -> tuple[tuple[int, int], ...]:
    """Address and length of the indirect tables that an audit misses in ``memory``, to be captured
    in a second round: only the queue itself says where they are."""
    return tuple(
        (address, length)
        for address, length in dict.fromkeys(audit(ring).tables)
        if length <= LARGEST_TABLE and in_memory(ring, address, length)
    )


def audit(ring: Ring) -> Audit:
    """Decode a queue and hold it against the rules of its kind; one of size 0 is not set up."""
    result = Audit()
    if not ring.size:
        result.unchecked.append("the driver did not set this queue up")
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
    if result.tables_read:
        result.facts["indirect tables"] = str(result.tables_read)
    if result.tables:
        address, length = result.tables[0]
        result.unchecked.append(
            f"indirect: {len(result.tables)} tables were not captured, the first one of {length} "
            f"bytes at {address:#x}"
        )
    return result
