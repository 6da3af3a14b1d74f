"""Virtqueues: a model of driver and device makes sound ones; each rule has one that breaks it."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrate.formats.virtqueue import (
    AVAIL,
    INDICES,
    INDIRECT,
    NEXT,
    USED,
    Audit,
    Ring,
    regions,
)
from migrate.formats.virtqueue_audit import audit, tables

DESCRIPTORS, DRIVER, DEVICE, DATA, TABLE = 0x1000, 0x4000, 0x8000, 0x10000, 0x20000
RANGES = ((0, 0x100000),)
Step = tuple[Literal["add", "take", "use"], int]
STEPS = st.lists(st.tuples(st.sampled_from(["add", "take", "use"]), st.integers(1, 3)), max_size=80)


@dataclass
class Split:
    """A driver and a device on a split queue; the device uses buffers out of order."""

    size: int
    avail: int
    taken: int = field(init=False)
    used: int = field(init=False)
    table: list[tuple[int, int, int, int]] = field(init=False)
    heads: list[int] = field(init=False)
    free: list[int] = field(init=False)
    flying: list[list[int]] = field(default_factory=list)
    chains: dict[int, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.taken = self.used = self.avail
        self.table = [(0, 0, 0, 0)] * self.size
        self.heads = [0] * self.size
        self.free = list(range(self.size))

    def add(self, length: int) -> None:
        if len(self.free) < length:
            return
        chain = [self.free.pop() for _ in range(length)]
        for place, following in zip(chain, [*chain[1:], 0], strict=True):
            flags = NEXT if place != chain[-1] else 0
            self.table[place] = (DATA + place, 64, flags, following)
        self.heads[self.avail % self.size] = chain[0]
        self.chains[chain[0]] = chain
        self.avail = (self.avail + 1) % INDICES

    def take(self, _count: int) -> None:
        if self.taken != self.avail:
            self.flying.append(self.chains.pop(self.heads[self.taken % self.size]))
            self.taken = (self.taken + 1) % INDICES

    def use(self, which: int) -> None:
        if self.flying:
            self.free += self.flying.pop(which % len(self.flying))
            self.used = (self.used + 1) % INDICES

    def ring(self) -> Ring:
        return Ring(
            kind="split",
            size=self.size,
            descriptors=DESCRIPTORS,
            driver=DRIVER,
            device=DEVICE,
            last_avail=self.taken,
            shadow_avail=self.taken,
            used=self.used,
            in_flight=len(self.flying),
            event_idx=True,
            ranges=RANGES,
            memory={
                DESCRIPTORS: b"".join(struct.pack("<QIHH", *entry) for entry in self.table),
                DRIVER: struct.pack(f"<{self.size + 3}H", 0, self.avail, *self.heads, 7),
                DEVICE: struct.pack("<2H", 0, self.used) + bytes(8 * self.size) + b"\x09\x00",
            },
        )


@dataclass
class Packed:
    """A driver and a device on a packed queue; the device uses buffers out of order."""

    size: int
    table: list[tuple[int, int, int, int]] = field(init=False)
    place: int = 0
    wrap: bool = True
    taken: int = 0
    taken_wrap: bool = True
    used: int = 0
    used_wrap: bool = True
    ids: list[int] = field(init=False)
    waiting: list[tuple[int, int]] = field(default_factory=list)
    flying: list[tuple[int, int]] = field(default_factory=list)
    """Each buffer's id, and its number of descriptors."""

    def __post_init__(self) -> None:
        self.table = [(0, 0, 0, 0)] * self.size
        self.ids = list(range(self.size))

    def add(self, length: int) -> None:
        if lengths(self.waiting) + lengths(self.flying) + length > self.size:
            return
        id_ = self.ids.pop()
        for step in range(length):
            flags = (AVAIL if self.wrap else USED) | (NEXT if step < length - 1 else 0)
            ends = step == length - 1
            self.table[self.place] = (DATA + self.place, 64, id_ if ends else 0xFFFF, flags)
            self.place += 1
            if self.place == self.size:
                self.place, self.wrap = 0, not self.wrap
        self.waiting.append((id_, length))

    def take(self, _count: int) -> None:
        if self.waiting:
            self.flying.append(self.waiting.pop(0))
            self.taken += self.flying[-1][1]
            if self.taken >= self.size:
                self.taken, self.taken_wrap = self.taken - self.size, not self.taken_wrap

    def use(self, which: int) -> None:
        if not self.flying:
            return
        id_, length = self.flying.pop(which % len(self.flying))
        self.table[self.used] = (0, 64, id_, AVAIL | USED if self.used_wrap else 0)
        self.ids.append(id_)
        self.used += length
        if self.used >= self.size:
            self.used, self.used_wrap = self.used - self.size, not self.used_wrap

    def ring(self) -> Ring:
        return Ring(
            kind="packed",
            size=self.size,
            descriptors=DESCRIPTORS,
            driver=DRIVER,
            device=DEVICE,
            last_avail=self.taken,
            used=self.used,
            in_flight=lengths(self.flying),
            event_idx=True,
            ranges=RANGES,
            memory={
                DESCRIPTORS: b"".join(struct.pack("<QIHH", *entry) for entry in self.table),
                DRIVER: struct.pack("<2H", 0x8000, 2),
                DEVICE: struct.pack("<2H", 0, 1),
            },
        )


def lengths(buffers: list[tuple[int, int]]) -> int:
    return sum(length for _, length in buffers)


def drive(queue: Split | Packed, steps: list[Step]) -> None:
    """Every state on the way is sound."""
    acts: dict[str, Callable[[int], None]] = {
        "add": queue.add,
        "take": queue.take,
        "use": queue.use,
    }
    for act, count in steps:
        acts[act](count)
        found = audit(queue.ring())
        assert not found.broken
        assert not found.unchecked
        if isinstance(queue, Packed):
            assert found.facts["wrap counter"] == str(int(queue.taken_wrap))
            assert found.facts["available"] == str(lengths(queue.waiting))


@given(st.sampled_from([2, 4, 8]), st.integers(INDICES - 12, INDICES - 1), STEPS)
def test_what_a_driver_and_a_device_make_of_a_split_queue_is_sound(
    size: int, begin: int, steps: list[Step]
) -> None:
    drive(Split(size, begin), steps)


@given(st.sampled_from([1, 2, 3, 4, 8]), STEPS)
def test_what_a_driver_and_a_device_make_of_a_packed_queue_is_sound(
    size: int, steps: list[Step]
) -> None:
    drive(Packed(size), steps)


def test_queues_are_sound_over_many_wraps() -> None:
    steps: list[Step] = [("add", 2), ("add", 1), ("take", 1), ("add", 1), ("take", 1), ("use", 1)]
    drive(Packed(5), steps * 40)
    split = Split(8, 0)
    for _ in range(INDICES + 9):
        for act in (split.add, split.take, split.use):
            act(1)
    assert split.avail == 9
    drive(split, steps * 4)


def test_a_wrap_counter_is_right_where_all_seems_available() -> None:
    """In flight are three of four places; the fourth is the rest of a chain of the lap before."""
    queue = Packed(4)
    for act, count in (("add", 2), ("take", 1), ("add", 2), ("take", 1), ("use", 0)):
        getattr(queue, act)(count)
    queue.add(1)
    queue.take(1)
    found = audit(queue.ring())
    assert (found.facts["wrap counter"], found.facts["available"]) == ("0", "0")
    assert not found.broken


# --- each rule has a ring that breaks it ----------------------------------------------------------


def split() -> Ring:
    """Two buffers wait, a chain of two and one alone; one is in flight."""
    queue = Split(8, INDICES - 1)
    for length in (1, 2, 1):
        queue.add(length)
    queue.take(1)
    return queue.ring()


def packed() -> Ring:
    """Over a lap's end: two used, one in flight, a chain of two waits."""
    queue = Packed(8)
    for _ in range(5):
        queue.add(2)
        queue.take(1)
        queue.use(1)
    queue.add(1)
    queue.take(1)
    queue.add(2)
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
    for _ in range(2):
        queue.add(1)
        queue.take(1)
    for _ in range(6):
        queue.add(1)
    return with_entry(queue.ring(), 0, DATA, 64, queue.flying[0][0], USED)


S, P = split(), packed()
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
    "flags: descriptor 0 was taken in this lap": with_entry(P, 0, DATA, 64, 1, AVAIL),
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
    queue.add(2)
    queue.take(1)
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
