"""What holds of every buffer in a virtqueue, whatever its kind: where it lies, and its tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from migrate.formats.virtqueue import (
    DESCRIPTOR_BYTES,
    INDIRECT,
    NEXT,
    WRITE,
    Audit,
    Descriptor,
    Ring,
    in_memory,
    parse_table,
)

_LONGEST_CHAIN = 1 << 32
"""Bytes (virtio 1.3, 2.7.5.2; nothing is said of packed queues)."""
Link = tuple[int, Descriptor]
"""A descriptor and its place in the ring."""


@dataclass(frozen=True, slots=True)
class _Sections:
    """Where the specification has a rule that both kinds of queues share."""

    place: str
    order: str
    longest: str
    table: str
    size_of_table: str
    negotiated: str
    entries: str


_SECTIONS = {
    "split": _Sections(
        place="2.7.5",
        order="2.7.4.2",
        longest="2.7.5.3.1",
        table="2.7.5.3.1",
        size_of_table="2.7.5.3",
        negotiated="2.7.5.3.1",
        entries="2.7.5.3",
    ),
    "packed": _Sections(
        place="2.8.4",
        order="2.8.17",
        longest="2.8.5",
        table="2.8.19",
        size_of_table="2.8.7",
        negotiated="2.8.19",
        entries="2.8.7",
    ),
}


@dataclass(slots=True)
class _Elements:
    """The elements of a buffer so far, or of one table."""

    number: int = 0
    bytes: int = 0
    readable: bool = False
    writable: bool = False
    mixed: bool = False
    """A readable one came after a writable one."""

    def add(self, entry: Descriptor) -> None:
        """One more element at the end."""
        writable = bool(entry.flags & WRITE)
        self.join(_Elements(1, entry.length, not writable, writable))

    def join(self, after: _Elements) -> None:
        """More elements at the end."""
        self.mixed = self.mixed or after.mixed or (self.writable and after.readable)
        self.number += after.number
        self.bytes += after.bytes
        self.readable = self.readable or after.readable
        self.writable = self.writable or after.writable


@dataclass(slots=True)
class Buffers:
    """Checks the buffers of one ring; each of their tables is read once, whoever refers to it."""

    ring: Ring
    result: Audit
    _tables: dict[tuple[int, int], _Elements] = field(default_factory=dict)

    def check(self, chain: Sequence[Link]) -> None:
        """One buffer, by the descriptors of its chain in their order."""
        sections, elements = _SECTIONS[self.ring.kind], _Elements()
        for step, (place, entry) in enumerate(chain):
            what = f"descriptor {place}"
            if entry.flags & INDIRECT:
                self._indirect(entry, what, in_list=step > 0)
                elements.join(self._table(entry, what))
            else:
                self._place(entry, what)
                elements.add(entry)
        head = chain[0][0]
        if elements.mixed:
            said = f"the buffer at {head} has a readable element after a writable one"
            self.result.breaks("order", said, sections.order)
        if elements.number > self.ring.size:
            said = f"the buffer at {head} has {elements.number} elements, the queue"
            self.result.breaks("length", f"{said} {self.ring.size}", sections.longest)
        if self.ring.kind == "split" and elements.bytes > _LONGEST_CHAIN:
            said = f"the buffer at {head} has {elements.bytes} bytes, more than 2^32"
            self.result.breaks("length", said, "2.7.5.2")

    def _place(self, entry: Descriptor, what: str) -> None:
        if not in_memory(self.ring, entry.address, entry.length):
            said = f"{what} is {entry.length} bytes at {entry.address:#x}, outside of the guest's "
            self.result.breaks("memory", f"{said}memory", _SECTIONS[self.ring.kind].place)

    def _indirect(self, entry: Descriptor, what: str, *, in_list: bool) -> None:
        """Whether a descriptor may refer to a table."""
        sections = _SECTIONS[self.ring.kind]
        if not self.ring.indirect:
            said = f"{what} is an indirect table, not negotiated"
            self.result.breaks("indirect", said, sections.negotiated)
        if entry.flags & NEXT:
            self.result.breaks("indirect", f"{what} is a table and goes on", sections.table)
        elif in_list and self.ring.kind == "packed":  # a split chain may end with one (2.7.5.3.2)
            self.result.breaks("indirect", f"{what} is a table in a list", sections.table)

    def _table(self, entry: Descriptor, what: str) -> _Elements:
        """What a table lists; nothing of one that was not captured, or can't be one."""
        key = (entry.address, entry.length)
        if key not in self._tables:
            self._tables[key] = self._read_table(entry, what)
        return self._tables[key]

    def _read_table(self, entry: Descriptor, what: str) -> _Elements:
        ring, result, sections = self.ring, self.result, _SECTIONS[self.ring.kind]
        elements, number = _Elements(), entry.length // DESCRIPTOR_BYTES
        if not entry.length or entry.length % DESCRIPTOR_BYTES:
            said = f"the table of {what} has {entry.length} bytes"
            result.breaks("indirect", said, sections.size_of_table)
            return elements
        if number > ring.size:
            said = f"the table of {what} has {number} entries, the queue {ring.size}"
            result.breaks("indirect", said, sections.longest)
            return elements
        table = ring.memory.get(entry.address, b"")[: entry.length]
        if not in_memory(ring, entry.address, entry.length):
            self._place(entry, f"the table of {what}")
        elif len(table) < entry.length:
            result.tables[entry.address, entry.length] = None
        else:
            result.tables_read += 1
            rows = parse_table(ring, table)
            follow = self._chained if ring.kind == "split" else self._listed
            for nested in follow(rows, what):
                elements.add(nested)
        return elements

    def _chained(self, table: list[Descriptor], what: str) -> Iterator[Descriptor]:
        """The table of a split queue is a chain that begins with its first entry (2.7.5.3)."""
        index, passed = 0, set[int]()
        while True:
            entry = table[index]
            passed.add(index)
            if entry.flags & INDIRECT:
                said = f"entry {index} of the table of {what} is a table, too"
                self.result.breaks("indirect", said, "2.7.5.3.1")
            else:
                self._place(entry, f"entry {index} of the table of {what}")
            yield entry
            if not entry.flags & NEXT:
                return
            following = entry.other
            if following >= len(table):
                said = f"{following} is no entry of the {len(table)} of {what}"
                self.result.breaks("indirect", said, "2.7.5.3")
                return
            if following in passed:
                self.result.breaks("indirect", f"the table of {what} loops", "2.7.5.3.1")
                return
            if self.ring.in_order and following != index + 1:
                said = f"entry {index} of the table of {what} is followed by {following}"
                self.result.breaks("in order", said, "2.7.5.3.1")
            index = following

    def _listed(self, table: list[Descriptor], what: str) -> Iterator[Descriptor]:
        """The table of a packed queue is read from its begin to its end (2.8.7)."""
        for index, entry in enumerate(table):
            name = f"entry {index} of the table of {what}"
            if entry.flags & INDIRECT:
                self.result.breaks("indirect", f"{name} is a table, too", "2.8.19")
            elif entry.flags & ~WRITE:
                said = f"{name} has flags {entry.flags:#x}, and none but WRITE is allowed"
                self.result.breaks("indirect", said, "2.8.19")
            else:
                self._place(entry, name)
            yield entry
