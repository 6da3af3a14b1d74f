"""What the hypervisor reports of its moves, put together with what was sampled meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from migrate.model import Event, Reported, Sample


def with_vfio(reported: Reported, samples: Sequence[Sample], events: Sequence[Event]) -> Reported:
    """``reported``, and how much of a VF's state was sent before and after the guest's stop.

    Both stay None where none of it was seen: of a VF that was unplugged QEMU says 0.
    """
    sent = [(s.at_ns, s.host, s.vfio_bytes) for s in samples if s.vfio_bytes]
    if not sent:
        return reported
    first_ns, source, _ = sent[0]
    stops = sorted(e.at_ns for e in events if (e.name, e.host) == ("STOP", source))
    stop_ns = next((at_ns for at_ns in stops if at_ns >= first_ns), first_ns)
    before = max((size for at_ns, _, size in sent if at_ns < stop_ns), default=0)
    after = max(size for _, _, size in sent) - before
    sizes = {"vfio_precopy_bytes": before, "vfio_stopcopy_bytes": after}
    return reported.model_copy(update=sizes)


def combined(hops: Iterable[Reported]) -> Reported:
    """Of several hops: the longest downtime, and the time of all; None where one is not known."""
    hops = list(hops)
    if len(hops) == 1:
        return hops[0]
    downtimes = [hop.downtime_ms for hop in hops if hop.downtime_ms is not None]
    totals = [hop.total_ms for hop in hops if hop.total_ms is not None]
    return Reported(
        downtime_ms=max(downtimes) if len(downtimes) == len(hops) else None,
        total_ms=sum(totals) if len(totals) == len(hops) else None,
    )
