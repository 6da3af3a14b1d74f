"""Machines of an attempt: which there are, what a look at one tells, and one that is not there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from migrate.clock import Deadline, until
from migrate.errors import HostError
from migrate.lab.api import Host, Lab
from migrate.recorder import machines
from migrate.recorder.machines import Census, Machine, Machines, facts_of, machines_of
from migrate.recorder.programs import Programs
from selftests.doubles.machine import PaperMachine, stat_line
from selftests.helpers import soon

LAB = cast("Lab", SimpleNamespace(places={}, machine_pid_file=None, patience=1.0))


def paper(machine: PaperMachine, name: str = "b", **fields: Any) -> Machine:
    return Machine(name, (name,), {name: Programs(machine)}, machine.run, **fields)


def host(name: str, machine: PaperMachine | None) -> Host:
    """None: it can't be reached."""

    @contextmanager
    def small_files(_deadline: Deadline) -> Iterator[PaperMachine]:
        if machine is None:
            raise HostError("connect", host=name, said="no route to host")
        yield machine

    run = None if machine is None else machine.run
    return cast("Host", SimpleNamespace(name=name, small_files=small_files, run=run))


def test_a_machine_says_what_it_is() -> None:
    facts = facts_of(PaperMachine(cpus=4), soon())
    assert (facts.cpu, facts.cpus, facts.microcode) == ("AMD EPYC 7713", 4, "0xa0011d1")
    assert (facts.virtualised, facts.governor, facts.memory_mib) == ("yes", "", 2048)


def test_counters_begin_at_the_first_look() -> None:
    machine = PaperMachine(idle_s=500.0, stalled_s=70.0, steal_s=3.0)
    looked = paper(machine)
    looked.begin(soon())
    machine.idle_s, machine.stalled_s, machine.steal_s = 501.5, 70.25, 3.5
    machine.swapped_pages, machine.threads = 256, 5
    looked.look(soon())
    first, second = looked.recording().samples
    assert (first.idle_s, first.cpu_some_s, first.steal_s, first.swapped_mib) == (0, 0, 0, 0)
    assert (second.idle_s, second.cpu_some_s, second.steal_s) == (1.5, 0.25, 0.5)
    assert (second.swapped_mib, second.runnable) == (1.0, 5)
    assert second.at_ns > first.at_ns
    assert second.error_ns > 0


def test_a_counter_that_goes_back_is_no_negative_figure() -> None:
    machine = PaperMachine(idle_s=500.0)
    looked = paper(machine)
    looked.begin(soon())
    machine.idle_s = 2.0
    looked.look(soon())
    assert looked.recording().samples[1].idle_s == 0.0


def test_a_kernel_without_psi_is_not_measured_and_says_why() -> None:
    looked = paper(PaperMachine(pressure=False))
    looked.begin(soon())
    (sample,) = looked.recording().samples
    assert (sample.cpu_some_s, sample.memory_some_s, sample.io_some_s) == (None, None, None)
    assert any("no PSI" in reason for reason in looked.recording().unseen)


def test_who_else_ran_is_named_and_ours_are_not() -> None:
    machine = PaperMachine(processes={5: ("init", 0.0), 6: ("qemu", 1.0), 7: ("cc1", 9.0)})
    looked = paper(machine, roots=frozenset({6}))
    looked.begin(soon())
    machine.processes |= {6: ("qemu", 9.0), 7: ("cc1", 11.5), 8: ("new", 3.0)}
    looked.name_others(soon())
    assert looked.others_s == {"cc1": 2.5}


def test_a_child_that_ended_counts_from_the_first_look_only() -> None:
    before = Census.of(stat_line(7, "make", 1.0) + stat_line(8, "cc1", 20.0, parent=7) + "\n")
    after = Census.of(stat_line(7, "make", 1.5, children_s=22.0) + "\n")
    assert after.used_since(before, frozenset()) == {"make": 2.5}


def test_daemons_that_ended_are_not_the_work_of_process_1() -> None:
    before = Census.of(stat_line(1, "init", 1.0, parent=0) + "\n")
    after = Census.of(stat_line(1, "init", 1.5, parent=0, children_s=90.0) + "\n")
    assert after.used_since(before, frozenset()) == {"init": 0.5}


def test_a_cpu_that_was_too_hot_meanwhile() -> None:
    machine = PaperMachine(throttled=10)
    looked = paper(machine)
    looked.begin(soon())
    machine.throttled = 13
    looked.name_others(soon())
    assert looked.recording().overheated == 3


def test_hosts_that_share_a_kernel_share_a_machine() -> None:
    one, other = PaperMachine(boot="x"), PaperMachine(boot="y")
    with ExitStack() as stack:
        pair = (host("a", one), host("b", PaperMachine(boot="x")), host("c", other))
        known = machines_of(LAB, pair, None, stack)
    assert [(machine.name, machine.hosts) for machine in known] == [
        ("controller", ()),
        ("a", ("a", "b")),
        ("c", ("c",)),
    ]


def test_a_host_that_can_not_be_reached_is_not_measured() -> None:
    with ExitStack() as stack:
        (controller,) = machines_of(LAB, (host("a", None),), None, stack)
    assert any("no route to host" in reason for reason in controller.unseen)


def test_machines_are_looked_at_until_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "EVERY_S", 0.01)
    looked = paper(PaperMachine())
    with Machines([looked], 1.0).sampling() as sampling:
        assert until(lambda: len(looked.samples) > 5, soon(), 0.01)
        (recording,) = sampling.stop()
    assert len(recording.samples) > 5
    assert not any(thread.name == "machine b" for thread in threading.enumerate())


def test_a_host_that_falls_silent_keeps_what_was_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "EVERY_S", 0.01)
    silent, other = paper(PaperMachine(answers=3)), paper(PaperMachine(), name="c")
    with Machines([silent, other], 1.0).sampling() as sampling:
        assert until(lambda: silent.unseen and len(other.samples) > 5, soon(), 0.01)
        first, second = sampling.stop()
    assert 0 < len(first.samples) < 4
    assert any("no answer before the deadline" in reason for reason in first.unseen)
    assert len(second.samples) > 5


def test_this_machine_is_looked_at() -> None:
    with ExitStack() as stack:
        (controller,) = machines_of(LAB, (), None, stack)
    controller.begin(soon())
    controller.look(soon())
    recording = controller.recording()
    assert recording.facts.cpus
    assert recording.samples[1].idle_s is not None
    assert "migrate-lab" in recording.samples[1].parts_s
