"""A lab file of the kind ``rack``."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_network
from typing import Annotated, Literal

from pydantic import AliasChoices, Field, model_validator

from migrate.lab.config import HostConfig, LabConfig, Name, Root
from migrate.lab.resources import PLAIN_RESOURCES, Link, Resources
from migrate.model import TextForm, Value

Ssh = Annotated[
    str,
    TextForm(
        r"^([A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}@)?[A-Za-z0-9_:][A-Za-z0-9_.:%+-]{0,127}$",
        "a host as ssh takes it: an alias, a name or an address, with or without USER@",
        "root@host-a",
    ),
]
"""A host as the user's ssh knows it: an alias of its configuration, a name, ``user@name``. Neither
begins as an option does."""
Word = Annotated[
    str,
    TextForm(
        r"^[^\x00-\x1f\x7f]{1,4095}$",
        "a word of a command: 1 to 4095 letters, no control characters",
        "libvirtd",
    ),
]
Namespace = Annotated[
    str,
    TextForm(
        r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$",
        "a network namespace's name: at most 64 letters, digits and _ . -, the first a letter or "
        "digit",
        "peer",
    ),
]
LibvirtTransport = Literal["qemu+ssh", "qemu+tls", "qemu+tcp"]
"""How libvirt is reached; the user's ssh, or certificates, let in. ``qemu+tcp`` asks nobody."""


class RackHost(HostConfig):
    """One host of a rack: a machine with libvirt and QEMU that is there already."""

    ssh: Ssh
    """The host, as your ssh knows it."""
    root: Root = "installed"
    """What a scenario's ``roots`` call it."""
    libvirt: LibvirtTransport = "qemu+ssh"
    """How the controller reaches its libvirt."""
    migration_address: IPv4Address
    """Its address for incoming migrations."""
    migration_libvirt: LibvirtTransport = "qemu+ssh"
    """How the other hosts' libvirts reach this one, at its migration address."""
    resources: Resources = Field(
        default=PLAIN_RESOURCES, validation_alias=AliasChoices("lends", "resources")
    )
    """What the host provides for guests' interfaces; the table may be called ``lends`` as well."""
    start_libvirt: tuple[Word, ...] = Field(
        default=("systemctl", "start", "libvirtd"), min_length=1, max_length=64
    )
    """The command that starts libvirt after the fault ``stop-libvirtd``."""


class RackPeer(Value):
    """The endpoint outside of all guests: a host on the data network that runs the probe."""

    ssh: Ssh
    """The peer's host, as your ssh knows it."""
    interface: Link
    """Its port on the data network."""
    address: IPv4Address
    """Its address there."""
    namespace: Namespace | None = None
    """The network namespace (``ip netns``) of the peer's host in which that port is, so that guests
    reach nothing else of the host. Without it they reach all that listens there."""

    @property
    def enter(self) -> tuple[str, ...]:
        """What the arguments of a program begin with that is to be where the interface is."""
        return () if self.namespace is None else ("ip", "netns", "exec", self.namespace)


class RackConfig(LabConfig):
    """Hosts that are there already, and are reached over ssh and libvirt alone."""

    kind: Literal["rack"] = "rack"
    name: Name = "rack"
    hosts: dict[Name, RackHost] = Field(min_length=2, max_length=64)
    peer: RackPeer
    """The machine that runs the guests' peer, a probe."""
    guest_address: IPv4Address
    """The guests' address on the data network, in the same network as the peer's."""
    prefix: int = Field(default=24, ge=8, le=30)
    """Of that network."""
    patience: float = Field(default=1.0, ge=1, le=10)
    """Factor for all timeouts of its hosts: to start a guest, and to answer."""

    @model_validator(mode="after")
    def _fits(self) -> RackConfig:
        network = ip_network(f"{self.peer.address}/{self.prefix}", strict=False)
        if self.guest_address not in network or self.guest_address == self.peer.address:
            raise ValueError(f"guest_address is to be another address of the peer's {network}")
        for key in ("ssh", "migration_address"):
            values = [getattr(host, key) for host in self.hosts.values()]
            repeated = [str(value) for value in values if values.count(value) > 1]
            if repeated:
                raise ValueError(f"two hosts have the same {key}: {repeated[0]}")
        return self
