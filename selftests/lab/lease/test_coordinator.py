"""Leases across controllers, at labgrid's own coordinator: a real one, on loopback.

Its clock runs faster where a lease has to expire; then the holders' times are as much shorter.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("labgrid", reason="labgrid is not installed: pip install labgrid")

from migrate import log
from migrate.clock import Deadline
from migrate.errors import HostError, LeaseLostError
from migrate.lab.lease.coordinator import (
    CoordinatorSession,
    RefusedError,
    UnreachableError,
    session,
)
from migrate.lab.lease.reservation import MARKER, ReservedPlaces, Times, reserve_places
from selftests.helpers import ROOT, soon

FASTER = 20.0
QUICK = Times(refresh=10 / FASTER, lost=45 / FASTER, settle=60 / FASTER, repeat=0.5)
PATIENT = Times(refresh=QUICK.refresh, lost=30.0, settle=8.0, repeat=0.5)
"""For one that starts anew: on a busy machine that takes longer than a lease that is in a hurry."""
PAIR = ("rack/a", "rack/b")
PROGRAM = ROOT / "selftests" / "doubles" / "quick_coordinator.py"
GIVE_UP_S = 60.0


class Coordinator:
    """A coordinator that can be ended and started again on the same port, with its places."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = "127.0.0.1:0"

    def start(self) -> None:
        command = [sys.executable, str(PROGRAM), str(FASTER), self.address]
        self.process = subprocess.Popen(
            command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := re.match(r"listening on (\S+)", line):
                self.address = found[1]
                break
        else:
            pytest.fail("the coordinator did not start")
        self._drain = threading.Thread(target=self.process.stdout.read)
        self._drain.start()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._drain.join()
        if self.process.stdout:
            self.process.stdout.close()

    def saved(self) -> None:
        """Wait until it has written down its places."""
        while "rack/b" not in self._places():
            threading.Event().wait(0.05)

    def _places(self) -> str:
        file = self.folder / "places.yaml"
        return file.read_text() if file.exists() else ""


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Coordinator]:
    made = Coordinator(tmp_path)
    made.start()
    try:
        with session(made.address, "the test") as asked:
            for place in PAIR:
                asked.register(place, {"mode": "vdpa"})
        yield made
    finally:
        made.kill()


@pytest.fixture
def settled(coordinator: Coordinator) -> Coordinator:
    """One that was started long ago."""
    with session(coordinator.address, "the test") as asked:
        asked.register(MARKER)
        asked.acquire(MARKER)
    return coordinator


class Waits:
    """What is said of those who wait, to be awaited."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._more = threading.Condition()

    def __call__(self, line: str) -> None:
        with self._more:
            self.lines.append(line)
            self._more.notify_all()

    def wait(self, pattern: str, times: int = 1) -> str:
        def found() -> bool:
            return sum(bool(re.search(pattern, line)) for line in self.lines) >= times

        with self._more:
            assert self._more.wait_for(found, GIVE_UP_S), self.lines
            return next(line for line in self.lines if re.search(pattern, line))


@pytest.fixture
def told() -> Iterator[Waits]:
    lines = Waits()
    with log.shown(lines):
        yield lines


@contextlib.contextmanager
def in_thread(work: Callable[[], None]) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(GIVE_UP_S)
        assert not thread.is_alive()


def hold(coordinator: Coordinator, who: str, times: Times = QUICK) -> ReservedPlaces:
    lease = ReservedPlaces(coordinator.address, who, times=times)
    try:
        lease.take(PAIR, soon(GIVE_UP_S))
    except BaseException:
        lease.close()
        raise
    return lease


def held_by(coordinator: Coordinator) -> list[str]:
    with session(coordinator.address, "looking") as asked:
        return [asked.holder(place) if _is_held(asked, place) else "" for place in PAIR]


def _is_held(asked: CoordinatorSession, name: str) -> bool:
    place = asked.place(name)
    return place is not None and bool(place.reservation)


# --- taking and giving back -----------------------------------------------------------------------


def test_two_jobs_race_for_the_last_pair(settled: Coordinator, told: Waits) -> None:
    has = threading.Event()

    def second() -> None:
        # The other way round: the order in which they are named makes no deadlock.
        with reserve_places(
            settled.address, PAIR[::-1], "second", soon(GIVE_UP_S), times=QUICK
        ) as lease:
            lease.check()
            has.set()

    with reserve_places(
        settled.address, PAIR, "process 1 of alice@ctl", soon(GIVE_UP_S), times=QUICK
    ):
        assert told.lines == []
        thread = threading.Thread(target=second)
        thread.start()
        line = told.wait("waiting for host rack/a", times=2)  # and says so again
        assert re.search(
            r"held by process 1 of alice@ctl, since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC; 0 s", line
        )
        assert not has.is_set()
    assert has.wait(GIVE_UP_S)
    thread.join()
    assert held_by(settled) == ["", ""]


def test_at_the_deadline_neither_is_held(settled: Coordinator) -> None:
    with reserve_places(settled.address, ["rack/b"], "first", soon(GIVE_UP_S), times=QUICK):
        with (
            pytest.raises(HostError, match=r"held by first, since .* until the deadline") as caught,
            reserve_places(settled.address, PAIR, "second", Deadline.after(1), times=QUICK),
        ):
            pytest.fail("it was held twice")
        assert caught.value.host == "rack/b"
        assert held_by(settled)[0] == "", "the first of the pair was given back"


def test_many_jobs_never_hold_a_host_together(settled: Coordinator) -> None:
    using: set[str] = set()
    met: list[str] = []

    def job(places: tuple[str, ...]) -> None:
        for _ in range(3):
            with reserve_places(
                settled.address, places, "job", soon(GIVE_UP_S), times=QUICK
            ) as lease:
                if using & set(places):
                    met.extend(places)
                using.update(places)
                lease.check()
                using.difference_update(places)

    with contextlib.ExitStack() as stack:
        for places in (PAIR, PAIR[::-1], PAIR[:1], PAIR[1:]):
            stack.enter_context(in_thread(partial(job, places)))
    assert met == []


@pytest.mark.usefixtures("silent")
def test_what_is_leased_can_not_be_acquired_by_labgrids_tools(settled: Coordinator) -> None:
    with (
        reserve_places(settled.address, PAIR, "first", soon(GIVE_UP_S), times=QUICK),
        session(settled.address, "ctl/bob") as other,
        pytest.raises(RefusedError, match="not reserved for ctl/bob"),
    ):
        other.acquire("rack/a")


def test_what_was_acquired_by_labgrids_tools_is_waited_for(settled: Coordinator) -> None:
    with session(settled.address, "ctl/bob") as other:
        other.acquire("rack/a")
    with (
        pytest.raises(HostError, match="held by ctl/bob, who acquired it by labgrid's tools"),
        reserve_places(settled.address, PAIR, "second", Deadline.after(0.5), times=QUICK),
    ):
        pytest.fail("it was held twice")


def test_a_host_that_nobody_registered_is_an_error(settled: Coordinator) -> None:
    with (
        pytest.raises(HostError, match=r"no such place.*migrate-lab lease register"),
        reserve_places(settled.address, ["rack/c"], "job", soon(GIVE_UP_S), times=QUICK),
    ):
        pytest.fail("it was held")


def test_a_coordinator_out_of_reach_is_an_error_with_a_remedy(coordinator: Coordinator) -> None:
    coordinator.kill()
    with (
        pytest.raises(UnreachableError, match=r"labgrid-coordinator --listen") as caught,
        reserve_places(coordinator.address, PAIR, "job", soon(GIVE_UP_S), times=QUICK),
    ):
        pytest.fail("it was held")
    assert caught.value.exit_code == 3


# --- things die -----------------------------------------------------------------------------------

HOLDER = """
import sys, threading
from migrate.clock import Deadline
from migrate.lab.lease.reservation import Times, reserve_places
address, *places = sys.argv[1:]
times = Times(refresh={refresh}, lost={lost}, settle={settle})
with reserve_places(address, places, "the dead one", Deadline.after(60), times=times):
    print("held", flush=True)
    threading.Event().wait()
"""


def test_a_holder_that_is_killed_loses_its_lease(settled: Coordinator, told: Waits) -> None:
    script = HOLDER.format(refresh=QUICK.refresh, lost=QUICK.lost, settle=QUICK.settle)
    command = [sys.executable, "-c", script, settled.address, *PAIR]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        os.kill(holder.pid, signal.SIGKILL)
    # At most 90 s later by its clock: expired, forgotten at one look, given at the next.
    with reserve_places(settled.address, PAIR, "next", soon(GIVE_UP_S), times=QUICK):
        assert "held by the dead one, since" in told.lines[0]


def test_a_lease_outlives_the_coordinators_patience(settled: Coordinator, told: Waits) -> None:
    lease = hold(settled, "first")
    assert told.lines == []

    def second() -> None:
        with reserve_places(settled.address, PAIR, "second", soon(GIVE_UP_S), times=QUICK):
            pass

    with in_thread(second):
        told.wait("held by first", times=round(2 * 60 / FASTER / QUICK.repeat))
        lease.check()
        lease.close()


def test_a_coordinator_that_starts_anew_gives_nobody_the_hosts_of_another(
    settled: Coordinator, told: Waits
) -> None:
    settled.saved()
    lease = hold(settled, "first", PATIENT)
    assert told.lines == []
    settled.kill()
    settled.start()
    order = []

    def newcomer() -> None:
        with reserve_places(settled.address, PAIR, "newcomer", soon(GIVE_UP_S), times=PATIENT):
            order.append("newcomer")

    with in_thread(newcomer):
        told.wait("has just started: waiting 8 s for jobs that had a lease before")
        told.wait("held by first, since")  # who had it took it up again
        lease.check()
        order.append("first")
        lease.close()
    assert order == ["first", "newcomer"]


def test_one_who_waits_queues_again_when_the_coordinator_starts_anew(
    settled: Coordinator, told: Waits
) -> None:
    settled.saved()
    lease = hold(settled, "first", PATIENT)
    assert told.lines == []

    def second() -> None:
        with reserve_places(settled.address, PAIR, "second", soon(GIVE_UP_S), times=PATIENT):
            pass

    with in_thread(second):
        told.wait("held by first")
        settled.kill()
        settled.start()
        told.wait("lost our reservation: queueing again")
        told.wait("held by first", times=2)
        lease.check()
        lease.close()


@pytest.mark.usefixtures("silent")
def test_a_lease_is_lost_when_the_coordinator_stays_away(settled: Coordinator) -> None:
    lost = threading.Event()
    lease = ReservedPlaces(settled.address, "first", times=QUICK, on_lost=lambda _error: lost.set())
    try:
        lease.take(PAIR, soon(GIVE_UP_S))
        lease.check()
        settled.kill()
        assert lost.wait(GIVE_UP_S)
        with pytest.raises(LeaseLostError, match=r"rack/a and rack/b.*not reached for 2.25 s"):
            lease.check()
    finally:
        lease.close()


@pytest.mark.usefixtures("silent")
def test_a_lease_that_is_cancelled_by_hand_is_lost_at_once(settled: Coordinator) -> None:
    lost = threading.Event()
    lease = ReservedPlaces(settled.address, "first", times=QUICK, on_lost=lambda _error: lost.set())
    try:
        lease.take(PAIR, soon(GIVE_UP_S))
        with session(settled.address, "an admin") as admin:
            place = admin.place("rack/b")
            assert place is not None
            admin.cancel(place.reservation)
        assert lost.wait(GIVE_UP_S)
        with pytest.raises(LeaseLostError, match="the reservation of rack/b is gone"):
            lease.check()
    finally:
        lease.close()
