"""Scenario files: TOML in, a fixed row of cases out, nonsense refused before a host is touched.

The shape is told in ``docs/scenario-files.md``; the checks of single values are those of
:mod:`migrate.model`, the checks across values are
:mod:`migrate.scenario.rules`. Every refusal is a
:class:`~migrate.errors.ConfigurationError` whose ``tried`` names file, line and key.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from migrate.data import shipped
from migrate.errors import ConfigurationError, quoted, visible
from migrate.input_file import parse_toml, read_input
from migrate.model import Case
from migrate.refusals import Refusals, closest, collected, refuse_unknown
from migrate.scenario.json_schema import OF_THE_CASE, OF_THE_FILE, schema
from migrate.scenario.override import Override, overrides_of
from migrate.scenario.validation import case_of_values, checked_case
from migrate.source_location import Keys, Origin, Table, flat, lines_of

__all__ = ["Scenario", "expand", "for_modes", "load", "load_all", "matching", "parse", "schema"]

MAX_ID = 120
"""Characters of a case's id: it names a folder, and paths below it must stay usable."""
MAX_CASES = 10_000
"""Of one file, before any are left out: more take days to try."""
MAX_TABLES = 1000
"""Variants of one file, and so many exclusions."""

NOTHING: Mapping[str, Any] = {}

LISTS = frozenset({("roots",), ("needs",), ("faults",)}) | {
    ("expect", "held_by"),
    ("expect", "allow_unmeasured"),
    ("interface", "vdpa", "features_off"),
}
"""Keys whose one value is a list: only a list of lists is an axis of these."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario file as it was read, and the cases that came of it, in the file's order."""

    name: str
    path: str
    text: str
    cases: tuple[Case, ...]


def load(
    path: Path, overrides: Sequence[str | Override] = (), defaults: Mapping[str, Any] = NOTHING
) -> Scenario:
    """Read ``path``; ``overrides`` are ``key=value`` with a TOML value, or a bare word.

    ``defaults`` are a lab's, for what the scenario leaves open: tables as in a scenario.

    Raises ConfigurationError.
    """
    remedy = "name a readable TOML file: see testcases/scenarios/"
    text = read_input(shipped(path), f"read scenario {path}", remedy)
    return parse(text, visible(str(path)), overrides, defaults)


def load_all(
    paths: Iterable[Path],
    overrides: Sequence[str | Override] = (),
    defaults: Mapping[str, Any] = NOTHING,
) -> tuple[Scenario, ...]:
    """Read several files; an id that two of them make is refused."""
    given, scenarios = overrides_of(overrides), []
    with collected() as refusals:
        for path in paths:
            with refusals.noted():
                scenarios.append(load(path, given, defaults))
    seen: dict[str, str] = {}
    for case in itertools.chain.from_iterable(scenario.cases for scenario in scenarios):
        if case.id in seen:
            raise ConfigurationError(
                f"{case.source_file}: name",
                said=f"the case {case.id} is also made by {seen[case.id]}",
                remedy="give one of the two files another `name`",
            )
        seen[case.id] = case.source_file
    return tuple(scenarios)


def matching(scenarios: Sequence[Scenario], pattern: str) -> tuple[Scenario, ...]:
    """Only the cases whose id matches a pattern of ``*``, ``?`` and ``[...]``.

    Raises ConfigurationError if there is none.
    """
    some = tuple(
        replace(scenario, cases=cases)
        for scenario in scenarios
        if (cases := tuple(case for case in scenario.cases if fnmatchcase(case.id, pattern)))
    )
    if not some:
        known = [case.id for scenario in scenarios for case in scenario.cases]
        raise ConfigurationError(
            f"--case {quoted(pattern)}", said="no case matches", remedy=closest(pattern, known[:50])
        )
    return some


def for_modes(
    modes: Sequence[str],
    base: Path | None = None,
    overrides: Sequence[str | Override] = (),
    defaults: Mapping[str, Any] = NOTHING,
) -> Scenario:
    """The cases of ``compare --modes``: one a mode, all else as in ``base`` or the defaults."""
    chosen = Override(("interface", "mode"), list(modes), "--modes")
    if base is not None:
        return load(base, (*overrides, chosen), defaults)
    return parse('name = "compare"\n', "--modes", (*overrides, chosen), defaults)


def parse(
    text: str,
    source: str,
    overrides: Sequence[str | Override] = (),
    defaults: Mapping[str, Any] = NOTHING,
) -> Scenario:
    """The scenario in ``text``; ``source`` is what refusals call it. Raises ConfigurationError."""
    document = parse_toml(text, f"read scenario {source}")
    origin = Origin(source, lines_of(text))
    given = overrides_of(overrides)
    name = document.get("name", Path(source).stem)
    with collected() as refusals:
        with refusals.noted():
            refuse_unknown(document, (), (*OF_THE_CASE, *OF_THE_FILE), origin)
        if not isinstance(name, str) or not name:
            refusals.add(origin.refuse(("name",), "the name is no text", 'e.g. name = "modes"'))
            name = "unnamed"
        cases = tuple(_cases(name, source, _rows(document, origin, given, defaults, refusals)))
    return Scenario(name, source, text, cases)


def _rows(
    document: Table,
    origin: Origin,
    overrides: Sequence[Override],
    defaults: Mapping[str, Any],
    refusals: Refusals,
) -> tuple[Row, ...]:
    """Every combination; where there is none to be had, what all would have in common is checked,
    so that all that is wrong with it is noted."""
    with refusals.noted():
        rows = tuple(expand(_merge(dict(defaults), document), origin, overrides))
        if rows:
            return rows
        raise origin.refuse(("matrix_exclude",), "no case is left", "exclude less")
    with refusals.noted():
        settings = {key: document[key] for key in OF_THE_CASE if key in document}
        case_of_values({**settings, "id": "common"}, origin)
    return ()


# --- expansion ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Axis:
    """One key that takes several values."""

    keys: tuple[str, ...]
    values: tuple[Any, ...]
    place: str


@dataclass(frozen=True, slots=True)
class Row:
    """One combination: the settings of a case, the parts of its id, where they were said."""

    settings: Table
    label: tuple[str, ...]
    origin: Origin


def expand(document: Table, origin: Origin, overrides: Sequence[Override] = ()) -> Iterator[Row]:
    """Variants (slowest), then the axes in the file's order, the last one fastest."""
    given = {override.keys: override for override in overrides}
    base = {key: document[key] for key in OF_THE_CASE if key in document}
    with collected() as refusals:
        axes: list[Axis] = []
        with refusals.noted():
            axes = _axes(document.get("matrix", {}), given, origin)
        with refusals.noted():
            excludes = _excludes(document, origin) if axes or not refusals else []
        with refusals.noted():
            variants = tuple(_variants(document, origin))
    fixed = {keys: each for keys, each in given.items() if not any(keys == a.keys for a in axes)}
    _not_too_many(len(variants), len(excludes), axes, origin)
    unused = set(range(len(excludes)))
    for variant, settings, places in variants:
        for values in itertools.product(*(axis.values for axis in axes)):
            chosen = list(zip(axes, values, strict=True))
            merged = _merge(base, settings)
            for keys, value in (
                *((axis.keys, value) for axis, value in chosen),
                *((keys, override.value) for keys, override in fixed.items()),
            ):
                merged = _merge(merged, _nest(keys, value))
            said_by = dict(places)
            said_by.update((axis.keys, axis.place) for axis in axes)
            said_by.update((keys, override.place) for keys, override in fixed.items())
            told: dict[Keys, Any] = {**dict(flat(merged)), ("variant",): variant}
            hits = {n for n, out in enumerate(excludes) if out.items() <= told.items()}
            unused -= hits
            if not hits:
                label = (variant, *(_label(axis.keys, value) for axis, value in chosen))
                yield Row(
                    merged, tuple(filter(None, label)), Origin(origin.source, origin.lines, said_by)
                )
    if unused and not overrides:
        rule: Keys = ("matrix_exclude", min(unused))
        raise origin.refuse(rule, "no combination is like this", "correct it or take it out")


def _not_too_many(variants: int, excludes: int, axes: Sequence[Axis], origin: Origin) -> None:
    """Refuse what would make more cases than can ever be tried, before any is made."""
    for key, count in (("variants", variants), ("matrix_exclude", excludes)):
        if count > MAX_TABLES:
            raise origin.refuse((key,), f"there are {count}", f"at most {MAX_TABLES}")
    sizes = [variants, *(len(axis.values) for axis in axes)]
    if (count := math.prod(sizes)) > MAX_CASES:
        raise origin.refuse(
            ("matrix",),
            f"it makes {quoted(count)} cases: {' × '.join(map(str, sizes[:9]))}",
            f"at most {MAX_CASES}: fewer values an axis, or several files",
        )


def _axes(matrix: Any, given: Mapping[tuple[str, ...], Override], origin: Origin) -> list[Axis]:
    """An override takes the place of its axis; a list for a key of one value makes a new one."""
    if not isinstance(matrix, dict):
        raise origin.refuse(("matrix",), "this is no table", "write [matrix] and keys below it")
    axes: dict[tuple[str, ...], Axis] = {}
    by_line = sorted(flat(matrix), key=lambda item: origin.lines.get(("matrix", *item[0]), 0))
    with collected() as refusals:
        for key, values in by_line:
            with refusals.noted():
                keys, path = _split(key), ("matrix", *key)
                if keys[0] not in OF_THE_CASE:
                    raise origin.refuse(path, "there is no such key", closest(keys[0], OF_THE_CASE))
                axes[keys] = Axis(keys, _distinct(values, path, origin), origin.place(path))
        for keys, override in given.items():
            value, place = override.value, override.place
            with refusals.noted():
                if isinstance(value, list) and (keys not in LISTS or (value and _all_lists(value))):
                    axes[keys] = Axis(keys, _distinct(value, keys, Origin(place, {})), place)
                elif keys in axes:
                    axes[keys] = Axis(keys, (value,), place)
    return list(axes.values())


def _distinct(values: Any, keys: Keys, origin: Origin) -> tuple[Any, ...]:
    """The values of an axis: a list, not empty, of single values, none of them twice."""
    if not isinstance(values, list):
        raise origin.refuse(keys, "an axis is a list of values", f"for example [{quoted(values)}]")
    if not values:
        raise origin.refuse(keys, "the axis is empty", "give it a value, or take it out")
    seen: set[str] = set()
    for value in values:
        if isinstance(value, dict):
            raise origin.refuse(keys, "an axis has no tables in it", "use [[variants]] for these")
        if (text := json.dumps(value, default=str)) in seen:
            raise origin.refuse(keys, f"{quoted(value)} is there twice", "name each value once")
        seen.add(text)
    return tuple(values)


def _variants(document: Table, origin: Origin) -> Iterator[tuple[str, Table, dict[Keys, str]]]:
    """Name, settings and places of each variant; one without a name if there are none."""
    variants = document.get("variants", [{}])
    if not _all_tables(variants) or not variants:
        raise origin.refuse(("variants",), "this is no list of tables", "write [[variants]]")
    names: set[str] = set()
    with collected() as refusals:
        for number, variant in enumerate(variants):
            with refusals.noted():
                _check_variant(variant, number, names, origin, named="variants" in document)
    for number, variant in enumerate(variants):
        at: Keys = ("variants", number)
        name = variant.get("name", "")
        settings = {key: value for key, value in variant.items() if key != "name"}
        places: dict[Keys, str] = {k: origin.place((*at, *k)) for k, _ in flat(settings)}
        yield name, settings, places


def _check_variant(
    variant: Table, number: int, names: set[str], origin: Origin, *, named: bool
) -> None:
    """Add its name to ``names``. Raises ConfigurationError."""
    at: Keys = ("variants", number)
    name = variant.get("name", "")
    with collected() as refusals:
        if named and (not isinstance(name, str) or not name):
            said = "a variant has no name"
            refusals.add(origin.refuse((*at, "name"), said, 'e.g. name = "postcopy"'))
        elif name in names:
            said = f"{quoted(name)} is there twice"
            refusals.add(origin.refuse((*at, "name"), said, "name each one once"))
        else:
            names.add(name)
        with refusals.noted():
            refuse_unknown(variant, at, (*OF_THE_CASE, "name"), origin)


def _excludes(document: Table, origin: Origin) -> list[dict[tuple[str, ...], Any]]:
    """Combinations to leave out: flat keys and their values."""
    excludes = document.get("matrix_exclude", [])
    at: Keys = ("matrix_exclude",)
    if not _all_tables(excludes) or not all(excludes):
        raise origin.refuse(at, "this is no list of tables", "write [[matrix_exclude]]")
    axes = ("variant", *(".".join(keys) for keys, _ in flat(document.get("matrix", {}))))
    with collected() as refusals:
        for number, exclude in enumerate(excludes):
            with refusals.noted():
                keys_of_rule = {".".join(keys): value for keys, value in flat(exclude)}
                refuse_unknown(keys_of_rule, (*at, number), axes, origin)
    return [{_split(keys): value for keys, value in flat(rule)} for rule in excludes]


def _cases(name: str, source: str, rows: Sequence[Row]) -> Iterator[Case]:
    taken: set[str] = set()
    with collected() as refusals:
        for number, row in enumerate(rows):
            with refusals.noted():
                case_id = _case_id(name, row, taken)
                settings = {**row.settings, "id": case_id, "source_file": source, "row": number}
                yield checked_case(settings, row.origin)


def _case_id(name: str, row: Row, taken: set[str]) -> str:
    """Add it to ``taken``. Raises ConfigurationError."""
    name_and_label = "-".join((name, *row.label))
    case_id = re.sub(r"[^A-Za-z0-9._=+-]", "_", name_and_label).lstrip("._=+-")
    if not case_id or len(case_id) > MAX_ID:
        raise row.origin.refuse(
            ("name",),
            f"the case id {quoted(case_id)} is too long or empty",
            f"1 to {MAX_ID} letters, with the names of its variant and its axes' values",
        )
    if case_id in taken:
        raise row.origin.refuse(
            ("matrix",), f"two rows make the case id {case_id}", "tell them apart by a variant"
        )
    taken.add(case_id)
    return case_id


# --- small tools for nested tables --------------------------------------------------------------


def _all_tables(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _all_lists(value: list[Any]) -> bool:
    return all(isinstance(item, list) for item in value)


def _split(keys: tuple[str, ...]) -> tuple[str, ...]:
    """Quoted dotted keys taken apart."""
    return tuple(".".join(keys).split("."))


def _nest(keys: tuple[str, ...], value: Any) -> Table:
    for key in reversed(keys):
        value = {key: value}
    return dict(value)


def _merge(base: Table, over: Table) -> Table:
    """Tables are merged, all else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(merged.get(key), dict) and isinstance(value, dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _label(keys: tuple[str, ...], value: Any) -> str:
    """A part of an id: a word speaks for itself, a number or a truth needs its key."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "+".join(str(item) for item in value) or "none"
    return f"{keys[-1]}={str(value).lower()}"
