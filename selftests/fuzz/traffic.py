"""What both probes logged of a guest's traffic, read back and judged, where a guest makes it up."""

from __future__ import annotations

import base64
import json
import struct
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

from migrate.analysis.findings import analyse
from migrate.checks.evaluate import evaluate
from migrate.clock import Deadline
from migrate.errors import MeasurementError
from migrate.guest.probe import Probe
from migrate.lab.api import Lab
from migrate.model import Workload
from migrate.model.recording import TrafficLog
from migrate.recorder import traffic
from selftests.doubles import synthetic
from selftests.doubles.synthetic import BEGIN, END, MS
from selftests.fuzz.lane import Lane
from selftests.fuzz.probe_answers import DROPS, NIC, SECONDS, STATUS, TCP, WRONG_PAGE

EVERY = 100
"""One of so many packets of a synthetic stream: inputs are quick then."""
GUEST_ZERO = BEGIN - 10**12
"""On the axis, of the guest's clock."""
WORKLOAD = Workload(interval_us=1000 * EVERY, dirty_mib=1)
LOGS = {"stream.log": "<IQQ", "stream.receipts": "<IQ", "stream.sends": "<Q"}
Answers = dict[str, Any]


class Speaking:
    """A channel whose other end answers by what is asked; rows of a log are packed as it has them,
    if they can be."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.said: list[bytes] = []

    def send(self, data: bytes) -> None:
        """See :class:`migrate.guest.transport.ProbeTransport`."""
        request = json.loads(data)
        answer = self.answers.get(request["do"], {})
        if request["do"] in LOGS:
            answer = _page(LOGS[request["do"]], answer, request["from"], request["max"])
        if isinstance(answer, dict):
            answer = {"id": request["id"], "ok": True, **answer}
        self.said.append(json.dumps(answer).encode() + b"\n")

    def receive(self, deadline: Deadline) -> bytes:
        """See :class:`migrate.guest.transport.ProbeTransport`."""
        if not self.said:
            raise TimeoutError("nothing came from the probe")
        return self.said.pop()

    def close(self) -> None:
        """See :class:`migrate.guest.transport.ProbeTransport`."""


def _page(shape: str, rows: Any, begin: int, most: int) -> Any:
    try:
        part = rows[begin : begin + most]
        data = b"".join(struct.pack(shape, *row) for row in part)
    except (TypeError, struct.error, KeyError):
        return rows
    encoded = base64.b64encode(data).decode()
    return {"total": len(rows), "from": begin, "count": len(part), "data": encoded}


def _seed(gaps: list[tuple[int, int]], *, flushed: bool) -> bytes:
    """Both probes' answers after a move whose traffic has these gaps."""
    both = {}
    for way in ("egress", "ingress"):
        packets = synthetic.arrivals(gaps, flushed=flushed)
        columns = (packets.seq, packets.sent_ns, packets.received_ns)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        both[way] = [(n // EVERY, sent, came) for n, sent, came in rows if n % EVERY == 0]
    sends = [[at] for at in range(BEGIN, END, EVERY * MS)]
    status = {**STATUS, "sent": len(sends), "received": len(sends), "jumps": 2}
    egress = [[n, sent - GUEST_ZERO, came] for n, sent, came in both["egress"]]
    ingress = [[n, sent, came - GUEST_ZERO] for n, sent, came in both["ingress"]]
    guest = {
        "stream.status": status,
        "stream.stop": status,
        "stream.log": ingress,
        "stream.sends": [[at - GUEST_ZERO] for (at,) in sends],
        "stream.drops": DROPS,
        "dirty.verify": WRONG_PAGE,
        "tcp.status": TCP,
        "tick.log": {"total": 2, "jumps": [[10**12 + n, 12 * MS] for n in (10**9, 2 * 10**9)]},
        "net": NIC,
        "lower.log": {
            "total": 2,
            "changes": [
                [10**12 + 10**8, "eth0", "virtio_net", "carries", 10, 12],
                [10**12 + 10**9, "eth0", "virtio_net", "counted", 99, 98],
            ],
        },
        "work.log": SECONDS,
    }
    receipts = [[n, came] for n, _, came in ingress]
    peer = {
        "stream.status": status,
        "stream.stop": status,
        "stream.log": egress,
        "stream.sends": sends,
        "stream.receipts": receipts,
        "stream.drops": {"drops": []},
    }
    return json.dumps({"guest": guest, "peer": peer}).encode()


def seeds() -> list[bytes]:
    """A move without a gap, with a long one, with packets that came late."""
    return [
        _seed([], flushed=False),
        _seed([(synthetic.STOP, 300 * MS)], flushed=False),
        _seed([(synthetic.STOP, 300 * MS)], flushed=True),
    ]


def door(data: bytes) -> object:
    """Read back, analysed, judged, and written; the guest is there, or is gone."""
    said = _both(data)
    if said is None:
        return None  # the peer is ours: its lines are whole
    guest, peer = said
    return [_judged(read(guest, peer, guest_is_there=there)) for there in (True, False)]


def read(guest: Answers, peer: Answers, *, guest_is_there: bool) -> TrafficLog:
    """The traffic's log, as these two tell it."""
    lab = cast("Lab", SimpleNamespace(peer_is_here=True))
    ends = (Probe(Speaking(guest), "guest on b"), Probe(Speaking(peer), "peer"))
    workload = traffic.Traffic(*ends, lab, WORKLOAD)
    workload.asked_ns = BEGIN
    with mock.patch.object(traffic, "now_ns", lambda: END):
        return traffic.read_back(
            workload,
            guest_is_there=guest_is_there,
            deadline=Deadline.after(0),
            moved_ns=synthetic.STOP,
        )


def _both(data: bytes) -> tuple[Answers, Answers] | None:
    """What the guest answers, and the peer."""
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        return None
    both = (said.get("guest"), said.get("peer")) if isinstance(said, dict) else (None, None)
    return cast("tuple[Answers, Answers]", both) if all(type(x) is dict for x in both) else None


def _judged(log: TrafficLog) -> str:
    case = synthetic.case(workload=WORKLOAD.model_dump())
    recording = synthetic.recording(begin_ns=BEGIN, end_ns=END, traffic=log)
    try:
        findings = analyse(recording, case)
    except MeasurementError as error:
        return str(error)
    return evaluate(findings, case, 1, ("a", "b"), leftovers=(), end_ns=END).model_dump_json()


LANES = (Lane("traffic", door, seeds, kind="json", factor=400),)
