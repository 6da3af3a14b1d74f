"""A guest that falls silent after its move: what was recorded is kept, and its console is told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from migrate.errors import GuestError, HostError
from migrate.migration import hop as hops
from migrate.migration.silence import (
    console_end,
    fell_silent_at_last,
    hop_not_made,
    silent_hop,
)
from migrate.model.recording import HopRecording, MoveResult
from migrate.recorder.base import AttemptEnv, Rig
from selftests.doubles import synthetic

PANIC = """\
[    6.1] login:
[   12.000] BUG: unable to handle page fault for address: ffff
[   12.100] Kernel panic - not syncing: Fatal exception in interrupt
[   12.200] Kernel Offset: disabled
[   12.300] ---[ end Kernel panic - not syncing: Fatal exception in interrupt ]---

"""


def rig(console: str | None = PANIC) -> Rig:
    def run(_words: object, _deadline: object, *, check: bool) -> Any:
        assert not check
        if console is None:
            raise HostError("run tail", host="b", said="gone")
        return SimpleNamespace(status=0, out=console)

    hosts = tuple(SimpleNamespace(name=name, run=run) for name in "ab")
    domain = SimpleNamespace(host="a", uuid="0")
    made = SimpleNamespace(pair=hosts, domain=domain, direction=lambda: hosts)
    return cast("Rig", made)


def hop() -> HopRecording:
    (made,) = synthetic.recording().hops
    return made


def test_a_panic_after_a_move_that_completed_is_told_of_the_host_where_it_was() -> None:
    why = "wait for hello on host guest on b: the probe did not answer"
    silent = silent_hop(rig(), hop(), why)
    error = silent.result.error
    assert error is not None
    assert (silent.result.outcome, silent.result.held_by, error.host) == ("failed", ("b",), "b")
    assert error.said.startswith(
        "the move to b completed, then its probe stopped answering; its console ends with: "
        "[   12.100] Kernel panic - not syncing: Fatal exception in interrupt"
    )
    assert silent.silent
    assert why in silent.notes
    assert silent.result.reported == hop().result.reported, "what was recorded is kept"


@pytest.mark.parametrize("console", [None, ""])
def test_without_a_console_it_is_said_what_was_asked(console: str | None) -> None:
    error = silent_hop(rig(console), hop(), "no answer").result.error
    assert error is not None
    assert error.said == "the move to b completed, then its probe stopped answering: no answer"


def test_a_guest_that_lies_after_its_move_is_not_called_silent() -> None:
    why = "the probe's answer to stream.log is invalid on host guest on b: data: Field required"
    silent = silent_hop(rig("login: "), hop(), why)
    assert silent.result.outcome == "failed"
    assert silent.result.error is not None
    assert (
        silent.result.error.said
        == f"the move to b completed, then its probe sent an invalid answer: {why}"
    )


def test_the_end_of_a_console_without_a_panic_is_its_last_lines() -> None:
    assert console_end("one\ntwo\n\nthree\nfour\n") == "two / three / four"
    assert len(console_end("x" * 9000)) <= 400
    panic = console_end("Kernel panic " + "x" * 9000 + "\nlast" + "y" * 9000)
    assert len(panic) < 410
    assert "/ last" in panic


def test_a_guest_that_is_silent_when_its_logs_are_read_back_is_noticed_then() -> None:
    recording = synthetic.recording()
    receipts = recording.traffic.model_copy(update={"from_receipts": True})
    assert fell_silent_at_last(recording.model_copy(update={"traffic": receipts}))
    assert not fell_silent_at_last(recording)
    lost = hop().model_copy(update={"result": MoveResult(outcome="lost", held_by=())})
    gone = recording.model_copy(update={"traffic": receipts, "hops": (lost,)})
    assert not fell_silent_at_last(gone), "it is not there to answer"


def test_a_second_move_that_is_not_made_is_void_and_names_the_host() -> None:
    error = HostError("connect to libvirt", host="a", said="refused")
    made = hop_not_made(rig(), 0, error)
    assert (made.source, made.target, made.result.outcome) == ("a", "b", "failed")
    assert made.void == ("the move to b was not made: connect to libvirt on host a: refused",)


def test_a_guest_that_does_not_answer_on_the_target_loses_no_recording(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def follow(_rig: object, host: Any) -> None:
        raise GuestError("wait for hello", host=f"guest on {host.name}", said="silent")

    monkeypatch.setattr(hops, "_observed_move", lambda *_words: hop())
    monkeypatch.setattr(hops, "follow", follow)
    env = AttemptEnv(cast("Any", None))
    traffic = SimpleNamespace(read_guest_clock=lambda: None)
    whole = rig()
    for name, value in {
        "env": env,
        "traffic": traffic,
        "hotplug": {"a": None, "b": None},
        "case": synthetic.case(),
        "listener": None,
        "start": synthetic.recording().start,
    }.items():
        setattr(whole, name, value)
    made = hops.move_guest(whole)
    assert made.silent
    assert made.result.error is not None
    assert "Kernel panic" in made.result.error.said
