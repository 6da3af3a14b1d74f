"""What is in a QEMU migration stream: which section is how long, and a device's fields.

A stream is a magic and a version, sections, an end, and last a description as JSON (QEMU,
migration/savevm.c). RAM's records have their own length (migration/ram.c); a device's state is just
its fields one after the other, and only the description knows how long they are. libvirt's saved
file (qemu_saveimage.h) has a header and the domain's XML before the stream.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from migrate.errors import MeasurementError
from migrate.formats.byte_reader import ByteReader, Bytes
from migrate.formats.virtio_net_state import NetState, decode_net_state
from migrate.formats.vmstate_description import (
    Description,
    Field,
    bad_description,
    described_list,
    described_number,
    described_word,
    find_description,
    read_fields,
    state_bytes,
)

_EOF, _START, _PART, _END, _FULL, _, _, _CONFIGURATION, _COMMAND = range(9)
_FOOTER = 0x7E
_MAGIC = b"QEVM"
_ZERO, _MEM_SIZE, _PAGE, _EOS, _CONTINUE, _XBZRLE, _COMPRESSED = 2, 4, 8, 0x10, 0x20, 0x40, 0x100
_FLUSH = 0x200
_HEAD = 1 + 4 + 1 + 4 + 4 + 1 + 4
"""Bytes of a section's head without its name, and its footer: kind, number, the name's length,
instance, version; kind, number."""
_WHOLE, _PARTIAL = b"LibvirtQemudSave", b"LibvirtQemudPart"
_HEADER = 16 + 19 * 4
_MOST_SECTIONS, _MOST_BLOCKS = 16384, 4096
_LONGEST_NAME = 256
_LARGEST_NET_STATE = 1 << 20
"""Bytes: what QEMU writes of one has some 50 KiB."""
FORMATS = ("raw", "gzip", "bzip2", "xz", "lzop", "zstd", "sparse")
"""Formats of libvirt's saved files by number: virQEMUSaveFormat."""


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
class StreamAccount:
    """A whole stream by its ``sections`` in order; with ``other_bytes`` they are all of it."""

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


def read_stream(data: Bytes) -> StreamAccount:
    """Read a whole stream, or libvirt's file of one; MeasurementError: what is wrong, and where."""
    begin = _stream_begin(data)
    described, at, size = find_description(data, begin)
    return _StreamReader(ByteReader(data, begin, at), described).account(
        len(data) - begin, size, begin > 0
    )


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """What a stream ends with: the devices that were saved when the guest had stopped."""

    sections: tuple[Section, ...]
    description_bytes: int
    network: Mapping[str, NetState] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_stream_end(data: Bytes) -> StreamEnd:
    """Read the end of a stream whose begin was not captured; MeasurementError says what is wrong.

    The description has the length of the sections that lie before it, and so where they begin.
    """
    described, at, size = find_description(data, 0)
    devices = described_list(described, "devices")
    begin = at - 1 - sum(_HEAD + len(described_word(d, "name")) + state_bytes(d) for d in devices)
    if begin < 0:
        raise ByteReader(data).damaged("devices are described that were not captured")
    return _StreamReader(ByteReader(data, begin, at), described).ending(size)


# --- what is around the stream ------------------------------------------------------------------


def _stream_begin(data: Bytes) -> int:
    """Where the stream begins: at once, or after libvirt's header and the XML."""
    magic = data[:16]
    if magic[:4] == _MAGIC:
        return 0
    cursor = ByteReader(data)
    if magic == _PARTIAL:
        raise cursor.damaged("libvirt did not finish to save")
    if magic != _WHOLE:
        raise cursor.damaged("neither a migration stream nor a file saved by libvirt")
    head = ByteReader(data, 16)
    # In the host's order: that in which the version is a small number.
    raw = [head.take(4, "libvirt's header") for _ in range(4)]
    order: Literal["little", "big"] = "little" if raw[0][0] else "big"
    version, length, _running, kind = (int.from_bytes(number, order) for number in raw)
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


# --- the sections -------------------------------------------------------------------------------


class _StreamReader:
    """Reads one stream, section by section."""

    def __init__(self, cursor: ByteReader, described: Description) -> None:
        self.cursor = cursor
        self.described = described
        self.page_size = described_number(described, "page_size")
        if self.page_size < 2 * _FLUSH or self.page_size & (self.page_size - 1):
            raise bad_description("page_size", described)
        self.states = {
            (described_word(device, "name"), described_number(device, "instance_id")): device
            for device in described_list(described, "devices")
        }
        self.sections: dict[int, Section] = {}
        self.capabilities: set[str] = set()
        self.machine = ""
        self.pages: defaultdict[str, int] = defaultdict(int)
        self.blocks: dict[str, int] = {}
        self.network: dict[str, NetState] = {}
        self.notes: list[str] = []

    def account(self, stream_bytes: int, description_bytes: int, by_libvirt: bool) -> StreamAccount:
        """The account of the whole stream."""
        self._read()
        sections = tuple(self.sections.values())
        ram = sum(section.bytes for section in sections if section.name == "ram")
        return StreamAccount(
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
            other_bytes=stream_bytes - sum(section.bytes for section in sections),
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

    def ending(self, description_bytes: int) -> StreamEnd:
        """The end of a stream, read from the first device in its description on."""
        self._sections()
        sections = tuple(self.sections.values())
        return StreamEnd(sections, description_bytes, self.network, tuple(self.notes))

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
            length = self.cursor.number(4, "machine")
            if length > _LONGEST_NAME:
                raise self.cursor.damaged(f"a machine's name of {length} bytes")
            self.machine = _text(self.cursor.take(length, "machine"))
            return
        begin = self.cursor.at
        for part in read_fields(state, self.cursor):
            size = min(part.bytes, _LONGEST_NAME)
            raw = self.cursor.data[begin + part.offset : begin + part.offset + size]
            if part.name == "name":
                self.machine = _text(raw)
            elif part.type == "capability":
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
            if len(self.sections) == _MOST_SECTIONS:
                raise cursor.damaged(f"more than {_MOST_SECTIONS} sections")
            name = cursor.name("a section's name")
            instance, version = (cursor.number(4, f"head of {name}") for _ in range(2))
            what: Literal["iterated", "full"] = "full" if kind == _FULL else "iterated"
            self.sections[number] = Section(name, instance, version, what, 0, 0)
        section = self.sections.get(number)
        if section is None:
            raise cursor.damaged(f"section {number} goes on, and never began")
        fields = self._content(section)
        self._footer(number, section)
        size = section.bytes + cursor.at - begin
        self.sections[number] = replace(section, bytes=size, parts=section.parts + 1, fields=fields)

    def _content(self, section: Section) -> tuple[Field, ...]:
        if section.kind == "full":
            state = self.states.pop((section.name, section.instance), None)  # each comes once
            if state is None:
                raise self.cursor.damaged(f"{section.name} {section.instance} is not described")
            begin = self.cursor.at
            fields = tuple(read_fields(state, self.cursor))
            self._network(section.name, fields, begin)
            return fields
        if section.name != "ram":
            raise self.cursor.damaged(f"how long records of {section.name} are is not known")
        self._ram()
        return ()

    def _footer(self, number: int, section: Section) -> None:
        # Very old machine types have none (x-send-section-footer); these are not looked for.
        if self.cursor.number(1, f"footer of {section.name}") != _FOOTER:
            raise self.cursor.damaged(f"{section.name} does not end where it should")
        if self.cursor.number(4, f"footer of {section.name}") != number:
            raise self.cursor.damaged(f"the footer of {section.name} is another section's")

    def _network(self, name: str, fields: tuple[Field, ...], begin: int) -> None:
        if not name.endswith("virtio-net") or [field.type for field in fields] != ["virtio"]:
            return
        try:
            if self.cursor.at - begin > _LARGEST_NET_STATE:
                raise self.cursor.damaged(f"it has {self.cursor.at - begin} bytes")
            self.network[name] = decode_net_state(bytes(self.cursor.data[begin : self.cursor.at]))
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
            if len(self.blocks) == _MOST_BLOCKS and name not in self.blocks:
                raise cursor.damaged(f"more than {_MOST_BLOCKS} blocks of memory")
            self.blocks[name] = cursor.number(8, name)
            left -= self.blocks[name]
            if "x-ignore-shared" in self.capabilities:
                cursor.skip(8, name)


def _text(raw: bytes) -> str:
    return raw.decode("ascii", "replace")
