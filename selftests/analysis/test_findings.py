"""What findings say of how an attempt ended: a QEMU's last words first, and why it is void."""

from __future__ import annotations

from typing import Any

from migrate.analysis.findings import analyse
from migrate.model import Findings, Problem, QemuEnd
from migrate.model.recording import GuestState
from selftests.doubles import synthetic

ASSERTION = "visit_start_struct: Assertion `*obj' failed."
CRASH = QemuEnd(host="b", how="by libvirt: crashed", last_words=ASSERTION)
SOCKET = Problem(tried="migrate to b", host="a", said="client socket is closed", remedy="none")


def ended(
    outcome: str, error: Problem | None, ends: tuple[QemuEnd, ...], **of_hop: Any
) -> Findings:
    recording = synthetic.recording(qemu_ends=ends)
    (hop,) = recording.hops
    result = hop.result.model_copy(update={"outcome": outcome, "error": error})
    hop = hop.model_copy(update={"result": result, **of_hop})
    return analyse(recording.model_copy(update={"hops": (hop,)}), synthetic.case())


def test_the_last_words_of_a_qemu_come_before_what_libvirt_said_of_a_socket() -> None:
    findings = ended("failed", SOCKET, (CRASH,))
    assert findings.error is not None
    assert findings.error.said == (
        f"QEMU on b ended (by libvirt: crashed): {ASSERTION}; client socket is closed"
    )
    assert (findings.error.tried, findings.error.remedy) == (SOCKET.tried, SOCKET.remedy)
    assert findings.qemu_ends == (CRASH,)


def test_a_qemu_that_ended_is_an_error_also_where_libvirt_said_nothing() -> None:
    findings = ended("lost", None, (CRASH,))
    assert findings.error is not None
    assert findings.error.host == "b"
    assert ASSERTION in findings.error.said


def test_an_error_without_an_end_is_as_it_was_said() -> None:
    assert ended("failed", SOCKET, ()).error == SOCKET
    assert ended("completed", None, (CRASH,)).error is None


def test_what_was_not_done_in_a_move_voids_the_attempt() -> None:
    findings = ended("failed", SOCKET, (), void=("the fault was not done",))
    assert findings.void == ("the fault was not done",)
    assert ended("failed", SOCKET, ()).void == ()


def test_the_states_at_the_end_of_a_move_are_noted() -> None:
    states = (GuestState(host="a", libvirt="paused (postcopy-failed)", qemu="finish-migrate"),)
    recording = synthetic.recording()
    (hop,) = recording.hops
    result = hop.result.model_copy(update={"outcome": "recoverable", "states": states})
    hop = hop.model_copy(update={"result": result})
    notes = analyse(recording.model_copy(update={"hops": (hop,)}), synthetic.case()).notes
    said = "when the move had ended, libvirt on a: paused (postcopy-failed), QEMU: finish-migrate"
    assert said in notes
