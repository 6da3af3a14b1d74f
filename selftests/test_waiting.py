"""Long waits tell what is waited for, for how long and how long at most: no test here sleeps."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from migrate import log, waiting, world
from migrate.backends.xml import Rewrite
from migrate.clock import Deadline
from migrate.drivers.libvirt import Domain, Hypervisor
from migrate.errors import HostError
from migrate.guest import lifecycle
from migrate.guest.lifecycle import Order
from migrate.images import initramfs
from migrate.lab import capabilities, rootfs
from migrate.lab.kvm_boot import KvmBoot
from migrate.lab.nested import lab as nested
from migrate.lab.nested.lab import NestedLab
from migrate.migration import hotplug
from migrate.migration.move import GRACE_S, longest_s
from migrate.migration.move_wait import MoveWait
from migrate.model import Policy, Sample
from selftests.helpers import SaidSoFar

TICKS = (5.0, 10.0)
SAMPLE = Sample(at_ns=0, host="a", remaining_bytes=1)


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every wait is as long as two lines, and no time passes."""
    monkeypatch.setattr(waiting, "ticks", lambda _ended: iter(TICKS))


def lines(what: str, most_s: float) -> list[str]:
    """Of a wait of some ten seconds."""
    return [f"waiting for {what}; {s:.0f} s so far, {most_s:.0f} s at most" for s in TICKS]


# --- a wait ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("long")
def test_a_wait_tells_what_for_how_long_and_how_long_at_most(told: SaidSoFar) -> None:
    with waiting.waiting("host b", 600):
        pass
    assert told.lines == lines("host b", 600)


def test_a_line_is_due_every_five_seconds_and_none_before() -> None:
    class Clock(threading.Event):
        """Waits are over at once; the third one is the end."""

        def __init__(self) -> None:
            super().__init__()
            self.asked: list[float] = []

        def wait(self, timeout: float | None = None) -> bool:
            assert timeout is not None
            self.asked.append(timeout)
            return len(self.asked) == 3

    clock = Clock()
    assert len(list(waiting.ticks(clock))) == 2
    assert clock.asked == [5.0] * 3


@pytest.mark.usefixtures("silent")
def test_a_short_wait_tells_nothing() -> None:
    with waiting.waiting("host b", 600):
        pass


def test_a_wait_ends_with_its_block_whatever_ends_that() -> None:
    before = threading.active_count()
    with pytest.raises(HostError), waiting.waiting("host b", 600):
        raise HostError("reach it")
    assert threading.active_count() == before


@pytest.mark.usefixtures("long")
def test_who_listens_no_more_ends_no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[object] = []
    monkeypatch.setattr(threading, "excepthook", raised.append)

    def gone(_line: str) -> None:
        raise BrokenPipeError

    with log.shown(gone), waiting.waiting("host b", 600):
        pass
    assert raised == []


@pytest.mark.usefixtures("long")
def test_a_display_has_waits_apart(told: SaidSoFar) -> None:
    plain: list[str] = []
    waits: list[str] = []
    with log.shown(plain.append, say_wait=waits.append), waiting.waiting("host b", 600):
        log.LOGGER.info("something else")
    assert plain == ["something else"]
    assert waits == lines("host b", 600)
    assert len(told.lines) == 3, "who makes no difference has all of them"


# --- a move ---------------------------------------------------------------------------------------


def test_a_move_that_shows_no_progress_tells_its_phase_and_for_how_long() -> None:
    clock = [0]
    wait = MoveWait("b", lambda: clock[0])
    shown: list[Sample] = []
    hear = wait.heard(shown.append)
    assert wait.words() == "the move to host b to begin"
    wait.on_phase("precopy")
    hear(SAMPLE)
    assert wait.words() is None, "its progress was shown"
    wait.on_phase("device")
    clock[0] = 69 * 10**9
    hear(SAMPLE.with_(remaining_bytes=0))
    words = wait.words()
    assert words == (
        "the move to host b (phase device for 69 s: device state is sent and loaded)"
    ), "a sample of nothing is not shown"
    wait.on_phase("setup")
    assert wait.words() == "the move to host b (phase setup for 0 s)"
    assert len(shown) == 2


@pytest.mark.parametrize(
    ("policy", "most_s"),
    [
        (Policy(timeout_s=60), 60 + GRACE_S),
        (Policy(timeout_s=60, on_timeout="suspend"), 120 + 2 * GRACE_S),
    ],
)
def test_a_move_takes_no_longer_than_it_is_said_to(policy: Policy, most_s: float) -> None:
    assert longest_s(policy) == most_s


# --- where it is told -----------------------------------------------------------------------------


class Machine:
    """Whatever is asked of it, it does at once."""

    name = host = where = "a"

    def __getattr__(self, _name: str) -> Callable[..., Any]:
        return lambda *_words, **_names: SimpleNamespace(out="", status=0)


ANY: Any = Machine()


def kvm_trial(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(capabilities, "boot_once", lambda *_, **__: KvmBoot(reached=True, seconds=1))
    patch.setattr(capabilities, "parse", lambda _out: {"device": ("kvm",), "kernel": ("6",)})
    host = SimpleNamespace(
        name="a",
        root="x",
        resources=SimpleNamespace(guest_links=()),
        run=lambda *_: SimpleNamespace(out=""),
    )
    hypervisor = SimpleNamespace(versions=lambda: {"qemu": "10"})
    image: Any = object()
    capabilities.gather(cast("Any", host), cast("Any", hypervisor), Path("/x"), image)


def nested_kvm_trial(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(nested, "Path", lambda _path: SimpleNamespace(glob=lambda _: [Switch()]))
    patch.setattr(nested, "ensure_image", lambda *_: None)
    patch.setattr("migrate.lab.kvm_boot.boot_once", lambda *_: KvmBoot(reached=True, seconds=1))
    host: Any = SimpleNamespace(name="a", root_folder=SimpleNamespace(name="x"))
    nested._accelerator(ANY, host)


class Switch:
    """KVM can nest."""

    def read_text(self) -> str:
        return "Y"


def host_boots(patch: pytest.MonkeyPatch) -> None:
    del patch
    lab = SimpleNamespace(hosts={"a": ANY}, runs=lambda _host: True)
    nested._await_ssh(cast("NestedLab", lab), "a", Deadline.after(180))


def order() -> Order:
    image: Any = SimpleNamespace(name="tiny", digest="0")
    return Order("<domain/>", image, warm=False, cache=Path("/x"))


class Libvirt(Machine):
    """Creates and restores at once."""

    def create(self, _xml: str, _deadline: Deadline) -> Domain:
        return cast("Domain", ANY)


def plain_xml(patch: pytest.MonkeyPatch) -> None:
    def same(xml: str, _rewrites: tuple[Rewrite, ...]) -> str:
        return xml

    patch.setattr(lifecycle, "rewritten", same)


def guest_boots(patch: pytest.MonkeyPatch) -> None:
    plain_xml(patch)
    on = cast("Hypervisor", Libvirt())
    lifecycle._booted(order(), on, lambda _domain: None, Deadline.after(60))


def guest_is_restored(patch: pytest.MonkeyPatch) -> None:
    plain_xml(patch)
    patch.setattr(lifecycle, "saved_state", lambda *_: Path("/x"))
    patch.setattr(lifecycle, "build_once", lambda *_: False)
    patch.setattr(lifecycle, "_own_copy", lambda *_: nullcontext(Path("/y")))
    warm = dataclasses.replace(order(), warm=True)
    lifecycle._start(warm, cast("Hypervisor", Libvirt()), lambda _: None, Deadline.after(60))


def floor(patch: pytest.MonkeyPatch) -> None:
    del patch
    listener: Any = SimpleNamespace(wait=lambda *_: None, mark=lambda: 0)
    world._must_run(30, listener)


def device_comes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(hotplug, "until", lambda *_: True)
    hotplug.wait_for_carrier(ANY, 0, None, Deadline.after(60))


def root_is_made(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rootfs, "run", lambda *_, **__: None)
    rootfs.bootstrap("trixie", ["trixie"], ["qemu"], Path("/x"))


def image_is_made(patch: pytest.MonkeyPatch) -> None:
    del patch
    initramfs.run_tool(["true"], tried="download the packages of x", remedy="")


@pytest.mark.usefixtures("long")
@pytest.mark.parametrize(
    ("wait", "what", "most_s"),
    [
        (kvm_trial, "the trial boot of Linux under KVM on host a", 15),
        (nested_kvm_trial, "the trial boot of Linux under KVM for host a", 15),
        (host_boots, "host a to boot and answer", 180),
        (guest_boots, "the guest to boot on host a", 60),
        (guest_is_restored, "the guest to be restored on host a", 60),
        (floor, "the floor to be measured", 30),
        (device_comes, "carrier on the hotplugged device in the guest", 60),
        (root_is_made, "a root of Debian trixie to be downloaded and unpacked", 900),
        (image_is_made, "true to download the packages of x", initramfs.COMMAND_TIMEOUT_S),
    ],
)
def test_who_waits_long_is_told(
    wait: Callable[[pytest.MonkeyPatch], None],
    what: str,
    most_s: float,
    told: SaidSoFar,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wait(monkeypatch)
    assert told.lines == lines(what, most_s)
