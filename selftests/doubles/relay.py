"""A relay in front of a unix socket, whose connections can be cut in the middle."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

CHUNK = 1 << 16


class Relay:
    """Listens at ``path`` and passes all bytes on to ``beyond`` and back."""

    def __init__(self, path: Path, beyond: Callable[[], Path]) -> None:
        self.path = path
        self._beyond = beyond
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(str(path))
        self._listening.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):  # closed: no more are taken
            while True:
                near, _ = self._listening.accept()
                far = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                far.connect(str(self._beyond()))
                with self._lock:
                    self._open += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=_pass_on, args=pair, daemon=True).start()

    def cut(self) -> int:
        """Break all connections of now, as a network does; how many there were."""
        with self._lock:
            gone, self._open = self._open, []
        for plug in gone:
            with suppress(OSError):
                plug.shutdown(socket.SHUT_RDWR)
            plug.close()
        return len(gone) // 2

    def close(self) -> None:
        """No more are taken, and those of now are cut."""
        self._listening.close()
        self.cut()


def _pass_on(near: socket.socket, far: socket.socket) -> None:
    with suppress(OSError):
        while data := near.recv(CHUNK):
            far.sendall(data)
    with suppress(OSError):
        far.shutdown(socket.SHUT_RDWR)
