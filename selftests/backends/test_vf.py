"""VFs: which is free, what is refused and in which words, and that all is put back as found."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from migrate.backends.failover import backend as failover
from migrate.backends.failover.backend import Failover
from migrate.backends.hostdev.backend import Hostdev
from migrate.backends.sriov import allocation as vf
from migrate.backends.sriov.allocation import NoFreeVfError, lease_vf
from migrate.backends.sriov.functions import Vf
from migrate.backends.sriov.passthrough import GuestVf, PciAddress
from migrate.cleanup.leftovers import listed
from migrate.clock import Deadline
from migrate.drivers.shell import Completed, run
from migrate.errors import HostError
from migrate.lab.api import Host
from migrate.lab.resources import Resources
from migrate.model import Interface
from selftests.doubles import sysfs
from selftests.doubles.sysfs import LINK, NATIVE, PF, Sysfs
from selftests.helpers import soon

PLACES = ("/sys/", "/run/", "/proc/", "/dev/vfio")


class Machine:
    """A host whose ``/`` is a folder: programs run there for real, but for :mod:`sysfs`'s."""

    name = "a"

    def __init__(self, root: Path, made: int) -> None:
        self.root = root
        self.sysfs = Sysfs(root)
        self.sysfs.build(made)
        self.resources = Resources(pf=LINK)
        self.bin = root / "bin"
        self.bin.mkdir()
        for program in ("tee", "ip", "modprobe"):
            stand_in = self.bin / program
            call = f'exec {sys.executable} -S {sysfs.__file__} {root} {program} "$@"'
            stand_in.write_text(f"#!/bin/sh\n{call}\n")
            stand_in.chmod(0o755)

    def run(
        self,
        argv: Sequence[str],
        deadline: Deadline,
        *,
        text: str | None = None,
        check: bool = True,
    ) -> Completed:
        path = f"PATH={self.bin}:{os.environ['PATH']}"
        words = [self._inside(word) for word in argv]
        done = run(["env", path, *words], deadline, host=self.name, text=text, check=check)
        return Completed(done.argv, done.status, done.out.replace(str(self.root), ""), done.err)

    def _inside(self, word: str) -> str:
        for place in PLACES:
            word = word.replace(place, f"{self.root}{place}")
        return word

    @property
    def ledger(self) -> Path:
        return self.root / "run/migrate-lab" / f"vf-{LINK}.json"


def machine(tmp_path: Path, made: int = 2) -> Machine:
    return Machine(tmp_path, made)


@pytest.fixture
def host(tmp_path: Path) -> Machine:
    return machine(tmp_path)


def as_host(host: Machine) -> Host:
    return cast("Host", host)


def wanting(**options: Any) -> Interface:
    return Interface.model_validate({"mode": "hostdev", "vf": options})


def lease(host: Machine, **options: Any) -> Any:
    return lease_vf(as_host(host), wanting(**options), soon())


def refused(host: Machine, **options: Any) -> HostError:
    with pytest.raises(HostError) as error, lease(host, **options):
        pytest.fail("it was leased")
    assert error.value.host == host.name
    assert error.value.remedy
    return error.value


def snapshot(host: Machine) -> tuple[object, ...]:
    tree = host.sysfs
    made = len(list(tree.pf.glob("virtfn*")))
    return tuple(
        (tree.driver(n), (tree.vf(n) / "driver_override").read_text(), tree.told(n))
        for n in range(made)
    )


# --- leased and put back --------------------------------------------------------------------------


def test_vfs_are_leased_one_by_one(host: Machine) -> None:
    with lease(host) as first:
        with lease(host) as second:
            assert {first.address, second.address} == {"0000:01:10.0", "0000:01:10.1"}
            assert isinstance(refused(host), NoFreeVfError)
        with lease(host) as again:
            assert again.address == second.address
    assert not host.ledger.exists()


def test_a_managed_vf_keeps_its_driver_and_is_told_what_the_case_wants(host: Machine) -> None:
    before = snapshot(host)
    with lease(host, trust=True, spoof_check=False):
        assert host.sysfs.driver(0) == NATIVE
        assert host.sysfs.told(0)["trust"] is True
        assert host.sysfs.told(0)["spoofchk"] is False
    assert snapshot(host) == before


def test_an_unmanaged_vf_is_bound_to_vfio_and_back(host: Machine) -> None:
    before = snapshot(host)
    with lease(host, managed=False):
        assert host.sysfs.driver(0) == "vfio-pci"
    assert host.sysfs.driver(0) == NATIVE
    assert snapshot(host) == before


def test_a_driver_that_carries_state_is_chosen_where_the_kernel_has_one_for_it(
    host: Machine,
) -> None:
    (host.root / "aliases").write_text("vfio_pci\nmlx5_vfio_pci\n")
    with lease(host, managed=False):
        assert host.sysfs.driver(0) == "mlx5_vfio_pci"
    assert host.sysfs.driver(0) == NATIVE


def test_vfs_are_made_where_there_are_none_and_taken_away_with_the_last(tmp_path: Path) -> None:
    host = machine(tmp_path, made=0)
    with lease(host):
        assert (host.sysfs.pf / "sriov_numvfs").read_text() == "2\n"
        with lease(host):
            pass
        assert (host.sysfs.pf / "sriov_numvfs").read_text() == "2\n", "one is still leased"
    assert (host.sysfs.pf / "sriov_numvfs").read_text() == "0\n"


def test_all_is_put_back_when_the_block_fails(host: Machine) -> None:
    before = snapshot(host)
    with pytest.raises(ZeroDivisionError), lease(host, managed=False, trust=True):
        raise ZeroDivisionError
    assert snapshot(host) == before
    assert not host.ledger.exists()


def test_what_others_changed_meanwhile_is_put_back_too(host: Machine) -> None:
    """A libvirtd that was killed leaves the guest's MAC and VLAN, and the VF with VFIO."""
    before = snapshot(host)
    with lease(host):
        host.sysfs.tell(0, "mac", "52:54:00:6d:6c:01")
        host.sysfs.tell(0, "vlan", "42")
        host.sysfs.bind(0, "vfio-pci")
        (host.sysfs.vf(0) / "driver_override").write_text("vfio-pci\n")
    assert snapshot(host) == before


@pytest.mark.parametrize("made", [0, 2])
def test_what_a_killed_controller_left_is_put_back_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: int
) -> None:
    host = machine(tmp_path, made)
    before = snapshot(host)
    with monkeypatch.context() as killed:
        killed.setattr(vf, "_owner", lambda: "elsewhere/1/1")
        killed.setattr(vf, "_release", lambda *_: None)
        with lease(host, managed=False, trust=True):
            pass
    assert host.sysfs.driver(0) == "vfio-pci"
    assert vf.restore(as_host(host), LINK, soon()) is None
    assert snapshot(host) == before
    assert not host.ledger.exists()


def test_what_was_not_put_back_is_listed_by_its_pf(host: Machine) -> None:
    (kind,) = vf.LEFTOVERS
    scripts = {kind.name: kind.script}
    assert listed(as_host(host), scripts, soon()) == ()
    with lease(host):
        assert listed(as_host(host), scripts, soon()) == (("VFs of {}", LINK),)


def test_a_vf_that_vanished_meanwhile_does_not_keep_the_rest_from_its_place(
    host: Machine,
) -> None:
    with lease(host):
        host.sysfs.write(host.sysfs.pf / "sriov_numvfs", "0")
    assert (host.sysfs.pf / "sriov_numvfs").read_text() == "2\n"
    assert not host.ledger.exists()


def test_what_can_not_be_put_back_is_told_and_stays_written_down(host: Machine) -> None:
    with pytest.raises(HostError, match="Cannot allocate memory"), lease(host, managed=False):
        (host.root / "refuses").touch()
    assert json.loads(host.ledger.read_text())["taken"][0]["driver"] == NATIVE
    (host.root / "refuses").unlink()
    vf._release(as_host(host), LINK, {"0000:01:10.0"}, soon())
    assert host.sysfs.driver(0) == NATIVE


# --- which is free ------------------------------------------------------------------------------


def test_a_vf_that_a_process_has_open_is_not_free(host: Machine) -> None:
    host.sysfs.open(0)
    with lease(host) as free:
        assert free.number == 1


def test_a_vf_that_libvirt_gave_away_is_not_free(host: Machine) -> None:
    """One that waits for its guest to negotiate failover is opened by nobody yet."""
    kept = host.root / "run/libvirt/hostdevmgr" / f"{LINK}_vf0"
    kept.parent.mkdir(parents=True)
    kept.touch()
    with lease(host) as free:
        assert free.number == 1


@pytest.mark.parametrize("use", [{"master": "br0"}, {"addr_info": [{"scope": "global"}]}])
def test_a_vf_that_the_host_uses_itself_is_not_free(host: Machine, use: dict[str, Any]) -> None:
    links = json.loads(host.sysfs.links.read_text())
    links[1] |= use
    host.sysfs.links.write_text(json.dumps(links))
    with lease(host) as free:
        assert free.number == 1


def test_a_vf_with_vfio_that_nobody_has_open_is_free_and_stays_there(host: Machine) -> None:
    host.sysfs.bind(0, "vfio-pci")
    with lease(host, managed=False) as free:
        assert free.number == 0
    assert host.sysfs.driver(0) == "vfio-pci"


def test_a_group_is_left_alone_that_has_other_devices(host: Machine) -> None:
    host.sysfs.share_group(0, "0000:02:00.0", "0x010802")
    with lease(host) as free:
        assert free.number == 1


def test_a_bridge_in_the_group_is_no_other_device(host: Machine) -> None:
    host.sysfs.share_group(0, "0000:00:01.0", "0x060400")
    with lease(host) as free:
        assert free.number == 0


# --- what is refused, and how -------------------------------------------------------------------


def test_none_left_is_told_with_how_many_there_could_be(host: Machine) -> None:
    host.sysfs.open(0)
    with lease(host):
        error = refused(host)
    assert isinstance(error, NoFreeVfError)
    assert "none of the 2" in error.said
    assert "it can have 4" in error.remedy


def test_a_shared_group_is_refused_with_its_devices(tmp_path: Path) -> None:
    host = machine(tmp_path, made=1)
    host.sysfs.share_group(0, "0000:02:00.0", "0x010802")
    error = refused(host)
    assert not isinstance(error, NoFreeVfError)
    assert "IOMMU group 10 has 0000:02:00.0" in error.said


def test_a_card_that_can_not_be_told_a_mac_is_refused(host: Machine) -> None:
    links = json.loads(host.sysfs.links.read_text())
    del links[0]["vfinfo_list"]
    host.sysfs.links.write_text(json.dumps(links))
    assert "can't set a VF's MAC, and no free VF has that one" in refused(host).said
    links[2]["address"] = Interface().mac
    host.sysfs.links.write_text(json.dumps(links))
    with lease(host) as fitting:
        assert (fitting.number, fitting.has_settable_mac) == (1, False)
    assert "nor its VLAN 42" in refused(host, vlan=42).said


def test_no_iommu_is_refused(tmp_path: Path) -> None:
    host = machine(tmp_path, made=1)
    (host.sysfs.vf(0) / "iommu_group").unlink()
    assert "no IOMMU group" in refused(host).said


def test_a_host_that_lends_no_pf_says_so(host: Machine) -> None:
    host.resources = Resources()
    assert "provides no physical function" in refused(host).said


def test_a_virtio_devices_functions_are_those_of_the_pci_device_above_it(host: Machine) -> None:
    below = host.sysfs.pf / "virtio8"
    below.mkdir()
    (below / "driver").symlink_to(host.sysfs.pci / "drivers/igb")
    place = host.root / "sys/class/net" / LINK / "device"
    place.unlink()
    place.symlink_to(below)
    for number, mac in enumerate(("02:00:00:00:00:01", Interface().mac)):
        (host.sysfs.vf(number) / "net").rename(host.sysfs.vf(number) / "virtio")
        netdev = host.sysfs.vf(number) / f"virtio1{number}/net/eth{number}"
        netdev.mkdir(parents=True)
        links = json.loads(host.sysfs.links.read_text())
        links[0].pop("vfinfo_list", None)
        links[1 + number]["address"] = mac
        host.sysfs.links.write_text(json.dumps(links))
    with lease(host) as vf:
        assert (vf.number, vf.mac, vf.has_settable_mac) == (1, Interface().mac, False)


def _no_link(host: Machine) -> None:
    (host.root / "sys/class/net" / LINK / "device").unlink()


def _no_driver(host: Machine) -> None:
    (host.sysfs.pf / "driver").unlink()


def _no_sriov(host: Machine) -> None:
    (host.sysfs.pf / "sriov_totalvfs").write_text("0\n")


def _link_down(host: Machine) -> None:
    links = json.loads(host.sysfs.links.read_text())
    links[0]["flags"] = []
    host.sysfs.links.write_text(json.dumps(links))


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (_no_link, "no such link"),
        (_no_driver, "its driver is gone"),
        (_no_sriov, f"igb makes no virtual functions of {PF}"),
        (_link_down, "its link is down"),
    ],
)
def test_a_pf_that_can_have_no_vfs_is_told(
    host: Machine, broken: Callable[[Machine], None], said: str
) -> None:
    broken(host)
    assert said in refused(host).said


def test_vfs_that_can_not_be_made_are_told_in_the_kernels_words(tmp_path: Path) -> None:
    host = machine(tmp_path, made=0)
    (host.root / "refuses").touch()
    error = refused(host)
    assert "Cannot allocate memory" in error.said
    assert error.tried == f"make 2 virtual functions of {LINK}"
    assert not host.ledger.exists(), "nothing was changed"


def test_a_setting_that_the_card_does_not_know_is_named(host: Machine) -> None:
    before = snapshot(host)
    error = refused(host, trust=True, link="enable")
    assert error.tried == f"set state enable of VF 0 of {LINK}"
    assert "not supported" in error.said
    assert snapshot(host) == before


def test_a_driver_that_does_not_take_the_vf_is_told(
    host: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vf, "BIND", "true")
    assert "its driver is none" in refused(host, managed=False).said


# --- the modes ----------------------------------------------------------------------------------


def test_hostdev_plugs_in_the_vf_that_it_leased(host: Machine) -> None:
    interface = wanting(managed=False)
    with Hostdev().create(as_host(host), interface, soon()) as backend:
        device = Hostdev().hotplug_xml(interface, backend)
    assert device is not None
    assert 'bus="0x01" slot="0x10" function="0x0"' in device
    assert 'managed="no"' in device


def _with_bridge(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bridge is the virtio mode's, which has its own test."""

    monkeypatch.setattr(failover, "data_bridge", lambda *_: "data")


def test_failover_without_a_vf_is_on_its_standby_and_says_so(
    host: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    _with_bridge(monkeypatch)
    interface = Interface(mode="failover")
    with (
        lease(host),
        lease(host),
        Failover().create(as_host(host), interface, soon()) as backend,
    ):
        assert Failover().hotplug_xml(interface, backend) is None
        assert "no VF for the guest" in backend.notes[0]
        # where the guest begins, it needs one
        assert isinstance(backend.missing_primary, NoFreeVfError)


def test_failover_goes_back_to_its_primary_where_there_is_one(
    host: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    _with_bridge(monkeypatch)
    interface = Interface(mode="failover")
    with Failover().create(as_host(host), interface, soon()) as backend:
        assert backend.vf == GuestVf(PciAddress.parse("0000:01:10.0"), has_settable_mac=True)
        assert "transient" in str(Failover().hotplug_xml(interface, backend))
    assert not host.ledger.exists()


def test_a_virtio_device_is_no_primary(host: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    _with_bridge(monkeypatch)
    (host.sysfs.pci / "drivers/virtio-pci").mkdir()
    host.sysfs.bind(0, "virtio-pci")
    with (
        pytest.raises(HostError, match="Linux takes none as the primary") as error,
        Failover().create(as_host(host), Interface(mode="failover"), soon()),
    ):
        pass
    assert error.value.remedy
    assert not host.ledger.exists()


def test_a_group_that_is_shared_is_no_reason_to_go_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _with_bridge(monkeypatch)
    host = machine(tmp_path, made=1)
    host.sysfs.share_group(0, "0000:02:00.0", "0x010802")
    with (
        pytest.raises(HostError, match="IOMMU group"),
        Failover().create(as_host(host), Interface(mode="failover"), soon()),
    ):
        pass


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="no PCI address"):
        GuestVf.of(Vf(number=0, address="eth0"))
