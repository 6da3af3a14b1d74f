"""What is read back when a workload ends, laid on the axis of time."""

from __future__ import annotations

import numpy as np
import pytest

from migrate.observe.traffic import Taken
from migrate.probe import LowerChange
from migrate.timeline import Arrivals
from selftests.wire import GUEST_ZERO, MS, PEER_ZERO, Wire, frozen


def taken(egress: Arrivals, ingress: Arrivals, lowers: tuple[LowerChange, ...] | None) -> Taken:
    """Both logs as a local lab has them: the peer's clock is the axis."""
    return Taken(
        egress=egress,
        ingress=ingress,
        sent_egress=len(egress),
        sent_ingress=len(ingress),
        end_ns=0,
        jumps=(),
        memory=None,
        tcp=None,
        nic=None,
        from_receipts=False,
        lowers=lowers,
    )


def change(at_ns: int, device: str, driver: str, what: str) -> LowerChange:
    return LowerChange.model_validate(
        {"at_ns": at_ns, "device": device, "driver": driver, "what": what}
    )


def test_changes_of_lower_devices_are_events_on_the_axis() -> None:
    """One before and one after a stop that the guest's clock does not know of."""
    wire = Wire(troubles=(frozen(2000, 300),))
    log = wire.log()
    at = np.array([1500.0, 3000.0])
    before, after = (np.rint(wire.guest_clock(at) * MS).astype(int) + GUEST_ZERO).tolist()
    changes = (
        change(before, "eth2", "igbvf", "gone"),
        change(after, "eth1", "virtio_net", "carries"),
    )
    events = taken(log.egress, log.ingress, changes).lower_events()
    assert [event.name for event in events] == ["lower-gone", "carried-by"]
    assert events[1].data == {"device": "eth1", "driver": "virtio_net"}
    for event, ms in zip(events, at.tolist(), strict=True):
        assert (event.source, event.host, event.clock) == ("probe", "guest", "guest.mono")
        assert event.error_ns > 0
        assert abs(event.at_ns - (PEER_ZERO + ms * MS)) <= event.error_ns


@pytest.mark.parametrize("lowers", [None, ()], ids=["the guest is gone", "nothing happened"])
def test_no_change_makes_no_event(lowers: tuple[LowerChange, ...] | None) -> None:
    log = Wire().log()
    assert taken(log.egress, log.ingress, lowers).lower_events() == ()


def test_without_a_packet_no_change_can_be_placed() -> None:
    lowers = (change(GUEST_ZERO, "eth0", "virtio_net", "up"),)
    assert taken(Arrivals.empty(), Arrivals.empty(), lowers).lower_events() == ()
