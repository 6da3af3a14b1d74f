"""Lab files: which hosts a lab has. Checked as a whole before any host is touched."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from migrate.errors import ConfigurationError
from migrate.model import Value

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]{0,7}$")]


class HostConfig(Value):
    """One host of a local lab: a name and the root file system that it runs from."""

    root: str = "debian-13"
    huge_pages: int = Field(default=64, ge=0)
    """Of 2 MiB, lent to this host's OVS-DPDK while the lab is up; 0: none."""


class LabConfig(Value):
    """A lab file as read."""

    kind: Literal["local"] = "local"
    name: Name = "local"
    hosts: dict[Name, HostConfig] = Field(
        default={"a": HostConfig(), "b": HostConfig()}, min_length=2, max_length=8
    )


def load_lab(path: Path | None, name: str | None = None) -> LabConfig:
    """Read a lab file (None: two hosts of the default root); ``name`` overrides the lab's name."""
    try:
        data = tomllib.loads(path.read_text()) if path else {}
        if name is not None:
            data["name"] = name
        return LabConfig.model_validate(data)
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"read the lab file {path}", said="it does not exist", remedy="see labs/local.toml"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"read the lab file {path}", said=str(error)) from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if key == "name" and name is not None:
            raise ConfigurationError(
                f"use --name {name}",
                said="that is no name for a lab",
                remedy="a small letter, then at most seven small letters or digits",
            ) from error
        raise ConfigurationError(
            f"read the lab file {path}, key {key}",
            said=first["msg"],
            remedy="docs/lab-files.md lists the keys",
        ) from error


def cache_folder() -> Path:
    """Where roots, images and booted guests are kept between runs ($MIGRATE_LAB_CACHE)."""
    return Path(os.environ.get("MIGRATE_LAB_CACHE", "/var/cache/migrate-lab"))


def state_folder() -> Path:
    """Where a lab that is up keeps its journal and its hosts' writable layers."""
    return Path(os.environ.get("MIGRATE_LAB_STATE", "/run/migrate-lab"))
