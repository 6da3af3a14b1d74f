"""QEMU's monitor, with a stand-in at its other end: each way in which it answers, or does not."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from migrate.clock import Deadline
from migrate.errors import HostError
from migrate.qmp_client import Monitor, monitor

Message = Mapping[str, Any]
Script = Mapping[str, Sequence[Message]]
"""What comes back for a command: nothing at all for one that hangs."""

GREETING: Message = {
    "QMP": {
        "version": {"qemu": {"major": 10, "minor": 0, "micro": 2}, "package": "Debian"},
        "capabilities": ["oob"],
    }
}
DONE: Message = {"return": {}}
HANGS: Sequence[Message] = ()
ENDS: Sequence[Message] = ({"ends": True},)
PATIENCE_S = 10.0


def refusal(words: str) -> Message:
    return {"error": {"class": "GenericError", "desc": words}}


def event(status: str) -> Message:
    stamp = {"seconds": 1, "microseconds": 0}
    return {"event": "MIGRATION", "data": {"status": status}, "timestamp": stamp}


def requests(connection: socket.socket) -> Iterator[Any]:
    """As QEMU reads them: one JSON object after another, with no line's end between them."""
    text = ""
    while data := connection.recv(4096):
        text += data.decode()
        with suppress(json.JSONDecodeError):  # more of it is to come
            while text := text.lstrip():
                request, end = json.JSONDecoder().raw_decode(text)
                text = text[end:]
                yield request


class StandIn:
    """QEMU's end of a monitor: a greeting, then for each command what the script has."""

    def __init__(self, path: Path, script: Script, greeting: Sequence[Message]) -> None:
        self.path = path
        self.heard: list[tuple[str, Any]] = []
        """Commands with their arguments, in the order in which they came."""
        self._script = {"qmp_capabilities": [DONE], **script}
        self._greeting = greeting
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen(1)
        self._socket.settimeout(PATIENCE_S)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._socket.accept()
        with connection:
            connection.settimeout(PATIENCE_S)
            for message in self._greeting:
                connection.sendall(json.dumps(message).encode() + b"\n")
            for request in requests(connection):
                self.heard.append((request["execute"], request.get("arguments")))
                for answer in self._script[request["execute"]]:
                    if answer == ENDS[0]:
                        return
                    known = (
                        {} if "event" in answer or "id" not in request else {"id": request["id"]}
                    )
                    connection.sendall(json.dumps({**answer, **known}).encode() + b"\n")

    def gone(self) -> bool:
        """Whether its visitor left it: it waits for that."""
        self._thread.join(PATIENCE_S)
        return not self._thread.is_alive()

    def close(self) -> None:
        """All of it."""
        self._thread.join(PATIENCE_S)
        self._socket.close()


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


def soon(seconds: float = PATIENCE_S) -> Deadline:
    return Deadline.after(seconds)


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
