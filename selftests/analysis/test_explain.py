"""Where an outage went: each span has its evidence, and without any it is unexplained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrate.analysis.explain import explain_gap
from migrate.analysis.hop_events import HopEvents
from migrate.analysis.stop_stages import device_times, stop_stages
from migrate.formats.log_events import CHECKPOINT, LOADED, QUEUE, READY, SAVED
from migrate.model import Direction, Event, Gap, GapExplanation
from migrate.model.recording import Arrivals
from selftests.doubles.synthetic import qemu_event

MS = 1_000_000
GRAIN = 3 * MS


STOP, RESUME = qemu_event(2, "STOP", "a"), qemu_event(50, "RESUME", "b")
TRACES = (
    qemu_event(1, CHECKPOINT, "a", checkpoint="src-downtime-start"),
    qemu_event(20, CHECKPOINT, "a", checkpoint="src-iterable-saved"),
    qemu_event(21, SAVED, "a", type="non-iterable", idstr="cpu", instance_id="0", downtime="1000"),
    qemu_event(22, CHECKPOINT, "a", checkpoint="src-non-iterable-saved"),
    qemu_event(31, LOADED, "b", type="non-iterable", idstr="cpu", instance_id="0", downtime="1000"),
    qemu_event(40, LOADED, "b", type="non-iterable", idstr="nic", instance_id="1", downtime="500"),
    qemu_event(41, CHECKPOINT, "b", checkpoint="dst-precopy-loadvm-completed"),
)
ANNOUNCED = qemu_event(55, "announce", "fabric")


def told(*events: Event) -> HopEvents:
    return HopEvents(sorted(events, key=lambda event: event.at_ns), "a", "b")


def log(*rows: tuple[int, float, float]) -> Arrivals:
    """Number, sent and received, in milliseconds."""
    seq, sent, received = zip(*rows, strict=True)
    return Arrivals(
        np.array(seq, dtype=np.int64),
        (np.array(sent) * MS).astype(np.int64),
        (np.array(received) * MS).astype(np.int64),
    )


BEFORE = ((1, -2, -1.9), (2, -1, -0.9), (3, 0, 0.1))


def gap(direction: Direction, length_ms: float) -> Gap:
    return Gap(direction=direction, begin_ns=0, length_ns=round(length_ms * MS), error_ns=1)


def of(
    direction: Direction,
    length_ms: float,
    events: Sequence[Event],
    rows: Sequence[tuple[int, float, float]],
) -> GapExplanation:
    return explain_gap(gap(direction, length_ms), told(*events), log(*BEFORE, *rows), GRAIN)


def spans(found: GapExplanation) -> list[tuple[float, str, bool]]:
    return [(span.length_ms, span.what, span.explained) for span in found.spans]


STAGES = [
    (18.0, "sending the rest of memory"),
    (2.0, "saving device state"),
    (8.0, "loading the rest of memory"),
    (11.0, "loading device state"),
    (9.0, "libvirt resuming the guest"),
]


def test_the_stop_is_explained_stage_by_stage() -> None:
    found = stop_stages(told(STOP, RESUME, *TRACES))
    assert found is not None
    assert [(span.length_ms, span.what) for span in found] == STAGES


def test_a_stop_without_trace_points_is_one_span_and_devices_are_not_known() -> None:
    found = stop_stages(told(STOP, RESUME))
    assert found is not None
    assert [span.what for span in found] == ["guest stopped, no stages recorded"]
    assert device_times(told(STOP, RESUME)) is None


STATUSES = (
    qemu_event(3, "MIGRATION", "a", status="pre-switchover"),
    qemu_event(9, "MIGRATION", "a", status="device"),
    qemu_event(43, "MIGRATION", "b", status="completed"),
    qemu_event(44, "MIGRATION", "a", status="completed"),
)
PAUSED = [(1.0, "source preparing the switchover"), (6.0, "libvirt continuing the switchover")]


def stages(*events: Event) -> list[tuple[float, str]]:
    found = stop_stages(told(STOP, RESUME, *events))
    assert found is not None
    return [(span.length_ms, span.what) for span in found]


def test_how_long_qemu_waits_for_libvirt_is_no_time_of_the_memory() -> None:
    assert stages(*STATUSES, *TRACES) == [
        *PAUSED,
        (11.0, "sending the rest of memory"),
        *STAGES[1:],
    ]


def test_a_guest_that_was_suspended_has_its_memory_sent_meanwhile() -> None:
    passes = qemu_event(2.5, "MIGRATION_PASS", "a")
    assert stages(passes, *STATUSES)[0] == (1.0, "sending memory, guest suspended")


def test_an_end_without_trace_points_is_told_by_its_status() -> None:
    ours = [event for event in TRACES if event.host == "a"]
    theirs = [event for event in TRACES if event.host == "b"]
    assert stages(*STATUSES, *ours) == [
        *PAUSED,
        (11.0, "sending the rest of memory"),
        (2.0, "saving device state"),
        (21.0, "loading memory and device state"),
        (7.0, "libvirt resuming the guest"),
    ]
    assert stages(*STATUSES, *theirs) == [
        *PAUSED,
        (21.0, "sending and loading memory"),
        (11.0, "loading device state"),
        (9.0, "libvirt resuming the guest"),
    ]
    assert stages(*STATUSES) == [
        *PAUSED,
        (34.0, "loading memory and device state"),
        (7.0, "libvirt resuming the guest"),
    ]


def test_a_load_that_nobody_reported_the_end_of_is_not_laid_to_libvirt() -> None:
    ours = [event for event in TRACES if event.host == "a"]
    assert stages(*ours)[-1] == (
        28.0,
        "loading memory and device state, and libvirt resuming the guest",
    )


@pytest.mark.parametrize("events", [(), (STOP,), (RESUME,)])
def test_what_never_stopped_or_never_resumed_has_no_stages(events: tuple[Event, ...]) -> None:
    assert stop_stages(told(*events, *TRACES)) is None
    assert device_times(told(*events, *TRACES)) is None


def test_each_device_has_what_it_took_on_both_ends() -> None:
    earlier = replace_at(TRACES[4], -5000)  # of the guest's own start from a saved state
    found = device_times(told(STOP, RESUME, earlier, *TRACES))
    assert found is not None
    assert [(one.device, one.save_ms, one.load_ms) for one in found] == [
        ("cpu", 1.0, 1.0),
        ("nic#1", None, 0.5),
    ]


def test_a_log_of_devices_without_end_has_an_end() -> None:
    saved = [
        qemu_event(21, SAVED, "a", type="non-iterable", idstr=f"d{n}", downtime="1000")
        for n in range(5000)
    ]
    found = device_times(told(STOP, RESUME, *saved))
    assert found is not None
    assert len(found) == 2001
    assert (found[-1].device, found[-1].save_ms) == ("more devices", 3000)


def replace_at(event: Event, ms: float) -> Event:
    return event.model_copy(update={"at_ns": round(ms * MS)})


def test_a_gap_of_egress_ends_when_the_guest_comes_to_send() -> None:
    found = of("egress", 80, (STOP, RESUME, *TRACES), [(4, 80, 80.2)])
    assert spans(found) == [
        (1.0, "last packet before the stop", True),
        (1.0, "stopping the guest and its backends", True),
        *((ms, what, True) for ms, what in STAGES),
        (30.0, "guest running again, nothing sent yet", True),
    ]
    assert found.share == 1


def test_a_guest_that_has_sent_is_not_one_that_has_not_come_to_send() -> None:
    """Its packet came to the peer when the port was up; the next one was sent 25 ms later."""
    up = qemu_event(60, READY, "b"), qemu_event(61, QUEUE, "b", queue="1", state="enabled")
    found = of("egress", 90, (STOP, RESUME, *up), [(4, 55, 65), (5, 90, 90.2)])
    assert spans(found)[-1] == (
        29.0,
        "guest running, nothing more sent yet",
        True,
    )


def test_packets_that_were_lost_after_the_resume_are_unexplained() -> None:
    found = of("egress", 80, (STOP, RESUME, *TRACES), [(24, 80, 80.2)])
    assert spans(found)[-1] == (30.0, "not served, cause unknown", False)
    assert found.unexplained_ms == 30
    assert found.share == pytest.approx(50 / 80)


def test_packets_that_went_with_the_source_do_not_count_as_lost_later() -> None:
    stop = replace_at(STOP, 3)
    found = of("egress", 80, (stop, RESUME), [(6, 80, 80.2)])  # two between 0 and the stop
    assert spans(found)[-1][1] == "guest running again, nothing sent yet"


def test_a_guest_that_was_not_served_long_before_its_stop_is_unexplained() -> None:
    late = [replace_at(event, event.at_ns / MS + 40) for event in (STOP, RESUME, *TRACES)]
    found = of("egress", 120, late, [(4, 120, 120.2)])
    assert spans(found)[0] == (41.0, "guest running but not served", False)


def test_ingress_goes_to_the_source_until_the_fabric_hears_the_guest() -> None:
    rows = [(60, 56, 70), (61, 57, 71), (62, 58, 71)]
    found = of("ingress", 70, (STOP, RESUME, ANNOUNCED, *TRACES), rows)
    assert spans(found)[-2:] == [
        (5.0, "fabric still forwarding to the source", True),
        (15.0, "packets queued, guest receiving them late", True),
    ]


def test_the_guests_own_packets_tell_the_fabric_too() -> None:
    events = told(STOP, RESUME)
    seen = replace(events, egress_ns=np.array([0, 53 * MS]))
    found = explain_gap(gap("ingress", 70), seen, log(*BEFORE, (60, 54, 70)), GRAIN)
    assert spans(found)[-2][:2] == (3.0, "fabric still forwarding to the source")


@pytest.mark.parametrize("name", ["announce", "frame"])
def test_any_frame_that_is_heard_tells_the_fabric(name: str) -> None:
    heard = qemu_event(60, name, "fabric")
    found = of("ingress", 61, (STOP, RESUME, heard), [(60, 61, 70)])
    assert spans(found)[-2:] == [
        (10.0, "fabric still forwarding to the source", True),
        (1.0, "below what the meter can see", True),
    ]


def test_ingress_that_is_lost_after_the_fabric_knows_is_unexplained() -> None:
    rows = [(60, 56, 70), (67, 63, 71)]
    found = of("ingress", 70, (STOP, RESUME, ANNOUNCED), rows)
    assert spans(found)[-1] == (15.0, "not served, cause unknown", False)


LATE = [(4, 56, 70), (5, 57, 75), (6, 58, 76)]


def test_packets_that_the_guest_sent_and_that_waited_are_told_until_the_last_of_them() -> None:
    found = of("egress", 80, (STOP, RESUME, *TRACES), [*LATE, (9, 79, 80)])
    assert spans(found)[-4:] == [
        (6.0, "guest running again, nothing sent yet", True),
        (14.0, "first packet in flight", True),
        (6.0, "packets queued, arriving late", True),
        (4.0, "not served, cause unknown", False),
    ]


def test_a_guest_that_falls_silent_again_is_told_from_packets_that_wait() -> None:
    found = of("egress", 95, (STOP, RESUME, *TRACES), [(4, 56, 70), (5, 95, 95.2)])
    assert spans(found)[-3:] == [
        (6.0, "guest running again, nothing sent yet", True),
        (14.0, "first packet in flight", True),
        (25.0, "guest running, nothing more sent yet", True),
    ]
    ended = of("egress", 90, (STOP, RESUME, *TRACES), [(4, 56, 70), (5, 95, 95.2)])
    assert spans(ended)[-1][:2] == (20.0, spans(found)[-1][1])
    missing = of("egress", 90, (STOP, RESUME, *TRACES), [(4, 56, 70), (7, 95, 95.2)])
    assert not spans(missing)[-1][2]


def test_a_first_packet_that_comes_after_the_end_was_under_way_until_then() -> None:
    found = of("egress", 80, (STOP, RESUME, *TRACES), [(4, 56, 90)])
    assert spans(found)[-1] == (24.0, "first packet in flight", True)


def test_lost_packets_do_not_wait() -> None:
    found = of("egress", 80, (STOP, RESUME, *TRACES), [*LATE, (12, 79, 80)])
    assert spans(found)[-1] == (10.0, "not served, cause unknown", False)
    one_late = [(60, 56, 130), (693, 692, 693.1)]  # and 632 are lost
    found = of("ingress", 693, (STOP, RESUME, ANNOUNCED), one_late)
    assert spans(found)[-1] == (638.0, "not served, cause unknown", False)


@pytest.mark.parametrize(("direction", "queue"), [("egress", "1"), ("ingress", "0")])
def test_the_backends_port_and_queue_explain_the_tail_of_a_gap(
    direction: Direction, queue: str
) -> None:
    events = (
        *(
            STOP,
            RESUME,
            qemu_event(60, READY, "b"),
            qemu_event(65, QUEUE, "b", queue="1", state="disabled"),
        ),
        qemu_event(70, QUEUE, "b", queue=queue, state="enabled"),
        qemu_event(75, QUEUE, "b", queue="3" if queue == "0" else "2", state="enabled"),
    )
    found = of(direction, 72, events, [(4, 72, 72.2)])
    assert [one[:2] for one in spans(found)[2:4]] == [
        (10.0, "backend's port coming up"),
        (10.0, "backend enabling the guest's queue"),
    ]
    assert found.share == 1


@pytest.mark.parametrize("direction", ["egress", "ingress"])
def test_a_guest_that_runs_on_at_its_source_waits_for_that_ones_backend(
    direction: Direction,
) -> None:
    events = (
        *(STOP, qemu_event(50, "RESUME", "a"), ANNOUNCED),
        *(qemu_event(60, READY, "a"), qemu_event(61, READY, "b")),
        *(qemu_event(70, QUEUE, "a", queue=q, state="enabled") for q in "01"),
    )
    found = of(direction, 72, events, [(4, 72, 72.2)])
    assert [(span.what, span.host) for span in found.spans[-3:-1]] == [
        ("backend's port coming up", "a"),
        ("backend enabling the guest's queue", "a"),
    ]
    assert "fabric still forwarding to the source" not in [span.what for span in found.spans]


def test_a_gap_names_an_interface_that_is_unplugged_and_plugged() -> None:
    early = [qemu_event(1, "detached", "a"), replace_at(STOP, 500), replace_at(RESUME, 600)]
    found = of("egress", 900, [*early, qemu_event(899, "attached", "b")], [(4, 900, 901)])
    assert [what for _, what, _ in spans(found)] == [
        "detaching the interface",
        "guest running without its interface",
        "guest stopped, no stages recorded",
        "attaching the target's interface",
        "guest running again, nothing sent yet",
    ]


PLUGGED = (
    qemu_event(700, "lower-appeared", "guest"),
    *(qemu_event(705, "lower-up", "guest"), qemu_event(900, "lower-up", "guest")),
    qemu_event(910, "carried-by", "guest", driver="igbvf"),
)


def test_a_gap_names_a_device_that_comes_back_late() -> None:
    early = (replace_at(STOP, -500), replace_at(RESUME, -400))
    found = of("ingress", 905, (*early, *PLUGGED), [(9, 905, 906)])
    assert [what for _, what, _ in spans(found)] == [
        "plugging a device in, guest detecting it",
        "device's link coming up",
        "guest switching to the other device",
    ]
    assert found.share == 1


def test_a_gap_names_a_guest_that_asks_for_its_peers_address() -> None:
    mine = qemu_event(70, "arp", "fabric", mac="52:54")
    events = told(STOP, RESUME, qemu_event(60, "arp", "fabric", mac="of another"), mine)
    rows = log(*BEFORE, (9, 71, 71.2))
    found = explain_gap(gap("egress", 71), replace(events, mac="52:54"), rows, GRAIN)
    assert spans(found)[-2] == (20.0, "guest resolving its peer's address (ARP)", True)


def test_a_gap_with_no_stop_in_it_is_unexplained() -> None:
    found = of("ingress", 30, (replace_at(STOP, 400), replace_at(RESUME, 500)), [(9, 30, 31)])
    assert found.share == 0


def test_a_guest_that_never_ran_again_is_stopped_to_the_end() -> None:
    never = gap("egress", 400).model_copy(update={"open_ended": True})
    found = explain_gap(never, told(STOP), log(*BEFORE), GRAIN)
    assert spans(found)[-1] == (398.0, "guest stopped, never resumed", True)


def test_a_guest_that_was_served_again_has_run_again_whatever_is_on_record() -> None:
    """Its stages are known as far as they are on record; from there on nothing tells."""
    found = of("egress", 400, (STOP,), [(4, 399, 400)])
    dark = "served again, RESUME not recorded"
    assert spans(found)[-1] == (398.0, dark, False)
    assert found.share == pytest.approx(2 / 400)
    found = of("egress", 400, (STOP, *TRACES), [(4, 399, 400)])
    assert spans(found)[2:-1] == [(ms, what, True) for ms, what in STAGES[:4]]
    assert spans(found)[-1] == (359.0, dark, False)


def test_packets_that_are_lost_are_not_late_ones() -> None:
    """One alone comes late; 638 of its kind never do."""
    rows = [(694, 694, 694.2)]
    found = of("ingress", 694.2, (STOP, RESUME, ANNOUNCED, *TRACES), rows)
    dark = "not served, cause unknown"
    assert spans(found)[-1] == (639.2, dark, False)
    late = [(56, 56, 690), (694, 694, 694.2)]
    assert of("ingress", 694.2, (STOP, RESUME, ANNOUNCED), late).share < 0.1


def test_a_carrier_that_changes_after_the_end_alone_explains_nothing() -> None:
    """What is reported 25 ms after a gap of two seconds may have come after its end, too."""
    early = (replace_at(STOP, -500), replace_at(RESUME, -400))
    changed = qemu_event(2025, "carried-by", "guest", driver="igbvf")
    found = of("ingress", 2000, (*early, changed), [(9, 2000, 2001)])
    assert spans(found) == [(2000.0, "guest running but not served", False)]


@given(
    st.lists(st.integers(-50, 300), min_size=0, max_size=30),
    st.sampled_from(["egress", "ingress"]),
    st.integers(1, 250),
)
def test_spans_cover_the_gap_in_order_whatever_was_recorded(
    places: list[int], direction: Direction, length_ms: int
) -> None:
    known = [
        STOP,
        RESUME,
        ANNOUNCED,
        *TRACES,
        qemu_event(0, READY, "b"),
        qemu_event(0, "attached", "b"),
    ]
    events = [replace_at(known[n % len(known)], ms) for n, ms in enumerate(places)]
    found = of(direction, length_ms, events, [(9, length_ms, length_ms + 1)])
    assert found.spans[0].begin_ns == 0
    assert found.spans[-1].end_ns == length_ms * MS
    pairs = list(zip(found.spans, found.spans[1:], strict=False))
    assert all(before.end_ns == after.begin_ns for before, after in pairs)
    assert all(span.end_ns > span.begin_ns for span in found.spans)
    assert 0 <= found.share <= 1


def test_an_interface_that_is_plugged_in_after_the_end_explains_nothing() -> None:
    plugged = qemu_event(300, "attached", "b")
    found = of("egress", 80, (STOP, RESUME, *TRACES, plugged), [(24, 80, 80.2)])
    assert spans(found)[-1] == (30.0, "not served, cause unknown", False)


def test_the_ends_of_a_gap_have_its_error_and_marks_their_own() -> None:
    wide = gap("egress", 80).model_copy(update={"error_ns": 2 * MS})
    stop = STOP.model_copy(update={"error_ns": 7 * MS})
    found = explain_gap(wide, told(stop, RESUME), log(*BEFORE, (4, 80, 80.2)), GRAIN)
    errors = {span.what: span.error_ns / MS for span in found.spans}
    assert errors["guest stopped, no stages recorded"] == 7
    assert errors["guest running again, nothing sent yet"] >= 2
    early = replace_at(STOP, -500), replace_at(RESUME, -400)
    out = qemu_event(1, "detached", "a").model_copy(update={"error_ns": MS})
    late = replace_at(stop, 60)
    found = explain_gap(wide, told(out, late), log(*BEFORE), GRAIN)
    errors = {span.what: span.error_ns / MS for span in found.spans}
    assert errors["guest running without its interface"] == 7
    found = explain_gap(wide, told(*early), log(*BEFORE), GRAIN)
    assert [span.error_ns / MS for span in found.spans] == [2]
