"""Attempts whose figures must not be compared, and why."""

from __future__ import annotations

from migrate.analysis.comparable import why_incomparable
from migrate.model import Attempt, MachineFacts, MachineState, Workload
from selftests.doubles import synthetic


def attempts(
    number: int, busy: int | None = 0, cpu: str = "", interval_us: int = 1000
) -> list[Attempt]:
    """Attempts of which ``busy`` were on a busy machine; None: nobody knows."""
    case = synthetic.case(workload=Workload(interval_us=interval_us))

    def machine(turn: int) -> MachineState:
        reasons = None if busy is None else ("others: 1 CPU",) * (turn < busy)
        return MachineState(facts={"controller": MachineFacts(cpu=cpu, cpus=2)}, busy=reasons)

    return [synthetic.attempt(case, turn + 1, machine=machine(turn)) for turn in range(number)]


def test_nothing_speaks_against_attempts_that_are_alike() -> None:
    assert why_incomparable([attempts(5), attempts(5)]) is None
    assert why_incomparable([attempts(5, busy=5), attempts(5, busy=3)]) is None
    old = [synthetic.attempt(synthetic.case())]
    assert why_incomparable([old, attempts(5, busy=5)]) is None, "nobody knows"
    assert why_incomparable([attempts(5, busy=None), attempts(5, busy=5)]) is None
    assert why_incomparable([[], attempts(5)]) is None


def test_packets_at_other_intervals() -> None:
    assert why_incomparable([attempts(1), attempts(1, interval_us=10_000)]) == (
        "their packets were sent every 1 ms and 10 ms"
    )


def test_another_machine() -> None:
    assert why_incomparable([attempts(2, cpu="Xeon"), attempts(2, cpu="EPYC")]) == (
        "controller was another machine: 2 × EPYC and 2 × Xeon"
    )
    assert why_incomparable([attempts(2, cpu="Xeon"), attempts(2)]) is None


def test_a_busy_machine_beside_a_quiet_one() -> None:
    assert why_incomparable([attempts(5, busy=4), attempts(5, busy=1)]) == (
        "the machine was busy in 4 of 5 and in 1 of 5"
    )
