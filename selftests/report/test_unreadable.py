"""One attempt that can't be read takes nobody else's report away, and its run is not green."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from migrate.cli.main import cli
from migrate.cli.output import with_unreadable
from migrate.model import SCHEMA
from migrate.report.readers import write_readers
from migrate.report.table import run_table
from migrate.results.reader import read_run
from migrate.results.writer import RunWriter
from selftests.doubles import synthetic

NAME = "synthetic-virtio/2"


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def invalid(path: Path) -> None:
    """As a run of the scenario policies wrote it: a time below 0."""
    document = json.loads(path.read_text()) | {"start_ms": -0.58}
    path.write_text(json.dumps(document))


def newer(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_number": SCHEMA + 1}))


def nested(path: Path) -> None:
    path.write_text("[" * 100_000)


def missing(path: Path) -> None:
    path.unlink()


def folder(path: Path) -> None:
    """What can't be opened as a file, whoever asks, as one without permission can't."""
    path.unlink()
    path.mkdir()


@pytest.fixture(params=[cut_short, invalid, newer, nested, missing, folder])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Three attempts, the second of which can't be read."""
    attempts = [synthetic.attempt(synthetic.case(), number) for number in (1, 2, 3)]
    made = synthetic.write_run(tmp_path, attempts).folder
    request.param(made / "cases" / NAME / "attempt.json")
    return made


def command(run: Path, *words: str) -> Result:
    return CliRunner().invoke(cli, [*words, "--results", str(run.parent)])


def test_the_others_are_read(run: Path) -> None:
    record = read_run(run)
    assert [one.attempt.number for one in record.attempts] == [1, 3]
    (lost,) = record.unreadable
    assert lost.name == NAME
    assert "attempt.json" in lost.why


def test_the_table_names_it_and_its_case_did_not_pass(run: Path) -> None:
    shown = command(run, "show")
    assert shown.exit_code == 0, shown.output
    assert f"unreadable {NAME}: read" in shown.output
    read = read_run(run)
    table = run_table(read.run, [one.attempt for one in read.attempts], read.unreadable)
    assert table.rows[0][-1].line() == "FAIL 2/3 passed: 1 can't be read"
    assert "FAIL" in shown.output
    assert "153" not in shown.output
    (lost,) = json.loads(command(run, "show", "--json").output)["unreadable"]
    assert lost["attempt"] == NAME


def test_page_and_junit_are_made_and_are_not_green(run: Path) -> None:
    record = read_run(run)
    attempts = [one.attempt for one in record.attempts]
    page = write_readers(RunWriter(run, record.run), attempts).read_text()
    assert (
        '<span class="badge ">FAIL</span> 2 of 2 attempts passed, 1 that can&#39;t be read' in page
    )
    assert ">PASS</span> 2 of" not in page
    case_id, number = NAME.split("/")
    assert f'>unreadable</span></td><td>{case_id}</td><td class="numbers">{number}</td>' in page
    (error,) = ET.parse(run / "junit.xml").getroot().iter("error")
    assert "could not be read" in error.get("message", "")


def test_the_exit_code_of_its_run_says_so(run: Path) -> None:
    record = read_run(run)
    assert [with_unreadable(code, record) for code in (0, 1, 3, 6)] == [5, 5, 5, 6]


def test_the_others_are_judged_anew_and_it_is_named(run: Path) -> None:
    ended = command(run, "analyze")
    assert ended.exit_code == 5
    assert "synthetic-virtio, attempt 2: read " in ended.output
    assert ended.output.count("no recording.json.gz") == 2


def test_a_trend_has_the_others(run: Path) -> None:
    ended = command(run, "trend")
    assert ended.exit_code == 0, ended.output
    assert NAME in ended.output
    assert "2 attempts of 1 runs" in ended.output


def test_its_run_is_resumed_and_the_attempt_is_no_try(run: Path) -> None:
    writer, attempts = RunWriter.resume(run)
    assert [attempt.number for attempt in attempts] == [1, 3]
    assert writer.claim(synthetic.case(), 2) == 4


def test_what_is_left_of_it_is_not_pruned(run: Path) -> None:
    (run / "junit.xml").write_text("<testsuites/>")
    pruned = command(run, "prune", "--keep-days", "0", "--keep-runs", "0")
    assert pruned.exit_code == 0, pruned.output
    assert f"{NAME} can't be read: all of it stays" in pruned.output
    assert (run / "cases" / NAME / "events.jsonl").exists()
    assert not (run / "cases" / "synthetic-virtio" / "1" / "events.jsonl").exists()


@pytest.mark.parametrize("part", ["events.jsonl", "samples.parquet", "arrivals.parquet"])
def test_a_part_that_is_damaged_is_not_shown_and_all_else_is(tmp_path: Path, part: str) -> None:
    attempts = [synthetic.attempt(synthetic.case(), number) for number in (1, 2)]
    writer = synthetic.write_run(tmp_path, attempts)
    cut_short(writer.folder / "cases" / NAME / part)
    page = write_readers(writer, attempts).read_text()
    assert page.count("Not shown: ") == 1
    assert part in page
    assert "2 of 2 attempts passed" in page


def test_cases_that_can_not_be_listed_are_an_error_that_names_them(run: Path) -> None:
    shutil.rmtree(run / "cases")
    (run / "cases").write_text("no folder")
    ended = command(run, "show")
    assert ended.exception is not None
    assert str(run / "cases") in str(ended.exception)
