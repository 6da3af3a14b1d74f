"""A byte stream to a virtio-serial port of a guest, over libvirt's connection."""

from __future__ import annotations

import contextlib
import threading

import libvirt

from migrate.clock import Deadline

MOST_WAITING = 4 << 20
"""Bytes that wait to be received: a probe's longest answer takes less than a tenth of it."""


class Channel:
    """A byte stream to a virtio-serial port: the probe's transport (see
    :mod:`migrate.guest.transport`).

    A guest that sends more than anybody asked for loses the channel: libvirt would keep all of it
    in this process's memory.
    """

    def __init__(self, stream: libvirt.virStream, host: str) -> None:
        self._stream = stream
        self._host = host
        self._waiting = bytearray()
        self._ended = ""
        """Why nothing more comes; empty: more may come."""
        self._changed = threading.Condition()
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
                if not self._keep(data):
                    self.close()
                    return
        except libvirt.libvirtError:
            pass  # the reader learns of it below, as the end of the stream
        with contextlib.suppress(libvirt.libvirtError):
            stream.eventRemoveCallback()
        self._end(f"the channel to the guest on {self._host} was closed")

    def _keep(self, data: bytes) -> bool:
        """False: it is too much, and the channel has ended."""
        with self._changed:
            self._waiting += data
            self._changed.notify_all()
            too_much = len(self._waiting) > MOST_WAITING
            if too_much:
                self._waiting.clear()
        if too_much:
            self._end(f"the guest on {self._host} sent over {MOST_WAITING >> 20} MiB unasked")
        return not too_much

    def _end(self, why: str) -> None:
        with self._changed:
            self._ended = self._ended or why
            self._changed.notify_all()

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
            raise ConnectionError(self._ended or str(error)) from error

    def receive(self, deadline: Deadline) -> bytes:
        """Some bytes; TimeoutError at the deadline, ConnectionError when the other end is gone."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended, deadline.left())
            if self._waiting:
                data = bytes(self._waiting)
                self._waiting.clear()
                return data
            if self._ended:
                raise ConnectionError(self._ended)
        raise TimeoutError(f"nothing from the guest on {self._host}")

    def close(self) -> None:
        """Give the stream back; a second time does nothing."""
        with self._closing:
            if not self._open:
                return
            self._open = False
        for step in (self._stream.eventRemoveCallback, self._stream.abort):
            with contextlib.suppress(libvirt.libvirtError):  # the guest may be gone already
                step()
