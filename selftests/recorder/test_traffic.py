"""What is read back when a workload ends, laid on the axis of time."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from migrate.analysis.guest_clock import GuestClock
from migrate.analysis.outage import measure
from migrate.analysis.traffic import arrival_error_ns, lower_events, observation
from migrate.clock import Deadline, Offset
from migrate.errors import GuestError
from migrate.guest.probe import Probe
from migrate.lab.api import Lab
from migrate.model import LowerChange, Workload
from migrate.model.recording import Arrivals, TrafficLog
from migrate.recorder.loopback import ClockLook, both_ways, clock_by_looks
from migrate.recorder.traffic import Traffic
from selftests.doubles.wire import GUEST_ZERO, MS, PEER_ZERO, Wire, frozen
from selftests.fuzz import traffic as fuzz


def log_of(
    egress: Arrivals, ingress: Arrivals, lowers: tuple[LowerChange, ...] | None
) -> TrafficLog:
    """Both logs as a local lab has them: the peer's clock is the axis."""
    return TrafficLog(
        egress=egress,
        ingress=ingress,
        sent_egress=len(egress),
        sent_ingress=len(ingress),
        end_ns=0,
        jumps=(),
        lowers=lowers,
    )


def change(at_ns: int, device: str, driver: str, what: str) -> LowerChange:
    return LowerChange.model_validate(
        {"at_ns": at_ns, "device": device, "driver": driver, "what": what}
    )


def test_an_arrival_is_placed_by_the_clock_of_where_it_came_in() -> None:
    log = Wire().log()
    found = log_of(log.egress, log.ingress, ())
    at_ns = int(log.ingress.sent_ns[-1])
    clock = GuestClock.fit(log.egress, log.ingress)
    assert arrival_error_ns(found, "egress", at_ns, clock) == 0
    assert arrival_error_ns(found, "ingress", at_ns, clock) == clock.error_across(at_ns, at_ns)
    looped = found.model_copy(update={"looped": Offset("guest.mono", 0, 77)})
    assert arrival_error_ns(looped, "egress", at_ns, clock) == 77


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
    events = lower_events(log_of(log.egress, log.ingress, changes))
    assert [event.name for event in events] == ["lower-gone", "carried-by"]
    assert events[1].data == {"device": "eth1", "driver": "virtio_net"}
    for event, ms in zip(events, at.tolist(), strict=True):
        assert (event.source, event.host, event.clock) == ("probe", "guest", "guest.mono")
        assert event.off_ns > 0
        assert abs(event.at_ns - (PEER_ZERO + ms * MS)) <= event.off_ns


@pytest.mark.parametrize("lowers", [None, ()], ids=["the guest is gone", "nothing happened"])
def test_no_change_makes_no_event(lowers: tuple[LowerChange, ...] | None) -> None:
    log = Wire().log()
    assert lower_events(log_of(log.egress, log.ingress, lowers)) == ()


def test_without_a_packet_no_change_can_be_placed() -> None:
    lowers = (change(GUEST_ZERO, "eth0", "virtio_net", "up"),)
    assert lower_events(log_of(Arrivals.empty(), Arrivals.empty(), lowers)) == ()


# --- a network that returns what it gets --------------------------------------------------------

OFFSET = 900 * MS


def look(at_ms: float, lost_ms: float = 0, error_ms: float = 0.5) -> ClockLook:
    """The guest's clock started at 900 ms of the axis, and has lost some time since."""
    lost, error = round(lost_ms * MS), round(error_ms * MS)
    return ClockLook(round(at_ms * MS), Offset("guest.mono", OFFSET + lost, error))


def placed(clock: GuestClock, guest_ms: float) -> float:
    return float(clock.to_axis(np.array([round(guest_ms * MS)]))[0]) / MS


def test_the_time_that_was_lost_was_lost_at_the_stop() -> None:
    clock = clock_by_looks([look(1000), look(2000), look(4000, lost_ms=300)], [3000 * MS])
    assert placed(clock, 100) == 1000
    assert placed(clock, 2099) == 2999
    assert placed(clock, 2100) == 3300
    assert clock.error_across(2000 * MS, 4000 * MS) == 1 * MS


def test_the_best_look_counts_and_drift_is_error() -> None:
    looks = [look(1000, error_ms=3), look(2000, lost_ms=0.2, error_ms=1)]
    clock = clock_by_looks(looks, [])
    assert placed(clock, 100) == pytest.approx(1000.2)
    assert clock.error_ns == pytest.approx(1.2 * MS)


def test_of_two_stops_the_doubt_is_error() -> None:
    clock = clock_by_looks([look(1000), look(4000, lost_ms=300)], [2000 * MS, 3000 * MS])
    assert clock.error_ns == 300.5 * MS


def test_a_stop_before_the_first_look_is_no_matter() -> None:
    assert len(clock_by_looks([look(1000)], [500 * MS, 4000 * MS]).segments) == 1


def test_the_outage_of_a_loop_is_in_both_directions() -> None:
    """The guest stands still for 300 ms, and what is sent in 50 ms before is lost."""
    guest = np.arange(0, 3000, dtype=np.int64) * MS
    log = Arrivals(np.arange(3000), guest, guest + MS // 2)
    stop_ms, lost_ms = 2000.2, 300
    kept = (guest < 1950 * MS) | (guest >= 2000 * MS)
    looks = [look(950), look(2850), look(3900, lost_ms=lost_ms)]
    clock = clock_by_looks(looks, [round((900 + stop_ms) * MS)])
    egress, ingress = both_ways(log.select(kept), clock)
    window = (900 * MS, round(placed(clock, 2999) * MS))
    counts = {"sent_egress": 3000, "sent_ingress": 3000, "end_ns": window[1]}
    looped = Offset("guest.mono", 0, clock.error_across(*window))
    read = log_of(egress, ingress, ()).model_copy(update={**counts, "looped": looped})
    found = measure(observation(read, MS, (window[0], 1900 * MS)))
    assert [gap.direction for gap in found.gaps] == ["egress", "ingress"]
    for gap in found.gaps:
        assert gap.lost == 50
        assert abs(gap.length_ms - 350) <= gap.error_ns / MS < 2
    assert [round(stall.length_ns / MS) for stall in found.stalls or ()] == [300]


# --- a guest that lies ---------------------------------------------------------------------------


def answers() -> tuple[dict[str, Any], dict[str, Any]]:
    """What a guest and its peer say after a move without a gap."""
    both = json.loads(fuzz.seeds()[0])
    return both["guest"], both["peer"]


def test_a_guest_that_says_it_sent_more_than_it_can_have_leaves_its_receipts() -> None:
    guest, peer = answers()
    assert not fuzz.read(guest, peer, guest_is_there=True).from_receipts
    guest["stream.stop"]["sent"] = 1 << 52
    log = fuzz.read(guest, peer, guest_is_there=True)
    assert log.from_receipts
    assert "it sent 4503599627370496 packets, 10110 were due at most" in log.notes[0]


@pytest.mark.parametrize("name", ["stream.log", "stream.receipts"])
def test_packets_whose_numbers_were_never_due_are_an_error(name: str) -> None:
    """They come from the guest, or from whoever is on its network: the peer logs them all."""
    guest, peer = answers()
    peer[name].append([4_000_000_000, *peer[name][-1][1:]])
    with pytest.raises(GuestError, match="seq is 4000000000, more than 10109") as caught:
        fuzz.read(guest, peer, guest_is_there=False)
    assert caught.value.host == "peer"


# --- the start ------------------------------------------------------------------------------------


class Opening:
    """A probe in the guest whose first connections come to nothing."""

    where = "guest on a"

    def __init__(self, *said: str) -> None:
        self.said = list(said)
        self.asked = 0

    def tcp_open(self, _to: str, _port: int, count: int) -> None:
        assert count == 1
        self.asked += 1
        if self.said:
            raise GuestError("tcp.open", said=self.said.pop(0))


def connected(guest: Opening, deadline: Deadline) -> None:
    lab = cast("Lab", SimpleNamespace(peer_is_here=True, peer_address="192.0.2.1"))
    traffic = Traffic(cast("Probe", guest), cast("Probe", None), lab, Workload())
    traffic._connect(7, deadline)


def test_a_connection_that_is_late_is_tried_again() -> None:
    late = "connection 1 of 1: Connection timed out"
    guest = Opening(late, late)
    connected(guest, Deadline.after(30))
    assert guest.asked == 3
    with pytest.raises(GuestError, match="timed out"):
        connected(Opening(late), Deadline.after(0))


def test_a_connection_that_is_refused_is_not() -> None:
    guest = Opening("connection 1 of 1: Connection refused", "")
    with pytest.raises(GuestError, match="refused"):
        connected(guest, Deadline.after(30))
    assert guest.asked == 1
