"""The nested lab, up for real: it answers, it is whole again after what befalls it, and it goes.

It is brought up once, from a saved state that is damaged, and so cold; the rest goes on from there.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from migrate import log
from migrate.backends.virtio.backend import VirtioBackend
from migrate.cleanup.leftovers import leftovers
from migrate.clock import Deadline, now_ns
from migrate.drivers.shell import run
from migrate.errors import HostError
from migrate.guest.domain_xml import domain_xml
from migrate.images.initramfs import ensure_image
from migrate.lab import fabric_kind
from migrate.lab.config import cache_folder
from migrate.lab.kinds import load_lab
from migrate.lab.nested import lab as nested
from migrate.lab.nested import machine
from migrate.lab.nested.config import NestedConfig
from migrate.lab.nested.lab import NestedLab
from migrate.lab.nested.machine import Machine
from migrate.lab.reach import scan_lab
from migrate.lab.remote_host import RemoteHost
from migrate.lab.shared_folder import SharedFolder
from migrate.model import GuestSpec, Interface
from selftests.doubles.keyboard import at_keyboard
from selftests.helpers import SaidSoFar, new_name, remove_lab, soon, traces

pytestmark = pytest.mark.needs_root

DAMAGED = 4096
"""Bytes that are left of a saved state."""


@dataclass(slots=True)
class Up:
    """The lab that is up, what was said meanwhile, and where its machines' states are."""

    config: NestedConfig
    told: list[str] = field(default_factory=list)
    states: Path | None = None

    def says(self, text: str) -> bool:
        return any(text in line for line in self.told)


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    """Brought up where the state of one host is damaged, or, if there is none yet, of both."""
    # The machines that users have: the state that is made anew serves the next lab of this file.
    config = load_lab(Path("labs/nested.toml"), new_name())
    assert isinstance(config, NestedConfig)
    found = Up(config)
    real = nested._states

    def damaged(lab: NestedLab, machines: list[Machine]) -> Path:
        states = found.states = real(lab, machines)
        states.mkdir(mode=0o700, exist_ok=True)
        for one in machines:
            (states / f"{one.name}.state").touch(0o600)
        os.truncate(states / "b.state", DAMAGED)
        return states

    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(nested, "_states", damaged)
            with log.shown(found.told.append):
                close(nested.KIND.up(found.config))
        yield found
    finally:
        remove_lab(found.config.name)


def close(lab: NestedLab) -> None:
    for host in lab.hosts.values():
        host.close()


@pytest.fixture
def lab(up: Up) -> Iterator[NestedLab]:
    """As any command finds it."""
    found = fabric_kind.find(up.config.name)
    assert isinstance(found, NestedLab)
    yield found
    close(found)


def answers(lab: NestedLab) -> None:
    """Each host by ssh and by libvirt, and to the other one by its name."""
    for here, there in (("a", "b"), ("b", "a")):
        host = lab.hosts[here]
        assert host.run(["hostname"], soon()).out == f"{here}\n"
        with host.connect() as hypervisor:
            assert hypervisor.domains() == ()
        asking = ["virsh", "-c", f"qemu+tcp://{there}/system", "hostname"]
        assert host.run(asking, soon()).out.strip() == there


def test_a_damaged_state_is_thrown_away_and_made_anew(up: Up) -> None:
    assert up.says("the saved state does not load")
    assert up.says("booting 2 machines")
    if not up.says("(tcg)"):
        pytest.skip("machines under KVM have no saved state")
    assert up.states is not None
    sizes = {path.name: path.stat().st_size for path in up.states.iterdir()}
    assert set(sizes) == {"a.state", "b.state"}
    assert min(sizes.values()) > DAMAGED


def test_hosts_answer_us_and_each_other(lab: NestedLab) -> None:
    answers(lab)
    assert lab.is_healthy()
    assert leftovers(lab.hosts.values()) == ()


def test_from_the_guests_network_nothing_of_a_nested_lab_answers(lab: NestedLab) -> None:
    scans = scan_lab(lab)
    assert [(scan.place, scan.station, scan.wrong) for scan in scans if scan.wrong] == []
    asked = {(scan.place, scan.station): scan.asked for scan in scans}
    assert asked["a", "a"] > 65535 and asked["b", "b"] > 65535
    assert all(scan.answers for scan in scans if scan.station == "peer"), "the scan can hear"


def test_services_of_a_host_listen_for_hosts_and_the_controller_alone(lab: NestedLab) -> None:
    for number, host in enumerate(lab.hosts.values(), 1):
        lines = host.run(["ss", "-H", "-l", "-n", "-t", "-u"], soon()).out.splitlines()
        at = {line.split()[4] for line in lines}
        assert at == {f"10.78.0.{number}:16509", f"10.79.0.{number}:22"}


def test_libvirt_is_reached_though_the_migration_link_is_cut(lab: NestedLab) -> None:
    host = lab.hosts["a"]
    link = ["ip", "link", "set", host.resources.migration_link]
    host.run([*link, "down"], soon())
    try:
        with host.connect() as hypervisor:
            assert hypervisor.domains() == ()
    finally:
        host.run([*link, "up"], soon())
    answers(lab)


def test_up_again_is_the_same_lab(up: Up, lab: NestedLab, told: SaidSoFar) -> None:
    again = nested.KIND.up(up.config)
    assert again.record == lab.record
    assert told.lines == []


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_host_has_what_it_lends(lab: NestedLab, name: str) -> None:
    host = lab.hosts[name]
    links = host.run(["ls", "/sys/class/net"], soon()).out.split()
    assert {"data", "up-data", "up-ovs", "up-pf", "up-vdpa", "up-mig", "mgmt"} <= set(links)
    functions = f"/sys/class/net/{host.resources.pf}/device/sriov_totalvfs"
    assert host.run(["cat", functions], soon()).out == "7\n"
    card = host.resources.vdpa[0].removeprefix("pci/")
    assert f"{card}/virtio" in host.run(["realpath", "/sys/class/net/up-vdpa/device"], soon()).out
    assert host.resources.vdpa[1] in host.run(["vdpa", "mgmtdev", "show"], soon()).out
    host.run(["test", "-c", "/dev/kvm", "-a", "-c", "/dev/vfio/vfio"], soon())


def test_a_hosts_clock_is_known_within_its_error(lab: NestedLab) -> None:
    host = lab.hosts["a"]
    offset = host.wall_clock()
    before = now_ns()
    reading = int(host.run(["date", "+%s%N"], soon()).out)
    after = now_ns()
    assert before - offset.error_ns <= offset.to_axis(reading) <= after + offset.error_ns


def test_a_program_is_run_on_a_host_by_the_systems_own_ssh(lab: NestedLab) -> None:
    words = ["printf", "%s|", "a b", "$HOME", "'"]
    assert run(lab.enter("b", words), soon()).out == "a b|$HOME|'|"


def test_at_a_terminal_a_program_has_one_of_its_own(lab: NestedLab) -> None:
    shell = [sys.executable, "-m", "migrate.cli", "lab", "shell", "--name", lab.name, "b", "--"]
    script = "tty; stty size; virsh uri; exit 7"
    with at_keyboard([*shell, "sh", "-c", script]) as keyboard:
        assert keyboard.wait() == 7
        assert re.search(r"/dev/pts/[0-9]+\r\n37 91\r\nqemu:///system", keyboard.screen)
        assert not re.search("polkit|authority|agent", keyboard.screen), keyboard.screen


@pytest.mark.parametrize("writable", [False, True])
def test_a_folder_of_the_users_is_seen_by_every_machine(tmp_path: Path, writable: bool) -> None:
    (tmp_path / "note").write_text("from outside\n")
    config = load_lab(Path("labs/nested.toml"), new_name())
    assert isinstance(config, NestedConfig)
    share = SharedFolder(path=tmp_path, writable=writable)
    try:
        with closing(nested.KIND.up(config, share)) as shared:
            for host in shared.hosts.values():
                assert host.run(["cat", "/mnt/share/note"], soon()).out == "from outside\n"
                writing = ["sh", "-c", f"echo inside >/mnt/share/{host.name}"]
                assert (host.run(writing, soon(), check=False).status == 0) == writable
                assert (tmp_path / host.name).exists() == writable
    finally:
        remove_lab(config.name)
    assert traces(config.name) == []


def switch(host: RemoteHost) -> nested.MachinePower:
    assert isinstance(host.power, nested.MachinePower)
    return host.power


def test_a_host_that_hangs_is_not_waited_for_and_goes_on(lab: NestedLab) -> None:
    host = lab.hosts["b"]
    host.run(["touch", "/root/note"], soon())
    switch(host).hang()
    try:
        with pytest.raises(HostError) as caught:
            host.run(["true"], soon(1))
    finally:
        switch(host).resume()
    assert caught.value.host == "b"
    host.run(["test", "-e", "/root/note"], soon())


def test_a_host_that_was_switched_off_is_replaced_and_the_other_one_stays(lab: NestedLab) -> None:
    for host in lab.hosts.values():
        host.run(["touch", "/root/note"], soon())
    switch(lab.hosts["b"]).kill()
    gone(lab, "b")
    assert not lab.is_healthy()
    assert lab.replace_dead_hosts() == ("b",)
    answers(lab)
    notes = [
        host.run(["test", "-e", "/root/note"], soon(), check=False).status
        for host in lab.hosts.values()
    ]
    assert notes == [0, 1], "a keeps what it had, and b is another one"
    assert lab.replace_dead_hosts() == ()


def gone(lab: NestedLab, name: str) -> None:
    """Wait until its machine is: it ends when it is told to, but not at once."""
    deadline = soon()
    while lab.runs(name):
        assert not deadline.passed(), f"the machine {name} does not end"


def test_a_lab_of_which_a_machine_died_is_not_up_and_is_made_whole(
    up: Up, lab: NestedLab, told: SaidSoFar
) -> None:
    place = lab.places["b"]
    place.run(["kill", "-KILL", place.file(machine.PID_FILE).read_text().strip()], soon())
    gone(lab, "b")
    assert fabric_kind.find(lab.name) is None
    again = nested.KIND.up(up.config)
    try:
        assert again.is_healthy()
        assert again.record.hosts != lab.record.hosts
        answers(again)
    finally:
        close(again)
    if up.says("(tcg)"):
        assert "saved state" in told
        assert "booting" not in told


def test_down_leaves_nothing_though_a_guest_runs(up: Up, lab: NestedLab) -> None:
    inside = [host.init for host in lab.record.hosts]
    image = ensure_image("tiny", cache_folder())
    with lab.hosts["a"].connect() as hypervisor:
        xml = domain_xml(
            GuestSpec(),
            Interface(),
            image,
            VirtioBackend(bridge=lab.hosts["a"].resources.bridge),
            machine=hypervisor.machine("q35"),
            accelerator="kvm",
            cpu_model=lab.cpu_model,
        )
        assert hypervisor.create(xml, Deadline.after(60)).state() == "running"
    fabric_kind.down(lab.name)
    assert traces(lab.name) == []
    assert not any(init is None or init.alive() for init in inside)
    assert fabric_kind.find(lab.name) is None
    assert lab.name not in fabric_kind.names()
    if up.says("(tcg)"):
        assert up.states is not None
        assert up.states.is_dir(), "for the next time"
