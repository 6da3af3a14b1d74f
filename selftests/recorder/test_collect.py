"""What can't be read back does not keep the rest of a recording from being kept."""

from __future__ import annotations

import pytest

from migrate.errors import GuestError, LeaseLostError
from migrate.recorder.collect import Salvage
from migrate.recorder.traffic import nothing_read


def test_a_part_that_can_not_be_had_is_named_and_the_next_one_read() -> None:
    salvage = Salvage()

    def silent() -> int:
        raise GuestError("stop the stream", host="peer", said="no answer")

    def nonsense() -> int:
        return {"id": 1}["seq"]

    assert salvage.read("the probes' logs were", silent, 0) == 0
    assert salvage.read("announcements were", nonsense, 0) == 0
    assert salvage.read("the logs of a were", lambda: 3, 0) == 3
    assert salvage.missing == [
        "the probes' logs were not had: GuestError: stop the stream on host peer: no answer",
        "announcements were not had: KeyError: 'seq'",
    ]


def test_a_lease_that_is_lost_ends_the_reading() -> None:
    def lost() -> int:
        raise LeaseLostError("keep the lease")

    with pytest.raises(LeaseLostError):
        Salvage().read("the logs of a were", lost, 0)


def test_a_log_that_was_not_read_measures_nothing() -> None:
    log = nothing_read()
    assert log.nothing_logged
    assert (log.memory, log.tcp, log.nic, log.jumps) == (None, None, None, None)
