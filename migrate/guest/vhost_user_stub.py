"""A vhost-user backend that answers QEMU and moves no packet, for throw-away guests.

Source: QEMU docs/interop/vhost-user.rst. File descriptors that come along are not taken: whoever
works no queue needs no memory, and a relay over ssh passes none on.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_HEADER = struct.Struct("<III")
_VERSION, _REPLY = 0x1, 0x4
_GET_FEATURES, _SET_LOG_BASE, _GET_VRING_BASE = 1, 6, 11
_GET_PROTOCOL_FEATURES, _GET_QUEUE_NUM = 15, 17
_LOG_ALL, _PROTOCOL, _VERSION_1 = 1 << 26, 1 << 30, 1 << 32
_LOG_SHMFD = 1 << 1
_MOST_BYTES = 1 << 16
NAMES = {
    _GET_FEATURES: "GET_FEATURES",
    _SET_LOG_BASE: "SET_LOG_BASE",
    _GET_VRING_BASE: "GET_VRING_BASE",
    _GET_PROTOCOL_FEATURES: "GET_PROTOCOL_FEATURES",
    _GET_QUEUE_NUM: "GET_QUEUE_NUM",
}
"""Requests that QEMU waits for an answer to."""


class VhostUserStub:
    """The backend's end of a connection.

    ``requests``: the :data:`NAMES` of those that were answered so far. Whatever made QEMU send one
    had to wait for that, so that it is here as soon as that is done; others come when they do.
    """

    def __init__(self, plug: socket.socket) -> None:
        self.requests: list[str] = []
        self._plug = plug
        self._thread = threading.Thread(target=self._serve, name="vhost-user", daemon=True)

    @contextmanager
    def serving(self) -> Iterator[VhostUserStub]:
        """Answer while the block runs."""
        self._plug.settimeout(None)
        self._thread.start()
        try:
            yield self
        finally:
            with suppress(OSError):  # QEMU has left before
                self._plug.shutdown(socket.SHUT_RDWR)
            self._thread.join()

    def _serve(self) -> None:
        with suppress(OSError, EOFError):
            while True:
                request, _, size = _HEADER.unpack(self._take(_HEADER.size))
                if size > _MOST_BYTES:
                    return
                payload = self._take(size)
                if (answer := _answer(request, payload)) is not None:
                    self.requests.append(NAMES[request])
                    head = _HEADER.pack(request, _VERSION | _REPLY, len(answer))
                    self._plug.sendall(head + answer)

    def _take(self, size: int) -> bytes:
        taken = b""
        while len(taken) < size:
            if not (data := self._plug.recv(size - len(taken))):
                raise EOFError
            taken += data
        return taken


def _answer(request: int, payload: bytes) -> bytes | None:
    """What goes back; None for a request that has no answer."""
    numbers = {
        _GET_FEATURES: _LOG_ALL | _PROTOCOL | _VERSION_1,
        _GET_PROTOCOL_FEATURES: _LOG_SHMFD,
        _GET_QUEUE_NUM: 1,
        _SET_LOG_BASE: 0,
    }
    if request == _GET_VRING_BASE:
        return payload[:4] + struct.pack("<I", 0)
    return struct.pack("<Q", numbers[request]) if request in numbers else None
