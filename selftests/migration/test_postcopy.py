"""A post-copy of which libvirt's call has failed: what can still happen is waited for."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from migrate.clock import Deadline, now_ns
from migrate.drivers.background_call import BackgroundCall
from migrate.errors import HostError
from migrate.migration import hop as hops
from migrate.migration import postcopy
from migrate.migration.hop import _how_it_ended
from migrate.migration.move import MigrateCall, Move
from migrate.migration.postcopy import await_postcopy, guest_states, is_postcopy
from migrate.model import Event, Policy, ReportedFigures
from migrate.model.recording import GuestState, MoveResult
from migrate.recorder.base import AttemptEnv
from migrate.recorder.events import Listener
from selftests.doubles.move_end import move_end


def said(status: str, host: str = "a") -> Event:
    data = {"status": status}
    return Event(at_ns=now_ns(), source="qemu", host=host, name="MIGRATION", data=data)


HOSTS: Any = (SimpleNamespace(name="a"), SimpleNamespace(name="b"))


@pytest.fixture(autouse=True)
def held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postcopy, "holders", lambda _hosts, _uuid: ("b",))


def test_only_a_guest_that_was_switched_over_is_in_postcopy() -> None:
    assert is_postcopy([said("active"), said("postcopy-active")], "a")
    assert not is_postcopy([said("active"), said("postcopy-active", "b")], "a")


def test_what_goes_on_by_itself_is_waited_for(listener: Listener) -> None:
    listener.add(said("postcopy-active"))
    later = threading.Timer(0.05, lambda: listener.add(said("completed")))
    later.start()
    assert await_postcopy(listener, HOSTS, "0", 0, Deadline.after(60)) == "completed"


@pytest.mark.parametrize(
    ("status", "end"),
    [("postcopy-paused", "stuck"), ("failed", "failed"), ("cancelled", "failed")],
)
def test_a_status_that_is_final_ends_the_wait(listener: Listener, status: str, end: str) -> None:
    for event in (said("postcopy-active"), said(status)):
        listener.add(event)
    assert await_postcopy(listener, HOSTS, "0", 0, Deadline.after(60)) == end


def test_what_does_not_end_by_the_deadline_is_stuck(listener: Listener) -> None:
    listener.add(said("postcopy-active"))
    assert await_postcopy(listener, HOSTS, "0", 0, Deadline.after(0.01)) == "stuck"


def broken_call() -> MigrateCall:
    def fail() -> None:
        raise HostError("migrate to b", host="a", said="client socket is closed")

    call = BackgroundCall("migrate to b", fail)
    assert call.wait(Deadline.after(60))
    return MigrateCall(call, aborted=False, reported=ReportedFigures())


STATES = (
    GuestState(
        host="a",
        libvirt="paused (postcopy-failed)",
        qemu="finish-migrate",
        migration="postcopy-paused",
    ),
    GuestState(host="b", libvirt="running (postcopy)", qemu="running", migration="postcopy-paused"),
)


def ended(
    listener: Listener, monkeypatch: pytest.MonkeyPatch, *events: Event
) -> tuple[MoveResult, tuple[str, ...], tuple[str, ...]]:
    for event in events:
        listener.add(event)
    monkeypatch.setattr(hops, "guest_states", lambda *_words, **_names: STATES)
    env = AttemptEnv(SimpleNamespace(patience=0.0001))
    rig: Any = SimpleNamespace(domain=SimpleNamespace(uuid="0"), listener=listener, env=env)
    move = Move(move_end("a"), move_end("b"), Policy(method="postcopy"), (), Path())
    return _how_it_ended(rig, broken_call(), move, 0)


def test_a_postcopy_that_lost_its_link_is_recoverable_in_the_words_of_both(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hops, "holders", lambda _hosts, _uuid: ())
    events = said("postcopy-active"), said("postcopy-paused")
    result, _notes, void = ended(listener, monkeypatch, *events)
    assert (result.outcome, result.states, void) == ("recoverable", STATES, ())
    assert result.error is not None
    assert result.error.said == (
        "recoverable; recovering was not tried; "
        "libvirt on a: paused (postcopy-failed), QEMU: finish-migrate, its migration: "
        "postcopy-paused; libvirt on b: running (postcopy), QEMU: running, its migration: "
        "postcopy-paused; client socket is closed"
    )
    assert "--postcopy-resume" in result.error.remedy


def test_one_that_completed_by_itself_is_completed_with_a_note(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hops, "holders", lambda _hosts, _uuid: ("b",))
    result, notes, _void = ended(listener, monkeypatch, said("postcopy-active"), said("completed"))
    assert (result.outcome, result.held_by, result.error) == ("completed", ("b",), None)
    assert notes == (hops.WENT_ON,)


def test_a_precopy_that_fails_is_not_waited_for(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hops, "holders", lambda _hosts, _uuid: ())
    result, notes, _void = ended(listener, monkeypatch, said("active"))
    assert (result.outcome, notes) == ("lost", ())


def test_who_holds_the_guest_is_not_guessed_where_a_host_can_not_be_asked(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_hosts: object, _uuid: str) -> tuple[str, ...]:
        raise HostError("connect to libvirt", host="b", said="refused")

    monkeypatch.setattr(hops, "holders", gone)
    result, _notes, void = ended(listener, monkeypatch, said("active"))
    assert void == ("who holds the guest is not known: connect to libvirt on host b: refused",)
    assert result.error is not None
    assert result.error.host == "b"


def test_what_can_not_be_asked_says_why() -> None:
    def connect() -> Any:
        raise HostError("connect to libvirt", host="a", said="refused")

    (state,) = guest_states(
        (SimpleNamespace(name="a", connect=connect),),
        "0",
        ask_qemu=True,
    )
    assert "refused" in state.libvirt
    assert state.qemu is None
