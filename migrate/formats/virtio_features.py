"""Features of a virtio network device: their names by number, and what a refusal by number means.

Numbers and names: virtio 1.3, sections 5.1.3 (network device) and 6 (reserved feature bits); names
are in small letters without ``VIRTIO_NET_F_``, ``VIRTIO_F_`` and ``VIRTIO_RING_F_``, but those of
the ring itself are ``ring_packed`` and ``ring_reset``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from migrate.errors import HostError
from migrate.formats.answers import quote

NAMES: Mapping[int, str] = {
    0: "csum",
    1: "guest_csum",
    2: "ctrl_guest_offloads",
    3: "mtu",
    5: "mac",
    6: "gso",
    7: "guest_tso4",
    8: "guest_tso6",
    9: "guest_ecn",
    10: "guest_ufo",
    11: "host_tso4",
    12: "host_tso6",
    13: "host_ecn",
    14: "host_ufo",
    15: "mrg_rxbuf",
    16: "status",
    17: "ctrl_vq",
    18: "ctrl_rx",
    19: "ctrl_vlan",
    20: "ctrl_rx_extra",
    21: "guest_announce",
    22: "mq",
    23: "ctrl_mac_addr",
    24: "notify_on_empty",
    27: "any_layout",
    28: "indirect_desc",
    29: "event_idx",
    32: "version_1",
    33: "access_platform",
    34: "ring_packed",
    35: "in_order",
    36: "order_platform",
    37: "sr_iov",
    38: "notification_data",
    39: "notif_config_data",
    40: "ring_reset",
    41: "admin_vq",
    50: "device_stats",
    51: "hash_tunnel",
    52: "vq_notf_coal",
    53: "notf_coal",
    54: "guest_uso4",
    55: "guest_uso6",
    56: "host_uso",
    57: "hash_report",
    59: "guest_hdrlen",
    60: "rss",
    61: "rsc_ext",
    62: "standby",
    63: "speed_duplex",
    65: "guest_udp_tunnel_gso",
    66: "guest_udp_tunnel_gso_csum",
    67: "host_udp_tunnel_gso",
    68: "host_udp_tunnel_gso_csum",
}
NUMBERS: Mapping[str, int] = {
    **{name: number for number, name in NAMES.items()},
    # As the `vdpa` tool of iproute2 spells them.
    "ring_indirect_desc": 28,
    "ring_event_idx": 29,
    # As QEMU does.
    "iommu_platform": 33,
}

_MOST = 128
"""Feature bits that there are room for (virtio 1.3, 2.2; linux VIRTIO_FEATURES_BITS)."""
_BIT = re.compile(r"bit ([0-9]|[1-9][0-9]|1[01][0-9]|12[0-7])")
SHADOWABLE = frozenset(
    (
        *("csum", "guest_csum", "ctrl_guest_offloads", "mtu", "mac", "guest_tso4", "guest_tso6"),
        *("guest_ecn", "guest_ufo", "host_tso4", "host_tso6", "host_ecn", "host_ufo", "mrg_rxbuf"),
        *("status", "ctrl_vq", "ctrl_rx", "ctrl_vlan", "ctrl_rx_extra", "mq", "ctrl_mac_addr"),
        *("any_layout", "event_idx", "version_1", "access_platform", "hash_report", "rss"),
        *("rsc_ext", "standby", "speed_duplex"),
    )
)
"""Features that QEMU 10 supports in shadow virtqueues (net/vhost-vdpa.c
``vdpa_svq_device_features``, hw/virtio/vhost-shadow-virtqueue.c ``vhost_svq_valid_features``);
later versions support more."""


def feature_names(mask: int, known: Mapping[int, str] = NAMES) -> tuple[str, ...]:
    """Names of the features in ``mask``, lowest first; ``bit N`` for one without a name."""
    bits = (bit for bit in range(mask.bit_length()) if mask >> bit & 1)
    return tuple(known.get(bit, f"bit {bit}") for bit in bits)


def features_of_driver(bits: str) -> tuple[str, ...]:
    """Names of the features that a guest's Linux has taken, lowest first: digits of 0 and 1 as
    ``/sys/bus/virtio/devices/…/features`` has them, also lowest first."""
    return feature_names(int(bits[::-1] or "0", 2))


def feature_number(name: str) -> int | None:
    """The number of a feature by its name, as :func:`canonical_name` gives it; None: a tool that is
    newer than this list has a name for it."""
    if (bit := _BIT.fullmatch(name)) is not None:
        return int(bit[1])
    return NUMBERS.get(name)


def feature_mask(features: Iterable[str], *, host: str = "") -> int:
    """The mask of features by their names. HostError for one whose number is not known."""
    mask = 0
    for name in features:
        if (number := feature_number(name)) is None:
            raise HostError(
                "choose features of a device",
                host=host,
                said=f"the feature {quote(name)} is not known here, so which bit it is neither",
                remedy="leave features_off out, or use a newer version of this program",
            )
        mask |= 1 << number
    return mask


def canonical_name(feature: str | int) -> str:
    """The name of a feature that a tool prints: by name in any case, or by its number."""
    if isinstance(feature, int):
        return NAMES.get(feature, f"bit {feature}")
    name = feature.lower()
    return NAMES.get(NUMBERS.get(name, -1), name)


def not_shadowable(features: Iterable[str]) -> tuple[str, ...]:
    """Those of a device's features for which QEMU 10 refuses shadow virtqueues."""

    def place(name: str) -> tuple[int, str]:
        number = feature_number(name)
        return (_MOST if number is None else number), name

    return tuple(sorted(set(features) - SHADOWABLE, key=place))


# --- a refusal, and what would lift it ----------------------------------------------------------

_HEX = r"0x([0-9a-fA-F]{1,32})\b"
_NOT_SHADOWED = re.compile(rf"vdpa svq does not work with features {_HEX}")
_RINGS = re.compile(rf"SVQ Invalid device feature flags, offer: {_HEX}, ok: {_HEX}")
_LOADED = re.compile(rf"Features {_HEX} unsupported\. Allowed features: {_HEX}")
_NO_LOG = re.compile(r"vhost lacks VHOST_F_LOG_ALL feature")


def refusal_remedy(message: str) -> str:
    """The remedy for a refusal of QEMU's that names features; empty for another message."""
    if match := _NOT_SHADOWED.search(message):
        return _without(int(match[1], 16))
    if match := _RINGS.search(message):
        offer, right = (int(group, 16) for group in match.groups())
        lacking = feature_names(right & ~offer)
        addition = f"; the device has to offer {', '.join(lacking)}" if lacking else ""
        return (
            _without(offer & ~right) + addition if offer & ~right else addition.removeprefix("; ")
        )
    if match := _LOADED.search(message):
        wanted, allowed = (int(group, 16) for group in match.groups())
        lost = ", ".join(feature_names(wanted & ~allowed))
        return f"the target's device has no {lost}: switch that off at the source, or on there"
    if _NO_LOG.search(message):
        return "interface.vdpa.shadow = 'on', or a backend that can log what it writes"
    return ""


def _without(mask: int) -> str:
    """The remedy for features that shadow virtqueues do not support."""
    off = feature_names(mask)
    listed = ", ".join(f"'{name}'" for name in off)
    return (
        f"shadow virtqueues of this QEMU can't follow {', '.join(off)}: switch that off by "
        f"interface.vdpa.features_off = [{listed}] or on the device itself, or use a newer QEMU"
    )
