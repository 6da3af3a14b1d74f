"""A channel to a probe that is none: what is asked is answered by a script."""

from __future__ import annotations

import json
import select
from collections.abc import Callable

from migrate.clock import Deadline


class Scripted:
    """A channel that answers by a script; None is silence."""

    def __init__(self, answers: list[Callable[[dict[str, object]], bytes | None]]) -> None:
        self.answers = answers
        self.waiting = b""

    def send(self, data: bytes) -> None:
        request = json.loads(data.strip())
        if self.answers:
            self.waiting += self.answers.pop(0)(request) or b""

    def receive(self, deadline: Deadline) -> bytes:
        if not self.waiting:
            select.select([], [], [], deadline.left())
            raise TimeoutError
        data, self.waiting = self.waiting[:7], self.waiting[7:]
        return data

    def close(self) -> None:
        pass
