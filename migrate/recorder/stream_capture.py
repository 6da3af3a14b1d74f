"""The end of a live migration stream, off the wire: what each device put into it, and its bytes.

QEMU sends the devices' states when the guest has stopped, and last of all a description of them
(migration/savevm.c). So packets are captured on the source's migration link from its STOP on, and
nothing of what is sent while the guest runs on.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

from migrate.clock import Deadline
from migrate.drivers.netns import enter
from migrate.errors import MeasurementError
from migrate.formats.vmstate_stream import StreamAccount, StreamEnd, read_stream_end
from migrate.lab.api import Host
from migrate.model import Event
from migrate.model.recording import DeviceSection, HopRecording, StreamRecording
from migrate.recorder.base import Hop
from migrate.recorder.events import Listener

KEPT_BYTES = 32 << 20
"""Of what was sent last; devices and their description are a few hundred KiB."""
BUFFER_BYTES = 16 << 20
PORTS = range(49152, 49216)
"""libvirt's for migration (qemu.conf, migration_port_min and _max)."""
LOOK_S = 0.2
READY_S = 2.0
_ALL, _SO_RCVBUFFORCE = 3, 33
"""ETH_P_ALL: a socket of one protocol hears nothing that is sent (packet(7))."""
_TCP = 6


class Segment(NamedTuple):
    """Of a connection of TCP: its ports, the number of its first byte, and the bytes."""

    ports: tuple[int, int]
    number: int
    content: bytes


@dataclass(slots=True)
class StreamCapture:
    """What was captured; whole when the block of :func:`capture_stream` has ended."""

    ending: StreamEnd | None = None
    unseen: str = ""
    """Why there is none."""
    packets: deque[bytes] = field(default_factory=deque)
    size: int = 0

    def keep(self, packet: bytes) -> None:
        """The newest ones."""
        self.packets.append(packet)
        self.size += len(packet)
        while self.size > KEPT_BYTES:
            self.size -= len(self.packets.popleft())

    def read(self, address: str) -> None:
        """The end of the stream that went to ``address``."""
        segments = (segment(packet, address) for packet in self.packets)
        streams = contiguous(one for one in segments if one is not None)
        self.packets.clear()
        reasons = []
        for stream in streams:
            try:
                self.ending = read_stream_end(stream)
            except MeasurementError as error:
                # Where in what was kept tells nothing.
                reasons.append(error.said.partition(": ")[2])
            else:
                return
        why = "; ".join(dict.fromkeys(reasons)) or "nothing of it was captured"
        self.unseen = f"bytes of devices, from the stream's end: {why}"

    def add_to(self, recording: HopRecording) -> HopRecording:
        """The hop's recording with what each device put into the stream."""
        stream = stream_recording(self.ending, self.unseen)
        return recording.model_copy(update={"stream": stream})


def stream_recording(
    account: StreamAccount | StreamEnd | None, unseen: str = ""
) -> StreamRecording:
    """What a stream tells of itself, as it is kept."""
    if account is None:
        return StreamRecording(unseen=unseen)
    return StreamRecording(
        sections=tuple(
            DeviceSection(
                name=section.name,
                instance=section.instance,
                size_bytes=section.bytes,
                mac=state.mac if (state := account.network.get(section.name)) else "",
            )
            for section in account.sections
        ),
        network={name: asdict(state) for name, state in account.network.items()},
        account=asdict(account),
    )


@dataclass(frozen=True, slots=True)
class NotCaptured:
    """A guest that is saved: its stream does not go over the wire."""

    def add_to(self, recording: HopRecording) -> HopRecording:
        """Nothing."""
        return recording


@contextmanager
def observe_stream(hop: Hop) -> Iterator[StreamCapture | NotCaptured]:
    """The end of a hop's stream; of a guest that is saved there is none on the wire."""
    if hop.case.policy.method == "save-restore":
        yield NotCaptured()
        return
    with capture_stream(hop.source, hop.target.migration_address, hop.listener) as capture:
        yield capture


@contextmanager
def capture_stream(source: Host, address: str, listener: Listener) -> Iterator[StreamCapture]:
    """Capture while the block runs what ``source`` sends to ``address`` once its guest stops."""
    capture, ended, ready = StreamCapture(), threading.Event(), threading.Event()
    namespace = source.file("/proc/1/ns/net")
    if namespace is None or ":" in address:
        which = "hosts over ssh" if namespace is None else "IPv6"
        capture.unseen = f"bytes of devices: packets of {which} are not captured"
        yield capture
        return
    since, link = listener.mark(), source.resources.migration_link

    def stopped(event: Event) -> bool:
        return (event.host, event.name) == (source.name, "STOP")

    def work() -> None:
        try:
            with closing(_socket(namespace)) as packets:
                ready.set()
                while not listener.wait(stopped, Deadline.after(LOOK_S), since):
                    if ended.is_set():
                        return
                packets.bind((link, _ALL))
                _receive(packets, capture, ended)
        except OSError as error:
            capture.unseen = f"bytes of devices: capture on {link}: {error}"
        finally:
            ready.set()

    thread = threading.Thread(target=work, name="stream-capture", daemon=True)
    thread.start()
    ready.wait(READY_S)
    try:
        yield capture
    finally:
        ended.set()
        thread.join()
    if not capture.unseen:
        capture.read(address)


def _socket(namespace: Path) -> socket.socket:
    """Of no protocol: nothing comes before it is bound to one."""
    enter(namespace)
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    packets.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER_BYTES)
    packets.settimeout(LOOK_S)
    return packets


def _receive(packets: socket.socket, capture: StreamCapture, ended: threading.Event) -> None:
    """Until the move has ended and nothing is left to be read."""
    while True:
        last = ended.is_set()
        try:
            while True:
                packet, address = packets.recvfrom(1 << 17)
                if address[2] == socket.PACKET_OUTGOING:
                    capture.keep(packet)
        except TimeoutError:
            if last:
                return


def segment(packet: bytes, address: str) -> Segment | None:
    """Of a packet of IPv4 that carries a migration to ``address`` (RFC 791, RFC 9293)."""
    if len(packet) < 40 or packet[0] >> 4 != 4 or packet[9] != _TCP:
        return None
    if packet[16:20] != socket.inet_aton(address):
        return None
    head = 4 * (packet[0] & 0xF)
    length = int.from_bytes(packet[2:4], "big") or len(packet)
    if len(packet) < head + 20:
        return None
    ports = struct.unpack_from(">HH", packet, head)
    if ports[1] not in PORTS:
        return None
    (number,) = struct.unpack_from(">I", packet, head + 4)
    content = packet[head + 4 * (packet[head + 12] >> 4) : length]
    return Segment(ports, number, content) if content else None


def contiguous(segments: Iterable[Segment]) -> list[bytes]:
    """Of each connection what was sent last without a hole, in order; numbers wrap at 2^32."""
    by_ports: defaultdict[tuple[int, int], list[Segment]] = defaultdict(list)
    for one in segments:
        by_ports[one.ports].append(one)
    return [_joined(connection) for connection in by_ports.values()]


def _joined(segments: list[Segment]) -> bytes:
    origin = segments[0].number
    placed = sorted((_signed(one.number - origin), one.content) for one in segments)
    parts: deque[bytes] = deque()
    begin = max(at + len(content) for at, content in placed)
    for at, content in reversed(placed):
        if at >= begin:  # sent again
            continue
        if at + len(content) < begin:
            break
        parts.appendleft(content[: begin - at])
        begin = at
    return b"".join(parts)


def _signed(difference: int) -> int:
    return (difference + (1 << 31)) % (1 << 32) - (1 << 31)
