"""Where in a scenario file a key is said, for refusals that name file, line and key."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from migrate.errors import ConfigurationError

Keys = tuple[str | int, ...]
Table = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Origin:
    """Names the place of a key; ``said_by`` holds the places that a row's own values came from."""

    source: str
    lines: Mapping[Keys, int]
    said_by: Mapping[Keys, str] = field(default_factory=dict)

    def at(self, keys: Keys) -> str:
        """``file, line 3: interface.mode``; the line of the nearest table if the key has none."""
        dotted = ".".join(str(key) for key in keys)
        for length in range(len(keys), 0, -1):
            if said_by := self.said_by.get(keys[:length]):
                return f"{said_by}: {dotted}"
            if line := self.lines.get(keys[:length]):
                return f"{self.source}, line {line}: {dotted}"
        return f"{self.source}: {dotted}"

    def place(self, keys: Keys) -> str:
        """The same without the key."""
        return self.at(keys).removesuffix(": " + ".".join(str(key) for key in keys))

    def refuse(self, keys: Keys, said: str, remedy: str) -> ConfigurationError:
        """The error to raise."""
        return ConfigurationError(self.at(keys), said=said, remedy=remedy)


def lines_of(text: str) -> dict[Keys, int]:
    """The line, from 1, on which each key of a valid TOML text is said.

    A statement is grown line by line until it parses, so that strings and arrays over several
    lines are stepped over; tables in an array are counted from 0.
    """
    lines = text.splitlines()
    found: dict[Keys, int] = {}
    tables: dict[Keys, int] = {}
    prefix: Keys = ()
    number = 0
    while number < len(lines):
        begin, statement = number, lines[number]
        path: Keys
        number += 1
        while (parsed := _parsed(statement)) is None and number < len(lines):
            statement += "\n" + lines[number]
            number += 1
        header = re.match(r"\s*(\[\[?)", statement)
        for keys, _ in flat(parsed or {}):
            if header:
                path = prefix = _in_last(keys, tables, is_new=header[1] == "[[")
            else:
                path = (*prefix, *keys)
            for length in range(len(path) + 1):
                found.setdefault(path[:length], begin + 1)
    return found


def _parsed(statement: str) -> Table | None:
    try:
        return tomllib.loads(statement)
    except tomllib.TOMLDecodeError:
        return None


def _in_last(keys: Keys, tables: dict[Keys, int], *, is_new: bool) -> Keys:
    """``keys`` of a header with the index of the last table wherever a part names an array."""
    prefix: Keys = ()
    for position, key in enumerate(keys):
        prefix = (*prefix, key)
        if is_new and position == len(keys) - 1:
            tables[prefix] = tables.get(prefix, -1) + 1
        if prefix in tables:
            prefix = (*prefix, tables[prefix])
    return prefix


def flat(table: Table) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The leaves of nested tables with their keys; an empty table and a list are leaves."""
    for key, value in table.items():
        if isinstance(value, dict) and value:
            yield from (((key, *rest), leaf) for rest, leaf in flat(value))
        else:
            yield (key,), value
