"""What a nested host is made of: its machine's arguments, its start, its state; none is run."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from migrate import log
from migrate.clock import Deadline
from migrate.drivers.qmp import Asked
from migrate.errors import HostError
from migrate.lab.kvm_boot import KvmBoot
from migrate.lab.namespaces import NamespaceHost
from migrate.lab.nested import lab as nested
from migrate.lab.nested import machine
from migrate.lab.nested.config import MachineConfig, NestedConfig
from migrate.lab.nested.image import MachineImage
from migrate.lab.nested.lab import NestedLab
from migrate.lab.nested.machine import Machine, taps
from migrate.lab.state import LabRecord, new_record
from migrate.model import Interface
from selftests.doubles.qmp import DONE, StandIn, event
from selftests.helpers import soon

# --- a machine's arguments ------------------------------------------------------------------------

IMAGE = MachineImage(Path("/cache/nested/debian-12-digest"), Path("/cache/nested/kernel/vmlinux"))


def made(accelerator: str = "tcg", name: str = "a", number: int = 1, **config: Any) -> Machine:
    shares = (Path("/cache/images"), Path("/cache/warm"))
    return Machine(name, number, MachineConfig(**config), IMAGE, shares, accelerator)


def values(found: Machine, option: str) -> list[str]:
    """What an option is given, in order."""
    pairs = itertools.pairwise(found.arguments())
    return [value for word, value in pairs if word == option]


def properties(value: str) -> dict[str, str]:
    """``igb,bus=x`` as a table; the first word is its ``kind``."""
    words = value.split(",")
    return {"kind": words[0]} | dict(word.split("=", 1) for word in words[1:])


def devices(found: Machine) -> list[dict[str, str]]:
    return [properties(value) for value in values(found, "-device")]


def of_network(found: Machine, network: str) -> dict[str, str]:
    (one,) = (device for device in devices(found) if device.get("netdev") == network)
    return one


def test_an_igb_has_a_root_port_of_its_own() -> None:
    on_port = [device for device in devices(made()) if device.get("bus") == "pf-port"]
    assert [(device["kind"], device["netdev"]) for device in on_port] == [("igb", "pf")]


@pytest.mark.parametrize("nic", ["igb", "virtio"])
def test_a_root_port_is_there_before_its_card(nic: str) -> None:
    found = devices(made(nic=nic))
    (port,) = (n for n, device in enumerate(found) if device["kind"] == "pcie-root-port")
    assert port < min(n for n, d in enumerate(found) if d.get("bus") == found[port]["id"])


def test_a_virtio_card_has_its_virtual_functions_on_its_own_root_port() -> None:
    found = [d for d in devices(made(nic="virtio")) if d.get("bus") == "pf-port"]
    assert [device["addr"] for device in found] == ["0x0.0x1", "0x0.0x2", "0x0.0x0"]
    assert {device["kind"] for device in found} == {"virtio-net-pci"}
    *functions, physical = found
    assert [device["sriov-pf"] for device in functions] == [physical["id"]] * 2
    assert all(device["iommu_platform"] == "on" for device in found), "else no VFIO"
    assert functions[0]["mac"] == Interface().mac, "nobody can tell it another one"
    assert "igb" not in {device["kind"] for device in devices(made(nic="virtio"))}


@pytest.mark.parametrize("nic", ["igb", "virtio"])
def test_every_network_has_one_device_and_a_tap_that_is_made(nic: str) -> None:
    found = made(nic=nic, name="abcdefgh")
    networks = [properties(value) for value in values(found, "-netdev")]
    for network in networks:
        assert of_network(found, network["id"])
    told = [network["ifname"] for network in networks]
    assert sorted(told) == sorted(tap for tap, _ in taps("abcdefgh", found.config))
    assert all(len(tap) <= 15 for tap in told), "of the longest name that a host may have"


def test_taps_are_joined_to_the_bridges_of_the_fabric() -> None:
    own = {
        *(("a-mgmt", "mgmt"), ("a-mig", "mig"), ("a-data", "data")),
        *(("a-ovs", "data"), ("a-pf", "data"), ("a-vdpa", "data")),
    }
    assert set(taps("a", MachineConfig())) == own
    of_virtio = set(taps("a", MachineConfig(nic="virtio")))
    assert of_virtio - own == {("a-vf1", "data"), ("a-vf2", "data")}
    assert {bridge for _, bridge in of_virtio} == set(nested.NETWORKS)


def test_the_iommu_remaps_interrupts() -> None:
    (iommu,) = (device for device in devices(made()) if device["kind"] == "intel-iommu")
    assert iommu["intremap"] == "on"
    (board,) = values(made(), "-M")
    assert properties(board)["kernel-irqchip"] == "split", "or QEMU refuses to remap them"
    assert "intel_iommu=on" in values(made(), "-append")[0].split()


def test_the_device_for_vp_vdpa_has_nothing_that_shadow_virtqueues_can_not_bear() -> None:
    device = of_network(made(), "vdpa")
    off = {name for name, value in device.items() if value == "off"}
    assert off == {
        *("event_idx", "indirect_desc", "queue_reset", "guest_announce"),
        *("guest_uso4", "guest_uso6", "host_uso"),
    }
    assert device["mac"] == Interface().mac, "vp_vdpa can't be told another one"
    assert f"0000:00:{int(device['addr'], 16):02x}.0" == machine.VDPA_SLOT


def test_links_are_named_by_the_macs_that_the_machine_gives_them() -> None:
    script = files("migrate.lab.nested").joinpath("host_init.sh").read_text()
    names = {"mgmt": "mgmt", "mig": "up-mig", "data": "up-data", "ovs": "up-ovs", "pf": "up-pf"}
    for network, name in names.items():
        begins = of_network(made(), network)["mac"].rsplit(":", 2)[0]
        assert f'{begins}:*) ip link set "${{path##*/}}" name {name} ;;' in script


def test_two_hosts_share_no_mac_but_the_guests() -> None:
    hosts = made(nic="virtio"), made(nic="virtio", name="b", number=2)
    first, second = ({d["mac"] for d in devices(host) if "mac" in d} for host in hosts)
    assert first & second == {Interface().mac}


def test_shares_keep_their_order() -> None:
    tables = [properties(value) for value in values(made(), "-fsdev")]
    paths = {table["id"]: table["path"] for table in tables}
    tags = {d["mount_tag"]: paths[d["fsdev"]] for d in devices(made()) if "mount_tag" in d}
    assert tags == {"share0": "/cache/images", "share1": "/cache/warm"}


def test_where_kvm_can_not_nest_the_processor_is_one_that_has_svm() -> None:
    assert values(made("tcg"), "-accel") == ["tcg,thread=multi"]
    assert values(made("tcg"), "-cpu") == ["EPYC-Milan,+svm,+npt,-erms,-fsrm"]
    assert values(made("kvm"), "-accel") == ["kvm"]
    assert values(made("kvm"), "-cpu") == ["host"]


def test_a_machine_is_as_the_lab_file_says() -> None:
    found = made(name="b", number=7, memory_mib=2048, huge_pages=3)
    assert values(found, "-m") == ["2048"]
    assert {"hugepages=3", "lab.name=b", "lab.number=7"} <= set(values(found, "-append")[0].split())
    (drive,) = (properties(f"drive,{value}") for value in values(found, "-drive"))
    assert (drive["file"], drive["readonly"]) == (str(IMAGE.disk), "on")


# --- what a saved state depends on ----------------------------------------------------------------


def states(found: Sequence[Machine], root: str = "root-1", name: str = "x") -> str:
    record = recorded(name, Path("/roots", root))
    return nested._states(cast("NestedLab", SimpleNamespace(record=record)), found).name


def recorded(name: str, root: Path) -> LabRecord:
    config = NestedConfig(name=name)
    roots = {host.root: root for host in config.hosts.values()}
    return new_record(config, roots, f"mlab-{name}", Path("/run/migrate-lab"))


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(made(memory_mib=1281), id="memory"),
        pytest.param(made(huge_pages=65), id="huge-pages"),
        pytest.param(made(nic="virtio"), id="nic"),
        pytest.param(made("kvm"), id="accelerator"),
        pytest.param(made(name="c"), id="name"),
        pytest.param(made(number=2), id="number"),
        pytest.param(dataclasses.replace(made(), shares=(Path("/cache/images"),)), id="shares"),
        pytest.param(
            dataclasses.replace(made(), image=MachineImage(Path("/other"), IMAGE.kernel)),
            id="image",
        ),
    ],
)
def test_another_machine_has_another_state(other: Machine) -> None:
    second = made(name="b", number=2)
    assert states([other, second]) != states([made(), second])


def test_a_state_is_of_all_hosts_and_of_their_qemu_but_not_of_a_labs_name() -> None:
    both = [made(), made(name="b", number=2)]
    assert states(both) != states(both[:1])
    assert states(both, root="root-2") != states(both), "its QEMU is another one"
    assert states(both, name="y") == states(both)


# --- the monitor ----------------------------------------------------------------------------------


class Place:
    """Where a machine would run: what is started there is written down, and nothing runs."""

    name = "a"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.started: list[list[str]] = []

    def run(self, argv: list[str], _deadline: Deadline) -> None:
        self.started.append(argv)

    def file(self, path: str) -> Path:
        return self._folder / Path(path).name


CAPABILITIES = ["mapped-ram", "events"]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def qemu(place: Place) -> Iterator[StandIn]:
    moving = [DONE, event("active"), event("completed")]
    plain = {name: [DONE] for name in ("migrate-set-capabilities", "stop", "cont")}
    standing = StandIn(
        place.file(machine.MONITOR), {"migrate": moving, "migrate-incoming": moving, **plain}
    )
    yield standing
    standing.close()


def asked_for(qemu: StandIn) -> list[str]:
    """Capabilities that were set first of all."""
    command, arguments = qemu.heard[1]
    assert command == "migrate-set-capabilities"
    assert all(wanted["state"] for wanted in arguments["capabilities"])
    return [wanted["capability"] for wanted in arguments["capabilities"]]


def test_a_machine_that_is_restored_goes_on_when_all_of_it_is_there(
    place: Place, qemu: StandIn
) -> None:
    machine.restore(made(), cast("NamespaceHost", place), Path("/states/a.state"), soon())
    assert place.started == [[*made().arguments(), "-incoming", "defer"]]
    assert asked_for(qemu) == CAPABILITIES
    assert qemu.heard[2:] == [("migrate-incoming", {"uri": "file:/states/a.state"}), ("cont", None)]


def test_a_machine_stands_still_while_it_is_saved(place: Place, qemu: StandIn) -> None:
    machine.save(cast("NamespaceHost", place), Path("/states/a.state"), soon())
    assert asked_for(qemu) == CAPABILITIES
    assert qemu.heard[2:] == [
        *(("stop", None), ("migrate", {"uri": "file:/states/a.state"}), ("cont", None))
    ]


def test_a_machine_whose_migration_is_not_finalized_yet_goes_on_a_little_later() -> None:
    class Monitor:
        """It refuses to go on once."""

        tries = 0

        def execute(self, command: str, _deadline: Deadline) -> object:
            assert command == "cont"
            self.tries += 1
            if self.tries == 1:
                raise HostError("cont", host="a", said="Migration is not finalized yet")
            return {}

    qemu = Monitor()
    machine._go_on(cast("Asked", qemu), soon())
    assert qemu.tries == 2


# --- its start ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("switch", "reached", "accelerator"),
    [
        pytest.param("Y\n", True, "kvm", id="amd"),
        pytest.param("1\n", True, "kvm", id="older-kernels"),
        pytest.param("Y\n", False, "tcg", id="linux-does-not-boot-under-it"),
        pytest.param("N\n", True, "tcg", id="it-does-not-nest"),
        pytest.param(None, True, "tcg", id="no-kvm"),
    ],
)
def test_kvm_is_used_where_it_nests_and_was_seen_to_boot(
    switch: str | None,
    reached: bool,
    accelerator: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if switch is not None:
        (tmp_path / "kvm_amd/parameters").mkdir(parents=True)
        (tmp_path / "kvm_amd/parameters/nested").write_text(switch)
    monkeypatch.setattr(nested, "Path", lambda _path: tmp_path)
    monkeypatch.setattr(nested, "ensure_image", lambda *_: None)
    boot = KvmBoot(reached=reached, seconds=1, said="")
    monkeypatch.setattr("migrate.lab.kvm_boot.boot_once", lambda *_: boot)
    host = recorded("x", tmp_path).hosts[0]
    place = cast("NamespaceHost", Place(tmp_path))
    assert nested._accelerator(place, host) == accelerator


class Silent:
    """A lab whose machine never answers."""

    def __init__(self, place: Place, *, runs: bool) -> None:
        self.places = {"a": place}
        self.hosts = {"a": self}
        self._runs = runs

    def run(self, _argv: list[str], _deadline: Deadline) -> None:
        raise HostError("connect", host="a", said="connection refused")

    def runs(self, _host: str) -> bool:
        return self._runs


@pytest.mark.parametrize(
    ("runs", "seconds"),
    [pytest.param(False, 60, id="it-ended"), pytest.param(True, 0.3, id="it-hangs")],
)
def test_a_host_that_does_not_come_up_is_told_with_the_end_of_its_console(
    place: Place, runs: bool, seconds: float
) -> None:
    place.file(machine.CONSOLE).write_text("Kernel panic - not syncing: no root\n")
    lab = cast("NestedLab", Silent(place, runs=runs))
    with pytest.raises(HostError, match="no root") as caught:
        nested._await_ssh(lab, "a", Deadline.after(seconds))
    assert caught.value.host == "a"
    assert "connection refused" in caught.value.said


# --- the machines' start ---


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done to the machines; none is there."""
    done: list[str] = []

    def note(step: str, where: int) -> None:
        monkeypatch.setattr(
            nested, f"_{step}", lambda *given: done.append(f"{step} {given[where].name}")
        )

    for step, where in (("boot", 1), ("settle", 1), ("kill", 1)):
        note(step, where)

    def save(_outer: object, state: Path, _deadline: Deadline) -> None:
        state.write_text("saved")
        done.append(f"save {state.stem}")

    def restore(_lab: object, states: Path, machine: Machine) -> None:
        if (states / f"{machine.name}.state").read_text() != "saved":
            raise HostError("restore", host=machine.name, said="no such state")
        done.append(f"restore {machine.name}")

    monkeypatch.setattr(nested, "save", save)
    monkeypatch.setattr(nested, "_restore", restore)
    monkeypatch.setattr(nested, "_states", lambda *_: tmp_path / "states-x")
    return done


def start(accelerator: str) -> list[str]:
    told: list[str] = []
    lab = cast("NestedLab", SimpleNamespace(places={"a": None, "b": None}))
    with log.shown(told.append):
        nested._start(lab, [made(accelerator), made(accelerator, "b", 2)])
    return told


def both(*steps: str) -> list[str]:
    return sorted(f"{step} {name}" for step in steps for name in "ab")


def test_machines_are_booted_and_saved_once_and_go_on_from_that(
    steps: list[str], tmp_path: Path
) -> None:
    assert any("booting 2 machines" in line for line in start("tcg"))
    assert sorted(steps) == both("boot", "save", "settle")
    assert (tmp_path / "states-x").stat().st_mode & 0o777 == 0o700
    steps.clear()
    assert start("tcg") == ["starting the machines from their saved state"]
    assert sorted(steps) == both("restore")


def test_a_saved_state_that_is_of_no_use_is_made_anew(steps: list[str], tmp_path: Path) -> None:
    (tmp_path / "states-x").mkdir()
    for name in "ab":
        (tmp_path / "states-x" / f"{name}.state").write_text("damaged")
    assert any("does not load" in line and "no such state" in line for line in start("tcg"))
    assert sorted(steps) == both("kill", "boot", "save", "settle")
    assert (tmp_path / "states-x/b.state").read_text() == "saved"


def test_machines_under_kvm_are_booted_each_time(steps: list[str], tmp_path: Path) -> None:
    start("kvm")
    assert sorted(steps) == both("boot", "settle")
    assert not (tmp_path / "states-x").exists()
