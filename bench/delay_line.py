"""A long way between the peer and the fabric: frames are delayed, some are lost, none overtakes.

It runs in the fabric's network namespace, between two interfaces: what comes in by one leaves by
the other when its time has come. There is no netem in every kernel, and a meter has to be tried on
long ways too. Told by JSON lines on its standard input to hold a way for a time: frames wait then,
and leave in one flush (:mod:`bench.injector` is at the other end). Only the standard library is
used; it ends with its input.
"""

from __future__ import annotations

import json
import os
import random
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

PRIORITY = 40
"""Real time, above the probe's and the valve's: late here is late on the way."""
SOL_PACKET = 263
OUTGOING = 4
"""PACKET_OUTGOING, linux/if_packet.h: a frame that was sent here, not one that came in."""
PACKET_VNET_HDR = 15
"""Frames with a header of virtio-net before them: whose checksum is still to be made stays so."""
LONGEST_FRAME = 1 << 17


class Line(NamedTuple):
    """``delay_ns`` each way, and the share of frames that is lost on it, by ``seed``."""

    delay_ns: int
    loss: float
    seed: int


class Way:
    """From one interface to the other."""

    def __init__(self, source: socket.socket, sink: socket.socket, line: Line) -> None:
        self.source, self._sink, self._line = source, sink, line
        self._chance = random.Random(line.seed)
        self._frames: deque[tuple[int, bytes]] = deque()
        self.held_until_ns = 0

    def take(self) -> None:
        """What has come, with the time at which it leaves."""
        for frame in _frames_of(self.source):
            if self._chance.random() >= self._line.loss:
                self._frames.append((time.monotonic_ns() + self._line.delay_ns, frame))

    def due_ns(self) -> int | None:
        """When the next frame leaves; None: none is under way."""
        return max(self._frames[0][0], self.held_until_ns) if self._frames else None

    def let_go(self) -> None:
        """Send on what is due."""
        while (due := self.due_ns()) is not None and due <= time.monotonic_ns():
            self._sink.send(self._frames.popleft()[1])


def _frames_of(source: socket.socket) -> Iterator[bytes]:
    while True:
        try:
            frame, address = source.recvfrom(LONGEST_FRAME)
        except BlockingIOError:
            return
        if address[2] != OUTGOING:
            yield frame


def _open(interface: str) -> socket.socket:
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(3))
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    opened.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    opened.bind((interface, 0))
    opened.setblocking(False)
    return opened


def carry(ways: dict[str, Way]) -> None:
    """Until the input ends."""
    while True:
        due = [at for way in ways.values() if (at := way.due_ns()) is not None]
        left = max(0.0, (min(due) - time.monotonic_ns()) / 1e9) if due else None
        ready = select.select([sys.stdin, *(way.source for way in ways.values())], [], [], left)[0]
        for way in ways.values():
            way.take()
            way.let_go()
        if sys.stdin in ready:
            line = os.read(0, 1 << 12)
            if not line:
                return
            request = json.loads(line)
            begin = time.monotonic_ns()
            end = begin + int(request["for_ns"])
            for name in request["ways"]:
                ways[name].held_until_ns = end
            print(json.dumps({"stamps": [[begin, begin], [end, end]]}), flush=True)


def main() -> None:
    """Its only argument is JSON: ``peer`` and ``fabric`` name interfaces, ``line`` is a Line."""
    wanted = json.loads(sys.argv[1])
    peer, fabric = _open(wanted["peer"]), _open(wanted["fabric"])
    line = Line(*wanted["line"])
    ways = {
        "egress": Way(fabric, peer, line),
        "ingress": Way(peer, fabric, line._replace(seed=line.seed + 1)),
    }
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
        fifo = True
    except PermissionError:
        fifo = False
    print(json.dumps({"fifo": fifo}), flush=True)
    carry(ways)


if __name__ == "__main__":
    main()
