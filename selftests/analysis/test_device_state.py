"""Which differences between a device's two ends are lawful, and which are named as wrong."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from migrate.analysis.device_state import (
    comparable_fields,
    compare,
    device_queues,
    one_sided,
    queues_by_backend_log,
    ring_regions,
    unread_queues,
)
from migrate.analysis.network_devices import supplemented
from migrate.formats.virtqueue import regions
from migrate.formats.virtqueue_audit import audit
from migrate.model import Event, Nic

QUEUE = {
    "queue-index": 0,
    "vring-num": 256,
    "vring-desc": 4096,
    "vring-avail": 8192,
    "vring-used": 12288,
    "last-avail-idx": 65530,
    "shadow-avail-idx": 65534,
    "used-idx": 65530,
    "signalled-used": 65530,
    "signalled-used-valid": True,
    "inuse": 0,
}
STATUS: dict[str, Any] = {
    "status": {"statuses": ["VIRTIO_CONFIG_S_DRIVER_OK: ready", "VIRTIO_CONFIG_S_DRIVER: ok"]},
    "guest-features": {
        "transports": ["VIRTIO_F_VERSION_1: v1", "VIRTIO_RING_F_EVENT_IDX: events"],
        "dev-features": ["VIRTIO_NET_F_MAC: a MAC"],
    },
    "num-vqs": 3,
    "isr": 1,
    "broken": False,
}


FILTER: dict[str, Any] = {
    "name": "net0",
    "main-mac": "52:54:00:00:00:01",
    "promiscuous": False,
    "unicast": "normal",
    "unicast-table": [],
    "unicast-overflow": False,
    "multicast": "normal",
    "multicast-table": ["33:33:00:00:00:01", "01:00:5e:00:00:01"],
    "multicast-overflow": False,
    "broadcast-allowed": False,
    "vlan": "normal",
    "vlan-table": ["2-4"],
}
CONFIG = {"host_mtu": 1400, "speed": -1, "duplex": ""}
BACKEND: dict[str, Any] = {
    "features": {"transports": ["VIRTIO_F_VERSION_1: v1"], "dev-features": []},
    "acked-features": {"transports": ["VIRTIO_F_VERSION_1: v1"], "dev-features": []},
    "protocol-features": {"protocols": ["VHOST_USER_PROTOCOL_F_MQ: x"], "unknown-protocols": 4},
    "nvqs": 2,
    "max-queues": 128,
    "n-mem-sections": 1,
}


def device(queue: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    status = {name.replace("_", "-"): value for name, value in more.items()}
    return {"status": {**STATUS, **status}, "queues": [{**QUEUE, **(queue or {})}]}


def card(**more: Any) -> dict[str, Any]:
    """One that has all of it; ``more``: of its filter, its configuration or its backend."""
    told = {name.replace("_", "-"): value for name, value in more.items()}
    filters, backend = ({**old, **{k: v for k, v in told.items() if k in old}}
                        for old in (FILTER, BACKEND))  # fmt: skip
    config = {**CONFIG, **{k: v for k, v in more.items() if k in CONFIG}}
    return {**device(), "filter": filters, "config": config, "backend": backend}


def test_a_device_state_uses_the_names_of_the_specification() -> None:
    found = comparable_fields(device())
    assert found["status"] == "driver, driver_ok"
    assert found["features"] == "event_idx, mac, version_1"
    assert found["queue 0: last available"] == 65530


def test_what_arrived_as_it_left_differs_in_nothing() -> None:
    assert compare(comparable_fields(device()), comparable_fields(device())) == ()


def test_what_one_end_did_not_tell_is_named_and_not_compared() -> None:
    before, after = (
        comparable_fields(device()),
        comparable_fields({"status": None, "queues": [], "config": CONFIG}),
    )
    assert compare(before, after) == ()
    told = one_sided(before, after)
    assert "queue 0: size (source only)" in told
    assert told[-1] == "config: duplex (target only)"
    assert one_sided(before, before) == ()
    assert comparable_fields({"status": None}) == {}


def test_a_feature_is_the_same_by_its_word_and_by_its_number() -> None:
    """One that a QEMU has no word for yet: 7.2 knows ring_reset as 1 << 40 only."""
    iommu = "VIRTIO_F_IOMMU_PLATFORM: x"
    old = device(guest_features={"transports": [iommu], "unknown-dev-features": 1 << 40})
    new = device(guest_features={"transports": [iommu, "VIRTIO_F_RING_RESET: x"]})
    assert compare(comparable_fields(old), comparable_fields(new)) == ()
    assert comparable_fields(new)["features"] == "access_platform, ring_reset"
    more = device(guest_features={"transports": [], "unknown-dev-features2": 2})
    assert comparable_fields(more)["features"] == "guest_udp_tunnel_gso"


# --- what QEMU does not say of a device, and others know ------------------------------------------

MAC = str(FILTER["main-mac"])
SAVED: dict[str, Any] = {
    "mac": MAC,
    "status": ["driver", "driver_ok"],
    "interrupt_status": 1,
    "features": ["mac", "event_idx", "version_1"],
    "queues": [{}, {}, {}],
    "broken": False,
    "unread": "",
}
BITS = "".join("1" if bit in (5, 34) else "0" for bit in range(64))
NIC = Nic(name="eth0", driver="virtio_net", mac=MAC, mtu=1500, carrier=True, features=BITS)


def unasked(**more: Any) -> dict[str, Any]:
    """A device whose status QEMU was not asked for."""
    return {**card(), "status": None, **more}


def test_the_stream_tells_of_a_device_what_qemu_may_not_be_asked_for() -> None:
    """QEMU 11.1.3 on the source, an older one on the target: nothing is left uncompared."""
    known = supplemented({"/net0": unasked()}, {"0000:00:02.0/virtio-net": SAVED}, NIC)
    before, after = comparable_fields(known["/net0"]), comparable_fields(card())
    assert compare(before, after) == ()
    assert one_sided(before, after) == ()
    (found,) = compare(before, comparable_fields({**card(), **device(isr=0)}))
    assert (found.field, found.lawful) == ("interrupt status", False)


def test_what_qemu_says_itself_comes_first() -> None:
    stream = {"x": {**SAVED, "features": ["rss"]}}
    known = supplemented({"/net0": card()}, stream, NIC)
    assert comparable_fields(known["/net0"]) == comparable_fields(card())


def test_of_a_stream_that_was_not_read_to_its_end_nothing_is_said_that_may_follow() -> None:
    stream = {"x": {**SAVED, "unread": "subsection 'virtio/x' is not known"}}
    known = supplemented({"/net0": unasked()}, stream, None)["/net0"]
    assert "broken" not in comparable_fields(known)


def test_devices_are_joined_by_their_mac_and_not_by_their_order() -> None:
    other = {**SAVED, "mac": "52:54:00:00:00:02", "features": ["rss"]}
    second = unasked(filter={**FILTER, "main-mac": other["mac"]})
    states = {"/net0": second, "/net1": unasked(), "/net2": unasked(filter=None)}
    known = supplemented(states, {"first": SAVED, "second": other}, NIC)
    features = [comparable_fields(one).get("features") for one in known.values()]
    assert features == ["rss", "event_idx, mac, version_1", None]


def test_without_a_stream_the_guests_driver_tells_the_features_it_took() -> None:
    """It tells what kind its rings are of: they are read on a QEMU that is asked no status."""
    states = {"/net0": unasked(filter=None, config={}, backend=None)}
    known = supplemented(states, {}, NIC)
    assert comparable_fields(known["/net0"])["features"] == "mac, ring_packed"
    (queue,) = device_queues(known, {}, 256, vhost=False)
    assert queue.ring.kind == "packed"
    assert not [*device_queues(supplemented(states, {}, None), {}, 256, vhost=False)]


@pytest.mark.parametrize(
    ("after", "field"),
    [
        (device({"signalled-used-valid": False}), "queue 0: used notified is valid"),
        (device({"signalled-used": 0}), "queue 0: used notified"),
        (device({"shadow-avail-idx": 3}), "queue 0: available seen"),  # wrapped, 5 ahead
        (device(isr=3), "interrupt status"),
    ],
)
def test_allowed_differences_have_their_reason(after: dict[str, Any], field: str) -> None:
    (found,) = compare(comparable_fields(device()), comparable_fields(after))
    assert (found.field, found.lawful) == (field, True)
    assert "virtio" in found.why


@pytest.mark.parametrize(
    ("after", "field"),
    [
        (device({"last-avail-idx": 65529}), "queue 0: last available"),
        (device({"used-idx": 0}), "queue 0: used"),
        (device({"vring-num": 128}), "queue 0: size"),
        (device({"vring-desc": 0}), "queue 0: descriptors at"),
        (device({"vring-avail": 0}), "queue 0: available at"),
        (device({"vring-used": 0}), "queue 0: used at"),
        (device({"inuse": 2}), "queue 0: in flight"),
        (device({"shadow-avail-idx": 65533}), "queue 0: available seen"),  # behind
        (device({"shadow-avail-idx": 300}), "queue 0: available seen"),  # beyond the queue
        (device({"signalled-used": 7}), "queue 0: used notified"),
        (device(isr=2), "interrupt status"),
        (device(broken=True), "broken"),
        (device(num_vqs=5), "queues"),
        (device(status={"statuses": []}), "status"),
        (device(guest_features={"unknown-dev-features": 0}), "features"),
        (device(guest_features={**STATUS["guest-features"], "unknown-dev-features": 4}),
         "features"),
    ],
)  # fmt: skip
def test_a_difference_that_is_not_allowed_shows_both_sides(
    after: dict[str, Any], field: str
) -> None:
    (found,) = compare(comparable_fields(device()), comparable_fields(after))
    assert (found.field, found.lawful) == (field, False)
    assert found.before != found.after


def test_a_device_state_has_configuration_filters_and_backend() -> None:
    found = comparable_fields(card())
    assert (found["config: MAC"], found["config: MTU"]) == ("52:54:00:00:00:01", 1400)
    assert found["filter: multicast addresses"] == "01:00:5e:00:00:01, 33:33:00:00:00:01"
    assert (found["filter: VLANs"], found["filter: promiscuous"]) == ("2-4", False)
    assert (found["backend: acked"], found["backend: protocol"]) == ("version_1", "mq, bit 2")
    assert compare(found, comparable_fields(card())) == ()
    again = list(reversed(FILTER["multicast-table"]))
    assert compare(found, comparable_fields(card(multicast_table=again))) == ()  # in any order


@pytest.mark.parametrize(
    ("more", "field", "lawful"),
    [
        ({"main_mac": "52:54:00:00:00:02"}, "config: MAC", False),
        ({"host_mtu": 0}, "config: MTU", False),
        ({"speed": 10}, "config: speed", False),
        ({"promiscuous": True}, "filter: promiscuous", False),
        ({"multicast_table": []}, "filter: multicast addresses", False),
        ({"unicast_table": ["02:00:00:00:00:01"]}, "filter: unicast addresses", False),
        ({"broadcast_allowed": True}, "filter: broadcast", False),
        ({"vlan_table": []}, "filter: VLANs", False),
        ({"acked_features": {}}, "backend: acked", False),
        ({"nvqs": 4}, "backend: virtqueues", False),
        ({"features": {}}, "backend: can", True),
        ({"protocol_features": {}}, "backend: protocol", True),
        ({"max_queues": 1}, "backend: most queues", True),
        ({"n_mem_sections": 2}, "backend: memory sections", True),
    ],
)
def test_a_card_differs(more: dict[str, Any], field: str, lawful: bool) -> None:
    (found,) = compare(comparable_fields(card()), comparable_fields(card(**more)))
    assert (found.field, found.lawful) == (field, lawful)
    if field.startswith("filter"):
        assert "5.1.6.5" in found.why


OFFERED = {"transports": STATUS["guest-features"]["transports"],
           "dev-features": ["VIRTIO_NET_F_MAC: a MAC", "VIRTIO_NET_F_MTU: an MTU"]}  # fmt: skip


@pytest.mark.parametrize(
    ("after", "field", "lawful"),
    [
        ({**OFFERED, "unknown-dev-features": 1 << 60}, "offered and unused", True),  # more of it
        ({**OFFERED, "dev-features": ["VIRTIO_NET_F_MAC: x"]}, "offered and unused", True),
        ({**OFFERED, "transports": ["VIRTIO_F_VERSION_1: v1"]}, "offered and in use", False),
    ],
)
def test_what_a_device_offers_may_differ_where_nobody_uses_it(
    after: dict[str, Any], field: str, lawful: bool
) -> None:
    before = comparable_fields(device(host_features=OFFERED))
    (found,) = compare(before, comparable_fields(device(host_features=after)))
    assert (found.field, found.lawful) == (field, lawful)


def test_a_second_round_reads_the_tables_that_waiting_buffers_lie_in() -> None:
    """Descriptor 0 waits, in an indirect table of two; nothing is asked for where it is no RAM."""
    told = {"transports": ["VIRTIO_RING_F_INDIRECT_DESC: x"]}
    place = {"vring-num": 4, "last-avail-idx": 0, "shadow-avail-idx": 0, "used-idx": 0}
    state = {"nic": device(place, guest_features=told)}
    first = dict(ring_regions(state, {}, 64, vhost=False))
    memory = {address: bytes(length) for address, length in first.items()}
    memory[4096] = struct.pack("<QIHH", 0x9000, 32, 4, 0) + bytes(48)
    memory[8192] = struct.pack("<2H", 0, 1) + bytes(first[8192] - 4)
    assert ring_regions(state, memory, 64, vhost=False) == ((0x9000, 32),)
    assert ring_regions(state, memory, 4096, vhost=False) == ()
    for end, rule in ((1 << 20, []), (1 << 40, ["memory"])):
        table = struct.pack("<QIHH", end, 8, 1, 1) + bytes(16)
        read = {**memory, 0x9000: table}
        assert ring_regions(state, read, 64, vhost=False) == ()
        (queue,) = device_queues(state, read, 64, vhost=False)
        found = audit(queue.ring)
        assert [text.partition(":")[0] for text in found.broken] == rule
        assert (found.facts["indirect tables"], found.unchecked) == ("1", [])


@pytest.mark.parametrize("vhost", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_a_state_tells_its_queues_and_where_they_lie(packed: bool, vhost: bool) -> None:
    features = {"transports": ["VIRTIO_F_RING_PACKED: x"] if packed else ["VIRTIO_F_VERSION_1: x"]}
    state = {"nic": device({"last-avail-idx": 3, "used-idx": 2}, guest_features=features)}
    state["nic"]["queues"].append({**QUEUE, "queue-index": 1, "vring-desc": 0})  # not set up
    (found,) = device_queues(state, {}, 64, vhost=vhost)
    assert (found.number, found.ring.size, found.ring.ranges) == (0, 256, ((0, 64 << 20),))
    assert found.ring.kind == ("packed" if packed else "split")
    assert (found.ring.used, bool(found.unchecked)) == (
        (3, True) if packed and vhost else (2, False)
    )
    assert ring_regions(state, {}, 64, vhost=vhost) == regions(found.ring)
    (large,) = device_queues(state, {}, 4096, vhost=vhost)
    assert large.ring.ranges == ()


@pytest.mark.parametrize(
    "left_out", [("shadow-avail-idx",), ("shadow-avail-idx", "last-avail-idx")]
)
def test_what_qemu_tells_while_a_backend_works_a_queue_is_no_index(left_out: list[str]) -> None:
    told = {key: value for key, value in QUEUE.items() if key not in left_out}
    busy = {"status": STATUS, "queues": [told]}
    assert "queue 0: last available" not in comparable_fields(busy)
    assert comparable_fields(busy)["queue 0: size"] == 256
    (found,) = device_queues({"nic": busy}, {}, 64, vhost=True)
    assert audit(found.ring).unchecked == ["the device's indices: a backend still worked the queue"]


def test_a_backend_tells_the_queues_that_it_was_given() -> None:
    def said(host: str, used: int) -> Event:
        message = f"vring base idx:1 last_used_idx:{used} last_avail_idx:9."
        data = {"message": message}
        return Event(at_ns=1, source="backend", host=host, name="m", data=data)

    other = said("b", 5).model_copy(update={"data": {"message": "VHOST_USER_SET_VRING_BASE"}})
    data = {"message": "vring base idx:70000 last_used_idx:1 last_avail_idx:1."}
    beyond = other.model_copy(update={"data": data})
    long = other.model_copy(
        update={
            "data": {"message": f"vring base idx:1 last_used_idx:{'9' * 5000} last_avail_idx:1"}
        }
    )
    told = [said("a", 1), said("b", 2), said("b", 8), other, beyond, long]
    found = queues_by_backend_log(told, "b")
    assert found == {"queue 1: last available": 9, "queue 1: used": 8}


def queues(*numbers: int, **status: Any) -> dict[str, Any]:
    told = [{**QUEUE, "queue-index": number} for number in numbers]
    return {**device(**status), "queues": told}


def test_a_queue_that_is_missing_on_the_target_is_a_difference() -> None:
    before, after = (comparable_fields(queues(*numbers)) for numbers in ((0, 1, 2), (0, 1)))
    (gone,) = compare(before, after)
    assert (gone.field, gone.before, gone.after) == ("queue 2", "there", "missing")
    assert not gone.lawful
    assert one_sided(before, after) == ()
    (more,) = compare(after, before)
    assert (more.before, more.after) == ("missing", "there")


def test_a_queue_that_was_not_asked_about_or_told_in_time_is_not_compared() -> None:
    before, after = comparable_fields(queues(0, 1)), comparable_fields(queues(0))
    assert compare(before, after, vhost=True) == ()
    assert "queue 1: size (source only)" in one_sided(before, after, vhost=True)
    not_asked = comparable_fields(queues())
    assert compare(before, not_asked) == ()
    assert "queue 0: size (source only)" in one_sided(before, not_asked)
    late = comparable_fields({**queues(0), "status": None})  # the status is asked for last
    assert compare(before, late) == ()
    assert "queue 1: size (source only)" in one_sided(before, late)


def test_queues_that_qemu_did_not_tell_of_are_not_read() -> None:
    known = [(path, number) for path, number, _ in unread_queues({"nic": queues(0)})]
    assert known == [("nic", 1), ("nic", 2)]
    ((_, number, why),) = unread_queues({"nic": {**queues(4), "status": None}})
    assert (number, "features were negotiated is not known" in why) == (4, True)
    assert list(device_queues({"nic": {**queues(4), "status": None}}, {}, 64, vhost=False)) == []


def test_in_order_is_read_from_the_features() -> None:
    features = {"transports": ["VIRTIO_F_IN_ORDER: x"]}
    (queue,) = device_queues({"nic": device(guest_features=features)}, {}, 64, vhost=False)
    assert (queue.ring.in_order, queue.ring.ordered) == (True, True)
    (queue,) = device_queues({"nic": device()}, {}, 64, vhost=True)
    assert (queue.ring.in_order, queue.ring.ordered) == (False, False)
