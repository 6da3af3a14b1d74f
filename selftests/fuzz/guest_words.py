"""Text that a guest writes, or has others write: its console, and its QEMU's log."""

from __future__ import annotations

import logging
from xml.etree import ElementTree as ET

from migrate import log
from migrate.clock import Offset
from migrate.errors import GuestError, visible
from migrate.formats.log_events import parse_qemu_log
from migrate.formats.qemu_end import qemu_end
from migrate.migration.silence import console_end
from migrate.model import AttemptError, Problem
from migrate.report.junit import junit
from selftests.doubles import synthetic
from selftests.fuzz.lane import Lane

CONSOLE = b"""[    0.000000] Linux version 6.12.107+deb13-amd64 (debian-kernel@lists.debian.org)
[    2.104311] virtio_net virtio0 eth0: renamed from net0
migrate-lab: init reached
\x1b[31m[    9.123456] BUG: kernel NULL pointer dereference, address: 0000000000000008\x1b[0m
[    9.200000] Kernel panic - not syncing: Fatal exception in interrupt
[    9.300000] ---[ end Kernel panic - not syncing: Fatal exception in interrupt ]---
"""
QEMU = b"""2026-11-28 17:49:36.100+0000: starting up libvirt version: 11.3.0, qemu version: 10.0.2
LC_ALL=C PATH=/usr/bin /usr/bin/qemu-system-x86_64 -name guest=guest,debug-threads=on
char device redirected to /dev/pts/0 (label charserial0)
2026-11-28T17:49:38.686446Z qemu-system-x86_64: warning: TCG doesn't support requested feature
4711@1764351578.686446:vmstate_downtime_checkpoint src-downtime-start
2026-11-28T17:49:38.687446Z vmstate_downtime_save type=iterable idstr=ram instance_id=0 downtime=4
2026-11-28T17:49:39.686446Z qemu-system-x86_64: ../hw/virtio/virtio.c:77: Assertion `x' failed.
2026-11-28 17:49:39.700+0000: shutting down, reason=crashed
"""
WALL = Offset("a.wall", -1_764_351_000 * 10**9, 1000)


def console_door(data: bytes) -> object:
    """The end of a console into an error, a log, a report for CI: as each host's text is read."""
    text = data.decode(errors="replace")
    said = console_end(text)
    if len(said) > 500:
        raise AssertionError(f"{len(said)} letters of a console in a sentence")
    error = GuestError("reach the guest", host="a", said=said)
    problem = Problem(tried=error.tried, host="a", said=said)
    mishap = AttemptError(case_id="x", number=1, problem=problem, exit_code=4)
    with log.recorded():
        logging.getLogger("migrate.fuzz").info("console: %s", data.decode(errors="surrogateescape"))
    ET.fromstring(junit(synthetic.run(mishaps=(mishap,)), []))
    return mishap.model_dump_json(), visible(text)


def qemu_log_door(data: bytes) -> object:
    """The events and the end that a QEMU's log tells of."""
    text = data.decode(errors="replace")
    end = qemu_end(text, "a")
    events = [event.model_dump_json() for event in parse_qemu_log(text, "a", WALL)]
    return end.model_dump_json() if end else None, events


LANES = (
    Lane("consoles", console_door, lambda: [CONSOLE], kind="lines"),
    Lane("qemu-logs", qemu_log_door, lambda: [QEMU], kind="lines"),
)
