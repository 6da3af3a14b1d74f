"""QEMU's monitor, with a stand-in at its other end: each way in which it answers, or does not."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from migrate.drivers.qmp import Monitor, ask, monitor
from migrate.errors import HostError
from migrate.formats.qapi import RUN_STATUS
from selftests.doubles.qmp import (
    DONE,
    ENDS,
    GREETING,
    HANGS,
    Message,
    Script,
    StandIn,
    event,
    refusal,
)
from selftests.helpers import soon

Qemu = Callable[..., StandIn]


@pytest.fixture
def qemu(tmp_path: Path) -> Iterator[Qemu]:
    """Makes a stand-in that keeps to a script."""
    made: list[StandIn] = []

    def make(script: Script | None = None, greeting: Sequence[Message] = (GREETING,)) -> StandIn:
        made.append(StandIn(tmp_path / "qmp", script or {}, greeting))
        return made[-1]

    yield make
    for one in made:
        one.close()


def refused(do: Callable[[Monitor], object], found: StandIn) -> HostError:
    """What is said when it can't be done; leaving the monitor covers none of it up."""
    with pytest.raises(HostError) as caught, monitor(found.path, "a", soon()) as machine:
        do(machine)
    assert caught.value.host == "a"
    return caught.value


# --- one command ----------------------------------------------------------------------------------


def test_a_command_returns_what_qemu_returns(qemu: Qemu) -> None:
    found = qemu({"query-status": [{"return": {"status": "running"}}]})
    with monitor(found.path, "a", soon()) as machine:
        assert machine.execute("query-status", soon()) == {"status": "running"}
    assert found.heard[-1][0] == "query-status"


def test_events_that_came_are_taken_without_waiting_for_more(qemu: Qemu) -> None:
    found = qemu({"query-status": [event("setup"), event("active"), DONE]})
    with monitor(found.path, "a", soon()) as machine:
        assert list(machine.pending()) == []
        machine.execute("query-status", soon())
        told = [one.status for one in machine.pending()]
        assert (told, list(machine.pending())) == (["setup", "active"], [])


def test_arguments_arrive_as_they_were_given(qemu: Qemu) -> None:
    found = qemu({"migrate-set-capabilities": [DONE]})
    wanted = [{"capability": "mapped-ram", "state": True}]
    with monitor(found.path, "a", soon()) as machine:
        machine.execute("migrate-set-capabilities", soon(), capabilities=wanted)
    assert found.heard[-1] == ("migrate-set-capabilities", {"capabilities": wanted})


def test_a_refusal_is_told_in_qemus_words(qemu: Qemu) -> None:
    found = qemu({"cont": [refusal("Resetting the machine is required")]})
    error = refused(lambda machine: machine.execute("cont", soon()), found)
    assert (error.tried, error.said) == ("cont", "Resetting the machine is required")


def test_after_a_refusal_the_next_command_is_answered(qemu: Qemu) -> None:
    found = qemu({"cont": [refusal("no")], "stop": [DONE]})
    with monitor(found.path, "a", soon()) as machine:
        with pytest.raises(HostError):
            machine.execute("cont", soon())
        assert machine.execute("stop", soon()) == {}


def test_an_answer_that_does_not_come_is_not_waited_for(qemu: Qemu) -> None:
    found = qemu({"query-status": HANGS})
    error = refused(lambda machine: machine.execute("query-status", soon(0.1)), found)
    assert error.tried == "query-status"
    assert "did not answer before the deadline" in error.said


def test_a_qemu_that_ends_meanwhile_is_told(qemu: Qemu) -> None:
    found = qemu({"query-status": ENDS})
    error = refused(lambda machine: machine.execute("query-status", soon()), found)
    assert error.tried == "query-status"
    assert error.said
    assert "deadline" not in error.said


def test_the_monitor_is_left_with_its_block_also_by_an_error_of_others(qemu: Qemu) -> None:
    found = qemu()
    with pytest.raises(ZeroDivisionError), monitor(found.path, "a", soon()):
        raise ZeroDivisionError
    assert found.gone()


# --- the way in -----------------------------------------------------------------------------------


def test_a_monitor_that_is_not_there_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(HostError, match="connect to QEMU's monitor on host a"),
        monitor(tmp_path / "none", "a", soon()),
    ):
        pass


@pytest.mark.parametrize(
    ("greeting", "script"),
    [
        pytest.param([{"QEMU": "hello"}], {}, id="no-greeting-of-qmp"),
        pytest.param([GREETING], {"qmp_capabilities": [refusal("not now")]}, id="no-capabilities"),
        pytest.param([GREETING], {"qmp_capabilities": ENDS}, id="it-ends"),
    ],
)
def test_a_monitor_that_speaks_otherwise_is_told(
    qemu: Qemu, greeting: Sequence[Message], script: Script
) -> None:
    found = qemu(script, greeting)
    error = refused(lambda _machine: None, found)
    assert error.tried == "connect to QEMU's monitor"
    assert error.said


def test_a_greeting_that_does_not_come_is_not_waited_for(qemu: Qemu) -> None:
    found = qemu(greeting=())
    with (
        pytest.raises(HostError, match="did not answer before the deadline"),
        monitor(found.path, "a", soon(0.1)),
    ):
        pass
    assert found.gone()


# --- a migration ----------------------------------------------------------------------------------

FILE = {"uri": "file:/var/cache/a.state"}


@pytest.mark.parametrize("command", ["migrate", "migrate-incoming"])
def test_a_migration_is_over_when_qemu_says_that_it_is_completed(qemu: Qemu, command: str) -> None:
    told = [event("setup"), DONE, event("active"), event("completed")]
    found = qemu({command: told, "cont": [DONE]})
    with monitor(found.path, "a", soon()) as machine:
        machine.migrate(command, soon(), **FILE)
        machine.execute("cont", soon())
    assert found.heard[1:] == [(command, FILE), ("cont", None)]


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"status": "failed", "error-desc": "load of migration failed"}, "load of migration"),
        ({"status": "failed"}, "failed"),
    ],
)
def test_a_migration_that_fails_is_told_in_qemus_words(
    qemu: Qemu, state: Message, said: str
) -> None:
    told = [DONE, event("active"), event("failed")]
    found = qemu({"migrate-incoming": told, "query-migrate": [{"return": state}]})
    error = refused(lambda machine: machine.migrate("migrate-incoming", soon(), **FILE), found)
    assert error.tried == "migrate-incoming"
    assert said in error.said


def test_a_migration_that_is_refused_is_told_in_qemus_words(qemu: Qemu) -> None:
    words = "Migration is disabled when VirtFS export path is mounted"
    found = qemu({"migrate": [refusal(words)]})
    error = refused(lambda machine: machine.migrate("migrate", soon(), **FILE), found)
    assert (error.tried, error.said) == ("migrate", words)


def test_a_migration_that_does_not_end_is_not_waited_for(qemu: Qemu) -> None:
    found = qemu({"migrate": [DONE, event("active")]})
    error = refused(lambda machine: machine.migrate("migrate", soon(0.2), **FILE), found)
    assert error.tried == "migrate"
    assert "did not answer before the deadline" in error.said


@pytest.mark.parametrize(
    ("told", "tried"),
    [
        pytest.param([DONE, event("active"), *ENDS], "migrate-incoming", id="without-a-word"),
        pytest.param([DONE, event("failed"), *ENDS], "query-migrate", id="after-it-said-so"),
    ],
)
def test_a_qemu_that_ends_in_a_migration_is_not_waited_for(
    qemu: Qemu, told: Sequence[Message], tried: str
) -> None:
    found = qemu({"migrate-incoming": told})
    error = refused(lambda machine: machine.migrate("migrate-incoming", soon(), **FILE), found)
    assert error.tried == tried
    assert error.said
    assert "deadline" not in error.said


# --- nonsense -------------------------------------------------------------------------------------

DEEP: Message = {"return": json.loads("[" * 900 + "]" * 900)}


@pytest.mark.parametrize(
    "answer", [{"return": "\ud800"}, {"return": [float("nan")]}, {"error": 7}, DEEP, {"x": 1}]
)
def test_an_answer_that_makes_no_sense_is_an_error_with_the_host(
    qemu: Qemu, answer: Message
) -> None:
    found = qemu({"query-status": [answer]})
    assert refused(lambda machine: machine.execute("query-status", soon()), found).host == "a"


@pytest.mark.parametrize("told", [{"event": []}, {"event": "STOP", "data": 7}, {"event": None}])
def test_an_event_that_makes_no_sense_is_an_error_with_the_host(qemu: Qemu, told: Message) -> None:
    found = qemu({"query-status": [told, DONE]})

    def hear(machine: Monitor) -> None:
        machine.execute("query-status", soon())
        machine.event(soon())

    assert refused(hear, found).host == "a"


@pytest.mark.parametrize("version", [{}, {"qemu": {"major": "10"}}, {"qemu": [10, 0, 2]}])
def test_a_version_that_is_none_is_an_error_with_the_host(qemu: Qemu, version: Message) -> None:
    greeting = {"QMP": {"version": version, "capabilities": []}}
    found = qemu({}, (greeting,))
    assert refused(lambda machine: machine.version, found).tried == "read QEMU's version"


@pytest.mark.parametrize("answer", [[], {}, {"status": 7}, "running", None])
def test_what_is_asked_has_its_shape(qemu: Qemu, answer: object) -> None:
    found = qemu({"query-status": [{"return": answer}]})
    error = refused(lambda machine: ask(machine, "query-status", RUN_STATUS, soon()), found)
    assert error.tried == "query-status"


def test_a_library_that_complains_does_so_to_nobody_else(
    qemu: Qemu, capfd: pytest.CaptureFixture[str]
) -> None:
    refused(lambda machine: machine.execute("query-status", soon()), qemu({"query-status": ENDS}))
    gc.collect()  # what nobody took is told then
    assert "Traceback" not in "".join(capfd.readouterr())
