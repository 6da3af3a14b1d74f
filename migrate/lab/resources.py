"""What a host provides for guests' interfaces; the names of its links where a lab makes them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from migrate.model import TextForm, Value

DATA_BRIDGE = "data"
"""On each host: where the taps of `virtio` go."""
MIGRATION_LINK = "up-mig"
"""On each host: its port on the migration network."""
OVS_UPLINK = "up-ovs"
"""On each host: the port that OVS-DPDK carries to the fabric."""

Link = Annotated[
    str,
    TextForm(
        r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$",
        "a network link's name: at most 15 letters, digits and _ . -, the first a letter or digit",
        "eth0",
    ),
]
"""A network link's name: the kernel takes 15 characters (IFNAMSIZ); none that begins as an option
does, for it becomes an argument of programs that root runs."""
Management = Annotated[
    str,
    TextForm(
        r"^[A-Za-z0-9][A-Za-z0-9_-]{0,31}(/[A-Za-z0-9][A-Za-z0-9_.:-]{0,63})?$",
        "a management device as `vdpa mgmtdev show` names it",
        "pci/0000:00:10.0",
    ),
]
"""A management device's handle, ``BUS/DEVICE`` or ``DEVICE`` (vdpa-dev(8))."""


class Resources(Value):
    """What a host provides for guests' interfaces, all of it joined to the fabric."""

    bridge: Link = DATA_BRIDGE
    """``virtio``: the bridge where the taps go."""
    ovs_uplink: Link = OVS_UPLINK
    """``vhost-user``: the uplink of the OVS that migrate-lab starts, on hosts without one of their
    own."""
    ovs_sleep_us: int = Field(default=500, ge=0, le=10_000)
    """``vhost-user``: how many µs idle poll threads of that OVS sleep at most
    (``pmd-sleep-max``)."""
    ovs_bridge: Link | None = None
    """``vhost-user``: a bridge with the datapath ``netdev`` of the host's own OVS. Only ports are
    added to it; without this key migrate-lab starts an OVS."""
    migration_link: Link = MIGRATION_LINK
    """What the fault ``cut-migration-link`` takes down."""
    pf: Link | None = None
    """``hostdev``, ``failover``: the link of a physical function, whose VFs may be used."""
    vdpa: tuple[Management, ...] = Field(default=(), max_length=64)
    """``vdpa``: management devices, e.g. ``pci/0000:00:10.0``. A PCI device that is bound to a
    virtio driver is rebound to ``vp-vdpa`` while it is in use."""

    @property
    def guest_links(self) -> tuple[str, ...]:
        """Those that guests' traffic goes by, on which the host should have no address."""
        return tuple(link for link in (self.bridge, self.ovs_uplink, self.pf) if link)

    def summary(self) -> str:
        """All of it on one line."""
        ovs = f"OVS uplink {self.ovs_uplink}"
        if self.ovs_bridge is not None:
            ovs = f"OVS bridge {self.ovs_bridge}"
        parts = [f"bridge {self.bridge}", ovs]
        parts += [f"VFs of {self.pf}"] if self.pf else []
        parts += [f"vDPA by {', '.join(self.vdpa)}"] if self.vdpa else []
        return "; ".join(parts)


PLAIN_RESOURCES = Resources()
"""What a host without special hardware provides."""
