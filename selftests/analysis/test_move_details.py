"""What went on inside of each hop, from events, answers and arrivals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from migrate.analysis.hops import hop_events
from migrate.analysis.move_details import UNHEARD, move_details
from migrate.analysis.traffic import guest_clock
from migrate.model import Case, Event, GuestSpec, MoveDetails, Nic
from migrate.model.recording import (
    AnnounceParameters,
    Arrivals,
    Blocktime,
    HopRecording,
    MoveResult,
    QemuRecording,
    Recording,
    StartRecording,
    TrafficLog,
)

MS = 1_000_000
NIC = Nic(name="eth0", driver="virtio_net", mac="52:54:00:00:00:01", mtu=1500, carrier=True)
MOVED = MoveResult(outcome="completed", held_by=("b",))


def at(ms: float, name: str, host: str, **data: Any) -> Event:
    source: Any = "fabric" if host == "fabric" else "qemu"
    error_ns = 0 if host == "fabric" else MS // 10
    at_ns = round(ms * MS)
    return Event(at_ns=at_ns, error_ns=error_ns, source=source, host=host, name=name, data=data)


STOP, RESUME = at(100, "STOP", "a"), at(160, "RESUME", "b")
HEARD = tuple(
    at(ms, "announce", "fabric", kind=kind)
    for ms, kind in ((161, "garp"), (162, "na"), (230, "garp"))
)


def arrivals(*received_ms: float) -> Arrivals:
    received = (np.array(received_ms) * MS).astype(np.int64)
    return Arrivals(np.arange(len(received), dtype=np.int64), received - MS, received)


LOG = {"egress": arrivals(50, 90, 175, 180), "ingress": arrivals(52, 92, 168, 182)}


def traffic(log: dict[str, Arrivals]) -> TrafficLog:
    return TrafficLog(
        egress=log["egress"],
        ingress=log["ingress"],
        sent_egress=None,
        sent_ingress=9,
        end_ns=0,
        jumps=None,
    )


UNSEEN = QemuRecording()


def hops(
    recordings: Sequence[QemuRecording],
    events: Sequence[Event],
    *,
    log: dict[str, Arrivals] | None = None,
    end_ms: float | None = 1200,
    reasons: Mapping[str, str] | None = None,
) -> tuple[MoveDetails, ...]:
    """Hops of a second each, there and back."""
    log = LOG if log is None else log
    recording = Recording(
        start=StartRecording(begin_ns=0, floor_window=(0, 1), start_ms=0, nic=NIC),
        hops=tuple(
            HopRecording(
                source="ab"[number % 2],
                target="ba"[number % 2],
                result=MOVED,
                begin_ns=number * 1000 * MS,
                end_ns=(number + 1) * 1000 * MS,
                qemu=qemu,
            )
            for number, qemu in enumerate(recordings)
        ),
        traffic=traffic(log),
        events=tuple(events),
        no_trace_points=dict(reasons or {}),
        listened_until_ns=None if end_ms is None else round(end_ms * MS),
    )
    case = Case(id="x", guest=GuestSpec(memory_mib=128))
    clock = guest_clock(recording.traffic)
    return move_details(recording, hop_events(recording, NIC.mac), case, log, clock)


def hop(qemu: QemuRecording = UNSEEN, events: Sequence[Event] = (STOP, RESUME), **more: Any) -> Any:
    (found,) = hops([qemu], events, **more)
    return found


def test_announcements_are_counted_by_sender_beside_the_rounds_asked() -> None:
    early = at(150, "announce", "fabric", kind="rarp")
    announce = AnnounceParameters(rounds=5, initial_ms=50, step_ms=100, max_ms=550)
    found = hop(QemuRecording(announce=announce), (STOP, RESUME, early, *HEARD))
    assert (found.announced, found.announced_by) == (3, {"garp": 2, "na": 1, "rarp": 0})
    assert (found.announce_rounds_asked, found.announce_last_due_ms) == (5, 800)
    assert (found.first_announce_ms, found.listened_ms) == (-10.0, 1040.0)


def test_a_hop_is_listened_to_until_the_next_one_begins() -> None:
    first, second = hops([UNSEEN, UNSEEN], (STOP, RESUME), end_ms=2500)
    assert first.listened_ms == 840.0
    assert (second.listened_ms, second.announced_by) == (None, None)


def test_announcements_are_not_known_where_captured_frames_are_missing() -> None:
    """The log keeps the newest ones: the first announcement may have been before them."""
    missed = at(170, "frames-missed", "fabric", count=12)
    found = hop(events=(STOP, RESUME, missed, *HEARD))
    assert (found.announced, found.first_announce_ms) == (None, None)
    assert UNHEARD in found.unseen
    before = at(90, "frames-missed", "fabric", count=12)
    assert hop(events=(before, STOP, RESUME, *HEARD)).announced == 3


def test_how_long_the_fabric_was_listened_to_may_be_unknown() -> None:
    found = hop(events=(STOP, RESUME, *HEARD), end_ms=None)
    assert (found.announced, found.listened_ms) == (3, None)


def test_nobody_is_counted_where_the_guest_did_not_run_on_at_the_target() -> None:
    found = hop(events=(STOP, at(160, "RESUME", "a"), *HEARD))
    assert (found.announced, found.announced_by, found.listened_ms) == (None, None, None)
    assert found.announce_rounds_asked is None
    assert found.first_egress_ms == 15.0  # it ran on all the same


def test_the_first_packet_each_way_is_the_first_after_the_resume() -> None:
    found = hop()
    assert (found.first_egress_ms, found.first_ingress_ms) == (15.0, 8.0)
    assert found.first_egress_error_ms == 0.1  # the event's
    assert found.first_ingress_error_ms > 0.1  # and the guest's clock's
    assert found.silent == ()


def test_a_way_that_stays_dark_is_no_unmeasured_one() -> None:
    log = {**LOG, "ingress": arrivals(52, 92)}
    found = hop(log=log)
    assert (found.first_ingress_ms, found.silent) == (None, ("ingress",))
    assert found.first_egress_ms == 15.0
    unmeasured = hop(events=(STOP,))
    assert (unmeasured.first_egress_ms, unmeasured.silent) == (None, ())


def test_a_packet_of_the_next_hop_is_not_the_first_of_this_one() -> None:
    log = {"egress": arrivals(50, 90, 1500), "ingress": arrivals(52, 92, 168)}
    first, _ = hops([UNSEEN, UNSEEN], (STOP, RESUME), log=log, end_ms=2500)
    assert (first.first_egress_ms, first.silent) == (None, ("egress",))


@pytest.mark.parametrize(
    ("answered_ms", "events", "missed", "stop", "stopped_ms"),
    [
        ((0, 20, 420, 440), (STOP, RESUME), 19, True, 60.0),
        ((130, 430), (STOP, RESUME), 14, False, 30.0),
        ((200, 500), (STOP, RESUME), 14, False, 0.0),
        ((0, 400), (STOP,), 19, True, None),
        ((0, 400), (), 19, None, None),
    ],
)
def test_a_blind_spell_tells_what_was_missed_by_it(
    answered_ms: Sequence[float],
    events: Sequence[Event],
    missed: int,
    stop: bool | None,
    stopped_ms: float | None,
) -> None:
    (blind,) = hop(
        QemuRecording(answered_ns=tuple(round(ms * MS) for ms in answered_ms)), events
    ).blind
    assert (blind.missed, blind.stop, blind.stopped_ms) == (missed, stop, stopped_ms)
    assert blind.host == "a"


def test_a_qemu_that_answers_is_not_blind() -> None:
    answered = tuple(round(ms * MS) for ms in (0, 20, 260))
    assert hop(QemuRecording(answered_ns=answered)).blind == ()


def test_the_wait_for_pages_is_the_targets_or_not_measured() -> None:
    found = hop(QemuRecording(blocktime=Blocktime(every_ms=12, each_ms=(12, 30))))
    assert (found.postcopy_blocktime_ms, found.postcopy_cpus_blocktime_ms) == (12, (12, 30))
    assert hop(QemuRecording()).postcopy_blocktime_ms is None


TRACED = at(150, "downtime-checkpoint", "b", checkpoint="dst-precopy-loadvm-completed")
REASONS = {"a": "no such trace points", "b": "the log of QEMU was not read: Permission denied"}


def test_each_end_without_trace_points_has_its_own_reason() -> None:
    found = hop(reasons=REASONS)
    assert found.unseen == tuple(
        f"{h}: the stages of the stop are not known: {REASONS[h]}" for h in "ab"
    )
    found = hop(events=(STOP, TRACED, RESUME), reasons={"a": REASONS["a"]})
    assert found.unseen == (f"a: the stages of the stop are not known: {REASONS['a']}",)


def test_a_target_that_was_not_to_load_needs_no_trace_points() -> None:
    found = hop(events=(STOP, at(160, "RESUME", "a")), reasons=REASONS)
    assert found.unseen == (f"a: the stages of the stop are not known: {REASONS['a']}",)
    assert hop(events=(RESUME,), reasons=REASONS).unseen == ()


def test_a_recording_that_knows_no_reason_says_what_is_missing() -> None:
    (reason,) = hop().unseen
    assert "no trace points vmstate_downtime_* were recorded" in reason


def test_a_first_packet_sent_before_the_stop_is_known_for_one() -> None:
    held = {"egress": arrivals(50, 175), "ingress": arrivals(52, 168)}
    held["egress"].sent_ns[1] = 99 * MS
    (found,) = hops([UNSEEN], (STOP, RESUME), log=held)
    assert found.first_sent_before_stop == ("egress",)
    (found,) = hops([UNSEEN], (STOP, RESUME))
    assert found.first_sent_before_stop == ()


def test_each_part_has_its_own_reasons() -> None:
    seen = QemuRecording(unseen=("a: its rings were not read: x", "b: late"))
    (found,) = hops([seen], (STOP, RESUME))
    assert found.reasons("rings") == ("a: its rings were not read: x",)
    assert found.reasons("devices") == ("b: late",)
    (found,) = hops([QemuRecording(source={}, target={})], (STOP, RESUME))
    assert found.reasons("rings") == ("a: it has no virtio network device",)
    (found,) = hops([UNSEEN], ())
    assert found.reasons("rings") == ("a: the guest was not stopped there",)
