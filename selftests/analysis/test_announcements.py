"""Announcements: in which rounds QEMU sends them, and who was heard."""

from __future__ import annotations

import pytest

from migrate.analysis.announcements import count_by_kind
from migrate.formats.qapi import PARAMETERS
from migrate.model import Event
from migrate.recorder.qemu_state import announce_parameters

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
    announce = announce_parameters(PARAMETERS.of({**DEFAULTS, **changes}, ""))
    assert announce is not None
    assert announce.last_due_ms == last_due_ms


def test_a_qemu_that_does_not_tell_its_rounds_has_none_on_record() -> None:
    assert announce_parameters(PARAMETERS.of({}, "")) is None


def test_a_kind_that_was_not_heard_is_zero() -> None:
    def heard(kind: str) -> Event:
        return Event(at_ns=1, source="fabric", host="fabric", name="announce", data={"kind": kind})

    found = count_by_kind([heard("garp"), heard("garp"), heard("rarp")])
    assert found == {"garp": 2, "na": 0, "rarp": 1}
