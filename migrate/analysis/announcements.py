"""Announcements of a guest's new place after its move: what was asked for, and what was heard.

QEMU sends a RARP frame for every network device, in rounds; a guest that has negotiated
VIRTIO_NET_F_GUEST_ANNOUNCE (virtio 1.3, 5.1.6.5.4) is asked, as often, to send frames of its own.
Source: QEMU net/announce.c, hw/net/virtio-net.c; qapi/migration.json, MigrationParameters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from migrate.model import Event

KINDS = ("garp", "na", "rarp")
"""Kinds of captured frames that announce: the first two by the guest, RARP by QEMU (or by the
backend on QEMU's behalf, VHOST_USER_SEND_RARP)."""


@dataclass(frozen=True, slots=True)
class AnnounceParameters:
    """QEMU's ``announce-*`` parameters; lengths in milliseconds."""

    rounds: int
    initial_ms: int
    step_ms: int
    max_ms: int

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> AnnounceParameters | None:
        """From query-migrate-parameters; None if it names none (QEMU before 4.0)."""
        names = ("announce-rounds", "announce-initial", "announce-step", "announce-max")
        values = [parameters.get(name) for name in names]
        known = [int(value) for value in values if value is not None]
        return cls(*known) if len(known) == len(names) else None

    @property
    def last_due_ms(self) -> int:
        """After the first round, which is sent at once; each pause is a step longer."""
        pauses = (self.initial_ms + number * self.step_ms for number in range(self.rounds - 1))
        return sum(p if 0 <= p <= self.max_ms else self.max_ms for p in pauses)


def count_by_kind(announcements: Iterable[Event]) -> dict[str, int]:
    """Frames of each kind; 0: none of it was captured."""
    counted = Counter(str(event.data.get("kind")) for event in announcements)
    return {kind: counted[kind] for kind in KINDS}
