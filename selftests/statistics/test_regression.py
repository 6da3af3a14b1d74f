"""The gate: what is found, what isn't, what can't be told, and which runs are held against it."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from scipy import stats

from bench.gate import World, alarms
from migrate.analysis.figures import FigureColumn
from migrate.cli.main import cli
from migrate.model import (
    Attempt,
    AttemptError,
    Case,
    Expect,
    MachineState,
    Policy,
    Problem,
    ReportedFigures,
    UnreachedTries,
    Verdict,
)
from migrate.report.baseline_cases import ATTEMPTS, case_key
from migrate.report.baseline_figures import FAILED, FIGURES, figure_interval
from migrate.results.writer import RunWriter
from migrate.statistics.censored import Interval
from migrate.statistics.comparison import Allowance, Comparison, FigureSample, Rules
from migrate.statistics.regression import compare, exit_code
from migrate.statistics.significance import (
    attempts_test,
    detectable_rate,
    doubled_ranks,
    exact_p,
    fisher_p,
    holm,
)
from selftests.doubles import synthetic
from selftests.helpers import grid_rows

MODEST = Rules(relative=0.0, least=0.0)


def spans(values: object) -> tuple[Interval, ...]:
    return tuple((value, value) for value in np.asarray(values, dtype=float).tolist())


def times(seed: int, shift: float = 1.0, *, runs: int = 10, each: int = 10) -> FigureSample:
    """Lognormal times of ``runs`` earlier runs, and of a new one that takes ``shift`` fold."""
    random = np.random.default_rng(seed)
    moods = 0.1 * random.standard_normal(runs + 1)
    every = [100 * np.exp(mood + 0.3 * random.standard_normal(each)) for mood in moods]
    return FigureSample("case", "time", tuple(map(spans, every[:-1])), spans(every[-1] * shift))


def comparison(sample: FigureSample, rules: Rules = MODEST) -> Comparison:
    (found,) = compare([sample], rules)
    return found


# --- what is found --------------------------------------------------------------------------------


def test_a_slower_run_is_worse_and_an_equal_one_is_not() -> None:
    found = comparison(times(1, 2.0))
    assert found.result == "worse"
    assert found.n_new == 10
    assert found.n_earlier == 100
    assert found.runs == 10
    assert found.change is not None
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.change < found.high
    assert found.superiority is not None
    assert found.superiority > 0.9
    same = comparison(times(1))
    assert same.result == "no change found"
    assert same.finds is not None
    assert same.finds < 1


def test_an_improvement_is_reported_and_does_not_fail() -> None:
    found = comparison(times(1, 0.4))
    assert found.result == "better"
    assert found.change is not None
    assert found.change < 0
    assert exit_code([found]) == 0


def test_a_bad_day_is_no_regression_where_days_differ() -> None:
    """All attempts of the new run are slow together, and so were some earlier runs'."""
    levels = (100, 105, 210, 95, 190, 110, 100, 220, 105, 98)
    earlier = tuple(spans(np.linspace(0.95, 1.05, 10) * level) for level in levels)
    sample = FigureSample("case", "time", earlier, spans(np.linspace(0.95, 1.05, 10) * 230))
    assert comparison(sample).result != "worse"
    assert comparison(sample, replace(MODEST, unit="attempt")).result == "worse"


def test_the_floor() -> None:
    sample = times(1, 2.0)
    assert comparison(sample, replace(MODEST, relative=3.0)).result == "below the floor"
    assert comparison(sample, replace(MODEST, least=500)).result == "below the floor"
    assert comparison(replace(sample, error=500.0)).result == "below the floor"
    found = comparison(sample, Rules())
    assert found.result == "worse"
    assert found.floor == pytest.approx(0.1 * found.median_earlier[0])  # type: ignore[index]


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_family_makes_it_harder() -> None:
    one = next(
        sample
        for seed in range(1, 50)
        if comparison(sample := times(seed, 1.4)).result == "worse"
        and 0.01 < (comparison(sample).p or 0) < 0.05
    )
    others = [times(seed) for seed in range(100, 119)]
    found = compare([one, *others], MODEST)
    assert found[0].p == comparison(one).p
    assert found[0].adjusted == pytest.approx(20 * (found[0].p or 0))
    assert found[0].result != "worse"


# --- what can't be told ---------------------------------------------------------------------------


def test_too_few_runs() -> None:
    found = comparison(times(1, 5.0, runs=2))
    assert found.result == "can't tell"
    assert found.why == "the baseline has 2 runs, and needs at least 3"
    assert found.p is None
    assert exit_code([found]) == 3


def test_too_few_attempts() -> None:
    found = comparison(times(1, 1.0, runs=3, each=1))
    assert found.result == "can't tell"
    assert found.why == "Too few attempts: 1; at least 2 are needed"


def test_a_gate_that_is_blind_says_from_where_on_it_sees_and_what_it_takes() -> None:
    levels = (100, 400, 60, 250, 30)
    earlier = tuple(spans(np.linspace(0.9, 1.1, 5) * level) for level in levels)
    found = comparison(FigureSample("case", "time", earlier, earlier[0]))
    assert found.result == "can't tell"
    assert found.why.startswith("Too few attempts: only an increase above ")
    assert found.why.endswith("would do") or "runs differ too much" in found.why
    noisy = comparison(times(1, runs=5, each=2), replace(MODEST, alpha=0.001))
    assert noisy.result == "can't tell"
    assert noisy.why == "Too few attempts: 2; at least 4 are needed"


def test_what_was_not_measured_is_not_counted() -> None:
    sample = times(1, 2.0)
    holes = replace(
        sample,
        earlier=(*sample.earlier, (None, None)),
        new=(*sample.new, None),
    )
    found, same = comparison(holes), comparison(sample)
    assert (found.p, found.change, found.runs) == (same.p, same.change, same.runs)
    assert (found.missing_new, found.missing_earlier) == (1, 2)
    nothing = comparison(replace(sample, new=(None, None)))
    assert nothing.result == "can't tell"
    assert nothing.why == "not measured in this run"
    before = comparison(replace(sample, earlier=((None,), (None,))))
    assert before.why == "not measured in the baseline"
    assert comparison(replace(sample, earlier=())).result == "can't tell"


def test_unmeasured_is_in_no_family() -> None:
    blank = replace(times(2), new=(None,) * 10)
    alone, beside = comparison(times(1, 2.0)), compare([times(1, 2.0), blank], MODEST)[0]
    assert beside.adjusted == alone.adjusted


# --- what is seen between bounds ------------------------------------------------------------------


def test_in_the_floor_is_neither_more_nor_less_than_what_is_lower_than_the_floor() -> None:
    low, high = np.array([0.0, 35.0, 90.0, 10.0]), np.array([80.0, 35.0, 90.0, 10.0])
    assert doubled_ranks(low, high).tolist() == [4, 5, 8, 3]


def test_a_meter_that_sees_less_makes_no_regression() -> None:
    clear = tuple(tuple((0.0, floor) for floor in range(5, 15)) for _ in range(10))
    dim = FigureSample("case", "outage", clear, ((0.0, 90.0),) * 10)
    found = comparison(dim)
    assert found.result != "worse"
    assert found.p == 1.0


def test_an_outage_out_of_the_floor_is_worse() -> None:
    clear = tuple(tuple((0.0, floor) for floor in range(5, 15)) for _ in range(10))
    found = comparison(FigureSample("case", "outage", clear, spans(range(60, 70))))
    assert found.result == "worse"
    assert found.median_earlier == (0.0, 9.5)
    assert found.change == 64.5 - 9.5


def test_a_gap_without_an_end_has_no_upper_bound_and_may_be_shorter_than_a_longer_one() -> None:
    low, high = np.array([5.0, 300.0, 100.0]), np.array([5.0, 300.0, np.inf])
    assert doubled_ranks(low, high).tolist() == [2, 5, 5]
    found = comparison(replace(times(1), new=((500.0, float("inf")),) * 10))
    assert found.result == "worse"
    assert found.change == pytest.approx(500 - found.median_earlier[1])  # type: ignore[index]
    assert found.high == float("inf")


def test_all_the_same_is_no_change() -> None:
    same = FigureSample("case", "time", (spans([7] * 5),) * 5, spans([7] * 5))
    assert comparison(same).p == 1.0


# --- the tests themselves -------------------------------------------------------------------------


def test_exact_is_mann_and_whitneys_and_fishers() -> None:
    random = np.random.default_rng(3)
    x, y = random.normal(size=9), random.normal(size=6)
    every = np.concatenate([x, y])
    ranks = doubled_ranks(every, every)
    assert (ranks / 2 == stats.rankdata(every)).all()
    for lean, side in ((ranks, "greater"), (-ranks, "less")):
        told = stats.mannwhitneyu(y, x, alternative=side, method="exact").pvalue
        assert exact_p(lean, 6) == pytest.approx(told)
    swapped = np.concatenate([y, x])
    told = stats.mannwhitneyu(x, y, alternative="greater", method="exact").pvalue
    assert exact_p(doubled_ranks(swapped, swapped), 9) == pytest.approx(told)
    fails = np.array([0.0] * 95 + [1.0] * 5 + [0.0] * 6 + [1.0] * 4)
    told = stats.fisher_exact([[4, 6], [5, 95]], alternative="greater").pvalue
    assert exact_p(doubled_ranks(fails, fails), 10) == pytest.approx(told)


def test_very_many_attempts_are_not_counted_way_by_way() -> None:
    each = spans([0] * 599 + [1])
    found = comparison(
        FigureSample("case", FAILED, (each,) * 3, spans([0] * 580 + [1] * 20), rate=True)
    )
    assert found.result == "worse"


def test_the_approximation_is_scipys() -> None:
    random = np.random.default_rng(4)
    x, y = random.integers(0, 9, 40), random.integers(2, 11, 30)
    every = np.concatenate([x, y]).astype(float)
    worse, better = attempts_test(doubled_ranks(every, every), 30)
    for p, side in ((worse, "greater"), (better, "less")):
        told = stats.mannwhitneyu(y, x, alternative=side, method="asymptotic").pvalue
        assert p == pytest.approx(told)


def test_failed_attempts_are_compared_by_their_rate() -> None:
    never = (spans([0] * 10),) * 10
    found = comparison(FigureSample("case", FAILED, never, spans([0] * 4 + [1] * 6), rate=True))
    assert found.result == "worse"
    assert found.change == pytest.approx(0.6)
    assert found.low is not None
    assert 0 < found.low < 0.6
    once = comparison(FigureSample("case", FAILED, never, spans([0] * 9 + [1]), rate=True))
    assert once.result == "no change found"
    often = (spans([1] * 6 + [0] * 4),) * 10
    assert comparison(FigureSample("case", FAILED, often, never[0], rate=True)).result == "better"


def test_false_alarms_of_a_family_are_at_most_what_is_stated() -> None:
    """As many as fit into a selftest; ``bench.gate`` counts more, in worlds of many kinds."""
    for of in alarms(World(each=5, new=5, between=0.5), 200, seed=7):
        assert of.kept
        assert of.worse < 25
    blind = alarms(World(between=1.0), 50, seed=7, unit="attempt")
    assert not blind[-1].kept


# --- run folders ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def eleven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written once: a run waits for the disk many times."""
    root = tmp_path_factory.mktemp("history")
    for day in range(1, 12):
        write(root, day)
    return root


@pytest.fixture
def history(eleven: Path, tmp_path: Path) -> Path:
    """Ten runs, and one that is as they are."""
    return Path(shutil.copytree(eleven, tmp_path / "history"))


def write(
    root: Path,
    day: int,
    shift: float = 1.0,
    of: Case | None = None,
    machine: MachineState | None = None,
    **fields: Any,
) -> RunWriter:
    """Run of a January day: eight attempts with downtimes of about 100 ms, ``shift`` fold."""
    random = np.random.default_rng(day)
    attempts = [
        synthetic.attempt(
            of or synthetic.case(),
            number,
            length_ms=float(150 * shift * np.exp(0.1 * random.standard_normal())),
            reported=ReportedFigures(
                downtime_ms=float(100 * shift * np.exp(0.1 * random.standard_normal())),
                total_ms=2000.0 + number,
            ),
            machine=machine,
        )
        for number in range(1, 9)
    ]
    when = {"name": f"202601{day:02}-030405-000000", "began": f"2026-01-{day:02}T03:04:05+00:00"}
    writer = RunWriter.create(root, synthetic.run(**{**when, **fields}))
    for one in attempts:
        writer.write_attempt(one)
    return writer


def gated(root: Path, *argv: str) -> Result:
    words = ["gate", "--baseline", str(root), "--results", str(root), *argv]
    return CliRunner().invoke(cli, words)


def test_a_run_like_the_others_passes(history: Path) -> None:
    ended = gated(history)
    assert ended.exit_code == 0, ended.output
    assert "WORSE" not in ended.output
    assert "20260101-030405-000000, " in ended.output


def test_a_regression_fails_and_says_what(history: Path) -> None:
    write(history, 20, 2.0)
    ended = gated(history)
    assert ended.exit_code == 1, ended.output
    (line,) = [line for line in grid_rows(ended.output) if "downtime reported" in line]
    assert "WORSE" in line
    document = json.loads(gated(history, "--json").output)
    by = {one["figure"]: one for one in document["compared"]}
    assert by["downtime reported"]["result"] == "worse"
    assert by["total time"]["result"] != "worse"
    assert set(by) == {column.name for column in FIGURES} | {FAILED}
    (used,) = document["baseline"].values()
    assert len(used) == 10
    assert used[0] == "20260102-030405-000000"


def test_the_last_runs_count(history: Path) -> None:
    document = json.loads(gated(history, "--json", "--last", "4").output)
    (used,) = document["baseline"].values()
    assert [name[6:8] for name in used] == ["07", "08", "09", "10"]


def test_a_run_in_the_middle_is_compared_with_earlier_ones(history: Path) -> None:
    document = json.loads(gated(history, "20260105-030405-000000", "--json").output)
    (used,) = document["baseline"].values()
    assert [name[6:8] for name in used] == ["01", "02", "03", "04"]
    assert any("not earlier than this run" in why for why in document["left_out"])


def test_nothing_to_compare_with(tmp_path: Path) -> None:
    write(tmp_path, 1)
    ended = gated(tmp_path)
    assert ended.exit_code == 3
    assert "Nothing could be compared" in ended.output
    assert re.match(r"Against earlier runs: \d+ can't tell\n", ended.output)
    assert "can't tell: no earlier run has this case: synthetic-virtio (" in ended.output
    assert "not measured in the baseline" not in ended.output


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"lab": "rack"}, "another lab: lab rack"),
        ({"lab_kind": "nested"}, "another lab: kind nested"),
        ({"hosts": ()}, "another lab: hosts none"),
        ({"began": "yesterday"}, "its start time is unreadable"),
    ],
)
def test_another_lab_is_left_out_with_a_reason(
    history: Path, fields: dict[str, Any], why: str
) -> None:
    write(history, 11, 5.0, name="20260111-999999-000000", **fields)
    document = json.loads(gated(history, "20260111-030405-000000", "--json").output)
    assert [told for told in document["left_out"] if why in told]
    assert "20260111-999999-000000" not in str(document["baseline"])


def test_a_damaged_run_is_left_out_with_a_reason(history: Path) -> None:
    bad = history / "20260110-030405-000000"
    (attempt,) = bad.glob("cases/*/3/attempt.json")
    attempt.write_text(attempt.read_text()[:200])
    newer = history / "20260109-030405-000000" / "run.json"
    newer.write_text(newer.read_text().replace('"schema_number": 1', '"schema_number": 99'))
    document = json.loads(gated(history, "--json").output)
    told = "\n".join(document["left_out"])
    assert "cut short or damaged" in told
    assert "schema 99" in told
    (used,) = document["baseline"].values()
    assert len(used) == 8


def test_an_older_schema_and_an_unfinished_run_are_noted(history: Path) -> None:
    older = history / "20260109-030405-000000" / "run.json"
    older.write_text(older.read_text().replace('"schema_number": 1', '"schema_number": 0'))
    (history / "20260108-030405-000000/cases/synthetic-virtio/.partial-9").mkdir()
    ended = gated(history)
    assert "20260109-030405-000000 has schema 0" in ended.output
    assert "20260108-030405-000000 was cut off: synthetic-virtio/9" in ended.output
    assert ended.exit_code == 0


def test_a_new_version_is_noted_and_compared(history: Path) -> None:
    host = synthetic.run().hosts[0]
    newer = host.model_copy(update={"versions": {"qemu": "11.0.0", "libvirt": "11.3.0"}})
    write(history, 20, hosts=(newer, newer.model_copy(update={"host": "beta"})))
    ended = gated(history)
    assert "alpha, qemu: 11.0.0, in the baseline 10.0.2" in ended.output
    assert ended.exit_code == 0


def test_hostile_text_does_not_reach_the_terminal(history: Path) -> None:
    write(history, 11, name="20260111-999999-000000", lab=synthetic.HOSTILE)
    ended = gated(history, "20260111-030405-000000")
    assert "another lab" in ended.output
    assert "\x1b" not in ended.output


def test_a_baseline_that_is_none_is_an_error(history: Path, tmp_path: Path) -> None:
    words = ["gate", "--baseline", str(tmp_path / "nowhere"), "--results", str(history)]
    ended = CliRunner().invoke(cli, words)
    assert ended.exception is not None
    assert "find run" in str(ended.exception)


# --- cases and values -----------------------------------------------------------------------------


def test_a_case_is_the_same_by_what_is_done() -> None:
    one = synthetic.case()
    told = {"id": "other", "source_file": "x.toml", "row": 3, "expect": Expect(total_ms=1.0)}
    assert case_key(one) == case_key(one.model_copy(update=told))
    assert case_key(one) != case_key(one.model_copy(update={"policy": Policy(hops=2)}))
    asked = one.model_copy(update={"expect": Expect(dirty_rate_within=0.5)})
    assert case_key(one) != case_key(asked)


def test_another_case_is_not_compared(history: Path) -> None:
    write(history, 20, of=synthetic.case(policy=Policy(hops=2)))
    ended = gated(history)
    assert ended.exit_code == 3
    assert "none of this run's cases" in ended.output


def test_a_copy_of_a_run_counts_once(
    history: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    copies = tmp_path_factory.mktemp("copies")
    shutil.copytree(history / "20260109-030405-000000", copies / "20260109-030405-000000")
    document = json.loads(gated(history, "--json", "--baseline", str(copies)).output)
    (used,) = document["baseline"].values()
    assert len(set(used)) == len(used) == 10
    assert any("a copy of a run in the baseline" in why for why in document["left_out"])


def column(name: str) -> FigureColumn:
    (found,) = [column for column in FIGURES if column.name == name]
    return found


def test_values_of_an_attempt() -> None:
    out = column("outage seen, egress")

    def attempt(**fields: Any) -> Attempt:
        return synthetic.attempt(synthetic.case(), **fields)

    assert figure_interval(out, attempt()) == (150.0, 150.0)
    assert figure_interval(out, attempt(gaps=())) == (0.0, 2.1)
    assert figure_interval(out, attempt(gaps=None)) is None
    assert figure_interval(out, attempt(floor=None)) is None
    assert figure_interval(out, attempt(outcome="failed")) is None
    endless = synthetic.gap("egress", 0, 900).model_copy(update={"open_ended": True})
    assert figure_interval(out, attempt(gaps=(endless,))) == (900.0, float("inf"))
    assert figure_interval(column("downtime reported"), attempt(reported=ReportedFigures())) is None
    assert figure_interval(column("guest stall"), attempt(stalls=None)) is None


def test_failures_fail_and_are_in_no_other_figure(history: Path) -> None:
    wrong = (Verdict(check="outcome", result="fail"),)
    writer = RunWriter.create(
        history,
        synthetic.run(name="20260120-030405-000000", began="2026-01-20T03:04:05+00:00"),
    )
    for number in range(1, 9):
        lost: dict[str, Any] = {"outcome": "lost", "verdicts": wrong} if number > 3 else {}
        writer.write_attempt(synthetic.attempt(synthetic.case(), number, **lost))
    ended = gated(history)
    assert ended.exit_code == 1, ended.output
    (line,) = [line for line in grid_rows(ended.output) if FAILED in line and "WORSE" in line]
    assert "+62%" in line
    assert "5 of 8 attempts did not end as expected" in ended.output


# --- no green by accident -------------------------------------------------------------------------


def same(value: Interval, *, runs: int = 10, each: int = 5) -> tuple[tuple[Interval, ...], ...]:
    return ((value,) * each,) * runs


def test_what_may_be_longer_than_ever_is_not_called_unchanged() -> None:
    """Five gaps of 2.5 s that had not ended, where it was 4.9 s before."""
    sample = FigureSample("case", "outage", same((4900, 4900)), ((2500.0, float("inf")),) * 5)
    found = comparison(sample, Rules())
    assert found.result == "can't tell"
    assert "known only between bounds" in found.why
    assert exit_code([found]) == 3


def test_a_floor_that_hides_what_was_seen_before_is_not_called_unchanged() -> None:
    found = comparison(
        FigureSample("case", "outage", same((50, 50)), ((0.0, 500.0),) * 5, error=500), Rules()
    )
    assert found.result == "can't tell"
    alike = FigureSample("case", "outage", same((0, 9)), ((0.0, 12.0),) * 5, error=12)
    assert comparison(alike, Rules()).result == "no change found"


def test_a_baseline_that_never_ended_is_none() -> None:
    endless = FigureSample("case", "outage", same((2500, float("inf"))), spans([2600] * 5))
    assert "only a lower bound" in comparison(endless, Rules()).why


def test_larger_for_certain_and_nobody_knows_by_how_much() -> None:
    sample = FigureSample("case", "outage", same((2450, 2450)), ((2500.0, float("inf")),) * 5)
    found = comparison(sample, Rules())
    assert (found.result, found.why) == (
        "can't tell",
        "certainly larger, but by how much is not known",
    )


def test_two_failures_of_three_are_not_called_unchanged_where_no_number_would_be_called() -> None:
    """0 of 30 before, in a family of 12."""
    failed = FigureSample("case", FAILED, (spans([0] * 3),) * 10, spans([1, 1, 0]), rate=True)
    found, *_ = compare([failed, *(times(seed) for seed in range(11))], Rules())
    assert found.result == "can't tell"
    assert found.why == "Too few attempts: 67% of 3 failed, and only 80% or more would be noticed"
    none = replace(failed, new=spans([0, 0, 0]))
    assert compare([none, *(times(seed) for seed in range(11))], Rules())[0].result == (
        "no change found"
    )


def test_the_rate_that_would_be_called_is_fishers() -> None:
    for k in (1, 3, 7):
        told = stats.fisher_exact([[k, 10 - k], [4, 46]], alternative="greater").pvalue
        assert fisher_p(4, 50, k, 10) == pytest.approx(told)
    assert detectable_rate(0, 30, 3, 1e-9) > 1


@pytest.mark.parametrize("seed", range(1, 13))
@pytest.mark.parametrize("shift", [0.6, 1.0, 1.3, 1.5, 2.0])
def test_words_agree_with_the_interval(seed: int, shift: float) -> None:
    """Not: +33.5 [+3.7..+63.3], and no change found."""
    for found in compare([times(seed, shift), *(times(seed + n) for n in (50, 60, 70))], MODEST):
        assert found.low is not None
        assert found.high is not None
        if found.result == "no change found":
            assert found.low <= 0 <= found.high
        if found.result == "worse":
            assert found.low >= 0
        if found.result == "better":
            assert found.high <= 0


def test_what_must_not_be_compared_is_in_no_family() -> None:
    doubtful = replace(times(2, 9.0), doubt="the machine was busy")
    told, other = compare([doubtful, times(1, 2.0)], MODEST)
    assert (told.result, told.why) == ("can't tell", "the machine was busy")
    assert other.adjusted == comparison(times(1, 2.0)).adjusted


@pytest.mark.parametrize("alpha", [0.0, -0.1, 0.6, float("nan"), float("inf")])
def test_a_level_that_is_none_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha"):
        Rules(alpha=alpha)


@pytest.mark.parametrize("option", ["--alpha", "--relative", "--least-ms"])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_an_option_that_would_let_all_pass_is_refused(
    history: Path, option: str, value: str
) -> None:
    write(history, 20, 10.0)
    ended = gated(history, option, value)
    assert ended.exit_code == 2, ended.output


def test_all_of_one_figure_is_told_and_it_can_be_allowed() -> None:
    worse, blind = times(1, 2.0), times(1, 5.0, runs=2)
    told = compare([times(1), blind], MODEST)
    assert exit_code(told) == 3
    assert exit_code(told, Allowance(cant_tell=("tim?",))) == 0
    assert exit_code(told, Allowance(cant_tell=("other", "case/other"))) == 3
    assert exit_code(told[1:], Allowance(cant_tell=("*",))) == 3, "nothing was compared"
    assert exit_code(compare([worse, blind], MODEST), Allowance(cant_tell=("*",))) == 1


# --- cases of which nothing is known --------------------------------------------------------------


def of_two_cases(root: Path, days: range, second: int = 5, **fields: Any) -> RunWriter:
    """Runs of cases ``synthetic-virtio`` and ``synthetic-vdpa``, the last with ``second`` tries."""
    for day in days:
        last = day == days[-1]
        writer = write(root, day, **(fields if last else {}))
        for number in range(1, (second if last else 5) + 1):
            writer.write_attempt(synthetic.attempt(synthetic.case("vdpa"), number))
    return writer


def mishaps(number: int) -> tuple[AttemptError, ...]:
    problem = Problem(tried="boot the guest", host="alpha", said="no answer")
    return tuple(
        AttemptError(case_id="synthetic-vdpa", number=n, problem=problem, exit_code=4)
        for n in range(1, number + 1)
    )


def result_of(root: Path, case: str, *argv: str) -> dict[str, Any]:
    document = json.loads(gated(root, "--json", *argv).output)
    (found,) = [
        one for one in document["compared"] if (one["case"], one["figure"]) == (case, ATTEMPTS)
    ]
    return dict(found)


def test_a_case_of_which_no_try_left_an_attempt_is_told_and_is_no_pass(tmp_path: Path) -> None:
    of_two_cases(tmp_path, range(1, 8), second=0, mishaps=mishaps(5))
    ended = gated(tmp_path, "--allow-cant-tell", "*")
    assert ended.exit_code == 3, ended.output
    assert len([line for line in grid_rows(ended.output) if "NO ATTEMPT" in line]) == 1
    title, why, *_ = ended.output.splitlines()
    assert title.startswith("Against earlier runs: 1 NO ATTEMPT, ")
    assert why.startswith(
        "NO ATTEMPT: 5 of 5 tries produced no attempt: boot the guest on alpha: no"
    )
    assert gated(tmp_path, "--allow-cant-tell", "*", "--allow-missing", "*vdpa").exit_code == 0
    assert gated(tmp_path, "--allow-cant-tell", "*", "--allow-missing", "*virtio").exit_code == 3


def test_a_case_of_which_one_try_of_five_left_an_attempt_is_told_and_is_no_pass(
    tmp_path: Path,
) -> None:
    of_two_cases(tmp_path, range(1, 8), second=1, mishaps=mishaps(4))
    ended = gated(tmp_path)
    assert ended.exit_code == 3, ended.output
    found = result_of(tmp_path, "synthetic-vdpa")
    assert found["result"] == "can't tell"
    assert found["why"].startswith("1 of 5 tries produced a valid attempt: boot the guest")


def test_a_case_that_is_not_tried_any_more_is_told(tmp_path: Path) -> None:
    of_two_cases(tmp_path, range(1, 8), second=0, skips=())
    assert result_of(tmp_path, "synthetic-vdpa")["why"] == "it is not in this run"
    unreached = UnreachedTries(
        case_id="synthetic-vdpa", tries=3, expected_s=9, reason="for lack of time"
    )
    of_two_cases(tmp_path, range(9, 10), second=0, skips=(), not_reached=(unreached,))
    found = result_of(tmp_path, "synthetic-vdpa")
    assert (found["result"], found["why"]) == ("no attempt", "not run: for lack of time")


def test_runs_of_other_cases_miss_none(history: Path) -> None:
    write(history, 12, of=synthetic.case("hostdev", policy=Policy(hops=2)))
    document = json.loads(gated(history, "20260111-030405-000000", "--json").output)
    assert "no attempt" not in {one["result"] for one in document["compared"]}


def test_void_attempts_are_in_no_figure_and_too_many_of_them_are_no_pass(history: Path) -> None:
    writer = RunWriter.create(
        history, synthetic.run(name="20260120-030405-000000", began="2026-01-20T03:04:05+00:00")
    )
    for number in range(1, 9):
        void = ("a question of ours ended it",) if number > 2 else ()
        writer.write_attempt(synthetic.attempt(synthetic.case(), number, void=void, verdicts=()))
    ended = gated(history)
    assert "6 of 8 attempts are void" in ended.output
    assert result_of(history, "synthetic-virtio")["why"].startswith("2 of 8 tries produced")
    (line,) = [line for line in grid_rows(ended.output) if FAILED in line]
    assert "2 of 8 : 80" in line


def test_an_attempt_that_can_not_be_read_is_no_pass(history: Path) -> None:
    writer = write(history, 20)
    path = writer.folder / "cases" / "synthetic-virtio" / "3" / "attempt.json"
    path.write_text(path.read_text()[:100])
    ended = gated(history)
    assert ended.exit_code == 5, ended.output
    assert "UNREADABLE: synthetic-virtio/3: read" in ended.output
    assert ended.output.count("7 : 80") >= 5


# --- one row a case -------------------------------------------------------------------------------


def test_cases_that_differ_by_what_is_expected_have_a_row_each(tmp_path: Path) -> None:
    """Not: a and b, failed 100% / 100%."""
    strict = Expect(total_ms=1.0)
    for day in range(1, 8):
        writer = write(tmp_path, day)
        case = synthetic.case(name="strict", expect=strict)
        for number in range(1, 9):
            verdicts = (Verdict(check="total", result="fail"),)
            writer.write_attempt(synthetic.attempt(case, number, verdicts=verdicts))
    document = json.loads(gated(tmp_path, "--json").output)
    rates = {
        one["case"]: (one["median_earlier"], one["median_new"])
        for one in document["compared"]
        if one["figure"] == FAILED
    }
    assert rates == {"synthetic-virtio": ([0, 0], [0, 0]), "strict-virtio": ([1, 1], [1, 1])}
    assert set(document["baseline"]) == set(rates)


def test_a_case_that_got_another_name_has_its_baseline(history: Path) -> None:
    write(history, 20, of=synthetic.case(name="renamed"))
    document = json.loads(gated(history, "--json").output)
    assert len(document["baseline"]["renamed-virtio"]) == 10
    assert "no attempt" not in {one["result"] for one in document["compared"]}


def test_a_case_that_no_earlier_run_has_says_so(history: Path) -> None:
    writer = write(history, 20)
    for number in range(1, 6):
        writer.write_attempt(synthetic.attempt(synthetic.case("vdpa"), number))
    ended = gated(history)
    assert ended.exit_code == 3
    lines = [line for line in grid_rows(ended.output) if line.startswith("synthetic-vdpa  ")]
    assert lines
    assert all(line.endswith("can't tell") for line in lines)
    assert "no earlier run has this case: synthetic-vdpa (downtime reported, " in ended.output


def test_blindness_can_be_allowed_and_what_shows_can_not() -> None:
    """Of a noisy figure it can't be told; 2 of 3 that failed are another matter."""
    levels = (100, 400, 60, 250, 30)
    earlier = tuple(spans(np.linspace(0.9, 1.1, 5) * level) for level in levels)
    (noisy,) = compare([FigureSample("case", "time", earlier, earlier[0])], Rules())
    others = compare([times(seed) for seed in range(11)], Rules())
    allowed = Allowance(blind=True)
    assert (noisy.result, noisy.blind) == ("can't tell", True)
    assert exit_code((noisy, *others)) == 3
    assert exit_code((noisy, *others), allowed) == 0
    failed = FigureSample("case", FAILED, (spans([0] * 3),) * 10, spans([1, 1, 0]), rate=True)
    shows = compare([failed, *(times(seed) for seed in range(11))], Rules())
    assert not shows[0].blind
    endless = FigureSample("case", "outage", same((4900, 4900)), ((2500.0, float("inf")),) * 5)
    (unknown,) = compare([endless], Rules())
    assert not unknown.blind
    for told in (shows, (unknown, *others)):
        assert exit_code(told, allowed) == 3


def test_a_run_on_a_busy_machine_can_not_be_told(history: Path) -> None:
    for day, busy in ((20, ()), (21, ()), (22, ()), (23, ("others: 1.4 CPUs",))):
        write(history, day, machine=MachineState(busy=busy))
    ended = gated(history, "--last", "3", "--allow-blind")
    assert ended.exit_code == 3, ended.output
    rows = [line for line in grid_rows(ended.output) if line.startswith("synthetic-virtio  ")]
    assert rows
    for line in rows:
        assert line.endswith("can't tell")
    said = "can't tell: the machine was busy in 8 of 8 and in 0 of 24: synthetic-virtio ("
    assert ended.output.count(said) == 1
