"""Real guests that flood or lie: the attempt ends in words, and the run goes on."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from migrate import world as stage
from migrate.campaign.progress import Progress
from migrate.campaign.run_source import NewRun
from migrate.campaign.session import Session, begin
from migrate.cleanup.leftovers import leftovers
from migrate.clock import Deadline
from migrate.errors import GuestError
from migrate.guest.domain_xml import CONSOLE
from migrate.images.initramfs import ensure_image
from migrate.images.kernel import cpio
from migrate.lab import namespaces
from migrate.lab.config import cache_folder
from migrate.lab.local import lab as local
from migrate.lab.local.config import LocalConfig
from migrate.model import Attempt, Case
from selftests.helpers import new_name

FLOOD = """#!/bin/busybox sh
for port in /sys/class/virtio-ports/*; do
    /bin/busybox cat /dev/zero > /dev/"${port##*/}"
done
"""
LIES = """#!/bin/busybox sh
for port in /sys/class/virtio-ports/*; do
    exec 3<> /dev/"${port##*/}"
done
while read -r line <&3; do
    [ -n "$line" ] || continue
    number=${line#*: }
    echo '{"id": []}' >&3
    echo '{"id": '"${number%%,*}"', "ok": true, "protocol": 3, "pid": "x"}' >&3
done
"""
NOISY = """#!/bin/busybox sh
/bin/busybox yes "$(/bin/busybox seq 1000)" > /dev/ttyS0 &
exec /the-probe "$@"
"""

Boot = Callable[[str], None]


@pytest.fixture
def boots(monkeypatch: pytest.MonkeyPatch) -> Iterator[Boot]:
    """Guests whose probe is another program: a later archive's files take an earlier one's place.

    Source: Documentation/driver-api/early-userspace/buffer-format.rst.
    """
    image = ensure_image("tiny", cache_folder())
    initrd = cache_folder() / "images" / f"{new_name()}.initramfs"

    def boot(script: str) -> None:
        files = {"probe": script.encode(), "the-probe": image.probe.read_bytes()}
        initrd.write_bytes(image.initrd.read_bytes() + cpio([], files))
        other = image.model_copy(update={"initrd": initrd, "digest": initrd.stem})
        monkeypatch.setattr(stage, "guest_image", lambda *_words: other)

    yield boot
    initrd.unlink(missing_ok=True)


def tried(going: Session) -> Attempt:
    wanted = Case.model_validate({"id": "hostile", "guest": {"start": "cold"}})
    place = going.place(wanted)
    assert isinstance(place, tuple)
    return going.attempt(wanted, 1, place)


def test_a_guest_that_floods_its_channel_ends_its_attempt_and_costs_little_memory(
    going: Session, boots: Boot
) -> None:
    boots(FLOOD)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(GuestError, match=r"broke at hello .* bytes came without an end of line"):
        tried(going)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 200 * 1024
    assert leftovers(going.lab.hosts.values()) == ()


def test_a_guest_that_lies_ends_its_attempt(going: Session, boots: Boot) -> None:
    boots(LIES)
    with pytest.raises(GuestError, match="the probe's answer to hello is invalid"):
        tried(going)
    assert leftovers(going.lab.hosts.values()) == ()


def test_a_guest_that_floods_its_console_fills_no_disk(
    lab_name: str, boots: Boot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its move is judged all the same."""
    monkeypatch.setattr(namespaces, "VIRTLOGD", "max_size = 4000\nmax_backups = 1\n")
    boots(NOISY)
    lab = local.KIND.up(LocalConfig(name=lab_name))
    going = begin(lab, NewRun(tmp_path / "results"), Progress(quiet=True))
    attempt = tried(going)
    assert attempt.outcome == "completed"
    for host in lab.hosts.values():
        look = ["sh", "-ec", 'stat -c %s "$1" "$1".*', "sh", CONSOLE]
        sizes = host.run(look, Deadline.after(9)).out.split()
        assert len(sizes) == 2
        assert max(map(int, sizes)) <= 4000
    (console,) = going.writer.folder.rglob("source-console.log")
    text = console.read_text()
    assert len(text) + text.count("\n") > 4000, "of both, each line with its carriage return"
