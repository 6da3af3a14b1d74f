"""The picture on top of a report as values: scales, marks, bars, and the index of failures."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from migrate.model import (
    Attempt,
    AttemptError,
    Expect,
    GapExplanation,
    Problem,
    QemuEnd,
    QuarantineEntry,
    Span,
    Verdict,
)
from migrate.report.failures import failures
from migrate.report.outage_bars import MOST_BARS, MOST_CAUSES, OutageBars, outage_bars
from migrate.report.overview import Overview, Panel, overview
from migrate.report.ranking import rank_rows
from migrate.report.scale import LEFT, RIGHT, scale_for
from migrate.report.verdict_text import verdict_text, why_not_passed
from migrate.results.reader import RunRecord, read_run
from selftests.doubles import synthetic
from selftests.doubles.synthetic import MS, STOP

# --- scales ---------------------------------------------------------------------------------------


def test_a_scale_begins_at_nothing_and_has_round_ticks() -> None:
    scale = scale_for([40.0, 350.0])
    assert not scale.logarithmic
    assert (scale.at(0), scale.at(350)) == (LEFT, RIGHT)
    assert [tick.text for tick in scale.ticks()] == ["0", "100", "200", "300"]


def test_lengths_far_apart_are_on_a_logarithmic_scale_unless_they_are_stacked() -> None:
    scale = scale_for([5.0, 5000.0])
    assert scale.logarithmic
    middle = scale.at(5.0 * 1000**0.5)
    assert middle == pytest.approx((LEFT + RIGHT) / 2, abs=0.01)
    assert scale.at(0.1) == LEFT, "what lies below is put on the edge"
    assert not scale_for([5.0, 5000.0], linear=True).logarithmic


def test_ticks_do_not_lie_over_each_other() -> None:
    for low, high in ((22.0, 8200.0), (0.2, 9000.0), (50.0, 2100.0)):
        at = [tick.at for tick in scale_for([low, high]).ticks()]
        assert len(at) >= 2
        assert min(after - before for before, after in pairwise(at)) > 8


def test_a_scale_of_nothing_has_a_place_for_it() -> None:
    assert scale_for([]).at(0) == LEFT


# --- marks ----------------------------------------------------------------------------------------


def drawn(*attempts: Attempt) -> Overview:
    groups = {"virtio": list(attempts)}
    return overview(groups, {"virtio": "n 1"}, rank_rows(groups))


def panel(of: Overview, title: str) -> Panel:
    return next(one for one in of.panels if one.title == title)


def attempt(number: int = 1, length: float = 150.0, **fields: Any) -> Attempt:
    gap = synthetic.gap("egress", 0, length).model_copy(update=fields)
    return synthetic.attempt(synthetic.case(), number, gaps=(gap,))


def test_an_attempt_is_a_point_with_its_error() -> None:
    (strip,) = panel(drawn(attempt(), attempt(2, 200.0)), "Outage, egress").strips
    first, second = strip.marks
    assert first.point is not None and second.point is not None
    assert first.begin < first.point < first.end < second.point
    assert first.words == "attempt 1: 150 ms ± 2.0 ms"
    assert first.attempt == "synthetic-virtio/1"
    assert strip.text == "175 ms"


def test_what_is_in_the_floor_lies_between_nothing_and_the_floor() -> None:
    of = drawn(attempt())
    (strip,) = panel(of, "Outage, ingress").strips
    (mark,) = strip.marks
    assert (mark.begin, mark.point) == (LEFT, None)
    assert mark.words == "attempt 1: below what the meter can see (floor 2.4 ms)"
    assert of.kinds == {"exact", "between"}


def test_what_had_not_ended_is_an_arrow() -> None:
    of = drawn(attempt(open_ended=True))
    (strip,) = panel(of, "Outage, egress").strips
    (mark,) = strip.marks
    assert mark.endless
    assert "≥ 150 ms" in mark.words
    assert "endless" in of.kinds


def test_what_was_not_measured_has_no_mark_and_says_so() -> None:
    (strip,) = panel(drawn(synthetic.attempt(synthetic.case(), stalls=None)), "Guest stall").strips
    assert (strip.marks, strip.text) == ((), "not measured")


def test_the_limit_of_the_case_is_drawn_where_it_is_on_the_scale() -> None:
    def limits(limit: float) -> list[float | None]:
        case = synthetic.case(expect=Expect(outage_egress_ms=limit))
        one = synthetic.attempt(case, gaps=(synthetic.gap("egress", 0, 150),))
        return [strip.limit for strip in panel(drawn(one), "Outage, egress").strips]

    assert limits(100)[0] is not None
    assert limits(90_000) == [None]


# --- bars -----------------------------------------------------------------------------------------


def explained(number: int, *lengths: tuple[str, float]) -> Attempt:
    """An attempt whose egress consists of spans; one that is called ``?`` is unexplained."""
    spans, at = [], STOP
    for what, length in lengths:
        end = at + round(length * MS)
        spans.append(Span(what=what, begin_ns=at, end_ns=end, explained=what != "?"))
        at = end
    gap = synthetic.gap("egress", 0, (at - STOP) / MS)
    whole = GapExplanation(
        direction="egress", begin_ns=STOP, length_ns=at - STOP, spans=tuple(spans)
    )
    return synthetic.attempt(synthetic.case(), number, gaps=(gap,), explained=(whole,))


def bars(**groups: list[Attempt]) -> OutageBars:
    made = outage_bars(groups)
    assert made is not None
    return made


def test_parts_of_a_bar_follow_each_other_and_add_up_to_the_outage() -> None:
    made = bars(a=[explained(1, ("stop", 50), ("load", 30), ("?", 20))])
    (strip,) = made.panels[0].strips
    (bar,) = strip.bars
    assert bar.median
    assert strip.text == "100 ms"
    ends = [round(part.begin + part.width, 2) for part in bar.parts]
    assert ends[:-1] == [part.begin for part in bar.parts[1:]]
    assert ends[-1] == bar.end == RIGHT
    assert [part.key for part in bar.parts] == ["1", "2", "unexplained"]
    assert bar.parts[2].words == "UNEXPLAINED: ?: 20.0 ms"
    assert [cause.what for cause in made.causes] == ["stop", "load", "unexplained"]


def test_the_thick_bar_is_the_attempt_with_the_median_outage() -> None:
    row = [explained(number, ("stop", 10.0 * number)) for number in (5, 1, 3, 2, 4)]
    (strip,) = bars(a=row).panels[0].strips
    assert [bar.attempt.rpartition("/")[2] for bar in strip.bars] == ["1", "2", "3", "4", "5"]
    assert [bar.median for bar in strip.bars] == [False, False, True, False, False]
    assert strip.share == "attempt 3, 100% explained"


def test_of_many_attempts_some_have_bars_with_both_ends_and_the_median() -> None:
    row = [explained(number, ("stop", 100.0 + number)) for number in range(1, 42)]
    (strip,) = bars(a=row).panels[0].strips
    numbers = [int(bar.attempt.rpartition("/")[2]) for bar in strip.bars]
    assert len(numbers) == MOST_BARS
    assert {1, 21, 41} <= set(numbers)


def test_of_many_causes_the_longest_have_a_number() -> None:
    spans = [(f"cause {number}", 10.0 + number) for number in range(12)]
    made = bars(a=[explained(1, *spans)])
    keys = [cause.key for cause in made.causes]
    assert keys == [*(str(number) for number in range(1, MOST_CAUSES + 1)), "other"]
    assert [cause.what for cause in made.causes][:2] == ["cause 6", "cause 7"]


def test_cases_far_apart_have_scales_of_their_own_and_no_common_axis() -> None:
    near = bars(a=[explained(1, ("stop", 100))], b=[explained(1, ("stop", 500))])
    far = bars(a=[explained(1, ("stop", 100))], b=[explained(1, ("stop", 5000))])
    assert (near.own_scales, far.own_scales) == (False, True)
    assert near.panels[0].ticks and not far.panels[0].ticks
    assert {strip.bars[0].end for strip in far.panels[0].strips} == {RIGHT}


def test_without_any_explained_outage_there_are_no_bars() -> None:
    assert outage_bars({"a": [attempt()]}) is None


# --- what did not pass ----------------------------------------------------------------------------


def record(root: Path, *attempts: Attempt, **fields: Any) -> RunRecord:
    return read_run(synthetic.write_run(root, list(attempts), **fields).folder)


def failed(number: int, measured: str = "138.0", check: str = "outage.egress") -> Attempt:
    fail = Verdict(check=check, result="fail", measured=measured, limit="5", unit="ms")
    return synthetic.attempt(synthetic.case(), number, verdicts=(fail,))


def test_attempts_of_a_case_that_failed_for_the_same_checks_are_one_line(tmp_path: Path) -> None:
    listed = failures(record(tmp_path, failed(1), failed(2, "140.0"), failed(3, check="stall")))
    assert [(one.kind, one.numbers, one.reasons) for one in listed] == [
        ("FAIL", (1, 2), ("outage.egress 138.0 ms against at most 5 ms",)),
        ("FAIL", (3,), ("stall 138.0 ms against at most 5 ms",)),
    ]


def test_what_left_no_attempt_comes_first_and_what_is_known_last(tmp_path: Path) -> None:
    entry = QuarantineEntry.model_validate(
        {
            "case": "*virtio", "check": "stall", "owner": "x", "bug": "1", "reason": "known",
            "expires": "2030-01-01",
        },
        strict=False,
    )  # fmt: skip
    problem = Problem(tried="start the guest", host="b", said="no room")
    mishap = AttemptError(case_id="other", number=1, problem=problem, exit_code=4)
    void = failed(3).model_copy(update={"void": ("the fault was not done",)})
    listed = failures(
        record(
            tmp_path,
            failed(1, check="stall"),
            failed(2),
            void,
            mishaps=(mishap,),
            quarantine=(entry,),
        )
    )
    assert [one.kind for one in listed] == ["no attempt", "VOID", "FAIL", "quarantined"]
    assert listed[0].reasons == ("start the guest on b: no room",)
    assert listed[1].reasons[0] == "void, so it neither passes nor fails: the fault was not done"


def test_the_last_words_of_a_qemu_that_died_come_before_what_libvirt_said() -> None:
    ended = QemuEnd(host="b", how="signal 6", last_words="Assertion `x' failed")
    one = synthetic.attempt(
        synthetic.case(),
        outcome="failed",
        qemu_ends=(ended,),
        error=Problem(tried="migrate to b", said="Connection refused"),
        verdicts=(Verdict(check="outcome", result="fail", measured="failed", limit="completed"),),
    )
    first, *_ = why_not_passed(one)
    assert "Assertion `x' failed" in first


@pytest.mark.parametrize(
    ("verdict", "text"),
    [
        ({"result": "fail", "measured": "138.0", "limit": "5", "unit": "ms"},
         "x 138.0 ms against at most 5 ms"),
        ({"result": "fail", "measured": "none", "limit": "0 to 500", "unit": "ms"},
         "x none (expected 0 to 500 ms)"),
        ({"result": "fail", "measured": "lost", "limit": "done"}, "x lost (expected done)"),
        ({"result": "unmeasured", "limit": "100", "unit": "ms"}, "x not measured"),
        ({"result": "unmeasured", "measured": "64.7 ± 49.5", "limit": "100", "unit": "ms"},
         "x 64.7 ± 49.5 ms against at most 100 ms: can't tell"),
        ({"result": "fail"}, "x fail"),
    ],
)  # fmt: skip
def test_a_verdict_is_told_with_its_figures(verdict: dict[str, Any], text: str) -> None:
    assert verdict_text(Verdict(check="x", **verdict)) == text
