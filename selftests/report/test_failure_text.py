"""What a run printed as text begins with: what failed, and why, in the words of who died."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from migrate.cli.main import cli
from migrate.model import Attempt, Expect, Problem, QemuEnd, Verdict
from migrate.report.failure_text import failure_text
from migrate.report.table_text import WIDTH
from migrate.results.reader import read_run
from selftests.doubles import synthetic

ASSERTION = "qemu-system-x86_64: ../hw/virtio/virtio.c:99: load: Assertion `vq->vring.num' failed."
REFUSED = "unable to connect to server at 'b:49152': Connection refused"
DIED = QemuEnd(host="b", how="signal 6", last_words=ASSERTION)
SLOW = Verdict(
    check="outage.egress", result="fail", measured="138.0", limit="5", unit="ms", evidence="a gap"
)


def crashed(number: int = 1) -> Attempt:
    """The target's QEMU died, and libvirt speaks of its connection."""
    return synthetic.attempt(
        synthetic.case(),
        number,
        outcome="failed",
        error=Problem(tried="migrate to b", host="a", said=f"{DIED}; {REFUSED}"),
        qemu_ends=(DIED,),
        verdicts=(Verdict(check="outcome", result="fail", evidence=REFUSED), SLOW),
    )


def lines_of(tmp_path: Path, *attempts: Attempt, **run: Any) -> list[str]:
    folder = synthetic.write_run(tmp_path, list(attempts), skips=(), **run).folder
    return failure_text(read_run(folder))


def test_the_last_words_of_a_qemu_are_in_the_first_line_of_the_failure(tmp_path: Path) -> None:
    result, first, *others = lines_of(tmp_path, crashed())
    assert result == "FAIL: 0 of 1 attempts passed"
    assert first.startswith(
        "FAIL synthetic-virtio/1: QEMU on b ended (signal 6): qemu-system-x86_64"
    )
    whole = " ".join(line.strip() for line in (first, *others))
    assert ASSERTION in whole
    assert "failed, not completed" in whole
    assert whole.index(ASSERTION) < whole.index("failed, not completed")


def test_a_qemu_that_an_abort_ended_is_not_why_another_verdict_failed(tmp_path: Path) -> None:
    case = synthetic.case().with_(expect=Expect(outcome="aborted", held_by=("source",)))
    attempt = synthetic.attempt(case, outcome="aborted", qemu_ends=(DIED,), verdicts=(SLOW,))
    _, line, *_ = lines_of(tmp_path, attempt)
    assert line.startswith("FAIL synthetic-virtio/1: outage.egress 138.0 ms against")
    nowhere = Verdict(check="held-by", result="fail", measured="nobody", limit="a")
    lost = attempt.with_(held_by=(), verdicts=(nowhere,))
    _, line, *_ = lines_of(tmp_path / "lost", lost)
    assert line.startswith("FAIL synthetic-virtio/1: QEMU on b ended (signal 6)")


def test_a_verdict_that_failed_has_its_numbers(tmp_path: Path) -> None:
    _, line = lines_of(tmp_path, synthetic.attempt(synthetic.case(), verdicts=(SLOW,)))
    assert line == "FAIL synthetic-virtio/1: outage.egress 138.0 ms against at most 5 ms"


def test_attempts_that_failed_alike_are_one_block_of_lines_that_fit(tmp_path: Path) -> None:
    long = Verdict(check="clean", result="fail", measured="9", evidence="left " * 100)
    attempts = [synthetic.attempt(synthetic.case(), n, verdicts=(long,)) for n in (1, 2)]
    _, first, *others = lines_of(tmp_path, *attempts)
    assert first.startswith("FAIL synthetic-virtio/1, 2: clean 9")
    assert others
    assert all(line.startswith("    ") for line in others)
    assert max(map(len, (first, *others))) <= WIDTH


def test_a_run_that_passed_is_one_line(tmp_path: Path) -> None:
    assert lines_of(tmp_path, synthetic.attempt(synthetic.case())) == [
        "PASS: 1 of 1 attempts passed"
    ]


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def results(tmp_path: Path) -> Path:
    other = synthetic.case("vhost-user")
    attempts = [crashed(), synthetic.attempt(synthetic.case(), 2), synthetic.attempt(other)]
    synthetic.write_run(tmp_path, attempts, skips=())
    return tmp_path


def show(results: Path, *words: str) -> Result:
    return CliRunner().invoke(cli, ["show", "--results", str(results), *words])


def test_show_says_first_what_failed_and_fits_a_hundred_columns(results: Path) -> None:
    shown = show(results)
    lines = shown.output.splitlines()
    assert lines[0] == "FAIL: 2 of 3 attempts passed"
    assert "QEMU on b ended" in lines[2]
    assert "Outage, guest to peer" in shown.output
    assert max(map(len, lines)) <= WIDTH


def test_inside_prints_the_attempts_that_are_asked_for_and_no_table(results: Path) -> None:
    shown = show(results, "--inside", "--case", "*-virtio", "--attempt", "1")
    lines = shown.output.splitlines()
    assert [line for line in lines if line.startswith("--- ")] == [
        "--- synthetic-virtio, attempt 1"
    ]
    assert "QEMU on b ended (signal 6)" in shown.output.partition("--- ")[2]
    assert "Outage by part of the move" not in shown.output
    assert len(lines) < 150
    assert max(map(len, lines)) <= WIDTH


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("--case", "*vhost*"), ["synthetic-vhost-user/1"]),
        (("--attempt", "1"), ["synthetic-virtio/1", "synthetic-vhost-user/1"]),
        (("--case", "*virtio", "--attempt", "2"), ["synthetic-virtio/2"]),
    ],
)
def test_a_part_of_a_run_is_chosen_by_case_and_attempt(
    results: Path, words: tuple[str, ...], names: list[str]
) -> None:
    shown = json.loads(show(results, "--json", *words).output)
    assert {f"{a['case']['id']}/{a['number']}" for a in shown["attempts"]} == set(names)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--case", "vdpa"), "it has no case like 'vdpa'"),
        (("--attempt", "7"), "it has no attempt 7"),
        (
            ("--case", "*virtio", "--attempt", "7"),
            "it has no case like '*virtio' with an attempt 7",
        ),
    ],
)
def test_what_a_run_does_not_have_is_refused_with_what_it_has(
    results: Path, words: tuple[str, ...], said: str
) -> None:
    error = show(results, *words).exception
    assert said in str(error)
    assert "its cases: synthetic-" in str(error)
