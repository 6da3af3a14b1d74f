"""What a probe may have lost itself, by what it says: a guest's says what it likes."""

from __future__ import annotations

import numpy as np

from migrate.analysis.meter_losses import losses_of
from migrate.model.recording import Arrivals, MeterLoss


def arrived(*numbers: int) -> Arrivals:
    stamps = np.arange(len(numbers), dtype=np.int64)
    return Arrivals(np.array(numbers, dtype=np.int64), stamps, stamps)


def test_drops_at_one_row_are_one_stretch_however_often_it_is_told() -> None:
    """A thousand times four million numbers would be 32 GB."""
    drops = tuple((1, count) for count in range(1, 1001))
    lost = losses_of(MeterLoss(drops=drops, dropped=1000), arrived(0, 4_000_000), "guest")
    assert len(lost.numbers) == 3_999_999
    assert lost.cut_short == ""


def test_drops_at_rows_that_are_not_there_lose_nothing() -> None:
    lost = losses_of(MeterLoss(drops=((7, 1), (2, 5))), arrived(0, 1), "guest")
    assert lost.numbers.tolist() == []
