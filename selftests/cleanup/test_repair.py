"""`lab ready` and `lab repair` on real hosts: what a dead controller left goes, nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from migrate.backends.vhost_user import ovs
from migrate.cleanup.leftovers import leftovers
from migrate.cleanup.repair import repair
from migrate.clock import Deadline
from migrate.drivers.libvirt import Hypervisor
from migrate.errors import CleanupError, HostError
from migrate.guest.identity import Identity, forget, record
from migrate.lab import manager
from migrate.lab.api import Host
from migrate.lab.kinds import load_lab
from migrate.lab.lease.file_lock import lock_hosts
from migrate.lab.local.lab import LocalLab
from migrate.lab.namespaces import NamespaceHost
from migrate.lab.prepare.apply import prepare
from migrate.lab.prepare.plan import Preparation
from migrate.lab.prepare.steps import PreparedHost
from selftests.command_line import Run, started
from selftests.helpers import SCENARIOS, SaidSoFar, new_name, remove_lab

pytestmark = pytest.mark.needs_root
WISHES = """
[hosts.a.prepare]
bridge = "taps"
ovs = true
firewall = true
[hosts.b]
"""


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    path = tmp_path_factory.mktemp("lab") / "lab.toml"
    path.write_text(WISHES)
    return ("--lab", str(path), "--name", new_name())


@pytest.fixture(scope="module")
def lab(words: tuple[str, ...]) -> Iterator[LocalLab]:
    _, path, _, name = words
    try:
        made = manager.up(load_lab(Path(path), name))
        assert isinstance(made, LocalLab)
        yield made
    finally:
        remove_lab(name)


def state(lab: LocalLab) -> tuple[str, ...]:
    """Of host a: its links, its switch, the journal."""
    script = (
        "ip -brief link | cut -d ' ' -f 1; pgrep -l ovs | cut -d ' ' -f 2; "
        "ls /run/migrate-lab/prepared/*.json 2>&-; :"
    )
    said = lab.hosts["a"].run(["sh", "-c", script], Deadline.after(20)).out
    # The switch's own datapath device stays as long as the kernel has it: it is no link of ours.
    return tuple(line for line in said.split() if line not in ("ovs-netdev", "dpu"))


def leave_a_tap(host: Host) -> Identity:
    """A guest of ours that is gone, and left its tap."""
    guest = Identity.new()
    record(host, guest, Deadline.after(9))
    make = f"ip tuntap add {guest.tap} mode tap; ip link set {guest.tap} master data up"
    host.run(["sh", "-ec", make], Deadline.after(9))
    return guest


def test_ready_then_repair(lab: LocalLab, words: tuple[str, ...], migrate_lab: Run) -> None:
    if lab.record.note:
        pytest.skip(lab.record.note)
    before = state(lab)
    ended = migrate_lab("lab", "ready", *words)
    assert ended.status == 0, ended.err
    assert "b: nothing to prepare" in ended.err
    after = state(lab)
    assert {"taps", "ovs-vswitchd-dp", "ovsdb-server"} <= set(after)
    told = migrate_lab("lab", "repair", *words, "--dry-run")
    assert f"a: the host is ready for the lab {lab.name} by" in told.out
    assert state(lab) == after
    ended = migrate_lab("lab", "repair", *words)
    assert ended.status == 0, ended.err
    assert "a: bridge taps: put back" in ended.out
    assert state(lab) == before
    assert "nothing is left" in migrate_lab("lab", "repair", *words).out


def test_ready_is_killed_while_the_switch_starts(
    lab: LocalLab, words: tuple[str, ...], migrate_lab: Run
) -> None:
    before = state(lab)
    with started("lab", "ready", *words) as command:
        command.await_line("bridge taps: done")
        command.kill()
        command.wait()
    assert "taps" in state(lab)
    again = migrate_lab("lab", "ready", *words)
    assert again.status == 3
    assert "lab repair --name" in again.err
    assert migrate_lab("lab", "repair", *words).status == 0
    assert state(lab) == before


def test_what_a_lease_protects_is_left_alone(lab: LocalLab, told: SaidSoFar) -> None:
    host = lab.hosts["a"]
    guest = leave_a_tap(host)
    with lock_hosts(lab.leases, ["a"], Deadline.after(9)):
        assert repair(lab, dry_run=True) == 1
        with pytest.raises(CleanupError, match=f"held by process {os.getpid()}"):
            repair(lab)
        assert guest.tap in state(lab)
        assert repair(lab, force=True) == 1
    assert guest.tap not in state(lab)
    assert told.lines.count(f"a: tap {guest.tap}") == 2
    forget(host, guest, Deadline.after(9))


@pytest.mark.parametrize("other", [True, False], ids=["another lab", "a live controller"])
def test_a_preparation_that_may_be_in_use_takes_force(lab: LocalLab, *, other: bool) -> None:
    before = state(lab)
    site = PreparedHost(lab.hosts["a"], ovs)
    name = "other" if other else lab.name
    prepare(site, name, Preparation(bridge="taps"), Deadline.after(20))
    reason = "that is another lab than" if other else "may be at work yet"
    with pytest.raises(CleanupError, match=reason):
        repair(lab)
    assert "taps" in state(lab)
    assert repair(lab, force=True) == 1
    assert state(lab) == before


def test_without_libvirt_the_rest_goes_all_the_same(
    lab: LocalLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(host: NamespaceHost) -> Hypervisor:
        raise HostError("connect", host=host.name, said="libvirtd is not there")

    monkeypatch.setattr(NamespaceHost, "connect", refuse)
    guest = leave_a_tap(lab.hosts["a"])
    with pytest.raises(CleanupError) as caught:
        repair(lab)
    assert len(caught.value.reasons) == len(lab.hosts)
    assert guest.tap not in state(lab)
    forget(lab.hosts["a"], guest, Deadline.after(9))


def test_a_tap_that_is_in_no_journal_of_ours_stays(lab: LocalLab) -> None:
    """On our bridge, and without a process: somebody's machine that is off may have made it."""
    host = lab.hosts["a"]
    make = "ip tuntap add tap7 mode tap; ip link set tap7 master data up"
    host.run(["sh", "-ec", make], Deadline.after(9))
    try:
        assert repair(lab) == 0
        assert "tap7" in state(lab)
    finally:
        host.run(["ip", "link", "del", "tap7"], Deadline.after(9))


def test_a_guest_of_a_killed_run_goes(
    lab: LocalLab, words: tuple[str, ...], tmp_path: Path, migrate_lab: Run
) -> None:
    run = ("run", SCENARIOS / "modes.toml", "--set", "interface.mode=virtio")
    slow = ("--set", "policy.bandwidth_mib_s=4")
    with started(*run, *slow, *words, "--results", tmp_path) as command:
        command.await_line("iteration")
        command.kill()
        command.wait()
    assert leftovers(lab.hosts.values())
    ended = migrate_lab("lab", "repair", *words)
    assert ended.status == 0, ended.err
    assert "domain guest" in ended.out
    assert leftovers(lab.hosts.values()) == ()


def test_a_lab_that_is_not_up_is_said(lab_name: str, migrate_lab: Run) -> None:
    ended = migrate_lab("lab", "repair", "--name", lab_name)
    assert ended.status == 3
    assert f"lab up --name {lab_name}" in ended.err
