"""The journal: processes told apart from reused ids, files whole or not there, huge pages given
back to the page."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migrate.clock import Deadline
from migrate.errors import HostError
from migrate.lab import state as journal
from migrate.lab.local.config import LocalConfig
from migrate.lab.state import (
    HostRecord,
    LabRecord,
    ProcessId,
    borrow_huge_pages,
    give_back_huge_pages,
    read_record,
    wait_gone,
    write_record,
)
from selftests.helpers import mode_of


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


class Pages:
    """The kernel's number of huge pages; it has memory for ``most``."""

    def __init__(self, now: int, most: int = 10**6) -> None:
        self.now = now
        self.most = most

    def exists(self) -> bool:
        return True

    def read_text(self) -> str:
        return f"{self.now}\n"

    def write_text(self, text: str) -> None:
        self.now = min(int(text), self.most)


# --- processes ---


def test_a_process_that_runs_is_alive_until_it_is_ended(sleeper: subprocess.Popen[bytes]) -> None:
    process = ProcessId.of(sleeper.pid)
    assert process.alive()
    process.end(Deadline.after(10))
    assert not process.alive(), "a zombie does not run"
    process.end(Deadline.after(10))  # a second time does nothing


def test_a_reused_id_is_not_mistaken_for_our_process(sleeper: subprocess.Popen[bytes]) -> None:
    other = ProcessId(pid=sleeper.pid, started="1")
    assert not other.alive()
    other.end(Deadline.after(10))
    assert ProcessId.of(sleeper.pid).alive(), "the process that has the id now is left alone"


def test_an_id_that_no_process_has_is_not_alive() -> None:
    assert not ProcessId.of(2**22).alive()


def test_waiting_for_a_process_ends_at_the_deadline(sleeper: subprocess.Popen[bytes]) -> None:
    descriptor = os.pidfd_open(sleeper.pid)
    try:
        with pytest.raises(HostError, match="still there at the deadline"):
            wait_gone(descriptor, Deadline.after(0), sleeper.pid)
    finally:
        os.close(descriptor)


# --- the record ---


def record(folder: Path) -> LabRecord:
    host = HostRecord(
        name="a",
        root="debian-13",
        root_folder=Path("/"),
        namespace="mlab-x-a",
        address="10.78.0.1",
        init=ProcessId(pid=7, started="8"),
    )
    return LabRecord(config=LocalConfig(), folder=folder, fabric="mlab-x", hosts=(host,))


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    written = record(tmp_path / "x")
    write_record(written)
    assert read_record(tmp_path / "x") == written
    assert written.namespaces == ("mlab-x-a", "mlab-x.1", "mlab-x")


def test_where_there_is_no_journal_there_is_no_lab(tmp_path: Path) -> None:
    assert read_record(tmp_path / "none") is None


def test_nobody_else_can_read_a_labs_journal(tmp_path: Path) -> None:
    write_record(record(tmp_path / "x"))
    assert mode_of(tmp_path / "x") == 0o700
    assert mode_of(tmp_path / "x/lab.json") == 0o600


def test_a_journal_that_is_roots_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(journal, "read_bounded", refused)
    with pytest.raises(HostError, match="sudo"):
        read_record(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"local": 3}', '{"base": -1}', '{"base": null}'])
def test_a_file_that_is_no_account_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "huge-pages.json").write_text(text)
    with pytest.raises(HostError, match=r"record of huge pages .*huge-pages\.json"):
        borrow_huge_pages(tmp_path, "local", 3)


def test_a_journal_of_another_make_is_refused_not_guessed_at(tmp_path: Path) -> None:
    (tmp_path / "lab.json").write_text('{"colour": 1}')
    with pytest.raises(HostError, match=r"another version.*lab down"):
        read_record(tmp_path)


# --- huge pages ---


def test_pages_are_added_to_the_machines_own_and_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = Pages(10)
    monkeypatch.setattr(journal, "HUGE_PAGES", pages)
    assert borrow_huge_pages(tmp_path, "x", 128) == 128
    assert pages.now == 138
    give_back_huge_pages(tmp_path, "x")
    assert pages.now == 10
    give_back_huge_pages(tmp_path, "x")
    assert pages.now == 10, "what was given back is not given back again"
    assert not (tmp_path / "huge-pages.json").exists()


def test_pages_are_had_all_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = Pages(10, most=100)
    monkeypatch.setattr(journal, "HUGE_PAGES", pages)
    assert borrow_huge_pages(tmp_path, "x", 128) == 0
    assert pages.now == 10
    assert not (tmp_path / "huge-pages.json").exists()


@pytest.mark.parametrize("exists", [True, False])
def test_none_are_borrowed_where_none_are_asked_for_or_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    pages = Pages(10)
    monkeypatch.setattr(pages, "exists", lambda: exists)
    monkeypatch.setattr(journal, "HUGE_PAGES", pages)
    assert borrow_huge_pages(tmp_path, "x", 0 if exists else 5) == 0
    assert pages.now == 10


def test_what_a_killed_controller_noted_but_never_took_is_not_taken_from_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = Pages(10)
    monkeypatch.setattr(journal, "HUGE_PAGES", pages)
    borrow_huge_pages(tmp_path, "other", 20)
    ledger = json.loads((tmp_path / "huge-pages.json").read_text())
    (tmp_path / "huge-pages.json").write_text(json.dumps({**ledger, "killed": 50}))
    give_back_huge_pages(tmp_path, "killed")
    assert pages.now == 30


@settings(deadline=None)
@given(
    base=st.integers(0, 100),
    steps=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 60)), max_size=8),
    most=st.integers(0, 300),
)
def test_whatever_labs_do_the_machine_gets_its_own_number_back(
    tmp_path_factory: pytest.TempPathFactory,
    base: int,
    steps: list[tuple[str, int]],
    most: int,
) -> None:
    state = tmp_path_factory.mktemp("state")
    pages = Pages(base, max(base, most))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "HUGE_PAGES", pages)
        lent = dict.fromkeys("abc", 0)
        for lab, count in steps:
            lent[lab] = borrow_huge_pages(state, lab, count)
            assert pages.now == base + sum(lent.values())
        for lab in "abc":
            give_back_huge_pages(state, lab)
    assert pages.now == base
