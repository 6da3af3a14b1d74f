"""What is reached of hosts from where a guest is."""

from __future__ import annotations

from migrate.model.base import Value


class Scan(Value):
    """What answered at one place."""

    place: str
    station: str
    asked: int
    """Frames that were sent to it."""
    answers: tuple[str, ...] = ()
    """``10.78.0.1 tcp open 16509``, one for each thing that answered."""
    may_answer: bool = False

    @property
    def wrong(self) -> tuple[str, ...]:
        """Answers that should not be: of the peer, which guests talk to, only an open port is."""
        opens = tuple(answer for answer in self.answers if answer.startswith("tcp open"))
        return opens if self.may_answer else self.answers
