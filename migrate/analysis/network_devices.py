"""The network devices of one move: whether they arrived as they left, and their rings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from migrate.analysis.device_state import (
    HERE,
    MISSING,
    DeviceQueue,
    comparable_fields,
    compare,
    device_queues,
    one_sided,
    queues_by_backend_log,
    unread_queues,
)
from migrate.analysis.explain import section_name
from migrate.formats.virtio_net_state import VIRTIO_NET
from migrate.formats.virtqueue_audit import audit
from migrate.model import DeviceHandoff, Difference, Event, RingAudit
from migrate.model.recording import HopRecording, QemuRecording

AMBIGUOUS = (
    "which section of the stream is which network device is not known: their states stand apart "
    "from their times"
)
_NONSENSE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
"""What reading an answer raises whose shape is not that of QEMU's."""
_OF_STATE = ("compared", "differences", "untold", "fields_compared")


def states_and_rings(
    hop: HopRecording, events: Sequence[Event], memory_mib: int
) -> tuple[tuple[DeviceHandoff, ...], tuple[RingAudit, ...] | None, str]:
    """How states compare, the audits of the rings, and why an answer of QEMU could not be read."""
    try:
        return tuple(compared_devices(hop, events)), ring_audits(hop, memory_mib), ""
    except _NONSENSE as error:
        why = f"QEMU's answers about its network devices can't be read: {type(error).__name__}"
        return (), None, f"{hop.source}: {why}: {str(error)[:80]}"


def compared_devices(hop: HopRecording, events: Sequence[Event]) -> Iterator[DeviceHandoff]:
    """Network devices by QEMU's path, with what either end told of them."""
    qemu = hop.qemu
    if not qemu.source or qemu.target is None:
        return
    worked = qemu.vhost is not False
    by_backend = queues_by_backend_log(events, hop.target) if qemu.vhost else {}
    for path in {**qemu.source, **qemu.target}:
        if path not in qemu.source or path not in qemu.target:
            yield DeviceHandoff(
                device=path, compared=True, differences=(_gone(path, qemu),), fields_compared=1
            )
            continue
        before = comparable_fields(qemu.source[path], vhost=bool(qemu.vhost))
        after = {**comparable_fields(qemu.target[path]), **by_backend}
        if before or after:
            both = before.keys() & after.keys()
            yield DeviceHandoff(
                device=path,
                compared=bool(both),
                differences=compare(before, after, vhost=worked),
                untold=one_sided(before, after, vhost=worked),
                fields_compared=len(both),
            )


def _gone(path: str, qemu: QemuRecording) -> Difference:
    before, after = (HERE if path in (end or {}) else MISSING for end in (qemu.source, qemu.target))
    why = "both ends have the same devices, or the guest loses one"
    return Difference(field="the device", before=before, after=after, lawful=False, why=why)


def ring_audits(hop: HopRecording, memory_mib: int) -> tuple[RingAudit, ...] | None:
    """As they lay in memory when the source had stopped; None if that was not read."""
    qemu = hop.qemu
    if not qemu.source or not qemu.memory:
        return None
    read = device_queues(qemu.source, qemu.memory, memory_mib, vhost=bool(qemu.vhost))
    unread = (
        RingAudit(device=path, queue=number, kind="split", size=0, unchecked=(why,))
        for path, number, why in unread_queues(qemu.source)
    )
    return (*map(_audited, read), *unread)


def _audited(queue: DeviceQueue) -> RingAudit:
    audited = audit(queue.ring)
    return RingAudit(
        device=queue.device,
        queue=queue.number,
        kind=queue.ring.kind,
        size=queue.ring.size,
        broken=tuple(audited.broken),
        unchecked=(*queue.unchecked, *audited.unchecked),
        facts=audited.facts,
    )


def _sections(hop: HopRecording, took: tuple[DeviceHandoff, ...]) -> dict[str, str]:
    """Network devices' sections in the stream by QEMU's path, as far as it is known which is whose.

    QEMU names a device by its path there, and by its place on the bus here: they are joined by the
    device's MAC address, or because there is one alone.
    """
    filters = {path: device.get("filter") for path, device in (hop.qemu.source or {}).items()}
    macs = {
        path: str(card.get("main-mac", "")) if isinstance(card, dict) else ""
        for path, card in filters.items()
    }
    known = {}
    for path, mac in macs.items():
        sections = [s for s in hop.stream.sections if mac and s.mac == mac]
        if len(sections) == 1 and list(macs.values()).count(mac) == 1:
            known[path] = section_name(sections[0].name, sections[0].instance)
    names = [device.device for device in took if device.device.endswith(f"/{VIRTIO_NET}")]
    paths = {**(hop.qemu.source or {}), **(hop.qemu.target or {})}
    if len(names) == len(paths) == 1:
        known = dict(zip(paths, names, strict=True))
    return known


def join_devices(
    hop: HopRecording, took: tuple[DeviceHandoff, ...], compared: Iterable[DeviceHandoff]
) -> tuple[tuple[DeviceHandoff, ...], bool]:
    """What each device took, how its state compares and how long its section is; and whether there
    are states of which it is not known whose they are: they stand by QEMU's path, apart."""
    sections = _sections(hop, took)
    states = {sections.get(state.device, state.device): state for state in compared}
    sizes = {section_name(s.name, s.instance): s.size_bytes for s in hop.stream.sections}
    joined = []
    for device in took:
        state = states.pop(device.device, None)
        update = {} if state is None else {name: getattr(state, name) for name in _OF_STATE}
        joined.append(device.model_copy(update=update))
    lone = any(d.device.endswith(f"/{VIRTIO_NET}") and d.fields_compared is None for d in joined)
    sized = (d.model_copy(update={"size_bytes": sizes.get(d.device)}) for d in joined)
    apart = tuple(
        state.model_copy(update={"device": name, "size_bytes": sizes.get(name)})
        for name, state in states.items()
    )
    return (*sized, *apart), bool(apart) and lone
