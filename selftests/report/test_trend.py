"""Many runs as one store: what it answers, what it names as missing, what it keeps and redoes."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from migrate.errors import ConfigurationError
from migrate.model import SCHEMA, AttemptError, Problem, Run
from migrate.report.trend import (
    Point,
    Trend,
    TrendQuery,
    as_json,
    format_median,
    format_quartiles,
    plain,
    trend,
)
from migrate.report.trend_page import render
from migrate.results import database as stores
from migrate.results.database import CACHE, open_store
from migrate.results.index import TYPES, case_digest, index_rows, write_index
from migrate.results.layout import INDEX
from migrate.results.tables import read_table
from migrate.results.writer import RunWriter
from migrate.statistics.censored import quantile
from selftests.command_line import Run as Command
from selftests.doubles import synthetic

OLD = 1_000_000_000
"""Seconds since the epoch: long ago."""


def a_run(root: Path, day: int, *lengths: float, qemu: str = "10.0.2", **fields: Any) -> Path:
    """A run that is done, with an attempt of egress outage for each of ``lengths``, in ms."""
    (first, second) = (
        host.model_copy(update={"versions": {"qemu": qemu, "libvirt": "11.3.0"}})
        for host in synthetic.run().hosts
    )
    case = fields.pop("case", synthetic.case())
    made = [synthetic.attempt(case, n, length_ms=ms) for n, ms in enumerate(lengths, 1)]
    writer = RunWriter.create(root, head(day, hosts=(first, second), **fields))
    for attempt in made:
        writer.write_attempt(attempt)
    writer.write("junit.xml", "<testsuites/>")
    return writer.folder


def head(day: int, **fields: Any) -> Run:
    return synthetic.run(
        f"202601{day:02d}-030405-000000", began=f"2026-01-{day:02d}T03:04:05+00:00", **fields
    )


def asked(root: Path, **question: Any) -> Trend:
    return trend(open_store(root), TrendQuery(**question))


def points(root: Path, **question: Any) -> tuple[Point, ...]:
    (series,) = asked(root, **question).series
    return series.points


# --- figures ------------------------------------------------------------------------------------


def test_median_and_quartiles_run_by_run(tmp_path: Path) -> None:
    a_run(tmp_path, 1, 100, 200, 300, 400, 500)
    a_run(tmp_path, 2, 50)
    first, second = points(tmp_path)
    assert (first.n, first.measured, first.unmeasured, first.failed) == (5, 5, 0, 0)
    assert (first.least, first.low, first.median, first.high, first.most) == (
        *(100, 200, 300, 400, 500),
    )
    assert (second.n, second.median) == (1, 50)
    assert [point.when for point in (first, second)] == [
        "20260101-030405-000000",
        "20260102-030405-000000",
    ]


@pytest.mark.parametrize(
    ("figure", "median"),
    [("downtime", 61.0), ("egress", 150.0), ("ingress", 810.0), ("total", 2060.0), ("stall", 62.0)],
)
def test_each_figure(tmp_path: Path, figure: Any, median: float) -> None:
    a_run(tmp_path, 1, 150.0)
    (point,) = points(tmp_path, figure=figure)
    assert point.median == pytest.approx(median)


def test_by_day_runs_of_a_day_are_one_point(tmp_path: Path) -> None:
    a_run(tmp_path, 1, 100)
    a_run(tmp_path, 1, 300)
    a_run(tmp_path, 2, 400)
    found = points(tmp_path, by="day")
    assert [(point.when, point.n, point.median) for point in found] == [
        ("2026-01-01", 2, 200),
        ("2026-01-02", 1, 400),
    ]


def test_a_run_began_in_another_zone(tmp_path: Path) -> None:
    folder = a_run(tmp_path, 1, 100)
    run = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(run | {"began": "2026-01-01T00:30:00+02:00"}))
    (point,) = points(tmp_path, by="day")
    assert (point.when, point.began) == ("2025-12-31", "2025-12-31T22:30:00Z")


def test_what_was_not_measured_is_counted_and_is_no_zero(tmp_path: Path) -> None:
    folder = a_run(tmp_path, 1, 100)
    writer = RunWriter(folder, head(1))
    unknown = synthetic.attempt(synthetic.case(), 2, gaps=None, verdicts=())
    writer.write_attempt(unknown)
    (point,) = points(tmp_path)
    assert (point.n, point.measured, point.unmeasured, point.failed) == (2, 1, 1, 1)
    assert (point.median, point.median_most, point.most) == (100, 100, 100)
    a_run(tmp_path, 2)
    writer = RunWriter(tmp_path / "20260102-030405-000000", head(2))
    writer.write_attempt(unknown)
    found = asked(tmp_path)
    assert found.series[0].points[1].median is None
    assert "not measured" in plain(found)
    assert (
        as_json(found)["series"][0]["points"][1] | {"median": None, "unmeasured": 1}
        == (as_json(found)["series"][0]["points"][1])
    )


def test_an_outage_in_the_floor_says_so(tmp_path: Path) -> None:
    folder = a_run(tmp_path, 1)
    RunWriter(folder, head(1)).write_attempt(synthetic.attempt(synthetic.case(), gaps=()))
    assert "below floor" in plain(asked(tmp_path))
    (point,) = points(tmp_path)
    assert (point.measured, point.median) == (1, 0)


def test_a_gap_that_did_not_end_makes_a_lower_bound(tmp_path: Path) -> None:
    folder = a_run(tmp_path, 1)
    gap = synthetic.gap("egress", -5, 700).model_copy(update={"open_ended": True})
    RunWriter(folder, head(1)).write_attempt(synthetic.attempt(synthetic.case(), gaps=(gap,)))
    assert points(tmp_path)[0].at_least == 1
    assert "≥ 700" in plain(asked(tmp_path))


def outages(root: Path, *lengths: float, endless: tuple[float, ...] = (), **fields: Any) -> None:
    """A run whose attempts have one egress gap each, none for 0, under a floor of 2.1 ms."""
    folder = a_run(root, 1)
    for number, length in enumerate((*lengths, *endless), 1):
        gap = synthetic.gap("egress", -5, length)
        gap = gap.model_copy(update={"open_ended": number > len(lengths)})
        gaps = (gap,) if length else ()
        attempt = synthetic.attempt(synthetic.case(), number, gaps=gaps, **fields)
        RunWriter(folder, head(1)).write_attempt(attempt)


def shown(root: Path, **question: Any) -> tuple[str, str]:
    (point,) = points(root, **question)
    return format_median(point), format_quartiles(point)


def test_in_the_floor_is_no_zero_of_a_median(tmp_path: Path) -> None:
    outages(tmp_path, 0, 0, 100, 120)
    assert shown(tmp_path) == ("50.0 to 51.0", "[floor..105]")
    (point,) = points(tmp_path)
    assert (point.median, point.median_most, point.least, point.most) == (50, 51.05, 0, 120)


def test_no_median_below_the_floor_is_shown(tmp_path: Path) -> None:
    outages(tmp_path, 0, 0, 2, 16.1)
    assert shown(tmp_path) == ("≤ 2.1", "[floor..5.5 to 5.6]")


def test_one_lower_bound_makes_none_of_the_median(tmp_path: Path) -> None:
    outages(tmp_path, 100, 120, endless=(2500,))
    assert shown(tmp_path) == ("120", "[110..≥ 1310]")
    (point,) = points(tmp_path)
    assert (point.at_least, point.most) == (1, None)


def test_the_stores_quantiles_are_those_of_censored_values(tmp_path: Path) -> None:
    lengths = (0, 7, 0, 30, 5, 0, 90)
    outages(tmp_path, *lengths, endless=(11, 400))
    values = [(0.0, 2.1) if not length else (length, length) for length in lengths]
    values += [(11, math.inf), (400, math.inf)]
    (point,) = points(tmp_path)
    assert point.quartile_bounds is not None
    for told, share in zip(
        (point.quartile_bounds[0], point.median_bounds, point.quartile_bounds[1]),
        (0.25, 0.5, 0.75),
        strict=True,
    ):
        assert told == pytest.approx(quantile(values, share))


def test_what_ended_otherwise_or_is_void_is_counted_and_in_no_median(tmp_path: Path) -> None:
    folder = a_run(tmp_path, 1, 100, 200)
    stray: tuple[dict[str, Any], ...] = ({"outcome": "failed"}, {"void": ("no fault was done",)})
    for number, fields in enumerate(stray, 3):
        attempt = synthetic.attempt(synthetic.case(), number, length_ms=9000, **fields)
        RunWriter(folder, head(1)).write_attempt(attempt)
    (point,) = points(tmp_path)
    assert (point.n, point.measured, point.otherwise, point.unmeasured) == (4, 2, 2, 0)
    assert point.median == 150


def test_a_time_that_is_before_all_others(tmp_path: Path, migrate_lab: Command) -> None:
    a_run(tmp_path, 1, 100)
    for since, status in (("0001-01-01T00:00:00+23:59", 2), ("0001-01-02", 0)):
        ended = migrate_lab("trend", "--results", tmp_path, "--since", since)
        assert ended.status == status
        assert "Traceback" not in ended.err


def test_a_try_that_left_no_attempt_is_counted_in_its_cases_mode(tmp_path: Path) -> None:
    mishap = AttemptError(
        case_id="synthetic-virtio", number=2, problem=Problem(tried="boot"), exit_code=4
    )
    a_run(tmp_path, 1, 100, mishaps=(mishap,))
    (point,) = points(tmp_path)
    assert (point.n, point.no_attempt) == (1, 1)


def test_a_trend_has_what_the_query_selects(tmp_path: Path) -> None:
    a_run(tmp_path, 1, 100)
    a_run(tmp_path, 2, 200, case=synthetic.case("vdpa"), lab="rack")
    every = asked(tmp_path)
    assert [(one.lab, one.mode) for one in every.series] == [("local", "virtio"), ("rack", "vdpa")]
    for question in (
        {"case": "*-vd??"},
        {"mode": "vdpa"},
        {"lab": "rack"},
        {"since": "2026-01-02"},
    ):
        (series,) = asked(tmp_path, **question).series
        assert (series.mode, series.points[0].median) == ("vdpa", 200), question
    assert asked(tmp_path, case="x' OR '1'='1").series == ()
    assert "0 attempts of 0 runs" in plain(asked(tmp_path / "20260101-030405-000000"))


# --- changes ------------------------------------------------------------------------------------


def test_another_version_of_a_host_is_marked_where_it_came(tmp_path: Path) -> None:
    for day, qemu in enumerate(("10.0.2", "10.0.2", "11.1.3", "11.1.3"), 1):
        a_run(tmp_path, day, 100, qemu=qemu)
    found = points(tmp_path)
    assert [len(point.changes) for point in found] == [0, 0, 2, 0]
    assert found[2].changes[0] == "host alpha: qemu 10.0.2 → 11.1.3"
    assert points(tmp_path, since="2026-01-03")[0].changes == found[2].changes
    assert [bool(point.changes) for point in points(tmp_path, by="day")] == [
        False,
        False,
        True,
        False,
    ]


def test_a_version_that_was_not_recorded_is_no_change(tmp_path: Path) -> None:
    for day, qemu in enumerate(("10.0.2", "", "10.0.2", "", "11.1.3"), 1):
        a_run(tmp_path, day, 100, qemu=qemu)
    assert [len(point.changes) for point in points(tmp_path)] == [0, 0, 0, 0, 2]


def test_another_case_under_the_same_name_is_marked(tmp_path: Path) -> None:
    a_run(tmp_path, 1, 100)
    a_run(tmp_path, 2, 100, case=synthetic.case(needs=("kvm",)))
    assert [point.changes for point in points(tmp_path)] == [(), ("the case's definition",)]
    assert case_digest(synthetic.case()) == case_digest(synthetic.case())


# --- the store ----------------------------------------------------------------------------------


def test_a_run_without_an_index_gets_one_and_a_run_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = a_run(tmp_path, 1, 100)
    assert points(tmp_path)[0].median == 100
    assert read_table(folder / INDEX).column_names == list(TYPES)
    before = (tmp_path / CACHE).read_bytes()
    monkeypatch.setattr(stores, "read_table", pytest.fail)
    monkeypatch.setattr(stores, "index_rows", pytest.fail)
    assert points(tmp_path)[0].median == 100
    assert (tmp_path / CACHE).read_bytes() == before


def test_only_what_is_new_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_run(tmp_path, 1, 100)
    assert len(points(tmp_path)) == 1
    new = a_run(tmp_path, 2, 200)
    monkeypatch.setattr(
        stores, "index_rows", lambda folder: index_rows(folder) if folder == new else 1 / 0
    )
    assert [point.median for point in points(tmp_path)] == [100, 200]


def test_a_run_that_is_gone_is_gone_from_the_store(tmp_path: Path) -> None:
    a_run(tmp_path, 1, 100)
    gone = a_run(tmp_path, 2, 200)
    assert len(points(tmp_path)) == 2
    gone.rename(tmp_path.parent / f"{tmp_path.name}-elsewhere")
    assert len(points(tmp_path)) == 1
    assert len(points(tmp_path)) == 1


def test_a_run_that_got_another_name_is_known_by_it(tmp_path: Path) -> None:
    folder = a_run(tmp_path, 1, 100)
    assert len(points(tmp_path)) == 1
    folder.rename(tmp_path / "kept [1]*? 'it'")
    assert [point.when for point in points(tmp_path)] == ["kept [1]*? 'it'"]
    assert [point.when for point in points(tmp_path)] == ["kept [1]*? 'it'"]


def test_a_folder_whose_name_is_a_pattern(tmp_path: Path) -> None:
    root = tmp_path / "it's [a]*?"
    a_run(root, 1, 100)
    assert len(points(root)) == 1
    a_run(root, 2, 100)
    assert len(points(root)) == 2
    assert len(points(root)) == 2


def test_a_further_attempt_makes_the_index_anew(tmp_path: Path) -> None:
    folder = a_run(tmp_path, 1, 100)
    assert points(tmp_path)[0].n == 1
    RunWriter(folder, head(1)).write_attempt(synthetic.attempt(synthetic.case(), 2))
    assert not (folder / INDEX).exists()
    assert points(tmp_path)[0].n == 2


def test_a_run_that_is_written_is_read_and_not_kept(tmp_path: Path) -> None:
    writer = synthetic.write_run(tmp_path, [synthetic.attempt(synthetic.case())])
    assert points(tmp_path)[0].n == 1
    assert not (writer.folder / INDEX).exists()
    writer.write_attempt(synthetic.attempt(synthetic.case(), 2))
    writer.write("junit.xml", "")
    assert points(tmp_path)[0].n == 2
    assert not (writer.folder / INDEX).exists()  # its writer is still there
    del writer
    assert points(tmp_path)[0].n == 2
    assert list(tmp_path.glob(f"*/{INDEX}"))


def test_a_run_that_was_killed_gets_its_index_when_it_is_quiet(tmp_path: Path) -> None:
    folder = a_run(tmp_path, 1, 100)
    (folder / "junit.xml").unlink()
    assert points(tmp_path)[0].n == 1
    assert not (folder / INDEX).exists()
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (OLD, OLD))
    assert points(tmp_path)[0].n == 1
    assert (folder / INDEX).exists()


# --- damage -------------------------------------------------------------------------------------


def test_a_newer_schema_is_named_and_left_out(tmp_path: Path) -> None:
    folder = a_run(tmp_path, 1, 100)
    a_run(tmp_path, 2, 200)
    run = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(run | {"schema_number": SCHEMA + 1}))
    found = asked(tmp_path)
    assert [point.median for point in found.series[0].points] == [200]
    assert any(folder.name in line and f"schema {SCHEMA + 1}" in line for line in found.problems)


@pytest.mark.parametrize("text", ["", "{", '{"schema_number": 1}', '{"began": "yesterday"}'])
def test_a_damaged_head_is_named_each_time(tmp_path: Path, text: str) -> None:
    folder = a_run(tmp_path, 1, 100)
    if "yesterday" in text:
        text = json.dumps(json.loads((folder / "run.json").read_text()) | json.loads(text))
    (folder / "run.json").write_text(text)
    for _ in range(2):
        (problem,) = asked(tmp_path).problems
        assert problem.startswith(f"{folder.name} is left out: ")


def test_a_damaged_attempt_is_named_each_time_and_the_others_count(tmp_path: Path) -> None:
    folder = a_run(tmp_path, 1, 100, 200)
    (folder / "cases/synthetic-virtio/2/attempt.json").write_text('{"schema_num')
    for _ in range(2):
        found = asked(tmp_path)
        assert found.series[0].points[0].n == 1
        (problem,) = found.problems
        assert "synthetic-virtio/2" in problem
        assert "damaged" in problem


def test_what_was_cut_off_is_named(tmp_path: Path) -> None:
    folder = a_run(tmp_path, 1, 100)
    (folder / "cases/synthetic-virtio/.partial-7").mkdir()
    (problem,) = asked(tmp_path).problems
    assert problem == f"{folder.name}: synthetic-virtio/7: cut off, not finished"


@pytest.mark.parametrize("what", ["index", "cache"])
def test_a_damaged_index_is_named_and_made_anew(tmp_path: Path, what: str) -> None:
    folder = a_run(tmp_path, 1, 100)
    assert points(tmp_path)[0].n == 1
    (folder / INDEX if what == "index" else tmp_path / CACHE).write_bytes(b"PAR1 and no more")
    found = asked(tmp_path)
    assert found.series[0].points[0].n == 1
    (problem,) = found.problems
    assert "made anew" in problem
    assert asked(tmp_path).problems == ()


def test_a_store_that_can_not_be_written_to_answers_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = a_run(tmp_path, 1, 100)
    write_index(folder)
    (tmp_path / CACHE).mkdir()  # nothing can be put in its place, not even by root
    found = asked(tmp_path)
    assert found.series[0].points[0].n == 1
    assert any("could not be written" in line for line in found.problems)
    assert not list(tmp_path.glob("*.part"))


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such folder"):
        open_store(tmp_path / "nowhere")


# --- what people see ----------------------------------------------------------------------------


def test_hostile_words_stay_words(tmp_path: Path, migrate_lab: Command) -> None:
    a_run(tmp_path, 1, 100)
    a_run(tmp_path, 2, 100, qemu=synthetic.HOSTILE, lab=synthetic.HOSTILE)
    a_run(tmp_path, 3, 100, qemu="11", lab=synthetic.HOSTILE)
    found = asked(tmp_path)
    page = render(found)
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "</script>" not in page
    assert "\x1b" not in page
    page_file = tmp_path / "trend.html"
    ended = migrate_lab("trend", "--results", tmp_path, "--html", page_file)
    assert (ended.status, ended.out) == (0, f"{page_file}\n")
    assert "\x1b" not in migrate_lab("trend", "--results", tmp_path).out


def test_a_page_loads_nothing_and_has_the_table(tmp_path: Path) -> None:
    a_run(tmp_path, 1, 100)
    a_run(tmp_path, 2, 200, qemu="11.1.3")
    page = render(asked(tmp_path))
    assert "host alpha: qemu 10.0.2 → 11.1.3" in page
    assert "default-src 'none'" in page
    assert "script" not in page
    assert 'src="http' not in page
    assert "No attempt in the store" in render(asked(tmp_path, case="nothing"))


def test_the_command(tmp_path: Path, migrate_lab: Command) -> None:
    folder = a_run(tmp_path, 1, 100, 300)
    (folder / "cases/synthetic-virtio/2/attempt.json").write_text("{")
    ended = migrate_lab("trend", "--results", tmp_path, "--figure", "egress", "--json")
    assert ended.status == 0, ended.err
    (series,) = json.loads(ended.out)["series"]
    assert (series["case_id"], series["points"][0]["median"]) == ("synthetic-virtio", 100)
    assert "left out: " in ended.err
    assert migrate_lab("trend", "--results", tmp_path, "--since", "soon").status == 2
    assert migrate_lab("trend", "--results", tmp_path / "nowhere").status == 2
