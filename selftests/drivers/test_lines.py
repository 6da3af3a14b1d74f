"""A program on a host, spoken to line by line: its lines have an end, and so does waiting."""

from __future__ import annotations

from typing import Any, cast

import pytest

from migrate.clock import Deadline
from migrate.drivers import ssh
from migrate.drivers.ssh import Lines
from migrate.errors import HostError
from selftests.helpers import soon


class Channel:
    """The other end says these bytes, again and again."""

    def __init__(self, said: bytes) -> None:
        self.said = said

    def settimeout(self, _seconds: float) -> None:
        """Nothing is waited for."""

    def sendall(self, _data: bytes) -> None:
        """Nobody reads it."""

    def recv(self, _most: int) -> bytes:
        return self.said


def lines(said: bytes) -> Lines:
    return Lines(cast("Any", Channel(said)), "a")


def test_a_line_that_comes_is_the_answer_and_the_rest_waits() -> None:
    talk = lines(b"one\xff\ntwo\n")
    assert [talk.ask("?", soon()) for _ in range(3)] == ["one\ufffd", "two", "one\ufffd"]


def test_a_line_without_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "LINE_BYTES", 1 << 20)
    with pytest.raises(HostError, match="on host a: a line of more than 1 MiB came"):
        lines(b"x" * 4096).ask("?", soon())


def test_bytes_that_drip_do_not_keep_anybody_past_the_deadline() -> None:
    with pytest.raises(HostError, match="no answer before the deadline"):
        lines(b"x").ask("?", Deadline.after(0.01))
