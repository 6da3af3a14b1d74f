"""Mutations of real samples: of bytes, of JSON, of lines of text. The random numbers are handed in,
so that a number makes the same input again."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from random import Random
from typing import Any

from selftests.fuzz.lane import Kind

Mutation = Callable[[bytes, Random], bytes]

NUMBERS = (
    *(0, 1, -1, 2, 7, 255, 256, 65535, 65536),
    *(2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63)),
)
"""Where a width or a sign ends."""
WORDS = (
    *("", "x", "0", "-1", "nan", "inf", "1e999", "\x00", "\x1b[2J", "\u202e", "\ufeff", "é", "٣"),
    *(
        "../../etc/passwd",
        "%s%n",
        "{{7*7}}",
        "<b>",
        "a\nb",
        "\r",
        "\ud800",
        "\udcff",
        "😀",
        "A" * 5000,
    ),
)
RAW = {
    "@long@": "1" * 6000,
    "@deep@": "[" * 3000 + "]" * 3000,
    "@deeper@": '{"a":' * 120_000,
    "@exponent@": "1e400",
    "@fraction@": "0." + "3" * 400,
    "@twice@": '{"id": 1, "id": []}',
}
"""JSON that no value of Python makes: it takes the place of a word."""


# --- bytes --------------------------------------------------------------------------------------


def _span(data: bytes, random: Random) -> tuple[int, int]:
    begin = random.randint(0, len(data))
    return begin, min(len(data), begin + random.choice((1, 1, 2, 4, 8, 64, 1024)))


def _flip(data: bytes, random: Random) -> bytes:
    changed = bytearray(data or b"\0")
    for _ in range(random.choice((1, 1, 2, 8))):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _insert(data: bytes, random: Random) -> bytes:
    at, _ = _span(data, random)
    return data[:at] + random.randbytes(random.choice((1, 2, 4, 16, 300))) + data[at:]


def _delete(data: bytes, random: Random) -> bytes:
    begin, end = _span(data, random)
    return data[:begin] + data[end:]


def _truncate(data: bytes, random: Random) -> bytes:
    return data[: random.randint(0, len(data))]


def _duplicate(data: bytes, random: Random) -> bytes:
    begin, end = _span(data, random)
    return data[:end] + data[begin:end] * random.choice((1, 2, 50)) + data[end:]


def _repeat_byte(data: bytes, random: Random) -> bytes:
    at, _ = _span(data, random)
    filling = bytes([random.choice((0, 10, 32, 65, 128, 255))])
    return data[:at] + filling * random.choice((100, 5000, 70_000)) + data[at:]


def _number(data: bytes, random: Random) -> bytes:
    width, letter = random.choice(((1, "B"), (2, "H"), (4, "I"), (8, "Q")))
    value = random.choice(NUMBERS) % (1 << 8 * width)
    made = struct.pack(random.choice("<>") + letter, value)
    at, _ = _span(data, random)
    return data[:at] + made + data[at + width :]


BYTES: tuple[Mutation, ...] = (
    *(_flip, _insert, _delete, _truncate, _duplicate, _repeat_byte, _number),
)


# --- JSON ---------------------------------------------------------------------------------------

_Place = tuple[Any, Any]
"""A container, and a key or an index of it."""


def _places(document: Any) -> list[_Place]:
    found: list[_Place] = []
    waiting = [document]
    while waiting:
        node = waiting.pop()
        keys = node if isinstance(node, dict) else range(len(node))
        for key in keys:
            found.append((node, key))
            if isinstance(node[key], dict | list):
                waiting.append(node[key])
    return found


MOST_BYTES = 4 << 20
"""Of a mutated document: the harness itself must not run out of memory."""
MOST_PLACES = 20_000
"""In one that is changed once more."""
MOST_RAW = 3
"""So often a word of :data:`RAW` is made, where a list repeats it."""


def _odd_value(old: Any, random: Random) -> Any:
    times = random.choice((2, 40) if isinstance(old, dict | list) else (2, 40, 2000))
    return random.choice(
        (
            *(None, True, False, [], {}, [old], {"x": old}, str(old)[:1000]),
            *(random.choice(NUMBERS), random.choice(NUMBERS), random.choice(WORDS)),
            *(random.choice(tuple(RAW)), float("nan"), float("inf"), -0.5, 1e300, 5e-324),
            *([old] * times, [[]], [None], {"": None}),
        )
    )


def _nudged(old: Any, random: Random) -> Any:
    """Of the same type, so that it gets further in."""
    if isinstance(old, bool) or old is None:
        return not old
    if isinstance(old, int):
        return old + random.choice((-1, 1, random.choice(NUMBERS), -2 * old))
    if isinstance(old, float):
        return random.choice((-old, old * 1e6, old / 1e6, old + 1))
    if isinstance(old, str):
        return _text(old.encode("utf-8", "surrogatepass"), random).decode("utf-8", "replace")
    if isinstance(old, list):
        return random.choice((old[:-1], old + old[-1:], old[::-1], old[1:]))
    return {key: value for key, value in old.items() if random.random() < 0.7}


def _change(node: Any, key: Any, random: Random) -> None:
    what = random.randrange(5)
    if what == 0 and isinstance(node, dict):
        node[random.choice(WORDS)] = node.pop(key)
    elif what == 1:
        del node[key]
    elif what == 2:
        node[key] = _odd_value(node[key], random)
    else:
        node[key] = _nudged(node[key], random)


def _json(data: bytes, random: Random) -> bytes:
    """One JSON document, or one of those that stand a line each, changed at some of its places."""
    lines = data.split(b"\n") if data[:1] == b"{" else [data]
    at = random.randrange(len(lines))
    lines[at] = _document(lines[at], random)
    return b"\n".join(lines)


def _document(data: bytes, random: Random) -> bytes:
    """What is no JSON is mutated as bytes."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return random.choice(BYTES)(data, random)
    box = [document]
    for _ in range(random.choice((1, 1, 1, 2, 5))):
        places = _places(box)
        if len(places) > MOST_PLACES:
            break
        # The document as a whole now and then, and its first levels as often as all that is below.
        begin = 0 if len(places) == 1 or random.random() < 0.03 else 1
        node, key = random.choice(places[begin : random.choice((20, len(places) + 1))])
        _change(node, key, random)
        if not box:
            return b""
    text = json.dumps(box[0])
    for word, raw in RAW.items():
        text = text.replace(f'"{word}"', raw, MOST_RAW)
    return text.encode() if len(text) <= MOST_BYTES else data


# --- lines of text ------------------------------------------------------------------------------

_NUMBER = re.compile(rb"0x[0-9a-f]+|\d+(\.\d+)?")


def _other_number(data: bytes, random: Random) -> bytes:
    numbers = list(_NUMBER.finditer(data))
    if not numbers:
        return data
    place = random.choice(numbers)
    odd = random.choice((str(random.choice(NUMBERS)), "9" * 5000, "1e999", "nan", "", "0x", "٣"))
    return data[: place.start()] + odd.encode() + data[place.end() :]


def _word(data: bytes, random: Random) -> bytes:
    at, end = _span(data, random)
    word = random.choice(WORDS).encode("utf-8", "surrogatepass")
    return data[:at] + word + data[random.choice((at, end)) :]


def _text(data: bytes, random: Random) -> bytes:
    return random.choice((_other_number, _word, _delete, _duplicate, _flip))(data, random)


def _line(data: bytes, random: Random) -> bytes:
    """Lines dropped, twice, in another order, run together; or something in one of them."""
    lines = data.split(b"\n")
    at, other = random.randrange(len(lines)), random.randrange(len(lines))
    what = random.randrange(8)
    if what == 0:
        del lines[at]
    elif what == 1:
        lines[at:at] = [lines[other]] * random.choice((1, 3, 200))
    elif what == 2:
        lines[at], lines[other] = lines[other], lines[at]
    elif what == 3:
        lines[at : at + 2] = [b"".join(lines[at : at + 2])]
    else:
        lines[at] = _text(lines[at], random)
    return b"\n".join(lines)


OF: dict[Kind, tuple[Mutation, ...]] = {
    "bytes": BYTES,
    "json": (*(_json,) * 20, *BYTES[:5]),
    "lines": (*(_line,) * 10, *BYTES),
}


def mutated(data: bytes, kind: Kind, random: Random) -> bytes:
    """``data`` after a few mutations."""
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        data = random.choice(OF[kind])(data, random)
    return data
