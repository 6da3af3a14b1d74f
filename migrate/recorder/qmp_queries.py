"""What a QEMU is asked about its virtio network devices, and its answers device by device.

Sources: qapi/virtio.json, qapi/net.json (RxFilterInfo), qapi/qom.json.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from migrate.clock import Deadline
from migrate.drivers.qmp import Asked, ask
from migrate.formats import qapi
from migrate.formats.answers import MalformedError
from migrate.formats.qapi import KEPT
from migrate.formats.virtio_net_state import QUEUE_MAX, VIRTIO_NET
from migrate.model import Observers, QemuState
from migrate.model.recording import DeviceStates

ANSWER_S = 5.0
STATIC = ("host_mtu", "speed", "duplex")
"""Properties of a device that its configuration space is made from, and that never change."""
DEVICES, STATUS = "x-query-virtio", "x-query-virtio-status"
QUEUE, VHOST_QUEUE = "x-query-virtio-queue-status", "x-query-virtio-vhost-queue-status"
EXPERIMENTAL: Mapping[QemuState, tuple[str, ...]] = {
    "running": (DEVICES, STATUS, VHOST_QUEUE),
    "stopped": (QUEUE, VHOST_QUEUE, STATUS),
    "migrated": (QUEUE, VHOST_QUEUE, STATUS),
    "incoming": (DEVICES, STATUS, QUEUE),
    "loaded": (QUEUE, STATUS),
    "resumed": (STATUS,),
}
"""All that is asked of a guest under test of what QEMU calls unstable, by the state in which it is;
none of it before it was tried (:mod:`migrate.recorder.question_trial`)."""
ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    STATUS: ("path",),
    QUEUE: ("path", "queue"),
    VHOST_QUEUE: ("path", "queue"),
}
QUEUES_AT_ONCE = 4
"""Of a device whose number of queues is not known: until QEMU refuses one."""

Question = tuple[str, dict[str, Any]]


class Qemu(Asked, Protocol):
    """A monitor."""

    @property
    def version(self) -> tuple[int, int, int]:
        """QEMU's."""

    def execute_all(
        self, commands: Sequence[Question], deadline: Deadline
    ) -> list[tuple[object, bool]]:
        """Commands in one go: what each returns, and whether that came before any event."""


Answer = tuple[Any, bool]
"""What came back, None for nothing, and whether before any event."""


def answers_of(qemu: Qemu, asked: Sequence[Question], odd: list[str]) -> list[Answer]:
    """Commands in one go; what has not the shape of QEMU's answer is none, and ``odd`` says so."""
    came = qemu.execute_all(asked, Deadline.after(ANSWER_S))
    answers: list[Answer] = []
    for (command, _), (answer, in_time) in zip(asked, came, strict=True):
        try:
            if answer is not None and (shape := KEPT.get(command)) is not None:
                shape.of(answer, command)
        except MalformedError as error:
            odd.append(f"not measured: {error}")
            answers.append((None, in_time))
        else:
            answers.append((answer, in_time))
    return answers


def version_of(qemu: Qemu) -> str:
    """As its greeting tells it."""
    return ".".join(map(str, qemu.version))


@dataclass(frozen=True, slots=True)
class Permission:
    """What may be asked of one QEMU, and why not: nothing experimental that was not tried."""

    observers: Observers
    version: str
    """Of the QEMU that is there now."""

    def objection(self, command: str, *states: QemuState) -> str:
        """Why it may not be asked in one of the states, as a clause; empty: it may."""
        tried = self.observers
        if not tried.untried and tried.qemu != self.version:
            return f"{command} was tried with QEMU {tried.qemu}, and this is {self.version}"
        objections = (tried.objection(command, state) for state in states)
        return next((f"{command} {objection}" for objection in objections if objection), "")


Side = Literal["source", "target"]
_BEFORE: Mapping[Side, QemuState] = {"source": "running", "target": "incoming"}
_READ: Mapping[Side, tuple[QemuState, ...]] = {
    "source": ("stopped", "migrated"),
    "target": ("loaded",),
}
"""When a side's devices are looked for, and when their state is read."""
_WHAT_IT_SAYS = "what QEMU says of status and features of its network devices"
_WHO_WORKS = "whether a backend works the queues of its network devices"
_ITS_QUEUES = "queues of its network devices"


class Reading(NamedTuple):
    """What came back when the state of all devices was asked for."""

    states: DeviceStates | None
    """None: nothing may be asked."""
    late: int
    """Answers that came after an event, and are not used."""
    questions: int
    odd: tuple[str, ...] = ()
    """Answers that make no sense."""


@dataclass(frozen=True, slots=True)
class Questions:
    """What is asked about the virtio network devices of a QEMU."""

    kinds: Mapping[str, str] | None
    """QEMU's names of its network devices by their paths; None: it may not be asked for them."""
    config: Mapping[str, Mapping[str, Any]]
    """Of each device, what :data:`STATIC` says."""
    backends: Mapping[str, Any]
    """What works the queues at the moment, as QEMU tells it (VhostStatus); None: nothing does, or
    it can't be asked."""
    vhost: bool | None
    """Whether a backend works a queue at the moment; None: it can't be asked."""
    asked: tuple[Question, ...]
    uncounted: tuple[str, ...] = ()
    """Devices whose number of queues is not known: their queues are asked about until QEMU refuses
    one."""
    not_asked: tuple[str, ...] = ()
    """What may not be asked of this QEMU, and why."""

    @classmethod
    def of(
        cls, qemu: Qemu, side: Side, observers: Observers, *, queues: bool, vhost: bool
    ) -> Questions:
        """Those that fit its devices, and that may be asked. Source: qapi/virtio.json.

        ``queues``: of a vhost device that runs, QEMU asks the backend for a queue's base, and a
        vhost-user backend *stops* the queue for that (GET_VRING_BASE): they may be asked only
        where the device is known to stand still, or to be no vhost device. ``vhost``: a backend's
        own account of its queues, if it works any. What changes first is asked first.
        """
        permission = Permission(observers, version_of(qemu))
        if objection := permission.objection(DEVICES, _BEFORE[side]):
            why = f"network devices: not measured: {objection}"
            return cls(None, {}, {}, None, (), not_asked=(why,))
        devices = ask(qemu, DEVICES, qapi.DEVICES, Deadline.after(ANSWER_S))
        kinds = {device.path: device.name for device in devices if device.name == VIRTIO_NET}
        paths = sorted(kinds)
        begin = _first_look(qemu, paths, side, permission, queues=queues)
        wanted = {QUEUE: queues, VHOST_QUEUE: queues and vhost, STATUS: True}
        objections = {name: permission.objection(name, *_READ[side]) for name in wanted}
        may = {name for name, wish in wanted.items() if wish and not objections[name]}
        asked = [
            question
            for path in paths
            for question in _of_device(path, begin.queues.get(path, QUEUES_AT_ONCE), may)
        ]
        filters: list[Question] = [("query-rx-filter", {})] if kinds else []
        return cls(
            kinds,
            _config(qemu, paths),
            begin.backends,
            begin.vhost,
            (*asked, *filters),
            tuple(path for path in paths if QUEUE in may and path not in begin.queues),
            tuple(
                f"{what}: not measured: {objection}"
                for what, objection in (
                    (_WHAT_IT_SAYS, objections[STATUS]),
                    (_WHO_WORKS, begin.unknown),
                    (_ITS_QUEUES, objections[QUEUE] if queues else ""),
                )
                if objection
            ),
        )

    def state(self, qemu: Qemu, *, events_between: bool = False) -> Reading:
        """The answers that came before any event, and how many did not.

        A source that has stopped goes on telling of its migration: there every answer holds
        (``events_between``).
        """
        if self.kinds is None:
            return Reading(None, 0, 0)
        odd: list[str] = []
        asked, answers = [*self.asked], answers_of(qemu, self.asked, odd)
        more = self._further_queues(asked, answers)
        while more:
            further = answers_of(qemu, more, odd)
            asked, answers = [*asked, *more], [*answers, *further]
            more = self._further_queues(more, further)
        usable = [answer if events_between or in_time else None for answer, in_time in answers]
        late = sum(not in_time for _, in_time in answers)
        states = self._by_device(self.kinds, asked, usable)
        return Reading(states, late, len(asked), tuple(dict.fromkeys(odd)))

    def _further_queues(
        self, asked: Sequence[Question], answers: Sequence[Answer]
    ) -> list[Question]:
        """The next ones of a device whose last one was answered; no device has more than
        :data:`~migrate.formats.virtio_net_state.QUEUE_MAX`."""
        last = {
            place["path"]: (place["queue"], answer)
            for (name, place), (answer, _) in zip(asked, answers, strict=True)
            if name == QUEUE
        }
        names = {name for name, _ in self.asked} & {QUEUE, VHOST_QUEUE}
        return [
            question
            for path, (queue, answer) in last.items()
            if path in self.uncounted and answer is not None
            for question in _of_queues(path, _next(queue + 1), names)
        ]

    def _by_device(
        self, kinds: Mapping[str, str], asked: Sequence[Question], answers: Sequence[Any]
    ) -> DeviceStates:
        """Answers in the order of the questions. Of a backend that is no vhost, or not started,
        there are none."""
        states: DeviceStates = {
            path: {
                "kind": kind,
                "status": None,
                "queues": [],
                "vhost": [],
                "filter": None,
                "config": self.config[path],
                "backend": self.backends.get(path),
            }
            for path, kind in kinds.items()
        }
        for (command, place), answer in zip(asked, answers, strict=True):
            if answer is None:
                continue
            if command == "query-rx-filter":
                _add_filters(states, answer)
            elif command == STATUS:
                states[place["path"]]["status"] = answer
            else:
                kind = "vhost" if command == VHOST_QUEUE else "queues"
                states[place["path"]][kind].append(answer)
        return states


def _next(queue: int) -> range:
    """The queues to ask about from this one on."""
    return range(queue, min(queue + QUEUES_AT_ONCE, QUEUE_MAX))


def _of_device(path: str, queues: int, may: Set[str]) -> Iterator[Question]:
    yield from _of_queues(path, range(queues), may)
    if STATUS in may:
        yield STATUS, {"path": path}


def _of_queues(path: str, numbers: Iterable[int], may: Set[str]) -> Iterator[Question]:
    for queue in numbers:
        for name in (QUEUE, VHOST_QUEUE):
            if name in may:
                yield name, {"path": path, "queue": queue}


class _FirstLook(NamedTuple):
    """What is known of devices long before their state is read."""

    vhost: bool | None
    backends: Mapping[str, Any]
    queues: Mapping[str, int]
    """How many, of devices of which that is known."""
    unknown: str = ""
    """Why it can't be asked whether a backend works them."""


def _first_look(
    qemu: Qemu, paths: Sequence[str], side: Side, permission: Permission, *, queues: bool
) -> _FirstLook:
    """By each device's status; where that may not be asked, a backend's account of a queue tells
    whether there is a backend, without a word to it (hw/virtio/virtio-qmp.c)."""
    state, deadline = _BEFORE[side], Deadline.after(ANSWER_S)
    if not permission.objection(STATUS, state):
        statuses = {path: qemu.execute(STATUS, deadline, path=path) for path in paths}
        shaped = {
            path: qapi.STATUS.of(status, STATUS, host=qemu.host)
            for path, status in statuses.items()
        }
        working = {path: _backend(status) for path, status in statuses.items()}
        counts = {path: status.num_vqs for path, status in shaped.items()}
        return _FirstLook(any(one is not None for one in working.values()), working, counts)
    if side == "target":
        return _FirstLook(None, {}, _counted(qemu, paths, permission) if queues else {})
    if objection := permission.objection(VHOST_QUEUE, state):
        return _FirstLook(None, {}, {}, objection)
    answers = answers_of(qemu, [*_of_first_queues(paths)], [])
    return _FirstLook(any(answer is not None for answer, _ in answers), {}, {})


def _counted(qemu: Qemu, paths: Iterable[str], permission: Permission) -> Mapping[str, int]:
    """How many queues each device has, by asking until QEMU refuses one; of a target that nothing
    has come to yet: between its load and its resume there is no time to ask for one too many."""
    if permission.objection(QUEUE, "incoming"):
        return {}
    counts = {}
    for path in paths:
        count, answered = 0, QUEUES_AT_ONCE
        while answered == QUEUES_AT_ONCE and count < QUEUE_MAX:
            batch = [*_of_queues(path, _next(count), {QUEUE})]
            answers = answers_of(qemu, batch, [])
            answered = sum(answer is not None for answer, _ in answers)
            count += answered
        counts[path] = count
    return counts


def _of_first_queues(paths: Iterable[str]) -> Iterator[Question]:
    for path in paths:
        yield VHOST_QUEUE, {"path": path, "queue": 0}


def backends(qemu: Qemu, paths: Iterable[str], observers: Observers) -> Mapping[str, Any]:
    """What works each device's queues now; only of one that runs QEMU tells it."""
    if Permission(observers, version_of(qemu)).objection(STATUS, "resumed"):
        return {}
    asked = [(STATUS, {"path": path}) for path in paths]
    answers = answers_of(qemu, asked, [])
    return {place["path"]: _backend(a) for (_, place), (a, _) in zip(asked, answers, strict=True)}


def _backend(status: Any) -> Any:
    """An empty one is a backend, too: that of a QEMU that tells no more."""
    if status is None or not status.get("vhost-started"):
        return None
    return status.get("vhost-dev", {})


def _config(qemu: Qemu, paths: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What a QEMU has no such property for is not there."""
    asked = [("qom-get", {"path": path, "property": name}) for path in paths for name in STATIC]
    config: dict[str, dict[str, Any]] = {path: {} for path in paths}
    answers = answers_of(qemu, asked, [])
    for (_, place), (answer, _) in zip(asked, answers, strict=True):
        if answer is not None:
            config[place["path"]][place["property"]] = answer
    return config


def _add_filters(states: DeviceStates, answer: Sequence[Mapping[str, Any]]) -> None:
    """To the devices that they are of: QEMU calls a network card by its device's id."""
    by_id = {path.rpartition("/")[0].rpartition("/")[2]: device for path, device in states.items()}
    for card in answer:
        if card["name"] in by_id:
            vlans = ranges(card.get("vlan-table", ()))
            by_id[card["name"]]["filter"] = {**card, "vlan-table": vlans}


def ranges(numbers: Iterable[int]) -> list[str]:
    """``1, 5, 4, 3`` as ``1``, ``3-5``: without a driver's filter a card lists all 4096 VLANs."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ["-".join(map(str, run)) for run in runs]
