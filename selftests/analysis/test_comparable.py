"""Attempts whose figures must not be compared, and why."""

from __future__ import annotations

from migrate.analysis.comparable import why_incomparable
from migrate.model import Attempt, MachineFacts, MachineState, MachineUse, Workload
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


def test_hosts_of_other_names_are_compared_by_what_they_are() -> None:
    def on(host: str, cpu: str) -> list[Attempt]:
        facts = {
            "controller": MachineFacts(cpu="EPYC", cpus=4),
            host: MachineFacts(cpu=cpu, cpus=4),
        }
        return [synthetic.attempt(synthetic.case(), machine=MachineState(facts=facts, busy=()))]

    assert why_incomparable([on("a", "EPYC"), on("c", "EPYC")]) is None
    assert why_incomparable([on("a", "EPYC"), on("c", "Xeon")]) == (
        "they were on other machines: 4 × EPYC, and 4 × EPYC with 4 × Xeon"
    )


def test_a_busy_machine_beside_a_quiet_one() -> None:
    assert why_incomparable([attempts(5, busy=4), attempts(5, busy=1)]) == (
        "the machine was busy in 4 of 5 and in 1 of 5"
    )


def disturbed(count: int, others_cpus: float, steal: float = 0.0) -> list[Attempt]:
    """Attempts with others beside their moves, quiet in their floor."""
    window = {"machine": "controller", "begin_ns": 0, "end_ns": 10**9, "cpus": 2}
    floor = MachineUse.model_validate({**window, "window": "floor", "others_cpus": 0.1})
    move = {**window, "window": "move", "hop": 1, "others_cpus": others_cpus, "steal": steal}
    state = MachineState(busy=("others",), uses=(floor, MachineUse.model_validate(move)))
    return [synthetic.attempt(synthetic.case(), machine=state)] * count


def test_two_that_were_busy_may_be_so_by_far_other_measures() -> None:
    assert why_incomparable([disturbed(3, 0.4), disturbed(3, 0.5)]) is None
    reason = why_incomparable([disturbed(3, 0.4), disturbed(3, 1.4)])
    assert reason == "in the median, programs of others used CPUs: 0.40 and 1.40"
    reason = why_incomparable([disturbed(3, 0.4, 0.3), disturbed(3, 0.4, 0.0)])
    assert reason == "in the median, shares of the CPUs' time were stolen: 0.30 and 0.00"


def test_one_busy_moment_is_no_median() -> None:
    mixed = [*disturbed(1, 1.9), *disturbed(4, 0.4)]
    assert why_incomparable([mixed, disturbed(5, 0.4)]) is None
