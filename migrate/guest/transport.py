"""What carries bytes to a probe and back: pipes of a process here, or a guest's port.

The other one is :class:`migrate.drivers.libvirt_channel.Channel`.
"""

from __future__ import annotations

import os
import selectors
import subprocess
from typing import Protocol

from migrate.clock import Deadline


class ProbeTransport(Protocol):
    """Carries bytes to a probe and back; its owner closes it."""

    def send(self, data: bytes) -> None:
        """Hand over all of ``data``; ConnectionError when the other side is gone."""

    def receive(self, deadline: Deadline) -> bytes:
        """Some bytes, at least one; TimeoutError at the deadline, ConnectionError when gone."""

    def close(self) -> None:
        """Let go of the channel; the process or port at its end is not touched."""


class PipeTransport:
    """A probe that was started with pipes as its standard input and output; it ends at close."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        if process.stdin is None or process.stdout is None:
            raise ValueError("the probe needs pipes for its standard input and output")
        self._input = process.stdin
        self._output = process.stdout
        os.set_blocking(self._input.fileno(), False)
        os.set_blocking(self._output.fileno(), False)

    def send(self, data: bytes) -> None:
        """See :class:`ProbeTransport`; a pipe that takes no more is gone: requests are short."""
        try:
            sent = os.write(self._input.fileno(), data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            raise ConnectionError("the probe no longer reads its requests")

    def receive(self, deadline: Deadline) -> bytes:
        """See :class:`ProbeTransport`."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._output, selectors.EVENT_READ)
            if not selector.select(deadline.left()):
                raise TimeoutError("nothing came from the probe")
        data = os.read(self._output.fileno(), 1 << 16)
        if not data:
            raise ConnectionError("the probe has ended")
        return data

    def close(self) -> None:
        """See :class:`ProbeTransport`."""
        self._input.close()
        self._output.close()
