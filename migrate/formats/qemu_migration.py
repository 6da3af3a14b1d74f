"""What QEMU and libvirt say of a migration that goes on: its statuses and its progress.

Sources: qapi/migration.json (MigrationStatus, MigrationInfo) from QEMU 7.2 to 11.1; libvirt's
VIR_DOMAIN_JOB_* statistics (libvirt-domain.h).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

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

QUESTION, QEMU_ENDED, FAULT = "question", "QEMU ended", "fault: "
"""Events of the controller's: what it asked a QEMU, that this has ended, and before its name a
fault of the case."""


def status_of(event: Event) -> str:
    """The status in a MIGRATION event; empty if it has none."""
    return str(event.data.get("status", ""))


def unknown_statuses(events: Iterable[Event]) -> tuple[tuple[str, str], ...]:
    """Host and name of each status that is not known here, in the order of their first events."""
    known = ("", *STATUS_PHASES, *_POINTS)
    reported = [event for event in events if (event.source, event.name) == ("qemu", "MIGRATION")]
    unknown = [event for event in reported if status_of(event) not in known]
    return tuple(dict.fromkeys((event.host, status_of(event)) for event in unknown))


def sample_of_query(at_ns: int, host: str, answer: Mapping[str, Any]) -> Sample:
    """The answer to query-migrate as a sample; what is absent is None."""
    ram = answer["ram"]
    mbps = ram.get("mbps")
    return Sample(
        at_ns=at_ns,
        host=host,
        iteration=ram.get("dirty-sync-count"),
        remaining_bytes=ram.get("remaining"),
        transferred_bytes=ram.get("transferred"),
        rate_bytes_s=None if mbps is None else round(mbps * 1e6 / 8),
        dirty_pages_s=ram.get("dirty-pages-rate"),
        throttle_percent=answer.get("cpu-throttle-percentage"),
        postcopy_requests=ram.get("postcopy-requests"),
        zero_pages=ram.get("duplicate"),
        multifd_bytes=ram.get("multifd-bytes"),
        postcopy_blocktime_ms=answer.get("postcopy-blocktime"),
        ring_full_us=answer.get("dirty-limit-ring-full-time"),
        vfio_bytes=answer.get("vfio", {}).get("transferred"),
    )


def sample_of_job(event: Event) -> Sample:
    """libvirt's job statistics, as its event ``job-completed`` carries them; absent is None."""
    job = event.data
    return Sample(
        at_ns=event.at_ns,
        host=event.host,
        iteration=job.get("memory_iteration"),
        remaining_bytes=job.get("data_remaining"),
        transferred_bytes=job.get("data_processed"),
        rate_bytes_s=job.get("memory_bps"),
        dirty_pages_s=job.get("memory_dirty_rate"),
        throttle_percent=job.get("auto_converge_throttle"),
        postcopy_requests=job.get("memory_postcopy_requests"),
        zero_pages=job.get("memory_constant"),
    )
