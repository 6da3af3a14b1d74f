"""What is wrong with what somebody wrote, in words, and all of it at once."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from pydantic import ValidationError

from migrate.errors import CombinedConfigurationError, ConfigurationError, quoted
from migrate.source_location import Keys, Origin, Table

_SUBJECT = re.compile("^(Input|Dictionary|List|Tuple|String)\\b")
"""What pydantic calls a value."""
LONGEST_VALUE = 80
"""Letters of a value in an error."""
_CASE = re.compile(r"^in case \S+: ")
"""A rule that every case of a matrix breaks is one error."""


class Refusals:
    """Errors that are collected while the rest is still looked at; the same one counts once."""

    def __init__(self) -> None:
        self._errors: dict[tuple[str, str, str], ConfigurationError] = {}

    def __bool__(self) -> bool:
        return bool(self._errors)

    def add(self, error: ConfigurationError) -> None:
        """Note an error, or each of several."""
        for each in error.errors if isinstance(error, CombinedConfigurationError) else (error,):
            self._errors.setdefault((each.tried, _CASE.sub("", each.said), each.remedy), each)

    @contextmanager
    def noted(self) -> Iterator[None]:
        """A ConfigurationError in the block is noted, and what follows the block goes on."""
        try:
            yield
        except ConfigurationError as error:
            self.add(error)

    def raise_any(self) -> None:
        """Raise ConfigurationError if anything was noted."""
        errors = tuple(self._errors.values())
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise CombinedConfigurationError(errors)


@contextmanager
def collected() -> Iterator[Refusals]:
    """All that the block notes, and what it raises itself, is raised at its end."""
    refusals = Refusals()
    with refusals.noted():
        yield refusals
    refusals.raise_any()


def refuse_values(error: ValidationError, origin: Origin, known: Callable[[Keys], str]) -> NoReturn:
    """Raise ConfigurationError for each finding of pydantic, in our words; ``known`` is the remedy
    for a key that is wrong or not there."""
    refusals = Refusals()
    for each in _refused_values(error, origin, known):
        refusals.add(each)
    refusals.raise_any()
    raise error


def _refused_values(
    error: ValidationError, origin: Origin, known: Callable[[Keys], str], at: Keys = ()
) -> Iterator[ConfigurationError]:
    for finding in error.errors(include_url=False):
        keys = (*at, *finding["loc"])
        inner = finding.get("ctx", {}).get("error")
        if isinstance(inner, ValidationError):
            yield from _refused_values(inner, origin, known, keys)
        else:
            yield _refused_value(finding["type"], keys, finding, origin, known)


def _refused_value(
    kind: str, keys: Keys, finding: Any, origin: Origin, known: Callable[[Keys], str]
) -> ConfigurationError:
    value, context = finding["input"], finding.get("ctx", {})
    said = f"{quoted(value)} is not allowed"
    if kind == "extra_forbidden":
        return origin.refuse(keys, "there is no such key", known(keys))
    if kind == "missing":
        return origin.refuse(keys, "it is not there", known(keys))
    if kind == "text_form":
        place = origin.at(keys[:-1]) if keys[-1] == "[key]" else _setting(origin, keys, value)
        return ConfigurationError(place, said=context["words"], remedy=f"e.g. {context['example']}")
    if kind == "literal_error":
        allowed = re.findall(r"'([^']*)'|(\d+)", str(context["expected"]))
        return origin.refuse(keys, said, closest(str(value), [a or b for a, b in allowed]))
    if kind == "date_type":
        return origin.refuse(keys, said, "a date without quotes, e.g. 2027-01-31")
    message = _SUBJECT.sub("it", str(finding["msg"]).removeprefix("Value error, "))
    return origin.refuse(keys, said, message.replace(" after validation", ""))


def _setting(origin: Origin, keys: Keys, value: str) -> str:
    """``file, line 3: name = "Ux4"``."""
    shown = value if len(value) <= LONGEST_VALUE else f"{value[:LONGEST_VALUE]}…"
    return f"{origin.at(keys)} = {json.dumps(shown, ensure_ascii=False)}"


def refuse_unknown(table: Table, at: Keys, known: Sequence[str], origin: Origin) -> None:
    """Raise ConfigurationError for all keys that are not ``known``, with the closest to each."""
    with collected() as refusals:
        for key in table:
            if key not in known:
                remedy = closest(str(key), known)
                refusals.add(origin.refuse((*at, key), "there is no such key", remedy))


def closest(said: str, known: Iterable[str]) -> str:
    """For a remedy: what may have been meant, and all that is known."""
    near = difflib.get_close_matches(said[:120], list(known), n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}known: {', '.join(sorted(known))}"
