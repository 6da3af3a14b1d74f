"""How fast a guest dirtied its memory while it was moved, by QEMU's own account of the move."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from itertools import dropwhile

from migrate.model import DirtyRate, Sample

PAGE = 4096
NOT_RECKONED = (
    "QEMU reckons it at the end of a pass a second or more after the last time, "
    "and this move had no such pass"
)


def rate_during(host: str, samples: Iterable[Sample]) -> DirtyRate:
    """By QEMU's own account in the move: the median over the samples from its second pass on.

    It says 0 until it has reckoned a rate for the first time, which is no measurement
    (migration/ram.c, migration_bitmap_sync: at the end of a pass, at most once a second).
    """
    later = (sample.dirty_pages_s for sample in samples if (sample.iteration or 0) >= 2)
    known = (rate for rate in later if rate is not None)
    rates = list(dropwhile(lambda rate: not rate, known))
    if not rates:
        return DirtyRate(when="during", method="migration", host=host, reason=NOT_RECKONED)
    mib_s = statistics.median(rates) * PAGE / 2**20
    return DirtyRate(when="during", method="migration", host=host, mib_s=mib_s)
