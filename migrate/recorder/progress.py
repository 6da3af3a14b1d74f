"""What of a migration's progress is told by libvirt, and what by its samples together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from migrate.clock import now_ns
from migrate.model import Event, Reported, Sample


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
        zero_pages=job.get("memory_constant"),
    )


def with_vfio(reported: Reported, samples: Sequence[Sample], events: Sequence[Event]) -> Reported:
    """``reported``, and how much of a VF's state was sent before and after the guest's stop.

    Both stay None where none of it was seen: of a VF that was unplugged QEMU says 0.
    """
    sent = [(one.at_ns, one.host, one.vfio_bytes) for one in samples if one.vfio_bytes]
    if not sent:
        return reported
    first_ns, source, _ = sent[0]
    stops = [e.at_ns for e in events if (e.name, e.host) == ("STOP", source)]
    stop_ns = next((at_ns for at_ns in stops if at_ns >= first_ns), first_ns)
    before = max((size for at_ns, _, size in sent if at_ns < stop_ns), default=0)
    after = max(size for _, _, size in sent) - before
    sizes = {"vfio_precopy_bytes": before, "vfio_stopcopy_bytes": after}
    return reported.model_copy(update=sizes)
