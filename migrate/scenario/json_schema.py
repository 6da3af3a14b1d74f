"""The JSON schema of scenario files, for editors; made from :mod:`migrate.model`."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from migrate.model import (
    Case,
    Expect,
    Fault,
    GuestSpec,
    Interface,
    Policy,
    Vdpa,
    VirtualFunction,
    Workload,
)
from migrate.model.docstrings import field_meanings

OF_THE_CASE = tuple(key for key in Case.model_fields if key not in ("id", "source_file", "row"))
OF_THE_FILE = ("name", "description", "matrix", "matrix_exclude", "variants")


TABLES = (GuestSpec, Interface, Vdpa, VirtualFunction, Policy, Workload, Fault, Expect)
"""What a case consists of."""


def _describe(part: dict[str, Any], kind: type[BaseModel]) -> None:
    """Editors show what a key means."""
    for name, meaning in field_meanings(kind).items():
        part["properties"][name]["description"] = meaning


def schema() -> dict[str, Any]:
    """A schema that takes what :func:`migrate.scenario.loader.parse` takes, but for rules across
    keys.
    """
    case = Case.model_json_schema()
    definitions: dict[str, Any] = case["$defs"]
    _describe(case, Case)
    for kind in TABLES:
        _describe(definitions[kind.__name__], kind)
    settings = {key: case["properties"][key] for key in OF_THE_CASE}
    leaves = _leaves(settings, definitions)
    axes = {
        key: {"type": "array", "items": leaf, "minItems": 1, "uniqueItems": True}
        for key, leaf in leaves.items()
    }
    name = {"type": "string", "minLength": 1}
    variant = _table({"name": name, **settings}) | {"required": ["name"]}
    exclude = _table({"variant": name, **leaves}) | {"minProperties": 1}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "migrate-lab scenario",
        **_table(
            {
                "name": name | {"description": "Begins every case id; default: the file's stem"},
                "description": {"type": "string"},
                **settings,
                "matrix": _table(axes),
                "matrix_exclude": {"type": "array", "items": exclude},
                "variants": {"type": "array", "items": variant, "minItems": 1},
            }
        ),
        "$defs": definitions,
    }


def known_beside(keys: tuple[str | int, ...]) -> tuple[str, ...]:
    """The keys that are right where the last of ``keys`` is: of its section, or of a case."""
    case = Case.model_json_schema()
    section = case["properties"].get(keys[0], {}) if len(keys) > 1 else {}
    properties = _resolved(section.get("items", section), case["$defs"]).get("properties", {})
    return tuple(properties) or OF_THE_CASE


def _table(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _resolved(part: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    name = str(part.get("$ref", "")).rpartition("/")[2]
    return dict(definitions[name]) if name else part


def _leaves(settings: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Every key that can be an axis, dotted, with the schema of one value."""
    found: dict[str, Any] = {}
    for key, part in settings.items():
        section = _resolved(part, definitions)
        if "properties" in section:
            found |= {f"{key}.{leaf}": value for leaf, value in section["properties"].items()}
        elif key != "faults":
            found[key] = part
    return found
