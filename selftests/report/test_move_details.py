"""Where an outage went, as it is printed: in order, with what is unexplained and was not seen."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from migrate.cli.main import cli
from migrate.model import (
    Attempt,
    Convergence,
    ConvergenceForecast,
    DeviceHandoff,
    Difference,
    DirtyRate,
    GapExplanation,
    MonitorGap,
    MoveDetails,
    Phase,
    Policy,
    ReportedFigures,
    RingAudit,
    Span,
)
from migrate.report.figure import figure
from migrate.report.figure_data import FigureData
from migrate.report.figure_lanes import report_lanes
from migrate.report.html import write_report
from migrate.report.move_details import sections
from migrate.report.table import run_table
from migrate.report.table_text import plain, plain_sections
from selftests.doubles import synthetic
from selftests.doubles.synthetic import HOSTILE, MS


def span(what: str, begin: float, end: float, *, explained: bool = True) -> Span:
    begin_ns, end_ns = round(begin * MS), round(end * MS)
    return Span(what=what, begin_ns=begin_ns, end_ns=end_ns, host="a", explained=explained)


def gap(dark_ms: float) -> GapExplanation:
    spans = (span("stopped", 0, 100 - dark_ms), span("dark", 100 - dark_ms, 100, explained=False))
    return GapExplanation(direction="egress", begin_ns=0, length_ns=100 * MS, spans=spans)


UNLAWFUL = Difference(field="queue 0: used", before="5", after="6", lawful=False, why="2.7.8")
HOP = MoveDetails(
    stop=(span("memory", 0, 30), span("devices", 30, 42)),
    devices=(
        DeviceHandoff(device="nic", save_ms=0.3, load_ms=4.5, compared=True),
        DeviceHandoff(device="other nic", compared=True, differences=(UNLAWFUL,)),
        DeviceHandoff(device="cpu", save_ms=0.01),
        DeviceHandoff(device="rtc", save_ms=0.02),
    ),
    rings=(RingAudit(device="nic", queue=1, kind="packed", size=8, facts={"used": "7"}),),
    announced=3,
    first_announce_ms=0.25,
    announced_by={"garp": 2, "na": 1, "rarp": 0},
    announce_rounds_asked=5,
    announce_last_due_ms=800,
    listened_ms=1000,
    first_egress_ms=5.25,
    first_egress_error_ms=0.5,
    silent=("ingress",),
    blind=(
        MonitorGap(
            **span("nothing was told", 0, 300).model_dump(), missed=14, stop=True, stopped_ms=42
        ),
    ),
    unseen=("b: it ran on",),
)


def attempt(number: int = 1, **fields: Any) -> Attempt:
    told = {"explained": (gap(10),), "inside": (HOP,), "reported": ReportedFigures(downtime_ms=33)}
    return synthetic.attempt(synthetic.case(), number).model_copy(update={**told, **fields})


def printed(of: Attempt) -> str:
    return plain_sections(sections(of), width=1000)


def test_a_gap_lists_its_spans_in_order_with_the_unexplained_rest() -> None:
    text = printed(attempt())
    assert "egress: 100.0 ms, 90.0% explained, 10.0 ms unexplained" in text
    assert text.index("stopped") < text.index("UNEXPLAINED: dark")


def test_the_stop_stands_beside_reported_downtime_and_outage() -> None:
    text = printed(attempt())
    assert "together 42.0 ms; reported 33.0 ms; seen around the stop: egress" in text
    assert "reported not measured" in printed(attempt(reported=ReportedFigures()))


def test_a_handoff_has_both_sides_of_a_difference_and_folds_what_was_quick() -> None:
    text = printed(attempt())
    assert "DIFFERS in 1" in text
    assert "other nic: queue 0: used: 5 before, 6 after; NOT ALLOWED: 2.7.8" in text
    assert "2 others, less than 0.1 ms each" in text
    assert "cpu" not in text


def test_fields_that_one_end_alone_reported_are_named() -> None:
    untold = ("queue 0: size (source only)", "queue 0: used (source only)")
    more = ("queue 1: size (source only)", "queue 1: used (source only)", "MTU (target only)")
    nic = DeviceHandoff(device="nic", compared=True, untold=(*untold, *more))
    text = printed(attempt(inside=(MoveDetails(devices=(nic,)),)))
    assert "nic: not compared: reported by the source only: queue 0, queue 1: size, used" in text
    assert "nic: not compared: reported by the target only: MTU" in text


def test_a_device_that_nobody_timed_is_not_called_quick() -> None:
    untimed = DeviceHandoff(device="untimed", size_bytes=64)
    text = printed(attempt(inside=(MoveDetails(devices=(untimed,)),)))
    assert re.search(r"untimed +64 +not measured +not measured +not compared", text)
    assert "others" not in text


def test_what_was_quick_is_added_up_as_far_as_it_was_measured() -> None:
    quick = [
        DeviceHandoff(device="cpu", save_ms=0.01, load_ms=0.02, size_bytes=100),
        DeviceHandoff(device="rtc", save_ms=0.03),
    ]
    text = printed(attempt(inside=(MoveDetails(devices=tuple(quick)),)))
    assert re.search(
        r"2 others, .* each +100 1/2 measured +0\.04 +0\.02 1/2 measured +not compared", text
    )


def devices_of(*devices: DeviceHandoff) -> str:
    return printed(attempt(inside=(MoveDetails(devices=devices),)))


def test_a_device_is_the_same_only_in_what_was_compared() -> None:
    nothing = DeviceHandoff(
        device="nic", compared=True, fields_compared=0, untold=("MTU (x only)",)
    )
    assert re.search(r"nic .* not compared\n", devices_of(nothing))
    told = ("queue 0: last available (source only)", "queue 0: size (source only)")
    half = DeviceHandoff(device="nic", compared=True, fields_compared=3, untold=told)
    assert re.search(r"nic .* same where compared not compared: 2 fields\n", devices_of(half))
    whole = DeviceHandoff(device="nic", compared=True, fields_compared=9)
    assert re.search(r"nic .* same\n", devices_of(whole))


def test_each_part_has_its_own_reasons_and_what_nobody_asked_for_says_so() -> None:
    details = MoveDetails(
        unseen=("no bytes", "no traces", "b: late"),
        missing={"bytes": ("no bytes",), "stop": ("no traces",), "devices": ("b: late",)},
    )
    text = printed(attempt(inside=(details,)))
    assert (
        "not measured: no virtqueue was read; the case does not ask for it (expect.rings)\n" in text
    )
    assert "event was recorded; no traces\n" in text
    assert "neither trace points nor device states are available; no traces; b: late\n" in text


def test_a_ring_that_was_not_read_is_not_called_sound() -> None:
    unread = RingAudit(device="nic", queue=1, kind="split", size=0, unchecked=("not told",))
    partly = RingAudit(
        device="nic", queue=2, kind="split", size=8, unchecked=("a rule",), facts={"used": "1"}
    )
    text = printed(attempt(inside=(MoveDetails(rings=(unread, partly)),)))
    assert re.search(r"nic 1 +not measured .* not read\n", text)
    assert re.search(r"nic 2 +split 8 .* sound as far as it was checked\n", text)


@pytest.mark.parametrize(
    ("downtime", "said"),
    [
        (80, "38.0 ms of the downtime reported are not in these stages"),
        (42.5, ""),
        (30, "the downtime reported is 12.0 ms shorter than the sum of the stages"),
    ],
)
def test_what_the_stages_and_the_downtime_do_not_share_is_told(downtime: float, said: str) -> None:
    text = printed(attempt(reported=ReportedFigures(downtime_ms=downtime)))
    assert said in text
    assert said or "of the stages" not in text


def test_of_several_hops_it_is_said_whose_downtime_stands_beside_the_stages() -> None:
    hops = (HOP, HOP.model_copy(update={"hop": 2}))
    text = printed(attempt(inside=hops, reported=ReportedFigures(downtime_ms=80)))
    assert text.count("the stages are of this hop") == 2
    assert "none of the stages" not in text


def test_a_share_is_neither_below_nothing_nor_above_all() -> None:
    dark = (span("dark", 0, 101, explained=False),)
    whole = GapExplanation(direction="egress", begin_ns=0, length_ns=100 * MS, spans=dark)
    assert whole.share == 0
    assert "0.0% explained" in printed(attempt(explained=(whole,)))
    assert "-0.0%" not in printed(attempt(explained=(whole,)))


def test_a_first_packet_that_lay_in_a_queue_is_told_from_one_that_was_sent_since() -> None:
    details = HOP.model_copy(update={"first_sent_before_stop": ("egress",)})
    text = printed(attempt(inside=(details,)))
    assert "egress 5.25 ± 0.50 ms, at the peer, sent before the stop" in text


WELL = Convergence(
    memory_bytes=61 << 20,
    bandwidth_bytes_s=32 << 20,
    seen_bytes_s=31 << 20,
    foretold=ConvergenceForecast(converges_in=4, syncs=6, seconds=2.9),
    syncs=5,
    switched_over=True,
    stopped_s=3.04,
)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {},
            "forecast, of 61.0 MiB at 32.0 MiB/s: converges in pass 4, 6 syncs, after 2.9 s; "
            "actual: 5 syncs at 31.0 MiB/s, stopped after 3.0 s",
        ),
        (
            {"foretold": ConvergenceForecast()},
            "at 32.0 MiB/s: never converges; actual: 5 syncs at 31.0 MiB/s, stopped",
        ),
        (
            {"foretold": None},
            "forecast: not measured, its first pass or its rate was not observed;",
        ),
        (
            {"switched_over": False, "stopped_s": None},
            "actual: 5 syncs at 31.0 MiB/s, not stopped",
        ),
        ({"syncs": None, "seen_bytes_s": None}, "actual: not measured syncs, stopped after"),
        ({"stopped_s": None}, "actual: 5 syncs at 31.0 MiB/s, stopped after not measured"),
        ({"suspended": True}, "actual: 5 syncs at 31.0 MiB/s, suspended after 3.0 s"),
        ({"throttle_seen": (20, 30), "throttle_due": (20, 30)}, "throttle 20, 30, as expected"),
        (
            {"throttle_seen": (20, 40), "throttle_due": (20, 30)},
            "throttle 20, 40, but expected: 20, 30",
        ),
        ({"throttle_seen": (), "throttle_due": ()}, "throttle never raised"),
    ],
)
def test_a_forecast_stands_beside_what_happened(fields: dict[str, Any], said: str) -> None:
    found = WELL.model_copy(update=fields)
    text = printed(attempt(inside=(HOP.model_copy(update={"convergence": found}),)))
    assert said in text
    assert ("throttle" in text) == ("throttle_seen" in fields)


def test_only_a_precopy_is_asked_whether_it_converges() -> None:
    assert "not measured: its progress was not observed" in printed(attempt())
    over = Phase(name="postcopy", begin_ns=1, end_ns=2)
    assert "no forecast: the move switched to post-copy" in printed(attempt(phases=(over,)))
    postcopy = synthetic.case(policy=Policy(method="postcopy"))
    assert "Convergence" not in printed(attempt(case=postcopy))


def test_what_is_not_available_is_not_measured_with_its_reason() -> None:
    text = printed(attempt(inside=(MoveDetails(unseen=("hosts over ssh",)),)))
    for what in (
        "no STOP or no RESUME event was recorded",
        "neither trace points nor device states are available",
        "no virtqueue was read",
        "the guest did not resume on the target",
    ):
        assert f"not measured: {what}; hosts over ssh" in text
    assert "not observed: hosts over ssh" in text


def hop(**fields: Any) -> str:
    """As it is printed of one hop that differs in some fields."""
    return printed(attempt(inside=(HOP.model_copy(update=fields),)))


def test_announcers_are_listed_in_one_line() -> None:
    by = "announced: guest's ARP 2, guest's NA 1, QEMU's RARP 0 of 5 rounds configured"
    assert f"{by}; first 0.2 ms after the resume\n" in hop()
    assert f"{by}; first 1.5 ms before the resume\n" in hop(first_announce_ms=-1.5)
    nobody = {"garp": 0, "na": 0, "rarp": 0}
    text = hop(announced=0, announced_by=nobody, first_announce_ms=None)
    assert "guest's none, QEMU's RARP 0 of 5 rounds configured; none was observed\n" in text


def test_rounds_that_were_not_due_yet_are_not_called_missing() -> None:
    assert "after the resume; observed for 0.50 s of 0.80 s\n" in hop(listened_ms=500)
    assert "listened for" not in hop(listened_ms=None)
    assert "rounds configured not known; first" in hop(announce_rounds_asked=None)
    of_old = hop(announced_by=None, announce_rounds_asked=None)
    assert "announced: 3 in all, rounds configured not known; first" in of_old


def test_the_first_packet_each_way_is_listed_or_missing() -> None:
    first = "first packet after the resume: egress 5.25 ± 0.50 ms, at the peer"
    assert f"{first}; ingress none came\n" in hop()
    assert f"{first}; ingress not measured\n" in hop(silent=())
    arrived = {"silent": (), "first_ingress_ms": 7.0, "first_ingress_error_ms": 0.25}
    assert f"{first}; ingress 7.00 ± 0.25 ms, in the guest\n" in hop(**arrived)


def test_a_blind_spell_says_what_was_missed_by_it() -> None:
    missed = "nothing was told; 14 progress samples were missed"
    stopped = "the guest was stopped meanwhile; 42.0 ms of the guest's stop are within it"
    assert f"no monitoring of a for 300 ms: {missed}; {stopped}\n" in hop()
    (blind,) = HOP.blind
    elsewhere = blind.model_copy(update={"stop": False, "stopped_ms": 0})
    assert f"{missed}; none of the guest's stop is within it\n" in hop(blind=(elsewhere,))
    nothing = {"missed": None, "stop": None, "stopped_ms": None}
    of_old = blind.model_copy(update=nothing)
    assert "no monitoring of a for 300 ms: nothing was told\n" in hop(blind=(of_old,))


def test_blocktime_of_postcopy_is_listed_where_measured() -> None:
    told = "waited for pages in post-copy: all vCPUs at once 12 ms; each: 12, 30 ms"
    assert told in hop(postcopy_blocktime_ms=12, postcopy_cpus_blocktime_ms=(12, 30))
    assert "waited for pages" not in hop()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"explained": None}, "not measured: nothing was recorded that could explain the gaps"),
        ({"explained": None, "gaps": None}, "not measured: no gaps were recorded"),
        (
            {"explained": (), "gaps": ()},
            "ms): no gap to explain",
        ),
    ],
)
def test_a_gap_that_is_not_explained_says_why(fields: dict[str, Any], said: str) -> None:
    text = printed(attempt(**fields))
    assert text.count(said) == 2
    assert "unexplained" not in text


def test_an_attempt_without_details_says_so() -> None:
    assert "not measured: no move was recorded in detail" in printed(attempt(inside=()))


def test_rings_are_listed_with_the_rules_they_break() -> None:
    ring = RingAudit(device="nic", queue=1, kind="split", size=8, broken=("loop",))
    broken = HOP.model_copy(update={"rings": (ring,)})
    assert "used 7" in printed(attempt())
    assert "BROKEN" in printed(attempt(inside=(broken,)))
    unread = ring.model_copy(update={"broken": (), "unchecked": ("not captured: used",)})
    text = printed(attempt(inside=(HOP.model_copy(update={"rings": (unread,)}),)))
    assert "not checked" in text
    assert "sound" not in text


def test_dirty_rates_are_a_row_a_method_with_the_reasons_below() -> None:
    def rate(**told: Any) -> DirtyRate:
        return DirtyRate.model_validate({"host": "a", "when": "before", **told})

    rates = (
        rate(method="page-sampling", mib_s=16, error_mib_s=2.9),
        rate(method="dirty-ring", mib_s=0, per_vcpu_mib_s=(0, 1)),
        rate(method="page-sampling", when="after", reason="refused"),
        rate(method="migration", when="during", mib_s=15.25),
        rate(method="migration", when="during", reason="too short"),
    )
    text = printed(attempt(dirty_rates=rates))
    rows = {line.split("  ")[0]: re.split(r" {2,}", line) for line in text.splitlines()}
    assert rows["method"] == ["method", "before", "during", "after"]
    assert rows["page-sampling"] == ["page-sampling", "16.0 ± 2.9", "-", "not measured"]
    assert rows["dirty-ring"] == ["dirty-ring", "0.0", "-", "-"]
    assert rows["migration"] == ["migration", "-", "15.2, not measured", "-"]
    assert "dirty-ring before, per vCPU: 0, 1 MiB/s" in text
    assert "page-sampling: refused" in text
    assert "migration: too short" in text
    assert "Dirty rate" not in printed(attempt()), "nobody asked for it"


def test_a_run_has_medians_of_what_its_outages_contain() -> None:
    run = synthetic.run()
    text = plain(run_table(run, [attempt(1), attempt(2, explained=(gap(30),))]))
    assert "Where the outage went, egress: medians over the attempts, ms" in text
    assert "80.0 [70.0..90.0]" in text
    assert "unexplained   20.0 [10.0..30.0]" in text
    assert "Where the outage went" not in plain(run_table(run, [attempt(explained=None)]))


def test_a_case_without_an_explained_gap_is_no_zero_beside_one_that_has_it() -> None:
    unmeasured = synthetic.attempt(synthetic.case("vhost-user"))
    quiet = synthetic.attempt(synthetic.case("vdpa"), gaps=(), explained=())
    text = plain(run_table(synthetic.run(), [attempt(), unmeasured, quiet]))
    assert re.search(r"^unexplained +10\.0 +not measured +below floor$", text, re.MULTILINE)
    some = plain(run_table(synthetic.run(), [attempt(), attempt(2, explained=None)]))
    assert re.search(r"^unexplained +10\.0 in 1 of 2$", some, re.MULTILINE)


def test_the_stop_by_stage_has_a_lane_and_no_markup_of_a_guests() -> None:
    dark = span("<b>dark</b>", 30, 42, explained=False)
    hop = HOP.model_copy(update={"stop": (span("memory", 0, 30), dark)})
    data = FigureData(attempt(inside=(hop,)), {}, ())
    lanes = {lane.name: lane for lane in report_lanes(data)}
    assert list(lanes) == ["phase", "stop by stage", "downtime reported", "guest stall"]
    first, second = lanes["stop by stage"].bars
    assert first.hover == "memory on a\n30.0 ± 0.0 ms"
    assert second.hover == "unexplained: <b>dark</b> on a\n12.0 ± 0.0 ms"
    assert "unexplained: &lt;b&gt;dark&lt;/b&gt; on a" in figure(data)
    assert "<b>" not in figure(data)


def test_a_stop_without_stages_has_no_lane() -> None:
    data = FigureData(attempt(inside=(MoveDetails(),)), {}, ())
    assert "stop by stage" not in [lane.name for lane in report_lanes(data)]


def test_show_and_the_report_have_it_and_escape_it(tmp_path: Path) -> None:
    hostile = HOP.model_copy(update={"unseen": (HOSTILE,)})
    writer = synthetic.write_run(tmp_path, [attempt(inside=(hostile,))])
    shown = CliRunner().invoke(cli, ["show", "latest", "--results", str(tmp_path), "--inside"])
    assert shown.exit_code == 0
    assert "The guest's stop by stage" in shown.output
    assert "\x1b" not in shown.output
    page = write_report(writer.folder).read_text()
    assert "The guest&#39;s stop by stage" in page
    assert "<script>alert(1)" not in page
