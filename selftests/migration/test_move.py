"""Acting on a move that goes on: by a libvirt that refuses, or that answers no more."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from xml.etree.ElementTree import Element

import pytest

from migrate.clock import Deadline, now_ns
from migrate.drivers.background_call import BackgroundCall
from migrate.drivers.libvirt import Domain
from migrate.errors import HostError
from migrate.migration import move as migration
from migrate.migration.faults import inject_faults
from migrate.migration.move import End, MigrateCall, Move, classify_outcome, perform_move
from migrate.model import Case, Event, Fault, PhaseName, Policy
from migrate.recorder.base import Hop
from migrate.recorder.events import Listener
from migrate.recorder.phase_tracker import PhaseTracker
from selftests.doubles.move_end import move_end


class Hung:
    """A guest whose move goes on until ``ended``; orders are counted, and may be refused."""

    def __init__(self, refuses: str = "", begin: Callable[[], None] = lambda: None) -> None:
        self._begin = begin
        self.ended = threading.Event()
        self.orders: list[str] = []
        self.parameters: dict[str, Any] = {}
        self._refuses = refuses

    def reachable(self) -> bool:
        return True

    def migrate(self, *words: Any) -> BackgroundCall:
        self.parameters = words[-1]
        self._begin()
        return BackgroundCall("migrate to b", self.ended.wait)

    def _ordered(self, order: str) -> None:
        self.orders.append(order)
        if order == self._refuses:
            raise HostError(order, host="a", said="not now")

    def abort_job(self) -> None:
        self._ordered("abort")
        self.ended.set()

    def start_postcopy(self) -> None:
        self._ordered("postcopy")
        self.ended.set()

    def suspend(self) -> None:
        self._ordered("suspend")
        self.ended.set()


def moving(**policy: object) -> Move:
    wanted = Policy.model_validate({"timeout_s": 0.05, **policy})
    return Move(move_end("a"), move_end("b"), wanted, (), Path())


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migration, "GRACE_S", 0.1)
    monkeypatch.setattr(migration, "ACCOUNT_S", 0.1)


def acted(guest: Hung, listener: Listener, move: Move) -> MigrateCall:
    done = perform_move(cast("Domain", guest), move, listener, PhaseTracker("a"))
    guest.ended.set()
    return done


@pytest.mark.parametrize(
    ("then", "order", "gave_up"),
    [("abort", "abort", True), ("suspend", "suspend", False), ("postcopy", "postcopy", False)],
)
def test_what_the_policy_says_is_ordered_at_the_time_limit(
    then: str, order: str, gave_up: bool, listener: Listener
) -> None:
    guest = Hung()
    done = acted(guest, listener, moving(on_timeout=then))
    assert (guest.orders, done.aborted, done.call.ended) == ([order], gave_up, True)


@pytest.mark.parametrize(
    ("then", "order"),
    [
        ("abort", "give up the move"),
        ("suspend", "suspend the guest"),
        ("postcopy", "switch to post-copy"),
    ],
)
def test_what_is_asked_of_libvirt_is_on_the_axis(then: str, order: str, listener: Listener) -> None:
    acted(Hung(), listener, moving(on_timeout=then))
    asked = [event for event in listener.events() if event.name.startswith("order: ")]
    assert [event.name for event in asked] == ["order: migrate to b", f"order: {order}"]
    assert {(event.source, event.host) for event in asked} == {("controller", "a")}


def test_what_waits_for_the_guest_listens_on_the_migration_network_alone(
    listener: Listener,
) -> None:
    """Whatever the target's qemu.conf says; its default is every address of the host."""
    guest, move = Hung(), moving()
    acted(guest, listener, move)
    address = move.target.host.migration_address
    assert guest.parameters["listen_address"] == address
    assert guest.parameters["migrate_uri"] == f"tcp://{address}"


def test_an_order_that_is_refused_is_a_note_and_the_move_an_attempt(listener: Listener) -> None:
    guest = Hung(refuses="abort")
    move = moving()
    done = acted(guest, listener, move)
    assert done.notes == ("give up the move: abort on host a: not now",)
    moved = classify_outcome(done, ("a",), move)
    assert (moved.outcome, moved.held_by) == ("failed", ("a",))
    assert moved.error is not None
    assert moved.error.said == "libvirt's call did not end"


@pytest.mark.parametrize("then", ["suspend", "postcopy"])
def test_what_does_not_end_by_the_policy_is_given_up(then: str, listener: Listener) -> None:
    guest = Hung(refuses=then)
    move = moving(on_timeout=then)
    done = acted(guest, listener, move)
    assert guest.orders == [then, "abort"]
    assert classify_outcome(done, ("a",), move).outcome == "aborted"


def test_a_phase_to_abort_at_is_acted_on_when_it_is_seen(listener: Listener) -> None:
    data = {"status": "active"}
    begun = Event(at_ns=now_ns(), source="qemu", host="a", name="MIGRATION", data=data)
    guest = Hung(begin=lambda: listener.add(begun))
    move = moving(abort_at="precopy", timeout_s=30)
    done = acted(guest, listener, move)
    assert guest.orders == ["abort"]
    assert classify_outcome(done, ("a",), move).outcome == "aborted"


def said(status: str) -> Event:
    data = {"status": status}
    return Event(at_ns=now_ns(), source="qemu", host="a", name="MIGRATION", data=data)


@pytest.mark.parametrize(("phase", "statuses"), [("wait-unplug", 1), ("standby", 2)])
def test_a_move_is_given_up_while_the_primary_is_on_its_way_out_or_gone(
    phase: PhaseName, statuses: int, listener: Listener
) -> None:
    def begin() -> None:
        for status in ("wait-unplug", "active")[:statuses]:
            listener.add(said(status))

    guest = Hung(begin=begin)
    done = acted(guest, listener, moving(abort_at=phase, timeout_s=30))
    assert guest.orders == ["abort"]
    assert done.aborted


def test_standby_does_not_begin_with_the_status_that_asks_for_the_unplug(
    listener: Listener,
) -> None:
    guest = Hung(begin=lambda: listener.add(said("wait-unplug")))
    acted(guest, listener, moving(abort_at="standby", on_timeout="suspend"))
    assert guest.orders == ["suspend"]


@pytest.mark.parametrize("at", ["wait-unplug", "standby", "replug"])
def test_a_fault_waits_for_the_phases_of_a_primary(
    at: PhaseName, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def kill(host: Any, _uuid: str, _signal: str) -> bool:
        done.append(host.name)
        return True

    monkeypatch.setattr("migrate.migration.faults.signal_qemu", kill)
    negotiated = said("").model_copy(update={"host": "b", "name": "FAILOVER_NEGOTIATED"})
    script = {
        "setup": said("setup"),
        "wait-unplug": said("wait-unplug"),
        "standby": said("active"),
        "replug": negotiated,
    }
    case = Case(id="x", faults=(Fault(at=at, do="kill-guest", on="target"),))
    phases, nobody = PhaseTracker("a"), cast("Any", None)
    hop = Hop(case, nobody, move_end("a").host, move_end("b").host, listener, phases)
    with inject_faults(hop) as faults:
        for name, event in script.items():
            phases.feed(event)
            assert done == ([] if list(script).index(name) < list(script).index(at) else ["b"])
        assert faults.not_done() == ()


def frozen(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[str], bool]
) -> tuple[list[str], threading.Event]:
    """The signals that the target's QEMU gets, and whether one let it go on."""
    signals: list[str] = []
    went_on = threading.Event()

    def send(host: Any, _uuid: str, signal: str) -> bool:
        assert host.name == "b"
        signals.append(signal)
        if signal == "CONT":
            went_on.set()
        return answer(signal)

    monkeypatch.setattr("migrate.migration.faults.signal_qemu", send)
    return signals, went_on


def freezing(listener: Listener, for_s: float | None) -> tuple[Hop, PhaseTracker]:
    fault = Fault(at="device", do="freeze-guest", on="target", for_s=for_s)
    phases, nobody = PhaseTracker("a"), cast("Any", None)
    case = Case(id="x", faults=(fault,))
    return Hop(case, nobody, move_end("a").host, move_end("b").host, listener, phases), phases


def test_a_fault_with_a_time_ends_by_itself_and_is_put_back_once(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    signals, went_on = frozen(monkeypatch, lambda _signal: True)
    hop, phases = freezing(listener, for_s=0.001)
    with inject_faults(hop):
        phases.feed(said("device"))
        assert went_on.wait(20)
        over = "fault over: freeze-guest"
        assert listener.wait(lambda event: event.name == over, Deadline.after(20))
    assert signals == ["STOP", "CONT"]


@pytest.mark.parametrize("for_s", [None, 1000.0])
def test_a_fault_lasts_no_longer_than_the_move(
    for_s: float | None, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    signals, _ = frozen(monkeypatch, lambda _signal: True)
    hop, phases = freezing(listener, for_s)
    with inject_faults(hop):
        phases.feed(said("device"))
        assert signals == ["STOP"]
    assert signals == ["STOP", "CONT"]
    names = [event.name for event in listener.events()]
    assert names == ["fault: freeze-guest", "fault over: freeze-guest"]


def test_a_guest_that_is_not_there_can_not_be_frozen(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen(monkeypatch, lambda _signal: False)
    hop, phases = freezing(listener, for_s=None)
    with inject_faults(hop) as faults:
        phases.feed(said("device"))
    (trouble,) = faults.troubles
    assert "was not done" in trouble
    assert "does not run there" in trouble


def test_what_could_not_be_put_back_in_time_is_tried_again_and_told(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[str] = []
    tried = threading.Event()

    def refuse(_host: Any, _uuid: str, signal: str) -> bool:
        tries.append(signal)
        if signal == "CONT":
            tried.set()
            raise HostError("signal", said="no route to host")
        return True

    monkeypatch.setattr("migrate.migration.faults.signal_qemu", refuse)
    hop, phases = freezing(listener, for_s=0.001)
    with inject_faults(hop) as faults:
        phases.feed(said("device"))
        assert tried.wait(20)
    (trouble,) = faults.troubles
    assert "was not put back" in trouble
    assert "no route to host" in trouble
    assert tries == ["STOP", "CONT", "CONT"]


@pytest.mark.parametrize(
    ("held", "outcome"), [((), "lost"), (("a", "b"), "failed"), (("b",), "completed")]
)
def test_the_holders_decide_how_it_ended(
    held: tuple[str, ...], outcome: str, listener: Listener
) -> None:
    guest = Hung()
    guest.ended.set()
    move = moving()
    assert classify_outcome(acted(guest, listener, move), held, move).outcome == outcome


def test_a_refusal_by_number_comes_with_what_would_lift_it(listener: Listener) -> None:
    def refuse() -> None:
        raise RuntimeError("unable to execute 'migrate': vdpa svq does not work with features 0x40")

    guest = Hung()
    guest.migrate = lambda *_: BackgroundCall("migrate to b", refuse)  # type: ignore[method-assign]
    move = moving(timeout_s=30)
    moved = classify_outcome(acted(guest, listener, move), ("a",), move)
    assert (moved.outcome, moved.held_by) == ("failed", ("a",))
    assert moved.error is not None
    assert "features 0x40" in moved.error.said
    assert "features_off = ['gso']" in moved.error.remedy


def test_a_saved_guest_is_restored_with_what_backs_it_on_the_target(
    listener: Listener, tmp_path: Path
) -> None:
    restored: list[tuple[object, ...]] = []
    target = SimpleNamespace(restore=lambda *words: restored.append(words))

    class Saved(Hung):
        def xml(self, *, migratable: bool) -> str:
            assert migratable
            return "<domain><devices><emulator>x</emulator></devices></domain>"

        def save(self, path: str) -> None:
            Path(path).touch()

    def other(root: Element) -> None:
        root.set("type", "kvm")

    wanted = Policy(method="save-restore")
    there = End(move_end("b").host, cast("Any", target))
    for rewrites in ((), (other,)):
        move = Move(move_end("a"), there, wanted, rewrites, tmp_path / "saved")
        acted(Saved(), listener, move)
    (plain, changed) = [words[2] for words in restored]
    assert plain is None
    assert 'type="kvm"' in str(changed)
