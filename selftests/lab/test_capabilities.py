"""What a host can do: yes, or no with a reason and a remedy; KVM only if a kernel reached init."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from migrate.backends.registry import INSPECTIONS
from migrate.clock import Deadline
from migrate.drivers.libvirt import Hypervisor
from migrate.drivers.shell import Completed
from migrate.errors import HostError
from migrate.lab import capabilities as facts
from migrate.lab import kvm_boot, trace_points
from migrate.lab.api import Host
from migrate.lab.capabilities import HOST, Look, gather, judge, script_of
from migrate.lab.kvm_boot import BOOT_S, INIT_REACHED, KvmBoot
from migrate.lab.local import lab as local
from migrate.lab.local.config import LocalConfig, LocalHostConfig
from migrate.lab.local.lab import LocalLab
from migrate.lab.namespaces import NamespaceHost
from migrate.model import Capability, HostFacts
from selftests.helpers import new_name, remove_lab

EVERY = (HOST, *INSPECTIONS, trace_points.INSPECTION)
OVS = "ovs-vswitchd-dpdk (Open vSwitch) 3.5.0 DPDK 24.11.4"
MANAGEMENT = (
    '{"mgmtdev":{"pci/0000:01:00.0":{"supported_classes":["net"],"max_supported_vqs":3,'
    '"dev_features":["MAC","GUEST_ANNOUNCE","VERSION_1","ACCESS_PLATFORM"]}}}'
)
ONLY_SOFT = (
    '{"mgmtdev":{"vdpasim_net":{"supported_classes":["net"]},'
    '"vduse":{"supported_classes":["net","block"]}}}'
)
VDPA: dict[str, str | list[str]] = {
    "bus": "vdpa",
    "vdpa_tool": '{"mgmtdev":{}}',
    "vdpa_module": "vhost_vdpa",
}
VP_VDPA = VDPA | {"vdpa_module": ["vhost_vdpa", "vp_vdpa"], "virtio_net": "0000:00:10.0"}
REACHED = KvmBoot(reached=True, seconds=1.2, said=INIT_REACHED)
TIMED_OUT = KvmBoot(reached=False, seconds=15.0, said="Booting from ROM..")
STAND_INS = "/opt/stand-ins"
"""In the host; libvirtd there was started without it in its path."""
GAVE_UP = KvmBoot(reached=False, seconds=0.1, said="qemu-system-x86_64: no", gave_up=True)


def found(name: str, boot: KvmBoot | None = None, **said: str | list[str]) -> Capability:
    """The capability ``name`` of a host that says this (an underscore stands for a hyphen)."""
    values = {
        key.replace("_", "-"): (value,) if isinstance(value, str) else tuple(value)
        for key, value in said.items()
    }
    (capability,) = (one for one in judge(Look(values, boot), EVERY) if one.name == name)
    return capability


@pytest.mark.parametrize(
    ("name", "boot", "said", "detail"),
    [
        ("kvm", REACHED, {"device": "kvm"}, "init in 1.2 s"),
        ("vhost-net", None, {"device": ["kvm", "vhost-net"]}, "/dev/vhost-net"),
        ("tun", None, {"device": "net/tun"}, "/dev/net/tun"),
        ("huge-pages", None, {"huge_free": "64"}, "64 pages of 2 MiB are free"),
        ("ovs-dpdk", None, {"ovs": OVS, "huge_free": "64"}, "OVS 3.5.0, DPDK 24.11.4"),
        ("userfaultfd", None, {"userfaultfd": "0"}, "post-copy"),
        (
            "guest-network",
            None,
            {"guest_link": ["data", "up-ovs"], "address": ["lo 127.0.0.1", "up-mig 10.78.0.1"]},
            "no address on data, up-ovs",
        ),
        ("vhost-vdpa", None, VDPA | {"vdpa_tool": MANAGEMENT}, "pci/0000:01:00.0"),
        ("vhost-vdpa", None, VDPA | {"vdpa_tool": MANAGEMENT}, "shadows no guest_announce: see"),
        ("vhost-vdpa", None, VP_VDPA, "pci/0000:00:10.0 by vp_vdpa"),
        ("vdpa-management", None, {"bus": "vdpa", "vdpa_tool": MANAGEMENT}, "pci/0000:01:00.0"),
        ("sriov", None, {"pf": ["0000:01:00.0 7 0", "0000:02:00.0 4 4"]}, "02:00.0: 4 of 4 free"),
        ("iommu", None, {"iommu_group": ["0", "1"]}, "2 groups"),
        ("vfio-variant", None, {"vfio_driver": "mlx5_vfio_pci"}, "mlx5_vfio_pci"),
        ("vfio-variant", None, {"vfio_module": "virtio-vfio-pci.ko.xz"}, "can be loaded"),
    ],
)
def test_what_a_host_can_do(
    name: str, boot: KvmBoot | None, said: dict[str, str | list[str]], detail: str
) -> None:
    capability = found(name, boot, **said)
    assert capability.able
    assert detail in capability.detail
    assert (capability.reason, capability.remedy) == ("", "")


@pytest.mark.parametrize(
    ("qemu", "boot", "able"),
    [
        ("7.2.22", None, False),
        ("7.2.22", TIMED_OUT, False),
        ("7.2.22", REACHED, True),
        ("10.0.13", None, True),
    ],
)
def test_a_qemu_that_an_emulated_vhost_user_guest_ends_is_not_used_for_one(
    qemu: str, boot: KvmBoot | None, able: bool
) -> None:
    look = Look(boot=boot, versions={"qemu": qemu})
    (capability,) = (one for one in judge(look, EVERY) if one.name == "vhost-user-guest")
    assert capability.able is able
    if not able:
        assert f"QEMU {qemu} crashes" in capability.reason
        assert "KVM" in capability.remedy


@pytest.mark.parametrize(
    ("name", "boot", "said", "reason", "remedy"),
    [
        ("kvm", None, {}, "no /dev/kvm", "firmware"),
        ("kvm", None, {"device": "kvm"}, "no guest image", "doctor"),
        ("kvm", TIMED_OUT, {"device": "kvm"}, "did not reach its init in 15 s", "64-bit"),
        ("kvm", GAVE_UP, {"device": "kvm"}, "opens, but QEMU gave up", "64-bit"),
        ("vhost-net", None, {}, "no /dev/vhost-net", "modprobe vhost_net"),
        ("tun", None, {}, "no /dev/net/tun", "modprobe tun"),
        ("huge-pages", None, {"huge_free": "63"}, "63 huge pages", "vm.nr_hugepages"),
        ("huge-pages", None, {}, "no huge pages", "CONFIG_HUGETLBFS"),
        ("ovs-dpdk", None, {"huge_free": "64"}, "no Open vSwitch", "openvswitch-switch-dpdk"),
        ("ovs-dpdk", None, {"ovs": "(Open vSwitch) 3.5.0", "huge_free": "64"}, "DPDK", "dpdk"),
        ("ovs-dpdk", None, {"ovs": OVS, "huge_free": "0"}, "0 huge pages", "vm.nr_hugepages"),
        ("userfaultfd", None, {}, "no userfaultfd", "CONFIG_USERFAULTFD"),
        (
            "guest-network",
            None,
            {"guest_link": ["br0", "eth1"], "address": ["br0 192.0.2.7", "br0 fe80::1", "lo ::1"]},
            "guests reach the host itself: br0 has 192.0.2.7, br0 has fe80::1",
            "doctor --reach",
        ),
        ("vhost-vdpa", None, {"bus": "pci"}, "this kernel has no vDPA bus", "CONFIG_VDPA"),
        ("vhost-vdpa", None, {"bus": "vdpa"}, "no `vdpa` program", "iproute2"),
        ("vhost-vdpa", None, VDPA | {"vdpa_module": []}, "no module vhost_vdpa", "VHOST_VDPA"),
        ("vhost-vdpa", None, VDPA | {"vdpa_tool": ONLY_SOFT}, "no management device", "vp_vdpa"),
        ("vhost-vdpa", None, VDPA | {"virtio_net": "0000:00:10.0"}, "virtio device", "vp_vdpa"),
        ("vdpa-management", None, {}, "no vDPA bus", "CONFIG_VDPA"),
        ("vdpa-management", None, {"bus": "vdpa"}, "no `vdpa` program", "iproute2"),
        ("vdpa-management", None, {"bus": "vdpa", "vdpa_tool": ""}, "no driver offers", "driver"),
        (
            "vdpa-management",
            None,
            {"bus": "vdpa", "vdpa_tool": '{"mgmtdev":{}}'},
            "no driver offers",
            "driver",
        ),
        ("sriov", None, {"pf": "0000:01:00.0 0 0"}, "no PCI device", "SR-IOV"),
        ("sriov", None, {"pf": "0000:01:00.0 7 0"}, "in use by VFIO", "unbind"),
        ("iommu", None, {}, "no IOMMU groups", "intel_iommu=on"),
        ("vfio-variant", None, {"vfio_driver": "vfio-pci"}, "no VFIO driver", "mlx5_vfio_pci"),
    ],
)
def test_what_a_host_can_not_do_has_a_reason_and_a_remedy(
    name: str, boot: KvmBoot | None, said: dict[str, str | list[str]], reason: str, remedy: str
) -> None:
    capability = found(name, boot, **said)
    assert not capability.able
    assert reason in capability.reason
    assert remedy in capability.remedy


def test_a_host_that_says_nothing_can_do_nothing_and_every_no_is_explained() -> None:
    capabilities = judge(Look(), EVERY)
    names = [name for inspection in EVERY for name in inspection.capabilities]
    assert [capability.name for capability in capabilities] == names
    for capability in capabilities:
        assert not capability.able
        assert capability.reason
        assert capability.remedy


def test_what_the_console_said_last_goes_with_the_finding() -> None:
    assert found("kvm", GAVE_UP, device="kvm").detail == "qemu-system-x86_64: no"


# --- the look itself ---


def look_at(tree: Path) -> dict[str, tuple[str, ...]]:
    """The script, with a tree of our own in the place of the machine's."""
    script = script_of(EVERY)
    for place in ("/sys/", "/dev/", "/proc/", "/lib/modules/"):
        script = script.replace(f" {place}", f" {tree}{place}").replace(
            f'"{place}', f'"{tree}{place}'
        )
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    return facts.parse(done.stdout)


def put(tree: Path, path: str, text: str = "") -> Path:
    file = tree / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def link(tree: Path, path: str, target: str) -> None:
    (tree / path).parent.mkdir(parents=True, exist_ok=True)
    (tree / path).symlink_to(target)


def test_the_look_finds_what_there_is(tmp_path: Path) -> None:
    release = os.uname().release
    for device in ("kvm", "net/tun"):
        link(tmp_path, f"dev/{device}", "/dev/null")
    put(tmp_path, "dev/vhost-net")  # no device
    put(tmp_path, "proc/cpuinfo", "model name\t: A 1\nmodel name\t: A 2\n")
    put(tmp_path, "proc/sys/vm/unprivileged_userfaultfd", "0")
    put(tmp_path, "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "77\n")
    put(tmp_path, "sys/kernel/iommu_groups/0/x")
    put(tmp_path, "sys/kernel/iommu_groups/1/x")
    put(tmp_path, "sys/bus/vdpa/x")
    put(tmp_path, "sys/bus/pci/drivers/mlx5_vfio_pci/x")
    put(tmp_path, "sys/module/vp_vdpa/x")
    for address, model in (("0000:00:10.0", "0x1041"), ("0000:00:11.0", "0x1042")):
        put(tmp_path, f"sys/bus/pci/devices/{address}/vendor", "0x1af4\n")
        put(tmp_path, f"sys/bus/pci/devices/{address}/device", f"{model}\n")
    modules = f"lib/modules/{release}/kernel/drivers/vfio"
    put(tmp_path, f"{modules}/pci/qat/qat_vfio_pci.ko.xz")
    for address, total, made in (("0000:01:00.0", 4, 0), ("0000:02:00.0", 3, 3)):
        put(tmp_path, f"sys/bus/pci/devices/{address}/sriov_totalvfs", f"{total}\n")
        put(tmp_path, f"sys/bus/pci/devices/{address}/sriov_numvfs", f"{made}\n")
    used = "sys/bus/pci/devices/0000:02:00.0"
    link(tmp_path, f"{used}/virtfn0/driver", "../drivers/vfio-pci")
    link(tmp_path, f"{used}/virtfn0/iommu_group", "../groups/10")
    link(tmp_path, "proc/7/fd/3", f"{tmp_path}/dev/vfio/10")
    link(tmp_path, f"{used}/virtfn1/driver", "../drivers/igbvf")
    link(tmp_path, f"{used}/virtfn2/driver", "../drivers/vfio-pci")  # opened by nobody
    link(tmp_path, f"{used}/virtfn2/iommu_group", "../groups/12")
    said = look_at(tmp_path)
    assert said["kernel"] == (release,)
    assert said["cpu"] == ("A 1",)
    assert said["device"] == ("kvm", "net/tun")
    assert said["vdpa-module"] == ("vp_vdpa",)
    assert said["virtio-net"] == ("0000:00:10.0",)
    assert said["userfaultfd"] == ("0",)
    assert said["huge-free"] == ("77",)
    assert said["iommu-group"] == ("0", "1")
    assert said["vfio-driver"] == ("mlx5_vfio_pci",)
    assert said["vfio-module"] == ("qat_vfio_pci.ko.xz",)
    assert "vdpa" in said["bus"]
    assert said["pf"] == ("0000:01:00.0 4 4", "0000:02:00.0 3 2")


def test_the_look_at_a_bare_machine_says_little(tmp_path: Path) -> None:
    said = look_at(tmp_path)
    ours = {"kernel", "cpu", "address", "ovs", "vdpa-tool", "qemu", "trace-point", "log-item"}
    assert set(said) <= ours


def test_a_part_that_finds_nothing_does_not_fail_the_look() -> None:
    parts = [facts.Inspection("false", {}), facts.Inspection("say key value; false", {})]
    done = subprocess.run(
        ["sh", "-c", script_of(parts)], capture_output=True, text=True, check=True
    )
    assert facts.parse(done.stdout)["key"] == ("value",)


# --- KVM is tried, in a host of the local lab ---


@dataclass(frozen=True)
class Image:
    """Names only: what stands in for QEMU does not read the files."""

    kernel: Path = Path("/kernel")
    initrd: Path = Path("/initrd")
    cmdline: str = "console=ttyS0"


@pytest.fixture(scope="module")
def lab(root: None) -> Iterator[LocalLab]:
    name = new_name()
    hosts = {host: LocalHostConfig(huge_pages=0) for host in "ab"}
    try:
        yield local.KIND.up(LocalConfig(name=name, hosts=hosts))
    finally:
        remove_lab(name)


@pytest.fixture
def host(lab: LocalLab) -> NamespaceHost:
    host = lab.hosts["a"]
    host = dataclasses.replace(host, path=f"{STAND_INS}:{host.path}")
    host.file(STAND_INS).mkdir(exist_ok=True)
    return host


def stand_in(host: NamespaceHost, script: str) -> None:
    """A QEMU whose doings are known; it notes that it was started, and how."""
    program = host.file(f"{STAND_INS}/qemu-system-x86_64")
    program.write_text(f'#!/bin/sh\necho "$@" >>/root/started\n{script}\n')
    program.chmod(0o755)
    host.file("/root/started").write_text("")


def starts(host: NamespaceHost) -> list[str]:
    return host.file("/root/started").read_text().splitlines()


def left(host: NamespaceHost) -> list[str]:
    """What runs in the host beside its own daemons, once what was killed had time to go."""
    own = ("/run/lab-init", "/bin/sleep infinity", "libvirtd", "virtlogd", "ps ")
    deadline = Deadline.after(5)
    while True:
        lines = host.run(["ps", "-e", "-o", "args="], Deadline.after(10)).out.splitlines()
        found = [line for line in lines if not line.startswith(own) and "<defunct>" not in line]
        if not found or deadline.passed():
            return found


def test_a_kernel_that_reaches_its_init_is_ended_at_once(host: NamespaceHost) -> None:
    stand_in(host, f"echo booting; echo '{INIT_REACHED}'; exec sleep 1000")
    boot = kvm_boot.boot(host, Image(), seconds=60)
    assert boot.reached
    assert boot.said == INIT_REACHED
    assert boot.seconds < 60
    assert left(host) == []
    (arguments,) = starts(host)
    assert "-accel kvm -cpu host" in arguments
    assert "-kernel /kernel -initrd /initrd -append console=ttyS0" in arguments


def test_a_kernel_that_hangs_is_ended_at_the_deadline(host: NamespaceHost) -> None:
    stand_in(host, "echo Booting from ROM..; exec sleep 1000")
    boot = kvm_boot.boot(host, Image(), seconds=0.3)
    assert not boot.reached
    assert not boot.gave_up
    assert boot.said == "Booting from ROM.."
    assert left(host) == []


def test_a_qemu_that_does_not_listen_is_ended_all_the_same(host: NamespaceHost) -> None:
    stand_in(host, "trap '' TERM; exec sleep 1000")
    assert not kvm_boot.boot(host, Image(), seconds=0.3).reached
    assert left(host) == []


def test_a_qemu_that_gives_up_is_quoted(host: NamespaceHost) -> None:
    stand_in(host, "echo 'qemu-system-x86_64: failed to initialize kvm' >&2; exit 1")
    boot = kvm_boot.boot(host, Image(), seconds=60)
    assert boot.gave_up
    assert boot.said == "qemu-system-x86_64: failed to initialize kvm"


def test_an_interrupted_try_leaves_no_process(host: NamespaceHost) -> None:
    stand_in(host, "echo up >/root/up; exec sleep 1000")
    up = host.file("/root/up")
    os.mkfifo(up)

    def interrupt() -> None:
        up.read_text()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    waiting = threading.Thread(target=interrupt)
    waiting.start()
    with pytest.raises(KeyboardInterrupt):
        kvm_boot.boot(host, Image(), BOOT_S)
    waiting.join()
    up.unlink()
    assert left(host) == []


def gathered(
    host: NamespaceHost, cache: Path, image: Image | None, *, fresh: bool = False
) -> HostFacts:
    with host.connect() as hypervisor:
        return gather(host, hypervisor, cache, image, INSPECTIONS, fresh=fresh)


def test_a_slow_lab_is_looked_at_for_longer(tmp_path: Path) -> None:
    left_s: list[float] = []

    class Slow:
        """Its programs take longer than a real host's."""

        name = root = "slow"

        def run(self, _words: Sequence[str], deadline: Deadline) -> Completed:
            left_s.append(deadline.left())
            raise HostError("look at the host")

    for patience in (1.0, 4.0):
        with pytest.raises(HostError, match="look at the host"):
            gather(
                cast("Host", Slow()), cast("Hypervisor", None), tmp_path, None, patience=patience
            )
    assert left_s[1] > 3 * left_s[0]


def test_the_try_is_kept_for_next_time_unless_asked_anew(
    host: NamespaceHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = host.run(["sh", "-c", script_of([HOST])], Deadline.after(20)).out
    if "kvm" not in facts.parse(said).get("device", ()):
        host.file("/dev/kvm").symlink_to("null")
    stand_in(host, f"echo '{INIT_REACHED}'")
    first = gathered(host, tmp_path, Image()).capability("kvm")
    assert first.able
    assert gathered(host, tmp_path, Image()).capability("kvm") == first
    assert len(starts(host)) == 1
    stand_in(host, "exit 1")
    assert gathered(host, tmp_path, Image()).capability("kvm") == first, "the finding is kept"
    assert not gathered(host, tmp_path, Image(), fresh=True).capability("kvm").able
    assert not gathered(host, tmp_path, Image()).capability("kvm").able, "the newer one is kept"
    (kept,) = (tmp_path / "facts").iterdir()
    kept.write_text("no finding")
    gathered(host, tmp_path, Image())
    assert len(starts(host)) == 2, "one that can't be read is found out anew"
    other = facts.PRELUDE.replace("release=$(uname -r)", "release=6.0-other")
    monkeypatch.setattr(facts, "PRELUDE", other)
    assert gathered(host, tmp_path, Image()).kernel == "6.0-other"
    assert len(starts(host)) == 3, "another kernel is another finding"


def test_without_an_image_kvm_is_not_tried_and_not_counted(
    host: NamespaceHost, tmp_path: Path
) -> None:
    stand_in(host, f"echo '{INIT_REACHED}'")
    seen = gathered(host, tmp_path, None)
    assert not seen.capability("kvm").able
    assert starts(host) == []
    assert list(tmp_path.iterdir()) == []


def test_a_host_tells_its_versions(host: NamespaceHost, tmp_path: Path) -> None:
    seen = gathered(host, tmp_path, None)
    assert (seen.host, seen.root, seen.kernel) == ("a", "debian-13", os.uname().release)
    assert seen.versions["qemu"].startswith("10.0.")
    assert seen.versions["libvirt"].startswith("11.3.")
    assert seen.versions["ovs"].startswith("3.5")
    assert seen.versions["dpdk"].startswith("24.11")
    assert seen.versions["kernel"] == seen.kernel
    assert seen.capability("tun").able
