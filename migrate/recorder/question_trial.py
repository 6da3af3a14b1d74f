"""Which experimental questions a QEMU may be asked: each one is tried on a throw-away guest first.

QEMU's ``x-…`` commands are for people who debug, and may do anything: QEMU 11.1.3 ends by
``x-query-virtio-status``; of a vhost-user device that runs, ``x-query-virtio-queue-status`` stops
the queues. So each question is put to two bare QEMUs of the same program, on the same host, that go
through a whole move: in every state in which it is asked of guests under test, once of a device
whose queues QEMU works itself, and once of one with a vhost-user backend, which stands for vhost of
any kind. A question that ends QEMU, that is not answered, or after which the guest, its device or
the backend is not as it was is asked no more there, and the move is begun anew without it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import ValidationError

from migrate.backends.base import EMULATOR
from migrate.clock import Deadline, until
from migrate.drivers.qmp import MonitorEvent, ask
from migrate.errors import HostError
from migrate.formats.answers import Shape
from migrate.formats.qapi import PCI, RUN_STATUS, SCHEMA
from migrate.guest.throwaway_guest import DEVICE, INTERRUPT, STREAM, ThrowawaySide, throwaway_guest
from migrate.images.cache import build_once, digest
from migrate.lab.api import Host
from migrate.model import Backing, Observers, QemuState, QuestionTrial
from migrate.recorder.qmp_queries import ARGUMENTS, EXPERIMENTAL, version_of
from migrate.waiting import waiting

LOGGER = logging.getLogger(__name__)

_Value = TypeVar("_Value")

REVISION = 1
"""Raised when questions are tried in another way: then all are tried anew."""
TRIAL_S = 10.0
"""For one move of a throw-away guest; it takes some 0.2 s."""
ANSWER_S = 2.0
DIGEST_S = 20.0
POLL_S = 0.01
NOT_ANSWERED = "is not answered by"
_OF_MIGRATION = frozenset({"MIGRATION", "MIGRATION_PASS", "NIC_RX_FILTER_CHANGED"})
"""Events that come of themselves; any other that a question is followed by is its doing."""

Harms = dict[tuple[QemuState, str], str]
"""What a command does in a state."""


def observers_of(
    host: Host, cache: Path, *, fresh: bool = False, patience: float = 1.0
) -> Observers:
    """What the QEMU of a host may be asked: tried once for each program and root, and kept.

    ``fresh``: try it again, whatever was found last time. If nothing can be tried, nothing
    experimental may be asked, and the value says why.
    """
    try:
        program = host.run(["sha256sum", EMULATOR], Deadline.after(DIGEST_S * patience)).out
        table = json.dumps({state: sorted(names) for state, names in EXPERIMENTAL.items()})
        key = digest(str(REVISION), table, host.root, program)
        kept = cache / "facts" / f"questions-{key}.json"
        if fresh:
            kept.unlink(missing_ok=True)

        def build(path: Path) -> None:
            LOGGER.info("host %s: trying experimental QMP commands on a spare guest", host.name)
            path.write_text(try_questions(host, patience=patience).model_dump_json(indent=1))

        build_once(kept, build)
        try:
            return Observers.model_validate_json(kept.read_bytes())
        except ValidationError:  # of another version: tried anew, and written over
            kept.unlink(missing_ok=True)
            build_once(kept, build)
            return Observers.model_validate_json(kept.read_bytes())
    except HostError as error:
        return Observers(untried=f"not tried on a throw-away guest ({error.tried}: {error.said})")


def try_questions(host: Host, *, patience: float = 1.0) -> Observers:
    """Try them all now. HostError if a throw-away guest does not move, whatever is not asked."""
    trials: list[QuestionTrial] = []
    version, harms, doubted = "", Harms(), Harms()
    for backing in get_args(Backing):
        known = set(harms)  # what harms one guest is asked of none, nor of this one
        while True:
            rehearsal = _Rehearsal(harms)
            try:
                deadline = Deadline.after(TRIAL_S * patience)
                with waiting(f"the trial move of a throw-away guest on host {host.name}", deadline):
                    version = rehearsal.run(host, backing, deadline)
            except _HarmDone as done:
                key = done.state, done.command
                # A host that is very busy answers late, too: once is not enough.
                certain = done.harm != NOT_ANSWERED or key in doubted
                (harms if certain else doubted)[key] = done.harm
            else:
                break
        tried = {**dict.fromkeys(rehearsal.harmless, ""), **harms}
        trials += [
            QuestionTrial(command=command, state=state, backing=backing, harm=harm)
            for (state, command), harm in tried.items()
            if (state, command) not in known
        ]
    return Observers(qemu=version, trials=tuple(trials), untried="")


class _HarmDone(Exception):  # noqa: N818  not an error: it is what was looked for
    def __init__(self, state: QemuState, command: str, harm: str) -> None:
        super().__init__(state, command, harm)
        self.state, self.command, self.harm = state, command, harm


@dataclass(slots=True)
class _Rehearsal:
    """A move of a throw-away guest, with every question in its place but those that do harm."""

    harms: Harms
    harmless: list[tuple[QemuState, str]] = field(default_factory=list)
    known: Collection[str] = ()
    """Commands that this QEMU has, by its own schema."""

    def run(self, host: Host, backing: Backing, deadline: Deadline) -> str:
        """QEMU's version; raises :class:`_HarmDone` at the first question that does harm."""
        with throwaway_guest(host, backing, deadline) as guest:
            source, target = (_Side(side, deadline) for side in guest)
            self.known = source.commands()
            source.await_device()
            self._ask(source, "running")
            self._ask(target, "incoming")
            for side in (source, target):
                side.execute("migrate-set-capabilities", capabilities=_CAPABILITIES)
            target.execute("migrate-incoming", uri=STREAM)
            source.execute("migrate", uri=STREAM)
            source.await_status("pre-switchover")
            self._ask(source, "stopped")
            source.execute("migrate-continue", state="pre-switchover")
            source.await_status("completed")
            source.await_run_state("postmigrate")  # a moment after it says so
            self._ask(source, "migrated")
            target.await_status("completed")
            self._ask(target, "loaded")
            target.execute("cont")
            self._ask(target, "resumed")
            return version_of(source.qemu)

    def _ask(self, side: _Side, state: QemuState) -> None:
        for command in EXPERIMENTAL[state]:
            if command in self.known and (state, command) not in self.harms:
                if harm := side.harm_of(command):
                    raise _HarmDone(state, command, harm)
                self.harmless.append((state, command))


_PLACE: Mapping[str, Any] = {"path": DEVICE, "queue": 0}
_CAPABILITIES = [
    {"capability": name, "state": True} for name in ("events", "pause-before-switchover")
]


class _Side:
    """One end of the move."""

    def __init__(self, side: ThrowawaySide, deadline: Deadline) -> None:
        self.qemu, self.backend = side.qemu, side.backend
        self.deadline = deadline
        self.events: list[MonitorEvent] = []

    def execute(self, command: str, **arguments: Any) -> object:
        """A stable command."""
        return self.qemu.execute(command, self.deadline, **arguments)

    def answer(self, command: str, shape: Shape[_Value]) -> _Value:
        """What a stable command returns."""
        return ask(self.qemu, command, shape, self.deadline)

    def commands(self) -> frozenset[str]:
        """All commands, by the schema (QEMU docs/devel/qapi-code-gen.rst, client JSON protocol
        introspection)."""
        schema = self.answer("query-qmp-schema", SCHEMA)
        return frozenset(entity.name for entity in schema if entity.meta_type == "command")

    def await_device(self) -> None:
        """Until the firmware has set the device up."""

        def is_set_up() -> bool:
            buses = self.answer("query-pci", PCI)
            return any(device.irq == INTERRUPT for bus in buses for device in bus.devices)

        if not until(is_set_up, self.deadline, POLL_S):
            raise HostError("set up the device of a throw-away guest", said="it is not set up")

    def await_status(self, status: str) -> None:
        """Until QEMU says that its migration has come so far."""
        while not any(event.status == status for event in self.events):
            event = self.qemu.event(self.deadline)
            if event is None or event.status == "failed":
                said = f"it is not {status}" if event is None else "it failed"
                raise HostError("move a throw-away guest", said=said)
            self.events.append(event)

    def await_run_state(self, state: str) -> None:
        """Until the guest's own state is that."""
        if not until(lambda: self._run_state() == state, self.deadline, POLL_S):
            said = f"its state is {self._run_state()}, not {state}"
            raise HostError("move a throw-away guest", said=said)

    def _run_state(self) -> str:
        return self.answer("query-status", RUN_STATUS).status

    def harm_of(self, command: str) -> str:
        """Ask an experimental question twice; what harm that did, see :class:`QuestionTrial`."""
        place = {name: _PLACE[name] for name in ARGUMENTS.get(command, ())}
        try:
            before, sent = self._account(), self._requests()
            self.events += self.qemu.pending()
            answers = [
                self.qemu.execute_all([(command, place)], Deadline.after(ANSWER_S))[0][0]
                for _ in range(2)
            ]
            after = self._account()
        except HostError:
            return NOT_ANSWERED if self.qemu.connected else "ends"
        if requests := self._requests()[len(sent) :]:
            return f"sends {', '.join(dict.fromkeys(requests))} to the backend of"
        events = self.qemu.pending()
        self.events += events
        if before != after or answers[0] != answers[1]:
            return "changes the guest of"
        names = [event.name for event in events if event.name not in _OF_MIGRATION]
        return f"is followed by {', '.join(dict.fromkeys(names))} of" if names else ""

    def _requests(self) -> tuple[str, ...]:
        return tuple(self.backend.requests) if self.backend else ()

    def _account(self) -> list[object]:
        """What must be the same before and after a question, by stable commands."""
        return [self.execute(command) for command in ("query-status", "query-rx-filter")]
