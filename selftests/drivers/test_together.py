"""What is done on several hosts at once: all of it ends, and what had begun is undone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from migrate.drivers.together import each, together
from migrate.errors import HostError


def test_each_is_done_at_once_and_told_in_order() -> None:
    meeting = threading.Barrier(2, timeout=10)  # one after the other would never meet

    def act(name: str) -> str:
        meeting.wait()
        return name.upper()

    assert each(["a", "b"], act) == ["A", "B"]


def test_the_first_error_is_raised_when_all_have_ended() -> None:
    ended: list[str] = []

    def act(name: str) -> None:
        ended.append(name)
        raise HostError(f"act on {name}")

    with pytest.raises(HostError, match="act on a"):
        each(["a", "b"], act)
    assert sorted(ended) == ["a", "b"]


class Blocks:
    """Blocks that note their begin and end."""

    def __init__(self, *fail_at: str) -> None:
        self.noted: set[str] = set()
        self._fail_at = fail_at
        self._meeting = threading.Barrier(2, timeout=10)

    @contextmanager
    def block(self, name: str) -> Iterator[str]:
        self._meeting.wait()
        if f"begin {name}" in self._fail_at:
            raise HostError(f"begin {name}")
        try:
            yield name.upper()
        finally:
            self.noted.add(f"end {name}")
            if f"end {name}" in self._fail_at:
                raise HostError(f"end {name}")


def both(blocks: Blocks) -> list[str]:
    with together([blocks.block("a"), blocks.block("b")]) as values:
        blocks.noted.add("body")
        return values


def test_blocks_begin_and_end_together() -> None:
    blocks = Blocks()
    assert both(blocks) == ["A", "B"]
    assert blocks.noted == {"body", "end a", "end b"}


@pytest.mark.parametrize(("fails", "other"), [("a", "b"), ("b", "a")])
def test_of_blocks_of_which_one_can_not_begin_the_other_is_ended(fails: str, other: str) -> None:
    blocks = Blocks(f"begin {fails}")
    with pytest.raises(HostError, match=f"begin {fails}"):
        both(blocks)
    assert blocks.noted == {f"end {other}"}


def test_both_blocks_are_ended_though_one_fails_at_that() -> None:
    blocks = Blocks("end a")
    with pytest.raises(HostError, match="end a"):
        both(blocks)
    assert {"end a", "end b"} <= blocks.noted


def test_an_error_of_the_body_ends_both_and_is_raised() -> None:
    blocks = Blocks()
    with pytest.raises(ZeroDivisionError), together([blocks.block("a"), blocks.block("b")]):
        raise ZeroDivisionError
    assert blocks.noted == {"end a", "end b"}
