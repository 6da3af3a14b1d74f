"""Samples of a migration's progress, taken from libvirt while it goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from migrate.clock import now_ns
from migrate.libvirt_client import Domain
from migrate.model import Sample

INTERVAL_S = 0.05
PATIENCE_S = 2.0


def to_sample(host: str, job: dict[str, Any]) -> Sample:
    """libvirt's job statistics (VIR_DOMAIN_JOB_*) as a sample; what is absent is None."""
    return Sample(
        at_ns=now_ns(),
        host=host,
        iteration=job.get("memory_iteration"),
        remaining_bytes=job.get("data_remaining"),
        transferred_bytes=job.get("data_processed"),
        rate_bytes_s=job.get("memory_bps"),
        dirty_pages_s=job.get("memory_dirty_rate"),
        throttle_percent=job.get("auto_converge_throttle"),
        postcopy_requests=job.get("memory_postcopy_requests"),
    )


@contextmanager
def sampling(domain: Domain, on_sample: Callable[[Sample], None]) -> Iterator[list[Sample]]:
    """Sample ``domain``'s job in a thread while the block runs; the list grows meanwhile."""
    samples: list[Sample] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(INTERVAL_S):
            job = domain.job()
            if job:
                samples.append(to_sample(domain.host, job))
                on_sample(samples[-1])

    thread = threading.Thread(target=look, name="progress", daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        # libvirt asks QEMU, and one that hangs answers when it has been ended, which comes later.
        thread.join(PATIENCE_S)
