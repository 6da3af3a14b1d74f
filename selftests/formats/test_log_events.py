"""What QEMU's and OVS' logs tell, as events; lines that tell nothing, or were cut, make none."""

from __future__ import annotations

import pytest

from migrate.clock import Offset
from migrate.formats.log_events import (
    CHECKPOINT,
    LOADED,
    QUEUE,
    READY,
    SAVED,
    parse_ovs_log,
    parse_qemu_log,
)

BASE = "vring base idx:0 last_used_idx:2445 last_avail_idx:2445."
WALL = Offset("wall", -1_000_000_000 * 10**9, 7)
QEMU = """\
2026-11-25 06:51:01.000+0000: starting up libvirt version: 11.3.0
162@1000000002.065843:vmstate_downtime_checkpoint src-vm-stopped
162@1000000002.154113:vmstate_downtime_save type=iterable idstr=ram instance_id=0 downtime=88122
162@1000000002.155450:vmstate_downtime_load type=non-iterable idstr=0000:00:01.0/virtio-net \
instance_id=1 downtime=309
162@1000000002.155451:vmstate_downtime_load type=non-iter
162@1000000002.1554
162@1000000002.155462:savevm_section_end acpi_build, section_id 56 -> 0
"""
OVS = """\
2001-09-09T01:46:42.500Z|00043|dpdk|INFO|VHOST_CONFIG: (/run/vhu0.sock) read message VHOST_USER_X
2001-09-09T01:46:42.501Z|00054|dpdk|INFO|VHOST_CONFIG: (/run/vhu0.sock) vring base idx:0 \
last_used_idx:2445 last_avail_idx:2445.
2001-09-09T01:46:42.502Z|00070|dpdk|INFO|VHOST_CONFIG: (/run/vhu0.sock) new device status(0xf):
2001-09-09T01:46:42.503Z|00078|dpdk|INFO|VHOST_CONFIG: (/run/vhu0.sock) virtio is now ready for \
processing.
2001-09-09T01:46:42.504Z|00001|netdev_dpdk(ovs_vhost3)|INFO|State of queue 1 ( rx_qid 0 ) of vhost \
device '/run/vhu0.sock' changed to 'enabled'
2001-09-09T01:46:42|cut
"""


def test_qemus_trace_points_are_laid_on_the_axis() -> None:
    found = list(parse_qemu_log(QEMU, "a", WALL))
    assert [event.name for event in found] == [CHECKPOINT, SAVED, LOADED]
    assert found[0].at_ns == 2_065_843_000
    assert found[0].error_ns == 1007  # the clock's, and QEMU's own microsecond
    assert found[0].data == {"checkpoint": "src-vm-stopped"}
    assert found[2].data["idstr"] == "0000:00:01.0/virtio-net"
    assert {event.clock for event in found} == {"a.wall"}


@pytest.mark.parametrize("words", ["", "guest ", "guest qemu-system-x86_64(162:main): "])
def test_trace_points_of_a_newer_qemu_have_a_time_of_day(words: str) -> None:
    log = f"""\
2001-09-09T01:46:42.065843Z {words}vmstate_downtime_checkpoint src-vm-stopped
2001-09-09T01:46:43Z {words}vmstate_downtime_save type=iterable idstr=ram instance_id=0 downtime=8
2001-09-09T01:46:43.5Z {words}info: not a trace point
2001-09-09T01:46:42.065843Z {words}vmstate_downtime_load type=non-iter
"""
    found = list(parse_qemu_log(log, "a", WALL))
    assert [(event.name, event.at_ns) for event in found] == [
        (CHECKPOINT, 2_065_843_000),
        (SAVED, 3_000_000_000),
    ]
    assert found[0].data == {"checkpoint": "src-vm-stopped"}
    assert found[1].data["idstr"] == "ram"


def test_what_the_backend_did_is_laid_on_the_axis_with_its_millisecond() -> None:
    found = list(parse_ovs_log(OVS, "b", WALL))
    assert [(event.name, event.data) for event in found] == [
        ("vhost-user-message", {"message": "VHOST_USER_X"}),
        (
            "vhost-user-message",
            {"message": "vring base idx:0 last_used_idx:2445 last_avail_idx:2445."},
        ),
        (READY, {}),
        (QUEUE, {"queue": "1", "state": "enabled"}),
    ]
    assert found[0].at_ns == 2_500_500_000
    assert found[0].error_ns == 500_007


@pytest.mark.parametrize("text", ["", "\x00\n\n", "1@2:x", "nothing\nof\nuse"])
def test_a_log_that_tells_nothing_makes_no_event(text: str) -> None:
    assert not [*parse_qemu_log(text, "a", WALL), *parse_ovs_log(text, "a", WALL)]
