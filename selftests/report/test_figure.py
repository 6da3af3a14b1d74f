"""The figure of an attempt: what its lanes say, what is labelled, and how large it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, get_args
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrate.analysis.traffic import arrivals_on_axis, guest_clock
from migrate.model import (
    Attempt,
    Event,
    Expect,
    MachineFacts,
    MachineRecording,
    MachineSample,
    PhaseName,
    ReportedFigures,
    Unmeasured,
)
from migrate.model.recording import Arrivals
from migrate.report.downsample import downsample, gap_edges, lost_stretches
from migrate.report.drawing import BARS_MOST, stretches
from migrate.report.event_lines import event_lines
from migrate.report.figure import figure, script, style, tick_values
from migrate.report.figure_data import FigureData, Span, windows
from migrate.report.figure_labels import (
    LETTER_PX,
    LOUD_PX,
    NARROWEST_PX,
    Box,
    Label,
    Obstacle,
    Place,
    PlacedLabel,
    place_labels,
)
from migrate.report.figure_lanes import PHASES, Lane, report_lanes
from migrate.report.figure_machines import machine_lanes
from migrate.report.figure_orders import orders_lane
from migrate.report.figure_packets import GAPS_MOST, important_gaps
from migrate.results.reader import read_attempt
from migrate.results.recording_file import RECORDING, read_recording
from selftests.doubles import synthetic
from selftests.doubles.synthetic import HOSTILE, MS, STOP

RECORDINGS = sorted(path.parent for path in Path(__file__).parents[1].glob(f"*/*/{RECORDING}"))
LARGEST_FIGURE = 45_000
"""Bytes: an attempt has 60 kB, and its tables need some of it."""


def figure_data(attempt: Attempt, **fields: Any) -> FigureData:
    return FigureData(attempt, synthetic.logs(attempt), synthetic.samples(), **fields)


def picture(attempt: Attempt, **fields: Any) -> ET.Element:
    return parsed(figure(figure_data(attempt, **fields)))


def parsed(text: str) -> ET.Element:
    return ET.fromstring(text)


def words(drawn: ET.Element) -> list[str]:
    """What is written; not what is said when something is pointed at."""
    return [node.text or "" for node in drawn.iter("text")]


def hovers(drawn: ET.Element, kind: str) -> list[str]:
    """What elements of a class say when pointed at."""
    return [
        title.text or ""
        for node in drawn.iter()
        if kind in node.get("class", "").split()
        for title in node.findall("title")
    ]


def recorded(folder: Path) -> FigureData:
    recording = read_recording(folder)
    assert recording is not None
    arrivals = arrivals_on_axis(recording.traffic, guest_clock(recording.traffic))
    samples = [sample for hop in recording.hops for sample in hop.qemu.samples]
    attempt = read_attempt(folder).attempt
    return FigureData(attempt, arrivals, samples, recording.events, recording.machines)


# --- fewer points -------------------------------------------------------------------------------


def test_downsampling_keeps_every_edge_of_a_gap_and_every_extreme() -> None:
    attempt = synthetic.attempt(synthetic.case())
    log = synthetic.logs(attempt)["egress"]
    gaps = tuple(gap for gap in attempt.gaps or () if gap.direction == "egress")
    delay = (log.received_ns - log.sent_ns) / 1e6
    rows = downsample(log.sent_ns / 1e6, delay, gap_edges(log, gaps), 400)
    assert len(rows) < 700 < len(log)
    assert np.all(np.diff(log.sent_ns[rows]) > 0)
    assert {int(delay.argmin()), int(delay.argmax())} <= set(rows.tolist())
    before = np.flatnonzero(log.sent_ns <= gaps[0].begin_ns)[-1]
    after = np.flatnonzero(log.sent_ns >= gaps[0].begin_ns + gaps[0].length_ns)[0]
    assert {int(before), int(after)} <= set(rows.tolist())


def test_few_points_and_none_are_left_alone() -> None:
    none = np.empty(0, dtype=np.int64)
    assert len(downsample(none.astype(float), none.astype(float), none, 10)) == 0
    assert downsample(np.array([2.0, 1.0]), np.zeros(2), none, 10).tolist() == [1, 0]
    assert len(gap_edges(Arrivals.empty(), ())) == 0


def test_what_never_arrived_is_drawn_where_it_was_sent() -> None:
    seq = np.array([0, 1, 5, 6])
    log = Arrivals(seq, seq * MS, seq * MS + 5)
    assert lost_stretches(log) == [(2.0 * MS, 4.0 * MS)]
    assert lost_stretches(Arrivals.empty()) == []


def test_stretches_are_one_path_of_relative_steps() -> None:
    assert stretches([(10.0, 12.5), (1.0, 1.0)], 7) == "M10 7h1m89 0h25"
    assert stretches([]) == ""


# --- windows and axis ---------------------------------------------------------------------------


def test_the_window_around_the_stop_is_close_and_lies_within_all_of_it() -> None:
    shown = windows(figure_data(synthetic.attempt(synthetic.case())))
    assert list(shown) == ["the move", "around the stop", "all of it"]
    move, stop, whole = shown.values()
    assert whole.begin <= move.begin < stop.begin < 0 < stop.end <= whole.end
    assert stop.length < move.length < whole.length


def test_without_a_stop_there_is_no_window_around_it() -> None:
    failed = synthetic.attempt(synthetic.case(), phases=(), gaps=())
    assert list(windows(FigureData(failed, {}, ()))) == ["the move", "all of it"]


def test_each_stop_of_several_moves_has_its_window() -> None:
    folder = next(path for path in RECORDINGS if path.name == "two-hops")
    shown = windows(recorded(folder))
    assert list(shown) == ["the moves", "stop 1", "stop 2", "all of it"]
    assert shown["stop 1"].end < shown["stop 2"].begin


def test_the_zero_of_the_picture_is_the_stop_and_else_the_begin() -> None:
    attempt = synthetic.attempt(synthetic.case())
    assert figure_data(attempt).zero_ns == STOP
    assert "ms from the stop" in words(picture(attempt))
    failed = synthetic.attempt(synthetic.case(), phases=(), outcome="failed")
    assert figure_data(failed).zero_ns == failed.begin_ns
    assert "ms from begin" in words(picture(failed))


@pytest.mark.parametrize("window", [(-5.0, 5.0), (0.0, 0.3), (-14321.5, 90000.25)])
def test_ticks_are_round_few_and_within_the_window(window: tuple[float, float]) -> None:
    ticks = tick_values(Span(*window))
    assert 3 <= len(ticks) <= 10
    assert window[0] <= ticks[0] < ticks[-1] <= window[1]


# --- lanes --------------------------------------------------------------------------------------


def lane_of(lanes: Iterator[Lane], name: str) -> Lane:
    (lane,) = [lane for lane in lanes if lane.name == name]
    return lane


def failover_data(**fields: Any) -> FigureData:
    attempt = synthetic.failover()
    events: dict[str, Any] = {"events": synthetic.carried()}
    return FigureData(attempt, synthetic.logs(attempt), (), **(events | fields))


def test_the_picture_tells_gaps_with_errors_downtime_and_phases() -> None:
    said = words(picture(synthetic.attempt(synthetic.case())))
    for wanted in ("150.0 ± 2.0 ms", "810.0 ± 2.0 ms", "61.0 ms", "62.0 ± 1.0 ms"):
        assert wanted in said
    for phase in ("precopy 1", "precopy 3", "stopped", "announce"):
        assert phase in said


def test_every_phase_has_a_tint_that_the_style_knows() -> None:
    assert set(PHASES) == set(get_args(PhaseName))
    for tint in PHASES.values():
        assert f".fig .b.{tint} " in style()


def test_the_primary_and_the_carrier_of_the_traffic_have_lanes_of_their_own() -> None:
    data = failover_data()
    assert [lane.name for lane in report_lanes(data)] == [
        *("phase", "primary", "traffic goes over", "downtime reported", "guest stall")
    ]
    primary = lane_of(report_lanes(data), "primary")
    assert [bar.text for bar in primary.bars] == ["standby", "replug"]
    said = words(parsed(figure(data)))
    for wanted in ("standby", "replug", "eth2 (igbvf)", "eth1 (virtio_net)", "wait-unplug"):
        assert wanted in said


def carriers(data: FigureData) -> list[tuple[str, float, float]]:
    bars = lane_of(report_lanes(data), "traffic goes over").bars
    return [(bar.text, bar.begin, bar.end) for bar in bars]


def test_each_carrier_lasts_until_the_next_one_and_the_last_to_the_end() -> None:
    assert carriers(failover_data()) == [
        ("eth2 (igbvf)", -3000, -790),
        ("eth1 (virtio_net)", -790, 1200),
        ("eth2 (igbvf)", 1200, 2499),
    ]


def test_a_carrier_that_is_taken_out_carries_until_then() -> None:
    first, *rest = synthetic.carried()
    gone = first.model_copy(update={"name": "lower-gone", "at_ns": rest[0].at_ns - 500 * MS})
    ends = [end for _, _, end in carriers(failover_data(events=[first, gone, *rest]))]
    assert ends == [-1290, 1200, 2499]


def test_a_carrier_whose_time_is_not_known_says_so() -> None:
    lost = [event.model_copy(update={"error_ns": None}) for event in synthetic.carried()]
    bars = lane_of(report_lanes(failover_data(events=lost)), "traffic goes over").bars
    assert "begin not known" in bars[0].hover


def test_a_move_without_a_primary_has_no_lane_for_it() -> None:
    lanes = report_lanes(figure_data(synthetic.attempt(synthetic.case())))
    assert [lane.name for lane in lanes] == ["phase", "downtime reported", "guest stall"]
    assert "traffic goes over" not in [one.name for one in report_lanes(failover_data(events=()))]


def ours(name: str, after_ms: float, **data: Any) -> Event:
    at_ns = STOP + round(after_ms * MS)
    return Event(at_ns=at_ns, source="controller", host="alpha", name=name, data=data)


def test_what_we_asked_and_did_has_a_lane_with_a_letter_and_words_for_each() -> None:
    events = [
        ours("order: migrate to beta", -2000),
        ours("question", -100, commands=["x-query-virtio"], answered_ns=STOP - 98 * MS),
        ours("question", -50, commands=["query-migrate"], answered_ns=None),
        ours("fault: cut-migration-link", -40),
        ours("fault over: cut-migration-link", 300),
        ours("call-ended", 400),
        ours("something else", 500),
    ]
    data = figure_data(synthetic.attempt(synthetic.case()), events=events)
    (lane,) = orders_lane(data)
    assert [(mark.letter, mark.text) for mark in lane.marks] == [
        ("M", "migrate to beta"),
        ("F", "fault: cut-migration-link"),
        ("B", "put back: cut-migration-link"),
        ("E", "libvirt's call ended"),
    ]
    answered, open_ended = lane.bars
    assert answered.hover == "asked QEMU on alpha: x-query-virtio\nanswered after 2.0 ms"
    assert open_ended.hover == "asked QEMU on alpha: query-migrate\nno answer"
    assert "migrate to beta" in words(parsed(figure(data)))


def test_what_is_on_record_of_a_question_may_be_nonsense() -> None:
    events = [ours("question", 0, commands=7, answered_ns="soon"), ours("question", 1)]
    (lane,) = orders_lane(figure_data(synthetic.attempt(synthetic.case()), events=events))
    assert all("no answer" in bar.hover for bar in lane.bars)


def test_without_orders_there_is_no_lane_for_them() -> None:
    assert list(orders_lane(figure_data(synthetic.attempt(synthetic.case())))) == []


def machine(idle: Sequence[float]) -> MachineRecording:
    samples = tuple(
        MachineSample(at_ns=STOP + 500 * MS * turn, error_ns=0, idle_s=seconds)
        for turn, seconds in enumerate(idle)
    )
    return MachineRecording(name="controller", facts=MachineFacts(cpus=2), samples=samples)


def test_a_machines_bars_are_as_high_as_what_others_used() -> None:
    data = figure_data(
        synthetic.attempt(synthetic.case()), machines=(machine([0.0, 1.0, 1.1]), machine([0.0]))
    )
    (lane,) = machine_lanes(data)
    quiet, busy = lane.bars
    assert lane.name == "CPUs of controller"
    assert (quiet.kind, busy.kind) == ("quiet", "busy")
    assert quiet.level < 0.1
    assert busy.level == pytest.approx(0.9)
    assert "by others: 1.80" in busy.hover


# --- gaps ---------------------------------------------------------------------------------------


def test_gaps_over_the_limit_come_first_then_the_longest_of_each_part() -> None:
    gaps = [
        synthetic.gap("egress", 2000, 40, "none"),
        synthetic.gap("egress", 0, 320),
        synthetic.gap("egress", 500, 30),
        synthetic.gap("egress", -900, 9, "start"),
    ]
    case = synthetic.case(expect=Expect(outage_egress_ms=300))
    data = figure_data(synthetic.attempt(case, gaps=gaps))
    assert [gap.length_ms for gap in important_gaps(data, "egress")] == [320, 40, 9, 30]
    assert "320.0 ± 2.0 ms > 300" in words(parsed(figure(data)))


def test_an_outage_that_did_not_end_is_labelled_as_a_bound() -> None:
    gap = synthetic.gap("egress", 0, 900).model_copy(update={"open_ended": True})
    assert "≥ 900.0 ± 2.0 ms" in words(picture(synthetic.attempt(synthetic.case(), gaps=[gap])))


def test_of_very_many_gaps_all_are_shaded_and_the_longest_outlined() -> None:
    gaps = [synthetic.gap("egress", 10.0 * number, number / 100) for number in range(1, 201)]
    drawn = picture(synthetic.attempt(synthetic.case(), gaps=gaps))
    outlined = [node for node in drawn.iter("rect") if node.get("class") == "g gap"]
    (shaded,) = [node for node in drawn.iter("path") if node.get("class") == "shades g gap"]
    assert len(outlined) == GAPS_MOST
    assert str(shaded.get("d")).count("h") == 200 - GAPS_MOST
    assert "2.0 ± 2.0 ms" in words(drawn)


def test_a_stretch_that_was_not_measured_says_why() -> None:
    blank = Unmeasured(direction="ingress", begin_ns=STOP, length_ns=300 * MS, reason="log full")
    drawn = picture(synthetic.attempt(synthetic.case(), unmeasured=(blank,)))
    assert hovers(drawn, "blank") == ["not measured: 300.0 ms\nlog full"]


def test_an_attempt_without_measurements_still_has_a_figure() -> None:
    attempt = synthetic.attempt(
        synthetic.case(), phases=(), gaps=None, stalls=None, floor=None, reported=ReportedFigures()
    )
    said = words(parsed(figure(FigureData(attempt, {}, ()))))
    assert said.count("not reported") == 1
    # The stall, both ways, the progress, and each of its three lines.
    assert said.count("not measured") == 7


def test_a_stream_that_never_starts_says_that_nothing_arrived() -> None:
    data = FigureData(synthetic.attempt(synthetic.case()), {"egress": Arrivals.empty()}, ())
    assert "nothing arrived" in words(parsed(figure(data)))


def test_packets_are_downsampled_and_their_number_is_told() -> None:
    attempt = synthetic.attempt(synthetic.case())
    few, many = (picture(attempt, points=points) for points in (300, 3000))
    few_dots, many_dots = (
        sum(str(node.get("d")).count("h0") for node in drawn.iter("path")) for drawn in (few, many)
    )
    assert 300 < few_dots < many_dots / 2
    count = len(synthetic.logs(attempt)["ingress"])
    assert f"{count} packets" in words(few)


# --- labels -------------------------------------------------------------------------------------


def boxes(placed: Sequence[PlacedLabel]) -> list[Box]:
    return [label.box for label in placed if label.box is not None]


def overlapping(of: Sequence[Box]) -> list[tuple[Box, Box]]:
    return [(one, other) for one, other in combinations(of, 2) if one.hits(other)]


shares = st.floats(-0.2, 1.2)
labels = st.builds(
    lambda text, begin, length, places: Label(text, begin, begin + length, tuple(places)),
    st.text("abc", min_size=1, max_size=30),
    shares,
    st.floats(0, 0.5),
    st.lists(
        st.builds(
            Place,
            st.sampled_from(["in", "at", "beside", "mid"]),
            st.sampled_from([10.0, 23.0]),
            st.just(30.0),
        ),
        min_size=1,
        max_size=3,
    ),
)


@given(st.lists(labels, max_size=25))
def test_no_label_lies_over_another_nor_outside(some: list[Label]) -> None:
    placed = boxes(place_labels(some))
    assert overlapping(placed) == []
    assert all(box.left >= -3 and box.right <= NARROWEST_PX + 3 for box in placed)


def test_a_label_takes_the_first_place_that_is_free_and_else_none() -> None:
    places = (Place("at", 10), Place("at", 23))
    some = [Label("the same", 0.1, 0.2, places) for _ in range(3)]
    placed = place_labels(some)
    assert [label.box and label.place.y for label in placed] == [10, 23, None]
    assert "none" in placed[2].svg()


def test_a_label_is_in_what_it_names_if_that_is_long_enough_and_else_beside() -> None:
    places = (Place("in", 10), Place("beside", 10))
    long, short = place_labels([Label("abcdef", *at, places) for at in ((0.0, 0.3), (0.5, 0.51))])
    assert (long.place.how, short.place.how) == ("in", "beside")
    next_one = [Obstacle(0.52, 0.6, 10)]
    (hidden,) = place_labels([Label("abcdef", 0.5, 0.51, places)], next_one)
    assert hidden.box is None


def drawn_boxes(drawn: ET.Element) -> list[Box]:
    """The labels' boxes, read back from where they stand."""
    found = []
    for node in drawn.iter("text"):
        if "l" not in node.get("class", "").split() or "none" in node.get("class", "").split():
            continue
        loud = {"gap", "over"} & set(node.get("class", "").split())
        width = (LOUD_PX if loud else LETTER_PX) * len(node.text or "")
        left = float(node.get("x", "0").rstrip("%")) / 100 * NARROWEST_PX + float(
            node.get("dx", "0")
        )
        left -= {"start": 0.0, "middle": width / 2, "end": width}[node.get("text-anchor", "start")]
        y = float(node.get("y", "0"))
        found.append(Box(left, left + width, y - 6, y + 6))
    return found


# --- real attempts ------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", RECORDINGS, ids=lambda folder: folder.name)
def test_the_figure_of_a_real_attempt_is_small_and_its_labels_are_apart(folder: Path) -> None:
    text = figure(recorded(folder))
    assert len(text.encode()) < LARGEST_FIGURE
    placed = drawn_boxes(parsed(text))
    assert len(placed) > 2
    assert overlapping(placed) == []


def test_very_many_phases_stalls_and_blanks_are_shaded_and_the_figure_stays_small() -> None:
    folder = next(path for path in RECORDINGS if path.name == "failover-aborted")
    data = recorded(folder)
    assert len(data.attempt.stalls or ()) > 10 * BARS_MOST
    drawn = parsed(figure(data))
    assert len(hovers(drawn, "stall")) == BARS_MOST
    assert [node.get("data-what") for node in drawn.iter("path") if node.get("data-what")].count(
        "guest stall"
    ) == 1


# --- what others said ---------------------------------------------------------------------------


def test_names_of_guests_and_hosts_stay_text() -> None:
    (event, *_) = synthetic.carried()
    data = {"device": f"<script>{HOSTILE}", "driver": '"><img src=x onerror=alert(1)>'}
    attempt = synthetic.attempt(synthetic.case(), source=HOSTILE, target=HOSTILE)
    hostile = [event.model_copy(update={"data": data}), ours(f"order: {HOSTILE}", 1)]
    blank = Unmeasured(direction="egress", begin_ns=STOP, length_ns=9 * MS, reason=HOSTILE)
    attempt = attempt.model_copy(update={"unmeasured": (blank,)})
    text = figure(figure_data(attempt, events=hostile), title=HOSTILE)
    tags = {node.tag for node in parsed(text).iter()}
    assert tags <= {"div", "svg", "g", "rect", "line", "path", "circle", "text", "title", "button"}
    names = {name for node in parsed(text).iter() for name in node.attrib}
    assert not any(name.startswith("on") for name in names)


@pytest.mark.parametrize(
    "value", [10**30, -(10**30), 2**63, 10**400], ids=lambda value: str(value)[:4]
)
@pytest.mark.parametrize("what", ["begin_ns", "phases", "gaps", "stalls", "events"])
def test_a_time_that_can_not_be_one_takes_no_figure_away(what: str, value: int) -> None:
    attempt, events = synthetic.failover(), synthetic.carried()
    if what == "begin_ns":
        attempt = attempt.model_copy(update={"begin_ns": value, "phases": ()})
    elif what == "events":
        events = [event.model_copy(update={"at_ns": value}) for event in events]
    else:
        first, *others = getattr(attempt, what)
        first = first.model_copy(update={"begin_ns": value})
        attempt = attempt.model_copy(update={what: (first, *others)})
    logs = synthetic.logs(synthetic.failover())
    data = FigureData(attempt, logs, synthetic.samples(), events)
    assert "egress" in words(parsed(figure(data)))
    assert len(event_lines(data)) == len(events)


def test_the_script_and_the_style_end_no_element_of_the_page() -> None:
    assert "</" not in script()
    assert "</" not in style()
