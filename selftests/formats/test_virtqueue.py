"""Virtqueues: a model of driver and device makes sound ones; each rule has one that breaks it."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from migrate.formats.virtqueue import (
    AVAIL,
    DESCRIPTOR_BYTES,
    INDICES,
    INDIRECT,
    MOST_SENTENCES,
    NEXT,
    USED,
    WRITE,
    Audit,
    Ring,
    regions,
)
from migrate.formats.virtqueue_audit import audit, tables
from selftests.doubles.virtqueues import (
    DATA,
    DESCRIPTORS,
    DEVICE,
    DRIVER,
    RANGES,
    TABLE,
    Packed,
    Split,
    Step,
    run,
)

STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "add", "take", "use"]), st.integers(1, 5)), max_size=60
)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([0, 5, INDICES - 7, INDICES - 1]),
    st.booleans(),
    st.integers(0, 99),
    STEPS,
)
def test_a_split_queue_is_sound_wherever_its_driver_and_device_are_stopped(
    size: int, begin: int, in_order: bool, seed: int, steps: list[Step]
) -> None:
    queue = Split(size, begin, in_order, seed)
    for _ in run(queue, steps):
        result = audit(queue.ring())
        assert (result.broken, result.unchecked) == ([], [])


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([1, 2, 3, 4, 5, 8]), st.booleans(), st.integers(0, 99), STEPS)
def test_a_packed_queue_is_sound_wherever_its_driver_and_device_are_stopped(
    size: int, in_order: bool, seed: int, steps: list[Step]
) -> None:
    """Among these: halfway through a list that wraps, which its driver writes from either end."""
    queue = Packed(size, in_order, seed)
    for _ in run(queue, steps):
        assert audit(queue.ring()).broken == []


ONE: tuple[Step, ...] = (("add", 1), ("take", 1), ("use", 1))
ADD: Step = ("add", 1)


def walk(queue: Split | Packed, *steps: Step) -> None:
    for _ in run(queue, list(steps)):
        pass


def test_queues_are_sound_over_many_wraps() -> None:
    steps: list[Step] = [("add", 2), ("add", 1), ("take", 1), ("add", 1), ("take", 1), ("use", 1)]
    packed = Packed(5)
    for _ in run(packed, steps * 40):
        result = audit(packed.ring())
        assert (result.broken, result.unchecked) == ([], [])
        assert result.facts["wrap counter"] == str(int(packed.taken_wrap))
        assert result.facts["available"] == str(packed.available)
    split = Split(8, INDICES - 30)
    for _ in run(split, steps * 40):
        assert audit(split.ring()).broken == []
    assert split.avail < 100


def test_a_wrap_counter_is_right_where_all_seems_available() -> None:
    """In flight are three of four places; the fourth is the rest of a chain of the lap before."""
    queue = Packed(4)
    walk(queue, ("add", 2), ("take", 1), ("add", 2), ("take", 1), ("use", 0))
    walk(queue, ("add", 1), ("take", 1))
    found = audit(queue.ring())
    assert (found.facts["wrap counter"], found.facts["available"]) == ("0", "0")
    assert not found.broken


def test_a_list_that_wraps_and_is_half_written_is_sound() -> None:
    """The guest was stopped before it wrote the flags of the list's first descriptor."""
    queue = Packed(8)
    walk(queue, *ONE * 6)
    writes = run(queue, [("add", 4)])
    for _ in range(3):
        next(writes)
        result = audit(queue.ring())
        assert (result.broken, result.unchecked) == ([], [])
        assert (result.facts["available"], result.facts["wrap counter"]) == ("0", "1")
    next(writes)
    assert audit(queue.ring()).facts["available"] == "4"


def test_in_order_the_elements_that_a_batch_skipped_may_be_anything() -> None:
    ring = with_used(O, 999)
    assert audit(ring).broken == []
    without = audit(replace(ring, in_order=False))
    assert without.broken[0] == "used: 999 is no descriptor of 8 (2.7.8)"


# --- each rule has a ring that breaks it ----------------------------------------------------------


def split() -> Ring:
    """Two buffers wait, a chain of two and one alone; one is in flight."""
    queue = Split(8, INDICES - 1)
    queue.table = [(0, 0, 0, 0)] * 8
    queue.table[4:] = [(DATA + n, 64, 0, 0) for n in range(4, 8)]
    queue.table[6] = (DATA + 6, 64, NEXT, 5)
    queue.heads, queue.elements = [6, 4, 0, 0, 0, 0, 0, 7], [(0, 0)] * 8
    queue.free, queue.flying, queue.waiting = [0, 1, 2, 3], [[7]], [[6, 5], [4]]
    queue.avail, queue.taken = 1 + 1, 0
    return queue.ring()


def in_order() -> Ring:
    """A split queue with IN_ORDER: 0 and 1 are in flight, 2 and 3 wait, and 4."""
    queue = Split(8, 8, in_order=True)
    queue.table = [(DATA + n, 64, NEXT if n in (0, 2) else 0, n + 1) for n in range(8)]
    queue.heads = [0, 2, 4, 0, 0, 0, 0, 0]
    queue.free, queue.flying, queue.waiting = [5, 6, 7], [[0, 1]], [[2, 3], [4]]
    queue.avail, queue.taken = 11, 9
    return queue.ring()


def packed() -> Ring:
    """Over a lap's end: two used, one in flight, a chain of two waits."""
    entries = [(DATA, 64, 7, 0), (DATA, 64, 7, USED)]
    entries += [(DATA + 2, 64, 7, USED), (DATA + 3, 64, 65535, USED | NEXT), (DATA, 64, 6, USED)]
    entries += [(DATA, 64, 7, AVAIL), (DATA, 64, 7, AVAIL | USED), (DATA, 64, 7, AVAIL)]
    queue = Packed(8)
    queue.table = entries
    queue.taken, queue.used, queue.flying = 3, 2, [(7, 1)]
    return queue.ring()


def with_entry(ring: Ring, place: int, *entry: int) -> Ring:
    table = bytearray(ring.memory[DESCRIPTORS])
    struct.pack_into("<QIHH", table, 16 * place, *entry)
    return replace(ring, memory={**ring.memory, DESCRIPTORS: bytes(table)})


def with_word(ring: Ring, address: int, place: int, word: int) -> Ring:
    area = bytearray(ring.memory[address])
    struct.pack_into("<H", area, 2 * place, word)
    return replace(ring, memory={**ring.memory, address: bytes(area)})


def with_used(ring: Ring, id_: int) -> Ring:
    area = bytearray(ring.memory[DEVICE])
    struct.pack_into("<I", area, 4, id_)
    return replace(ring, memory={**ring.memory, DEVICE: bytes(area)})


def tabled(ring: Ring, *rows: tuple[int, int], far: int | None = None) -> Ring:
    """Its one waiting descriptor (split: 4, packed: 3) names a table of (flags, next)."""
    table = b""
    for place, (flags, following) in enumerate(rows):
        address = DATA if place != far else RANGES[0][1]
        last = (flags, following) if ring.kind == "split" else (following, flags)
        table += struct.pack("<QIHH", address, 64, *last)
    ring = replace(ring, indirect=True, memory={**ring.memory, TABLE: table})
    if ring.kind == "split":
        return with_entry(ring, 4, TABLE, len(table), INDIRECT, 0)
    return with_entry(ring, 3, TABLE, len(table), 1, USED | INDIRECT)


def crowded() -> Ring:
    """Two are in flight, six wait, and one of the two is made available once more."""
    queue = Packed(8)
    walk(queue, ("add", 1), ("take", 1), ("add", 1), ("take", 1), *(ADD,) * 6)
    return with_entry(queue.ring(), 0, DATA, 64, queue.flying[0][0], USED)


def first_lap() -> Ring:
    """A packed queue of which nothing was returned: one in flight, two wait."""
    queue = Packed(8)
    walk(queue, ("add", 1), ("take", 1), ("add", 1), ("add", 1))
    return with_entry(queue.ring(), 0, DATA, 64, 0, AVAIL)


def of_size(ring: Ring, size: int) -> Ring:
    """The queue's size alone, with memory that is long enough."""
    return replace(ring, size=size, memory={k: v + bytes(999) for k, v in ring.memory.items()})


def moved(ring: Ring, part: str, address: int) -> Ring:
    """One part of a queue at another address."""
    old = {"descriptors": ring.descriptors, "driver": ring.driver, "device": ring.device}[part]
    changed = replace(ring, memory={**ring.memory, address: ring.memory[old]})
    object.__setattr__(changed, part, address)
    return changed


S, P, O = split(), packed(), in_order()  # noqa: E741 - in order
WITH_TABLES = replace(S, indirect=True), replace(P, indirect=True)
FRESH = first_lap()
FREE = Split(8).ring()
LONG_TABLE = b"".join(struct.pack("<QIHH", DATA, 64, NEXT if n < 7 else 0, n + 1) for n in range(8))
# The split queue's chain: 6 then 5; alone: 4. In flight: 7.
BROKEN: dict[str, Ring] = {
    "available: 10 buffers wait": with_word(S, DRIVER, 1, 10),
    "available: the device saw index 9": replace(S, shadow_avail=9),
    "used: 9 buffers are in flight": replace(
        with_word(S, DEVICE, 1, 65527), used=65527, in_flight=9
    ),
    "in flight: the device counts 4": replace(S, in_flight=4),
    "used: memory says 4": with_word(S, DEVICE, 1, 4),
    "head: 8 is no descriptor of 8": with_word(S, DRIVER, 2, 8),
    "head: 6 is available twice": with_word(S, DRIVER, 3, 6),
    "chain: 9 is no descriptor of 8": with_entry(S, 6, DATA, 64, NEXT, 9),
    "chain: the one that begins at 6 loops": with_entry(S, 5, DATA, 64, NEXT, 6),
    "chain: descriptor 4 is in two chains": with_entry(S, 6, DATA, 64, NEXT, 4),
    "memory: descriptor 4 is 64 bytes at 0x100000": with_entry(S, 4, 0x100000, 64, 0, 0),
    "indirect: descriptor 4 is an indirect table": with_entry(S, 4, DATA, 64, INDIRECT, 0),
    "indirect: the table of descriptor 4 has 60": with_entry(
        replace(S, indirect=True), 4, DATA, 60, INDIRECT, 0
    ),
    "used: 9 buffers are out": replace(with_word(S, DEVICE, 1, 65529), used=65529, in_flight=7),
    "head: 99, taken, is no descriptor of 8": with_word(S, DRIVER, 2 + 7, 99),
    "used: 999 is no descriptor of 8": with_used(S, 999),
    "indirect: descriptor 6 is a table and goes on": with_entry(
        replace(S, indirect=True), 6, DATA, 64, INDIRECT | NEXT, 5
    ),
    "indirect: entry 1 of the table of descriptor 4 is a table": tabled(
        S, (NEXT, 1), (INDIRECT, 0)
    ),
    "indirect: 7 is no entry of the 2": tabled(S, (NEXT, 1), (NEXT, 7)),
    "indirect: the table of descriptor 4 loops": tabled(S, (NEXT, 1), (NEXT, 0)),
    "memory: entry 1 of the table of descriptor 4": tabled(S, (NEXT, 1), (0, 0), far=1),
    "place: taken 8": replace(P, last_avail=8),
    "in flight: the device counts 2": replace(P, in_flight=2),
    "flags: descriptor 0 is marked used in a lap": with_entry(P, 0, DATA, 64, 1, AVAIL | USED),
    "flags: descriptor 2 is in flight and marked used": with_entry(P, 2, DATA, 64, 1, 0),
    "memory: descriptor 3 is 64 bytes": with_entry(P, 3, 0x100000, 64, 1, USED | NEXT),
    "id: descriptor 4 has id 8": with_entry(P, 4, DATA, 64, 8, USED),
    "id: 5 is available twice": with_entry(
        with_entry(P, 3, DATA, 64, 5, USED), 4, DATA, 64, 5, USED
    ),
    "chain: descriptor 4 goes on": with_entry(P, 4, DATA, 64, 1, USED | NEXT),
    "available: 7 descriptors wait and 2": crowded(),
    "event: the flags of interrupts are 3": with_word(P, DRIVER, 1, 3),
    "event: notifications at a descriptor were not": replace(
        with_word(with_word(P, DRIVER, 1, 0), DEVICE, 1, 2), event_idx=False
    ),
    "event: interrupts at descriptor 100 of 8": with_word(P, DRIVER, 0, 100),
    "indirect: descriptor 3 is a table and goes on": with_entry(
        replace(P, indirect=True, memory={**P.memory, TABLE: bytes(16)}),
        *(3, TABLE, 16, 1, USED | INDIRECT | NEXT),
    ),
    "indirect: entry 0 of the table of descriptor 3 is a table": tabled(P, (INDIRECT, 0)),
    # What is in flight, and what was offered meanwhile.
    "head: 7 is in flight, and available again": with_word(S, DRIVER, 3, 7),
    "chain: descriptor 7 is in two chains, those of 7 and of 4": with_entry(
        S, 4, DATA, 64, NEXT, 7
    ),
    "id: 0 is in flight, and available again at 1": with_entry(FRESH, 1, DATA, 64, 0, AVAIL),
    "id: 7 is in flight, and available again at 4": with_entry(P, 4, DATA, 64, 7, USED),
    # The order and the number of a buffer's elements.
    "order: the buffer at 6 has a readable element after a writable one": with_entry(
        S, 6, DATA, 64, NEXT | WRITE, 5
    ),
    "order: the buffer at 4 has": tabled(S, (NEXT | WRITE, 1), (0, 0)),
    "order: the buffer at 3 has a readable": with_entry(P, 3, DATA, 64, 1, USED | NEXT | WRITE),
    "order: the buffer at 3 has": tabled(P, (WRITE, 0), (0, 0)),
    "indirect: the table of descriptor 4 has 9 entries, the queue 8": with_entry(
        WITH_TABLES[0], 4, DATA, 9 * 16, INDIRECT, 0
    ),
    "indirect: the table of descriptor 3 has 9 entries, the queue 8": with_entry(
        WITH_TABLES[1], 3, DATA, 9 * 16, 1, USED | INDIRECT
    ),
    "length: the buffer at 6 has 9 elements, the queue 8": with_entry(
        replace(S, indirect=True, memory={**S.memory, TABLE: LONG_TABLE}),
        *(5, TABLE, 8 * 16, INDIRECT, 0),
    ),
    "length: the buffer at 6 has 4295032831 bytes": replace(
        with_entry(with_entry(S, 6, 0, 1 << 16, NEXT, 5), 5, 0, (1 << 32) - 1, 0, 0),
        ranges=((0, 1 << 33),),
    ),
    # Tables, and where they may not be.
    "indirect: entry 0 of the table of descriptor 3 has flags 0x1": tabled(P, (NEXT, 0), (0, 0)),
    "indirect: entry 0 of the table of descriptor 3 has flags 0x80": tabled(P, (AVAIL, 0)),
    "indirect: descriptor 4 is a table in a list": with_entry(
        replace(P, indirect=True, memory={**P.memory, TABLE: bytes(16)}),
        *(4, TABLE, 16, 6, USED | INDIRECT),
    ),
    "indirect: descriptor 3 is an indirect table, not negotiated": replace(
        tabled(P, (0, 0)), indirect=False
    ),
    "memory: the table of descriptor 4 is 32 bytes at 0x100000": with_entry(
        WITH_TABLES[0], 4, 0x100000, 32, INDIRECT, 0
    ),
    # Where a queue lies, and how long it may be.
    "size: 7 entries, which is no power of two": of_size(replace(FREE, memory=FREE.memory), 7),
    "size: 32769 entries": replace(P, size=32769),
    "size: 65536 entries": replace(S, size=65536),
    "layout: the descriptor area begins at 0x1008": moved(S, "descriptors", 0x1008),
    "layout: the driver area begins at 0x4001": moved(S, "driver", 0x4001),
    "layout: the device area begins at 0x8002": moved(S, "device", 0x8002),
    "layout: the driver area begins at 0x4002": moved(P, "driver", 0x4002),
    "layout: the device area begins at 0x8001": moved(P, "device", 0x8001),
    "layout: the device area is 70 bytes at 0x100000, outside": moved(S, "device", 0x100000),
    # Notifications.
    "event: the flags of interrupts are 1, and an index tells them": with_word(S, DRIVER, 0, 1),
    "event: the flags of notifications are 2": with_word(replace(S, event_idx=False), DEVICE, 0, 2),
    "event: notifications have reserved flags, 0x4": with_word(P, DEVICE, 1, 4),
    # In order.
    "in order: descriptor 2 is followed by 4": with_entry(
        with_word(O, DRIVER, 1, 10), 2, DATA, 64, NEXT, 4
    ),
    "in order: descriptor 4 is the next one, and 5 was taken": with_word(O, DRIVER, 4, 5),
    "in order: entry 0 of the table of descriptor 4 is followed by 2": replace(
        tabled(O, (NEXT, 2), (0, 0), (0, 0)), indirect=True
    ),
    # Parts that lie over each other, and an address that no memory has.
    "layout: the descriptor area and the driver area overlap": moved(S, "driver", 0x1040),
    "layout: the driver area and the device area overlap": moved(S, "device", DRIVER + 20),
    "layout: the descriptor area and the device area overlap": moved(P, "device", 0x1004),
    "memory: descriptor 4 is 64 bytes at 0xfffffffffffffff0": with_entry(
        replace(S, ranges=()), 4, (1 << 64) - 16, 64, 0, 0
    ),
    # Marks.
    "flags: descriptor 2 is in flight and marked for another lap": with_entry(
        P, 2, DATA, 64, 7, AVAIL
    ),
}


def test_the_rings_that_get_broken_are_sound() -> None:
    assert audit(S) == Audit(facts=audit(S).facts)
    assert audit(P) == Audit(facts=audit(P).facts)
    assert audit(P).facts["wrap counter"] == "0"
    assert audit(P).facts["available"] == "2"
    assert audit(P).facts["interrupts"] == "at a descriptor 0 of wrap 1"
    assert audit(P).facts["notifications"] == "disabled"
    assert audit(S).facts["interrupt at used"] == "7, not within reach"
    assert audit(S).facts["notification at available"] == "9"
    reached = with_word(S, DRIVER, 2 + 8, S.used)
    assert audit(reached).facts["interrupt at used"] == str(S.used)


@pytest.mark.parametrize("said", BROKEN)
def test_each_rule_has_a_ring_that_breaks_it(said: str) -> None:
    found = audit(BROKEN[said])
    (told,) = found.broken
    assert told.startswith(said)
    assert re.search(r"[( ]2\.[78][.\d]*\)$", told)  # the section


@pytest.mark.parametrize("kind", ["split", "packed"])
def test_whatever_order_a_device_keeps_tells_what_is_in_flight(kind: str) -> None:
    """A driver takes the same one again and again: its last return is still there."""
    queue: Split | Packed = Split(8, seed=1) if kind == "split" else Packed(8)
    walk(queue, *ONE * 30, ("add", 1), ("take", 1), ("add", 1))
    ring = queue.ring()
    if isinstance(queue, Split):
        again = with_word(ring, DRIVER, 2 + (queue.avail - 1) % 8, queue.flying[0][0])
    else:
        place = (queue.place - 1) % 8
        again = with_entry(ring, place, DATA, 64, queue.flying[0][0], queue.table[place][3])
    assert audit(replace(ring, ordered=True)).broken == []
    (said,) = audit(replace(again, ordered=True)).broken
    assert "is in flight, and available again" in said


def test_a_return_of_the_lap_before_is_none_of_this_one() -> None:
    """All heads went round in order: 1 is in flight again, a whole queue after its return."""
    queue = Split(8, 17)
    queue.heads = [0, 1, 2, 1, 4, 5, 6, 7]
    queue.elements = [(n, 64) for n in range(8)]
    queue.flying, queue.waiting, queue.taken, queue.avail = [[1]], [[2], [1]], 18, 20
    (said,) = audit(queue.ring()).broken
    assert said == "head: 1 is in flight, and available again (2.7.13)"
    queue.elements[2] = (1, 64)  # returned out of its turn since, for all that is on record
    assert audit(queue.ring()).broken == []


def test_parts_may_touch_where_no_event_index_is_used() -> None:
    close = moved(replace(S, event_idx=False), "device", DRIVER + 4 + 2 * 8)
    assert [said for said in audit(close).broken if "overlap" in said] == []


def test_a_whole_packed_ring_in_which_no_chain_ends_is_broken() -> None:
    ring = Packed(4).ring()
    for place in range(4):
        ring = with_entry(ring, place, DATA, 64, 1, AVAIL | NEXT)
    (found,) = audit(ring).broken
    assert found.startswith("chain: descriptor 3 goes on")


@pytest.mark.parametrize("ring", [tabled(S, (NEXT, 1), (0, 0)), tabled(P, (0, 0), (0, 0))])
def test_an_indirect_table_is_followed_where_it_was_captured(ring: Ring) -> None:
    found = audit(ring)
    assert not [one for one in (*found.broken, *found.unchecked) if "table" in one]
    assert tables(ring) == ()
    without = {place: data for place, data in ring.memory.items() if place != TABLE}
    (told,) = audit(replace(ring, memory=without)).unchecked
    assert told.endswith("1 tables were not captured, the first one of 32 bytes at 0x20000")
    assert tables(replace(ring, memory=without)) == ((TABLE, 32),)


def test_all_that_is_marked_available_may_be_in_flight_if_nobody_counts_that() -> None:
    queue = Packed(2)
    walk(queue, ("add", 2), ("take", 1))
    found = audit(replace(queue.ring(), in_flight=None))
    assert not found.broken
    assert found.facts["wrap counter"] == "not known"
    assert [one.partition(":")[0] for one in found.unchecked] == ["wrap counter"]


def test_a_rule_that_lacks_what_it_needs_is_named() -> None:
    assert audit(replace(S, ranges=())).unchecked == [
        "buffers' places: the guest's memory map is not known"
    ]
    found = audit(replace(S, indices_known=False))
    assert found.unchecked == ["the device's indices: a backend still worked the queue"]
    assert not found.facts


def test_flags_tell_what_is_wanted_where_there_is_no_event_index() -> None:
    facts = audit(with_word(replace(S, event_idx=False), DRIVER, 0, 1)).facts
    assert (facts["interrupts"], facts["notifications"]) == ("not wanted", "wanted")


@pytest.mark.parametrize("ring", [S, P])
def test_what_was_not_captured_is_not_checked(ring: Ring) -> None:
    for address, length in regions(ring):
        short = {**ring.memory, address: ring.memory[address][: length - 1]}
        found = audit(replace(ring, memory=short))
        assert found.unchecked == [f"not captured: {length} bytes at {address:#x}"]
        assert not found.facts
    assert audit(replace(ring, size=0)).unchecked == ["the driver did not set this queue up"]


@given(st.binary(min_size=8 * 16, max_size=8 * 16), st.integers(0, 7), st.integers(0, 7))
def test_whatever_lies_in_memory_an_audit_ends(table: bytes, taken: int, used: int) -> None:
    for ring in (S, P):
        memory = {**ring.memory, DESCRIPTORS: table}
        audit(replace(ring, memory=memory, last_avail=taken, used=used))


# --- whatever state a queue is in, what breaks a rule is found ------------------------------------

Wrong = Callable[[Ring, int], Ring | None]
"""A ring with one thing wrong in it, by a number; None: this one has nothing to do it to."""


def waiting_entries(ring: Ring) -> list[tuple[int, tuple[int, ...]]]:
    """Places of the descriptors that wait, and what stands there."""
    table = list(struct.iter_unpack("<QIHH", ring.memory[DESCRIPTORS]))
    if ring.kind == "packed":
        count = int(audit(ring).facts["available"])
        places = [(ring.last_avail + n) % ring.size for n in range(count)]
    else:
        _, avail, *heads = struct.unpack_from(f"<{2 + ring.size}H", ring.memory[DRIVER])
        places = []
        for step in range((avail - ring.last_avail) % INDICES):
            place = heads[(ring.last_avail + step) % ring.size]
            places.append(place)
            while table[place][2] & NEXT:
                place = table[place][3]
                places.append(place)
    return [(place, table[place]) for place in places]


def changed(change: Callable[[tuple[int, ...], Ring], tuple[int, ...]]) -> Wrong:
    """One waiting descriptor is another one."""

    def wrong(ring: Ring, which: int) -> Ring | None:
        entries = waiting_entries(ring)
        if not entries:
            return None
        place, entry = entries[which % len(entries)]
        return with_entry(ring, place, *change(entry, ring))

    return wrong


def looping(ring: Ring, which: int) -> Ring | None:
    entries = waiting_entries(ring)
    if ring.kind == "packed" or not entries:
        return None
    place, (address, length, _, _) = entries[which % len(entries)]
    return with_entry(ring, place, address, length, NEXT, place)


WRONG: dict[str, Wrong] = {
    "outside of the memory": changed(lambda e, _: (1 << 40, *e[1:])),
    "a table that was not negotiated": changed(
        lambda e, r: (*e[:2], e[2] | INDIRECT, e[3])
        if r.kind == "split"
        else (*e[:3], e[3] | INDIRECT)
    ),
    "a count of what is in flight": lambda ring, n: replace(
        ring, in_flight=(ring.in_flight or 0) + 1 + n % 3
    ),
    "a part at an odd address": lambda ring, _: moved(ring, "driver", DRIVER + 1),
    "a list without an end": lambda ring, n: None
    if ring.kind == "split"
    else changed(lambda e, r: (*e[:3], e[3] | NEXT))(ring, -1)
    if len(waiting_entries(ring)) < ring.size - (ring.in_flight or 0)
    else None,
    "an id that is none": lambda ring, n: None
    if ring.kind == "split"
    else changed(lambda e, r: (*e[:2], r.size + 3, e[3] & ~NEXT))(ring, n),
    "a chain that loops": looping,
    "a head that is none": lambda ring, n: None
    if ring.kind == "packed" or not waiting_entries(ring)
    else with_word(ring, DRIVER, 2 + ring.last_avail % ring.size, ring.size + n),
    "an index beyond the queue": lambda ring, _: None
    if ring.kind == "packed"
    else with_word(ring, DRIVER, 1, (ring.last_avail + ring.size + 1) % INDICES),
    "an index that went back": lambda ring, _: None
    if ring.kind == "packed"
    else with_word(ring, DRIVER, 1, (ring.last_avail - 1) % INDICES),
}  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(WRONG)), st.booleans(), st.integers(0, 99), STEPS, st.integers(0, 20))
def test_what_is_wrong_in_any_state_of_a_queue_is_found(
    name: str, packed: bool, seed: int, steps: list[Step], which: int
) -> None:
    queue: Split | Packed = Packed(8, seed=seed) if packed else Split(8, 5, seed=seed)
    walk(queue, *steps, ("add", 2))
    ring = queue.ring()
    result = audit(ring)
    assert result.broken == []
    assume(not result.unchecked)
    wrong = WRONG[name](ring, which)
    assume(wrong is not None)
    assert wrong is not None
    result = audit(wrong)
    assert result.broken or any(said.startswith("what waits") for said in result.unchecked)


# --- bounds -------------------------------------------------------------------------------------


def full_split(size: int, flags: int, heads: Callable[[int], int]) -> Ring:
    """All heads wait; each descriptor names the next one."""
    table = b"".join(
        struct.pack("<QIHH", TABLE, size * DESCRIPTOR_BYTES, flags, (n + 1) % size)
        for n in range(size)
    )
    driver = struct.pack(f"<{size + 3}H", 0, size, *map(heads, range(size)), 0)
    memory = {0: table, 1 << 20: driver, 2 << 20: bytes(6 + 8 * size), TABLE: table}
    return Ring(
        kind="split",
        size=size,
        descriptors=0,
        driver=1 << 20,
        device=2 << 20,
        last_avail=0,
        used=0,
        memory=memory,
        indirect=True,
    )


def full_packed(size: int, flags: int) -> Ring:
    """All is available, with one id; each names the same table."""
    entry = struct.pack("<QIHH", TABLE, size * DESCRIPTOR_BYTES, 5, AVAIL | flags)
    memory = {0: entry * size, 1 << 20: bytes(4), 2 << 20: bytes(4), TABLE: entry * size}
    return Ring(
        kind="packed",
        size=size,
        descriptors=0,
        driver=1 << 20,
        device=2 << 20,
        last_avail=0,
        used=0,
        memory=memory,
        in_flight=0,
        indirect=True,
    )


HOSTILE = {
    "each head available and chained": lambda size: full_split(size, NEXT, lambda n: n),
    "one head twice": lambda size: full_split(size, 0, lambda n: n % (size - 1)),
    "one head over and over": lambda size: full_split(size, NEXT, lambda _: 0),
    "no descriptors": lambda size: full_split(size, 0, lambda _: 0xFFFF),
    "each one a table": lambda size: full_split(size, INDIRECT, lambda n: n),
    "each one a table that goes on": lambda size: full_split(size, NEXT | INDIRECT, lambda n: n),
    "packed": lambda size: full_packed(size, 0),
    "packed, all in one list": lambda size: full_packed(size, NEXT),
    "packed, each one a table": lambda size: full_packed(size, INDIRECT),
}


@pytest.mark.parametrize("size", [1024, 32768])
@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_ring_of_garbage_makes_few_sentences_and_counts_the_rest(
    make: Callable[[int], Ring], size: int
) -> None:
    result = audit(make(size))
    assert result.broken
    assert len("".join((*result.broken, *result.unchecked))) < 5000
    assert len(tables(make(size))) <= 1
    counted = [said for said in result.broken if said.endswith("more of this kind")]
    assert len(result.broken) <= (MOST_SENTENCES + 1) * len(result.breaches)
    assert all(int(said.split()[2]) >= 1 for said in counted)


def test_each_head_available_and_chained_is_told_as_often_as_it_is_there() -> None:
    result = audit(full_split(1024, NEXT, lambda n: n))
    assert result.broken[-1] == f"chain: and {1024 - MOST_SENTENCES} more of this kind"
