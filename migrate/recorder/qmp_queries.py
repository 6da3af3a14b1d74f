"""What a QEMU is asked about its virtio network devices, and its answers device by device.

Sources: qapi/virtio.json, qapi/net.json (RxFilterInfo), qapi/qom.json.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from migrate.clock import Deadline
from migrate.drivers.qmp import Monitor
from migrate.formats.virtio_net_state import VIRTIO_NET
from migrate.model.recording import DeviceStates

ANSWER_S = 5.0
STATIC = ("host_mtu", "speed", "duplex")
"""Properties of a device that its configuration space is made from, and that never change."""
STATUS_ENDS_QEMU = (11, 0)
"""From this version on ``x-query-virtio-status`` ends a QEMU, whether its guest runs or not (seen
with 11.1.3: an assertion of ``visit_start_struct`` fails). It is not asked, nor are queues: what
they are, and whether a backend works them, is not known without it."""

Question = tuple[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Questions:
    """What is asked about the virtio network devices of a QEMU."""

    kinds: Mapping[str, str]
    config: Mapping[str, Mapping[str, Any]]
    """Of each device, what :data:`STATIC` says."""
    backends: Mapping[str, Any]
    """What works the queues at the moment, as QEMU tells it (VhostStatus); None: nothing does."""
    asked: tuple[Question, ...]
    not_asked: str = ""
    """What may not be asked of this QEMU, and why."""

    @property
    def vhost(self) -> bool | None:
        """Whether a backend works a queue at the moment; None: it can't be asked."""
        if self.not_asked:
            return None
        return any(backend is not None for backend in self.backends.values())

    @classmethod
    def of(cls, qemu: Monitor, *, queues: bool, vhost: bool) -> Questions:
        """Those that fit its devices. Source: qapi/virtio.json.

        ``queues``: of a vhost device that runs, QEMU asks the backend for a queue's base, and a
        vhost-user backend *stops* the queue for that (GET_VRING_BASE): they may be asked only
        where the device is known to stand still, or to be no vhost device. ``vhost``: a backend's
        own account of its queues, if it works any. What changes first is asked first.
        """
        deadline = Deadline.after(ANSWER_S)
        devices = qemu.execute("x-query-virtio", deadline)
        kinds = {one["path"]: one["name"] for one in devices if one["name"] == VIRTIO_NET}
        config = _config(qemu, sorted(kinds))
        filters: tuple[Question, ...] = (("query-rx-filter", {}),) if kinds else ()
        if qemu.version >= STATUS_ENDS_QEMU:
            version = ".".join(map(str, qemu.version))
            not_asked = (
                "status, features and queues of its network devices: not measured: "
                f"x-query-virtio-status ends QEMU {version}"
            )
            return cls(kinds, config, dict.fromkeys(kinds), filters, not_asked)
        asked: list[Question] = []
        working: dict[str, Any] = {}
        for path in sorted(kinds):
            status = qemu.execute("x-query-virtio-status", deadline, path=path)
            working[path] = _backend(status)
            for queue in range(int(status["num-vqs"]) if queues else 0):
                place = {"path": path, "queue": queue}
                asked.append(("x-query-virtio-queue-status", place))
                if vhost:
                    asked.append(("x-query-virtio-vhost-queue-status", place))
            asked.append(("x-query-virtio-status", {"path": path}))
        return cls(kinds, config, working, (*asked, *filters))

    def state(self, qemu: Monitor, *, events_between: bool = False) -> tuple[DeviceStates, int]:
        """The answers that came before any event, and how many did not.

        A source that has stopped goes on telling of its migration: there every answer holds
        (``events_between``).
        """
        answers = qemu.execute_all(self.asked, Deadline.after(ANSWER_S))
        usable = [answer if events_between or in_time else None for answer, in_time in answers]
        return self.by_device(usable), sum(not in_time for _, in_time in answers)

    def by_device(self, answers: Iterable[Any]) -> DeviceStates:
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
                "backend": self.backends[path],
            }
            for path, kind in self.kinds.items()
        }
        for (command, place), answer in zip(self.asked, answers, strict=True):
            if answer is None:
                continue
            if command == "query-rx-filter":
                _add_filters(states, answer)
            elif command == "x-query-virtio-status":
                states[place["path"]]["status"] = answer
            else:
                kind = "vhost" if "vhost" in command else "queues"
                states[place["path"]][kind].append(answer)
        return states


def backends(qemu: Monitor, paths: Iterable[str]) -> Mapping[str, Any]:
    """What works each device's queues now; only of one that runs QEMU tells it."""
    if qemu.version >= STATUS_ENDS_QEMU:
        return {}
    asked = [("x-query-virtio-status", {"path": path}) for path in paths]
    answers = qemu.execute_all(asked, Deadline.after(ANSWER_S))
    return {place["path"]: _backend(a) for (_, place), (a, _) in zip(asked, answers, strict=True)}


def _backend(status: Mapping[str, Any] | None) -> Any:
    """An empty one is a backend, too: that of a QEMU that tells no more."""
    if status is None or not status.get("vhost-started"):
        return None
    return status.get("vhost-dev", {})


def _config(qemu: Monitor, paths: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What a QEMU has no such property for is not there."""
    asked = [("qom-get", {"path": path, "property": name}) for path in paths for name in STATIC]
    config: dict[str, dict[str, Any]] = {path: {} for path in paths}
    answers = qemu.execute_all(asked, Deadline.after(ANSWER_S))
    for (_, place), (answer, _) in zip(asked, answers, strict=True):
        if answer is not None:
            config[place["path"]][place["property"]] = answer
    return config


def _add_filters(states: DeviceStates, answer: Sequence[Mapping[str, Any]]) -> None:
    """To the devices that they are of: QEMU calls a network card by its device's id."""
    by_id = {str(path).split("/")[-2]: device for path, device in states.items()}
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
