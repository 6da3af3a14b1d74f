"""Where in a file of ours a key is said, for refusals that name file, line and key."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from migrate.errors import ConfigurationError

Keys = tuple[str | int, ...]
Table = dict[str, Any]
LONGEST = 120
"""Letters of a key in an error."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Names the place of a key; ``said_by`` holds the places that a row's own values came from."""

    source: str
    lines: Mapping[Keys, int]
    said_by: Mapping[Keys, str] = field(default_factory=dict)

    def at(self, keys: Keys) -> str:
        """``file, line 3: interface.mode``."""
        dotted = ".".join(str(key) for key in keys)
        return f"{self.place(keys)}: {dotted if len(dotted) <= LONGEST else dotted[:LONGEST] + '…'}"

    def place(self, keys: Keys) -> str:
        """The same without the key; the line of the nearest table if the key has none."""
        for length in range(len(keys), 0, -1):
            if said_by := self.said_by.get(keys[:length]):
                return said_by
            if line := self.lines.get(keys[:length]):
                return f"{self.source}, line {line}"
        return self.source

    def refuse(self, keys: Keys, said: str, remedy: str) -> ConfigurationError:
        """The error to raise."""
        return ConfigurationError(self.at(keys), said=said, remedy=remedy)


def lines_of(text: str) -> dict[Keys, int]:
    """The line, from 1, on which each key of a valid TOML text is said; tables in an array are
    counted from 0."""
    found: dict[Keys, int] = {}
    tables: dict[Keys, int] = {}
    prefix: Keys = ()
    for line, statement in _statements(text):
        path: Keys
        header = re.match(r"\s*(\[\[?)", statement)
        for keys, _ in flat(tomllib.loads(statement)):
            if header:
                path = prefix = _in_last(keys, tables, is_new=header[1] == "[[")
            else:
                path = (*prefix, *keys)
            for length in range(len(path) + 1):
                found.setdefault(path[:length], line)
    return found


_TOKENS = re.compile(
    r"""
    (?P<text>\"{3}(?:[^\\]|\\.)*?"{3,5} | '{3}.*?'{3,5} | "(?:[^"\\\n]|\\.)*" | '[^'\n]*')
    | (?P<open>[\[{]) | (?P<close>[\]}]) | (?P<comment>\#[^\n]*) | (?P<end>\n)
    """,
    re.VERBOSE | re.DOTALL,
)
"""What tells where a statement of TOML ends: at a line's end that is in no text and no bracket."""


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Each statement of a valid TOML text with the line, from 1, on which it begins."""
    begin, line, number, depth = 0, 1, 1, 0
    for token in _TOKENS.finditer(text + "\n"):
        depth += {"open": 1, "close": -1}.get(token.lastgroup or "", 0)
        number += token[0].count("\n")
        if token.lastgroup == "end" and not depth:
            if statement := text[begin : token.end()].strip():
                yield line, statement
            begin, line = token.end(), number


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
