"""One case checked: its values by the model, what is across them by the rules."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from migrate.errors import quoted
from migrate.model import Case
from migrate.refusals import closest, collected, refuse_values
from migrate.scenario.json_schema import known_beside
from migrate.scenario.rules import rules_of
from migrate.source_location import Keys, Origin, Table

_UNUSABLE = re.compile("[\0\ud800-\udfff]")
"""Letters that no file, no argument and no JSON can have."""


def checked_case(settings: Table, origin: Origin) -> Case:
    """The case that ``settings`` make, by the model and all rules. Raises ConfigurationError."""
    case = case_of_values(settings, origin)
    with collected() as refusals:
        for rule in rules_of(case):
            if rule.broken(case):
                keys, said = tuple(rule.key.split(".")), f"in case {case.id}: {rule.said}"
                refusals.add(origin.refuse(keys, said, rule.remedy))
    return case


def case_of_values(settings: Table, origin: Origin) -> Case:
    """The same by the model alone: each value by itself is right. Raises ConfigurationError."""
    with collected() as refusals:
        for keys, value in _values(settings, ()):
            if isinstance(value, float) and not math.isfinite(value):
                said = f"{value} is no number that can be used"
                refusals.add(origin.refuse(keys, said, "a finite one"))
            if isinstance(value, str) and _UNUSABLE.search(value):
                said = f"{quoted(value)} has a NUL or a byte in it that is no UTF-8"
                refusals.add(origin.refuse(keys, said, "text without any"))
    try:
        # JSON's strict mode takes a list for a tuple and an int for a float, and nothing else.
        return Case.model_validate_json(json.dumps(settings, default=str), strict=True)
    except ValidationError as error:
        refuse_values(error, origin, _known)


def _known(keys: Keys) -> str:
    return closest(str(keys[-1]), known_beside(keys))


def _values(value: Any, keys: Keys) -> Iterator[tuple[Keys, Any]]:
    """All that is no table and no list, however deep, with its keys."""
    if isinstance(value, (dict, list)):
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        yield from (leaf for key, part in inner for leaf in _values(part, (*keys, key)))
    else:
        yield keys, value
