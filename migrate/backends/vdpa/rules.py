"""What a scenario with ``vdpa`` may not ask for."""

from __future__ import annotations

from migrate.backends.rule import Rule
from migrate.formats.virtio_features import NAMES

RULES = (
    Rule(
        "interface.mtu",
        lambda case: case.interface.mtu != 1500,
        "libvirt sets no MTU on an interface of type vdpa",
        "mtu = 1500, or mode = 'virtio'",
    ),
    Rule(
        "interface.vdpa.features_off",
        lambda case: not set(case.interface.vdpa.features_off) <= set(NAMES.values()),
        "this is no feature of a virtio network device",
        "names in small letters, as virtio has them: " + ", ".join(NAMES.values()),
    ),
    Rule(
        "interface.vdpa.shadow",
        lambda case: case.interface.vdpa.shadow == "on" and case.interface.ring == "packed",
        "QEMU's shadow virtqueues are split rings",
        "ring = 'split'",
    ),
)
