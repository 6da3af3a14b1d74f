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
    unreadable_trace_point,
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


STAMPS = {
    "82-to-100": "162@1000000002.065843:",
    "101": "2001-09-09T01:46:42.065843Z ",
    "guest": "2001-09-09T01:46:42.065843Z guest ",
    "guest-with-spaces": "2001-09-09T01:46:42.065843Z [a guest, of mine] qemu-system-x86_64: ",
    "thread": "2001-09-09T01:46:42.065843Z guest qemu-system-x86_64(162:main): ",
    "thread-with-space": "2001-09-09T01:46:42.065843Z qemu-system-x86_64(162:CPU 0/TCG): ",
    "zone": "2001-09-09T03:46:42.065843+02:00 ",
    "short-zone": "2001-09-08T22:16:42.065843-0330 guest ",
    "comma": "2001-09-09T01:46:42,065843+00 ",
    "nanoseconds": "2001-09-09T01:46:42.065843000Z ",
    "a-line-of-another-thread-was-begun": "qemu: warning: half 162@1000000002.065843:",
    "another-thread's-stamp-before": "2001-09-09T01:46:40Z 2001-09-09T01:46:42.065843Z ",
}
"""At the same microsecond, in every form that QEMU has written."""


@pytest.mark.parametrize("stamp", STAMPS.values(), ids=STAMPS)
def test_trace_points_are_read_in_every_form(stamp: str) -> None:
    log = f"""\
{stamp}vmstate_downtime_checkpoint src-vm-stopped
{stamp}vmstate_downtime_save type=iterable idstr=ram instance_id=0 downtime=8
{stamp}vmstate_downtime_load type=non-iterable idstr=a device instance_id=-1 downtime=309 more=1\r
{stamp}info: not a trace point
{stamp}vmstate_downtime_load type=non-iter
"""
    found = list(parse_qemu_log(log, "a", WALL))
    assert [(event.name, event.at_ns) for event in found] == [
        (CHECKPOINT, 2_065_843_000),
        (SAVED, 2_065_843_000),
        (LOADED, 2_065_843_000),
    ]
    assert found[0].data == {"checkpoint": "src-vm-stopped"}
    device = {"type": "iterable", "idstr": "ram", "instance_id": "0", "downtime": "8"}
    assert found[1].data == device
    assert found[2].data["idstr"] == "a device"


def test_a_stamp_at_a_whole_second_has_no_fraction() -> None:
    log = "2001-09-09T01:46:43Z guest vmstate_downtime_checkpoint src-vm-stopped\n"
    assert [event.at_ns for event in parse_qemu_log(log, "a", WALL)] == [3_000_000_000]


SECOND = "162@1000000003.000000:vmstate_downtime_checkpoint src-downtime-end\n"


@pytest.mark.parametrize(
    "line",
    [
        "vmstate_downtime_checkpoint src-vm-stopped",
        "Sun Sep  9 01:46:42 2001 vmstate_downtime_checkpoint src-vm-stopped",
        "01:46:42.065843 vmstate_downtime_checkpoint src-vm-stopped",
        "2001-09-09T01:46:42.065843 vmstate_downtime_checkpoint src-vm-stopped",
        "2001-02-31T01:46:42.065843Z vmstate_downtime_checkpoint src-vm-stopped",
        "162@99999999999999999999.065843:vmstate_downtime_checkpoint src-vm-stopped",
        "162@1000000002.065843:vmstate_downtime_checkpoint src-vm-sto162@1000000002.1:x",
        "162@1000000002.065843:vmstate_downtime_save type=iterable idstr=ram instance_id=0 "
        "downtime=88162@1000000002.065843:x",
        "162@1000000002.065843:vmstate_downtime_save type=iterable idstr=ram instance_id=0 "
        "downtime=-5",
        "162@1000000002.065843:vmstate_downtime_save type=iterable idstr=ram instance_id=x "
        "downtime=5",
    ],
)
def test_a_line_that_can_not_be_read_is_left_out_and_told(line: str) -> None:
    log = f"\x00\x0cnoise\n{line}\n{SECOND}"
    assert [event.at_ns for event in parse_qemu_log(log, "a", WALL)] == [3_000_000_000]
    assert unreadable_trace_point(log) == line


def test_the_last_line_counts_only_when_it_is_whole() -> None:
    cut = "162@1000000002.065843:vmstate_downtime_save type=iterable idstr=ram instance_id=0 "
    assert [*parse_qemu_log(f"{SECOND}{cut}downtime=88", "a", WALL)] == [
        *parse_qemu_log(SECOND, "a", WALL)
    ]
    assert unreadable_trace_point(f"{cut}downtime=88") == ""
    assert not [*parse_ovs_log(OVS.rstrip("\n").partition("ER_X")[0], "b", WALL)]


def test_logs_without_trace_points_have_none_that_can_not_be_read() -> None:
    started = "qemu-system-x86_64 -msg timestamp=on -trace 'enable=vmstate_downtime_*'\n"
    assert unreadable_trace_point(f"{started}char device redirected to /dev/pts/0\n") == ""
    assert unreadable_trace_point(SECOND) == ""


def test_an_older_dpdk_does_not_name_the_socket() -> None:
    log = OVS.replace("(/run/vhu0.sock) ", "")
    assert [e.name for e in parse_ovs_log(log, "b", WALL)] == [
        e.name for e in parse_ovs_log(OVS, "b", WALL)
    ]


def test_a_day_that_there_is_not_makes_no_event() -> None:
    assert not [*parse_ovs_log(OVS.replace("2001-09-09", "2001-02-31"), "b", WALL)]


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
def test_a_log_without_known_lines_makes_no_event(text: str) -> None:
    assert not [*parse_qemu_log(text, "a", WALL), *parse_ovs_log(text, "a", WALL)]
