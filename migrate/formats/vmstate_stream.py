"""A QEMU migration stream's own account: which section is how long, and what a device's fields say.

A stream is a magic and a version, sections, an end, and last a description as JSON (QEMU,
migration/savevm.c). RAM's records tell their own length (migration/ram.c); a device's state is just
its fields one after the other, and only the description knows how long they are. libvirt's saved
file (qemu_saveimage.h) has a header and the domain's XML before the stream.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from migrate.errors import MeasurementError
from migrate.formats.byte_reader import Bytes, Cursor
from migrate.formats.virtio_net_state import NetState, decode

_EOF, _START, _PART, _END, _FULL, _SUBSECTION, _DESCRIPTION, _CONFIGURATION, _COMMAND = range(9)
_FOOTER = 0x7E
_MAGIC = b"QEVM"
_ZERO, _MEM_SIZE, _PAGE, _EOS, _CONTINUE, _XBZRLE, _COMPRESSED = 2, 4, 8, 0x10, 0x20, 0x40, 0x100
_FLUSH = 0x200
_HEAD = 1 + 4 + 1 + 4 + 4 + 1 + 4
"""Of a section without its name: kind, number, the name's length, instance, version; its footer."""
_WHOLE, _PARTIAL = b"LibvirtQemudSave", b"LibvirtQemudPart"
_HEADER = 16 + 19 * 4
FORMATS = ("raw", "gzip", "bzip2", "xz", "lzop", "zstd", "sparse")
"""libvirt's virQEMUSaveFormat."""
_TAIL = 64 << 20
"""No description is longer; QEMU's own tool looks through 10 MiB."""
_GUESSES = 64
NUMBERS = {"bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"}

Described = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a device's state; ``offset`` in that state, ``bytes`` of all its ``count``."""

    name: str
    type: str
    offset: int
    bytes: int
    count: int = 1
    value: int | None = None
    """Of a single number, else None."""


@dataclass(frozen=True, slots=True)
class Section:
    """What one device put into the stream, with the headers and footers around it."""

    name: str
    instance: int
    version: int
    kind: Literal["iterated", "full"]
    """Sent in parts while the guest ran on and then to the end, or at once when it had stopped."""
    bytes: int
    parts: int = 1
    fields: tuple[Field, ...] = ()


@dataclass(frozen=True, slots=True)
class Ram:
    """The guest's memory; pages are counted as often as they were sent."""

    bytes: int
    page_size: int
    full_pages: int
    zero_pages: int
    delta_pages: int
    """Sent as a difference (XBZRLE), or compressed."""
    blocks: Mapping[str, int]
    """QEMU's blocks of memory by name, in bytes."""


@dataclass(frozen=True, slots=True)
class Account:
    """Of a whole stream: ``sections`` in its order, and with ``other_bytes`` they are all of it."""

    stream_bytes: int
    sections: tuple[Section, ...]
    ram: Ram | None
    machine: str
    other_bytes: int
    """The stream's head, configuration, commands, end, and its description of itself."""
    description_bytes: int
    saved_by_libvirt: bool
    network: Mapping[str, NetState] = field(default_factory=dict)
    """virtio network devices' state by the name of their section."""
    notes: tuple[str, ...] = ()


def account(data: Bytes) -> Account:
    """Read a whole stream, or libvirt's file of one; MeasurementError: what is wrong, and where."""
    begin = _begin(data)
    described, at, size = _description(data, begin)
    return _Reading(Cursor(data, begin, at), described).account(len(data) - begin, size, begin > 0)


@dataclass(frozen=True, slots=True)
class Ending:
    """What a stream ends with: the devices that were saved when the guest had stopped."""

    sections: tuple[Section, ...]
    description_bytes: int
    network: Mapping[str, NetState] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def ending(data: Bytes) -> Ending:
    """Of a stream whose begin was not captured; MeasurementError: what is wrong, and where.

    The description tells how long the sections are that lie before it, and so where they begin.
    """
    described, at, size = _description(data, 0)
    devices = _listed(described, "devices")
    begin = at - 1 - sum(_HEAD + len(str(one.get("name"))) + _length(one) for one in devices)
    if begin < 0:
        raise Cursor(data).damaged("devices are described that were not captured")
    return _Reading(Cursor(data, begin, at), described).ending(size)


# --- what is around the stream ------------------------------------------------------------------


def _begin(data: Bytes) -> int:
    """Where the stream begins: at once, or after libvirt's header and the XML."""
    magic = data[:16]
    if magic[:4] == _MAGIC:
        return 0
    cursor = Cursor(data)
    if magic == _PARTIAL:
        raise cursor.damaged("libvirt did not finish to save")
    if magic != _WHOLE:
        raise cursor.damaged("neither a migration stream nor a file saved by libvirt")
    head = Cursor(data, 16)
    # In the host's order: that in which the version is a small number.
    raw = [head.take(4, "libvirt's header") for _ in range(4)]
    order: Literal["little", "big"] = "little" if raw[0][0] else "big"
    version, length, _running, kind = (int.from_bytes(one, order) for one in raw)
    if version not in (1, 2):
        raise head.damaged(f"version {version} of libvirt's format is not known")
    if kind:
        name = FORMATS[kind] if kind < len(FORMATS) else f"format {kind}"
        raise MeasurementError(
            "read the migration stream",
            said=f"libvirt saved it as {name}, and only raw streams are read",
            remedy='save_image_format = "raw" in /etc/libvirt/qemu.conf',
        )
    cursor.skip(_HEADER + length, "libvirt's header and the domain's XML")
    return cursor.at


def _description(data: Bytes, begin: int) -> tuple[Described, int, int]:
    """The JSON, where it begins (its kind's byte), and its length.

    It is the last of the stream and has no zero byte, but before it are the end of the sections (a
    zero), its kind, and its length, whose first byte is a zero.
    """
    least = max(begin, len(data) - _TAIL)
    at = len(data)
    for _ in range(_GUESSES):
        at = data.rfind(b"\0\x06\0", least, at + 2)
        if at < 0:
            break
        size = int.from_bytes(data[at + 2 : at + 6], "big")
        if at + 6 + size > len(data):
            continue
        try:
            found = json.loads(bytes(data[at + 6 : at + 6 + size]))
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            return found, at + 1, size + 5
    raise Cursor(data, len(data)).damaged(
        "no description of the devices at the end: cut off, or QEMU sends none (post-copy)"
    )


# --- what the description tells -----------------------------------------------------------------


def _listed(of: Described, key: str) -> list[Described]:
    found = of.get(key, [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise _undescribed(key, of)
    return found


def _counted(of: Described, key: str, default: int | None = None) -> int:
    found = of.get(key, default)
    if not isinstance(found, int) or found < 0:
        raise _undescribed(key, of)
    return found


def _undescribed(key: str, of: Described) -> MeasurementError:
    where = str(of.get("name", of.get("vmsd_name", "the whole")))[:80]
    return MeasurementError("read the migration stream", said=f"its description: {key} of {where}")


def _fields(state: Described, cursor: Cursor, path: str, offset: int) -> Iterator[Field]:
    """Go over a state as it is described; subsections follow on the fields (vmstate_save_state)."""
    begin = cursor.at - offset
    for told in _listed(state, "fields"):
        index = f"[{told['index']}]" if "index" in told else ""
        name = f"{path}{told.get('name', '')}{index}"
        count, size = _counted(told, "array_len", 1), _counted(told, "size")
        at = cursor.skip(size * count, name)
        inner = told.get("struct")
        if isinstance(inner, dict) and count == 1:
            within = Cursor(cursor.data, at, cursor.at)
            yield from _fields(inner, within, f"{name}.", at - begin)
            if within.at != within.end:
                raise within.damaged(f"{name} is described as longer than its fields")
            continue
        kind = str(told.get("type", ""))
        value = None
        if count == 1 and kind.removesuffix(" equal") in NUMBERS:
            signed = kind.startswith("int")
            value = int.from_bytes(cursor.data[at : cursor.at], "big", signed=signed)
        yield Field(name, kind, at - begin, size * count, count, value)
    for told in _listed(state, "subsections"):
        kind_byte = cursor.number(1, "a subsection")
        name = cursor.name("a subsection's name")
        if kind_byte != _SUBSECTION or name != told.get("vmsd_name"):
            raise cursor.damaged(f"no subsection {told.get('vmsd_name')!r} of {path or 'a device'}")
        cursor.skip(4, "a subsection's version")
        yield from _fields(told, cursor, f"{path}{name}.", cursor.at - begin)


def _length(state: Described) -> int:
    """Bytes of a state, as described, and of its subsections with their heads."""
    own = sum(_counted(t, "size") * _counted(t, "array_len", 1) for t in _listed(state, "fields"))
    more = _listed(state, "subsections")
    return own + sum(1 + 1 + len(str(one.get("vmsd_name"))) + 4 + _length(one) for one in more)


# --- the sections -------------------------------------------------------------------------------


class _Reading:
    """One reading of a stream, from its magic to its end."""

    def __init__(self, cursor: Cursor, described: Described) -> None:
        self.cursor = cursor
        self.described = described
        self.page_size = _counted(described, "page_size")
        if self.page_size < 2 * _FLUSH or self.page_size & (self.page_size - 1):
            raise _undescribed("page_size", described)
        self.states = {
            (str(one.get("name")), _counted(one, "instance_id")): one
            for one in _listed(described, "devices")
        }
        self.sections: dict[int, Section] = {}
        self.capabilities: set[str] = set()
        self.machine = ""
        self.pages: defaultdict[str, int] = defaultdict(int)
        self.blocks: dict[str, int] = {}
        self.network: dict[str, NetState] = {}
        self.notes: list[str] = []

    def account(self, stream_bytes: int, description_bytes: int, by_libvirt: bool) -> Account:
        """All of it."""
        self._read()
        sections = tuple(self.sections.values())
        ram = sum(one.bytes for one in sections if one.name == "ram")
        return Account(
            stream_bytes=stream_bytes,
            sections=sections,
            ram=Ram(
                bytes=ram,
                page_size=self.page_size,
                full_pages=self.pages["full"],
                zero_pages=self.pages["zero"],
                delta_pages=self.pages["delta"],
                blocks=self.blocks,
            )
            if ram
            else None,
            machine=self.machine,
            other_bytes=stream_bytes - sum(one.bytes for one in sections),
            description_bytes=description_bytes,
            saved_by_libvirt=by_libvirt,
            network=self.network,
            notes=tuple(self.notes),
        )

    def _read(self) -> None:
        cursor = self.cursor
        if cursor.take(4, "magic") != _MAGIC:
            raise cursor.damaged("no migration stream begins here")
        if (version := cursor.number(4, "version")) != 3:
            raise cursor.damaged(f"version {version} of the stream is not known")
        self._sections()

    def ending(self, description_bytes: int) -> Ending:
        """From the first of the devices that the description tells of."""
        self._sections()
        told = tuple(self.sections.values())
        return Ending(told, description_bytes, self.network, tuple(self.notes))

    def _sections(self) -> None:
        cursor = self.cursor
        while (kind := cursor.number(1, "a section")) != _EOF:
            if kind == _CONFIGURATION:
                self._configuration()
            elif kind == _COMMAND:
                cursor.skip(2, "a command")
                cursor.skip(cursor.number(2, "a command's length"), "a command")
            elif kind in (_START, _PART, _END, _FULL):
                self._section(kind)
            else:
                raise cursor.damaged(f"a section of kind 0x{kind:02x}")
        if cursor.at != cursor.end:
            raise cursor.damaged("the sections end before the description begins")

    def _configuration(self) -> None:
        state = self.described.get("configuration")
        if not isinstance(state, dict):  # of an old machine type: a length, and the name
            self.machine = _text(self.cursor.take(self.cursor.number(4, "machine"), "machine"))
            return
        begin = self.cursor.at
        for one in _fields(state, self.cursor, "", 0):
            raw = self.cursor.data[begin + one.offset : begin + one.offset + one.bytes]
            if one.name == "name":
                self.machine = _text(raw)
            elif one.type == "capability":
                self.capabilities.add(_text(raw[1:]))
        if "mapped-ram" in self.capabilities:
            raise self.cursor.damaged("a stream with mapped-ram: its pages are not in the sections")

    def _section(self, kind: int) -> None:
        cursor = self.cursor
        begin = cursor.at - 1
        number = cursor.number(4, "a section's number")
        if kind in (_START, _FULL):
            if number in self.sections:
                raise cursor.damaged(f"section {number} begins twice")
            name = cursor.name("a section's name")
            instance, version = (cursor.number(4, f"head of {name}") for _ in range(2))
            what: Literal["iterated", "full"] = "full" if kind == _FULL else "iterated"
            self.sections[number] = Section(name, instance, version, what, 0, 0)
        one = self.sections.get(number)
        if one is None:
            raise cursor.damaged(f"section {number} goes on, and never began")
        fields = self._content(one)
        self._footer(number, one)
        size = one.bytes + cursor.at - begin
        self.sections[number] = replace(one, bytes=size, parts=one.parts + 1, fields=fields)

    def _content(self, one: Section) -> tuple[Field, ...]:
        if one.kind == "full":
            state = self.states.get((one.name, one.instance))
            if state is None:
                raise self.cursor.damaged(f"{one.name} {one.instance} is not described")
            begin = self.cursor.at
            fields = tuple(_fields(state, self.cursor, "", 0))
            self._network(one.name, fields, begin)
            return fields
        if one.name != "ram":
            raise self.cursor.damaged(f"how long records of {one.name} are is not known")
        self._ram()
        return ()

    def _footer(self, number: int, one: Section) -> None:
        # Very old machine types have none (x-send-section-footer); these are not looked for.
        if self.cursor.number(1, f"footer of {one.name}") != _FOOTER:
            raise self.cursor.damaged(f"{one.name} does not end where it should")
        if self.cursor.number(4, f"footer of {one.name}") != number:
            raise self.cursor.damaged(f"the footer of {one.name} is another section's")

    def _network(self, name: str, fields: tuple[Field, ...], begin: int) -> None:
        if not name.endswith("virtio-net") or [told.type for told in fields] != ["virtio"]:
            return
        try:
            self.network[name] = decode(bytes(self.cursor.data[begin : self.cursor.at]))
        except MeasurementError as error:
            self.notes.append(f"the state of {name} can't be read: {error.said}")

    def _ram(self) -> None:
        cursor, mask = self.cursor, self.page_size - 1
        while True:
            word = cursor.number(8, "a record of memory")
            flags = word & mask
            if flags & _MEM_SIZE:
                self._blocks(word & ~mask)
            elif flags & (_ZERO | _PAGE | _XBZRLE | _COMPRESSED):
                self._page(flags)
            elif flags & _EOS:
                return
            elif flags != _FLUSH:
                raise cursor.damaged(f"a record of memory with flags 0x{flags:x}")

    def _page(self, flags: int) -> None:
        cursor = self.cursor
        if not flags & _CONTINUE:
            cursor.name("a block's name")
        if flags & _ZERO:
            self.pages["zero"] += 1
            cursor.skip(1, "a zero page")
        elif flags & _PAGE:
            self.pages["full"] += 1
            cursor.skip(self.page_size, "a page")
        elif flags & _XBZRLE:
            self.pages["delta"] += 1
            cursor.skip(1, "a page's difference")
            cursor.skip(cursor.number(2, "a page's difference"), "a page's difference")
        else:
            self.pages["delta"] += 1
            cursor.skip(cursor.number(4, "a compressed page"), "a compressed page")

    def _blocks(self, total: int) -> None:
        cursor, left = self.cursor, total
        while left > 0:
            name = cursor.name("a block of memory")
            self.blocks[name] = cursor.number(8, name)
            left -= self.blocks[name]
            if "x-ignore-shared" in self.capabilities:
                cursor.skip(8, name)


def _text(raw: bytes) -> str:
    return raw.decode("ascii", "replace")
