"""What a QEMU is asked about its virtio network devices, and its answers device by device.

Sources: qapi/virtio.json, qapi/net.json (RxFilterInfo), qapi/qom.json.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from migrate.clock import Deadline
from migrate.drivers.qmp import Monitor

ANSWER_S = 5.0
VIRTIO_NET = "virtio-net"
STATIC = ("host_mtu", "speed", "duplex")
"""Properties of a device that its configuration space is made from, and that never change."""
State = dict[str, Any]
"""Of the virtio network devices, by path: QEMU's answers as they are, VLANs as ranges."""

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

    @property
    def vhost(self) -> bool:
        """Whether a backend works a queue at the moment."""
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
        told = qemu.execute("x-query-virtio", deadline)
        kinds = {one["path"]: one["name"] for one in told if one["name"] == VIRTIO_NET}
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
        if kinds:
            asked.append(("query-rx-filter", {}))
        return cls(kinds, _config(qemu, sorted(kinds)), working, tuple(asked))

    def state(self, qemu: Monitor, *, events_between: bool = False) -> tuple[State, int]:
        """The answers that came before any event, and how many did not.

        A source that has stopped goes on telling of its migration: there every answer holds
        (``events_between``).
        """
        answers = qemu.execute_all(self.asked, Deadline.after(ANSWER_S))
        found = self.told([one if events_between or in_time else None for one, in_time in answers])
        return found, sum(not in_time for _, in_time in answers)

    def told(self, answers: Iterable[Any]) -> State:
        """By device. Of a backend that is no vhost, or not started, there are none."""
        found: State = {
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
                _filters(found, answer)
            elif command == "x-query-virtio-status":
                found[place["path"]]["status"] = answer
            else:
                kind = "vhost" if "vhost" in command else "queues"
                found[place["path"]][kind].append(answer)
        return found


def backends(qemu: Monitor, paths: Iterable[str]) -> Mapping[str, Any]:
    """What works each device's queues now; only of one that runs QEMU tells it."""
    deadline = Deadline.after(ANSWER_S)
    asked = [("x-query-virtio-status", {"path": path}) for path in paths]
    answers = qemu.execute_all(asked, deadline)
    return {place["path"]: _backend(a) for (_, place), (a, _) in zip(asked, answers, strict=True)}


def _backend(status: Mapping[str, Any] | None) -> Any:
    """An empty one is a backend, too: that of a QEMU that tells no more."""
    if status is None or not status.get("vhost-started"):
        return None
    return status.get("vhost-dev", {})


def _config(qemu: Monitor, paths: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What a QEMU has no such property for is not there."""
    asked = [("qom-get", {"path": path, "property": name}) for path in paths for name in STATIC]
    found: dict[str, dict[str, Any]] = {path: {} for path in paths}
    answers = qemu.execute_all(asked, Deadline.after(ANSWER_S))
    for (_, place), (answer, _) in zip(asked, answers, strict=True):
        if answer is not None:
            found[place["path"]][place["property"]] = answer
    return found


def _filters(found: State, told: Sequence[Mapping[str, Any]]) -> None:
    """To the devices that they are of: QEMU calls a network card by its device's id."""
    named = {str(path).split("/")[-2]: device for path, device in found.items()}
    for one in told:
        if one["name"] in named:
            vlans = ranges(one.get("vlan-table", ()))
            named[one["name"]]["filter"] = {**one, "vlan-table": vlans}


def ranges(numbers: Iterable[int]) -> list[str]:
    """``1, 5, 4, 3`` as ``1``, ``3-5``: without a driver's filter a card lists all 4096 VLANs."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ["-".join(map(str, run)) for run in runs]
