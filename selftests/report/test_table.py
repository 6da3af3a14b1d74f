"""The table's figures: whose they are, what bounds they have, which rows are ranked."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from migrate.model import (
    Attempt,
    AttemptError,
    Expect,
    GapExplanation,
    Mode,
    Problem,
    Span,
    Unmeasured,
    Verdict,
    Workload,
)
from migrate.report.answer import answers, too_close_line
from migrate.report.attempt_section import headline
from migrate.report.ranking import RowRanks, rank_rows
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
    assert row(egress(0, 0, 100))[EGRESS] == "below floor [floor..100]"


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


def alike(ranks: RowRanks, name: str) -> tuple[tuple[str, ...], ...]:
    column = ranks.column(name)
    assert column is not None
    return column.alike


def letters(ranks: RowRanks, name: str) -> dict[str, str]:
    column = ranks.column(name)
    assert column is not None
    return dict(column.letters)


def test_with_three_attempts_nothing_is_ranked_and_that_is_said() -> None:
    ranks = rank_rows(modes(3))
    assert ranks.limits == (
        "With 3 attempts a row nothing can be ranked, however far apart: "
        "2 rows take at least 4 attempts each.",
    )
    assert alike(ranks, "outage seen, egress") == (("a", "b"),)
    assert answers(modes(3), ranks)[0] == (
        "Outage, guest to peer (egress): a 152 ms, b 902 ms: "
        "too close to rank with 3 attempts each."
    )


def test_with_five_what_is_far_apart_is_ranked() -> None:
    ranks = rank_rows(modes(5))
    assert alike(ranks, "outage seen, egress") == ()
    assert letters(ranks, "outage seen, egress") == {}
    assert letters(ranks, "downtime reported") == {"a": "a", "b": "a"}
    egress, ingress, downtime = answers(modes(5), ranks)
    assert egress == "Outage, guest to peer (egress): a 153 ms < b 903 ms."
    assert ingress == "Outage, peer to guest (ingress): a 813 ms < b 1563 ms."
    assert downtime == (
        "Downtime reported: a 63.0 ms, b 63.0 ms: too close to rank with 5 attempts each."
    )


def test_all_that_is_too_close_besides_is_one_line() -> None:
    line = too_close_line(rank_rows(modes(5)))
    assert line == "Also too close to rank: guest stall (all rows); total time (all rows)."


def test_rows_that_must_not_be_compared_are_not_ranked_and_the_reason_is_said() -> None:
    groups = modes(5, workload=Workload(interval_us=10_000))
    ranks = rank_rows(groups)
    assert ranks.limits == (
        "a and b can't be ranked: their packets were sent every 1 ms and 10 ms.",
    )
    assert not any(column.alike for column in ranks.columns)
    assert answers(groups, ranks)[0].endswith(": not all of them can be ranked.")


def test_of_one_row_the_answer_is_its_medians() -> None:
    groups = {"virtio": egress(100, 110, 120)}
    assert answers(groups, rank_rows(groups)) == (
        "Outage, guest to peer (egress): 110 ms, the median of 3 attempts.",
        "Outage, peer to guest (ingress): below what the meter can see (floor 2.4 ms), the median "
        "of 3 attempts.",
        "Downtime reported: 62.0 ms, the median of 3 attempts.",
    )


def test_rows_with_too_few_attempts_are_not_ranked_and_have_no_letter() -> None:
    groups = {**modes(5), "c": egress(160.0)}
    ranks = rank_rows(groups)
    assert answers(groups, ranks)[0] == (
        "Outage, guest to peer (egress): a 153 ms, c 160 ms, b 903 ms: not ranked, "
        "with 1 to 5 attempts."
    )
    assert letters(ranks, "downtime reported") == {"a": "a", "b": "a"}


def row_of(length: float, mode: Mode = "virtio") -> list[Attempt]:
    return [
        synthetic.attempt(synthetic.case(mode), number, length_ms=length + number / 5)
        for number in range(1, 6)
    ]


def test_sets_that_are_too_close_are_told_in_their_order() -> None:
    groups = {"a": row_of(900), "b": row_of(151), "c": row_of(150), "d": row_of(901)}
    ranks = rank_rows(groups)
    assert answers(groups, ranks)[0] == (
        "Outage, guest to peer (egress): c 151 ms, b 152 ms (too close to rank) < "
        "a 901 ms, d 902 ms (too close to rank)."
    )
    assert letters(ranks, "outage seen, egress") == {"c": "a", "b": "a", "a": "b", "d": "b"}


def test_of_many_rows_the_answer_names_the_ends() -> None:
    groups = {f"row{number}": row_of(100.0 + number) for number in range(7)}
    assert answers(groups, rank_rows(groups))[0] == (
        "Outage, guest to peer (egress): from row0 101 ms to row6 107 ms, 7 rows: "
        "too close to rank with 5 attempts each."
    )


def test_a_verdict_that_failed_shows_its_numbers() -> None:
    fail = Verdict(check="outage.egress", result="fail", measured="138.0", limit="5", unit="ms")
    share = Verdict(
        check="downtime.explained", result="fail", measured="0.400", limit="0.9", unit="share"
    )
    attempts = [synthetic.attempt(synthetic.case(), n, verdicts=(fail, share)) for n in (1, 2)]
    assert row(attempts)["verdict"] == (
        "FAIL 0/2 passed: outage.egress 138.0 ms against at most 5 ms (2 times), "
        "downtime.explained 0.400 against at least 0.9 share (2 times)"
    )


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
    both = synthetic.attempt(synthetic.case(), gaps=(gap,), unmeasured=(after,))
    assert row([both])[EGRESS] == "100 to 504", "and the gap's own errors, of length and place"
    to_the_end = after.model_copy(update={"open_ended": True})
    endless = synthetic.attempt(synthetic.case(), gaps=(gap,), unmeasured=(to_the_end,))
    assert row([endless])[EGRESS] == "≥ 100", "it may have gone on"
    none = synthetic.attempt(synthetic.case(), gaps=(), unmeasured=(after,))
    assert row([none])[EGRESS] == "≤ 400"
    assert row([none])["outage seen, ingress, ms"] == "below floor"
    assert "below what the meter can see (floor 2.4 ms); downtime" in headline(none)
    assert "outage egress 0.0 to 400.0 ms" in headline(none)
