"""One case checked: its values by the model, what is across them by the rules; refusals that name
the key, and the closest one that is right."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pydantic import ValidationError

from migrate.errors import ConfigurationError, quoted
from migrate.model import Case
from migrate.scenario.json_schema import known_beside
from migrate.scenario.rules import rules_of
from migrate.scenario.source_location import Keys, Origin, Table

_UNUSABLE = re.compile("[\0\ud800-\udfff]")
"""Letters that no file, no argument and no JSON can have."""


def checked_case(settings: Table, origin: Origin) -> Case:
    """The case that ``settings`` make, by the model and all rules. Raises ConfigurationError."""
    for keys, value in _values(settings, ()):
        if isinstance(value, float) and not math.isfinite(value):
            raise origin.refuse(keys, f"{value} is no number that can be used", "a finite one")
        if isinstance(value, str) and _UNUSABLE.search(value):
            said = f"{quoted(value)} has a NUL or a byte in it that is no UTF-8"
            raise origin.refuse(keys, said, "text without any")
    try:
        # JSON's strict mode takes a list for a tuple and an int for a float, and nothing else.
        case = Case.model_validate_json(json.dumps(settings, default=str), strict=True)
    except ValidationError as error:
        raise _explained(error, origin) from error
    for rule in rules_of(case):
        if rule.broken(case):
            raise origin.refuse(
                tuple(rule.key.split(".")), f"in case {case.id}: {rule.said}", rule.remedy
            )
    return case


def _values(value: Any, keys: Keys) -> Iterator[tuple[Keys, Any]]:
    """All that is no table and no list, however deep, with its keys."""
    if isinstance(value, (dict, list)):
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        yield from (leaf for key, part in inner for leaf in _values(part, (*keys, key)))
    else:
        yield keys, value


def _explained(error: ValidationError, origin: Origin) -> ConfigurationError:
    """The first finding of pydantic in our words, with the closest key or value that is right."""
    first = error.errors()[0]
    keys, kind = first["loc"], first["type"]
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if kind == "extra_forbidden":
        return origin.refuse(
            keys, f"there is no such key{more}", closest(str(keys[-1]), known_beside(keys))
        )
    if kind == "literal_error":
        allowed = re.findall(r"'[^']*'|\d+", str(first["ctx"]["expected"]))
        said = f"{quoted(first['input'])} is not allowed{more}"
        return origin.refuse(
            keys, said, closest(str(first["input"]), [one.strip("'") for one in allowed])
        )
    said = f"{quoted(first['input'])} is not allowed{more}"
    return origin.refuse(
        keys, said, first["msg"].removeprefix("Value error, ").replace("Input", "it")
    )


def refuse_unknown(table: Table, at: Keys, known: Sequence[str], origin: Origin) -> None:
    """Raise ConfigurationError for a key that is none of ``known``, with the closest of them."""
    for key in table:
        if key not in known:
            raise origin.refuse((*at, key), "there is no such key", closest(str(key), known))


def closest(said: str, known: Iterable[str]) -> str:
    """For a remedy: what may have been meant, and all that is known."""
    near = difflib.get_close_matches(said[:120], list(known), n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}known: {', '.join(sorted(known))}"
