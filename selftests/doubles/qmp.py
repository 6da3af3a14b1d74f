"""A stand-in for QEMU's end of a monitor."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from migrate.clock import Deadline
from migrate.drivers.shell import Completed
from migrate.lab.namespaces import NamespaceHost
from migrate.model import Observers, QuestionTrial
from migrate.recorder.qmp_queries import EXPERIMENTAL

Message = Mapping[str, Any]
Answers = Sequence[Message]
Script = Mapping[str, Answers | Callable[[Message], Answers]]
"""What comes back for a command, or for its arguments: nothing at all for one that hangs."""

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


def observers(version: str = "10.0.2", **harms: str) -> Observers:
    """Every question was tried with a QEMU and may be asked, but for those that do ``harms``."""
    named = {name.replace("_", "-"): harm for name, harm in harms.items()}
    trials = [
        QuestionTrial(command=name, state=state, backing="none", harm=named.get(name, ""))
        for state, names in EXPERIMENTAL.items()
        for name in names
    ]
    return Observers(qemu=version, trials=tuple(trials), untried="")


def refusal(words: str) -> Message:
    return {"error": {"class": "GenericError", "desc": words}}


def queue_status(number: int = 0) -> dict[str, Any]:
    """What QEMU tells of a queue (VirtQueueStatus)."""
    numbers = ("inuse", "vring-num", "vring-desc", "vring-avail", "vring-used", "used-idx")
    told = {**dict.fromkeys(numbers, 0), "signalled-used": 0, "signalled-used-valid": False}
    return {"queue-index": number, **told}


def virtio_status(**more: Any) -> dict[str, Any]:
    """What QEMU tells of a virtio network device of one queue (VirtioStatus)."""
    features: dict[str, Any] = {"transports": [], "dev-features": []}
    told = {"name": "virtio-net", "num-vqs": 1, "isr": 0, "broken": False, "vhost-started": False}
    return {**told, "status": {"statuses": []}, "guest-features": features, **more}


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

    def __init__(
        self, path: Path, script: Script, greeting: Sequence[Message] = (GREETING,)
    ) -> None:
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
        # A visitor may leave while it is answered.
        with connection, suppress(ConnectionError):
            connection.settimeout(PATIENCE_S)
            for message in self._greeting:
                connection.sendall(json.dumps(message).encode() + b"\n")
            for request in requests(connection):
                arguments = request.get("arguments")
                self.heard.append((request["execute"], arguments))
                scripted = self._script[request["execute"]]
                for answer in scripted(arguments or {}) if callable(scripted) else scripted:
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


@dataclass(frozen=True, slots=True)
class Here(NamespaceHost):
    """A host whose files are those of a folder."""

    folder: Path = Path()

    def file(self, path: str) -> Path:
        return self.folder / Path(path).name

    def run(
        self,
        argv: Sequence[str],
        _deadline: Deadline,
        *,
        text: str | None = None,
        check: bool = True,
    ) -> Completed:
        assert (list(argv[:2]), text, check) == (["rm", "-f"], None, True)
        self.file(argv[2]).unlink(missing_ok=True)
        return Completed(tuple(argv), 0, "", "")


def here(name: str, folder: Path) -> Here:
    return Here(name=name, root="", migration_address="", init_pid=0, folder=folder)
