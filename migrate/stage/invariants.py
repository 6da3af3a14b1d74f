"""What must hold after each move, whatever it was: asked of the hosts and of the guest at once.

An invariant is a function of the stage that returns if it holds and raises AssertionError if not;
any error of ours counts as *not*. One that can't be told here raises :class:`NotMeasuredError`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from migrate.errors import LabError, LeaseLostError
from migrate.guest.lifecycle import holders
from migrate.lab.api import Host
from migrate.model import Case, Verdict
from migrate.recorder.traffic import MORE_S, await_more, silent_since, tcp_since
from migrate.stage.guest import Guest
from migrate.world import World


class Scene(Protocol):
    """What the usual invariants ask of a stage."""

    world: World
    guest: Guest

    @property
    def case(self) -> Case:
        """What it was made for."""

    @property
    def pair(self) -> tuple[Host, Host]:
        """Its hosts."""


OnStage = TypeVar("OnStage", bound=Scene)
ANSWER_S = 60.0
"""For a guest to read all of its memory back, say."""


class NotMeasuredError(Exception):
    """An invariant that can't be told of this guest, and why."""


class InvariantError(AssertionError):
    """What does not hold any more, one a line."""


def one_holder(stage: Scene) -> None:
    """The guest runs on one host, and on one only."""
    names = holders(stage.pair, stage.guest.uuid)
    _hold(len(names) == 1, f"it runs on {' and on '.join(names)}" if names else "it runs nowhere")


def probe_answers(stage: Scene) -> None:
    """The guest answers."""
    _must_run(stage)
    stage.world.traffic.guest.ready(stage.world.env.deadline(ANSWER_S))


def memory_whole(stage: Scene) -> None:
    """What the guest has written to its memory is what it reads there."""
    _must_run(stage)
    if not stage.case.workload.dirty_mib:
        raise NotMeasuredError("no memory is written: workload.dirty_mib = 0")
    check = stage.world.traffic.guest.verify(stage.world.env.deadline(ANSWER_S))
    _hold(
        check.wrong_page is None,
        f"page {check.wrong_page} of {check.pages} is wrong after {check.writes} writes: "
        f"{check.expected} expected, {check.found} found",
    )


def connections_alive(stage: Scene) -> None:
    """Each TCP connection is the one that was opened, and a byte came back on it since the move."""
    _must_run(stage)
    traffic = stage.world.traffic
    if traffic.loops or not stage.case.workload.tcp_connections:
        raise NotMeasuredError("no TCP connection was opened")
    moved_ns = stage.world.hops[-1].end_ns if stage.world.hops else stage.world.start.begin_ns
    check = tcp_since(traffic.guest, moved_ns, stage.world.env.deadline(ANSWER_S))
    silent = len(silent_since(check, moved_ns))
    _hold(
        (check.alive, check.resets, silent) == (check.opened, 0, 0),
        f"{check.alive} of {check.opened} are open, {check.resets} were reset, "
        f"{silent} had no byte since the move",
    )


def network_carries(stage: Scene) -> None:
    """Packets arrive each way."""
    _must_run(stage)
    traffic = stage.world.traffic
    receivers = (traffic.guest,) if traffic.loops else (traffic.guest, traffic.peer)
    silent = await_more(receivers, stage.world.env.deadline(MORE_S))
    where = " or at the ".join(probe.where for probe in silent)
    _hold(not silent, f"nothing arrives any more at the {where}")


INVARIANTS: tuple[Callable[[Scene], None], ...] = (
    one_holder,
    probe_answers,
    memory_whole,
    connections_alive,
    network_carries,
)
"""Of every stage whose test names no others."""


def _hold(holds: bool, said: str) -> None:
    """As ``assert``, which Python leaves out with ``-O``, and pytest adds its own words to."""
    if not holds:
        raise InvariantError(said)


def _must_run(stage: Scene) -> None:
    """Who does not run is not asked: that it should is :func:`one_holder`'s to say."""
    if (state := stage.guest.state) != "running":
        raise NotMeasuredError(f"the guest is {state}")


def look_at(stage: OnStage, invariants: Sequence[Callable[[OnStage], None]]) -> tuple[Verdict, ...]:
    """A verdict on each, in order; the rest is looked at, too, when one does not hold."""
    return tuple(_verdict(stage, invariant) for invariant in invariants)


def _verdict(stage: OnStage, invariant: Callable[[OnStage], None]) -> Verdict:
    name = getattr(invariant, "__name__", repr(invariant))
    try:
        invariant(stage)
    except LeaseLostError:
        raise
    except NotMeasuredError as reason:
        return Verdict(check=name, result="unmeasured", evidence=str(reason))
    except (AssertionError, LabError) as error:
        evidence = str(error) or type(error).__name__
        return Verdict(check=name, result="fail", evidence=evidence)
    return Verdict(check=name, result="pass")


def must_hold(verdicts: Sequence[Verdict], when: str) -> None:
    """Raise InvariantError if one of them is a failure; ``when``: after which move."""
    broken = [f"{one.check}: {one.evidence}" for one in verdicts if one.result == "fail"]
    if broken:
        raise InvariantError("\n".join((f"does not hold {when}:", *broken)))
