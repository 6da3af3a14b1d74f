"""A hop and those who listen meanwhile: what they have seen is in its recording."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from migrate import waiting
from migrate.drivers.background_call import BackgroundCall
from migrate.migration import hop as hops
from migrate.migration.hop import move_guest
from migrate.migration.move import MigrateCall, Move, longest_s
from migrate.model import Case, Event, PhaseName, Policy, ReportedFigures
from migrate.model.recording import HopRecording
from migrate.recorder.base import AttemptEnv, Hop, Observer, Rig
from migrate.recorder.events import Listener
from migrate.recorder.phase_tracker import PhaseTracker
from selftests.helpers import SaidSoFar

LAB: Any = SimpleNamespace(name="lab", shared=Path("/shared"), patience=1.0)


def host(name: str) -> Any:
    return SimpleNamespace(name=name, connect=nullcontext)


class Clocks:
    """Clocks that note nothing."""

    def observe(self, _hop: Hop) -> Any:
        return nullcontext(SimpleNamespace(add_to=lambda recording: recording))


def rig(phases: list[PhaseName]) -> Rig:
    listener = Listener()
    listener.resubscribe = lambda *_hosts: (  # type: ignore[method-assign]
        "events of b were missed",
    )
    traffic = SimpleNamespace(read_guest_clock=lambda: None)
    domain = SimpleNamespace(host="a", uuid="0", state=lambda: "running")
    plain: dict[str, Any] = {"a": None, "b": None}
    return Rig(
        case=Case(id="x"),
        env=AttemptEnv(LAB, on_phase=phases.append),
        pair=(host("a"), host("b")),
        domain=cast("Any", domain),
        traffic=cast("Any", traffic),
        listener=listener,
        clocks=cast("Any", Clocks()),
        rewrites={"a": (), "b": ()},
        hotplug=plain,
        start=cast("Any", SimpleNamespace(nic=None)),
        machines=cast("Any", None),
    )


def noting(name: str, log: list[str]) -> Observer:
    """An observer that notes its name, and when it began and ended."""

    @contextmanager
    def observe(hop: Hop) -> Iterator[Any]:
        assert (hop.source.name, hop.target.name) == ("a", "b")
        log.append(f"{name} begins")

        def add_to(recording: HopRecording) -> HopRecording:
            return recording.model_copy(update={"notes": (*recording.notes, name)})

        try:
            yield SimpleNamespace(add_to=add_to)
        finally:
            log.append(f"{name} ends")

    return observe


def test_what_every_observer_has_seen_is_in_the_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    phases: list[PhaseName] = []

    def moved(_domain: Any, _move: Any, _listener: Any, tracker: PhaseTracker) -> MigrateCall:
        log.append("the guest is moved")
        return MigrateCall(
            BackgroundCall("migrate", lambda: None), True, ReportedFigures(), ("refused",)
        )

    monkeypatch.setattr(hops, "OBSERVERS", (noting("one", log), noting("two", log)))
    monkeypatch.setattr(hops, "perform_move", moved)
    monkeypatch.setattr(hops, "holders", lambda _hosts, _uuid: ("a",))
    monkeypatch.setattr(hops, "guest_states", lambda *_words, **_names: ())
    recording = move_guest(rig(phases))
    assert log == ["one begins", "two begins", "the guest is moved", "two ends", "one ends"]
    assert recording.notes == ("refused", "one", "two")
    assert recording.missed_events == ("events of b were missed",)
    assert recording.result.held_by == ("a",)
    assert recording.begin_ns <= recording.end_ns


def test_a_move_that_shows_no_progress_tells_what_it_waits_for(
    monkeypatch: pytest.MonkeyPatch, told: SaidSoFar
) -> None:
    loading = threading.Event()

    def ticks(_ended: threading.Event) -> Iterator[float]:
        assert loading.wait(30)
        yield 69.0

    def moved(_domain: Any, move: Move, _listener: Any, tracker: PhaseTracker) -> MigrateCall:
        data = {"status": "device"}
        tracker.feed(Event(at_ns=0, source="qemu", host="a", name="MIGRATION", data=data))
        loading.set()
        return MigrateCall(BackgroundCall("migrate", lambda: None), True, ReportedFigures())

    monkeypatch.setattr(waiting, "ticks", ticks)
    monkeypatch.setattr(hops, "OBSERVERS", ())
    monkeypatch.setattr(hops, "perform_move", moved)
    monkeypatch.setattr(hops, "holders", lambda _hosts, _uuid: ("a",))
    monkeypatch.setattr(hops, "guest_states", lambda *_words, **_names: ())
    phases: list[PhaseName] = []
    move_guest(rig(phases))
    assert (
        "waiting for the move to host b (phase device for 0 s: device state is sent and loaded)"
        in told
    )
    assert f"; 69 s so far, {longest_s(Policy()):.0f} s at most" in told
    assert phases == ["device"], "the display hears of it as ever"


def test_an_observer_that_fails_at_its_end_loses_no_move(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def failing(_hop: Hop) -> Iterator[Any]:
        yield SimpleNamespace(add_to=lambda recording: recording)
        raise KeyError("status")

    def moved(*_words: Any) -> MigrateCall:
        return MigrateCall(BackgroundCall("migrate", lambda: None), True, ReportedFigures())

    monkeypatch.setattr(hops, "OBSERVERS", (failing,))
    monkeypatch.setattr(hops, "perform_move", moved)
    monkeypatch.setattr(hops, "holders", lambda _hosts, _uuid: ("a",))
    monkeypatch.setattr(hops, "guest_states", lambda *_words, **_names: ())
    recording = move_guest(rig([]))
    assert recording.void == ("an observer failed: KeyError: 'status'",)
    assert recording.result.held_by == ("a",)


def test_observers_end_also_if_the_move_can_not_be_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log: list[str] = []

    def refused(*_words: Any) -> MigrateCall:
        raise ValueError("not so")

    monkeypatch.setattr(hops, "OBSERVERS", (noting("one", log),))
    monkeypatch.setattr(hops, "perform_move", refused)
    with pytest.raises(ValueError, match="not so"):
        move_guest(rig([]))
    assert log == ["one begins", "one ends"]
