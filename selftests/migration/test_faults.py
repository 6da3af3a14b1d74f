"""A fault that was not done, or did not go back, makes the attempt void; the move goes on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from migrate.clock import now_ns
from migrate.errors import HostError
from migrate.migration import faults
from migrate.migration.faults import Undo, inject_faults
from migrate.migration.move import perform_move
from migrate.model import Case, Event, Fault, PhaseName
from migrate.recorder.base import Hop
from migrate.recorder.events import Listener
from migrate.recorder.phase_tracker import PhaseTracker
from selftests.doubles import synthetic
from selftests.doubles.move_end import move_end
from selftests.migration.test_move import Hung, moving, said

CUT: Fault = Fault(at="precopy", do="cut-migration-link")


def void_after(listener: Listener, *phases: PhaseName) -> tuple[str, ...]:
    tracker = PhaseTracker("a")
    hop = Hop(
        Case(id="x", faults=(CUT,)),
        cast("Any", None),
        move_end("a").host,
        move_end("b").host,
        listener,
        tracker,
    )
    with inject_faults(hop) as injection:
        for phase in phases:
            injection.on_phase(phase)
    return injection.add_to(synthetic.recording().hops[0]).void


@pytest.fixture
def does(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the fault does, and what happens when it is put back."""
    done = SimpleNamespace(count=0, error="", undo_error="")

    def undo() -> None:
        done.count -= 1
        if done.undo_error:
            raise HostError("ip link set up", host="a", said=done.undo_error)

    def cut(_host: object) -> Undo:
        if done.error:
            raise HostError("ip link set down", host="a", said=done.error)
        done.count += 1
        return undo

    monkeypatch.setattr(faults, "_ACTIONS", {"cut-migration-link": cut})
    return done


def test_a_fault_that_was_done_is_put_back_and_voids_nothing(
    does: SimpleNamespace, listener: Listener
) -> None:
    assert void_after(listener, "setup", "precopy", "precopy") == ()
    assert does.count == 0
    names = [event.name for event in listener.events()]
    assert names == ["fault: cut-migration-link", "fault over: cut-migration-link"]


@pytest.mark.usefixtures("does")
def test_a_fault_whose_phase_never_came_is_said_to_be_not_done(listener: Listener) -> None:
    assert void_after(listener, "setup") == (
        "the fault cut-migration-link at precopy was not done: the phase never came",
    )


def test_a_fault_that_fails_does_not_end_the_attempt(
    does: SimpleNamespace, listener: Listener
) -> None:
    does.error = "no such device"
    (reason,) = void_after(listener, "precopy")
    assert reason.startswith("the fault cut-migration-link at precopy was not done: ip link set")
    assert "no such device" in reason
    assert [event.name for event in listener.events()] == ["fault failed: cut-migration-link"]


def test_a_fault_is_told_before_what_it_causes(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the QEMU that it ends was ended by a question of ours."""

    def cut(_host: object) -> Undo:
        listener.add(Event(at_ns=now_ns(), source="controller", host="a", name="its effect"))
        return faults.nothing

    monkeypatch.setattr(faults, "_ACTIONS", {"cut-migration-link": cut})
    void_after(listener, "precopy")
    names = [event.name for event in listener.events()]
    assert names[:2] == ["fault: cut-migration-link", "its effect"]


def test_a_fault_that_does_not_go_back_is_said(does: SimpleNamespace, listener: Listener) -> None:
    does.undo_error = "device is busy"
    (reason,) = void_after(listener, "precopy")
    assert "was not put back" in reason
    assert "device is busy" in reason


def test_an_abort_whose_phase_never_came_is_void_whatever_gave_the_move_up(
    listener: Listener,
) -> None:
    """The time limit did: the outcome is the expected one all the same."""
    guest = Hung()
    move = moving(abort_at="device", timeout_s=0.05)
    call = perform_move(cast("Any", guest), move, listener, PhaseTracker("a"))
    assert call.aborted
    assert call.void == ("the abort at device was not done: the phase never came",)


@pytest.mark.parametrize(("status", "void"), [("active", 1), ("postcopy-active", 0)])
def test_a_postcopy_that_was_a_precopy_to_its_end_is_void(
    status: str, void: int, listener: Listener
) -> None:
    guest = Hung(begin=lambda: listener.add(said(status)))
    guest.ended.set()
    move = moving(method="postcopy", timeout_s=30)
    call = perform_move(cast("Any", guest), move, listener, PhaseTracker("a"))
    assert len(call.void) == void
