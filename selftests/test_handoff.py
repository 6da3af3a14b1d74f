"""Which differences between a device's two ends are lawful, and which are named as wrong."""

from __future__ import annotations

from typing import Any

import pytest

from migrate.handoff import compare, fields, queues, ring_regions, told_by_backend
from migrate.model import Event
from migrate.virtqueue import audit, regions

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


def device(queue: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    status = {name.replace("_", "-"): value for name, value in more.items()}
    return {"status": {**STATUS, **status}, "queues": [{**QUEUE, **(queue or {})}]}


def test_the_state_is_told_by_the_names_of_the_specification() -> None:
    found = fields(device())
    assert found["status"] == "driver, driver_ok"
    assert found["features"] == "event_idx, mac, version_1"
    assert found["queue 0: last available"] == 65530


def test_what_arrived_as_it_left_differs_in_nothing() -> None:
    assert compare(fields(device()), fields(device())) == ()


def test_what_one_end_did_not_tell_is_not_compared() -> None:
    assert compare(fields(device()), fields({"status": None, "queues": []})) == ()
    assert fields({"status": None}) == {}


@pytest.mark.parametrize(
    ("after", "field"),
    [
        (device({"signalled-used-valid": False}), "queue 0: used notified is valid"),
        (device({"signalled-used": 0}), "queue 0: used notified"),
        (device({"shadow-avail-idx": 3}), "queue 0: available seen"),  # wrapped, 5 ahead
        (device(isr=3), "interrupt status"),
    ],
)
def test_lawful_differences_are_named_with_their_reason(after: dict[str, Any], field: str) -> None:
    (found,) = compare(fields(device()), fields(after))
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
         "unknown features"),
    ],
)  # fmt: skip
def test_unlawful_differences_have_both_sides(after: dict[str, Any], field: str) -> None:
    (found,) = compare(fields(device()), fields(after))
    assert (found.field, found.lawful) == (field, False)
    assert found.before != found.after


@pytest.mark.parametrize("vhost", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_a_state_tells_its_queues_and_where_they_lie(packed: bool, vhost: bool) -> None:
    features = {"transports": ["VIRTIO_F_RING_PACKED: x"] if packed else ["VIRTIO_F_VERSION_1: x"]}
    state = {"nic": device({"last-avail-idx": 3, "used-idx": 2}, guest_features=features)}
    state["nic"]["queues"].append({**QUEUE, "queue-index": 1, "vring-desc": 0})  # not set up
    (found,) = queues(state, {}, 64, vhost=vhost)
    assert (found.number, found.ring.size, found.ring.ranges) == (0, 256, ((0, 64 << 20),))
    assert found.ring.kind == ("packed" if packed else "split")
    assert (found.ring.used, bool(found.unchecked)) == (
        (3, True) if packed and vhost else (2, False)
    )
    assert ring_regions(state) == regions(found.ring)
    (large,) = queues(state, {}, 4096, vhost=vhost)
    assert large.ring.ranges == ()


@pytest.mark.parametrize(
    "left_out", [("shadow-avail-idx",), ("shadow-avail-idx", "last-avail-idx")]
)
def test_what_qemu_tells_while_a_backend_works_a_queue_is_no_index(left_out: list[str]) -> None:
    told = {key: value for key, value in QUEUE.items() if key not in left_out}
    busy = {"status": STATUS, "queues": [told]}
    assert "queue 0: last available" not in fields(busy)
    assert fields(busy)["queue 0: size"] == 256
    (found,) = queues({"nic": busy}, {}, 64, vhost=True)
    assert audit(found.ring).unchecked == ["the device's indices: a backend still worked the queue"]


def test_a_backend_tells_the_queues_that_it_was_given() -> None:
    def said(host: str, used: int) -> Event:
        message = f"vring base idx:1 last_used_idx:{used} last_avail_idx:9."
        data = {"message": message}
        return Event(at_ns=1, source="backend", host=host, name="m", data=data)

    other = said("b", 5).model_copy(update={"data": {"message": "VHOST_USER_SET_VRING_BASE"}})
    found = told_by_backend([said("a", 1), said("b", 2), said("b", 8), other], "b")
    assert found == {"queue 1: last available": 9, "queue 1: used": 8}
