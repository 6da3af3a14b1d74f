"""A lab file of the kind ``nested``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from migrate.lab.config import HostConfig, LabConfig, Name, Root


class MachineConfig(HostConfig):
    """One host of a nested lab: a machine that is booted from a root, by that root's QEMU."""

    root: Root = "debian-12-backports"
    huge_pages: int = Field(default=64, ge=0, le=1 << 20)
    """How many huge pages of 2 MiB the host's kernel takes of its own memory."""
    memory_mib: int = Field(default=1280, ge=768, le=2752)
    """The host's memory. Above 2752 the firmware puts the BARs of virtual functions above 4 GiB,
    where nested guests never reach them."""
    nic: Literal["igb", "virtio"] = "igb"
    """The card with the virtual functions: ``igb``, or QEMU's own virtio-net, which takes QEMU 10.1
    or newer, and so the root ``debian-13-backports``."""

    @field_validator("root")
    @classmethod
    def _is_made(cls, root: str) -> str:
        if root == "/":
            raise ValueError("a nested host is booted from a root that was made for it")
        return root


class NestedConfig(LabConfig):
    """Hosts that are virtual machines on this machine."""

    kind: Literal["nested"] = "nested"
    name: Name = "nested"
    hosts: dict[Name, MachineConfig] = Field(
        default={"a": MachineConfig(), "b": MachineConfig()}, min_length=2, max_length=8
    )
