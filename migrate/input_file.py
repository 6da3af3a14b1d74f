"""Files that people write and name: regular ones of a bounded size, in UTF-8, and TOML whose depth
is bounded, too.

A device or a named pipe has no end, or none for as long as nobody writes: it is refused.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from migrate.errors import ConfigurationError, quoted

LARGEST = 1 << 20
"""Bytes of a file that somebody writes: a thousand times what the longest of ours has."""
CHUNK = 1 << 20
"""Bytes that are read at once: what asks for as many as there may be has room for them made."""
LONGEST = 120
"""Letters of a key in an error."""
DEEPEST = 16
"""Tables and arrays in one another: no file of ours has more than four."""
_LONG_KEY = re.compile(r"""(?<![\w-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){64}""")
"""A dotted key as no file has one: tomllib takes the square of its parts."""


def read_bounded(path: Path, largest: int = LARGEST) -> bytes:
    """All of a regular file. Raises OSError: none, larger than ``largest``, or not to be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except ValueError as error:  # a path with a NUL byte in it
        raise OSError(str(error)) from error
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError("it is a folder: name a file")
        if not stat.S_ISREG(mode):
            raise OSError("it is no regular file: write what it says to one, and name that")
        return read_at_most(file, largest)


class Readable(Protocol):
    """A file, or what decompresses one."""

    def read(self, size: int, /) -> bytes: ...


def read_at_most(file: Readable, largest: int) -> bytes:
    """All of an open file. OSError: it has more than ``largest`` bytes."""
    content = bytearray()
    while chunk := file.read(min(CHUNK, largest + 1 - len(content))):
        content += chunk
        if len(content) > largest:
            raise OSError(f"it has more than {largest} bytes, the most that are read")
    return bytes(content)


def read_input(path: Path, tried: str, remedy: str) -> str:
    """The text of a file that somebody wrote. Raises ConfigurationError."""
    try:
        return read_bounded(path).decode("utf-8")
    except FileNotFoundError as error:
        raise ConfigurationError(tried, said="it does not exist", remedy=remedy) from error
    except UnicodeDecodeError as error:
        said = f"it is no UTF-8: byte {error.start} is {error.object[error.start]:#04x}"
        raise ConfigurationError(tried, said=said, remedy="save it as UTF-8") from error
    except OSError as error:
        raise ConfigurationError(tried, said=error.strerror or str(error), remedy=remedy) from error


def parse_toml(
    text: str, tried: str, remedy: str = "this is not TOML: see toml.io"
) -> dict[str, Any]:
    """What a TOML text says, :data:`DEEPEST` levels deep at most. Raises ConfigurationError."""
    if _LONG_KEY.search(text):
        raise _too_deep(tried)
    try:
        document = tomllib.loads(text)
    except RecursionError as error:
        raise _too_deep(tried) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(tried, said=str(error), remedy=remedy) from error
    except ValueError as error:  # Python turns no text of more than 4300 digits into a number
        said = "there is a number of thousands of digits"
        raise ConfigurationError(tried, said=said, remedy="a number of fewer digits") from error
    if _is_deeper(document, DEEPEST):
        raise _too_deep(tried)
    return document


def first_refusal(error: ValidationError) -> tuple[str, str]:
    """The key of the first value that does not fit, dotted, and what is wrong with it."""
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    if isinstance(inner := first.get("ctx", {}).get("error"), ValidationError):
        within, said = first_refusal(inner)
        return f"{key}.{within}", said
    said = first["msg"].removeprefix("Value error, ").replace("Input", "it", 1)
    if first["type"] == "missing":
        said = "it is not there"
    elif first["type"] == "extra_forbidden":
        said = "there is no such key"
    elif not isinstance(first["input"], (dict, list)):
        said = f"{quoted(first['input'])}: {said}"
    return (key if len(key) <= LONGEST else f"{key[:LONGEST]}…"), said


def _too_deep(tried: str) -> ConfigurationError:
    said = f"tables or arrays lie more than {DEEPEST} deep in one another"
    return ConfigurationError(tried, said=said, remedy="nest it less")


def _is_deeper(value: object, levels: int) -> bool:
    """Whether tables and lists lie in one another deeper than so many levels."""
    layer = [value]
    for _ in range(levels + 1):
        layer = [
            inner
            for outer in layer
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return bool(layer)
