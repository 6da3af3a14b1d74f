"""Lab files: what every one may say, whatever its hosts are made of; and where labs are kept."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from migrate.errors import ConfigurationError, quoted
from migrate.files import make_private, private_folder
from migrate.lab.prepare.plan import Preparation
from migrate.model import TextForm, Value, Workload

NAME = TextForm(
    r"^[a-z][a-z0-9]{0,7}$", "a small letter, then at most seven small letters or digits", "lab1"
)
Name = Annotated[str, NAME]
"""Of a lab, and of a host."""
Coordinator = Annotated[
    str,
    TextForm(
        r"^(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9][A-Za-z0-9.-]{0,252}):[0-9]{1,5}$",
        "a host's name or address, a colon and a port; an IPv6 address in brackets",
        "lab.example.org:20408",
    ),
]
Root = Annotated[
    str,
    TextForm(
        r"^(/|[A-Za-z0-9][A-Za-z0-9_.+-]{0,63})$",
        "/ (this machine), or at most 64 letters, digits and _ . + -, the first a letter or digit",
        "debian-13",
    ),
]


class HostConfig(Value):
    """One host of a lab file."""

    root: Root
    """The root file system that the host runs from; a scenario's ``roots`` name it."""
    prepare: Preparation = Preparation()
    """What ``migrate-lab lab ready`` has the host have."""


class LabConfig(Value):
    """A lab file as read; each kind of lab adds its own keys. Light to import."""

    kind: str
    """What the hosts are made of."""
    name: Name
    """The lab's name: a small letter, then at most seven small letters or digits. Two labs of
    different names can be up at once."""
    hosts: Mapping[Name, HostConfig]
    """A table for each host, by its name; the same rule as for the lab's name."""
    workload: dict[str, int | float] = Field(default={}, max_length=64)
    """What scenarios leave open of their workload, for a lab that can't bear the usual rates."""
    coordinator: Coordinator | None = None
    """``HOST:PORT`` of the labgrid coordinator that keeps the leases of its hosts across
    controllers."""

    @field_validator("workload")
    @classmethod
    def _is_one(cls, workload: dict[str, int | float]) -> dict[str, int | float]:
        Workload.model_validate(workload, strict=True)  # as scenarios are read
        return workload

    def scenario_defaults(self) -> dict[str, dict[str, int | float]]:
        """Values for what scenarios leave open, as tables of a scenario."""
        return {"workload": self.workload} if self.workload else {}


def cache_folder() -> Path:
    """Where roots, images and booted guests are kept between runs ($MIGRATE_LAB_CACHE).

    Whoever could change what is in it would be root on the hosts: HostError if others can.
    """
    return private_folder(_named("MIGRATE_LAB_CACHE", "/var/cache/migrate-lab"))


SHARED = 0o711
"""Of folders in the cache that hosts see: their QEMU may run as another user, who reaches what it
is told of, and can't look around."""


def shared_folder(name: str) -> Path:
    """A folder of the cache for the hosts, made if it is not there."""
    folder = make_private(make_private(cache_folder()) / name)
    folder.chmod(SHARED)
    return folder


def state_folder() -> Path:
    """Where a lab that is up keeps its journal and its hosts' writable layers
    ($MIGRATE_LAB_STATE). HostError if others can change what is in it."""
    return private_folder(_named("MIGRATE_LAB_STATE", "/run/migrate-lab"))


def _named(variable: str, otherwise: str) -> Path:
    """The folder that a variable of the environment names; an empty one names none.

    It becomes an option of mounts and of QEMU, where commas and colons part. Raises
    ConfigurationError.
    """
    text = os.environ.get(variable) or otherwise
    if not re.fullmatch(r"/[^\0-\x1f\ud800-\udfff\"',:\\]{0,200}", text):
        raise ConfigurationError(
            f"use ${variable}",
            said=f"{quoted(text)} is no folder that can be used",
            remedy="an absolute path without commas, colons, quotes and backslashes",
        )
    return Path(text)
