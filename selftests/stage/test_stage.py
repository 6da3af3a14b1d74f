"""What a test author says and sees: on a world whose guest and peer are probes of this machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from migrate.errors import ConfigurationError, GuestError, HostError
from migrate.model import Case, Fault, Policy, Workload
from migrate.stage.invariants import (
    INVARIANTS,
    InvariantError,
    NotMeasuredError,
    connections_alive,
    memory_whole,
    network_carries,
    one_holder,
)
from migrate.stage.stage import Stage
from selftests.doubles.made_up_stage import MadeUpWorld, made_up_world

CASE = Case(id="made-up", workload=Workload(floor_s=0.3, settle_s=0.2, dirty_mib=1))
ABORTED = Policy(abort_at="precopy")


@pytest.fixture
def world(program: Path) -> Iterator[MadeUpWorld]:
    with made_up_world(CASE, program) as world:
        yield world


@pytest.fixture
def stage(world: MadeUpWorld) -> Stage:
    return Stage(world)


# --- commands -----------------------------------------------------------------------------------


def test_a_command_that_succeeds_gives_what_it_wrote(stage: Stage) -> None:
    assert stage.guest.succeed("echo hello") == "hello\n"
    assert stage.guest.run("exit 7").status == 7


def test_a_command_that_ends_the_other_way_is_told_with_its_words(stage: Stage) -> None:
    with pytest.raises(GuestError) as caught:
        stage.guest.succeed("echo it burns >&2; exit 2")
    assert str(caught.value) == (
        "run 'echo it burns >&2; exit 2' in the guest on host a: it ended with 2: it burns"
    )
    assert stage.guest.fail("exit 2").status == 2
    with pytest.raises(GuestError, match=r"see 'echo fine' fail .*: it ended with 0: fine"):
        stage.guest.fail("echo fine")


def test_a_command_is_tried_until_it_succeeds(stage: Stage) -> None:
    command = "echo x >> /tmp/tries; [ $(wc -l < /tmp/tries) -ge 3 ] && echo there"
    assert stage.guest.until(command) == "there\n"
    with pytest.raises(GuestError, match=r"wait until 'echo no; false' .* ended with 1: no"):
        stage.guest.until("echo no; false", timeout_s=0.1)


def test_a_guest_that_is_paused_runs_nothing_and_says_what_to_do(stage: Stage) -> None:
    stage.guest.pause()
    assert stage.guest.state == "paused"
    with pytest.raises(GuestError, match=r"it is paused -- guest\.resume\(\)"):
        stage.guest.run("true")
    with pytest.raises(GuestError, match=r"move the guest .*it is paused"):
        stage.move()
    stage.guest.resume()
    assert stage.guest.succeed("echo again") == "again\n"


def test_a_command_on_a_host(stage: Stage) -> None:
    assert stage.source.succeed("echo here") == "here\n"
    assert stage.target.run("exit 4").status == 4
    with pytest.raises(HostError, match="on host b: it ended with 4"):
        stage.target.succeed("exit 4")


# --- moves --------------------------------------------------------------------------------------


def test_there_and_back_with_what_held_after_each(stage: Stage) -> None:
    source, target = stage.source, stage.target
    there = target.migrate_from(source)
    assert (there.number, there.outcome, there.held_by) == (1, "completed", ("b",))
    assert (target.has_guest, source.has_guest) == (True, False)
    back = source.migrate_from(target)
    assert (back.source, back.target, back.held_by) == ("b", "a", ("a",))
    for hop in (there, back):
        assert {one.check: one.result for one in hop.invariants} == {
            invariant.__name__: "pass" for invariant in INVARIANTS
        }


def test_each_move_has_findings_of_its_own(stage: Stage) -> None:
    there, back = stage.move(), stage.move()
    for hop in (there, back):
        recorded = stage.world.hops[hop.number - 1]
        longest = hop.longest_gap_ms("egress")
        assert longest is not None
        assert longest > 30  # it stood still for 60 ms
        assert hop.findings.details.hop == hop.number
        gaps = hop.findings.gaps
        assert gaps
        assert all(gap.begin_ns + gap.length_ns > recorded.begin_ns for gap in gaps)
    ends = [gap.begin_ns + gap.length_ns for gap in there.findings.gaps or ()]
    assert max(ends) < stage.world.hops[1].end_ns


def test_nothing_is_moved_after_the_workload_has_ended(stage: Stage) -> None:
    hop = stage.move()
    assert hop.findings.floor is not None or hop.findings.no_floor
    with pytest.raises(GuestError, match=r"its workload has ended -- ask for findings after the"):
        stage.move()
    with pytest.raises(GuestError, match="its workload has ended"):
        stage.check()
    assert stage.guest.succeed("echo still") == "still\n"


def test_a_move_has_a_policy_of_its_own(stage: Stage) -> None:
    hop = stage.target.migrate_from(stage.source, policy=ABORTED)
    assert (hop.outcome, hop.held_by) == ("aborted", ("a",))
    assert hop.error is not None
    assert hop.case.policy == ABORTED
    assert stage.case.policy == Policy()
    assert stage.target.migrate_from(stage.source).outcome == "completed"


def test_a_move_has_faults_of_its_own(stage: Stage) -> None:
    fault = Fault(at="precopy", do="kill-guest", on="target")
    assert stage.move(faults=[fault]).outcome == "failed"
    assert stage.move().outcome == "completed"


def test_a_policy_that_makes_no_sense_is_refused_before_anything_is_done(stage: Stage) -> None:
    nonsense = Policy(method="postcopy", parallel_connections=4)
    with pytest.raises(ConfigurationError, match="parallel connections and post-copy exclude"):
        stage.move(nonsense)
    assert stage.hops == []


def test_a_guest_is_moved_from_where_it_is(stage: Stage) -> None:
    with pytest.raises(GuestError, match=r"from b to a: it is on a -- guest\.find\(\)"):
        stage.source.migrate_from(stage.target)
    with pytest.raises(GuestError, match="from a to a"):
        stage.source.migrate_from(stage.source)


# --- by other hands -----------------------------------------------------------------------------


def test_a_guest_that_somebody_else_moved_is_found(stage: Stage) -> None:
    assert stage.guest.find() == "a"
    stage.source.succeed(f"virsh migrate --live x {stage.target.libvirt_uri}")
    assert stage.guest.find() == "b"
    assert all(one.result == "pass" for one in stage.check())
    assert stage.source.migrate_from(stage.target).held_by == ("a",)


@pytest.mark.parametrize(("hosts", "said"), [([], "runs nowhere"), (["a", "b"], "a and on b")])
def test_a_guest_that_is_on_no_host_or_on_both_is_not_found(
    stage: Stage, world: MadeUpWorld, hosts: list[str], said: str
) -> None:
    world.guest.runs_on[:] = hosts
    with pytest.raises(GuestError, match=said):
        stage.guest.find()
    with pytest.raises(InvariantError, match=f"one_holder: .*{said}"):
        stage.check()
    world.guest.runs_on[:] = ["a"]


# --- invariants ---------------------------------------------------------------------------------


def test_what_does_not_hold_after_a_move_fails_it_by_name(stage: Stage, world: MadeUpWorld) -> None:
    world.breaks = world.traffic.peer.stop_stream
    with pytest.raises(InvariantError) as caught:
        stage.move()
    assert re.fullmatch(
        "does not hold after hop 1, a to b:\n"
        "network_carries: nothing arrives any more at the guest on a",
        str(caught.value),
    )
    (hop,) = stage.hops
    assert hop.outcome == "completed"
    assert [one.check for one in hop.invariants if one.result == "fail"] == ["network_carries"]


def test_memory_that_is_wrong_after_a_move_is_told_by_its_page(program: Path) -> None:
    at_rest = CASE.with_(workload=CASE.workload.with_(dirty_mib_s=0))
    with made_up_world(at_rest, program) as world:
        stage = Stage(world, [memory_whole])
        stage.move()
        world.breaks = lambda: world.traffic.guest.dirty_corrupt(5)
        with pytest.raises(InvariantError, match=r"hop 2.*\nmemory_whole: page 5 of 256 is wrong"):
            stage.move()


def test_a_connection_that_is_gone_after_a_move_is_told(stage: Stage, world: MadeUpWorld) -> None:
    stage.invariants[:] = [connections_alive]
    world.breaks = world.traffic.peer.tcp_close
    with pytest.raises(InvariantError, match="connections_alive: 0 of 1 are open"):
        stage.move()


def test_a_guest_that_is_lost_fails_unless_its_test_expects_that(
    stage: Stage, world: MadeUpWorld
) -> None:
    lethal = [Fault(at="precopy", do="kill-guest")]
    with pytest.raises(InvariantError, match="one_holder: it runs nowhere"):
        stage.move(faults=lethal)
    results = {one.check: one.result for one in stage.hops[0].invariants}
    assert results["probe_answers"] == "unmeasured"
    world.guest.runs_on[:] = ["a"]
    stage.invariants.clear()
    assert stage.move(faults=lethal).outcome == "lost"


def test_what_a_workload_does_not_do_is_not_measured(program: Path) -> None:
    quiet = CASE.with_(workload=CASE.workload.with_(dirty_mib=0, tcp_connections=0))
    with made_up_world(quiet, program) as world:
        hop = Stage(world).move()
    results = {one.check: (one.result, one.evidence) for one in hop.invariants}
    assert results["memory_whole"] == (
        "unmeasured",
        "no memory is written: workload.dirty_mib = 0",
    )
    assert results["connections_alive"] == ("unmeasured", "no TCP connection was opened")


def test_a_test_adds_invariants_of_its_own(stage: Stage) -> None:
    stage.guest.succeed("echo kept > /tmp/note")

    def note_is_kept(stage: Stage) -> None:
        assert stage.guest.succeed("cat /tmp/note") == "kept\n", "another note"

    def never_told(_stage: Stage) -> None:
        raise NotMeasuredError("nobody knows")

    stage.invariants[:] = [one_holder, network_carries, note_is_kept, never_told]
    hop = stage.move()
    assert [one.result for one in hop.invariants] == ["pass", "pass", "pass", "unmeasured"]
    stage.guest.succeed("rm /tmp/note")
    with pytest.raises(InvariantError, match=r"hop 2, b to a:\nnote_is_kept: run 'cat"):
        stage.move()
    stage.guest.succeed("echo other > /tmp/note")
    with pytest.raises(InvariantError, match="note_is_kept: another note"):
        stage.move()


def test_an_error_of_a_test_is_its_own(stage: Stage) -> None:
    def wrong(_stage: Stage) -> None:
        raise KeyError("typo")

    stage.invariants[:] = [wrong]
    with pytest.raises(KeyError):
        stage.move()
