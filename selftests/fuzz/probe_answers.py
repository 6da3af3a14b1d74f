"""What a guest's probe answers: each call of the client, with an answer that was changed."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from migrate.clock import Deadline
from migrate.guest.commands import run_command
from migrate.guest.probe import Probe
from migrate.guest.probe_channel import PROTOCOL
from selftests.fuzz.lane import Lane

AT = 4_711_000_000_000
"""By the guest's clock."""


class Answering:
    """A channel whose other end answers by a line each, the last one again and again; with the
    request's number, if the line has the first one's."""

    def __init__(self, answers: bytes) -> None:
        self.answers = answers.split(b"\n")
        self.asked: list[bytes] = []

    def send(self, data: bytes) -> None:
        """See :class:`migrate.guest.transport.ProbeTransport`."""
        number = json.loads(data)["id"]
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.asked.append(answer.replace(b'"id": 1,', b'"id": %d,' % number) + b"\n")

    def receive(self, deadline: Deadline) -> bytes:
        """See :class:`migrate.guest.transport.ProbeTransport`."""
        if not self.asked:
            raise TimeoutError("nothing came from the probe")
        return self.asked.pop()

    def close(self) -> None:
        """See :class:`migrate.guest.transport.ProbeTransport`."""


def _records(shape: str, *records: tuple[int, ...]) -> dict[str, Any]:
    data = b"".join(struct.pack(f"<{shape}", *record) for record in records)
    return {
        "total": len(records),
        "from": 0,
        "count": len(records),
        "data": base64.b64encode(data).decode(),
    }


ARRIVALS = _records("IQQ", *((n, AT + n * 10**6, AT + n * 10**6 + 50_000) for n in range(5)))
SENDS = _records("Q", *((AT + n * 10**6,) for n in range(5)))
RECEIPTS = _records("IQ", *((n, AT + n * 10**6) for n in range(5)))
STATUS = {
    "open": True,
    "sending": True,
    "sent": 5,
    "skipped": 0,
    "send_errors": 0,
    "first_sent_ns": AT,
    "last_sent_ns": AT + 4 * 10**6,
    "received": 5,
    "strays": 0,
    "unlogged": 0,
    "dropped_records": 0,
    "socket_drops": 0,
    "jumps": 1,
}
HELLO = {
    "protocol": PROTOCOL,
    "version": "0.1.0",
    "pid": 77,
    "fifo": True,
    "uptime_ms": 4711,
    "mono_ns": AT,
    "real_ns": 10**18,
}
NIC = {
    "name": "eth0",
    "driver": "virtio_net",
    "mac": "52:54:00:6d:6c:01",
    "mtu": 1500,
    "carrier": True,
    "features": "1101",
    "rx_queues": 1,
    "tx_queues": 1,
}
CHANGES = {
    "total": 3,
    "changes": [
        [AT, "eth1", "igbvf", "appeared", 0, 0],
        [AT, "eth1", "igbvf", "carries", 10, 12],
        [AT + 10**9, "eth1", "igbvf", "gone", None, None],
    ],
}
WRONG_PAGE = {
    "pages": 256,
    "writes": 1000,
    "wrong_page": 7,
    "offset": 12,
    "expected": "00000000000000ff",
    "found": "00000000000000fe",
    "generation": 3,
    "found_generation": 2,
}
TCP = {"opened": 2, "alive": 2, "resets": 0, "stall_ms": 12.5, "waiting_ms": [1.5, 2.25]}
FRAMES = {
    "total": 4,
    "frames": [{"at_ns": AT, "kind": "rarp", "mac": "52:54:00:6d:6c:01", "length": 60}] * 2,
}
SECONDS = {"seconds": [[AT, 256, 1000, 4096], [AT + 10**9, 512, 2000, 8192]]}
RAN = {
    "ended": True,
    "status": 3,
    "signal": 0,
    "out": "aGVsbG8K",
    "errors": "",
    "out_bytes": 6,
    "errors_bytes": 0,
}
DROPS = {"drops": [[3, 1], [4, 2]]}
ARRIVED = np.array([0, 1, 3], dtype=np.int64)

CALLS: dict[str, tuple[Callable[[Probe], object], *tuple[dict[str, Any], ...]]] = {
    "ready": (lambda probe: probe.ready(Deadline.after(0)), HELLO),
    "clock_offset": (lambda probe: probe.clock_offset("guest"), {"mono_ns": AT, "real_ns": 1}),
    "nic": (lambda probe: probe.nic(), NIC),
    "lower_account": (lambda probe: probe.lower_account(), CHANGES),
    "open_stream": (lambda probe: probe.open_stream(7), {"port": 40_000}),
    "stream_status": (lambda probe: probe.stream_status(), STATUS),
    "arrivals": (lambda probe: probe.arrivals(Deadline.after(5)), ARRIVALS),
    "sends": (lambda probe: probe.sends(Deadline.after(5)), SENDS),
    "receipts": (lambda probe: probe.receipts(Deadline.after(5)), RECEIPTS),
    "unreceived": (lambda probe: probe.unreceived(ARRIVED, Deadline.after(5)), STATUS, SENDS),
    "meter_loss": (lambda probe: probe.meter_loss(), STATUS, DROPS),
    "jumps": (lambda probe: probe.jumps(), {"total": 1, "jumps": [[AT, 12_000_000]]}),
    "dirty_start": (lambda probe: probe.dirty_start(1, 1.0), {"pages": 256}),
    "dirty_rate": (lambda probe: probe.dirty_rate(), {"pages": 1, "writes": 9, "mib_s": 7.9}),
    "pages_written": (lambda probe: probe.pages_written(), {"pages": 1, "writes": 9, "mib_s": 7.9}),
    "verify": (lambda probe: probe.verify(), WRONG_PAGE),
    "work_log": (lambda probe: probe.work_log(), SECONDS),
    "tcp_listen": (lambda probe: probe.tcp_listen(), {"port": 40_000}),
    "tcp_check": (lambda probe: probe.tcp_check(), TCP),
    "capture_log": (lambda probe: probe.capture_log(), FRAMES),
    "run_command": (lambda probe: run_command(probe, "true", Deadline.after(0)), {}, RAN),
}
"""Of the client, by name, and what the probe answers to each of its requests."""


def seeds() -> list[bytes]:
    """A call's name, and the lines that answer it."""
    return [
        "\n".join(
            [name, *(json.dumps({"id": 1, "ok": True, **answer}) for answer in answers)]
        ).encode()
        for name, (_, *answers) in CALLS.items()
    ]


def door(data: bytes) -> object:
    """The call that the first line names, answered by the rest."""
    name, _, answer = data.partition(b"\n")
    call, *_ = CALLS[name.decode()]
    return call(Probe(Answering(answer), "guest on a"))


LANES = (Lane("probe-answers", door, seeds, kind="json", headed=True),)
