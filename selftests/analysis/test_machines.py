"""Busy, by each reason and its limit; what is not measured; and rows that are of other machines."""

from __future__ import annotations

from typing import Any

import pytest

from migrate.analysis.machines import (
    Window,
    busy,
    busy_lately,
    machine_state,
    reasons,
    use,
)
from migrate.model import MachineRecording, MachineState, MachineUse
from selftests.doubles import synthetic
from selftests.doubles.machine import S, looks

QUIET: dict[str, float] = {"idle_s": 1.2, "qemu": 0.7, "steal_s": 0.0, "memory_some_s": 0.0}


def used(**fields: Any) -> MachineUse:
    """A move of ten seconds on two CPUs."""
    given = {"machine": "m", "window": "move", "hop": 1, "begin_ns": 0, "end_ns": 10 * S, "cpus": 2}
    return MachineUse.model_validate({**given, "others_cpus": 0.0, **fields})


def kinds(**fields: Any) -> list[str]:
    return [reason.kind for reason in reasons(used(**fields))]


def state(machine: MachineRecording) -> MachineState:
    """Of an attempt: its floor from the first second, a move from the fourth to the eighth."""
    recording = synthetic.recording()
    start = recording.start.model_copy(update={"floor_window": (1 * S, 3 * S)})
    hop = recording.hops[0].model_copy(update={"begin_ns": 4 * S, "end_ns": 8 * S})
    traffic = recording.traffic.model_copy(update={"end_ns": 9 * S})
    given = {"start": start, "hops": (hop,), "traffic": traffic, "machines": (machine,)}
    made = machine_state(recording.model_copy(update=given))
    assert made is not None
    return made


# --- how it was used ------------------------------------------------------------------------------


def test_what_others_used_is_what_was_busy_less_our_own() -> None:
    found = use(looks(10, {"idle_s": 0.5, "qemu": 1.0}), Window("move", 1, 2 * S, 6 * S))
    assert found.busy_cpus == pytest.approx(1.5)
    assert found.others_cpus == pytest.approx(0.5)
    assert found.parts_s == {"qemu on a": pytest.approx(4.0)}


def test_a_window_that_begins_between_two_looks() -> None:
    found = use(looks(10, {"idle_s": 2.0, "cpu_some_s": 0.5}), Window("move", 1, S // 2, 3 * S))
    assert found.cpu_pressure == pytest.approx(0.5)


def test_steal_is_a_share_of_all_cpus_and_nobodys_work() -> None:
    found = use(looks(10, {"idle_s": 3.0, "steal_s": 0.4}, cpus=4), Window("move", 1, 0, 5 * S))
    assert found.steal == pytest.approx(0.1)
    assert found.busy_cpus == pytest.approx(0.6)


def test_what_the_machine_does_not_count_is_not_measured() -> None:
    found = use(looks(10, {}), Window("move", 1, 0, 5 * S))
    assert (found.busy_cpus, found.others_cpus, found.steal) == (None, None, None)
    assert (found.cpu_pressure, found.swapped_mib, found.throttled_s) == (None, None, None)


# --- busy -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("below", "above", "kind"),
    [
        ({"others_cpus": 0.25}, {"others_cpus": 0.26}, "others"),
        ({"others_cpus": 3.2, "cpus": 64}, {"others_cpus": 3.3, "cpus": 64}, "others"),
        ({"steal": 0.02}, {"steal": 0.021}, "steal"),
        ({"memory_pressure": 0.05}, {"memory_pressure": 0.06}, "memory"),
        ({"swapped_mib": 1.0}, {"swapped_mib": 1.1}, "swap"),
        ({"throttled_s": 0.1}, {"throttled_s": 0.11}, "throttled"),
    ],
)
def test_each_reason_has_its_limit(below: dict[str, Any], above: dict[str, Any], kind: str) -> None:
    assert kinds(**below) == []
    assert kinds(**above) == [kind]


def test_pressure_alone_is_no_reason_for_our_own_programs_make_it() -> None:
    assert kinds(cpu_pressure=0.95, io_pressure=0.9, runnable=9) == []


def test_a_quiet_machine() -> None:
    found = state(looks(10, QUIET))
    assert found.busy == ()
    assert [one.window for one in found.uses] == ["start", "floor", "move", "after"]


def test_a_busy_one_says_when_and_how_much_and_who() -> None:
    machine = looks(10, {**QUIET, "idle_s": 0.1})
    found = state(machine.model_copy(update={"others_s": {"cc1plus": 9.0, "make": 0.1}}))
    assert found.busy is not None
    (reason,) = found.busy
    assert "programs of others used 1.20 of 2 CPUs: cc1plus, make" in reason
    assert reason.startswith("controller, ")


def test_what_others_do_while_the_guest_starts_is_no_reason() -> None:
    machine = looks(10, QUIET)
    idle_s = machine.samples[1].idle_s or 0.0
    samples = [
        sample.model_copy(update={"idle_s": max(0.0, (sample.idle_s or 0.0) - idle_s)})
        for sample in machine.samples
    ]
    found = state(machine.model_copy(update={"samples": tuple(samples)}))
    assert found.uses[0].window == "start"
    assert found.uses[0].others_cpus == pytest.approx(1.3)
    assert found.busy == ()


def test_a_cpu_that_was_too_hot_is_a_reason() -> None:
    machine = looks(10, QUIET).model_copy(update={"overheated": 2})
    assert state(machine).busy == ("controller: a CPU was too hot, and slowed down, 2 times",)


def test_our_own_contention_is_told_apart() -> None:
    found = state(looks(10, {"idle_s": 0.1, "qemu": 1.8, "cpu_some_s": 0.6}))
    assert found.busy == ()
    (told,) = found.contended
    assert "the attempt's own programs waited for a CPU 60% of the time, using 1.8 of 2" in told


def test_without_looks_over_the_move_it_is_neither_quiet_nor_busy() -> None:
    assert state(looks(3, QUIET)).busy is None
    assert state(looks(0, QUIET)).busy is None
    assert state(looks(10, {"qemu": 0.7})).busy is None


def test_a_reason_that_was_seen_holds_though_the_rest_was_not() -> None:
    assert len(state(looks(4, {**QUIET, "idle_s": 0.1})).busy or ()) == 1


def test_a_machine_that_was_not_looked_at_makes_the_whole_unknown() -> None:
    seen, unseen = looks(10, QUIET), looks(0, {}, name="b")
    uses = state(seen).uses
    assert busy((seen,), uses, 1) == ()
    assert busy((seen, unseen), uses, 1) is None


def test_an_old_recording_has_no_machine() -> None:
    assert machine_state(synthetic.recording()) is None


def test_the_last_two_looks_tell_whether_it_is_quiet_now() -> None:
    machine = looks(10, {"idle_s": 0.5}).model_copy(update={"others_s": {"stress-ng": 9.0}})
    assert busy_lately(machine) == (
        "controller: programs of others used 1.50 of 2 CPUs: stress-ng",
    )
    assert busy_lately(looks(10, {"idle_s": 1.9})) == ()
    assert busy_lately(looks(0, {"idle_s": 1.9})) == ()
