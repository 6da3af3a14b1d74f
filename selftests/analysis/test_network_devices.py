"""Network devices of a move: each is told its own differences, and queues that were not read."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migrate.analysis.network_devices import (
    compared_devices,
    join_devices,
    ring_audits,
    states_and_rings,
)
from migrate.model import DeviceHandoff
from migrate.model.recording import (
    DeviceSection,
    DeviceStates,
    HopRecording,
    MoveResult,
    QemuRecording,
    StreamRecording,
)
from selftests.analysis.test_device_state import card, queues

FIRST, SECOND = "/machine/peripheral/net0/virtio-backend", "/machine/peripheral/net1/virtio-backend"
MACS = {FIRST: "52:54:00:00:00:01", SECOND: "52:54:00:00:00:02"}
SECTIONS = {FIRST: "0000:00:05.0/virtio-net", SECOND: "0000:00:02.0/virtio-net"}
"""The second one comes first on the bus, and so in the stream."""


def states(**changes: Any) -> DeviceStates:
    """Two network cards; the changes are of the first one's filter or configuration."""
    return {
        path: card(main_mac=mac, **(changes if path == FIRST else {})) for path, mac in MACS.items()
    }


def hop(
    source: DeviceStates | None,
    target: DeviceStates | None,
    *,
    sections: dict[str, str] | None = None,
    vhost: bool | None = False,
) -> HopRecording:
    named = [(SECTIONS[path], mac) for path, mac in (sections or {}).items()]
    return HopRecording(
        source="a",
        target="b",
        result=MoveResult(outcome="completed", held_by=("b",)),
        begin_ns=0,
        end_ns=1,
        qemu=QemuRecording(source=source, target=target, vhost=vhost, memory={1: b""}),
        stream=StreamRecording(
            sections=tuple(
                DeviceSection(name=name, instance=0, size_bytes=len(name), mac=mac)
                for name, mac in named
            )
        ),
    )


def timed(*paths: str) -> tuple[DeviceHandoff, ...]:
    return tuple(DeviceHandoff(device=SECTIONS[path], save_ms=1.0) for path in paths)


def by_name(of: HopRecording, took: tuple[DeviceHandoff, ...]) -> dict[str, DeviceHandoff]:
    devices, _ = join_devices(of, took, compared_devices(of, ()))
    assert len({device.device for device in devices}) == len(devices)
    return {device.device: device for device in devices}


def test_a_difference_is_told_of_the_device_that_has_it() -> None:
    """By the MAC address, which both QEMU and the stream tell; not by the order of either."""
    moved = hop(states(), states(speed=10), sections=MACS)
    devices = by_name(moved, timed(SECOND, FIRST))
    assert [d.field for d in devices[SECTIONS[FIRST]].differences] == ["config: speed"]
    assert devices[SECTIONS[SECOND]].differences == ()
    assert all(device.compared and device.save_ms == 1.0 for device in devices.values())
    assert devices[SECTIONS[FIRST]].size_bytes == len(SECTIONS[FIRST])


@pytest.mark.parametrize("sections", [None, dict.fromkeys(MACS, MACS[FIRST])])
def test_states_whose_section_is_not_known_stand_apart(sections: Any) -> None:
    moved = hop(states(), states(speed=10), sections=sections)
    devices, apart = join_devices(moved, timed(SECOND, FIRST), compared_devices(moved, ()))
    assert apart
    assert {d.device: len(d.differences) for d in devices} == {
        SECTIONS[FIRST]: 0,
        SECTIONS[SECOND]: 0,
        FIRST: 1,
        SECOND: 0,
    }
    assert [d.compared for d in devices] == [False, False, True, True]


def test_one_device_alone_needs_no_address() -> None:
    one = {FIRST: states()[FIRST]}
    devices = by_name(hop(one, one), timed(FIRST))
    assert list(devices) == [SECTIONS[FIRST]]
    assert devices[SECTIONS[FIRST]].fields_compared


def test_a_device_that_one_end_alone_has_is_a_difference() -> None:
    left = {FIRST: states()[FIRST]}
    for source, target, ends in (
        (states(), left, ("there", "missing")),
        (left, states(), ("missing", "there")),
    ):
        devices = {d.device: d for d in compared_devices(hop(source, target), ())}
        (gone,) = devices[SECOND].differences
        assert ((gone.before, gone.after), gone.lawful) == (ends, False)
        assert devices[FIRST].differences == ()


def test_a_device_of_which_both_ends_told_nothing_in_common_is_not_compared() -> None:
    silent: DeviceStates = {FIRST: {"status": None, "queues": []}}
    (device,) = compared_devices(hop({FIRST: states()[FIRST]}, silent), ())
    assert (device.compared, device.fields_compared) == (False, 0)
    assert device.untold


def test_a_queue_of_which_nothing_was_told_is_one_that_was_not_read() -> None:
    rings = ring_audits(hop({FIRST: queues(0)}, None), 64)
    assert rings is not None
    assert [(ring.queue, ring.unread) for ring in rings] == [(0, True), (1, True), (2, True)]
    assert "not captured" in rings[0].unchecked[0]
    assert rings[2].unchecked == ("not read: QEMU did not report its address",)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 1 << 70) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@settings(max_examples=300)
@given(st.data())
def test_an_answer_that_is_nonsense_is_named_and_no_crash(data: st.DataObject) -> None:
    wrong: DeviceStates = {FIRST: copy.deepcopy(card())}
    place: Any = wrong[FIRST]
    for _ in range(3):
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else [0]))
        if isinstance(place[key], dict) and place[key] and data.draw(st.booleans()):
            place = place[key]
            continue
        place[key] = data.draw(JSON)
        break
    for moved in (hop(wrong, states()), hop(states(), wrong)):
        devices, rings, why = states_and_rings(moved, (), 64)
        assert bool(why) == (not devices and rings is None)
        join_devices(moved, timed(FIRST), devices)
        assert len(why) < 300


def test_a_long_value_is_cut_where_it_differs() -> None:
    many = [f"33:33:00:00:{n // 256:02x}:{n % 256:02x}" for n in range(1000)]
    moved = hop(states(), states(multicast_table=many))
    (difference,) = next(iter(compared_devices(moved, ()))).differences
    assert len(difference.after) < 400
    assert difference.after.endswith("characters more")
