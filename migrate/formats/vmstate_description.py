"""A migration stream's description of itself, in JSON at its end: each device's fields and sizes.

QEMU, migration/savevm.c and migration/vmstate.c (vmstate_save_state). Without it nobody knows how
long a device's state is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from migrate.errors import MeasurementError
from migrate.formats.byte_reader import ByteReader, Bytes

_SUBSECTION = 5
_LARGEST = 16 << 20
"""Bytes: no description is longer (a processor's is some 20 KiB); QEMU's own tool looks through 10
MiB. All that is tried to be read as one is no longer, either."""
_GUESSES = 64
_DEPTH = 32
"""Of states within states; QEMU's are a few deep."""
_NAME, _PATH = 60, 240
"""Characters that are kept of a name, and of the names on the way to it."""
_MOST = 1 << 48
"""Larger numbers, of bytes or elements, are nonsense."""
_NUMBERS = {"bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"}

Description = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a device's state; ``offset`` in that state, ``bytes`` of all its ``count``."""

    name: str
    type: str
    offset: int
    bytes: int
    count: int = 1
    value: int | None = None
    """The value of a single number; None: it is no number, or an array."""


def find_description(data: Bytes, begin: int) -> tuple[Description, int, int]:
    """The JSON, the offset at which it begins (its kind's byte), and its length.

    It is the last of the stream and has no zero byte, but before it are the end of the sections (a
    zero), its kind, and its length, whose first byte is a zero.
    """
    least = max(begin, len(data) - _LARGEST)
    at, left = len(data), _LARGEST
    for _ in range(_GUESSES):
        at = data.rfind(b"\0\x06\0", least, at + 2)
        if at < 0:
            break
        size = int.from_bytes(data[at + 2 : at + 6], "big")
        if at + 6 + size > len(data) or size > left:
            continue
        left -= size
        try:
            document = json.loads(bytes(data[at + 6 : at + 6 + size]))
        except (ValueError, RecursionError):
            continue
        if isinstance(document, dict):
            return document, at + 1, size + 5
    raise ByteReader(data, len(data)).damaged(
        "no description of the devices at the end: cut off, or QEMU sends none (post-copy)"
    )


def described_list(state: Description, key: str) -> list[Description]:
    items = state.get(key, [])
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise bad_description(key, state)
    return items


def described_number(state: Description, key: str, default: int | None = None) -> int:
    number = state.get(key, default)
    if not isinstance(number, int) or not 0 <= number <= _MOST:
        raise bad_description(key, state)
    return number


def described_word(state: Description, key: str) -> str:
    """A word of a description, as text that can be kept; empty: it is none."""
    word = state.get(key, "")
    return word.encode(errors="replace").decode() if isinstance(word, str) else ""


def bad_description(key: str, state: Description) -> MeasurementError:
    where = described_word(state, "name") or described_word(state, "vmsd_name") or "the whole"
    return MeasurementError("read the migration stream", said=f"its description: {key} of {where}")


def read_fields(
    state: Description, cursor: ByteReader, path: str = "", offset: int = 0, depth: int = 0
) -> Iterator[Field]:
    """The fields of a state as it is described; subsections follow them (vmstate_save_state)."""
    if depth > _DEPTH:
        raise cursor.damaged(f"{path} is described deeper than any state is")
    begin = cursor.at - offset
    for entry in described_list(state, "fields"):
        name = _below(path, entry)
        count, size = described_number(entry, "array_len", 1), described_number(entry, "size")
        at = cursor.skip(size * count, name)
        inner = entry.get("struct")
        if isinstance(inner, dict) and count == 1:
            within = ByteReader(cursor.data, at, cursor.at)
            yield from read_fields(inner, within, f"{name}.", at - begin, depth + 1)
            if within.at != within.end:
                raise within.damaged(f"{name} is described as longer than its fields")
            continue
        kind = described_word(entry, "type")[:_NAME]
        value = None
        if count == 1 and size <= 8 and kind.removesuffix(" equal") in _NUMBERS:
            signed = kind.startswith("int")
            value = int.from_bytes(cursor.data[at : cursor.at], "big", signed=signed)
        yield Field(name, kind, at - begin, size * count, count, value)
    for entry in described_list(state, "subsections"):
        kind_byte = cursor.number(1, "a subsection")
        name, wanted = cursor.name("a subsection's name"), described_word(entry, "vmsd_name")
        if kind_byte != _SUBSECTION or name != wanted:
            of = path or "a device"
            raise cursor.damaged(f"no subsection {wanted[:_NAME]!r} of {of}")
        cursor.skip(4, "a subsection's version")
        within_path = f"{path}{name}."[-_PATH:]
        yield from read_fields(entry, cursor, within_path, cursor.at - begin, depth + 1)


def _below(path: str, entry: Description) -> str:
    """The name of a field with those on the way to it, and its index in an array."""
    index = entry.get("index")
    place = f"[{index}]" if isinstance(index, int) and abs(index) <= _MOST else ""
    return f"{path}{described_word(entry, 'name')[:_NAME]}{place}"[-_PATH:]


def state_bytes(state: Description, depth: int = 0) -> int:
    """Bytes of a state as described, and of its subsections with their heads."""
    if depth > _DEPTH:
        raise bad_description("subsections", state)
    own = sum(
        described_number(t, "size") * described_number(t, "array_len", 1)
        for t in described_list(state, "fields")
    )
    subsections = described_list(state, "subsections")
    return own + sum(
        1 + 1 + len(described_word(part, "vmsd_name")) + 4 + state_bytes(part, depth + 1)
        for part in subsections
    )
