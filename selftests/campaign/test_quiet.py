"""Waiting for a quiet machine: until it is, until the deadline, and where nothing is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from migrate import log
from migrate.campaign import quiet
from migrate.campaign.quiet import wait_quiet
from migrate.errors import HostError
from migrate.lab.api import Lab
from migrate.recorder.machines import Machine
from migrate.recorder.programs import Programs
from selftests.doubles.machine import PaperMachine

LAB = cast("Lab", SimpleNamespace(patience=1.0))
Turn = Callable[[PaperMachine], None]


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """On a machine of two CPUs others use one for two looks, which last a second on paper and next
    to nothing here; what was said."""
    machine = PaperMachine(processes={7: ("stress-ng", 0.0)})
    seconds = 0

    def second_passes(_seconds: float) -> None:
        nonlocal seconds
        seconds += 1
        machine.idle_s += 0.002 if seconds <= 2 else 10.0
        machine.processes[7] = ("stress-ng", float(seconds))

    said: list[str] = []
    one = Machine("controller", (), {"": Programs(machine)}, machine.run)
    monkeypatch.setattr(quiet, "machines_of", lambda *_: [one])
    monkeypatch.setattr(quiet, "pause", second_passes)
    with log.shown(said.append):
        yield said


def test_it_waits_until_others_have_gone(beside: list[str]) -> None:
    looks: list[str] = []
    assert wait_quiet(LAB, (), 3600, lambda: looks.append("still ours")) == ()
    assert len(looks) == 3
    (line,) = beside
    assert "waiting for a quiet machine" in line
    assert "stress-ng" in line
    assert line.endswith("; 0 s so far, 3600 s at most")


def test_at_the_deadline_it_goes_on_and_the_attempt_has_a_note(beside: list[str]) -> None:
    (note,) = wait_quiet(LAB, (), 0.0, lambda: None)
    assert "was not quiet when waiting ended" in note
    assert "programs of others used" in note
    assert "the time to wait is over" in beside[-1]


def test_hosts_that_are_not_ours_any_more_are_not_waited_for(beside: list[str]) -> None:
    def gone() -> None:
        raise HostError("hold the lease", said="it was taken")

    with pytest.raises(HostError, match="it was taken"):
        wait_quiet(LAB, (), 3600, gone)
    assert beside == []


def test_a_machine_that_can_not_be_asked_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*_: Any) -> list[Machine]:
        raise HostError("connect", host="b", said="no route to host")

    monkeypatch.setattr(quiet, "machines_of", nobody)
    (note,) = wait_quiet(LAB, (), 3600, lambda: None)
    assert "not known" in note
    assert "no route to host" in note
