"""The kinds of labs: what each has to provide, and how a lab file finds its own."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from pydantic import ValidationError

from migrate.data import shipped
from migrate.errors import ConfigurationError, quoted, visible
from migrate.input_file import parse_toml, read_input
from migrate.lab.config import NAME, LabConfig
from migrate.lab.local.config import LocalConfig
from migrate.lab.nested.config import NestedConfig
from migrate.lab.rack.config import RackConfig
from migrate.refusals import closest, collected, refuse_values
from migrate.source_location import Origin, lines_of

if TYPE_CHECKING:
    from migrate.lab.api import Lab
    from migrate.lab.shared_folder import SharedFolder

Config_contra = TypeVar("Config_contra", bound=LabConfig, contravariant=True)


class LabKind(Protocol[Config_contra]):
    """How the labs of one kind come and go."""

    @property
    def is_persistent(self) -> bool:
        """Whether they are there without us: nothing is brought up, nothing taken down."""

    def prepare(self, config: Config_contra) -> None:
        """Have in the cache what the lab is made of; nothing of it is brought up."""

    def up(self, config: Config_contra, share: SharedFolder | None = None) -> Lab:
        """Bring the lab up; one that is up is returned as it is. Every host sees ``share``.

        Raises :class:`HostError` where that can't be done; then nothing of it is left.
        ConfigurationError: its hosts can't be given a folder.
        """

    def find(self, config: Config_contra) -> Lab | None:
        """The lab if it is up and healthy; one that persists is reached, or a HostError."""

    def down(self, config: Config_contra) -> None:
        """Remove all of the lab, also what a killed controller left; raises CleanupError."""

    def lease_names(self, config: Config_contra) -> tuple[str, ...]:
        """What its hosts are called at a coordinator, in order; no host is touched for that."""


class Registered(NamedTuple):
    """Where a kind is to be found."""

    config: type[LabConfig]
    module: str
    """It has the :class:`LabKind` as ``KIND``; imported when a lab is used, for it is heavy."""


KINDS: Mapping[str, Registered] = {
    "local": Registered(LocalConfig, "migrate.lab.local.lab"),
    "nested": Registered(NestedConfig, "migrate.lab.nested.lab"),
    "rack": Registered(RackConfig, "migrate.lab.rack.lab"),
}
"""By the key ``kind`` of lab files."""


def kind_of(config: LabConfig) -> LabKind[Any]:
    """What brings the lab of ``config`` up, finds it and takes it down."""
    kind: LabKind[Any] = importlib.import_module(KINDS[config.kind].module).KIND
    return kind


def parse_config(data: Mapping[str, Any]) -> LabConfig:
    """The content of a lab file as its kind has it; raises pydantic's ValidationError.

    A kind that does not exist is refused by the default one, ``local``.
    """
    kind = str(data.get("kind", "")) if isinstance(data, Mapping) else ""
    known = KINDS.get(kind, KINDS["local"])
    return known.config.model_validate(data)


def load_lab(path: Path | None, name: str | None = None) -> LabConfig:
    """Read a lab file (None: two hosts of the default root); ``name`` overrides the lab's name."""
    tried = f"read the lab file {path}"
    data: dict[str, Any] = {}
    origin = Origin("the default lab", {})
    if path is not None:
        text = read_input(shipped(path), tried, "see labs/local.toml")
        data = parse_toml(text, tried)
        origin = Origin(visible(str(path)), lines_of(text))
    with collected() as refusals:
        if name is not None:
            with refusals.noted():
                data["name"] = _lab_name(name)
        with refusals.noted():
            return _config(data, origin)
    raise AssertionError("what is wrong has been raised")


def _config(data: Mapping[str, Any], origin: Origin) -> LabConfig:
    """Raises ConfigurationError."""
    if (kind := data.get("kind", "local")) not in tuple(KINDS):
        raise origin.refuse(("kind",), f"{quoted(kind)} is not allowed", closest(str(kind), KINDS))
    try:
        return parse_config(data)
    except ValidationError as error:
        refuse_values(error, origin, lambda _: "docs/lab-files.md lists the keys")


def is_lab_file(path: Path) -> bool:
    """Whether it can be read, and says what only a lab file says."""
    try:
        document = parse_toml(read_input(shipped(path), f"read {path}", ""), f"read {path}")
    except ConfigurationError:
        return False
    return "hosts" in document or "kind" in document


def _lab_name(name: str) -> str:
    """What ``--name`` says. Raises ConfigurationError."""
    if not NAME.fits(name):
        raise ConfigurationError(
            f"use --name {quoted(name)}", said=NAME.words, remedy=f"e.g. --name {NAME.example}"
        )
    return name
