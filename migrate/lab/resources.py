"""What of a host guests may be made of, and the names of its links where a lab makes them."""

from __future__ import annotations

from migrate.model import Value

DATA_BRIDGE = "data"
"""On each host: where the taps of `virtio` go."""
MIGRATION_LINK = "up-mig"
"""On each host: its port on the migration network."""
OVS_UPLINK = "up-ovs"
"""On each host: the port that OVS-DPDK carries to the fabric."""


class Resources(Value):
    """What of a host the guests' interfaces may be made of, all of it joined to the fabric."""

    bridge: str = DATA_BRIDGE
    """Where the taps of ``virtio`` go."""
    ovs_uplink: str = OVS_UPLINK
    """The port that the fabric is on, of a switch that is started where none runs."""
    ovs_bridge: str | None = None
    """Of the OVS with DPDK that runs on the host, with its uplink: only ports of it are made."""
    migration_link: str = MIGRATION_LINK
    """By which guests are sent to the other host."""
    pf: str | None = None
    """The link of a physical function, whose VFs may be had; e.g. ``up-pf``."""
    vdpa: tuple[str, ...] = ()
    """vDPA management devices, e.g. ``pci/0000:00:10.0``. One on a PCI device that a virtio driver
    has at the moment is had by binding that device to ``vp-vdpa`` for the time of its use."""

    def told(self) -> str:
        """On one line."""
        ovs = f"OVS uplink {self.ovs_uplink}"
        if self.ovs_bridge is not None:
            ovs = f"OVS bridge {self.ovs_bridge}"
        parts = [f"bridge {self.bridge}", ovs]
        parts += [f"VFs of {self.pf}"] if self.pf else []
        parts += [f"vDPA by {', '.join(self.vdpa)}"] if self.vdpa else []
        return "; ".join(parts)


PLAIN_RESOURCES = Resources()
"""Of a host that has no special hardware."""
