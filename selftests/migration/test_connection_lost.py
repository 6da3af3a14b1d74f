"""The controller's connection to a host's libvirt breaks in the middle of a move: what came of it
is found out afterwards from both hosts."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from migrate.campaign.progress import Progress
from migrate.campaign.session import Session
from migrate.clock import Deadline
from migrate.drivers.background_call import BackgroundCall
from migrate.drivers.libvirt import Hypervisor
from migrate.errors import HostError
from migrate.guest import lifecycle as guest
from migrate.guest.lifecycle import settled
from migrate.lab.api import Host
from migrate.lab.namespaces import NamespaceHost
from migrate.migration.move import End, MigrateCall, Move, classify_outcome
from migrate.model import Attempt, Case, PhaseName, Policy, ReportedFigures
from selftests.doubles.relay import Relay

# --- on a lab ---


@pytest.fixture
def relays(
    tmp_path_factory: pytest.TempPathFactory, going: Session, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Mapping[str, Relay]]:
    """One by host: whoever connects to its libvirt goes through it."""
    folder: Path = tmp_path_factory.mktemp("r")
    made: dict[str, Relay] = {}
    for name, host in going.lab.hosts.items():
        assert isinstance(host, NamespaceHost)
        made[name] = Relay(folder / name, functools.partial(host.file, "/run/libvirt/libvirt-sock"))

    def connect(host: NamespaceHost) -> Hypervisor:
        return Hypervisor.open(f"qemu+unix:///system?socket={made[host.name].path}", host.name)

    monkeypatch.setattr(NamespaceHost, "connect", connect)
    yield made
    for relay in made.values():
        relay.close()


def cut_at(going: Session, relay: Relay, at: PhaseName, policy: dict[str, Any]) -> Attempt:
    """A move in which the connections of ``relay`` are cut when a phase begins."""
    cuts: list[int] = []

    class Cutter(Progress):
        def on_phase(self, phase: PhaseName) -> None:
            if phase == at and not cuts:
                cuts.append(relay.cut())

    session = dataclasses.replace(going, reporter=Cutter(quiet=True))
    fields = {"interface": {"mode": "virtio"}, "policy": {"bandwidth_mib_s": 32, **policy}}
    wanted = Case.model_validate({"id": "cut", **fields})
    place = session.place(wanted)
    assert isinstance(place, tuple)
    found = session.attempt(wanted, 1, place)
    assert cuts, "the phase came"
    assert cuts[0] >= 1, "there was something to cut"
    return found


def is_whole(attempt: Attempt) -> None:
    """Wherever the guest is, it is there once, and as it was; and nothing is left over."""
    assert len(attempt.held_by) == 1
    results = {one.check: one.result for one in attempt.verdicts}
    for check in ("memory", "tcp", "device", "network", "clean"):
        assert results[check] == "pass", check


@pytest.mark.parametrize(
    ("transport", "outcome", "holder"),
    [("peer-to-peer", "completed", "b"), ("direct", "failed", "a")],
)
def test_the_sources_connection_breaks_while_memory_is_copied(
    going: Session, relays: Mapping[str, Relay], transport: str, outcome: str, holder: str
) -> None:
    """The hosts go on with their move for seconds; libvirtd gives up one that its client led."""
    found = cut_at(going, relays["a"], "precopy", {"transport": transport})
    assert (found.outcome, found.held_by) == (outcome, (holder,))
    assert (found.error is None) == (outcome == "completed")
    assert found.reported == ReportedFigures()
    assert any("outcome is who holds the guest now" in note for note in found.notes)
    assert any("on a broke: what happened there" in note for note in found.inside[0].unseen)
    assert not found.inside[0].placed
    is_whole(found)


@pytest.mark.parametrize("transport", ["peer-to-peer", "direct"])
def test_the_sources_connection_breaks_when_the_guest_has_stopped(
    going: Session, relays: Mapping[str, Relay], transport: str
) -> None:
    """It may be too late to give it up: the outcome is where the guest is."""
    found = cut_at(going, relays["a"], "stopped", {"transport": transport})
    assert found.outcome == {"a": "failed", "b": "completed"}[found.held_by[0]]
    assert (found.error is None) == (found.outcome == "completed")
    assert found.reported == ReportedFigures()
    assert any("outcome is who holds the guest now" in note for note in found.notes)
    is_whole(found)


@pytest.mark.parametrize("at", ["precopy", "stopped"])
def test_the_targets_connection_breaks(
    going: Session, relays: Mapping[str, Relay], at: PhaseName
) -> None:
    """Peer to peer the hosts do without it; its events are missing, and said to be."""
    found = cut_at(going, relays["b"], at, {})
    assert (found.outcome, found.held_by) == ("completed", ("b",))
    assert found.reported.downtime_ms is not None
    assert found.explained is None
    assert any("on b broke: what happened there" in note for note in found.notes)
    is_whole(found)


def test_a_direct_move_fails_without_its_target(
    going: Session, relays: Mapping[str, Relay]
) -> None:
    found = cut_at(going, relays["b"], "precopy", {"transport": "direct"})
    assert (found.outcome, found.held_by) == ("failed", ("a",))
    is_whole(found)


# --- by scripted hosts ---


@dataclass
class Scripted:
    """A host whose libvirt says in turn: a job or none, no guest (None), or that it is not there;
    the last of them again and again."""

    says: list[bool | HostError | None]
    asked: int = field(default=0)

    @contextmanager
    def connect(self) -> Iterator[Scripted]:
        self.asked += 1
        now = self.says[0] if len(self.says) == 1 else self.says.pop(0)
        if isinstance(now, HostError):
            raise now
        self.now = now
        yield self

    def find(self, _name: str) -> Scripted | None:
        return None if self.now is None else self

    def in_job(self) -> bool:
        assert self.now is not None
        return self.now


GONE = HostError("connect to libvirt", host="b", said="refused")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest, "POLL_S", 0.001)


def wait_for(*hosts: Scripted, seconds: float = 60) -> bool:
    return settled(cast("list[Host]", list(hosts)), "0", Deadline.after(seconds))


def test_it_is_waited_for_until_no_host_is_at_work() -> None:
    source, target = Scripted([True, True, None]), Scripted([True, True, False])
    assert wait_for(source, target)
    assert source.asked + target.asked >= 6


def test_a_host_that_comes_back_is_asked_then() -> None:
    target = Scripted([GONE, GONE, False])
    assert wait_for(Scripted([None]), target)
    assert target.asked == 3


def test_a_job_that_goes_on_at_the_deadline_is_said() -> None:
    assert not wait_for(Scripted([True]), Scripted([False]), seconds=0)


def test_a_host_that_does_not_come_back_is_an_error_and_no_outcome() -> None:
    with pytest.raises(HostError, match="refused"):
        wait_for(Scripted([None]), Scripted([GONE]), seconds=0)


@pytest.mark.parametrize(
    ("held", "outcome", "has_error"),
    [
        (("b",), "completed", False),
        (("a",), "failed", True),
        (("a", "b"), "failed", True),
        ((), "lost", True),
    ],
)
def test_the_outcome_is_who_holds_the_guest(
    held: tuple[str, ...], outcome: str, has_error: bool
) -> None:
    def broke() -> None:
        raise HostError("migrate", host="a", said="End of file while reading data")

    call = BackgroundCall("migrate to b", broke)
    assert call.wait(Deadline.after(60))
    ends = [End(cast("Any", Scripted([])), cast("Any", None)) for _ in "ab"]
    for end, name in zip(ends, "ab", strict=True):
        cast("Any", end.host).name = name
    move = Move(ends[0], ends[1], Policy(), (), Path())
    found = classify_outcome(
        MigrateCall(call, aborted=False, reported=ReportedFigures(), lost=True), held, move
    )
    assert (found.outcome, found.error is not None) == (outcome, has_error)
    heard = classify_outcome(
        MigrateCall(call, aborted=False, reported=ReportedFigures()), held, move
    )
    assert heard.outcome != "completed", "an error that was heard is one"
