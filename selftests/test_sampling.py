"""Looks at a move that goes on: what libvirt tells of it, and what QEMU tells of a VF's state."""

from __future__ import annotations

import threading
from typing import Any, cast

import pytest

from migrate.libvirt_client import Domain
from migrate.model import Event, Reported, Sample
from migrate.observe import progress
from migrate.observe.progress import sampling, with_vfio


class Moving:
    """A guest whose job goes on; how often QEMU was asked about VFIO is counted."""

    host = "a"

    def __init__(self) -> None:
        self.asked = 0
        self.seen = threading.Event()

    def job(self) -> dict[str, Any]:
        return {"type": 1, "memory_iteration": 2}

    def vfio_transferred(self) -> int | None:
        self.asked += 1
        return 4096


def sampled(guest: Moving, *, has_vf: bool) -> Sample:
    with sampling(cast("Domain", guest), lambda _: guest.seen.set(), has_vf=has_vf) as samples:
        assert guest.seen.wait(10)
    return samples[0]


@pytest.mark.parametrize(("has_vf", "bytes_"), [(True, 4096), (False, None)])
def test_qemu_is_asked_about_a_vf_only_where_there_is_one(
    has_vf: bool, bytes_: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "INTERVAL_S", 0.001)
    guest = Moving()
    assert sampled(guest, has_vf=has_vf).vfio_bytes == bytes_
    assert bool(guest.asked) == has_vf


def at(at_ns: int, size: int | None) -> Sample:
    return Sample(at_ns=at_ns, host="a", vfio_bytes=size)


STOP = Event(at_ns=30, source="qemu", host="a", name="STOP")
EARLIER = Event(at_ns=5, source="qemu", host="a", name="STOP")
ELSEWHERE = Event(at_ns=15, source="qemu", host="b", name="STOP")


def test_a_vfs_state_is_told_in_two_parts() -> None:
    samples = [at(10, 100), at(20, 700), at(40, 900), at(50, None)]
    found = with_vfio(Reported(total_ms=1), samples, (EARLIER, ELSEWHERE, STOP))
    assert (found.vfio_precopy_bytes, found.vfio_stopcopy_bytes) == (700, 200)
    assert found.total_ms == 1


def test_a_state_that_was_sent_after_the_stop_only_has_no_first_part() -> None:
    found = with_vfio(Reported(), [at(10, 0), at(40, 900)], (STOP,))
    assert (found.vfio_precopy_bytes, found.vfio_stopcopy_bytes) == (0, 900)


@pytest.mark.parametrize("size", [None, 0])
def test_of_a_guest_without_such_a_device_nothing_is_told(size: int | None) -> None:
    assert with_vfio(Reported(), [at(10, size)], (STOP,)) == Reported()
