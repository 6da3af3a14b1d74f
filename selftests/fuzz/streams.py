"""What goes over the wire between two QEMUs: the stream of a migration, and packets of it."""

from __future__ import annotations

import socket
import struct

from migrate.formats.vmstate_stream import read_stream, read_stream_end
from migrate.model.recording import HopRecording, MoveResult
from migrate.recorder.collect import stream_file
from migrate.recorder.stream_capture import StreamCapture, stream_recording
from selftests.doubles.vmstate_stream import by_libvirt, with_devices
from selftests.fuzz.lane import Lane

ADDRESS, PORT = "192.0.2.2", 49152
PACKET = 1400


def _kept(capture: StreamCapture) -> None:
    """As it is written: the hop's recording, and ``stream.json``."""
    hop = HopRecording(
        source="a",
        target="b",
        result=MoveResult(outcome="completed", held_by=("b",)),
        begin_ns=0,
        end_ns=1,
    )
    hop = capture.add_to(hop)
    hop.model_dump_json()
    for text in stream_file([hop]).values():
        text.encode()


def stream_door(data: bytes) -> None:
    """A saved file, and the end of a live stream."""
    capture = StreamCapture()
    capture.ending = read_stream_end(data)
    _kept(capture)
    stream_recording(read_stream(data)).model_dump_json()


def packet(number: int, content: bytes) -> bytes:
    """Of TCP over IPv4, as a socket of packets gives it."""
    tcp = struct.pack(">HHIIBBHHH", 33333, PORT, number, 0, 5 << 4, 0x10, 500, 0, 0)
    head = (0x45, 0, 20 + len(tcp) + len(content), 1, 0, 64, 6, 0)
    addresses = socket.inet_aton("192.0.2.1") + socket.inet_aton(ADDRESS)
    return struct.pack(">BBHHHBBH", *head) + addresses + tcp + content


def captured(stream: bytes) -> bytes:
    """Packets, each after its length."""
    made = b""
    for at in range(0, len(stream), PACKET):
        content = packet(at, stream[at : at + PACKET])
        made += struct.pack(">H", len(content)) + content
    return made


def capture_door(data: bytes) -> None:
    """What was captured on a link, put together and read."""
    capture, at = StreamCapture(), 0
    while at + 2 <= len(data):
        size = int.from_bytes(data[at : at + 2], "big")
        capture.keep(data[at + 2 : at + 2 + size])
        at += 2 + size
    capture.read(ADDRESS)
    _kept(capture)


def stream_seeds() -> list[bytes]:
    """With devices; with memory before them; as libvirt saves it."""
    return [with_devices().stream(), by_libvirt(with_devices().stream())]


LANES = (
    Lane("migration-streams", stream_door, stream_seeds),
    Lane("captured-packets", capture_door, lambda: [captured(with_devices().stream())]),
)
