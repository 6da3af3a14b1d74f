"""Runs that the user may not open: an error that names the folder, in every reader."""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from migrate.cli.main import status
from selftests.doubles import synthetic

CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2
VERSION_3 = 0x20080522
"""capabilities(7), capget(2): two words of each set."""


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


@contextmanager
def bound_by_modes() -> Iterator[None]:
    """Modes of files count while the block runs: also for root, and who may read all files."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = _Header(VERSION_3, 0)
    sets = (_Sets * 2)()
    if libc.capget(ctypes.byref(header), sets):
        raise OSError(ctypes.get_errno(), "capget")
    before = sets[0].effective
    sets[0].effective = before & ~(1 << CAP_DAC_OVERRIDE | 1 << CAP_DAC_READ_SEARCH)
    if libc.capset(ctypes.byref(header), sets):
        raise OSError(ctypes.get_errno(), "capset")
    try:
        yield
    finally:
        sets[0].effective = before
        if libc.capset(ctypes.byref(header), sets):
            raise OSError(ctypes.get_errno(), "capset")


Shut = Callable[[Path], None]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two runs: an old one, and the one that is shut."""
    root = tmp_path / "results"
    case = synthetic.case()
    for day in (1, 2):
        name, began = f"2026010{day}-000000", f"2026-01-0{day}T00:00:00+00:00"
        writer = synthetic.write_run(root, [synthetic.attempt(case)], name=name, began=began)
        writer.write("junit.xml", "<testsuites/>")
    return root


SHUT = "20260102-000000"
READERS: dict[str, Sequence[str]] = {
    "show": ("show", SHUT),
    "show latest": ("show",),
    "show --json": ("show", "--json"),
    "report": ("report", SHUT),
    "analyze": ("analyze", SHUT),
    "gate": ("gate", SHUT, "--baseline", "20260101-000000"),
    "trend": ("trend",),
    "prune": ("prune", "--keep-days", "0", "--keep-runs", "0", "--dry-run"),
}


@pytest.mark.parametrize("part", ["", "run.json", "cases"])
@pytest.mark.parametrize("reader", READERS)
def test_a_run_that_is_shut_is_an_error_that_names_it(
    reader: str, part: str, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shut = results / SHUT / part
    mode = shut.stat().st_mode
    for index in results.glob("*/attempts.parquet"):
        index.unlink()
    shut.chmod(0)
    try:
        with bound_by_modes():
            code = status([*READERS[reader], "--results", str(results)])
    finally:
        shut.chmod(mode)
    printed = capsys.readouterr()
    assert code == 5, printed
    assert SHUT in printed.err + printed.out
    assert "no attempt was made" not in printed.out
    assert "Traceback" not in printed.err


@pytest.mark.parametrize("place", ["results", SHUT])
def test_a_baseline_that_is_shut_is_an_error_too(
    place: str, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shut = results / "20260101-000000"
    shut.chmod(0)
    try:
        with bound_by_modes():
            places = str(results) if place == "results" else str(shut)
            code = status(["gate", SHUT, "--baseline", places, "--results", str(results)])
    finally:
        shut.chmod(0o755)
    assert code == 5
    assert "20260101-000000" in capsys.readouterr().err


def test_a_case_that_is_shut_takes_no_other_away(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (case,) = (results / SHUT / "cases").iterdir()
    other = case.with_name("other")
    case.rename(other)
    (results / "20260101-000000" / "cases" / case.name).rename(case)
    other.chmod(0)
    try:
        with bound_by_modes():
            status(["show", SHUT, "--json", "--results", str(results)])
    finally:
        other.chmod(0o755)
    document = json.loads(capsys.readouterr().out)
    assert len(document["attempts"]) == 1
    assert [lost["attempt"] for lost in document["unreadable"]] == ["other"]


@pytest.mark.parametrize("kind", ["loop", "file", "pipe"])
def test_what_lies_beside_runs_is_no_run(
    kind: str, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = results / "zzz"
    if kind == "loop":
        path.symlink_to(path)
    elif kind == "file":
        path.write_text("")
    else:
        path.mkdir()
        os.mkfifo(path / "run.json")
    codes = [status([*words, "--results", str(results)]) for words in (("show", SHUT), ("trend",))]
    assert codes[0] == 0
    assert codes[1] == (5 if kind == "pipe" else 0)
    assert "Traceback" not in capsys.readouterr().err
