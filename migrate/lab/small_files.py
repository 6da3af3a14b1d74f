"""Small files of a host, many at once: what Linux tells of itself in /proc and /sys.

Here they are simply read. On a host that is reached over ssh the probe reads them, a program that
is started once, so that a look costs a round trip and no process.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from migrate.clock import Deadline
from migrate.formats.answers import MalformedError, Shape

MOST_BYTES = 16384
"""Of a file: what is longer is cut off (``guest-images/probe/files.c``)."""


TEXTS = Shape(dict[str, Any])
"""By path, in base64, beside what every answer has (``guest-images/probe/files.c``)."""


class SmallFiles(Protocol):
    """The files of one host."""

    def read(self, paths: Sequence[str], deadline: Deadline) -> Mapping[str, str]:
        """Those of ``paths`` that are there and can be read, by path. HostError: it can't be
        asked."""


@dataclass(frozen=True, slots=True)
class LocalFiles:
    """Of this machine, or of a host that it sees the files of."""

    place: Callable[[str], Path] = Path
    """Where this machine has a file of the host."""

    def read(self, paths: Sequence[str], _deadline: Deadline) -> Mapping[str, str]:
        """See SmallFiles."""
        read = ((path, self._text(path)) for path in paths)
        return {path: text for path, text in read if text is not None}

    def _text(self, path: str) -> str | None:
        try:
            with self.place(path).open("rb") as file:
                return file.read(MOST_BYTES).decode(errors="replace")
        except OSError:
            return None


class Asked(Protocol):
    """A program that answers a line to each line."""

    def ask(self, line: str, deadline: Deadline) -> str:
        """Raises HostError."""


@dataclass(frozen=True, slots=True)
class RemoteFiles:
    """Of a host on which the probe runs with ``--files``."""

    host: str
    probe: Asked

    def read(self, paths: Sequence[str], deadline: Deadline) -> Mapping[str, str]:
        """See SmallFiles."""
        tried = "read small files"
        said = TEXTS.parse(self.probe.ask(" ".join(paths), deadline), tried, host=self.host)
        texts = {path: said[path] for path in paths if path in said}
        try:
            return {path: _decoded(text) for path, text in texts.items()}
        except ValueError as error:
            raise MalformedError(tried, host=self.host, said=f"no base64: {error}") from error


def _decoded(text: object) -> str:
    if not isinstance(text, str):
        raise ValueError(f"{text!r:.40} is no text")  # noqa: TRY004  as of text that is no base64
    return base64.b64decode(text, validate=True)[:MOST_BYTES].decode(errors="replace")
