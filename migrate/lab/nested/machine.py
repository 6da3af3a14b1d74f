"""A nested host's machine: QEMU's arguments, its start, its saved state.

q35 with an IOMMU that remaps interrupts, so that VFIO works in it; a NIC with SR-IOV on a root port
of its own; a virtio NIC whose features vp_vdpa and shadow virtqueues can bear.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from migrate.clock import Deadline, until
from migrate.drivers.qmp import Asked, Monitor, monitor
from migrate.errors import HostError
from migrate.lab.namespaces import NamespaceHost
from migrate.lab.nested.config import MachineConfig
from migrate.lab.nested.image import MachineImage

MONITOR = "/run/machine.qmp"
CONSOLE = "/var/log/machine.log"
PID_FILE = "/run/machine.pid"
LINKS = (
    *(("mgmt", "mgmt"), ("mig", "mig"), ("data", "data")),
    *(("ovs", "data"), ("pf", "data"), ("vdpa", "data")),
)
"""A machine's links, and the bridge of the fabric that each is joined to."""
VFS = (1, 2)
"""VFs of a virtio NIC; an igb has seven, which need no links of their own."""
GUEST_MAC = "52:54:00:6d:6c:01"
"""A vDPA device by vp_vdpa has the MAC of the device below it: that of model.Interface."""
VDPA_SLOT = "0000:00:10.0"
# Without these a guest's rings can be followed in a migration: QEMU's shadow virtqueues know none
# of them ("vdpa svq does not work with features", "SVQ Invalid device feature flags").
NOT_FOR_SHADOW = (
    *("event_idx", "indirect_desc", "queue_reset", "guest_announce"),
    *("guest_uso4", "guest_uso6", "host_uso"),
)
UNFINISHED = "not finalized yet"
"""In QEMU's answer to `cont` when its migration has just completed."""
POLL_S = 0.05
"""Between two tries: nothing tells when it can go on."""
EMULATED_CPU = "EPYC-Milan,+svm,+npt,-erms,-fsrm"
"""TCG runs `rep movsb` a byte a turn: without these flags Linux and the C library copy and clear
memory by words and vectors, which is ten times as fast there."""
QUIET = (
    "console=ttyS0 quiet loglevel=4 intel_iommu=on iommu=pt mitigations=off random.trust_cpu=on "
    "no_timer_check tsc=reliable net.ifnames=0 cryptomgr.notests panic=-1"
)


@dataclass(frozen=True, slots=True)
class Machine:
    """One nested host, as it is to be started."""

    name: str
    number: int
    config: MachineConfig
    image: MachineImage
    shares: Sequence[Path]
    """Folders of this machine that the host sees at the same paths."""
    accelerator: str

    def arguments(self) -> list[str]:
        """QEMU's, without a way to come in."""
        emulated = self.accelerator == "tcg"
        cpu = EMULATED_CPU if emulated else "host"
        accelerator = "tcg,thread=multi" if emulated else "kvm"
        command = f"{QUIET} hugepages={self.config.huge_pages} lab.name={self.name}"
        return [
            *("qemu-system-x86_64", "-name", self.name, "-M", "q35,kernel-irqchip=split"),
            *("-accel", accelerator, "-cpu", cpu, "-smp", "1", "-m", str(self.config.memory_mib)),
            *("-nodefaults", "-display", "none", "-no-reboot"),
            *("-uuid", f"6d6c6162-0000-4000-9000-{self.number:012x}"),
            *("-device", "intel-iommu,intremap=on,caching-mode=on"),
            *("-kernel", str(self.image.kernel), "-initrd", str(self.image.initrd)),
            *("-append", f"{command} lab.number={self.number}"),
            *("-drive", f"if=none,id=root,file={self.image.disk},format=raw,readonly=on"),
            *("-device", "virtio-blk-pci,drive=root"),
            *self._links(),
            *self._shares(),
            *("-qmp", f"unix:{MONITOR},server=on,wait=off", "-serial", f"file:{CONSOLE}"),
            *("-daemonize", "-pidfile", PID_FILE),
        ]

    def _links(self) -> list[str]:
        arguments: list[str] = []
        for place, (link, _) in enumerate(LINKS, 1):
            tap = f"tap,id={link},ifname={self.name}-{link},script=no,downscript=no"
            arguments += ["-netdev", tap]
            mac = f"02:6d:6c:{place:02x}:00:{self.number:02x}"
            if link == "pf":
                arguments += self._physical_function(mac)
            elif link == "vdpa":
                without = ",".join(f"{feature}=off" for feature in NOT_FOR_SHADOW)
                slot = VDPA_SLOT.rsplit(":", maxsplit=1)[-1].partition(".")[0]
                shape = f"iommu_platform=on,disable-legacy=on,{without},addr=0x{slot}"
                arguments += [
                    "-device",
                    f"virtio-net-pci,netdev=vdpa,mac={GUEST_MAC},romfile=,{shape}",
                ]
            else:
                arguments += ["-device", f"virtio-net-pci,netdev={link},mac={mac},romfile="]
        return arguments

    def _physical_function(self, mac: str) -> list[str]:
        if self.config.nic == "igb":
            card = f"igb,bus=pf-port,netdev=pf,mac={mac}"
            return ["-device", "pcie-root-port,id=pf-port", "-device", card]
        # Its VFs are devices of their own, each with a network of its own.
        vfs = ["-device", "pcie-root-port,id=pf-port"]
        shape = "iommu_platform=on,disable-legacy=on,romfile="
        for vf in VFS:
            tap = f"tap,id=vf{vf},ifname={self.name}-vf{vf},script=no,downscript=no"
            vf_mac = GUEST_MAC if vf == 1 else f"02:6d:6c:1{vf}:00:{self.number:02x}"
            place = f"bus=pf-port,addr=0x0.0x{vf},netdev=vf{vf},mac={vf_mac},sriov-pf=pf"
            vfs += ["-netdev", tap, "-device", f"virtio-net-pci,{place},{shape}"]
        place = f"id=pf,bus=pf-port,addr=0x0.0x0,netdev=pf,mac={mac}"
        return [*vfs, "-device", f"virtio-net-pci,{place},{shape}"]

    def _shares(self) -> list[str]:
        arguments: list[str] = []
        for number, path in enumerate(self.shares):
            share = f"local,id=share{number},path={path},security_model=none,multidevs=remap"
            device = f"virtio-9p-pci,fsdev=share{number},mount_tag=share{number}"
            arguments += ["-fsdev", share, "-device", device]
        return arguments


def taps(name: str, config: MachineConfig) -> list[tuple[str, str]]:
    """Taps to make before a host's start, and the bridge that each belongs to."""
    own = [(f"{name}-{link}", bridge) for link, bridge in LINKS]
    vfs = [(f"{name}-vf{vf}", "data") for vf in VFS if config.nic == "virtio"]
    return own + vfs


def start(machine: Machine, outer: NamespaceHost, deadline: Deadline) -> None:
    """Start it cold; returns when QEMU runs, long before the host answers."""
    outer.run(machine.arguments(), deadline)


def restore(machine: Machine, outer: NamespaceHost, state: Path, deadline: Deadline) -> None:
    """Start it from a saved state: the host goes on where it was."""
    outer.run([*machine.arguments(), "-incoming", "defer"], deadline)
    with controlled(outer, deadline) as qemu:
        _use_mapped_ram(qemu, deadline)
        qemu.migrate("migrate-incoming", deadline, uri=f"file:{state}")
        _go_on(qemu, deadline)


def save(outer: NamespaceHost, state: Path, deadline: Deadline) -> None:
    """Save its state to a file; it runs on afterwards. A mounted share makes QEMU refuse."""
    with controlled(outer, deadline) as qemu:
        _use_mapped_ram(qemu, deadline)
        qemu.execute("stop", deadline)
        qemu.migrate("migrate", deadline, uri=f"file:{state}")
        _go_on(qemu, deadline)


def controlled(outer: NamespaceHost, deadline: Deadline) -> AbstractContextManager[Monitor]:
    """The machine's monitor while the block runs."""
    return monitor(outer.file(MONITOR), outer.name, deadline)


def _use_mapped_ram(qemu: Monitor, deadline: Deadline) -> None:
    wanted = [{"capability": name, "state": True} for name in ("mapped-ram", "events")]
    qemu.execute("migrate-set-capabilities", deadline, capabilities=wanted)


def _go_on(qemu: Asked, deadline: Deadline) -> None:
    """Let it run. QEMU tells that a migration is complete some moments before it can go on."""

    def goes_on() -> bool:
        qemu.execute("cont", deadline)
        return True

    until(
        goes_on,
        deadline,
        POLL_S,
        not_yet=lambda error: isinstance(error, HostError) and UNFINISHED in error.said,
    )
