"""Verdicts on what went on inside of a move: each passes, fails, and is not measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import pytest

from migrate.checks.registry import run_checks
from migrate.model import (
    Attempt,
    DeviceHandoff,
    Difference,
    Direction,
    DirtyMethod,
    DirtyRate,
    Expect,
    Gap,
    GapExplanation,
    MoveDetails,
    ReportedFigures,
    RingAudit,
    Span,
    Verdict,
    Workload,
)
from selftests.doubles import synthetic

MS = 1_000_000


def verdict(check: str, expect: dict[str, Any], *, workload: Any = None, **fields: Any) -> Verdict:
    case = synthetic.case(expect=Expect.model_validate(expect), workload=workload or Workload())
    good = {**dict(synthetic.attempt(case)), "inside": (MoveDetails(),), "verdicts": ()}
    attempt = Attempt.model_validate(good | fields, from_attributes=True)
    (found,) = [one for one in run_checks(attempt) if one.check == check]
    return found


def hop(**fields: Any) -> dict[str, Any]:
    return {"inside": (MoveDetails(**fields),)}


def nic(*differences: Difference, compared: bool = True) -> DeviceHandoff:
    return DeviceHandoff(device="0000:01/virtio-net", compared=compared, differences=differences)


def differs(*, lawful: bool) -> Difference:
    return Difference(field="queue 0: used", before="1", after="2", lawful=lawful, why="2.7.8")


def test_what_is_not_asked_makes_no_verdict() -> None:
    names = {one.check for one in run_checks(synthetic.attempt(synthetic.case()))}
    inside = {"handoff.equal", "ring.sound", "downtime.explained", "reported.agrees"}
    assert not names & (inside | {"announce.sent", "dirty.rate"})


@pytest.mark.parametrize(
    ("devices", "result", "said"),
    [
        ((nic(),), "pass", "same on both ends"),
        ((nic(differs(lawful=True)),), "pass", "same on both ends"),
        ((nic(differs(lawful=False)),), "fail", "queue 0: used: 1 before, 2 after (2.7.8)"),
        ((nic(compared=False),), "unmeasured", "no device was compared; b: it ran on"),
        (None, "unmeasured", "b: it ran on"),
    ],
)
def test_a_handoff_is_equal(devices: Any, result: str, said: str) -> None:
    found = verdict("handoff.equal", {"handoff": True}, **hop(devices=devices, unseen=HOW))
    assert (found.result, said in found.evidence) == (result, True)


def test_what_was_not_compared_is_in_the_evidence() -> None:
    told = nic().model_copy(update={"untold": ("config: MTU (source only)",)})
    found = verdict("handoff.equal", {"handoff": True}, **hop(devices=(told,)))
    assert (found.result, "not compared: 1 fields" in found.evidence) == ("pass", True)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (("queue 2: size (source only)", "queue 2: last available (source only)"), "queue 2"),
        (("status (source only)", "features (source only)"), "status, features"),
        (("queue 0: last available (target only)",), "queue 0"),
    ],
)
def test_a_handoff_of_which_a_part_was_not_compared_is_not_measured(
    told: tuple[str, ...], said: str
) -> None:
    half = nic().model_copy(update={"untold": told, "fields_compared": 5})
    found = verdict("handoff.equal", {"handoff": True}, **hop(devices=(half,), unseen=HOW))
    assert found.result == "unmeasured"
    assert found.evidence == f"not compared of {half.device}: {said}; b: it ran on"


def test_a_handoff_is_judged_on_every_hop_and_for_every_network_device() -> None:
    whole = MoveDetails(hop=1, devices=(nic(),))
    second = MoveDetails(hop=2, devices=(nic(compared=False),))
    neither = MoveDetails(hop=2, devices=None, unseen=HOW)
    for last, said in (
        (second, "hop 2: no device was compared"),
        (neither, "hop 2: no device was compared; b: it ran on"),
    ):
        found = verdict("handoff.equal", {"handoff": True}, inside=(whole, last))
        assert (found.result, found.evidence) == ("unmeasured", said)
    other = nic(compared=False).model_copy(update={"device": "0000:02/virtio-net"})
    found = verdict("handoff.equal", {"handoff": True}, **hop(devices=(nic(), other)))
    assert found.evidence == "0000:02/virtio-net was not compared"
    nothing = nic().model_copy(update={"fields_compared": 0})
    assert verdict("handoff.equal", {"handoff": True}, **hop(devices=(nothing,))).result == (
        "unmeasured"
    )


def test_a_difference_on_one_hop_fails_whatever_another_one_lacks() -> None:
    first = MoveDetails(hop=1, devices=(nic(differs(lawful=False)),))
    found = verdict("handoff.equal", {"handoff": True}, inside=(first, MoveDetails(hop=2)))
    assert (found.result, found.evidence[:6]) == ("fail", "hop 1:")


def test_a_reason_of_another_part_is_not_given_for_this_one() -> None:
    details = MoveDetails(
        unseen=("its bytes", "its rings"),
        missing={"bytes": ("its bytes",), "rings": ("its rings",), "devices": ()},
    )
    assert verdict("ring.sound", {"rings": True}, inside=(details,)).evidence == (
        "no virtqueue was read; its rings"
    )
    assert verdict("handoff.equal", {"handoff": True}, inside=(details,)).evidence == (
        "no device was compared"
    )


HOW = ("b: it ran on",)
SOUND = RingAudit(device="nic", queue=1, kind="split", size=8, facts={"used": "1"})


@pytest.mark.parametrize(
    ("rings", "result", "said"),
    [
        ((SOUND,), "pass", "rings read: 1"),
        (
            (SOUND, SOUND.model_copy(update={"unchecked": ("the used index",)})),
            *("pass", "rings read: 2; not checked: the used index"),
        ),
        ((SOUND, SOUND.model_copy(update={"broken": ("used > avail",)})), "fail", "used > avail"),
        (
            (SOUND.model_copy(update={"facts": {}, "unchecked": ("no memory",)}),),
            *("unmeasured", "queue 1: no memory"),
        ),
        (None, "unmeasured", "no virtqueue was read; b: it ran on"),
    ],
)
def test_a_ring_is_sound(rings: Any, result: str, said: str) -> None:
    found = verdict("ring.sound", {"rings": True}, **hop(rings=rings, unseen=HOW))
    assert (found.result, said in found.evidence) == (result, True)


UNREAD = SOUND.model_copy(update={"facts": {}, "unchecked": ("no memory",)})


def test_rings_are_sound_only_if_each_was_read_on_every_hop() -> None:
    some = (SOUND, UNREAD, UNREAD.model_copy(update={"queue": 2}))
    found = verdict("ring.sound", {"rings": True}, **hop(rings=some))
    assert (found.result, found.measured) == ("unmeasured", "")
    assert found.evidence == "rings read: 1 of 3; queue 1: no memory; queue 2: no memory"
    hops = (MoveDetails(hop=1, rings=(SOUND,)), MoveDetails(hop=2, rings=None, unseen=HOW))
    found = verdict("ring.sound", {"rings": True}, inside=hops)
    assert (found.result, found.evidence) == (
        "unmeasured",
        "hop 2: no virtqueue was read; b: it ran on",
    )
    broken = SOUND.model_copy(update={"broken": ("used > avail",)})
    found = verdict("ring.sound", {"rings": True}, **hop(rings=(broken, UNREAD)))
    assert found.result == "fail"


def test_a_verdict_lists_the_first_rules_and_counts_the_rest() -> None:
    broken = SOUND.model_copy(update={"broken": tuple(f"rule {n}" for n in range(1000))})
    found = verdict("ring.sound", {"rings": True}, **hop(rings=(broken,)))
    assert found.evidence.endswith("rule 9; and 990 more")


def gone(dark_ms: int, error_ms: int = 0, direction: Direction = "egress") -> GapExplanation:
    """A gap of 100 ms of which the last part is dark."""
    lit = Span(what="stopped", begin_ns=0, end_ns=(100 - dark_ms) * MS)
    dark = Span(
        what="who knows",
        begin_ns=lit.end_ns,
        end_ns=100 * MS,
        error_ns=error_ms * MS,
        explained=False,
    )
    return GapExplanation(direction=direction, begin_ns=0, length_ns=100 * MS, spans=(lit, dark))


def blurred(length_ms: int, error_ms: int) -> GapExplanation:
    """A gap that is explained from end to end, by stages whose places are not known so well."""
    third = length_ms * MS // 3
    spans = tuple(
        Span(
            what=f"stage {n}",
            begin_ns=n * third,
            end_ns=length_ms * MS if n == 2 else (n + 1) * third,
            error_ns=error_ms * MS,
        )
        for n in range(3)
    )
    return GapExplanation(direction="egress", begin_ns=0, length_ns=length_ms * MS, spans=spans)


WAYS: tuple[Direction, ...] = get_args(Direction)
BACK = gone(0, direction="ingress")


@pytest.mark.parametrize(
    ("explained", "result", "said"),
    [
        ((gone(5), BACK), "pass", "who knows"),
        ((gone(5), gone(6, direction="ingress")), "fail", "ingress: 6.0 ms, who knows"),
        ((gone(6, 2), BACK), "unmeasured", "the limit is within the error"),
        ((gone(4), gone(3, 5, direction="ingress")), "unmeasured", "is within the error"),
        ((blurred(62, 40), BACK), "unmeasured", "is within the error"),
        ((gone(6, 0),), "fail", "egress: 6.0 ms"),
        (
            (gone(5),),
            "unmeasured",
            "nothing recorded explains the longest gap of ingress; b: it ran on",
        ),
        ((), "unmeasured", "nothing recorded explains the longest gap of egress, ingress"),
        (None, "unmeasured", "no gaps to explain"),
    ],
)
def test_an_outage_is_explained(explained: Any, result: str, said: str) -> None:
    told = {"explained": explained, **hop(unseen=HOW)}
    found = verdict("downtime.explained", {"explained_share": 0.95}, **told)
    assert (found.result, said in found.evidence) == (result, True)


def test_an_outage_in_the_floor_needs_no_words() -> None:
    found = verdict("downtime.explained", {"explained_share": 0.95}, explained=(), gaps=())
    assert (found.result, found.evidence) == ("pass", "no gap beyond the floor")


def seen(length_ms: float, *, ways: Sequence[Direction] = WAYS, **fields: Any) -> tuple[Gap, ...]:
    gaps = [synthetic.gap(way, 3000, length_ms) for way in ways]
    return tuple(gap.model_copy(update={"error_ns": 2 * MS, **fields}) for gap in gaps)


@pytest.mark.parametrize(
    ("gaps", "reported", "result", "said"),
    [
        (seen(100), 95, "pass", "100.0 ± 2.0"),
        (seen(820), 33, "fail", "reported 33.0 ms, seen"),
        (seen(20), 40, "fail", "reported 40.0"),
        (seen(100), 91, "unmeasured", "within the error"),
        (seen(100, open_ended=True), 99, "unmeasured", "or more"),
        (seen(100, open_ended=True), 400, "unmeasured", "or more"),
        (seen(400, open_ended=True), 100, "fail", "or more"),
        ((), 2, "pass", "no switchover gap beyond the floor"),
        (seen(100, ways=("egress",)), 99, "fail", "ingress no switchover gap"),
        ((*seen(100), *seen(5)), 99, "pass", "100.0 ± 2.0"),
        ((*seen(100), *seen(900, part="tail")), 99, "pass", "100.0 ± 2.0"),
        ((*seen(100, ways=("egress",)), *seen(150, ways=("ingress",))), 99, "fail", "ingress 150"),
        (seen(100), None, "unmeasured", "no downtime was reported"),
        (None, 33, "unmeasured", "no gaps were recorded"),
    ],
)
def test_the_downtime_that_is_reported_agrees(
    gaps: Any, reported: float | None, result: str, said: str
) -> None:
    told = {"gaps": gaps, "reported": ReportedFigures(downtime_ms=reported)}
    found = verdict("reported.agrees", {"reported_within_ms": 10.0}, **told)
    assert (found.result, said in found.evidence) == (result, True)


def test_each_hop_is_held_against_its_own_report() -> None:
    """300 ms reported of the first and 100 seen, and the other way round: neither agrees."""
    hops = [
        MoveDetails(hop=1, begin_ns=0, end_ns=synthetic.STOP + 2000 * MS, reported_downtime_ms=300),
        MoveDetails(hop=2, begin_ns=synthetic.STOP + 2000 * MS, reported_downtime_ms=100),
    ]
    later = synthetic.STOP + 4000 * MS
    second = [gap.model_copy(update={"begin_ns": later}) for gap in seen(300)]
    told = {"inside": tuple(hops), "reported": ReportedFigures(downtime_ms=300)}
    found = verdict(
        "reported.agrees", {"reported_within_ms": 10.0}, gaps=(*seen(100), *second), **told
    )
    assert (found.result, "hop 1: reported 300.0 ms, seen" in found.evidence) == ("fail", True)


def test_no_gap_without_a_floor_agrees_with_nothing() -> None:
    told = {"gaps": (), "floor": None, "reported": ReportedFigures(downtime_ms=2)}
    found = verdict("reported.agrees", {"reported_within_ms": 10.0}, **told)
    assert (found.result, "no floor" in found.evidence) == ("unmeasured", True)


def heard(announced: int | None, first_ms: float | None, number: int = 1) -> MoveDetails:
    """Heard to within a tenth of a millisecond, or not in 500 ms."""
    details = MoveDetails(hop=number, announced=announced, first_announce_ms=first_ms, unseen=HOW)
    how: dict[str, Any] = {"listened_ms": 500.0}
    if first_ms is not None:
        how["announce_error_ms"] = 0.1
    return details.model_copy(update=how)


def but(details: MoveDetails, **changes: Any) -> MoveDetails:
    return details.model_copy(update=changes)


@pytest.mark.parametrize(
    ("hops", "result", "said"),
    [
        ((heard(5, 0.1),), "pass", "5 announcements"),
        ((heard(5, 12.0),), "fail", "5 announcements"),
        ((heard(5, 10.05),), "unmeasured", "is within the error"),
        ((heard(5, -3.0),), "fail", "the first before it ran"),
        ((heard(0, -3.0),), "fail", "the first before it ran"),
        ((but(heard(5, -0.2), announce_error_ms=1.0),), "unmeasured", "within the error"),
        ((but(heard(5, 0.2), announce_error_ms=1.0),), "unmeasured", "within the error"),
        ((but(heard(5, 0.2), announce_error_ms=None),), "unmeasured", "within the error"),
        ((heard(0, None),), "fail", "0 announcements"),
        ((but(heard(0, None), listened_ms=9.0),), "unmeasured", "heard none in 9 ms"),
        ((but(heard(0, None), listened_ms=None),), "unmeasured", "hop 1: not measured"),
        ((heard(None, None),), "unmeasured", "hop 1: not measured, heard none in 500 ms; b: it"),
        ((heard(5, None),), "unmeasured", "hop 1: not measured"),
        ((heard(5, 0.1), heard(None, None, 2)), "unmeasured", "hop 2: not measured"),
        ((heard(0, None), heard(None, None, 2)), "fail", "hop 1: 0 announcements"),
        ((), "unmeasured", "no move was recorded in detail"),
    ],
)
def test_the_guest_is_announced(hops: Any, result: str, said: str) -> None:
    found = verdict("announce.sent", {"announce_within_ms": 10.0}, inside=hops)
    assert (found.result, said in found.evidence) == (result, True)


def test_a_difference_names_its_hop_where_there_are_several() -> None:
    hops = (
        MoveDetails(devices=(nic(),)),
        MoveDetails(hop=2, devices=(nic(differs(lawful=False)),)),
    )
    found = verdict("handoff.equal", {"handoff": True}, inside=hops)
    assert found.evidence.startswith("hop 2: 0000:01/virtio-net, queue 0: used")


def rate(method: DirtyMethod, mib_s: float | None, error: float = 0.0, **more: Any) -> DirtyRate:
    told: dict[str, Any] = {"when": "before", "host": "a", "reason": "" if mib_s else "no such"}
    told |= {"written_mib_s": 16.0}
    told |= {"method": method, "mib_s": mib_s, "error_mib_s": error, **more}
    return DirtyRate.model_validate(told)


NO_RING = rate("dirty-ring", None)
WRITES = Workload(dirty_mib=32, dirty_mib_s=16)


@pytest.mark.parametrize(
    ("rates", "result", "said"),
    [
        ((rate("page-sampling", 99), rate("dirty-ring", 20)), "pass", "by dirty-ring: 20 ± 0.0"),
        ((rate("page-sampling", 16), rate("dirty-ring", 40)), "fail", "by dirty-ring: 40"),
        ((NO_RING, rate("page-sampling", 99), rate("dirty-bitmap", 12)), "pass", "dirty-bitmap"),
        (
            (NO_RING, rate("dirty-bitmap", None), rate("page-sampling", 14, 2)),
            *("pass", "14 ± 2.0 MiB/s, the guest wrote 16.0 of 16; the error is"),
        ),
        ((rate("page-sampling", 8, 2),), "unmeasured", "the limit of 0.5 is within the error"),
        ((rate("dirty-bitmap", 0.0),), "fail", "by dirty-bitmap: 0"),
        (
            (NO_RING, rate("dirty-bitmap", None), rate("dirty-ring", 16, when="after")),
            *("unmeasured", "dirty-ring: no such; dirty-bitmap: no such"),
        ),
        (None, "unmeasured", "nothing was measured"),
        # Asked for 16, the guest came to write 1: a method that says so is right.
        ((rate("page-sampling", 1, 0.4, written_mib_s=1.1),), "pass", "wrote 1.1 of 16"),
        ((rate("page-sampling", 16, written_mib_s=1.1),), "fail", "wrote 1.1 of 16"),
        ((rate("dirty-ring", 4, 2, written_mib_s=1.1),), "fail", "wrote 1.1 of 16"),
        ((rate("dirty-ring", 16, written_mib_s=None),), "unmeasured", "did not report"),
        ((rate("dirty-ring", 16, written_mib_s=0.0),), "unmeasured", "wrote nothing"),
    ],
)
def test_a_dirty_rate_is_as_it_was_set(rates: Any, result: str, said: str) -> None:
    expect = {"dirty_rate_within": 0.5}
    found = verdict("dirty.rate", expect, workload=WRITES, dirty_rates=rates)
    assert (found.result, said in found.evidence) == (result, True)


@pytest.mark.parametrize(
    ("workload", "said"),
    [
        ({"dirty_mib_s": 0}, "sets no rate"),
        ({"dirty_mib": 0}, "sets no rate"),
        ({"dirty_mib": 8}, "the 8 MiB are written over within the 1 s of measuring"),
    ],
)
def test_a_dirty_rate_that_cant_be_measured_is_unmeasured(
    workload: dict[str, Any], said: str
) -> None:
    found = verdict(
        "dirty.rate",
        {"dirty_rate_within": 0.5},
        workload=WRITES.model_copy(update=workload),
        dirty_rates=(rate("dirty-ring", 16),),
    )
    assert (found.result, said in found.evidence) == ("unmeasured", True)
