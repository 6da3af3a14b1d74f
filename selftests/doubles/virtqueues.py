"""A driver and a device on a virtqueue in memory, which can be stopped after every write.

Both are as free as the specification lets them be: the device returns buffers in any order, or in
batches where IN_ORDER is negotiated; the driver writes what is not available yet in any order,
takes free descriptors and ids from either end, and writes over whatever it may.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from migrate.formats.virtqueue import AVAIL, INDICES, NEXT, USED, WRITE, Ring

DESCRIPTORS, DRIVER, DEVICE, DATA, TABLE = 0x1000, 0x4000, 0x8000, 0x10000, 0x20000
RANGES = ((0, 0x100000),)
Act = Literal["add", "take", "use"]
Step = tuple[Act, int]
Entry = tuple[int, int, int, int]


def run(queue: Split | Packed, steps: list[Step]) -> Iterator[None]:
    """Comes back after every write."""
    for act, number in steps:
        yield from {"add": queue.add, "take": queue.take, "use": queue.use}[act](number)


@dataclass
class Split:
    """A split queue; ``begin``: of both indices, as if it had been in use for long."""

    size: int
    begin: int = 0
    in_order: bool = False
    seed: int = 0
    length: int = 64
    """What the device says that it wrote."""
    table: list[Entry] = field(init=False)
    heads: list[int] = field(init=False)
    elements: list[tuple[int, int]] = field(init=False)
    free: list[int] = field(init=False)
    waiting: list[list[int]] = field(default_factory=list)
    flying: list[list[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.avail = self.taken = self.used = self.begin % INDICES
        old = bool(self.begin)
        self.table = [(DATA, 32, 0, 0) if old else (0, 0, 0, 0)] * self.size
        ids = [n % self.size for n in range(self.size)] if old else [0] * self.size
        self.heads, self.elements = list(ids), [(id_, 9 if old else 0) for id_ in ids]
        if self.in_order and old:  # batches leave whatever was there
            self.elements = [(self.random.getrandbits(32), 7) for _ in ids]
        self.free = list(range(self.size))

    def add(self, length: int) -> Iterator[None]:
        """One or two buffers, made available by one step of the index."""
        added = list[list[int]]()
        for _ in range(self.random.choice((1, 1, 2))):
            if len(self.free) < length:
                break
            first = self.in_order or self.random.random() < 0.5
            chain = [self.free.pop(0 if first else -1) for _ in range(length)]
            for step in self.random.sample(range(length), length):
                goes_on = step < length - 1
                following = chain[step + 1] if goes_on else self.random.randrange(1 << 16)
                flags = (NEXT if goes_on else 0) | (WRITE if step >= length // 2 else 0)
                self.table[chain[step]] = (DATA + chain[step], 64, flags, following)
                yield
            self.heads[(self.avail + len(added)) % self.size] = chain[0]
            added.append(chain)
            yield
        self.avail = (self.avail + len(added)) % INDICES
        self.waiting += added
        yield

    def take(self, _number: int) -> Iterator[None]:
        if self.waiting:
            self.flying.append(self.waiting.pop(0))
            self.taken = (self.taken + 1) % INDICES
            yield

    def use(self, which: int) -> Iterator[None]:
        if not self.flying:
            return
        number = 1
        if self.in_order:
            number = 1 + which % len(self.flying)
            chains = [self.flying.pop(0) for _ in range(number)]
        else:
            chains = [self.flying.pop(which % len(self.flying))]
        self.elements[self.used % self.size] = (chains[-1][0], self.length)
        self.used = (self.used + number) % INDICES
        for chain in chains:
            self.free += chain
        yield

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
            in_order=self.in_order,
            ranges=RANGES,
            memory={
                DESCRIPTORS: b"".join(struct.pack("<QIHH", *entry) for entry in self.table),
                DRIVER: struct.pack(f"<{self.size + 3}H", 0, self.avail, *self.heads, 7),
                DEVICE: struct.pack("<2H", 0, self.used)
                + b"".join(struct.pack("<2I", *element) for element in self.elements)
                + b"\x09\x00",
            },
        )


@dataclass
class Packed:
    """A packed queue in its first lap."""

    size: int
    in_order: bool = False
    seed: int = 0
    table: list[Entry] = field(init=False)
    ids: list[int] = field(init=False)
    place: int = 0
    wrap: bool = True
    taken: int = 0
    taken_wrap: bool = True
    used: int = 0
    used_wrap: bool = True
    waiting: list[tuple[int, int]] = field(default_factory=list)
    flying: list[tuple[int, int]] = field(default_factory=list)
    """Each buffer's id, and its number of descriptors."""

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.table = [(0, 0, 0, 0)] * self.size
        self.ids = list(range(self.size))

    @property
    def available(self) -> int:
        """Descriptors that wait."""
        return lengths(self.waiting)

    def add(self, length: int) -> Iterator[None]:
        """The first descriptor's flags come last."""
        if lengths(self.waiting) + lengths(self.flying) + length > self.size:
            return
        id_ = self.ids.pop(self.random.choice((0, -1)))
        begin, begin_wrap = self.place, self.wrap
        order = self.random.choice((range(1, length), range(length - 1, 0, -1)))
        for step in (*order, 0):
            place = (begin + step) % self.size
            turn = begin_wrap if begin + step < self.size else not begin_wrap
            flags = (AVAIL if turn else USED) | (WRITE if step >= length // 2 else 0)
            ends = step == length - 1
            if not ends:
                flags |= NEXT
            self.table[place] = (DATA + place, 64, id_ if ends else 0xFFFF, flags)
            if step:
                yield
        self.place, laps = (begin + length) % self.size, (begin + length) // self.size
        self.wrap = begin_wrap != bool(laps % 2)
        self.waiting.append((id_, length))
        yield

    def take(self, _number: int) -> Iterator[None]:
        if self.waiting:
            self.flying.append(self.waiting.pop(0))
            self.taken, self.taken_wrap = self._go_on(
                self.taken, self.taken_wrap, self.flying[-1][1]
            )
            yield

    def use(self, which: int) -> Iterator[None]:
        if not self.flying:
            return
        number = 1 + which % len(self.flying) if self.in_order else 1
        at = 0 if self.in_order else which % len(self.flying)
        batch = [self.flying.pop(at) for _ in range(number)]
        mark = AVAIL | USED if self.used_wrap else 0
        self.table[self.used] = (self.table[self.used][0], 64, batch[-1][0], mark)
        self.ids += [id_ for id_, _ in batch]
        self.used, self.used_wrap = self._go_on(self.used, self.used_wrap, lengths(batch))
        yield

    def _go_on(self, place: int, wrap: bool, number: int) -> tuple[int, bool]:
        over = place + number >= self.size
        return (place + number) % self.size, wrap != over

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
            in_order=self.in_order,
            ranges=RANGES,
            memory={
                DESCRIPTORS: b"".join(struct.pack("<QIHH", *entry) for entry in self.table),
                DRIVER: struct.pack("<2H", 0x8000, 2),
                DEVICE: struct.pack("<2H", 0, 1),
            },
        )


def lengths(buffers: list[tuple[int, int]]) -> int:
    return sum(length for _, length in buffers)
