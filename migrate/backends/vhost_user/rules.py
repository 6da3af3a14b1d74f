"""What a scenario with ``vhost-user`` may not ask for."""

from __future__ import annotations

from migrate.backends.rule import Rule

RULES = (
    Rule(
        "interface.mtu",
        lambda case: case.interface.mtu != 1500,
        "libvirt sets the MTU on a link of the host, too, and a vhost-user port has none",
        "mtu = 1500, or mode = 'virtio'",
    ),
)
