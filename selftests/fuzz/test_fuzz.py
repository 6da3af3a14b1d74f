"""A slice of each lane; and the harness: what it must find, it finds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from selftests.fuzz.registry import LANES
from selftests.helpers import ROOT

SLICE = ("--count", "300", "--seconds", "2", "--seed", "1")
"""Of a lane in every run of the selftests."""
GROUPS = [list(LANES)[start::8] for start in range(8)]


def ended(tmp_path: Path, module: str, *arguments: str) -> tuple[int, str]:
    """In a process of its own, which is traced to its end."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("name", LANES)
def test_a_seed_is_taken_without_an_error(name: str) -> None:
    """Else its lane would only try the first check."""
    lane = LANES[name]
    for sample in lane.seeds():
        lane.door(sample)


@pytest.mark.parametrize("names", GROUPS, ids=", ".join)
def test_a_slice_of_a_lane_finds_nothing(names: list[str], tmp_path: Path) -> None:
    status, said = ended(tmp_path, "selftests.fuzz", *names, *SLICE)
    assert status == 0, said
    _head, *rows = said.splitlines()
    assert [row[:24].strip() for row in rows] == names


def test_the_harness_finds_what_it_must(tmp_path: Path) -> None:
    tests = str(Path(__file__).with_name("harness.py"))
    status, said = ended(tmp_path, "pytest", "-q", "-p", "no:cacheprovider", tests)
    assert status == 0, said
