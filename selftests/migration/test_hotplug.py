"""A device that is taken out, and another that is plugged in: in the guest, and around a move."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from migrate.clock import Deadline, now_ns
from migrate.drivers.background_call import BackgroundCall
from migrate.drivers.libvirt import Domain
from migrate.errors import GuestError, HostError
from migrate.guest.probe import Probe
from migrate.migration import hop as hops
from migrate.migration import hotplug as plugging
from migrate.migration import move as migration
from migrate.migration.hop import until_device_is_back
from migrate.migration.hotplug import unplug, wait_for_carrier
from migrate.migration.move import MigrateCall, Move, Swap, classify_outcome, perform_move
from migrate.model import Event, LowerChange, Policy
from migrate.model.recording import HopRecording, MoveResult
from migrate.recorder.base import AttemptEnv, Rig
from migrate.recorder.events import Listener
from migrate.recorder.phase_tracker import PhaseTracker
from selftests.doubles.move_end import move_end

HERE = '<interface type="hostdev"><alias name="ua-vf"/></interface>'
THERE = '<interface type="hostdev"><alias name="ua-there"/></interface>'


class Guest:
    """A guest as libvirt tells of it: what is done to it is listed, and may be refused."""

    def __init__(self, host: str, listener: Listener, refuses: tuple[str, ...] = ()) -> None:
        self.host = host
        self.uuid = "0"
        self.did: list[str] = []
        self.keeps = False
        self._listener = listener
        self._refuses = refuses

    def _do(self, what: str) -> None:
        if what in self._refuses:
            raise HostError(what, host=self.host, said=f"no {what} today")
        self.did.append(what)

    def attach(self, device: str) -> None:
        self._do("attach" if device == HERE else "attach there")

    def detach(self, device: str) -> None:
        assert device == HERE
        self._do("detach")
        if not self.keeps:
            data = {"device": "ua-vf"}
            gone = Event(
                at_ns=now_ns(), source="libvirt", host=self.host, name="device-removed", data=data
            )
            self._listener.add(gone)

    def reachable(self) -> bool:
        return True

    def migrate(self, *_words: Any) -> BackgroundCall:
        return BackgroundCall("migrate to b", lambda: self._do("migrate"))

    def state(self) -> str:
        return "running"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugging, "UNPLUG_S", 0.1)
    monkeypatch.setattr(plugging, "POLL_S", 0.001)
    monkeypatch.setattr(migration, "ACCOUNT_S", 0.1)


def moved(
    here: Guest, there: Guest | None, listener: Listener, swap: Swap
) -> tuple[MigrateCall, Move]:
    policy = Policy(method="reattach", timeout_s=30)
    move = Move(move_end("a", here), move_end("b", there), policy, (), Path(), swap)
    return perform_move(cast("Domain", here), move, listener, PhaseTracker("a")), move


def steps(listener: Listener) -> list[tuple[str, str]]:
    wanted = ("attached", "detached")
    return [(event.name, event.host) for event in listener.events() if event.name in wanted]


# --- around a move ------------------------------------------------------------------------------


def test_a_device_is_taken_out_and_the_targets_is_plugged_in(listener: Listener) -> None:
    here, there = Guest("a", listener), Guest("b", listener)
    done, move = moved(here, there, listener, Swap(HERE, THERE))
    assert here.did == ["detach", "migrate"]
    assert there.did == ["attach there"]
    assert steps(listener) == [("detached", "a"), ("attached", "b")]
    assert classify_outcome(done, ("b",), move).outcome == "completed"


def test_a_move_that_fails_gives_the_device_back(listener: Listener) -> None:
    here = Guest("a", listener, refuses=("migrate",))
    done, move = moved(here, None, listener, Swap(HERE, THERE))
    assert here.did == ["detach", "attach"]
    assert steps(listener) == [("detached", "a"), ("attached", "a")]
    ended = classify_outcome(done, ("a",), move)
    assert ended.outcome == "failed"
    assert ended.error is not None
    assert ended.error.said == "no migrate today"


def test_a_device_that_does_not_come_back_is_told_with_what_came_before(
    listener: Listener,
) -> None:
    here = Guest("a", listener, refuses=("migrate", "attach"))
    done, move = moved(here, None, listener, Swap(HERE, THERE))
    error = classify_outcome(done, ("a",), move).error
    assert error is not None
    assert "no attach today" in error.said
    assert "no migrate today" in error.said


def test_a_device_that_is_kept_is_not_migrated(listener: Listener) -> None:
    here = Guest("a", listener)
    here.keeps = True
    done, move = moved(here, None, listener, Swap(HERE, THERE))
    assert here.did == ["detach"]
    ended = classify_outcome(done, ("a",), move)
    assert ended.error is not None
    assert "did not let it go" in ended.error.said
    assert ended.error.remedy


def test_a_target_that_takes_no_device_makes_the_move_a_failure(listener: Listener) -> None:
    here, there = Guest("a", listener), Guest("b", listener, refuses=("attach there",))
    done, move = moved(here, there, listener, Swap(HERE, THERE))
    ended = classify_outcome(done, ("b",), move)
    assert (ended.outcome, ended.held_by) == ("failed", ("b",))
    assert ended.error is not None
    assert ended.error.host == "b"


def test_a_side_without_a_device_is_moved_all_the_same(listener: Listener) -> None:
    here, there = Guest("a", listener), Guest("b", listener)
    done, _ = moved(here, there, listener, Swap(HERE, None))
    assert (here.did, there.did, done.call.error) == (["detach", "migrate"], [], None)
    here, there = Guest("a", listener), Guest("b", listener)
    done, _ = moved(here, there, listener, Swap(None, THERE))
    assert (here.did, there.did, done.call.error) == (["migrate"], ["attach there"], None)


def test_a_guest_that_is_not_there_after_all_is_told(listener: Listener) -> None:
    done, move = moved(Guest("a", listener), None, listener, Swap(HERE, THERE))
    error = classify_outcome(done, ("b",), move).error
    assert error is not None
    assert "not there" in error.said


def test_a_device_of_another_name_is_not_the_one_that_was_taken_out(listener: Listener) -> None:
    guest = Guest("a", listener)
    guest.keeps = True
    data = {"device": "ua-other"}
    listener.add(
        Event(at_ns=now_ns(), source="libvirt", host="a", name="device-removed", data=data)
    )
    with pytest.raises(HostError, match="did not let it go"):
        unplug(cast("Domain", guest), HERE, listener)


# --- in the guest -------------------------------------------------------------------------------


class Inside:
    """A probe whose log of devices grows with each look."""

    where = "guest"

    def __init__(self, *told: str) -> None:
        self._told: Iterator[str] = iter(told)
        self._log: list[LowerChange] = []
        self.addresses: list[tuple[str, int, int]] = []
        self.lower_log()  # what there was before

    def lower_log(self) -> tuple[LowerChange, ...]:
        for what in self._told:
            self._log.append(LowerChange(at_ns=0, device="eth0", driver="d", what=what))
            break
        return tuple(self._log)

    def address(self, ip: str, prefix: int) -> None:
        self.addresses.append((ip, prefix, len(self._log)))


LAB: Any = SimpleNamespace(guest_address="10.0.0.2", prefix=24, patience=1.0)


def waiting(inside: Inside, seconds: float = 10) -> Callable[[], None]:
    deadline = Deadline.after(seconds)
    return lambda: wait_for_carrier(cast("Probe", inside), 1, LAB, deadline)


def test_a_new_device_gets_its_address_at_once_and_is_waited_for() -> None:
    inside = Inside("up", "gone", "appeared", "down", "up", "carries")
    waiting(inside)()
    assert inside.addresses == [("10.0.0.2", 24, 3)]
    assert len(inside.lower_log()) == 6, "it was waited for until it was up, and no longer"


def test_a_link_that_goes_down_again_at_once_is_not_up_yet() -> None:
    class AtOnce(Inside):
        def lower_log(self) -> tuple[LowerChange, ...]:
            super().lower_log()
            super().lower_log()
            return super().lower_log()

    inside = AtOnce("up", "gone", "down", "appeared", "up", "down", "carries", "up")
    waiting(inside)()
    assert [change.what for change in inside._log][-1] == "up"
    assert len(inside._log) == 8


def test_a_guest_that_takes_back_what_it_logged_is_told() -> None:
    class Liar(Inside):
        def lower_log(self) -> tuple[LowerChange, ...]:
            log = super().lower_log()
            return log if len(log) < 4 else log[:1]

    with pytest.raises(GuestError, match="no carrier"):
        waiting(Liar("up", "gone", "appeared", "down", "down"), 0.3)()


def test_a_primary_that_comes_back_leaves_the_address_alone() -> None:
    inside = Inside("up", "gone", "appeared", "up")
    wait_for_carrier(cast("Probe", inside), 1, None, Deadline.after(10))
    assert inside.addresses == []


@pytest.mark.parametrize(
    ("told", "said"),
    [(("up", "gone"), "did not appear"), (("up", "appeared", "down"), "no carrier")],
)
def test_a_device_that_does_not_come_up_is_told(told: tuple[str, ...], said: str) -> None:
    with pytest.raises(GuestError, match=said) as error:
        waiting(Inside(*told), 0.2)()
    assert error.value.remedy


# --- after a move -------------------------------------------------------------------------------

DONE = HopRecording(
    source="a",
    target="b",
    result=MoveResult(outcome="completed", held_by=("b",)),
    begin_ns=0,
    end_ns=1,
)


def waited(inside: Inside, swap: Swap | None) -> HopRecording:
    """The hop after what is waited for, with as much of a rig as waits."""
    part = Rig.__new__(Rig)
    part.traffic = cast("Any", SimpleNamespace(guest=inside))
    part.env = AttemptEnv(LAB)
    return until_device_is_back(part, DONE, swap, 1)


@pytest.mark.parametrize("swap", [Swap(HERE, THERE), Swap(None, THERE)])
def test_a_guest_that_stays_deaf_was_not_moved(swap: Swap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hops, "BACK_S", 0.1)
    after = waited(Inside("up", "gone"), swap).result
    assert after.outcome == "failed"
    assert after.error is not None
    assert "did not appear" in after.error.said


def test_a_primary_that_stays_away_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guest has its network by the standby."""
    monkeypatch.setattr(hops, "BACK_S", 0.1)
    after = waited(Inside("up", "gone"), None)
    assert after.result == DONE.result
    assert "did not appear" in after.notes[0]


def test_a_device_that_never_went_is_not_waited_for() -> None:
    assert waited(Inside("up", "carries"), None) is DONE


def test_an_interface_that_came_back_has_its_address() -> None:
    inside = Inside("up", "gone", "appeared", "up")
    assert waited(inside, Swap(HERE, THERE)) is DONE
    assert [address for address, _, _ in inside.addresses] == ["10.0.0.2"]
