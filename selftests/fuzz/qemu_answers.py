"""What a QEMU answers: over the wire, command by command, its events, and its guest's agent."""

from __future__ import annotations

import gzip
import json
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, cast

from migrate.analysis.network_devices import compared_devices, ring_audits
from migrate.analysis.phases import phases
from migrate.clock import Deadline
from migrate.drivers.libvirt import event_data, stamp_ns
from migrate.drivers.libvirt_domain import AGENT
from migrate.drivers.qmp import EVENT, ask, monitor
from migrate.formats.answers import Part, Shape, plain
from migrate.formats.qapi import CAPABILITIES, MIGRATION, PARAMETERS, RUN_STATUS
from migrate.formats.qemu_migration import pass_of, sample_of_job, sample_of_query, status_of
from migrate.guest.lifecycle import EXIT_STATUS, HANDLE, PROCESS
from migrate.migration.move import _reported
from migrate.model import Event, PhaseName
from migrate.model.recording import HopRecording, MoveResult, QemuRecording
from migrate.recorder.dirty_rate import limits, measure
from migrate.recorder.events import Listener, _libvirt_to, _qemu_to
from migrate.recorder.phase_tracker import PhaseTracker
from migrate.recorder.qemu_state import announce_parameters
from migrate.recorder.qmp_queries import Questions, backends
from migrate.recorder.question_trial import _Side
from selftests.doubles.qmp import GREETING, observers, queue_status, virtio_status
from selftests.fuzz.lane import Lane
from selftests.helpers import ROOT

SOON = 5.0
PATH = "/machine/peripheral/net0/virtio-backend"


# --- command by command -----------------------------------------------------------------------


class Answering:
    """A monitor that answers each command by what the document has for it, ``null`` refuses."""

    host = "a"
    version = (10, 0, 2)
    connected = True

    def __init__(self, document: object) -> None:
        self.answers: Mapping[str, Any] = document if isinstance(document, dict) else {}

    def execute(self, command: str, deadline: object, **_arguments: object) -> object:
        """As :class:`migrate.drivers.qmp.Monitor`."""
        del deadline
        return plain(self.answers.get(command), command, host=self.host)

    def execute_all(
        self, commands: Sequence[tuple[str, Any]], deadline: object
    ) -> list[tuple[object, bool]]:
        """As :class:`migrate.drivers.qmp.Monitor`."""
        del deadline
        return [(self.execute(name, None), True) for name, _ in commands]

    def pending(self) -> list[object]:
        """None."""
        return []


FEATURES = {
    "transports": ["VIRTIO_F_VERSION_1: Device compliant with v1 spec"],
    "dev-features": ["VIRTIO_NET_F_MAC: Device has given MAC address"],
    "unknown-dev-features": 4,
}
VHOST = {
    "features": FEATURES,
    "acked-features": FEATURES,
    "protocol-features": {"protocols": ["VHOST_USER_PROTOCOL_F_MQ: Multiqueue"]},
    "nvqs": 2,
    "max-queues": 1,
    "n-mem-sections": 4,
}
DEVICE: dict[str, Any] = {
    "x-query-virtio": [{"path": PATH, "name": "virtio-net"}, {"path": "/c", "name": "virtio-c"}],
    "x-query-virtio-status": virtio_status(
        **{"guest-features": FEATURES, "host-features": FEATURES, "vhost-started": True},
        **{"vhost-dev": VHOST, "status": {"statuses": ["VIRTIO_CONFIG_S_DRIVER: Driver"]}},
    ),
    "x-query-virtio-queue-status": {
        **queue_status(),
        "vring-num": 256,
        "vring-desc": 4096,
        "vring-avail": 8192,
        "vring-used": 12288,
        "last-avail-idx": 3,
        "shadow-avail-idx": 3,
    },
    "x-query-virtio-vhost-queue-status": {"name": "vhost", "kick": 3},
    "query-rx-filter": [
        {
            "name": "net0",
            "main-mac": "52:54:00:6d:6c:01",
            "vlan": "all",
            "vlan-table": [0, 1, 2, 9],
            "unicast-table": [],
            "multicast-table": ["01:00:5e:00:00:01"],
        }
    ],
    "qom-get": 1500,
}
RAM = {
    "remaining": 5,
    "transferred": 7,
    "dirty-sync-count": 2,
    "mbps": 8.0,
    "duplicate": 3,
    "dirty-pages-rate": 9,
    "multifd-bytes": 0,
}


def _devices(qemu: Answering) -> None:
    """Asked, read, compared, its rings looked for; and kept as JSON."""
    may = observers()
    questions = Questions.of(qemu, "source", may, queues=True, vhost=True)
    states = questions.state(qemu).states
    hop = HopRecording(
        source="a",
        target="b",
        result=MoveResult(outcome="completed", held_by=("b",)),
        begin_ns=0,
        end_ns=1,
        qemu=QemuRecording(source=states, target=states, memory={4096: bytes(4096)}),
    )
    hop.model_dump_json()
    list(compared_devices(hop, ()))
    ring_audits(hop, 128)
    backends(qemu, [PATH], may)
    Questions.of(qemu, "target", may, queues=True, vhost=False).state(qemu)


def _progress(qemu: Answering) -> None:
    answer = ask(qemu, "query-migrate", MIGRATION, Deadline.after(SOON))
    if (sample := sample_of_query(1, "a", answer)) is not None:
        sample.model_dump_json()


def _prepared(qemu: Answering) -> None:
    announce = announce_parameters(
        ask(qemu, "query-migrate-parameters", PARAMETERS, Deadline.after(SOON))
    )
    _ = announce and announce.last_due_ms
    ask(qemu, "query-migrate-capabilities", CAPABILITIES, Deadline.after(SOON))
    ask(qemu, "query-status", RUN_STATUS, Deadline.after(SOON))


def _tried(qemu: Answering) -> None:
    side = _Side(cast("Any", type("End", (), {"qemu": qemu, "backend": None})), Deadline.after(0))
    side.commands()
    side.await_device()
    side.await_run_state("running")
    side.harm_of("x-query-virtio")


def _rates(qemu: Answering) -> None:
    measure(qemu, "dirty-ring", -11)
    limits(qemu)


COMMANDS: dict[str, tuple[Callable[[Answering], None], dict[str, Any]]] = {
    "devices": (_devices, DEVICE),
    "progress": (_progress, {"query-migrate": {"status": "active", "ram": RAM, "vfio": {}}}),
    "prepare": (
        _prepared,
        {
            "query-migrate-parameters": {
                "announce-rounds": 5,
                "announce-initial": 50,
                "announce-step": 100,
                "announce-max": 550,
            },
            "query-migrate-capabilities": [{"capability": "postcopy-ram", "state": True}],
            "query-status": {"status": "running"},
        },
    ),
    "trial": (
        _tried,
        {
            "query-qmp-schema": [{"name": "stop", "meta-type": "command"}],
            "query-pci": [{"bus": 0, "devices": [{"irq": 9}, {}]}],
            "query-status": {"status": "running"},
        },
    ),
    "rates": (
        _rates,
        {
            "query-dirty-rate": {
                "status": "measured",
                "dirty-rate": 16,
                "vcpu-dirty-rate": [{"id": 0, "dirty-rate": 8}],
            },
            "query-vcpu-dirty-limit": [{"cpu-index": 0, "limit-rate": 8, "current-rate": 9}],
            "query-kvm": {"enabled": True},
        },
    ),
}


@cache
def recorded() -> tuple[dict[str, Any], ...]:
    """Answers about devices as QEMU gave them in recordings."""
    found = []
    for path in sorted((ROOT / "selftests" / "recordings").glob("*/recording.json.gz")):
        document = json.loads(gzip.decompress(path.read_bytes()))
        states = document["hops"][0]["qemu"]["source"] or {}
        for state in list(states.values())[:1]:
            if state["status"] and state["queues"] and len(json.dumps(state)) < 6000:
                told = {"x-query-virtio-status": state["status"]}
                told["x-query-virtio-queue-status"] = state["queues"][0]
                found.append({**DEVICE, **told})
    return tuple(found)


def command_seeds() -> list[bytes]:
    """What is asked, and a document with the answers."""
    documents = [(name, answers) for name, (_, answers) in COMMANDS.items()]
    documents += [("devices", answers) for answers in recorded()]
    return [f"{name}\n{json.dumps(answers)}".encode() for name, answers in documents]


def command_door(data: bytes) -> None:
    """As the library hands answers on, read by the standard library's JSON."""
    name, _, text = data.partition(b"\n")
    COMMANDS[name.decode()][0](Answering(_loaded(text)))


def _loaded(text: bytes) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # the library's own affair: lane qmp-wire
        return None


# --- over the wire ----------------------------------------------------------------------------

STAMP = {"seconds": 1_700_000_000, "microseconds": 5}
MESSAGES: tuple[Mapping[str, Any], ...] = (
    GREETING,
    {"return": {}},
    {"event": "MIGRATION", "data": {"status": "active"}, "timestamp": STAMP},
    {"return": {"status": "active", "ram": RAM}, "id": "__qmp#00000"},
    {"event": "STOP", "timestamp": STAMP},
    {"error": {"class": "GenericError", "desc": "no"}, "id": "__qmp#00001"},
)
WIRE = b"\n".join(json.dumps(message).encode() for message in MESSAGES)


PATIENCE_S = 0.02
"""For the next request: one whose answer makes no sense is waited for no longer."""


def _serve(connection: socket.socket, data: bytes) -> None:
    """The greeting, then two lines for each request; what is left when nobody asks any more."""
    lines = data.split(b"\n")
    with connection, suppress(OSError):
        connection.settimeout(PATIENCE_S)
        connection.sendall(lines[0] + b"\n")
        for at in range(1, len(lines), 2):
            if not connection.recv(4096):
                return
            connection.sendall(b"\n".join(lines[at : at + 2]) + b"\n")
        connection.recv(4096)  # nothing: its visitor leaves


def wire_door(data: bytes) -> None:
    """A monitor over a socket, greeted and answered by these bytes, whatever is asked."""
    ours, theirs = socket.socketpair()
    served = threading.Thread(target=_serve, args=(theirs, data))
    served.start()
    try:
        with monitor(ours, "a", Deadline.after(SOON)) as qemu:
            _ = qemu.version
            qemu.execute("query-migrate", Deadline.after(SOON))
            qemu.pending()
            qemu.execute_all([("x-query-virtio", {})], Deadline.after(SOON))
            qemu.pending()
    finally:
        ours.close()
        served.join()


# --- events -----------------------------------------------------------------------------------

EVENTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("MIGRATION", {"status": "setup"}),
    ("MIGRATION", {"status": "active"}),
    ("MIGRATION_PASS", {"pass": 2}),
    ("STOP", {}),
    ("MIGRATION", {"status": "device"}),
    ("MIGRATION", {"status": "completed"}),
    ("RESUME", {}),
    ("SHUTDOWN", {"guest": False, "reason": "host-signal"}),
    ("DEVICE_DELETED", {"device": "ua-vf", "path": "/machine/peripheral/ua-vf"}),
)
JOB = {
    "operation": 2,
    "time_elapsed": 3944,
    "downtime": 391,
    "setup_time": 18,
    "data_total": 135012352,
    "data_processed": 67681084,
    "data_remaining": 0,
    "memory_bps": 18000288,
    "memory_dirty_rate": 0,
    "memory_iteration": 3,
}


def event_seeds() -> list[bytes]:
    """Name, seconds, microseconds and data of QEMU's events; the last of libvirt's."""
    told = [[name, 1_700_000_000 + number, 7, data] for number, (name, data) in enumerate(EVENTS)]
    return [json.dumps({"qemu": told, "job": JOB}).encode()]


class _Telling(Part):
    qemu: list[list[Any]]
    job: dict[str, Any]


TELLING = Shape(_Telling)


def event_door(data: bytes) -> None:
    """Through libvirt's callbacks to the phases, and kept as JSON."""
    told = TELLING.parse(data, "seeds")
    listener, begun = Listener(), list[PhaseName]()
    qemu = _qemu_to(listener, "a", lambda ns: ns, 10)
    for name, seconds, micros, details in (one for one in told.qemu if len(one) == 4):
        if isinstance(seconds, int) and isinstance(micros, int):  # libvirt's are numbers of C
            text = details if isinstance(details, str) else json.dumps(details)
            qemu(str(name), stamp_ns(seconds, micros), event_data(text))
    _libvirt_to(listener, "a")("job-completed", told.job)
    tracker = PhaseTracker("a")
    tracker.subscribe(begun.append)
    for event in listener.events():
        tracker.feed(event)
        event.model_dump_json()
        _ = status_of(event), pass_of(event), sample_of_job(event)
    _figures(listener)
    phases(_timed(listener.events()), "a", "b", 2**62)


def _timed(events: Sequence[Event]) -> list[Event]:
    return [event for event in events if event.error_ns is not None]


def _figures(listener: Listener) -> None:
    call = type("Call", (), {"ended": True, "error": None})
    _reported(listener, 0, "a", cast("Any", call))


def message_door(data: bytes) -> None:
    """An event as the monitor hands it on."""
    _ = EVENT.of(_loaded(data), "read an event", host="a").status


# --- the guest's agent ------------------------------------------------------------------------

AGENT_SEEDS = [
    json.dumps({"return": answer}).encode()
    for answer in (1000, {"pid": 7}, {"exited": True, "exitcode": 0}, {"exited": False})
]


def agent_door(data: bytes) -> None:
    """What libvirt hands on of the guest's agent."""
    answer = AGENT.parse(data, "ask the guest agent", host="a").answer
    shapes: tuple[Shape[Any], ...] = (HANDLE, PROCESS, EXIT_STATUS)
    tried = [*shapes]
    if isinstance(answer, dict):
        tried = [EXIT_STATUS] if "exited" in answer else [PROCESS]
    tried[0].of(answer, "guest-exec", host="a")


MESSAGE_SEEDS = [
    json.dumps({"event": name, "data": data, "timestamp": STAMP}).encode() for name, data in EVENTS
]
LANES = (
    Lane("qmp-answers", command_door, command_seeds, kind="json", headed=True),
    Lane("qmp-wire", wire_door, lambda: [WIRE], kind="lines", most_bytes=96 << 20),
    Lane("qmp-events", message_door, lambda: MESSAGE_SEEDS, kind="json"),
    Lane("libvirt-events", event_door, event_seeds, kind="json"),
    Lane("guest-agent", agent_door, lambda: AGENT_SEEDS, kind="json"),
)
