"""A migration stream as QEMU writes it: memory, devices, and their description."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import Any

from migrate.formats.virtio_features import feature_mask
from migrate.formats.virtio_net_state import QUEUE_MAX

PAGE = 4096
START, PART, END, FULL = 1, 2, 3, 4
MAC = bytes.fromhex("5254006d6c01")


def named(name: str) -> bytes:
    return bytes([len(name)]) + name.encode()


def numbers(layout: str, *values: int) -> bytes:
    return struct.pack(f">{layout}", *values)


def subsection(name: str, content: bytes) -> bytes:
    return b"\5" + named(name) + numbers("I", 1) + content


@dataclass
class Writer:
    """A stream as QEMU writes it: sections first, what describes them last."""

    sections: bytes = b""
    devices: list[dict[str, Any]] = field(default_factory=list)
    configuration: dict[str, Any] | None = None

    def section(
        self, kind: int, number: int, content: bytes, name: str = "", version: int = 1
    ) -> None:
        head = numbers("BI", kind, number)
        if name:
            head += named(name) + numbers("II", 0, version)
        self.sections += head + content + numbers("BI", 0x7E, number)

    def device(self, number: int, name: str, content: bytes, *fields: dict[str, Any]) -> None:
        self.section(FULL, number, content, name)
        self.devices.append({"name": name, "instance_id": 0, "fields": list(fields)})

    def stream(self) -> bytes:
        told: dict[str, Any] = {"page_size": PAGE, "devices": self.devices}
        config = b"\7" + numbers("I", 3) + b"q35"
        if self.configuration is not None:
            told["configuration"] = self.configuration
        text = json.dumps(told).encode()
        head = b"QEVM" + numbers("I", 3) + config
        return head + self.sections + b"\0\6" + numbers("I", len(text)) + text


def page(at: int, flags: int, name: str = "", content: bytes = b"") -> bytes:
    return numbers("Q", at | flags) + (named(name) if name else b"") + content


EOS = numbers("Q", 0x10)


BLOCKS = numbers("Q", 3 * PAGE | 4) + named("pc.ram") + numbers("Q", 3 * PAGE) + EOS


def with_ram() -> Writer:
    writer = Writer()
    writer.section(START, 2, BLOCKS, "ram", 4)
    first = page(0, 8, "pc.ram", bytes(PAGE)) + page(PAGE, 2 | 0x20, content=b"\0")
    writer.section(PART, 2, first + numbers("Q", 0x200) + EOS)
    delta = page(0, 0x40 | 0x20, content=numbers("BH", 1, 3) + b"abc")
    writer.section(END, 2, delta + page(2 * PAGE, 8 | 0x20, content=b"\7" * PAGE) + EOS)
    return writer


def with_devices() -> Writer:
    writer = with_ram()
    writer.device(
        3,
        "rtc",
        numbers("BHi", 7, 0x1234, -2) + b"abcdef" + numbers("HH", 5, 6),
        {"name": "index", "type": "uint8", "size": 1},
        {"name": "inner", "type": "struct", "size": 6, "struct": {"fields": [
            {"name": "period", "type": "uint16", "size": 2},
            {"name": "offset", "type": "int32", "size": 4},
        ]}},
        {"name": "cmos", "type": "buffer", "size": 6},
        {"name": "irq", "type": "uint16", "array_len": 2, "size": 2},
    )  # fmt: skip
    state = net_state()
    net = "0000:00:02.0/virtio-net"
    writer.device(4, net, state, {"name": "virtio", "type": "virtio", "size": len(state)})
    content = b"\1" + subsection("pm/more", numbers("I", 9))
    writer.device(5, "pm", content, {"name": "on", "type": "bool", "size": 1})
    more = {"vmsd_name": "pm/more", "fields": [{"name": "x", "type": "uint32", "size": 4}]}
    writer.devices[-1]["subsections"] = [more]
    return writer


FEATURES = feature_mask(["mac", "ctrl_vq", "ctrl_guest_offloads", "version_1"])


def net_state(*, features: int = FEATURES, pairs: int = 1, packed: bool = False) -> bytes:
    space = bytearray(256)
    space[0x06], space[0x34] = 0x10, 0x40
    space[0x40:0x44] = bytes([0x10, 0x50, 0, 0])  # PCI Express, so 4096 bytes of space
    space[0x50:0x54] = bytes([0x11, 0, 3, 0])  # MSI-X with four vectors
    pci = numbers("I", 2) + bytes(space) + bytes(4096 - 256) + bytes(16) + bytes(64 + 1)
    config = MAC + b"\1\0" + struct.pack("<H", 2 if pairs > 1 else 1)
    virtio = numbers("BBHI", 0x0F, 1, 0, features & 0xFFFFFFFF) + numbers("I", len(config)) + config
    queues = [numbers("IQHH", 256, 0x1000 * (n + 1), 10 + n, n + 1) for n in range(3)]
    virtio += numbers("I", len(queues)) + b"".join(queues)
    net = MAC + bytes(8) + numbers("HBBI", 1, 1, 0, 1) + bytes.fromhex("333300000001")
    net += b"\x03" + bytes(511) + bytes(4 + 2 + 4 + 1)
    if pairs > 1:
        net += numbers("HH", 2, pairs) + bytes(4 * (pairs - 1))
    net += numbers("Q", feature_mask(["guest_csum"])) if features & 4 else b""
    rings = b"".join(numbers("QQ", 0xA000 + n, 0xB000 + n) for n in range(QUEUE_MAX))
    tail = subsection("virtio/64bit_features", numbers("Q", features))
    tail += subsection("virtio/virtqueues", rings)
    modern = subsection("virtio_pci/modern_state", bytes(16 + 28 * QUEUE_MAX))
    tail += subsection("virtio/extra_state", b"") + modern
    tail += subsection("virtio/started", b"\1")
    if packed:
        indices = b"".join(numbers("HBHBI", 20 + n, 1, 18 + n, 0, 2) for n in range(QUEUE_MAX))
        tail += subsection("virtio/packed_virtqueues", indices)
    return pci + numbers("H", 0) + virtio + net + tail


def by_libvirt(stream: bytes, magic: bytes = b"LibvirtQemudSave", kind: int = 0) -> bytes:
    xml = b"<domain/>" + bytes(7)
    return magic + struct.pack("<5I", 2, len(xml), 1, kind, 0) + bytes(14 * 4) + xml + stream
