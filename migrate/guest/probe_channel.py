"""The line to a probe: a request and its answer, one JSON object a line each way.

Every call ends by a deadline, in an answer or in a GuestError.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Iterator
from typing import Any, TypeVar, cast

from pydantic import ValidationError
from pydantic_core import from_json

from migrate.clock import Deadline
from migrate.errors import GuestError
from migrate.guest.answers import Hello
from migrate.guest.transport import ProbeTransport
from migrate.model import Value

PROTOCOL = 3
PATIENCE_S = 10.0
"""How long a call may take that was handed no deadline; times the lab's patience."""
REPEATS = 2
"""A question that changes nothing is asked so many times more, within its deadline: it, or its
answer, may have been lost where a channel changed hands."""
QUESTIONS = frozenset(
    {
        *("hello", "clock", "net", "lower.log", "tick.log", "work.log", "capture.log"),
        *("stream.status", "stream.log", "stream.receipts", "stream.sends", "stream.drops"),
        *("dirty.status", "tcp.status", "run.wait"),
    }
)
"""Requests that change nothing, and cost the guest little."""
MOST_BYTES = 1 << 20
"""Of a line, and of what comes instead of an answer: the longest answer takes a third of it."""
LINE_BYTES = 64
"""That a line counts for besides its length: it takes time to look at, even an empty one."""
NOISE = 500
"""Bytes of what a probe said that an error quotes."""
NONSENSE, BROKE = "the probe's answer", "the channel to the probe broke"
"""What an error begins with that is not a probe's silence."""
TOLD = 3
"""Of many errors."""

Reply = dict[str, Any]
_Shape = TypeVar("_Shape", bound=Value)


class ProbeChannel:
    """The line to a probe at the other end of ``transport``; ``where`` names it in errors.

    ``patience``: how many times longer than usual a call may take that was handed no deadline.
    Requests have ids that no other client gives, nor this one over its last channel: an answer that
    is late, or was in a guest's buffer when its state was saved, is never taken for another's.
    """

    def __init__(self, transport: ProbeTransport, where: str, *, patience: float = 1.0) -> None:
        self.where = where
        self.patience_s = PATIENCE_S * patience
        """How long a call may take that was handed no deadline."""
        self._transport = transport
        self._next_id = secrets.randbits(48)
        self._buffer = bytearray()
        self._noise = b""
        """The end of what came since the last request and answers nothing."""
        self._dropped = 0
        """Bytes of it."""

    def reconnect(self, transport: ProbeTransport, where: str | None = None) -> None:
        """Go on over another channel to the same probe, e.g. on the host that the guest moved to:
        ``where`` names it in errors from now on.

        The old channel is the caller's to close. Ask :meth:`ready` next.
        """
        self.where = where or self.where
        self._transport = transport
        self._buffer.clear()

    def ready(self, deadline: Deadline) -> Hello:
        """Wait until the probe answers; GuestError at the deadline, or for another protocol."""
        asked: set[int] = set()
        self._noise, self._dropped = b"", 0
        while True:
            try:
                asked.add(self._send("hello", {}))
                return self._greeted(self._answer(asked, deadline.sooner(1.0)))
            except TimeoutError as silence:
                if deadline.passed():
                    raise self._silent("hello") from silence
            except ConnectionError as gone:
                raise self._lost("hello", gone) from gone

    def call(self, do: str, deadline: Deadline | None = None, **parameters: object) -> Reply:
        """One request and its answer without ``id`` and ``ok``.

        GuestError if the probe refuses, is gone, or is silent until the deadline; one of
        :data:`QUESTIONS` is repeated before.
        """
        deadline = deadline or Deadline.after(self.patience_s)
        self._noise, self._dropped = b"", 0
        times = 1 + (REPEATS if do in QUESTIONS else 0)
        part_s = deadline.left() / times
        asked: set[int] = set()
        while True:
            try:
                asked.add(self._send(do, parameters))
                wait = deadline if len(asked) == times else deadline.sooner(part_s)
                return self._accepted(do, self._answer(asked, wait))
            except TimeoutError as silence:
                if len(asked) == times or deadline.passed():
                    raise self._silent(do) from silence
            except ConnectionError as gone:
                raise self._lost(do, gone) from gone

    def ask(
        self, do: str, shape: type[_Shape], deadline: Deadline | None = None, **parameters: object
    ) -> _Shape:
        """One request and its answer in its shape; GuestError also for an answer that has not."""
        return self._shaped(do, shape, self.call(do, deadline, **parameters))

    def _send(self, do: str, parameters: Reply) -> int:
        """The empty line before it ends what may have been left half said."""
        number = self._next_id
        self._next_id += 1
        request = {"id": number, "do": do, **parameters}
        self._transport.send(b"\n" + json.dumps(request).encode() + b"\n")
        return number

    def _answer(self, asked: Collection[int], deadline: Deadline) -> Reply:
        """The next answer to one of the requests ``asked``; what else comes is dropped."""
        while True:
            line = self._line(deadline)
            if (reply := _reply_to(asked, line)) is not None:
                return reply
            self._noise = (self._noise + line[-NOISE:] + b"\n")[-NOISE:]
            self._dropped += len(line) + LINE_BYTES
            if self._dropped > MOST_BYTES:
                raise ConnectionError("too many lines came that answer no request")
            if deadline.passed():
                raise TimeoutError("no answer came")

    def _line(self, deadline: Deadline) -> bytes:
        """Without its end. ConnectionError when it is longer than any answer."""
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > MOST_BYTES:
                self._buffer.clear()
                raise ConnectionError(f"{searched} bytes came without an end of line")
            self._buffer += self._transport.receive(deadline)
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def _accepted(self, do: str, reply: Reply) -> Reply:
        if reply.pop("ok", False) is not True:
            said = str(reply.get("error", reply))[:NOISE]
            raise GuestError(f"probe: {do}", host=self.where, said=said)
        del reply["id"]
        return reply

    def _greeted(self, reply: Reply) -> Hello:
        reply = self._accepted("hello", reply)
        if reply.get("protocol") != PROTOCOL:
            raise GuestError(
                "probe: hello",
                host=self.where,
                said=f"it speaks protocol {str(reply.get('protocol'))[:20]}, "
                f"this version {PROTOCOL}",
                remedy="build the guest image anew, or put this version's probe on the disk",
            )
        return self._shaped("hello", Hello, reply)

    def _silent(self, do: str) -> GuestError:
        said = (self._noise + self._buffer)[-NOISE:].decode(errors="replace").strip()
        return GuestError(
            f"the probe did not answer {do}",
            host=self.where,
            said=said or "nothing was received",
            remedy="look at the guest's serial console: does it run, and the probe in it?",
        )

    def _lost(self, do: str, gone: ConnectionError) -> GuestError:
        return GuestError(
            f"{BROKE} at {do}",
            host=self.where,
            said=str(gone),
            remedy="look at the guest's serial console, and at its log",
        )

    def _shaped(self, do: str, shape: type[_Shape], reply: Reply) -> _Shape:
        try:
            return shape.model_validate(reply)
        except ValidationError as wrong:
            raise self.nonsense(do, *_in_words(wrong)) from wrong

    def nonsense(self, do: str, *wrong: str) -> GuestError:
        """For an answer that no probe of ours gives: what is wrong with it."""
        return GuestError(f"{NONSENSE} to {do} is invalid", host=self.where, said="; ".join(wrong))


def _reply_to(asked: Collection[int], line: bytes) -> Reply | None:
    """The answer that a line is to one of the requests ``asked``; None: it is none."""
    try:
        # Deep nesting, numbers without end and halves of a surrogate pair are a ValueError, too.
        reply = from_json(line, allow_inf_nan=False)
    except ValueError:
        return None
    number = reply.get("id") if isinstance(reply, dict) else None
    return cast("Reply", reply) if type(number) is int and number in asked else None


def _in_words(wrong: ValidationError) -> Iterator[str]:
    """The first :data:`TOLD` errors, and a count."""
    errors = wrong.errors(include_url=False, include_input=False, include_context=False)
    for error in errors[:TOLD]:
        place = ".".join(str(part)[:32] for part in error["loc"])
        yield f"{place}: {error['msg'][:NOISE]}".lstrip(": ")
    if len(errors) > TOLD:
        yield f"and {len(errors) - TOLD} more errors"
