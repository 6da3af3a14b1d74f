"""What was gathered of an attempt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Arrivals:
    """What one receiver logged, one row a packet in the order of arrival; equal lengths.

    ``sent_ns`` is the sender's stamp by the sender's clock, ``received_ns`` the receiver's kernel
    stamp by the receiver's clock; which clocks these are is said by whoever holds the log.
    Raises ValueError if the columns differ in length or are not one-dimensional.
    """

    seq: Column
    sent_ns: Column
    received_ns: Column

    def __post_init__(self) -> None:
        for name in ("seq", "sent_ns", "received_ns"):
            column = np.asarray(getattr(self, name), dtype=np.int64)
            if column.ndim != 1:
                raise ValueError(f"{name} must have one dimension, not {column.ndim}")
            object.__setattr__(self, name, column)
        if not len(self.seq) == len(self.sent_ns) == len(self.received_ns):
            raise ValueError(
                f"columns differ in length: seq {len(self.seq)}, sent_ns {len(self.sent_ns)}, "
                f"received_ns {len(self.received_ns)}"
            )

    @classmethod
    def empty(cls) -> Arrivals:
        """Nothing arrived."""
        none = np.empty(0, dtype=np.int64)
        return cls(none, none, none)

    def __len__(self) -> int:
        return len(self.seq)

    def select(self, mask: Flags | Column) -> Arrivals:
        """The rows that ``mask`` picks: booleans, or indices in the order wanted."""
        return Arrivals(self.seq[mask], self.sent_ns[mask], self.received_ns[mask])


Column = NDArray[np.int64]


Flags = NDArray[np.bool_]
