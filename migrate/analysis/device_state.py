"""Whether a network device arrived as it left: its state on both ends of a move, field by field.

The states are QEMU's answers to ``x-query-virtio-status`` and ``x-query-virtio-queue-status``
(qapi/virtio.json): the source's when the guest had stopped, the target's before it ran on. Where a
vhost-user backend works the queues, the target's are known by what QEMU sent to the backend.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from migrate.formats.virtio_features import canonical_name, feature_names
from migrate.formats.virtio_net_state import QUEUE_MAX
from migrate.formats.virtqueue import INDICES, Memory, Ring, regions
from migrate.formats.virtqueue_audit import tables
from migrate.model import Difference, Event

_BASE = re.compile(r"vring base idx:(\d{1,5}) last_used_idx:(\d{1,9}) last_avail_idx:(\d{1,9})\b")

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


def comparable_fields(device: Mapping[str, Any], *, vhost: bool = False) -> Fields:
    """The part of a device's state that is compared; what was not obtained is left out.

    ``vhost``: a backend works its queues; QEMU keeps no used index of a packed one then, and
    reports 0.
    """
    state: Fields = {}
    status = device.get("status")
    if status is None:
        state |= _saved(device.get("saved") or {}, device.get("driver") or ())
    else:
        state["status"] = _names(status["status"].get("statuses", ()), "VIRTIO_CONFIG_S_")
        guest = status["guest-features"]
        state["features"] = ", ".join(sorted(_feature_words(guest)))
        state["queues"] = status["num-vqs"]
        state["interrupt status"] = status["isr"]
        state["broken"] = status["broken"]
        if "host-features" in status:
            state |= _offered(status["host-features"], guest)
    state |= _config(device) | _backend(device.get("backend") or {})
    for queue in device.get("queues") or ():
        number = queue["queue-index"]
        known = {key: name for key, name in _OF_QUEUE.items() if key in queue}
        if not _is_idle(queue):
            known.pop("last-avail-idx", None)
        if vhost and _is_packed(state):
            known.pop("used-idx", None)
        state |= {f"queue {number}: {name}": queue[key] for key, name in known.items()}
    return state


def _saved(saved: Mapping[str, Any], driver: Sequence[str]) -> Fields:
    """A device that QEMU says nothing of: as it was sent, else the features that the guest took."""
    if not saved:
        return {"features": ", ".join(sorted(driver))} if driver else {}
    state: Fields = {
        "status": ", ".join(sorted(saved["status"])),
        "features": ", ".join(sorted(saved["features"])),
        "queues": len(saved["queues"]),
        "interrupt status": saved["interrupt_status"],
    }
    # Behind a subsection that is not known there may be more.
    return state if saved["unread"] else {**state, "broken": saved["broken"]}


def _offered(host: Mapping[str, Any], negotiated: Mapping[str, Any]) -> Fields:
    """Offered features, separated by use: of an unused one nobody notices before a reset."""
    offered, used = set(_feature_words(host)), set(_feature_words(negotiated))
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
    """Configuration space (virtio 1.3, 5.1.4) and filters (5.1.6.5.1 to .3), as far as QMP reports
    them: qapi/net.json, RxFilterInfo."""
    config, filters = device.get("config") or {}, device.get("filter") or {}
    state = {f"config: {name}": config[key] for key, name in _CONFIG.items() if key in config}
    if "main-mac" in filters:
        state["config: MAC"] = filters["main-mac"]
    for key, name in _FILTER.items():
        if key in filters:
            value = filters[key]
            state[f"filter: {name}"] = ", ".join(sorted(value)) if key.endswith("table") else value
    return state


def _backend(vhost: Mapping[str, Any]) -> Fields:
    """A vhost backend's fields, as QEMU sees it (qapi/virtio.json, VhostStatus)."""
    state: Fields = {}
    if "features" in vhost:
        state["backend: can"] = ", ".join(sorted(_feature_words(vhost["features"])))
        state["backend: acked"] = ", ".join(sorted(_feature_words(vhost["acked-features"])))
        speaks = vhost["protocol-features"]
        words = _names(speaks.get("protocols", ()), "VHOST_USER_PROTOCOL_F_")
        more = feature_names(speaks.get("unknown-protocols", 0), {})
        state["backend: protocol"] = ", ".join(filter(None, (words, *more)))
        state["backend: virtqueues"] = vhost["nvqs"]
        state["backend: most queues"] = vhost["max-queues"]
        state["backend: memory sections"] = vhost["n-mem-sections"]
    return state


def _is_idle(queue: Mapping[str, Any]) -> bool:
    """No vhost backend works it: else QEMU leaves its own copy of the index out, and the last
    available index it reports is none (hw/virtio/virtio-qmp.c: get_vring_base's return code)."""
    return "shadow-avail-idx" in queue and "last-avail-idx" in queue


def _is_packed(state: Fields) -> bool:
    return "ring_packed" in state.get("features", "").split(", ")


def _names(entries: Any, prefix: str) -> str:
    """``VIRTIO_CONFIG_S_DRIVER_OK: Driver setup and ready`` is ``driver_ok``."""
    words = (str(entry).partition(":")[0].removeprefix(prefix).lower() for entry in entries)
    return ", ".join(sorted(words))


def _feature(entry: Any) -> str:
    """A feature's canonical name: without ``VIRTIO_NET_F_`` and the like."""
    word = str(entry).partition(":")[0]
    return canonical_name(re.sub(r"^VIRTIO_(NET_|RING_)?F_", "", word))


def _feature_words(features: Mapping[str, Any]) -> Iterator[str]:
    """Names of all features in a set; those that QEMU has no word for by number."""
    for entry in (*features.get("transports", ()), *features.get("dev-features", ())):
        yield _feature(entry)
    yield from feature_names(features.get("unknown-dev-features", 0))
    yield from feature_names(features.get("unknown-dev-features2", 0) << 64)


def queues_by_backend_log(events: Iterable[Event], host: str) -> Fields:
    """Queues as a vhost-user backend was given them (SET_VRING_BASE), by its log's last entry."""
    state: Fields = {}
    for event in events:
        match = _BASE.search(str(event.data.get("message", "")))
        if match and event.host == host:
            queue, used, avail = (int(group) for group in match.groups())
            if queue >= QUEUE_MAX:
                continue
            state[f"queue {queue}: last available"] = avail
            state[f"queue {queue}: used"] = used
    return state


# --- the rings ----------------------------------------------------------------------------------

LOW_MIB = 2048
"""So much memory lies in one piece from address 0, on either machine (hw/i386/pc_q35.c, pc_piix.c);
of a guest with more the map is not known here."""
_NO_USED = "used index: QEMU keeps none of a packed ring that a backend works"


@dataclass(frozen=True, slots=True)
class DeviceQueue:
    """A queue of a device, from its state and the captured memory."""

    device: str
    number: int
    ring: Ring
    unchecked: tuple[str, ...] = ()


_NO_STATUS = "not read: which features were negotiated is not known, so neither is its layout"
_NOT_TOLD = "not read: QEMU did not report its address"


def device_queues(
    state: Mapping[str, Any], memory: Memory, memory_mib: int, *, vhost: bool
) -> Iterator[DeviceQueue]:
    """The queues of all devices of a source that has stopped, if the driver set them up."""
    ranges = ((0, memory_mib << 20),) if memory_mib <= LOW_MIB else ()
    for path, device in state.items():
        known = comparable_fields(device)
        for queue in device.get("queues") or ():
            if "features" in known and queue["vring-desc"] and queue["vring-num"] > 0:
                ring = _ring(queue, known, memory, ranges, vhost=vhost)
                blind = (_NO_USED,) if _is_packed(known) and vhost else ()
                yield DeviceQueue(path, int(queue["queue-index"]), ring, blind)


def unread_queues(state: Mapping[str, Any]) -> Iterator[tuple[str, int, str]]:
    """Queues that are there and of which it is not known how to read them: path, number, why."""
    for path, device in state.items():
        known, queues = comparable_fields(device), device.get("queues") or ()
        told = {int(queue["queue-index"]) for queue in queues}
        number = min(known.get("queues", 0), QUEUE_MAX)
        yield from ((path, n, _NOT_TOLD) for n in range(number) if n not in told)
        if "features" not in known:
            yield from ((path, number, _NO_STATUS) for number in sorted(told))


def _ring(
    queue: Mapping[str, Any],
    known: Fields,
    memory: Memory,
    ranges: tuple[tuple[int, int], ...],
    *,
    vhost: bool,
) -> Ring:
    features, packed, idle = known["features"].split(", "), _is_packed(known), _is_idle(queue)
    last = int(queue["last-avail-idx"]) if idle else 0
    return Ring(
        kind="packed" if packed else "split",
        size=int(queue["vring-num"]),
        descriptors=int(queue["vring-desc"]),
        driver=int(queue["vring-avail"]),
        device=int(queue["vring-used"]),
        last_avail=last,
        used=last if packed and vhost else int(queue["used-idx"]),
        shadow_avail=int(queue["shadow-avail-idx"]) if idle and not (packed or vhost) else None,
        in_flight=None if vhost else int(queue["inuse"]),
        event_idx="event_idx" in features,
        indirect="indirect_desc" in features,
        in_order="in_order" in features,
        ordered=not vhost,  # QEMU's own network device returns buffers as they came
        ranges=ranges,
        memory=memory,
        indices_known=idle,
    )


MOST_TABLES = 64
"""Indirect tables that are captured: each takes a command, while the guest stands still."""


def ring_regions(
    state: Mapping[str, Any], memory: Memory, memory_mib: int, *, vhost: bool
) -> tuple[tuple[int, int], ...]:
    """Address and length of guest memory to capture for :func:`device_queues`: the rings, and once
    these are captured, the indirect tables that their buffers lie in. Where the guest's map is not
    known, no table is asked for: what is no memory might be a device, which reading can change."""
    rings = [queue.ring for queue in device_queues(state, memory, memory_mib, vhost=vhost)]
    if not memory:
        return tuple(region for ring in rings for region in regions(ring))
    return tuple(region for ring in rings if ring.ranges for region in tables(ring))[:MOST_TABLES]


# --- what may differ ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AllowedDifference:
    """A difference that is allowed if ``holds`` for the value before, the value after, and the
    queue's size (0 for a field of no queue)."""

    field: str
    holds: Callable[[Any, Any, int], bool]
    why: str


ALLOWED = (
    AllowedDifference(
        "used notified is valid",
        lambda before, after, _size: bool(before) and not after,
        "QEMU forgets it on load: the next used buffer is notified in any case, which virtio 1.3, "
        "2.7.7.2 allows",
    ),
    AllowedDifference(
        "used notified",
        lambda _before, after, _size: after == 0,
        "it means nothing until it is valid again (QEMU, hw/virtio/virtio.c virtio_load)",
    ),
    AllowedDifference(
        "available seen",
        lambda before, after, size: (int(after) - int(before)) % INDICES <= size,
        "the device's copy of what the driver made available, read anew from the guest's memory "
        "(virtio 1.3, 2.7.6)",
    ),
    AllowedDifference(
        "interrupt status",
        lambda before, after, _size: (int(before) & ~int(after)) == 0,
        "the target may raise an interrupt more, to have the guest announce itself (virtio 1.3, "
        "5.1.6.5.4), and takes none back",
    ),
    *(
        AllowedDifference(field, lambda _before, _after, _size: True, why)
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
HERE, MISSING = "there", "missing"
_QUEUE_GONE = "virtio 1.3, 2.7: the driver has set it up, and waits for what lies in it"
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


def one_sided(before: Fields, after: Fields, *, vhost: bool = False) -> tuple[str, ...]:
    """Fields that only one end reported, with which one: they can't be compared. Those of a queue
    that is not there are a difference (see :func:`compare`)."""
    gone = missing_queues(before, after, vhost=vhost)
    one_end = (("source", before, after), ("target", after, before))
    return tuple(
        f"{name} ({end} only)"
        for end, a, b in one_end
        for name in a
        if name not in b and name.partition(":")[0] not in gone
    )


def missing_queues(before: Fields, after: Fields, *, vhost: bool = False) -> tuple[str, ...]:
    """Queues that one end has and the other one has not, by name.

    Only where both ends told what their device is, and of some of its queues: its status is asked
    for last, so whatever was not told of its queues by then is not there. Of a device whose queues
    a backend works (``vhost``), or of a QEMU that the question would end, they are not asked for.
    """
    if vhost or not ("queues" in before and "queues" in after):
        return ()
    ends = [
        dict.fromkeys(name.partition(":")[0] for name in end if name.startswith("queue "))
        for end in (before, after)
    ]
    if not all(ends):
        return ()
    return tuple(name for name in {**ends[0], **ends[1]} if (name in ends[0]) != (name in ends[1]))


_FILTERED = "virtio 1.3, 5.1.6.5: the driver has set it, and does not set it again"


def compare(before: Fields, after: Fields, *, vhost: bool = False) -> tuple[Difference, ...]:
    """Fields that both ends reported and that differ, each with whether that is allowed; and queues
    that one end alone has. ``vhost``: see :func:`missing_queues`."""
    gone = missing_queues(before, after, vhost=vhost)
    queues = [
        Difference(
            field=name,
            before=HERE if f"{name}: size" in before else MISSING,
            after=HERE if f"{name}: size" in after else MISSING,
            lawful=False,
            why=_QUEUE_GONE,
        )
        for name in gone
    ]
    return (*_differences(before, after), *queues)


_MOST_SHOWN = 300


def _shown(value: Any) -> str:
    """A value in so many characters: a filter may list hundreds of addresses."""
    text = str(value)
    more = len(text) - _MOST_SHOWN
    return f"{text[:_MOST_SHOWN]}… and {more} characters more" if more > 0 else text


def _differences(before: Fields, after: Fields) -> Iterator[Difference]:
    for field in before:
        if field not in after or before[field] == after[field]:
            continue
        queue, _, name = field.rpartition(": ")
        size = int(before.get(f"{queue}: size", 0))
        rule = next((rule for rule in ALLOWED if rule.field == name), None)
        allowed = rule is not None and rule.holds(before[field], after[field], size)
        why = (
            rule.why
            if rule is not None and allowed
            else _SECTIONS.get(name, _FILTERED if queue == "filter" else _EQUAL)
        )
        yield Difference(
            field=field,
            before=_shown(before[field]),
            after=_shown(after[field]),
            lawful=allowed,
            why=why,
        )
