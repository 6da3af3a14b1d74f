"""The network devices of one move: whether they arrived as they left, and their rings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

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
from migrate.analysis.stop_stages import section_name
from migrate.formats.virtio_features import features_of_driver
from migrate.formats.virtio_net_state import VIRTIO_NET
from migrate.formats.virtqueue_audit import audit
from migrate.model import DeviceHandoff, Difference, Event, Nic, RingAudit
from migrate.model.recording import DeviceStates, HopRecording, QemuRecording

Kept = TypeVar("Kept")

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


# --- what QEMU does not say of a source's devices, and others know --------------------------------


def with_supplement(hop: HopRecording, nic: Nic | None) -> HopRecording:
    """The hop with its source's states :func:`supplemented`."""
    qemu = hop.qemu
    if not qemu.source:
        return hop
    source = supplemented(qemu.source, hop.stream.network, nic)
    return hop.model_copy(update={"qemu": qemu.model_copy(update={"source": source})})


def supplemented(
    states: DeviceStates, network: Mapping[str, Mapping[str, Any]], nic: Nic | None
) -> DeviceStates:
    """The states of a source, with what QEMU did not say of a device and others know of it.

    ``network``: what the stream has of such devices (:class:`NetState`), which is what the device's
    state was when the guest had stopped. ``nic``: the guest's interface; the features that its
    driver has taken hold until a reset. Both are joined by the interface's MAC, or if QEMU did not
    say that either, where there is one device alone.
    """
    return {
        path: {
            **device,
            "saved": _same_mac(device, {str(one["mac"]): one for one in network.values()}, alone),
            "driver": _same_mac(device, _driver(nic), alone),
        }
        for alone in (len(states) == 1,)
        for path, device in states.items()
    }


def _driver(nic: Nic | None) -> Mapping[str, tuple[str, ...]]:
    return {nic.mac: features_of_driver(nic.features)} if nic and nic.features else {}


def _same_mac(device: Mapping[str, Any], by_mac: Mapping[str, Kept], alone: bool) -> Kept | None:
    mac = (device.get("filter") or {}).get("main-mac")
    if mac is None and alone and len(by_mac) == 1:
        return next(iter(by_mac.values()))
    return by_mac.get(str(mac))
