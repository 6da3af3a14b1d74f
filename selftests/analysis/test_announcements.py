"""Announcements: in which rounds QEMU sends them, and who was heard."""

from __future__ import annotations

import pytest

from migrate.analysis.announcements import AnnounceParameters, count_by_kind
from migrate.model import Event

DEFAULTS = {
    "announce-rounds": 5,
    "announce-initial": 50,
    "announce-step": 100,
    "announce-max": 550,
}


@pytest.mark.parametrize(
    ("changes", "last_due_ms"),
    [
        ({}, 50 + 150 + 250 + 350),
        ({"announce-max": 200}, 50 + 150 + 200 + 200),
        ({"announce-rounds": 1}, 0),
        ({"announce-rounds": 0}, 0),
    ],
)
def test_the_last_round_is_due_after_pauses_that_grow(
    changes: dict[str, int], last_due_ms: int
) -> None:
    rounds = AnnounceParameters.of({**DEFAULTS, **changes})
    assert rounds is not None
    assert rounds.last_due_ms == last_due_ms


def test_a_qemu_that_does_not_tell_its_rounds_has_none_on_record() -> None:
    assert AnnounceParameters.of({}) is None


def test_a_kind_that_was_not_heard_is_zero() -> None:
    def heard(kind: str) -> Event:
        return Event(at_ns=1, source="fabric", host="fabric", name="announce", data={"kind": kind})

    found = count_by_kind([heard("garp"), heard("garp"), heard("rarp")])
    assert found == {"garp": 2, "na": 0, "rarp": 1}
