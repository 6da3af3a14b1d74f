"""The tables of the documentation that are made of what the program itself reads: its registries
and its values.

``python -m selftests.reference --update`` writes them anew, each between its two comments.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from migrate.analysis.phases import SPANS, gap_part
from migrate.backends.registry import INSPECTIONS, MODES
from migrate.checks.registry import CHECKS
from migrate.lab import trace_points
from migrate.lab.capabilities import HOST
from migrate.lab.local.config import LocalConfig, LocalHostConfig
from migrate.lab.nested.config import MachineConfig
from migrate.lab.prepare.plan import Preparation
from migrate.lab.rack.config import RackConfig, RackHost, RackPeer
from migrate.lab.resources import Resources
from migrate.migration.faults import BACKEND_FAULTS, GUEST_FAULTS, HOST_FAULTS, NEEDS_POWER
from migrate.model import (
    Case,
    Expect,
    Fault,
    GuestSpec,
    Interface,
    Phase,
    PhaseName,
    Policy,
    Vdpa,
    VirtualFunction,
    Workload,
)
from migrate.model.docstrings import field_meanings, in_markdown
from selftests.helpers import ROOT

COMMAND = "python -m selftests.reference --update"
Row = tuple[str, ...]


def markdown(heads: Row, rows: Iterable[Row]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    assert not any("|" in cell for row in lines for cell in row)
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def first_paragraph(of: Callable[..., object]) -> str:
    paragraph = (of.__doc__ or "").partition("\n\n")[0]
    assert paragraph, of
    return without_stop(in_markdown(paragraph))


def without_stop(sentence: str) -> str:
    """Small at the begin, and without a full stop: as the cells of tables are written here."""
    ordinary = re.match(r"[A-Z][a-z]|A ", sentence)
    head = sentence[:1].lower() + sentence[1:] if ordinary else sentence
    return head.removesuffix(".")


# --- what is registered -------------------------------------------------------------------------


def checks() -> str:
    return markdown(
        ("check", "key of `[expect]`", "passes if", "looks at", "unmeasured without"),
        (
            (
                f"`{check.name}`",
                f"`{check.key}`" if check.key else "always",
                check.passes_if,
                check.looks_at,
                ", ".join(check.needs_by_docstring) or "-",
            )
            for check in CHECKS
        ),
    )


def phases() -> str:
    return markdown(
        ("phase", "from … to", "part"),
        (
            (f"`{name}`", SPANS[name], gap_part([Phase(name=name, begin_ns=0, end_ns=0)]))
            for name in get_args(PhaseName)
        ),
    )


FAULT_NAMES: tuple[str, ...] = get_args(Fault.model_fields["do"].annotation)
FAULTS: Mapping[str, Callable[..., object]] = {**GUEST_FAULTS, **HOST_FAULTS, **BACKEND_FAULTS}


def faults() -> str:
    def needs(name: str) -> str:
        if name in NEEDS_POWER:
            return "hosts with a switch: the nested lab"
        served = [
            f"`{mode}`"
            for mode, backend in MODES.items()
            if backend.has_process and name in BACKEND_FAULTS
        ]
        return f"an interface that a process serves: {', '.join(served)}" if served else "-"

    return markdown(
        ("fault", "what happens", "needs"),
        ((f"`{name}`", first_paragraph(FAULTS[name]), needs(name)) for name in FAULT_NAMES),
    )


def capabilities() -> str:
    def needed_by(name: str) -> str:
        able = [f"`{mode}`" for mode, backend in MODES.items() if name in backend.needs]
        as_it_is = [
            f"`{mode}`, to be migrated as it is"
            for mode, backend in MODES.items()
            if name in backend.needs_to_migrate
        ]
        return ", ".join([*able, *as_it_is]) or "-"

    return markdown(
        ("capability", "means", "modes that need it"),
        (
            (f"`{name}`", first_paragraph(judged), needed_by(name))
            for inspection in (HOST, *INSPECTIONS, trace_points.INSPECTION)
            for name, judged in inspection.capabilities.items()
        ),
    )


# --- keys of files ------------------------------------------------------------------------------

LISTED_ELSEWHERE = {"phases.md": get_args(PhaseName), "faults.md": FAULT_NAMES}
TYPES = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "`true`, `false`",
    "object": "a table",
}
LISTS = {"text": "texts", "a table": "tables"}


def keys(kind: type[BaseModel], *leave_out: str) -> str:
    """Of one table of a TOML file: what each key takes, what it is without, what it means."""
    schema = kind.model_json_schema(by_alias=False)
    meanings = field_meanings(kind)
    return markdown(
        ("key", "takes", "default", "means"),
        (
            (
                f"`{name}`",
                takes(schema["properties"][name], schema.get("$defs", {})),
                default(field.get_default(call_default_factory=True, validated_data={})),
                without_stop(meanings[name]),
            )
            for name, field in kind.model_fields.items()
            if name not in leave_out
        ),
    )


def takes(part: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """What a JSON schema takes, in words."""
    if reference := part.get("$ref"):
        return takes(definitions[reference.rpartition("/")[2]], definitions)
    if choices := part.get("anyOf"):
        other = (choice for choice in choices if choice.get("type") != "null")
        return " or ".join(dict.fromkeys(takes(choice, definitions) for choice in other))
    if values := part.get("enum", [part["const"]] if "const" in part else []):
        return one_of(values)
    if part.get("type") == "array":
        entry: Mapping[str, Any] = part.get("items") or next(iter(part["prefixItems"]))
        of = takes(entry, definitions)
        return f"a list of {LISTS.get(of, of)}"
    return TYPES.get(part.get("type", ""), "text") + bounds(part)


def one_of(values: Sequence[Any]) -> str:
    for page, known in LISTED_ELSEWHERE.items():
        if tuple(values) == known:
            return f"one of [these]({page})"
    return ", ".join(written(value) for value in values)


def bounds(part: Mapping[str, Any]) -> str:
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most"}
    if {"minimum", "maximum"} <= part.keys():
        return f", {part['minimum']:.15g} to {part['maximum']:.15g}"
    return "".join(f", {word} {part[key]:.15g}" for key, word in words.items() if key in part)


def default(value: Any) -> str:
    if value is PydanticUndefined:
        return "must be given"
    if isinstance(value, dict):
        return ", ".join(f"`{name}`" for name in value) or "nothing"
    if isinstance(value, BaseModel):
        return "its keys' own"
    return "none" if value is None else written(value)


def written(value: Any) -> str:
    """As TOML has it."""
    if isinstance(value, tuple | list):
        return "`[" + ", ".join(written(entry).strip("`") for entry in value) + "]`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value:g}`"


TABLES: Mapping[str, Mapping[str, Callable[[], str]]] = {
    "checks.md": {"checks": checks},
    "phases.md": {"phases": phases},
    "faults.md": {"faults": faults},
    "doctor.md": {"capabilities": capabilities},
    "scenario-files.md": {
        "case": partial(keys, Case, "id", "source_file", "row"),
        "guest": partial(keys, GuestSpec),
        "interface": partial(keys, Interface),
        "interface.vdpa": partial(keys, Vdpa),
        "interface.vf": partial(keys, VirtualFunction),
        "policy": partial(keys, Policy),
        "workload": partial(keys, Workload),
        "faults": partial(keys, Fault),
        "expect": partial(keys, Expect),
    },
    "lab-files.md": {
        "lab": partial(keys, LocalConfig),
        "local host": partial(keys, LocalHostConfig),
        "nested host": partial(keys, MachineConfig),
    },
    "racks.md": {
        "rack": partial(keys, RackConfig, "kind", "name", "workload", "coordinator"),
        "peer": partial(keys, RackPeer),
        "rack host": partial(keys, RackHost),
        "resources": partial(keys, Resources),
    },
    "host-preparation.md": {"preparation": partial(keys, Preparation)},
}
"""By page and by the name in the comments."""


def with_tables(page: str, text: str) -> str:
    """The page with its tables made anew; KeyError for a place that no page has."""
    for name, table in TABLES[page].items():
        begin, end = f"<!-- table: {name} -->\n", f"<!-- end: {name} -->"
        place = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
        if not place.search(text):
            raise KeyError(f"{page} has no place for the table {name}")
        made = f"{begin}\n{table()}\n\n{end}"
        text = place.sub(made.replace("\\", r"\\"), text, count=1)
    return text


PAGES: tuple[Path, ...] = tuple(ROOT / "docs" / name for name in TABLES)


if __name__ == "__main__":
    if sys.argv[1:] != ["--update"]:
        sys.exit(COMMAND)
    for path in PAGES:
        path.write_text(with_tables(path.name, path.read_text()))
