"""Outages of a known length, injected into a local lab.

Ways are cut in the fabric's bridge, one direction or both; the guest is held by stopping its QEMU.
The stamps are taken around the system calls by a process of its own (:mod:`bench.valve`), on the
axis of time: what is injected is known to microseconds, whatever the controller is busy with.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.delay_line import Line
from migrate.clock import Deadline, now_ns, pause
from migrate.drivers.shell import run
from migrate.errors import HostError, MeasurementError
from migrate.guest.transport import PipeTransport
from migrate.lab.local.lab import LocalLab
from migrate.lab.resources import DATA_BRIDGE
from migrate.model import Direction

EXACT_NS = 1_000_000
"""A system call that took longer leaves too much open: that sample is thrown away."""
PID_FILE = "/run/libvirt/qemu/guest.pid"
PATIENCE_S = 10.0

Ways = Mapping[Direction, tuple[str, str, str]]
"""For each direction the MAC that its frames go to, its port, and the port that they come in by."""


@dataclass(frozen=True, slots=True)
class InjectedOutage:
    """One outage: when its begin and its end were asked for, and when they were done."""

    begin: tuple[int, int]
    end: tuple[int, int]

    @property
    def length_ns(self) -> int:
        """From the middle of one system call to the middle of the other."""
        return (sum(self.end) - sum(self.begin)) // 2

    @property
    def error_ns(self) -> int:
        """Half of what both system calls took."""
        return (self.end[1] - self.end[0] + self.begin[1] - self.begin[0] + 1) // 2

    @property
    def exact(self) -> bool:
        """Whether both system calls were short."""
        return max(self.end[1] - self.end[0], self.begin[1] - self.begin[0]) <= EXACT_NS


class Injector:
    """The controller's side of a running valve."""

    def __init__(self, process: subprocess.Popen[bytes], *, said_at_start: bytes) -> None:
        self._process = process
        self._pipe = PipeTransport(process)
        self.real_time: bool = json.loads(said_at_start)["fifo"]

    def cut(self, directions: Sequence[Direction], length_ms: float) -> InjectedOutage:
        """Drop every frame in these directions, for so long."""
        return self._do({"do": "cut", "ways": list(directions)}, length_ms)

    def hold(self, pid: int, length_ms: float) -> InjectedOutage:
        """Stop a process for so long: what is sent to the guest meanwhile is flushed late."""
        return self._do({"do": "hold", "pid": pid}, length_ms)

    def _do(self, request: Mapping[str, object], length_ms: float) -> InjectedOutage:
        line = json.dumps({**request, "for_ns": round(length_ms * 1e6)})
        self._pipe.send(line.encode() + b"\n")
        answer = json.loads(_line(self._pipe, Deadline.after(length_ms / 1e3 + PATIENCE_S)))
        if "error" in answer:
            raise MeasurementError(f"inject {line}", said=answer["error"])
        begin, end = answer["stamps"]
        return InjectedOutage((begin[0], begin[1]), (end[0], end[1]))


@contextmanager
def injecting(enter: Sequence[str], ways: Ways) -> Iterator[Injector]:
    """A valve for ``ways``; ``enter`` is the argument list that leads into the namespace.

    When the block ends the valve's input does, and it opens what it closed.
    """
    process = subprocess.Popen(
        [*enter, sys.executable, "-m", "bench.valve", json.dumps(ways)],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # an interrupt is told by the end of its input
    )
    with process:
        hello = _line(PipeTransport(process), Deadline.after(PATIENCE_S))
        yield Injector(process, said_at_start=hello)


class LongWay:
    """The controller's side of a running delay line (:mod:`bench.delay_line`)."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._pipe = PipeTransport(process)

    def hold(self, directions: Sequence[Direction], length_ms: float) -> InjectedOutage:
        """Frames of these directions wait for so long, and come in one flush; told at its begin."""
        line = json.dumps({"ways": list(directions), "for_ns": round(length_ms * 1e6)})
        self._pipe.send(line.encode() + b"\n")
        begin, end = json.loads(_line(self._pipe, Deadline.after(PATIENCE_S)))["stamps"]
        pause(max(0.0, (end[0] - now_ns()) / 1e9))
        return InjectedOutage((begin[0], begin[1]), (end[0], end[1]))


@contextmanager
def long_way(enter: Sequence[str], port: str, bridge: str, line: Line) -> Iterator[LongWay]:
    """Between the peer's ``port`` and ``bridge``; ``enter`` leads into their namespace.

    The port is taken out of the bridge, and goes back when the block ends.
    """
    deadline = Deadline.after(PATIENCE_S)
    inner, outer = f"{port[:8]}-in", f"{port[:8]}-out"
    with ExitStack() as stack:
        run([*enter, "ip", "link", "add", inner, "type", "veth", "peer", "name", outer], deadline)
        stack.callback(run, [*enter, "ip", "link", "del", inner], Deadline.after(60 * PATIENCE_S))
        run([*enter, "ip", "link", "set", port, "nomaster"], deadline)
        back = [*enter, "ip", "link", "set", port, "master", bridge]
        stack.callback(run, back, Deadline.after(60 * PATIENCE_S))
        run([*enter, "ip", "link", "set", outer, "master", bridge, "up"], deadline)
        # The peer's address is of this namespace, and the kernel would answer for it here as well:
        # the guest would take the short way.
        run([*enter, "ip", "link", "set", inner, "arp", "off", "up"], deadline)
        wanted = json.dumps({"peer": port, "fabric": inner, "line": list(line)})
        process = stack.enter_context(
            subprocess.Popen(
                [*enter, sys.executable, "-m", "bench.delay_line", wanted],
                cwd=Path(__file__).parents[1],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
        )
        _line(PipeTransport(process), Deadline.after(PATIENCE_S))
        yield LongWay(process)


def _line(pipe: PipeTransport, deadline: Deadline) -> bytes:
    """One line is all that a valve ever says at a time."""
    line = b""
    while not line.endswith(b"\n"):
        try:
            line += pipe.receive(deadline)
        except (ConnectionError, TimeoutError) as error:
            raise MeasurementError("talk to the valve", said=str(error)) from error
    return line


# --- where in a local lab -----------------------------------------------------------------------


def fabric_ways(lab: LocalLab, guest_mac: str) -> Ways:
    """As the fabric's bridge has learned them: the guest must have been heard already."""
    deadline = Deadline.after(PATIENCE_S)
    asked = run(lab.beside_peer(["ip", "-json", "link", "show", lab.peer_interface]), deadline)
    peer_mac = str(json.loads(asked.out)[0]["address"])
    table = json.loads(
        run(lab.in_fabric(["bridge", "-json", "fdb", "show", "br", DATA_BRIDGE]), deadline).out
    )
    peer, guest = fabric_port(table, peer_mac), fabric_port(table, guest_mac)
    return {"egress": (peer_mac, peer, guest), "ingress": (guest_mac, guest, peer)}


def fabric_port(table: Sequence[Mapping[str, object]], mac: str) -> str:
    """Where a bridge's table, as iproute2 prints it, has a MAC from frames that it saw."""
    for entry in table:
        if entry["mac"] == mac and entry.get("state") != "permanent":
            return str(entry["ifname"])
    raise HostError("find a port of the fabric", said=f"{mac} was not heard on its bridge")


def qemu_pid(lab: LocalLab, host: str) -> int:
    """The guest's QEMU on ``host``: its process id as this machine counts."""
    inside = lab.hosts[host].run(["cat", PID_FILE], Deadline.after(PATIENCE_S)).out.strip()
    init = next(record.init for record in lab.record.hosts if record.name == host)
    if init is None:
        raise HostError("find the guest's QEMU", host=host, said="the host has no process 1")
    space = Path(f"/proc/{init.pid}/ns/pid").readlink()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            ids = _field(folder / "status", "NSpid").split()
            if ids[-1] == inside and (folder / "ns/pid").readlink() == space:
                return int(folder.name)
        except (FileNotFoundError, ProcessLookupError):
            continue  # a process that ended while we looked
    raise HostError("find the guest's QEMU", host=host, said=f"no process {inside} in the host")


def _field(status: Path, name: str) -> str:
    lines = status.read_text().splitlines()
    return next(line.partition(":")[2] for line in lines if line.startswith(f"{name}:"))
