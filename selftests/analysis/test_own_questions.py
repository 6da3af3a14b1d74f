"""When a guest's end is held against a question of ours, and when it is not."""

from __future__ import annotations

from typing import Any

import pytest

from migrate.analysis.findings import analyse
from migrate.analysis.own_questions import void_by_question
from migrate.model import Event, Outcome, Problem
from migrate.model.recording import Recording
from selftests.doubles import synthetic
from selftests.doubles.synthetic import BEGIN, MS

CRASHED, FAILED, MIGRATED = 2, 5, 3


def event(ms: float, name: str, host: str = "a", **data: Any) -> Event:
    """So many milliseconds after the begin of the axis."""
    names = {"question", "QEMU ended"}
    source: Any = "controller" if name in names or name.startswith("fault") else "qemu"
    source = "libvirt" if name == "stopped" else source
    at_ns = BEGIN + round(ms * MS)
    return Event(at_ns=at_ns, source=source, host=host, name=name, data=data)


def question(ms: float, host: str = "a", answered_ms: float | None = None) -> Event:
    answered_ns = None if answered_ms is None else BEGIN + round(answered_ms * MS)
    commands = ["x-query-virtio-status"]
    return event(ms, "question", host, commands=commands, answered_ns=answered_ns)


def gone(ms: float, host: str = "a", shutdown: str = "") -> Event:
    return event(ms, "QEMU ended", host, shutdown=shutdown)


def recorded(
    *events: Event,
    held_by: tuple[str, ...] = (),
    outcome: Outcome = "failed",
    said: str = "",
    end_ms: float = 5000,
) -> Recording:
    """A hop from a to b that ends after five seconds, and what was recorded of it."""
    whole = synthetic.recording(begin_ns=BEGIN)
    (hop,) = whole.hops
    error = Problem(tried="migrate the guest", said=said) if said else None
    result = hop.result.model_copy(update={"outcome": outcome, "held_by": held_by, "error": error})
    hop = hop.model_copy(
        update={"begin_ns": BEGIN, "end_ns": BEGIN + round(end_ms * MS), "result": result}
    )
    return whole.model_copy(update={"hops": (hop,), "events": events})


@pytest.mark.parametrize("host", ["a", "b"])
def test_a_qemu_that_ends_while_our_question_is_out_makes_the_attempt_void(host: str) -> None:
    """It is said in one sentence, with both times; and it is what the findings begin with."""
    recording = recorded(
        question(100, host), gone(103, host), event(104, "stopped", host, detail=5)
    )
    (reason,) = void_by_question(recording)
    assert reason == (
        f"QEMU ended on {host} 3.0 ms after we asked x-query-virtio-status, which was not "
        "answered: our question may have ended it"
    )
    assert analyse(recording, synthetic.case()).void == (reason,)


@pytest.mark.parametrize("detail", [CRASHED, FAILED])
def test_libvirts_word_for_it_is_enough(detail: int) -> None:
    ended = event(900, "stopped", detail=detail)
    (reason,) = void_by_question(recorded(question(100, answered_ms=101), ended))
    assert "800.0 ms after we asked x-query-virtio-status, which had been answered" in reason


def test_a_guest_that_panics_within_moments_of_a_question_is_void() -> None:
    panic = event(600, "SHUTDOWN", guest=True, reason="guest-panic")
    (reason,) = void_by_question(recorded(question(100, answered_ms=101), panic))
    assert reason.startswith("the guest ended (guest-panic) on a 500.0 ms after")


def test_an_end_soon_after_the_move_counts_too() -> None:
    events = question(4900, "b", answered_ms=4901), event(5300, "stopped", "b", detail=FAILED)
    (reason,) = void_by_question(recorded(*events, held_by=("b",), outcome="completed"))
    assert reason.startswith("QEMU ended on b 400.0 ms")


def test_a_target_that_we_ended_is_not_explained_by_the_failure_that_this_made() -> None:
    """The source calls the move failed because the target is gone, and not before."""
    failed = event(104, "MIGRATION", "a", status="failed")
    events = question(100, "b"), gone(103, "b"), failed
    said = "internal error: QEMU unexpectedly closed the monitor"
    assert void_by_question(recorded(*events, held_by=("a",), said=said))


@pytest.mark.parametrize(
    "events",
    [
        pytest.param((gone(103),), id="nothing was asked"),
        pytest.param((question(100, "b"), gone(103)), id="it was asked of the other QEMU"),
        pytest.param((question(100, answered_ms=101), gone(1200)), id="long ago, and answered"),
        pytest.param((question(200), gone(103)), id="after the end"),
        pytest.param(
            (event(90, "fault: kill-guest"), question(100), gone(103)),
            id="a fault of the case ended it",
        ),
        pytest.param(
            (question(100), gone(103, shutdown="host-signal"), event(104, "stopped", detail=5)),
            id="libvirt ended it",
        ),
        pytest.param(
            (question(100, answered_ms=101), event(103, "stopped", detail=MIGRATED)),
            id="libvirt says that it went as it should",
        ),
        pytest.param(
            (
                question(100, "b", answered_ms=101),
                event(150, "MIGRATION", "b", status="failed"),
                gone(151, "b"),
            ),
            id="the target could not load it",
        ),
    ],
)
def test_what_something_else_explains_is_not_held_against_us(events: tuple[Event, ...]) -> None:
    assert void_by_question(recorded(*events)) == ()


def test_a_target_whose_last_words_are_of_the_load_was_ended_by_that() -> None:
    events = question(100, "b", answered_ms=101), gone(151, "b")
    said = "qemu-system-x86_64: load of migration failed: Invalid argument"
    assert void_by_question(recorded(*events, held_by=("a",), said=said)) == ()


@pytest.mark.parametrize("outcome", ["completed", "failed"])
def test_a_source_that_the_guest_has_left_may_end(outcome: Outcome) -> None:
    events = question(100), gone(103)
    assert void_by_question(recorded(*events, held_by=("b",), outcome=outcome)) == ()


def test_a_monitor_that_broke_off_while_the_guest_runs_on_is_no_end() -> None:
    """A connection over ssh, for example."""
    assert void_by_question(recorded(question(100), gone(103), held_by=("a",))) == ()


def test_a_recording_of_before_has_no_questions() -> None:
    assert void_by_question(recorded(event(103, "stopped", detail=FAILED))) == ()
