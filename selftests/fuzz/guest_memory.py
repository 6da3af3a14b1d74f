"""What lies in a guest's memory, and is saved of its devices: rings, states of network devices."""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, replace
from itertools import islice
from typing import Any

from migrate.formats.virtio_net_state import decode_net_state
from migrate.formats.virtqueue import Ring
from migrate.formats.virtqueue_audit import audit, tables
from selftests.doubles.virtqueues import DATA, Packed, Split, Step
from selftests.doubles.virtqueues import run as steps
from selftests.doubles.vmstate_stream import net_state
from selftests.fuzz.lane import Lane

STEPS: list[Step] = [("add", 2), ("add", 1), ("take", 0), ("add", 3), ("take", 0), ("use", 1)] * 6


def _rings() -> list[Ring]:
    queues: list[Split | Packed] = [
        *(
            Split(16, begin=begin, in_order=order)
            for begin in (0, 65530)
            for order in (True, False)
        ),
        *(Packed(16, in_order=order) for order in (True, False)),
    ]
    made = []
    for queue in queues:
        for stop in (3, 17, 60):
            for _ in islice(steps(queue, STEPS), stop):
                pass
            made.append(queue.ring())
    table = b"".join(struct.pack("<QIHH", DATA + n, 64, 1, n + 1) for n in range(4))
    memory = {**made[0].memory, DATA: table}
    return [*made, replace(made[0], indirect=True, memory=memory)]


def ring_seeds() -> list[bytes]:
    """What is known of a ring as a line of JSON, then each part of its memory, by length."""
    return [_packed(ring) for ring in _rings()]


def _packed(ring: Ring) -> bytes:
    values = {key: value for key, value in asdict(ring).items() if key != "memory"}
    parts = [[address, len(content)] for address, content in ring.memory.items()]
    head = json.dumps({**values, "parts": parts})
    return head.encode() + b"\n" + b"".join(ring.memory.values())


def ring_door(data: bytes) -> object:
    """An audit, and the tables that it misses, of a ring with other memory."""
    head, _, content = data.partition(b"\n")
    known: dict[str, Any] = json.loads(head)
    memory = {}
    for address, length in known.pop("parts"):
        memory[address], content = content[:length], content[length:]
    known["ranges"] = tuple(map(tuple, known["ranges"]))
    ring = Ring(memory=memory, **known)
    result = audit(ring)
    text = "\n".join((*result.broken, *result.unchecked, *result.facts.values()))
    if len(text) > 64 << 10:
        raise AssertionError(f"{len(text)} letters of a ring of {ring.size}")
    return tables(ring)


def state_seeds() -> list[bytes]:
    """States of a virtio network device."""
    return [net_state(), net_state(pairs=4), net_state(packed=True)]


LANES = (
    Lane("rings", ring_door, ring_seeds, headed=True),
    Lane("network-states", decode_net_state, state_seeds),
)
