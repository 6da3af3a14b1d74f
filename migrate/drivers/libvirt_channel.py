"""A byte stream to a virtio-serial port of a guest, over libvirt's connection."""

from __future__ import annotations

import contextlib
import queue
import threading

import libvirt

from migrate.clock import Deadline


class Channel:
    """A byte stream to a virtio-serial port: the probe's transport (see
    :mod:`migrate.guest.transport`).
    """

    def __init__(self, stream: libvirt.virStream, host: str) -> None:
        self._stream = stream
        self._host = host
        self._received: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._closing = threading.Lock()
        self._open = True
        readable = libvirt.VIR_STREAM_EVENT_READABLE
        ended = libvirt.VIR_STREAM_EVENT_ERROR | libvirt.VIR_STREAM_EVENT_HANGUP
        stream.eventAddCallback(readable | ended, self._on_event, None)

    def _on_event(self, stream: libvirt.virStream, _events: int, _opaque: object) -> None:
        try:
            while True:
                data = stream.recv(1 << 16)
                if data == -2:  # nothing more now
                    return
                if not data:
                    break
                self._received.put(data)
        except libvirt.libvirtError:
            pass  # the reader learns of it below, as the end of the stream
        with contextlib.suppress(libvirt.libvirtError):
            stream.eventRemoveCallback()
        self._received.put(None)

    def send(self, data: bytes) -> None:
        """Send all of it; raises ConnectionError when the other end is gone."""
        view = memoryview(data)
        try:
            while view:
                sent = self._stream.send(bytes(view[: 1 << 16]))
                if sent == -2:
                    raise ConnectionError(f"the channel to the guest on {self._host} is full")
                view = view[sent:]
        except libvirt.libvirtError as error:
            raise ConnectionError(str(error)) from error

    def receive(self, deadline: Deadline) -> bytes:
        """Some bytes; TimeoutError at the deadline, ConnectionError when the other end is gone."""
        try:
            data = self._received.get(timeout=deadline.left())
        except queue.Empty:
            raise TimeoutError(f"nothing from the guest on {self._host}") from None
        if data is None:
            self._received.put(None)
            raise ConnectionError(f"the channel to the guest on {self._host} was closed")
        return data

    def close(self) -> None:
        """Give the stream back; a second time does nothing."""
        with self._closing:
            if not self._open:
                return
            self._open = False
        for step in (self._stream.eventRemoveCallback, self._stream.abort):
            with contextlib.suppress(libvirt.libvirtError):  # the guest may be gone already
                step()
