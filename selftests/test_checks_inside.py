"""Verdicts on what went on inside of a move: each passes, fails, and is not measured."""

from __future__ import annotations

from typing import Any

import pytest

from migrate.checks import judge
from migrate.model import (
    Attempt,
    DeviceHandoff,
    Difference,
    Expect,
    Explained,
    Gap,
    Inside,
    Reported,
    RingAudit,
    Span,
    Verdict,
)
from selftests import synthetic

MS = 1_000_000


def verdict(check: str, expect: dict[str, Any], **fields: Any) -> Verdict:
    case = synthetic.case().model_copy(update={"expect": Expect.model_validate(expect)})
    attempt = Attempt.model_validate(
        {**dict(synthetic.attempt(case)), **fields, "verdicts": ()}, from_attributes=True
    )
    (found,) = [one for one in judge(attempt) if one.check == check]
    return found


def hop(**fields: Any) -> dict[str, Any]:
    return {"inside": (Inside(**fields),)}


def nic(*differences: Difference, compared: bool = True) -> DeviceHandoff:
    return DeviceHandoff(device="0000:01/virtio-net", compared=compared, differences=differences)


def differs(*, lawful: bool) -> Difference:
    return Difference(field="queue 0: used", before="1", after="2", lawful=lawful, why="2.7.8")


def test_what_is_not_asked_makes_no_verdict() -> None:
    names = {one.check for one in judge(synthetic.attempt(synthetic.case()))}
    inside = {"handoff.equal", "ring.sound", "downtime.explained", "reported.agrees"}
    assert not names & (inside | {"announce.sent"})


@pytest.mark.parametrize(
    ("devices", "result", "said"),
    [
        ((nic(),), "pass", "as it left"),
        ((nic(differs(lawful=True)),), "pass", "as it left"),
        ((nic(differs(lawful=False)),), "fail", "queue 0: used: 1 before, 2 after (2.7.8)"),
        ((nic(compared=False),), "unmeasured", "no device was compared; b: it ran on"),
        (None, "unmeasured", "b: it ran on"),
    ],
)
def test_a_handoff_is_equal(devices: Any, result: str, said: str) -> None:
    found = verdict("handoff.equal", {"handoff": True}, **hop(devices=devices, unseen=HOW))
    assert (found.result, said in found.evidence) == (result, True)


HOW = ("b: it ran on",)
SOUND = RingAudit(device="nic", queue=1, kind="split", size=8, facts={"used": "1"})


@pytest.mark.parametrize(
    ("rings", "result", "said"),
    [
        ((SOUND,), "pass", "1 rings"),
        ((SOUND, SOUND.model_copy(update={"broken": ("used > avail",)})), "fail", "used > avail"),
        (
            (SOUND.model_copy(update={"facts": {}, "unchecked": ("no memory",)}),),
            *("unmeasured", "queue 1: no memory"),
        ),
        (None, "unmeasured", "no ring was read; b: it ran on"),
    ],
)
def test_a_ring_is_sound(rings: Any, result: str, said: str) -> None:
    found = verdict("ring.sound", {"rings": True}, **hop(rings=rings, unseen=HOW))
    assert (found.result, said in found.evidence) == (result, True)


def gone(dark_ms: int) -> Explained:
    """A gap of 100 ms of which the last part is dark."""
    lit = Span(what="stopped", begin_ns=0, end_ns=(100 - dark_ms) * MS)
    dark = Span(what="who knows", begin_ns=lit.end_ns, end_ns=100 * MS, explained=False)
    return Explained(direction="egress", begin_ns=0, length_ns=100 * MS, spans=(lit, dark))


@pytest.mark.parametrize(
    ("explained", "result", "said"),
    [
        ((gone(5),), "pass", "who knows"),
        ((gone(5), gone(6)), "fail", "egress: 6.0 ms, who knows"),
        ((), "pass", "no gap beyond the floor"),
        (None, "unmeasured", "no gaps to explain"),
    ],
)
def test_an_outage_is_explained(explained: Any, result: str, said: str) -> None:
    found = verdict("downtime.explained", {"explained_share": 0.95}, explained=explained)
    assert (found.result, said in found.evidence) == (result, True)


def seen(length_ms: float, *, open_ended: bool = False) -> tuple[Gap, ...]:
    gap = synthetic.gap("egress", 3000, length_ms)
    return (gap.model_copy(update={"error_ns": 2 * MS, "open_ended": open_ended}),)


@pytest.mark.parametrize(
    ("gaps", "reported", "result", "said"),
    [
        (seen(100), 95, "pass", "reported 95.0 ms, seen egress 100.0"),
        (seen(820), 33, "fail", "reported 33.0 ms, seen egress 820.0"),
        (seen(20), 40, "fail", "reported 40.0"),
        (seen(100), 91, "unmeasured", "inside the error"),
        (seen(100, open_ended=True), 99, "unmeasured", "or more"),
        ((), 2, "pass", "no gap beyond the floor"),
        (seen(100), None, "unmeasured", "no downtime was reported"),
        (None, 33, "unmeasured", "no gaps on record"),
    ],
)
def test_the_downtime_that_is_reported_agrees(
    gaps: Any, reported: float | None, result: str, said: str
) -> None:
    told = {"gaps": gaps, "reported": Reported(downtime_ms=reported)}
    found = verdict("reported.agrees", {"reported_within_ms": 10.0}, **told)
    assert (found.result, said in found.evidence) == (result, True)


@pytest.mark.parametrize(
    ("announced", "first_ms", "result", "said"),
    [
        (5, 0.1, "pass", "5 announcements"),
        (5, 12.0, "fail", "5 announcements"),
        (5, -3.0, "fail", "the first before it ran"),
        (0, None, "fail", "0 announcements"),
        (None, None, "unmeasured", "no guest ran on"),
    ],
)
def test_the_guest_is_announced(
    announced: int | None, first_ms: float | None, result: str, said: str
) -> None:
    inside = hop(announced=announced, first_announce_ms=first_ms)
    found = verdict("announce.sent", {"announce_within_ms": 10.0}, **inside)
    assert (found.result, said in found.evidence) == (result, True)
