"""``--set KEY=VALUE``: keys of a scenario that the command line gives."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from migrate.errors import ConfigurationError, quoted
from migrate.input_file import parse_toml
from migrate.refusals import collected, refuse_unknown
from migrate.scenario.json_schema import OF_THE_CASE
from migrate.source_location import Origin

MAX_LETTERS = 100_000
"""Letters of an override: Linux takes no longer argument (MAX_ARG_STRLEN)."""
MAX_DEPTH = 8
"""Parts of a dotted key: the model has three."""


@dataclass(frozen=True, slots=True)
class Override:
    """A value that takes the place of the file's; ``place`` is what refusals call it."""

    keys: tuple[str, ...]
    value: Any
    place: str


def overrides_of(given: Sequence[str | Override]) -> tuple[Override, ...]:
    """Each text ``key=value`` as an override. Raises ConfigurationError for all that are none."""
    overrides = []
    with collected() as refusals:
        for each in given:
            with refusals.noted():
                overrides.append(each if isinstance(each, Override) else _override(each))
    return tuple(overrides)


def _override(text: str) -> Override:
    """The value is TOML, or a bare word."""
    key, equals, value = text.partition("=")
    keys = tuple(part.strip() for part in key.split("."))
    place = f"--set {quoted(text)}"
    if len(text) > MAX_LETTERS:
        raise ConfigurationError(
            place, said=f"it has {len(text)} letters", remedy=f"at most {MAX_LETTERS}; or a file"
        )
    if not equals or not all(keys) or len(keys) > MAX_DEPTH:
        raise ConfigurationError(
            place, said="this is not key=value", remedy="e.g. --set policy.hops=2"
        )
    refuse_unknown({keys[0]: None}, (), OF_THE_CASE, Origin(f"--set {key}", {}))
    shown = f"--set {'.'.join(keys)}"
    try:
        document = parse_toml(f"value = {value}", place)
    except ConfigurationError as error:
        if not isinstance(error.__cause__, tomllib.TOMLDecodeError):
            raise
        return Override(keys, value.strip(), shown)
    if len(document) > 1:
        raise ConfigurationError(place, said="it is more than one value", remedy="--set each")
    return Override(keys, document["value"], shown)
