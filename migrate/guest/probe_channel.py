"""The line to a probe: a request and its answer, one JSON object a line each way.

Every call ends by a deadline, in an answer or in a GuestError.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any, TypeVar

from pydantic import ValidationError

from migrate.clock import Deadline
from migrate.errors import GuestError
from migrate.guest.answers import Hello
from migrate.guest.transport import ProbeTransport
from migrate.model import Value

PROTOCOL = 3
PATIENCE_S = 10.0
"""How long a call may take that was handed no deadline."""

Reply = dict[str, Any]
_Shape = TypeVar("_Shape", bound=Value)


class ProbeChannel:
    """The line to a probe at the other end of ``transport``; ``where`` names it in errors."""

    def __init__(self, transport: ProbeTransport, where: str) -> None:
        self.where = where
        self._transport = transport
        self._next_id = 1
        self._buffer = b""
        self._noise = b""

    def reconnect(self, transport: ProbeTransport, where: str | None = None) -> None:
        """Go on over another channel to the same probe, e.g. on the host that the guest moved to:
        ``where`` names it in errors from now on.

        The old channel is the caller's to close. Ask :meth:`ready` next.
        """
        self.where = where or self.where
        self._transport = transport
        self._buffer = b""

    def ready(self, deadline: Deadline) -> Hello:
        """Wait until the probe answers; GuestError at the deadline, or if it is another protocol.

        The empty line ends what an earlier controller may have left half said.
        """
        asked: set[int] = set()
        self._noise = b""
        while True:
            try:
                asked.add(self._send("hello", {}, before=b"\n"))
                return self._greeted(self._answer(asked, deadline.sooner(1.0)))
            except TimeoutError as silence:
                if deadline.passed():
                    raise self._silent("hello") from silence
            except ConnectionError as gone:
                raise self._lost("hello", gone) from gone

    def call(self, do: str, deadline: Deadline | None = None, **parameters: object) -> Reply:
        """One request and its answer without ``id`` and ``ok``.

        GuestError if the probe refuses, is gone, or is silent until the deadline.
        """
        deadline = deadline or Deadline.after(PATIENCE_S)
        self._noise = b""
        try:
            return self._accepted(do, self._answer({self._send(do, parameters)}, deadline))
        except TimeoutError as silence:
            raise self._silent(do) from silence
        except ConnectionError as gone:
            raise self._lost(do, gone) from gone

    def _send(self, do: str, parameters: Reply, before: bytes = b"") -> int:
        number = self._next_id
        self._next_id += 1
        request = {"id": number, "do": do, **parameters}
        self._transport.send(before + json.dumps(request).encode() + b"\n")
        return number

    def _answer(self, asked: Collection[int], deadline: Deadline) -> Reply:
        """The next answer to one of the requests ``asked``; what else comes is dropped."""
        while True:
            line = self._line(deadline)
            try:
                reply = json.loads(line)
            except ValueError:
                reply = None
            if isinstance(reply, dict) and reply.get("id") in asked:
                return reply
            self._noise = (self._noise + line + b"\n")[-500:]

    def _line(self, deadline: Deadline) -> bytes:
        parts = [self._buffer]
        while b"\n" not in parts[-1]:
            try:
                parts.append(self._transport.receive(deadline))
            except TimeoutError:
                self._buffer = b"".join(parts)
                raise
        line, _, self._buffer = b"".join(parts).partition(b"\n")
        return line

    def _accepted(self, do: str, reply: Reply) -> Reply:
        if reply.pop("ok", False) is not True:
            raise GuestError(f"probe: {do}", host=self.where, said=str(reply.get("error", reply)))
        del reply["id"]
        return reply

    def _greeted(self, reply: Reply) -> Hello:
        reply = self._accepted("hello", reply)
        if reply.get("protocol") != PROTOCOL:
            raise GuestError(
                "probe: hello",
                host=self.where,
                said=f"it speaks protocol {reply.get('protocol')}, this version {PROTOCOL}",
                remedy="build the guest image anew, or put this version's probe on the disk",
            )
        return self._shaped(Hello, reply)

    def _silent(self, do: str) -> GuestError:
        said = (self._noise + self._buffer)[-500:].decode(errors="replace").strip()
        return GuestError(
            f"the probe did not answer {do}",
            host=self.where,
            said=said or "nothing was received",
            remedy="look at the guest's serial console: does it run, and the probe in it?",
        )

    def _lost(self, do: str, gone: ConnectionError) -> GuestError:
        return GuestError(
            f"the channel to the probe broke at {do}",
            host=self.where,
            said=str(gone),
            remedy="look at the guest's serial console, and at its log",
        )

    def _shaped(self, shape: type[_Shape], reply: Reply) -> _Shape:
        try:
            return shape.model_validate(reply)
        except ValidationError as wrong:
            raise GuestError(
                f"the probe's answer is no {shape.__name__}", host=self.where, said=str(wrong)
            ) from wrong
