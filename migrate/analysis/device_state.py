"""Whether a network device arrived as it left: its state on both ends of a move, field by field.

The states are QEMU's answers to ``x-query-virtio-status`` and ``x-query-virtio-queue-status``
(qapi/virtio.json): the source's when the guest had stopped, the target's before it ran on. Where a
vhost-user backend works the queues, the target's are known by what the backend was told of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from migrate.formats.virtio_features import canonical, names
from migrate.formats.virtqueue import INDICES, Memory, Ring, regions, tables
from migrate.model import Difference, Event

_BASE = re.compile(r"vring base idx:(\d+) last_used_idx:(\d+) last_avail_idx:(\d+)")

Fields = dict[str, Any]
"""A device's state by name: ``features``, ``queue 0: size``, …"""

_OF_QUEUE = {
    "vring-num": "size",
    "vring-desc": "descriptors at",
    "vring-avail": "available at",
    "vring-used": "used at",
    "last-avail-idx": "last available",
    "shadow-avail-idx": "available seen",
    "used-idx": "used",
    "signalled-used": "used notified",
    "signalled-used-valid": "used notified is valid",
    "inuse": "in flight",
}


def fields(device: Mapping[str, Any], *, vhost: bool = False) -> Fields:
    """What of a device's state is compared; what was not had is not there.

    ``vhost``: a backend works its queues; QEMU keeps no used index of a packed one then, and tells
    0.
    """
    found: Fields = {}
    status = device.get("status")
    if status is not None:
        found["status"] = _names(status["status"].get("statuses", ()), "VIRTIO_CONFIG_S_")
        told = status["guest-features"]
        words = [*told.get("transports", ()), *told.get("dev-features", ())]
        found["features"] = _features(words)
        found["unknown features"] = told.get("unknown-dev-features", 0)
        found["queues"] = status["num-vqs"]
        found["interrupt status"] = status["isr"]
        found["broken"] = status["broken"]
        if "host-features" in status:
            found |= _offered(status["host-features"], told)
    found |= _config(device) | _backend(device.get("backend") or {})
    for queue in device.get("queues", ()):
        number = queue["queue-index"]
        hop_events = {key: name for key, name in _OF_QUEUE.items() if key in queue}
        if not _is_idle(queue):
            hop_events.pop("last-avail-idx", None)
        if vhost and _is_packed(found):
            hop_events.pop("used-idx", None)
        found |= {f"queue {number}: {name}": queue[key] for key, name in hop_events.items()}
    return found


def _offered(told: Mapping[str, Any], negotiated: Mapping[str, Any]) -> Fields:
    """Apart by whether they are in use: of what is not, nobody will notice before a reset."""
    offered, used = set(_words(told)), set(_words(negotiated))
    return {
        "offered and in use": ", ".join(sorted(offered & used)),
        "offered and unused": ", ".join(sorted(offered - used)),
    }


_CONFIG = {"host_mtu": "MTU", "speed": "speed", "duplex": "duplex"}
_FILTER = {
    "promiscuous": "promiscuous",
    "unicast": "unicast",
    "unicast-table": "unicast addresses",
    "unicast-overflow": "too many unicast addresses",
    "multicast": "multicast",
    "multicast-table": "multicast addresses",
    "multicast-overflow": "too many multicast addresses",
    "broadcast-allowed": "broadcast",
    "vlan": "by VLAN",
    "vlan-table": "VLANs",
}


def _config(device: Mapping[str, Any]) -> Fields:
    """Configuration space (virtio 1.3, 5.1.4) and filters (5.1.6.5.1 to .3), so far as QMP tells
    them: qapi/net.json, RxFilterInfo."""
    told, filters = device.get("config") or {}, device.get("filter") or {}
    found = {f"config: {name}": told[key] for key, name in _CONFIG.items() if key in told}
    if "main-mac" in filters:
        found["config: MAC"] = filters["main-mac"]
    for key, name in _FILTER.items():
        if key in filters:
            value = filters[key]
            found[f"filter: {name}"] = ", ".join(sorted(value)) if key.endswith("table") else value
    return found


def _backend(told: Mapping[str, Any]) -> Fields:
    """Of a vhost backend, as QEMU sees it (qapi/virtio.json, VhostStatus)."""
    found: Fields = {}
    if "features" in told:
        found["backend: can"] = ", ".join(sorted(_words(told["features"])))
        found["backend: acked"] = ", ".join(sorted(_words(told["acked-features"])))
        speaks = told["protocol-features"]
        words = _names(speaks.get("protocols", ()), "VHOST_USER_PROTOCOL_F_")
        more = names(speaks.get("unknown-protocols", 0), {})
        found["backend: protocol"] = ", ".join(filter(None, (words, *more)))
        found["backend: virtqueues"] = told["nvqs"]
        found["backend: most queues"] = told["max-queues"]
        found["backend: memory sections"] = told["n-mem-sections"]
    return found


def _is_idle(queue: Mapping[str, Any]) -> bool:
    """No vhost backend works it: else QEMU leaves its own copy of the index out, and what it tells
    as last available is no index (hw/virtio/virtio-qmp.c: the return code of get_vring_base)."""
    return "shadow-avail-idx" in queue and "last-avail-idx" in queue


def _is_packed(found: Fields) -> bool:
    return "ring_packed" in found.get("features", "").split(", ")


def _names(said: Any, prefix: str) -> str:
    """``VIRTIO_CONFIG_S_DRIVER_OK: Driver setup and ready`` is ``driver_ok``."""
    words = (str(one).partition(":")[0].removeprefix(prefix).lower() for one in said)
    return ", ".join(sorted(words))


def _features(said: Iterable[Any]) -> str:
    return ", ".join(sorted(_feature(one) for one in said))


def _feature(said: Any) -> str:
    """By the name that the whole project uses: without ``VIRTIO_NET_F_`` and the like."""
    word = str(said).partition(":")[0]
    return canonical(re.sub(r"^VIRTIO_(NET_|RING_)?F_", "", word))


def _words(told: Mapping[str, Any]) -> Iterator[str]:
    """All of a set of features; those that QEMU has no word for, too."""
    for one in (*told.get("transports", ()), *told.get("dev-features", ())):
        yield _feature(one)
    yield from names(told.get("unknown-dev-features", 0))


def told_by_backend(events: Iterable[Event], host: str) -> Fields:
    """Queues as a vhost-user backend was given them (SET_VRING_BASE), by its log; the last word."""
    found: Fields = {}
    for event in events:
        told = _BASE.search(str(event.data.get("message", "")))
        if told and event.host == host:
            queue, used, avail = (int(group) for group in told.groups())
            found[f"queue {queue}: last available"] = avail
            found[f"queue {queue}: used"] = used
    return found


# --- the rings ----------------------------------------------------------------------------------

LOW_MIB = 2048
"""So much memory lies in one piece from address 0, on either machine (hw/i386/pc_q35.c, pc_piix.c);
of a guest with more the map is not known here."""
_NO_USED = "used index: QEMU keeps none of a packed ring that a backend works"


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue of a device, as the state and the captured memory tell it."""

    device: str
    number: int
    ring: Ring
    unchecked: tuple[str, ...] = ()


def queues(
    state: Mapping[str, Any], memory: Memory, memory_mib: int, *, vhost: bool
) -> Iterator[Queue]:
    """Of all devices of a source that has stopped; those that its driver set up."""
    ranges = ((0, memory_mib << 20),) if memory_mib <= LOW_MIB else ()
    for path, device in state.items():
        known = fields(device)
        features, packed = known.get("features", "").split(", "), _is_packed(known)
        blind = packed and vhost
        for told in device["queues"]:
            idle = _is_idle(told)
            last = int(told["last-avail-idx"]) if idle else 0
            ring = Ring(
                kind="packed" if packed else "split",
                size=int(told["vring-num"]) if told["vring-desc"] else 0,
                descriptors=int(told["vring-desc"]),
                driver=int(told["vring-avail"]),
                device=int(told["vring-used"]),
                last_avail=last,
                used=last if blind else int(told["used-idx"]),
                shadow_avail=int(told["shadow-avail-idx"])
                if idle and not (packed or vhost)
                else None,
                in_flight=None if vhost else int(told["inuse"]),
                event_idx="event_idx" in features,
                indirect="indirect_desc" in features,
                ranges=ranges,
                memory=memory,
                told=idle,
            )
            if ring.size:
                yield Queue(path, int(told["queue-index"]), ring, (_NO_USED,) if blind else ())


MOST_TABLES = 64
"""Each of them is read by a command of its own, while the guest stands still."""


def ring_regions(
    state: Mapping[str, Any], memory: Memory, memory_mib: int, *, vhost: bool
) -> tuple[tuple[int, int], ...]:
    """What of the guest's memory has to be captured for :func:`queues`: the rings, and when these
    are had, the indirect tables that their buffers lie in. Where the guest's map is not known,
    no table is asked for: what is no memory might be a device, which reading can change."""
    found = [queue.ring for queue in queues(state, memory, memory_mib, vhost=vhost)]
    if not memory:
        return tuple(place for ring in found for place in regions(ring))
    return tuple(place for ring in found if ring.ranges for place in tables(ring))[:MOST_TABLES]


# --- what may differ ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Law:
    """A difference that is lawful if ``holds`` of what was before, what is after, and the size of
    the queue (0 for what is of no queue)."""

    field: str
    holds: Callable[[Any, Any, int], bool]
    why: str


LAWS = (
    Law(
        "used notified is valid",
        lambda before, after, _size: bool(before) and not after,
        "QEMU forgets it on load: the next used buffer is notified in any case, which virtio 1.3, "
        "2.7.7.2 allows",
    ),
    Law(
        "used notified",
        lambda _before, after, _size: after == 0,
        "it means nothing until it is valid again (QEMU, hw/virtio/virtio.c virtio_load)",
    ),
    Law(
        "available seen",
        lambda before, after, size: (int(after) - int(before)) % INDICES <= size,
        "the device's copy of what the driver made available, read anew from the guest's memory "
        "(virtio 1.3, 2.7.6)",
    ),
    Law(
        "interrupt status",
        lambda before, after, _size: (int(before) & ~int(after)) == 0,
        "the target may raise an interrupt more, to have the guest announce itself (virtio 1.3, "
        "5.1.6.5.4), and takes none back",
    ),
    *(
        Law(field, lambda _before, _after, _size: True, why)
        for field, why in (
            (
                "offered and unused",
                "the driver did not take it, and looks again only at a reset (virtio 1.3, 2.2)",
            ),
            ("can", "what the driver took of it is compared on its own (virtio 1.3, 2.2)"),
            ("protocol", "it is between QEMU and its backend (QEMU, docs/interop/vhost-user.rst)"),
            ("most queues", "those in use are compared on their own"),
            ("memory sections", "how QEMU cuts one memory for its backend is its own affair"),
        )
    ),
)
_EQUAL = "it has to arrive as it left: the driver relies on it"
_SECTIONS = {
    "offered and in use": "virtio 1.3, 2.2.2: after a reset the driver may take the same again",
    "acked": "virtio 1.3, 2.2: the backend would not keep to what was negotiated",
    "MAC": "virtio 1.3, 5.1.4: the driver has read it, or set it",
    "MTU": "virtio 1.3, 5.1.4: the driver has read it",
    "features": "virtio 1.3, 2.2: what was negotiated holds until the device is reset",
    "status": "virtio 1.3, 2.1: only the driver sets it, and a reset clears it",
    "last available": "virtio 1.3, 2.7.6: buffers would be lost, or taken twice",
    "used": "virtio 1.3, 2.7.8: buffers would be returned twice, or never",
}


def untold(before: Fields, after: Fields) -> tuple[str, ...]:
    """Fields that one end alone told, with which one: nobody can compare them."""
    one_end = (("source", before, after), ("target", after, before))
    return tuple(f"{name} ({end} only)" for end, a, b in one_end for name in a if name not in b)


_FILTERED = "virtio 1.3, 5.1.6.5: the driver has set it, and does not set it again"


def compare(before: Fields, after: Fields) -> tuple[Difference, ...]:
    """Of the fields that both ends told, those that differ, each judged."""
    return tuple(_differences(before, after))


def _differences(before: Fields, after: Fields) -> Iterator[Difference]:
    for field in before:
        if field not in after or before[field] == after[field]:
            continue
        queue, _, name = field.rpartition(": ")
        size = int(before.get(f"{queue}: size", 0))
        law = next((law for law in LAWS if law.field == name), None)
        lawful = law is not None and law.holds(before[field], after[field], size)
        why = (
            law.why
            if law is not None and lawful
            else _SECTIONS.get(name, _FILTERED if queue == "filter" else _EQUAL)
        )
        yield Difference(
            field=field,
            before=str(before[field]),
            after=str(after[field]),
            lawful=lawful,
            why=why,
        )
