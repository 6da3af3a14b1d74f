"""A lab file of the kind ``local``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from migrate.lab.config import HostConfig, LabConfig, Name, Root


class LocalHostConfig(HostConfig):
    """One host of a local lab: a name and the root file system that it runs from."""

    root: Root = "debian-13"
    huge_pages: int = Field(default=64, ge=0, le=1 << 20)
    """How many huge pages of 2 MiB the machine reserves for this host's OVS-DPDK while the lab is
    up; 0: none."""


class LocalConfig(LabConfig):
    """Hosts that are made of namespaces on this machine."""

    kind: Literal["local"] = "local"
    name: Name = "local"
    hosts: dict[Name, LocalHostConfig] = Field(
        default={"a": LocalHostConfig(), "b": LocalHostConfig()}, min_length=2, max_length=8
    )

    @field_validator("hosts")
    @classmethod
    def _take_nothing_of_the_machine(
        cls, hosts: dict[str, LocalHostConfig]
    ) -> dict[str, LocalHostConfig]:
        if any(host.prepare.huge_pages or host.prepare.modules for host in hosts.values()):
            raise ValueError(
                "huge pages and modules are the machine's, and are not restored when a local"
                " host ends: use its own key huge_pages"
            )
        return hosts
