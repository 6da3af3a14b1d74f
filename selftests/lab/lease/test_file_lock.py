"""Leases on one controller: file locks that say who has them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import types
from pathlib import Path
from typing import Any, cast

import pytest

from migrate import locks, log
from migrate.clock import Deadline
from migrate.errors import ConfigurationError, HostError
from migrate.files import user_name
from migrate.lab.api import Host, Lab
from migrate.lab.lease.file_lock import lease_hosts, lease_key, lock_hosts, place_of
from selftests.helpers import SaidSoFar


def host(name: str, **more: Any) -> Host:
    return cast("Host", types.SimpleNamespace(name=name, **more))


def lab(folder: Path, coordinator: str | None = None) -> Lab:
    made = types.SimpleNamespace(name="rack", leases=folder, coordinator=coordinator)
    return cast("Lab", made)


def test_one_who_waits_says_for_whom_and_since_when_and_says_so_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "SILENT_S", 0)
    monkeypatch.setattr(locks, "REPEAT_S", 0.05)
    said: list[str] = []
    twice = threading.Event()

    def progress(line: str) -> None:
        said.append(line)
        if len(said) == 2:
            twice.set()

    def second() -> None:
        with lease_hosts(lab(tmp_path), [host("b")], "case-2", Deadline.after(60)):
            pass

    hosts = [host("b"), host("a")]
    with (
        lease_hosts(lab(tmp_path), hosts, "case-1", Deadline.after(1)) as held,
        log.shown(progress),
    ):
        held.check()
        thread = threading.Thread(target=second)
        thread.start()
        assert twice.wait(60)
    thread.join()
    me = rf"process {os.getpid()} of {user_name(os.geteuid())} \(.*\), for case-1"
    since = r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"
    for line in said:
        assert re.fullmatch(
            rf"waiting to lease the host b, held by {me}, {since}; \d+ s so far, 60 s at most", line
        )


def test_both_or_none(tmp_path: Path, told: SaidSoFar) -> None:
    with lock_hosts(tmp_path, ["b"], Deadline.after(1), job="first"):
        assert told.lines == []
        with (
            pytest.raises(HostError, match=r"for first, since .* until the deadline") as caught,
            lock_hosts(tmp_path, ["b", "a"], Deadline.after(0.1)),
        ):
            pytest.fail("it was held twice")
        assert caught.value.host == "b"
        told.lines.clear()
        with lock_hosts(tmp_path, ["a"], Deadline.after(1)):
            assert told.lines == []


@pytest.mark.usefixtures("silent")
def test_a_holder_that_died_leaves_no_lease(tmp_path: Path) -> None:
    script = (
        "import sys, threading\nfrom pathlib import Path\n"
        "from migrate.clock import Deadline\nfrom migrate.lab.lease.file_lock import lock_hosts\n"
        "with lock_hosts(Path(sys.argv[1]), ['a', 'b'], Deadline.after(60)):\n"
        "    print('held', flush=True)\n    threading.Event().wait()\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(HostError, match=f"held by process {holder.pid}"),
            lock_hosts(tmp_path, ["a"], Deadline.after(0)),
        ):
            pytest.fail("it was held twice")
        os.kill(holder.pid, signal.SIGKILL)
    with lock_hosts(tmp_path, ["a", "b"], Deadline.after(1)):
        pass


@pytest.mark.usefixtures("silent")
def test_a_host_of_several_lab_files_is_leased_by_what_it_is(tmp_path: Path) -> None:
    known = host("a", lease_name="rack17/slot 3")
    assert lease_key(known) == place_of("rack", known, "a") == "rack17/slot 3"
    assert (lease_key(host("a")), place_of("rack", host("a"), "a")) == (
        "a",
        "rack/a",
    )
    with (
        lease_hosts(lab(tmp_path), [known], "one", Deadline.after(1)),
        pytest.raises(HostError, match="for one, since"),
        lease_hosts(
            lab(tmp_path),
            [host("b", lease_name="rack17/slot 3")],
            "two",
            Deadline.after(0),
        ),
    ):
        pytest.fail("it was held twice")


@pytest.mark.usefixtures("silent")
def test_a_coordinator_without_labgrid_installed_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "migrate.lab.lease.reservation", raising=False)
    monkeypatch.delitem(sys.modules, "migrate.lab.lease.coordinator", raising=False)
    monkeypatch.setitem(sys.modules, "grpc", None)
    with (
        pytest.raises(ConfigurationError, match=r"grpc is not installed.*migrate-lab\[coord"),
        lease_hosts(lab(tmp_path, "h:1"), [host("a")], "job", Deadline.after(1)),
    ):
        pytest.fail("it was held")
