"""What the harness must find, it finds: run by ``test_fuzz.py`` in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from migrate.errors import GuestError
from selftests.fuzz.__main__ import main
from selftests.fuzz.lane import MIB, Lane
from selftests.fuzz.registry import LANES
from selftests.fuzz.run import Account, made, run


def tried(door: Callable[[bytes], object], keep: Path, **bounds: int) -> Account:
    return run(Lane("x", door, lambda: [b"one two"], **bounds), 5, seed=1, keep=keep)  # type: ignore[arg-type]


def refuse(data: bytes) -> None:
    raise GuestError("read it", said="no")


def test_results_and_errors_of_ours_are_counted(tmp_path: Path) -> None:
    assert tried(len, tmp_path).results == 5
    assert tried(refuse, tmp_path).errors == 5
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_another_tree_is_found_and_its_input_kept(tmp_path: Path) -> None:
    nothing: dict[bytes, int] = {}
    account = tried(nothing.__getitem__, tmp_path)
    (finding,) = account.findings.values()
    assert account.found == 5, "one line a kind, and all are counted"
    assert isinstance(finding.error, KeyError)
    assert finding.path.read_bytes() == b"one two"


def test_what_exits_is_found(tmp_path: Path) -> None:
    def leave(data: bytes) -> None:
        raise SystemExit(0)

    assert tried(leave, tmp_path).found == 5


def test_processor_time_ends_it(tmp_path: Path) -> None:
    account = run(Lane("x", len, lambda: [b"one two"]), 10**9, seed=1, keep=tmp_path, most_s=0.1)
    assert 0 < account.inputs == account.results < 10**9


def test_an_endless_loop_is_found(tmp_path: Path) -> None:
    def endless(data: bytes) -> None:
        while True:
            with suppress(Exception):  # hides nothing
                pass

    lane = Lane("x", endless, lambda: [b"x"], most_s=0.05)
    (finding,) = run(lane, 1, seed=1, keep=tmp_path).findings.values()
    assert type(finding.error).__name__ == "TooSlow"


def test_too_much_memory_is_found(tmp_path: Path) -> None:
    (finding,) = tried(lambda _: bytes(2 * MIB), tmp_path, most_bytes=MIB).findings.values()
    assert str(finding.error) == "2 MiB for 7 bytes"
    (finding,) = tried(lambda _: bytes(1 << 40), tmp_path).findings.values()
    assert isinstance(finding.error, MemoryError)


def test_a_number_makes_the_same_input_again() -> None:
    lane = LANES["probe-answers"]
    seeds = lane.seeds()
    inputs = [made(lane, seeds, number, 1) for number in range(200)]
    assert inputs == [made(lane, seeds, number, 1) for number in range(200)]
    assert inputs != [made(lane, seeds, number, 2) for number in range(200)]
    assert len(set(inputs)) > 150


def test_the_table_has_a_row_for_a_lane(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe-answers", "--count", "3"]) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["lane", "inputs", "results"]
    assert row.split()[:4] == ["probe-answers", "3", "3", "0"]


def test_an_unknown_lane_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["nowhere"])
    assert ended.value.code == 2
    assert "there are probe-answers" in capsys.readouterr().err
