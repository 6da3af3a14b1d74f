"""What is waited for when a workload ends: a byte on each connection, one more packet each way."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import pytest

from migrate.clock import Deadline, now_ns
from migrate.guest.probe import Probe
from migrate.model import TcpCheck
from migrate.recorder.traffic import await_more, silent_since, tcp_since
from selftests.helpers import soon

QUIET = TcpCheck(opened=2, alive=2, resets=0, longest_stall_ms=0)


def waits(*waiting_ms: float) -> TcpCheck:
    return QUIET.model_copy(update={"waiting_ms": waiting_ms})


def probe(*answers: TcpCheck) -> Probe:
    """It says one after the other, and the last one from then on."""

    def told() -> Iterator[TcpCheck]:
        yield from answers
        while True:
            yield answers[-1]

    checks = told()
    return cast("Probe", SimpleNamespace(tcp_check=lambda: next(checks)))


@pytest.mark.parametrize(
    ("check", "silent"),
    [
        (waits(5, 20), ()),
        (waits(5, 2000), (2000.0,)),
        (waits(), ()),
        (QUIET, ()),
    ],
)
def test_a_connection_is_silent_that_had_no_byte_since_the_move(
    check: TcpCheck, silent: tuple[float, ...]
) -> None:
    asked = check.model_copy(update={"asked_ns": 10_000_000_000})
    assert silent_since(asked, 9_000_000_000) == silent


def test_a_connection_that_is_between_two_tries_is_waited_for() -> None:
    moved_ns = now_ns()
    check = tcp_since(probe(waits(900, 900), waits(900, 0), waits(0, 0)), moved_ns, soon())
    assert check.waiting_ms == (0, 0)
    assert check.asked_ns is not None
    assert check.asked_ns >= moved_ns


def test_a_connection_that_stays_silent_is_given_up_when_tcp_would_have_tried_again() -> None:
    check = tcp_since(probe(waits(60, 60_000)), now_ns(), Deadline.after(0.2))
    assert check.waiting_ms == (60, 60_000)


def test_where_all_had_a_byte_nothing_is_waited_for() -> None:
    check = tcp_since(probe(waits(0, 0), waits(9, 9)), now_ns() - 1_000_000_000, soon())
    assert check.waiting_ms == (0, 0)


def counting(*received: int) -> Probe:
    counts = iter(received)
    return cast(
        "Probe",
        SimpleNamespace(stream_status=lambda: SimpleNamespace(received=next(counts, received[-1]))),
    )


def test_one_more_packet_each_way_is_waited_for() -> None:
    one, other = counting(7, 8), counting(7, 7, 7, 9)
    await_more((one, other), soon())
    assert other.stream_status().received == 9


def test_a_direction_that_is_silent_is_given_up() -> None:
    await_more((counting(7),), Deadline.after(0.05))
