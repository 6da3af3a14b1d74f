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


FRAMES_MISSED = "frames-missed"
"""An event of the fabric: what was captured before it is no longer on record."""


def frames_missed_ns(events: Iterable[Event]) -> int | None:
    """Until when frames of the fabric are missing; None: none is."""
    return max((event.at_ns for event in events if event.name == FRAMES_MISSED), default=None)


def count_by_kind(announcements: Iterable[Event]) -> dict[str, int]:
    """Frames of each kind; 0: none of it was captured."""
    counted = Counter(str(event.data.get("kind")) for event in announcements)
    return {kind: counted[kind] for kind in KINDS}
