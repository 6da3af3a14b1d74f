"""What QEMU and libvirt say of a migration that goes on: its statuses and its progress.

Sources: qapi/migration.json (MigrationStatus, MigrationInfo) from QEMU 7.2 to 11.1; libvirt's
VIR_DOMAIN_JOB_* statistics (libvirt-domain.h).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from migrate.formats.answers import Count, MalformedError, Part, Shape
from migrate.formats.qapi import MigrationInfo
from migrate.model import Event, PhaseName, Sample

STATUS_PHASES: Mapping[str, PhaseName] = {
    "setup": "setup",
    "wait-unplug": "wait-unplug",
    "active": "precopy",
    "pre-switchover": "pre-switchover",
    "device": "device",
    "postcopy-device": "postcopy-device",
    "postcopy-active": "postcopy",
    "postcopy-paused": "postcopy-paused",
    "postcopy-recover-setup": "postcopy-recover-setup",
    "postcopy-recover": "postcopy-recover",
    "colo": "colo",
    "cancelling": "cancelling",
    "failing": "failing",
}
"""The source's phase by its MigrationStatus, as its MIGRATION event has it; a status that is not
here nor in :data:`_POINTS` is that of a yet newer QEMU."""
POSTCOPY: frozenset[PhaseName] = frozenset(
    {"postcopy", "postcopy-paused", "postcopy-recover-setup", "postcopy-recover"}
)
"""Phases in which the guest is the target's, and memory of it is still on the source."""
INTERRUPTED = ("postcopy-paused", "postcopy-recover-setup", "postcopy-recover")
"""Statuses, of both ends, of a post-copy whose connection is lost, until it is recovered."""
GAVE_UP = ("failed", "cancelled")
"""Statuses after which the guest stays where it was."""
_POINTS = ("none", "completed", *GAVE_UP)
"""Statuses that nothing goes on in."""
SWITCHED = ("pre-switchover", "device", "completed")
"""Statuses of a source that has begun to switch over."""
FINAL = ("completed", "postcopy-active")
"""Of a source that has stopped: it does not run on, unless the target fails yet."""

QUESTION, QEMU_ENDED = "question", "QEMU ended"
"""Events of the controller's: what it asked a QEMU, and that this has ended."""
ORDER, FAULT, FAULT_OVER = "order: ", "fault: ", "fault over: "
"""Events of the controller's, before what it asked libvirt to do, before the name of a fault that
was done, and of one that was put back."""


def status_of(event: Event) -> str:
    """The status in a MIGRATION event; empty if it has none."""
    return str(event.data.get("status", ""))


def unknown_statuses(events: Iterable[Event]) -> tuple[tuple[str, str], ...]:
    """Host and name of each status that is not known here, in the order of their first events."""
    known = ("", *STATUS_PHASES, *_POINTS)
    reported = [event for event in events if (event.source, event.name) == ("qemu", "MIGRATION")]
    unknown = [event for event in reported if status_of(event) not in known]
    return tuple(dict.fromkeys((event.host, status_of(event)) for event in unknown))


def pass_of(event: Event) -> int:
    """The number of the pass over memory that a MIGRATION_PASS event tells; 0 if it has none."""
    number = event.data.get("pass") if event.name == "MIGRATION_PASS" else None
    return number if isinstance(number, int) and number > 0 else 0


def sample_of_query(at_ns: int, host: str, answer: MigrationInfo) -> Sample | None:
    """The answer to query-migrate as a sample; what is absent is None, and so is one of nothing."""
    ram = answer.ram
    if ram is None:
        return None
    return Sample(
        at_ns=at_ns,
        host=host,
        iteration=ram.dirty_sync_count,
        remaining_bytes=ram.remaining,
        transferred_bytes=ram.transferred,
        rate_bytes_s=None if ram.mbps is None else round(ram.mbps * 1e6 / 8),
        dirty_pages_s=ram.dirty_pages_rate,
        throttle_percent=answer.cpu_throttle_percentage,
        postcopy_requests=ram.postcopy_requests,
        zero_pages=ram.duplicate,
        multifd_bytes=ram.multifd_bytes,
        postcopy_blocktime_ms=answer.postcopy_blocktime,
        ring_full_us=answer.dirty_limit_ring_full_time,
        vfio_bytes=None if answer.vfio is None else answer.vfio.transferred,
    )


class JobStatistics(Part):
    """What is read of libvirt's account of a job; absent is None."""

    downtime: Count | None = None
    time_elapsed: Count | None = None
    setup_time: Count | None = None
    data_processed: Count | None = None
    data_remaining: Count | None = None
    memory_iteration: Count | None = None
    memory_bps: Count | None = None
    memory_dirty_rate: Count | None = None
    memory_constant: Count | None = None
    memory_postcopy_requests: Count | None = None
    auto_converge_throttle: Count | None = None


JOB = Shape(JobStatistics)
"""Source: libvirt's VIR_DOMAIN_JOB_* (libvirt-domain.h), as its binding for Python names them."""


def sample_of_job(event: Event) -> Sample | None:
    """libvirt's job statistics, as its event ``job-completed`` carries them; None if it makes no
    sense."""
    try:
        job = JOB.of(event.data, event.name)
    except MalformedError:
        return None
    return Sample(
        at_ns=event.at_ns,
        host=event.host,
        iteration=job.memory_iteration,
        remaining_bytes=job.data_remaining,
        transferred_bytes=job.data_processed,
        rate_bytes_s=job.memory_bps,
        dirty_pages_s=job.memory_dirty_rate,
        throttle_percent=job.auto_converge_throttle,
        postcopy_requests=job.memory_postcopy_requests,
        zero_pages=job.memory_constant,
    )
