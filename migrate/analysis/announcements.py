"""Who tells the network where a guest is after its move: what was asked for, and who was heard.

QEMU sends a RARP frame for every network device, in rounds; a guest that has negotiated
VIRTIO_NET_F_GUEST_ANNOUNCE (virtio 1.3, 5.1.6.5.4) is asked, as often, to send frames of its own.
Source: QEMU net/announce.c, hw/net/virtio-net.c; qapi/migration.json, MigrationParameters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from migrate.model import Event

KINDS = ("garp", "na", "rarp")
"""Of captured frames that announce: the first two by the guest, RARP by QEMU (or by the backend
that QEMU tells to, VHOST_USER_SEND_RARP)."""


def announced_by(heard: Iterable[Event]) -> dict[str, int]:
    """How many frames of each kind; a kind that was listened for and not heard is 0."""
    counted = Counter(str(event.data.get("kind")) for event in heard)
    return {kind: counted[kind] for kind in KINDS}
