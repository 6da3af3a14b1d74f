"""What a receiving probe lost itself, told apart from what the network lost."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from migrate.model.recording import Arrivals, Column, MeterLoss


class LostByMeter(NamedTuple):
    """Numbers that may have arrived, and why they are not on record.

    ``cut_short`` is why nothing is known of what arrived after the last row; empty if it is.
    """

    numbers: Column
    reason: str
    cut_short: str


def losses_of(loss: MeterLoss | None, arrivals: Arrivals, receiver: str) -> LostByMeter:
    """Which numbers ``receiver`` may have lost; rows in the order of arrival.

    A socket counts what it drops as it drops it, so a loss lies between two rows; what is missing
    there may be the network's as well. None: not known, and nothing is taken to be lost so.
    """
    none = np.empty(0, dtype=np.int64)
    if loss is None or not (loss.full or loss.dropped or loss.drops):
        return LostByMeter(none, "", "")
    reason = f"the {receiver}'s probe was too slow, and its socket dropped packets"
    full = f"the log of the {receiver}'s probe was full" if loss.full else ""
    highest = np.maximum.accumulate(arrivals.seq)
    between, counted = dict[tuple[int, int], None](), 0
    for row, count in loss.drops:
        if count > counted and 0 <= row < len(arrivals):
            low = int(highest[row - 1]) if row else -1
            ahead = np.flatnonzero(highest[row:] > low)
            high = int(highest[row + int(ahead[0])]) if len(ahead) else low
            between[low + 1, high] = None  # once, however often a socket dropped there
            counted = count
    further = loss.dropped > counted
    if further:
        last = max((row for row, _ in loss.drops if row <= len(arrivals)), default=0)
        low = int(highest[last - 1]) if last else -1
        between[low + 1, int(highest.max(initial=-1)) + 1] = None
    ranges = [np.arange(begin, end) for begin, end in between]
    numbers = np.unique(np.concatenate([none, *ranges])).astype(np.int64)
    numbers = numbers[~np.isin(numbers, arrivals.seq)]
    return LostByMeter(numbers, reason, full or (reason if further else ""))
