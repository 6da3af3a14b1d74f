"""A guest's channel: what comes is handed on in order, and what nobody receives is bounded."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import libvirt
import pytest

from migrate.clock import Deadline
from migrate.drivers.libvirt_channel import MOST_WAITING, Channel
from selftests.helpers import soon

Event = Callable[[Any, int, object], None]


class Stream:
    """A double of libvirt's: it has what it was given, then nothing for now."""

    def __init__(self) -> None:
        self.coming: list[bytes | int | libvirt.libvirtError] = []
        self.sent = b""
        self.room = 1 << 20
        self.done: list[str] = []
        self.event: Event | None = None

    def eventAddCallback(self, _events: int, event: Event, _opaque: object) -> None:  # noqa: N802
        self.event = event

    def eventRemoveCallback(self) -> None:  # noqa: N802
        self.done.append("unheard")

    def abort(self) -> None:
        self.done.append("aborted")

    def recv(self, _most: int) -> bytes | int:
        data = self.coming.pop(0) if self.coming else -2
        if isinstance(data, libvirt.libvirtError):
            raise data
        return data

    def send(self, data: bytes) -> int:
        if self.room <= 0:
            return -2
        part = data[: self.room]
        self.sent, self.room = self.sent + part, self.room - len(part)
        return len(part)

    def gets(self, *parts: bytes | int | libvirt.libvirtError) -> None:
        """As libvirt's event loop tells it."""
        self.coming += parts
        assert self.event is not None
        self.event(self, libvirt.VIR_STREAM_EVENT_READABLE, None)


@pytest.fixture
def stream() -> Stream:
    return Stream()


@pytest.fixture
def channel(stream: Stream) -> Channel:
    return Channel(stream, "a")


def test_all_that_waits_is_received_in_order(stream: Stream, channel: Channel) -> None:
    stream.gets(b"one ", b"two ")
    stream.gets(b"three")
    assert channel.receive(soon()) == b"one two three"
    with pytest.raises(TimeoutError, match="nothing from the guest on a"):
        channel.receive(Deadline.after(0))


def test_a_reader_that_waits_is_woken(stream: Stream, channel: Channel) -> None:
    later = threading.Timer(0.05, stream.gets, (b"late",))
    later.start()
    assert channel.receive(soon()) == b"late"
    later.join()


@pytest.mark.parametrize("end", [b"", libvirt.libvirtError("gone")], ids=["ended", "broken"])
def test_the_end_comes_after_what_was_received(
    stream: Stream, channel: Channel, end: bytes | libvirt.libvirtError
) -> None:
    stream.gets(b"last", end)
    assert channel.receive(soon()) == b"last"
    for _ in range(2):
        with pytest.raises(ConnectionError, match="the channel to the guest on a was closed"):
            channel.receive(soon())
    assert stream.done == ["unheard"]


def test_a_guest_that_sends_what_nobody_receives_loses_its_channel(
    stream: Stream, channel: Channel
) -> None:
    """libvirt keeps in this process what comes on a stream, as long as that is open."""
    piece = bytes(1 << 16)
    stream.gets(*[piece] * (MOST_WAITING // len(piece) + 100))
    assert stream.done == ["unheard", "aborted"]
    assert len(stream.coming) == 99, "nothing more is taken"
    with pytest.raises(ConnectionError, match="the guest on a sent over 4 MiB unasked"):
        channel.receive(soon())
    channel.close()
    assert stream.done == ["unheard", "aborted"], "it is closed once"


def test_what_has_no_room_is_an_error(stream: Stream, channel: Channel) -> None:
    channel.send(b"x" * 100_000)
    assert stream.sent == b"x" * 100_000
    stream.room = 10
    with pytest.raises(ConnectionError, match="is full"):
        channel.send(b"x" * 20)
