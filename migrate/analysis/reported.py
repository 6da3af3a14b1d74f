"""What the hypervisor reports of its moves, put together with what was sampled meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from migrate.model import Event, ReportedFigures, Sample


def with_vfio(
    reported: ReportedFigures, samples: Sequence[Sample], events: Sequence[Event]
) -> ReportedFigures:
    """``reported``, and how much of a VF's state was sent before and after the guest's stop.

    Both stay None where none of it was seen (of a VF that was unplugged QEMU says 0), and where no
    stop is on record after the first look at this move: nobody knows then what was sent before it.
    """
    looks = [(s.at_ns, s.host, s.vfio_bytes) for s in samples if s.vfio_bytes is not None]
    if not any(size for _, _, size in looks):
        return reported
    first_ns, source, _ = looks[0]
    stops = [e.at_ns for e in events if (e.name, e.host) == ("STOP", source)]
    stop_ns = min((at_ns for at_ns in stops if at_ns >= first_ns), default=None)
    if stop_ns is None:
        return reported
    before = max(size for at_ns, _, size in looks if at_ns <= stop_ns)
    after = max(size for _, _, size in looks) - before
    sizes = {"vfio_precopy_bytes": before, "vfio_stopcopy_bytes": after}
    return reported.model_copy(update=sizes)


def combined(hops: Iterable[ReportedFigures]) -> ReportedFigures:
    """Of several hops: the longest downtime, and the time of all; None where one is not known."""
    hops = list(hops)
    if len(hops) == 1:
        return hops[0]
    downtimes = [hop.downtime_ms for hop in hops if hop.downtime_ms is not None]
    totals = [hop.total_ms for hop in hops if hop.total_ms is not None]
    return ReportedFigures(
        downtime_ms=max(downtimes) if len(downtimes) == len(hops) else None,
        total_ms=sum(totals) if len(totals) == len(hops) else None,
    )
