"""A guest that nobody needs: it is real, and it goes with whoever started it, even one that was
killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable

import pytest

from migrate.clock import until
from migrate.drivers.background_call import BackgroundCall
from migrate.drivers.qmp import ask
from migrate.errors import HostError
from migrate.formats.qapi import KEPT, QUEUE, RUN_STATUS
from migrate.guest import throwaway_guest as module
from migrate.guest.throwaway_guest import DEVICE, FOLDER, throwaway_guest
from migrate.lab.local.lab import LocalLab
from migrate.lab.namespaces import NamespaceHost
from migrate.model import Backing
from selftests.helpers import soon

QEMU = "qemu-system-x86"
"""As the kernel shortens the name; the lab's hosts have no other one meanwhile."""


@pytest.fixture
def host(shared_lab: LocalLab) -> NamespaceHost:
    return shared_lab.hosts["a"]


def left(host: NamespaceHost) -> str:
    """Folders and QEMUs of throw-away guests on a host."""
    look = f"ls -d {FOLDER}* 2>/dev/null; pgrep -lx {QEMU}"
    return host.run(["sh", "-c", look], soon(), check=False).out


@pytest.mark.parametrize("backing", ["none", "vhost-user"])
def test_it_runs_waits_and_leaves_nothing(host: NamespaceHost, backing: Backing) -> None:
    with throwaway_guest(host, backing, soon()) as (source, target):
        assert ask(source.qemu, "query-status", RUN_STATUS, soon()).status == "running"
        assert ask(target.qemu, "query-status", RUN_STATUS, soon()).status == "inmigrate"
        cards = ask(source.qemu, "query-rx-filter", KEPT["query-rx-filter"], soon())
        assert [card.name for card in cards] == ["net0"]
        assert left(host)
        assert (source.backend is not None) == (backing == "vhost-user")
    assert left(host) == ""


def test_its_device_is_set_up_and_has_rings(host: NamespaceHost) -> None:
    """As a driver would have it; of a QEMU that takes the question."""

    def statuses() -> str:
        return str(source.qemu.execute("x-query-virtio-status", soon(), path=DEVICE))

    with throwaway_guest(host, "none", soon()) as (source, _target):
        assert until(lambda: "DRIVER_OK" in statuses(), soon(), 0.01)
        place = {"path": DEVICE, "queue": 2}
        queue = ask(source.qemu, "x-query-virtio-queue-status", QUEUE, soon(), **place)
        assert queue.vring_desc == 3 << 16


def test_a_qemu_that_does_not_start_is_told_in_its_own_words(
    host: NamespaceHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MACHINE", ("-machine", "no-such-machine"))
    with pytest.raises(HostError) as caught, throwaway_guest(host, "none", soon()):
        pytest.fail("it started")
    assert "no-such-machine" in caught.value.said
    assert left(host) == ""


def test_a_qemu_that_had_ended_before_anybody_looked_is_told_as_well(
    host: NamespaceHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder has come and gone by then."""

    class EndedCall(BackgroundCall):
        def __init__(self, tried: str, function: Callable[[], object]) -> None:
            super().__init__(tried, function)
            assert self.wait(soon())

    monkeypatch.setattr(module, "_MACHINE", ("-machine", "no-such-machine"))
    monkeypatch.setattr(module, "BackgroundCall", EndedCall)
    deadline = soon()
    with pytest.raises(HostError) as caught, throwaway_guest(host, "none", deadline):
        pytest.fail("it started")
    assert "no-such-machine" in caught.value.said
    assert not deadline.passed()


def test_a_qemu_that_hangs_is_ended(host: NamespaceHost) -> None:
    with throwaway_guest(host, "none", soon()) as (_source, _target):
        host.run(["pkill", "-STOP", "-x", QEMU], soon())
    assert left(host) == ""


def test_it_ends_also_when_its_controller_is_killed(host: NamespaceHost) -> None:
    code = f"""
        import os, signal
        from migrate.clock import Deadline
        from migrate.guest.throwaway_guest import throwaway_guest
        from migrate.lab.namespaces import NamespaceHost
        host = NamespaceHost("a", "", "", {host.init_pid})
        with throwaway_guest(host, "none", Deadline.after(3)):
            print("up", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("up\n", -signal.SIGKILL)
    assert until(lambda: left(host) == "", soon(), 0.1)
