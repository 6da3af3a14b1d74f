"""Lab files: which hosts a lab has. Checked as a whole before any host is touched."""

from __future__ import annotations

import os
import tomllib
from ipaddress import IPv4Address, ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, Field, ValidationError, field_validator, model_validator

from migrate.data import shipped
from migrate.errors import ConfigurationError
from migrate.lab.prepare.plan import Preparation
from migrate.lab.resources import PLAIN_RESOURCES, Resources
from migrate.model import Value, Workload

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]{0,7}$")]


class HostConfig(Value):
    """One host of a local lab: a name and the root file system that it runs from."""

    root: str = "debian-13"
    huge_pages: int = Field(default=64, ge=0)
    """Of 2 MiB, lent to this host's OVS-DPDK while the lab is up; 0: none."""
    prepare: Preparation = Preparation()
    """What `migrate-lab lab ready` has the host have."""


class MachineConfig(HostConfig):
    """One host of a nested lab: a machine that is booted from a root, by that root's QEMU."""

    root: str = "debian-12-backports"
    huge_pages: int = Field(default=64, ge=0)
    """Of 2 MiB, inside the machine."""
    memory_mib: int = Field(default=1280, ge=768, le=2752)
    """Above 2752 the firmware puts the VFs' BARs where nested guests never reach them."""
    nic: Literal["igb", "virtio"] = "igb"
    """What has the virtual functions: an igb, or QEMU's own virtio-net (QEMU 10.1 or newer)."""

    @field_validator("root")
    @classmethod
    def _is_made(cls, root: str) -> str:
        if root == "/":
            raise ValueError("a nested host is booted from a root that was made for it")
        return root


class _LabFile(Value):
    """What every lab file may have."""

    workload: dict[str, int | float] = Field(default={})
    """What scenarios leave open of their workload: a slow lab can't bear the usual rates."""
    coordinator: str | None = Field(default=None, pattern=r"^(\[[0-9A-Fa-f:.]+\]|[\w.-]+):\d+$")
    """``HOST:PORT`` of the labgrid coordinator that keeps the leases of its hosts, if any."""

    @field_validator("workload")
    @classmethod
    def _is_one(cls, workload: dict[str, int | float]) -> dict[str, int | float]:
        Workload.model_validate(workload, strict=True)  # as scenarios are read
        return workload

    def scenario_defaults(self) -> dict[str, dict[str, int | float]]:
        """As tables of a scenario, which the scenario's own values come over."""
        return {"workload": self.workload} if self.workload else {}


class LabConfig(_LabFile):
    """A lab file of the kind ``local`` as read."""

    kind: Literal["local"] = "local"
    name: Name = "local"
    hosts: dict[Name, HostConfig] = Field(
        default={"a": HostConfig(), "b": HostConfig()}, min_length=2, max_length=8
    )

    @field_validator("hosts")
    @classmethod
    def _take_nothing_of_the_machine(cls, hosts: dict[str, HostConfig]) -> dict[str, HostConfig]:
        if any(host.prepare.huge_pages or host.prepare.modules for host in hosts.values()):
            raise ValueError(
                "huge pages and modules are the machine's, and a local host's end gives none back:"
                " its own key huge_pages lends pages"
            )
        return hosts


class NestedConfig(_LabFile):
    """A lab file of the kind ``nested`` as read."""

    kind: Literal["nested"] = "nested"
    name: Name = "nested"
    hosts: dict[Name, MachineConfig] = Field(
        default={"a": MachineConfig(), "b": MachineConfig()}, min_length=2, max_length=8
    )


Ssh = Annotated[str, Field(pattern=r"^[\w][\w.@:%+-]{0,127}$")]
"""A host as the user's ssh knows it: an alias of its configuration, a name, ``user@name``."""
Transport = Literal["qemu+ssh", "qemu+tls", "qemu+tcp"]
"""How libvirt is reached; the user's ssh, or certificates, let in. ``qemu+tcp`` asks nobody."""


class RackHost(Value):
    """One host of a rack: a machine with libvirt and QEMU that is there already."""

    ssh: Ssh
    root: str = "installed"
    """What a scenario's ``roots`` call it."""
    libvirt: Transport = "qemu+ssh"
    """Of the controller's connection."""
    migration_address: IPv4Address
    migration_libvirt: Transport = "qemu+ssh"
    """By which the other hosts' libvirts reach this one, at its migration address."""
    resources: Resources = Field(
        default=PLAIN_RESOURCES, validation_alias=AliasChoices("lends", "resources")
    )
    start_libvirt: tuple[str, ...] = ("systemctl", "start", "libvirtd")
    """After a fault that ended it."""
    prepare: Preparation = Preparation()
    """What `migrate-lab lab ready` does there."""


class RackPeer(Value):
    """The endpoint outside of all guests: a host on the data network that runs the probe."""

    ssh: Ssh
    interface: str = Field(pattern=r"^[\w.:-]{1,15}$")
    address: IPv4Address


class RackConfig(_LabFile):
    """A lab file of the kind ``rack``: hosts that are reached over ssh and libvirt alone."""

    kind: Literal["rack"] = "rack"
    name: Name = "rack"
    hosts: dict[Name, RackHost] = Field(min_length=2, max_length=64)
    peer: RackPeer
    guest_address: IPv4Address
    prefix: int = Field(default=24, ge=8, le=30)
    patience: float = Field(default=1.0, ge=1, le=10)
    """How many times longer than usual its hosts may take."""

    @model_validator(mode="after")
    def _fits(self) -> RackConfig:
        network = ip_network(f"{self.peer.address}/{self.prefix}", strict=False)
        if self.guest_address not in network or self.guest_address == self.peer.address:
            raise ValueError(f"guest_address is to be another address of the peer's {network}")
        for key in ("ssh", "migration_address"):
            told = [getattr(host, key) for host in self.hosts.values()]
            twice = [str(value) for value in told if told.count(value) > 1]
            if twice:
                raise ValueError(f"two hosts have the same {key}: {twice[0]}")
        return self


MadeConfig = LabConfig | NestedConfig
"""Of labs that are made on this machine, and taken down."""
AnyConfig = MadeConfig | RackConfig


def load_lab(path: Path | None, name: str | None = None) -> AnyConfig:
    """Read a lab file (None: two hosts of the default root); ``name`` overrides the lab's name."""
    try:
        data = tomllib.loads(shipped(path).read_text()) if path else {}
        if name is not None:
            data["name"] = name
        kinds: dict[str, type[AnyConfig]] = {"nested": NestedConfig, "rack": RackConfig}
        return kinds.get(data.get("kind", ""), LabConfig).model_validate(data)
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
