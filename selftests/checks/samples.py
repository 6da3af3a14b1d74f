"""Attempts for checks: a good one, and for each check one that fails, and one for each part that
the check needs, without that part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from migrate.model import (
    Attempt,
    Carrier,
    CarrierCheckpoint,
    Case,
    DeviceHandoff,
    Difference,
    Direction,
    DirtyRate,
    Expect,
    Floor,
    Gap,
    GapExplanation,
    Loss,
    LossWindow,
    MemoryCheck,
    MoveDetails,
    Nic,
    Problem,
    ReportedFigures,
    RingAudit,
    Span,
    Stall,
    Stream,
    TcpCheck,
    Unmeasured,
    Workload,
)

MS = 1_000_000
FLOOR = Floor(
    egress_ms=3, ingress_ms=4, egress_delay_ms=1, ingress_delay_ms=1, seconds=1, packets=2000
)
NIC = Nic(name="eth0", driver="virtio_net", mac="52:54:00:6d:6c:01", mtu=1500, carrier=True)
ALL_LIMITS: dict[str, Any] = {
    "error": "canceled by client",
    "outage_egress_ms": 500,
    "outage_ingress_ms": 500,
    "stall_ms": 500,
    "downtime_ms": 500,
    "total_ms": 5000,
    "handoff": True,
    "rings": True,
    "explained_share": 0.95,
    "reported_within_ms": 300,
    "announce_within_ms": 50,
    "dirty_rate_within": 0.5,
}


TCP = TcpCheck(opened=1, alive=1, resets=0, longest_stall_ms=310, answered=1)


def ring_rate(mib_s: float, written_mib_s: float | None) -> DirtyRate:
    """Before the move, by the dirty ring, beside what the guest wrote."""
    rate = {"when": "before", "method": "dirty-ring", "host": "a", "mib_s": mib_s}
    return DirtyRate.model_validate({**rate, "written_mib_s": written_mib_s})


def gap(length: float, error: float = 1.0, **changes: Any) -> Gap:
    fields: dict[str, Any] = {
        "direction": "egress",
        "begin_ns": 1500 * MS,
        "length_ns": round(length * MS),
        "error_ns": round(error * MS),
        "phases": ("stopped", "announce"),
        "part": "switchover",
        **changes,
    }
    return Gap(**fields)


def unknown(
    begin: float, length: float, direction: Direction = "egress", open_ended: bool = False
) -> Unmeasured:
    """Not measured for some milliseconds."""
    return Unmeasured(
        direction=direction,
        begin_ns=round(begin * MS),
        length_ns=round(length * MS),
        reason="the log was full",
        open_ended=open_ended,
    )


def stall(length: float, error: float = 1.0) -> Stall:
    return Stall(
        kind="stood-still",
        begin_ns=1500 * MS,
        length_ns=round(length * MS),
        error_ns=round(error * MS),
    )


PRIMARY = Carrier(
    device="eth2",
    driver="igbvf",
    begin_ns=0,
    end_ns=9000 * MS,
    error_ns=MS,
    sent=9000,
    received=8700,
)
STANDBY = PRIMARY.model_copy(update={"device": "eth1", "driver": "virtio_net"})


CANCELED = Problem(tried="migrate to beta", said="operation aborted: canceled by client")


def checkpoints(at_the_end: Carrier) -> tuple[CarrierCheckpoint, ...]:
    """The primary carries before the move."""
    return (
        CarrierCheckpoint(when="before the move", host="alpha", carrier=PRIMARY),
        CarrierCheckpoint(when="at the end", host="beta", carrier=at_the_end),
    )


def loss(direction: Direction, window: LossWindow, lost: int = 0, sent: int = 1000) -> Loss:
    return Loss(
        direction=direction,
        window=window,
        hop=0 if window == "floor" else 1,
        begin_ns=0,
        end_ns=1000 * MS,
        sent=sent,
        lost=lost,
        late=0,
        late_in_gaps=0,
    )


def losses(direction: Direction, window: LossWindow, lost: int, sent: int = 1000) -> dict[str, Any]:
    """An attempt's account with so many packets lost in one window."""
    return {
        "loss": tuple(
            loss(way, name, lost, sent) if (way, name) == (direction, window) else loss(way, name)
            for way in get_args(Direction)
            for name in get_args(LossWindow)
        )
    }


def attempt(
    expect: dict[str, Any] | None = None, workload: dict[str, Any] | None = None, **changes: Any
) -> Attempt:
    """A good one, with the changes."""
    fields: dict[str, Any] = {
        "case": Case(
            id="virtio", expect=Expect(**(expect or {})), workload=Workload(**(workload or {}))
        ),
        "number": 1,
        "source": "alpha",
        "target": "beta",
        "begin_ns": 0,
        "end_ns": 10_000 * MS,
        "outcome": "completed",
        "held_by": ("beta",),
        "reported": ReportedFigures(downtime_ms=60, total_ms=2000),
        "gaps": (gap(300), gap(200, direction="ingress"), gap(50)),
        "streams": tuple(
            Stream(direction=way, sent=1, received=1, lost=0, late=0, duplicated=0, reordered=0)
            for way in ("egress", "ingress")
        ),
        **losses("egress", "after", 0),
        "stalls": (stall(250),),
        "stalls_seen_from_ms": 12.0,
        "floor": FLOOR,
        "memory": MemoryCheck(pages=2048, writes=9000),
        "tcp": TCP,
        "nic_before": NIC,
        "nic_after": NIC,
        "leftovers": (),
        "failover_hosts": ("alpha", "beta"),
        "carriers": (PRIMARY,),
        "carrier_checkpoints": checkpoints(PRIMARY),
        "backend_failed": (),
        "explained": tuple(
            GapExplanation(
                direction=way,
                begin_ns=1500 * MS,
                length_ns=MS,
                spans=(Span(what="stopped", begin_ns=1500 * MS, end_ns=1501 * MS),),
            )
            for way in get_args(Direction)
        ),
        "inside": (
            MoveDetails(
                devices=(DeviceHandoff(device="nic", compared=True),),
                rings=(
                    RingAudit(device="nic", queue=0, kind="split", size=8, facts={"used": "1"}),
                ),
                announced=5,
                first_announce_ms=1.0,
                announce_error_ms=0.1,
            ),
        ),
        "dirty_rates": (ring_rate(4.0, 4.0),),
        **({"error": CANCELED} if "error" in (expect or {}) else {}),
        **changes,
    }
    return Attempt(**fields)


Changes = Mapping[str, Any]
"""What is not as in the good attempt."""


@dataclass(frozen=True, slots=True)
class Samples:
    """For one check: changes by which it fails, and those by which it lacks each need, by name."""

    fails: Changes
    without: Mapping[str, Changes] = field(default_factory=dict)


NO_GAPS: Changes = {"gaps": None}
NO_FLOOR: Changes = {"floor": None}
NOTHING_REPORTED: Changes = {"reported": ReportedFigures()}
DETAILS = attempt().inside[0]


def hop(**changes: Any) -> dict[str, Any]:
    """An attempt's one hop, with the changes."""
    return {"inside": (DETAILS.model_copy(update=changes),)}


DIFFERS = DeviceHandoff(
    device="nic",
    compared=True,
    differences=(
        Difference(field="queue 0: used", before="1", after="2", lawful=False, why="2.7.8"),
    ),
)
UNNAMED = Expect(outcome="failed")
"""An expected failure, and no word of what must be said."""
BROKEN = RingAudit(device="nic", queue=0, kind="split", size=8, broken=("used > avail",))
DARK = Span(what="who knows", begin_ns=1500 * MS, end_ns=1501 * MS, explained=False)

SAMPLES: Mapping[str, Samples] = {
    "outcome": Samples({"outcome": "failed"}),
    "error": Samples(
        {"error": Problem(tried="migrate to beta", said="End of file while reading data")},
        {"an expected error": {"case": Case(id="virtio", expect=UNNAMED)}},
    ),
    "held-by": Samples({"held_by": ("alpha",)}),
    "measured": Samples(
        losses("egress", "floor", 600),
        {
            "the gaps": NO_GAPS,
            "the streams' accounts": {"streams": None},
            "the floor": NO_FLOOR,
            "packets on the floor": losses("ingress", "floor", 0, sent=0),
            "both directions until the end": {"unmeasured": (unknown(400, 600, open_ended=True),)},
        },
    ),
    "outage.egress": Samples({"gaps": (gap(900),)}, {"the gaps": NO_GAPS, "the floor": NO_FLOOR}),
    "outage.ingress": Samples(
        {"gaps": (gap(900, direction="ingress"),)}, {"the gaps": NO_GAPS, "the floor": NO_FLOOR}
    ),
    "stall": Samples(
        {"stalls": (stall(900),)},
        {
            "the guest's clock": {"stalls": None},
            "the shortest stall that is seen": {"stalls_seen_from_ms": None},
        },
    ),
    "downtime": Samples(
        {"reported": ReportedFigures(downtime_ms=900)},
        {"the downtime reported": NOTHING_REPORTED},
    ),
    "total": Samples(
        {"reported": ReportedFigures(total_ms=9000)},
        {"the total time reported": NOTHING_REPORTED},
    ),
    "memory": Samples(
        {"memory": MemoryCheck(pages=2048, writes=9000, wrong_page=3)},
        {
            "the pattern read back": {"memory": None},
            "writes to the pattern": {"memory": MemoryCheck(pages=2048, writes=0)},
        },
    ),
    "tcp": Samples(
        {"tcp": TCP.model_copy(update={"answered": 0})},
        {
            "the TCP connections": {"tcp": None},
            "an open connection": {
                "tcp": TCP.model_copy(update={"opened": 0, "alive": 0, "answered": 0})
            },
            "a byte back on each": {"tcp": TCP.model_copy(update={"answered": None})},
        },
    ),
    "device": Samples(
        {"nic_after": NIC.model_copy(update={"carrier": False})},
        {
            "the interface before": {"nic_before": None},
            "the interface after": {"nic_after": None},
        },
    ),
    "network": Samples(
        {"gaps": (gap(2000, open_ended=True),)},
        {
            "the gaps": NO_GAPS,
            "gaps that had ended": {"gaps": (gap(100, open_ended=True),)},
            "packets after the move": losses("ingress", "after", 0, sent=0),
        },
    ),
    **{
        f"loss.{way}": Samples(
            losses(way, "after", 500),
            {
                "packets on the floor": losses(way, "floor", 0, sent=0),
                "packets after the move": losses(way, "after", 0, sent=0),
            },
        )
        for way in get_args(Direction)
    },
    "carried-by": Samples(
        {"carrier_checkpoints": checkpoints(STANDBY)}, {"the log of carriers": {"carriers": None}}
    ),
    "backend": Samples(
        {"backend_failed": ("unable to start vhost net: 95",)},
        {"QEMU's log": {"backend_failed": None}},
    ),
    "handoff.equal": Samples(
        hop(devices=(DIFFERS,)), {"each network device's state on both sides": hop(devices=None)}
    ),
    "ring.sound": Samples(hop(rings=(BROKEN,)), {"every virtqueue": hop(rings=None)}),
    "downtime.explained": Samples(
        {
            "explained": tuple(
                GapExplanation(direction=way, begin_ns=1500 * MS, length_ns=MS, spans=(DARK,))
                for way in get_args(Direction)
            )
        },
        {
            "the gaps": NO_GAPS,
            "the floor": NO_FLOOR,
            "an explanation of each way": {"explained": ()},
            "gaps that had ended": {
                "gaps": (gap(300), gap(100, open_ended=True), gap(100, direction="ingress"))
            },
            "a bound on every gap": {"unmeasured": (unknown(100, 400),)},
        },
    ),
    "reported.agrees": Samples(
        {"reported": ReportedFigures(downtime_ms=2000)},
        {
            "the downtime reported": NOTHING_REPORTED,
            "the gaps": NO_GAPS,
            "the floor": NO_FLOOR,
            "events on the axis": hop(placed=False),
        },
    ),
    "announce.sent": Samples(
        hop(first_announce_ms=900.0),
        {"announcements of each hop": hop(first_announce_ms=None, announced=None)},
    ),
    "dirty.rate": Samples(
        {"dirty_rates": (ring_rate(40.0, 4.0),)},
        {
            "a rate to write at": {"workload": {"dirty_mib_s": 16}},
            "a measured rate": {
                "dirty_rates": (ring_rate(4.0, 4.0).model_copy(update={"mib_s": None}),)
            },
            "the guest's count": {"dirty_rates": (ring_rate(4.0, None),)},
        },
    ),
    "clean": Samples(
        {"leftovers": ("tap vnet0",)}, {"a search for leftovers": {"leftovers": None}}
    ),
}
