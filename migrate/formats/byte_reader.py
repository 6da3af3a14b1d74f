"""Reading big-endian numbers out of bytes that may end anywhere, or be nonsense."""

from __future__ import annotations

import mmap

from migrate.errors import MeasurementError

Bytes = bytes | mmap.mmap


class ByteReader:
    """Reads ``data`` from ``at`` to ``end``; beyond it, a MeasurementError that says where."""

    def __init__(self, data: Bytes, at: int = 0, end: int | None = None) -> None:
        self.data = data
        self.at = at
        self.end = len(data) if end is None else end

    def skip(self, size: int, what: str) -> int:
        """Go over ``size`` bytes; returns where they begin."""
        begin = self.at
        if not 0 <= size <= self.end - begin:
            raise self.damaged(f"{what} of {size} bytes, and {self.end - begin} are left")
        self.at = begin + size
        return begin

    def take(self, size: int, what: str) -> bytes:
        """The next ``size`` bytes."""
        begin = self.skip(size, what)
        return self.data[begin : self.at]

    def number(self, size: int, what: str) -> int:
        """The next ``size`` bytes as an unsigned number."""
        return int.from_bytes(self.take(size, what), "big")

    def name(self, what: str) -> str:
        """A length of one byte, and as many characters."""
        return self.take(self.number(1, what), what).decode("ascii", "replace")

    def damaged(self, said: str) -> MeasurementError:
        """The error to raise for what is wrong at this place."""
        return MeasurementError("read the migration stream", said=f"at byte {self.at}: {said}")
