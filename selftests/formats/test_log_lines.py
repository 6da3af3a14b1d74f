"""Logs of hosts: lines of any length, bytes of any kind, and only the end of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from migrate.clock import Deadline
from migrate.drivers.shell import Completed
from migrate.formats.log_lines import CUT, LINE, last_lines, whole_lines
from migrate.lab import log_tail as module
from migrate.lab.log_tail import log_tail
from selftests.helpers import soon


class Log:
    """A host whose `tail` gives the end of a text."""

    def __init__(self, text: str) -> None:
        self.text = text.encode()

    def run(self, argv: Sequence[str], deadline: Deadline, **_more: Any) -> Completed:
        del deadline
        count = int(argv[-1])
        return Completed(tuple(argv), 0, self.text[-count:].decode(errors="replace"), "")


def test_the_last_lines_are_whole() -> None:
    assert last_lines("a\nb\nc\n", 2) == "b\nc\n"
    assert last_lines("a\nb\nc", 2) == "b\nc"
    assert last_lines("cut\nb\nc\n", 9, whole=False) == "b\nc\n"
    assert last_lines("", 2) == ""


def test_a_line_without_end_is_cut() -> None:
    assert last_lines("x" * 100_000, 5, whole=False) == "x" * (LINE - len(CUT)) + CUT
    assert [len(line) for line in whole_lines("x" * 100_000 + "\nabc\nd")] == [LINE, 3]


@pytest.mark.parametrize("long", [False, True])
def test_of_a_log_on_a_host_its_end_is_read(monkeypatch: pytest.MonkeyPatch, long: bool) -> None:
    """One that is longer than what is read begins within a line."""
    monkeypatch.setattr(module, "MOST_BYTES", 15 if long else 1000)
    tail = log_tail(Log("first line\nsecond line\nthird\n"), "/var/log/x", soon(), 2)
    assert tail == ("third\n" if long else "second line\nthird\n")
