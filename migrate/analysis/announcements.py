"""Announcements of a guest's new place after its move: what was asked for, and what was heard.

QEMU sends a RARP frame for every network device, in rounds; a guest that has negotiated
VIRTIO_NET_F_GUEST_ANNOUNCE (virtio 1.3, 5.1.6.5.4) is asked, as often, to send frames of its own.
Source: QEMU net/announce.c, hw/net/virtio-net.c; qapi/migration.json, MigrationParameters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from migrate.model import Event

KINDS = ("garp", "na", "rarp")
"""Kinds of captured frames that announce: the first two by the guest, RARP by QEMU (or by the
backend on QEMU's behalf, VHOST_USER_SEND_RARP)."""


def count_by_kind(announcements: Iterable[Event]) -> dict[str, int]:
    """Frames of each kind; 0: none of it was captured."""
    counted = Counter(str(event.data.get("kind")) for event in announcements)
    return {kind: counted[kind] for kind in KINDS}
