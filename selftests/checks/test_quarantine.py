"""Known failures: what they cover, that they end, and that nothing else hides behind them."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from migrate.checks import quarantine
from migrate.errors import ConfigurationError
from migrate.model import Attempt, Mode, QuarantineEntry, Run, Verdict
from migrate.report import table, table_text
from migrate.report.html import write_report
from migrate.report.junit import junit
from migrate.results.reader import read_run
from migrate.results.writer import RunWriter
from selftests.doubles import synthetic

ENTRY = """
[[quarantine]]
case = "*vhost-user*"
check = "network"
owner = "Ada"
bug = "https://example.org/7"
expires = 2026-01-02
reason = "the ring is lost"
"""
"""Its last day is that of the synthetic run."""


@pytest.fixture
def entry(tmp_path: Path) -> QuarantineEntry:
    (found,) = quarantine.load(written(tmp_path, ENTRY))
    return found


def written(folder: Path, text: str) -> Path:
    path = folder / "list.toml"
    path.write_text(text)
    return path


def run(*entries: QuarantineEntry, **fields: Any) -> Run:
    return synthetic.run(skips=(), quarantine=entries, **fields)


def attempt(mode: Mode = "vhost-user", number: int = 1, **results: str) -> Attempt:
    verdicts = [Verdict(check=c, result=r) for c, r in results.items()]
    return synthetic.attempt(synthetic.case(mode), number, verdicts=verdicts)


PASSED = attempt(outcome="pass", network="pass")
DEAD = attempt(outcome="pass", network="fail")
UNMEASURED = attempt(network="unmeasured")
WORSE = attempt(outcome="fail", network="fail")
OTHER = attempt("virtio", network="fail")
NOTHING = attempt()


# --- what is covered ---


@pytest.mark.parametrize(
    ("tried", "covered"),
    [(DEAD, True), (UNMEASURED, True), (WORSE, False), (OTHER, False), (NOTHING, False)],
    ids=["covered", "unmeasured", "another verdict beside it", "another case", "no verdict"],
)
def test_an_attempt_is_covered_if_every_verdict_against_it_is(
    entry: QuarantineEntry, tried: Attempt, covered: bool
) -> None:
    assert quarantine.excuses(run(entry), tried) == ((entry,) if covered else ())
    assert quarantine.fails(run(entry), [PASSED, tried]) is not covered
    assert quarantine.fails(run(), [PASSED, tried]), "without the list it fails"


def test_an_entry_without_a_check_covers_all_of_its_case(entry: QuarantineEntry) -> None:
    whole = entry.model_copy(update={"check": None})
    for tried in (DEAD, UNMEASURED, WORSE, NOTHING):
        assert quarantine.excuses(run(whole), tried) == (whole,)
    assert not quarantine.excuses(run(whole), OTHER)


def test_two_entries_cover_together_and_a_pass_needs_none(entry: QuarantineEntry) -> None:
    second = entry.model_copy(update={"check": "out*"})
    assert quarantine.excuses(run(entry, second), WORSE) == (entry, second)
    assert quarantine.excuses(run(entry, second), PASSED) == ()
    assert not quarantine.fails(run(entry), [PASSED])


def test_an_expired_entry_fails_the_run_whatever_ran(entry: QuarantineEntry) -> None:
    late = run(entry, began="2026-01-03T00:00:00+00:00")
    assert quarantine.expired(run(entry)) == ()
    assert quarantine.expired(late) == (entry,)
    assert quarantine.excuses(late, DEAD) == ()
    assert quarantine.fails(late, [PASSED])
    (line,) = quarantine.summary_lines(late, [PASSED])
    assert "expired on 2026-01-02" in line
    assert "Ada" in line
    assert "https://example.org/7" in line


@pytest.mark.parametrize(
    ("attempts", "fields", "said"),
    [
        ([DEAD, PASSED], {}, "it covers 1 of 2 attempts; https://example.org/7, Ada, until 2026"),
        ([PASSED, PASSED], {}, "can be removed: not seen in 2 attempts"),
        ([OTHER], {}, "no case of this run matches"),
        (
            [],
            {
                "not_reached": [
                    {"case_id": DEAD.case.id, "tries": 1, "expected_s": 9, "reason": "no time"}
                ]
            },
            "no case that it covers was tried",
        ),
    ],
    ids=["covers", "lifted", "unmatched", "not tried"],
)
def test_each_quarantine_entry_is_listed_with_what_it_covers(
    entry: QuarantineEntry, attempts: list[Attempt], fields: dict[str, Any], said: str
) -> None:
    (line,) = quarantine.summary_lines(run(entry, **fields), attempts)
    assert line.startswith("quarantine of *vhost-user*, network: ")
    assert said in line


# --- where it is shown ---


def test_the_table_says_quarantined_and_counts_no_pass(entry: QuarantineEntry) -> None:
    text = table_text.plain(table.run_table(run(entry), [PASSED, DEAD]), width=1000)
    assert "quarantined 1/2 passed: network fail" in " ".join(text.split())
    assert "FAIL" not in text
    assert "it covers 1 of 2" in text
    assert "FAIL" in table_text.plain(table.run_table(run(entry), [DEAD, WORSE]))


def test_the_report_and_the_folder_know(entry: QuarantineEntry, tmp_path: Path) -> None:
    writer = synthetic.write_run(tmp_path, [DEAD], quarantine=(entry,))
    page = write_report(writer.folder).read_text()
    assert "0 of 1 attempts passed, 1 quarantined" in page
    assert read_run(writer.folder).run.quarantine == (entry,)
    RunWriter(writer.folder, writer.run).change(began="2026-03-01T00:00:00+00:00")
    assert (
        "entries of the quarantine list that have expired: 1"
        in write_report(writer.folder).read_text()
    )


def test_junit_skips_what_is_known_and_fails_what_has_expired(entry: QuarantineEntry) -> None:
    suite = ET.fromstring(junit(run(entry), [PASSED, DEAD, WORSE]))
    counts = {key: suite.get(key) for key in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "3", "failures": "1", "errors": "0", "skipped": "1"}
    skipped = suite.find("testcase/skipped")
    assert skipped is not None
    assert skipped.get("message", "").startswith("quarantined: https://example.org/7, Ada")
    assert "network: fail" in (skipped.text or "")
    suite = ET.fromstring(junit(run(entry, began="2026-02-01T00:00:00+00:00"), [PASSED]))
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    expired = suite.find("testcase[@classname='quarantine']/failure")
    assert expired is not None
    assert "Ada" in expired.get("message", "")


# --- the file ---


@pytest.mark.parametrize(
    ("change", "said", "remedy"),
    [
        (('owner = "Ada"\n', ""), "line 2: quarantine.0.owner: it is not there", "case, check"),
        (("bug =", "bgu ="), "it is not there", "owner, bug"),
        (("reason =", "x = 1\nreason ="), "quarantine.0.x: there is no such key", "case, check"),
        (("2026-01-02", '"2026-01-02"'), "quarantine.0.expires", "a date without quotes"),
        (("2026-01-02", "5"), "quarantine.0.expires", "a date without quotes"),
        (('"Ada"', '""'), "quarantine.0.owner", "at least 1 character"),
        (("[[quarantine]]", "[quarantine]"), ": quarantine: ", "it should be"),
        (("[[quarantine]]", "[[quaratine]]"), "there is no such key", "[[quarantine]] entries"),
        (("case =", "case"), "Expected '='", "readable TOML file"),
    ],
)
def test_a_wrong_list_is_refused_by_file_key_and_remedy(
    tmp_path: Path, change: tuple[str, str], said: str, remedy: str
) -> None:
    path = written(tmp_path, ENTRY.replace(*change))
    with pytest.raises(ConfigurationError) as caught:
        quarantine.load(path)
    assert str(path) in caught.value.tried
    assert said in str(caught.value)
    assert remedy in caught.value.remedy


def test_the_list_of_the_working_folder_is_taken_if_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert quarantine.load(None) == ()
    (tmp_path / "quarantine.toml").write_text(ENTRY)
    assert [entry.owner for entry in quarantine.load(None)] == ["Ada"]
    with pytest.raises(ConfigurationError):
        quarantine.load(tmp_path / "nowhere.toml")
