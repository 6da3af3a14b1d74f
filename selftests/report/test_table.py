"""The table's figures: whose they are, what bounds they have, which rows are ranked."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from migrate.model import (
    Attempt,
    AttemptError,
    Expect,
    GapExplanation,
    Loss,
    Problem,
    Span,
    Unmeasured,
    Workload,
)
from migrate.report.html import headline
from migrate.report.ranking import ranking_notes
from migrate.report.table import RunTable, run_table
from migrate.report.table_model import NOT_COUNTED
from selftests.doubles import synthetic
from selftests.doubles.synthetic import MS

EGRESS = "outage seen, egress, ms"


def egress(*lengths: float, **fields: Any) -> list[Attempt]:
    """Attempts whose only gap is of so many ms, in the floor for 0; ``floor``: of 9 ms."""
    floor = synthetic.attempt(synthetic.case()).floor
    assert floor is not None
    worse = floor.model_copy(update={"egress_ms": 9.0})
    return [
        synthetic.attempt(
            synthetic.case(),
            number,
            floor=worse,
            gaps=(synthetic.gap("egress", 0, length),) if length else (),
            **fields,
        )
        for number, length in enumerate(lengths, 1)
    ]


def open_ended(number: int, length: float) -> Attempt:
    gap = synthetic.gap("egress", 0, length).model_copy(update={"open_ended": True})
    return synthetic.attempt(synthetic.case(), number, gaps=(gap,))


def row(attempts: list[Attempt], **run: Any) -> dict[str, str]:
    of: RunTable = run_table(synthetic.run(**run), attempts)
    return {head: cell.line() for head, cell in zip(of.heads, of.rows[0], strict=True)}


# --- values between bounds ------------------------------------------------------------------------


def test_in_the_floor_is_no_zero_of_a_median() -> None:
    assert row(egress(0, 0, 100, 120))[EGRESS] == "50.0 to 54.5 [floor..120]"
    assert row(egress(0, 0, 100))[EGRESS] == "in the floor [floor..100]"


def test_no_median_below_the_floor_stands_beside_it() -> None:
    assert row(egress(0, 0, 10, 16.1))[EGRESS] == "≤ 9.5 [floor..16.1]"


def test_only_a_median_that_is_censored_is_a_lower_bound() -> None:
    closed = egress(100, 120)
    assert row([*closed, open_ended(3, 2500)])[EGRESS] == "120 [100..≥ 2500]"
    two = [open_ended(2, 2500), open_ended(3, 2600)]
    assert row([*egress(100), *two])[EGRESS] == "≥ 2500 [100..≥ 2600]"


def test_without_a_floor_an_outage_was_not_measured() -> None:
    attempts = [synthetic.attempt(synthetic.case(), floor=None, gaps=gaps) for gaps in ((), None)]
    assert row(attempts)[EGRESS] == "not measured"


# --- whose figures --------------------------------------------------------------------------------


def test_what_ended_otherwise_is_in_no_median_and_is_counted() -> None:
    attempts = [*egress(100, 110, 120), *egress(5000, 6000, outcome="failed")]
    told = row(attempts)
    assert told["n"] == "3 of 5 2 ended otherwise"
    assert told[EGRESS] == "110 [100..120]"


def test_a_void_attempt_and_a_try_without_one_are_counted_apart() -> None:
    mishap = AttemptError(
        case_id="synthetic-virtio", number=4, problem=Problem(tried="boot"), exit_code=4
    )
    attempts = [*egress(100, 110), *egress(7000, void=("a question of ours ended the guest",))]
    told = row(attempts, mishaps=(mishap,))
    assert told["n"] == "2 of 4 1 void, 1 left no attempt"
    assert told[EGRESS] == "105 [100..110]"


def test_a_row_in_which_none_ended_as_asked_has_no_figure() -> None:
    told = row(egress(100, outcome="lost"))
    assert told["n"] == "0 of 1 1 ended otherwise"
    assert told[EGRESS] == NOT_COUNTED


def test_an_expected_failure_ended_as_asked() -> None:
    case = synthetic.case(expect=Expect(outcome="failed"))
    told = row([synthetic.attempt(case, outcome="failed")])
    assert told["n"] == "1"
    assert told[EGRESS] == "150"


# --- ranks ----------------------------------------------------------------------------------------


def modes(attempts: int, **of_second: Any) -> dict[str, list[Attempt]]:
    """Two rows that differ by the length of their gaps."""
    rows = {"a": (synthetic.case(), 150.0), "b": (synthetic.case("vdpa", **of_second), 900.0)}
    return {
        label: [
            synthetic.attempt(case, number, length_ms=length + number)
            for number in range(1, attempts + 1)
        ]
        for label, (case, length) in rows.items()
    }


def test_with_three_attempts_nothing_is_ranked_and_that_is_said() -> None:
    first, alike, *_ = ranking_notes(modes(3))
    assert first == (
        "With 3 attempts a row nothing can be ranked, however far apart it is: "
        "2 rows take at least 4 attempts each."
    )
    assert "outage seen, egress" in alike


def test_with_five_what_is_far_apart_is_ranked() -> None:
    alike, level = ranking_notes(modes(5))
    assert "outage seen, egress" not in alike
    assert "downtime reported" in alike
    assert "5 %" in level


def test_rows_that_must_not_be_compared_are_not_ranked_and_the_reason_is_said() -> None:
    reason, *notes = ranking_notes(modes(5, workload=Workload(interval_us=10_000)))
    assert reason == "a and b can't be ranked: their packets were sent every 1 ms and 10 ms."
    assert not any(" are indistinguishable in " in note for note in notes)


# --- where the outage went ------------------------------------------------------------------------


def test_of_a_gap_that_did_not_end_what_it_broke_off_in_is_a_lower_bound() -> None:
    def attempt(number: int, length: int, *, endless: bool) -> Attempt:
        gap = synthetic.gap("egress", 0, length).model_copy(update={"open_ended": endless})
        edges = [gap.begin_ns, gap.begin_ns + 40 * MS, gap.begin_ns + gap.length_ns]
        spans = tuple(
            Span(what=what, begin_ns=begin, end_ns=end)
            for what, (begin, end) in zip(("stop", "silence"), pairwise(edges), strict=True)
        )
        explained = GapExplanation(
            direction="egress", begin_ns=gap.begin_ns, length_ns=gap.length_ns, spans=spans
        )
        return synthetic.attempt(synthetic.case(), number, gaps=(gap,), explained=(explained,))

    closed = attempt(1, 100, endless=False)
    both = [attempt(2, 500, endless=True), attempt(3, 600, endless=True)]
    (section,) = run_table(synthetic.run(), [closed, *both]).went
    assert section.grid is not None
    told = {line[0].text: line[1].line() for line in section.grid.rows}
    assert told["stop"] == "40.0 [40.0..40.0]"
    assert told["silence"] == "≥ 460 [60.0..≥ 560]"


def test_where_the_meter_could_not_tell_an_outage_may_have_been_so_long() -> None:
    gap = synthetic.gap("egress", 0, 100)
    after = Unmeasured(
        direction="egress",
        begin_ns=gap.begin_ns + gap.length_ns,
        length_ns=400 * MS,
        reason="the log was full",
    )
    end_ns = after.begin_ns + after.length_ns
    watched = Loss(
        direction="egress",
        window="after",
        hop=1,
        begin_ns=gap.begin_ns,
        end_ns=end_ns + 1000 * MS,
        **dict.fromkeys(("sent", "lost", "late", "late_in_gaps"), 0),
    )
    told: dict[str, Any] = {"unmeasured": (after,), "loss": (watched,)}
    both = synthetic.attempt(synthetic.case(), gaps=(gap,), **told)
    assert row([both])[EGRESS] == "100 to 504", "and the gap's own errors, of length and place"
    to_the_end = {**told, "loss": (watched.model_copy(update={"end_ns": end_ns}),)}
    endless = synthetic.attempt(synthetic.case(), gaps=(gap,), **to_the_end)
    assert row([endless])[EGRESS] == "≥ 100", "it may have gone on"
    none = synthetic.attempt(synthetic.case(), gaps=(), **told)
    assert row([none])[EGRESS] == "≤ 400"
    assert row([none])["outage seen, ingress, ms"] == "in the floor"
    assert "in the floor; downtime" in headline(none)
    assert "outage egress 0.0 to 400.0 ms" in headline(none)
