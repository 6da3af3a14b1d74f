"""What a host can do: yes, or no with the reason and the remedy.

One fixed script looks at the host, in one round trip; pure functions judge what it said, one for
each capability, in one table. KVM alone is tried out: a ``/dev/kvm`` that opens may still be unable
to run Linux, so only a kernel that reached its init counts.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from migrate.clock import Deadline, now_ns
from migrate.drivers.libvirt import Hypervisor
from migrate.formats.virtio_features import canonical_name, not_shadowable
from migrate.lab.api import Host, Runs
from migrate.lab.state import write_atomically
from migrate.model import Capability, HostFacts, Value

INIT_REACHED = "migrate-lab: init reached"
"""What the guest image's first process says on the console."""
BOOT_S = 15.0
"""A kernel that KVM can run is at its init in about one second."""
HUGE_PAGES = 64
"""Of 2 MiB: what OVS-DPDK and one guest's rings need at the least."""

VARIANTS = frozenset(
    {
        "hisi_acc_vfio_pci",
        "mlx5_vfio_pci",
        "pds_vfio_pci",
        "qat_vfio_pci",
        "virtio_vfio_pci",
        "xe_vfio_pci",
    }
)
"""VFIO drivers that can carry a device's state (linux: drivers/vfio/pci)."""

# Every line is a key, a tab and a value. A file that is not there is an answer, too.
LOOK = r"""
say() { printf '%s\t%s\n' "$1" "$2"; }
names() { key=$1; shift; for path; do [ ! -e "$path" ] || say "$key" "${path##*/}"; done; }
text() { [ ! -r "$2" ] || say "$1" "$(cat "$2")"; }
release=$(uname -r)
say kernel "$release"
say cpu "$(sed -n 's/^model name[^:]*: *//p;T;q' /proc/cpuinfo)"
for device in kvm vhost-net net/tun userfaultfd; do
    [ ! -c "/dev/$device" ] || say device "$device"
done
names bus /sys/bus/*
for module in vhost_vdpa vp_vdpa; do
    if [ -e "/sys/module/$module" ] || modinfo "$module" >/dev/null 2>&1; then
        say vdpa-module "$module"
    fi
done
for device in /sys/bus/pci/devices/*; do
    [ -r "$device/vendor" ] || continue
    case $(cat "$device/vendor" "$device/device" | tr -d '\n') in
    0x1af40x1041) say virtio-net "${device##*/}" ;;
    esac
done
names iommu-group /sys/kernel/iommu_groups/*
names vfio-driver /sys/bus/pci/drivers/*vfio*
for path in $(find "/lib/modules/$release/kernel/drivers/vfio" -name '*.ko*' 2>/dev/null); do
    say vfio-module "${path##*/}"
done
[ ! -S /run/openvswitch/ovs-vswitchd.ctl ] || say ovs-running yes
text huge-free /sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages
text userfaultfd /proc/sys/vm/unprivileged_userfaultfd
for total in /sys/bus/pci/devices/*/sriov_totalvfs; do
    [ -e "$total" ] || continue
    device=${total%/*}
    read -r vfs <"$total"
    read -r made <"$device/sriov_numvfs"
    free=$vfs
    if [ "$made" -gt 0 ]; then
        free=0
        for vf in "$device"/virtfn*; do
            group=$(readlink "$vf/iommu_group")
            # One that is bound to VFIO is free as long as nobody has opened it.
            case $(readlink "$vf/driver") in *vfio*)
                opened=$(find /proc/[0-9]*/fd -lname "/dev/vfio/${group##*/}" 2>/dev/null)
                [ -z "$opened" ] || continue
                ;;
            esac
            free=$((free + 1))
        done
    fi
    say pf "${device##*/} $vfs $free"
done
if command -v vdpa >/dev/null; then
    say vdpa-tool "$(vdpa mgmtdev show -j 2>/dev/null | tr -d '\n')"
fi
for program in /usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk ovs-vswitchd; do
    ! command -v "$program" >/dev/null || say ovs "$("$program" --version 2>&1 | tr '\n' ' ')"
done
"""

# Arguments: the line to wait for, seconds, the program and its arguments. The program is ended by
# its id as soon as the line is there. It stays in this script's process group, so that whoever ends
# that ends all; and where nobody does, `timeout` ends it.
BOOT = r"""
line=$1
shift
sh -c 'echo $$; exec timeout --foreground --kill-after=2 "$@" 2>&1' sh "$@" </dev/null | {
    read -r pid
    sed "/$line/q"
    kill "$pid" 2>/dev/null
}
"""


class KernelImage(Protocol):
    """A kernel that can be booted for a try; the host sees its files at the same paths."""

    @property
    def kernel(self) -> Path:
        """As QEMU's ``-kernel`` takes it."""

    @property
    def initrd(self) -> Path:
        """Its first process says :data:`INIT_REACHED`."""

    @property
    def cmdline(self) -> str:
        """With the console on the first serial port."""


class Boot(Value):
    """One try at booting a kernel under KVM."""

    reached: bool
    seconds: float
    said: str = ""
    """The last line of the guest's console, or of QEMU where that gave up."""
    gave_up: bool = False
    """QEMU ended by itself, before the time was up."""


@dataclass(frozen=True, slots=True)
class Look:
    """What the host said, by key; ``boot`` is None where KVM was not tried."""

    said: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    boot: Boot | None = None

    def all(self, key: str) -> tuple[str, ...]:
        """Every value of ``key``; none where the host has no such thing."""
        return self.said.get(key, ())

    def first(self, key: str) -> str:
        """The first value of ``key``, or nothing."""
        return next(iter(self.all(key)), "")


def gather(
    host: Host,
    hypervisor: Hypervisor,
    cache: Path,
    image: KernelImage | None,
    *,
    fresh: bool = False,
    seconds: float = BOOT_S,
) -> HostFacts:
    """Look at a host; ``fresh``: try KVM again, whatever was found last time, for ``seconds``.

    Without an image KVM is not tried, and not counted. Raises :class:`HostError` where the host
    can't be asked.
    """
    said = parse(host.run(["sh", "-c", LOOK], Deadline.after(20)).out)
    look = Look(said)
    versions = {"kernel": look.first("kernel"), **hypervisor.versions(), **_switch_versions(look)}
    if image is not None and "kvm" in look.all("device"):
        key = (host.root, versions["kernel"], versions["qemu"], look.first("cpu"))
        look = Look(said, boot_once(host, cache, key, image, fresh=fresh, seconds=seconds))
    return HostFacts(
        host=host.name,
        root=host.root,
        kernel=versions["kernel"],
        versions=versions,
        capabilities=judge(look),
    )


def judge(look: Look) -> tuple[Capability, ...]:
    """All capabilities, in the order of the table."""
    return tuple(_finding(name, judged(look)) for name, judged in CAPABILITIES.items())


def parse(text: str) -> dict[str, tuple[str, ...]]:
    """What :data:`LOOK` prints, by key."""
    found: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        key, tab, value = line.partition("\t")
        if tab:
            found[key] = (*found.get(key, ()), value.strip())
    return found


# --- KVM is tried -------------------------------------------------------------------------------


def boot(host: Runs, image: KernelImage, seconds: float = BOOT_S) -> Boot:
    """Boot a kernel under KVM on the host until its init speaks; nothing of it is left."""
    argv = [
        *("qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-M", "q35", "-m", "128"),
        *("-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"),
        *("-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", image.cmdline),
    ]
    began = now_ns()
    out = host.run(
        ["sh", "-c", BOOT, "sh", INIT_REACHED, f"{seconds:g}", *argv],
        Deadline.after(seconds + 10),
        check=False,
    ).out
    took = (now_ns() - began) / 1e9
    lines = [line.strip() for line in out.splitlines() if line.strip()]
    complaints = [line for line in lines if line.startswith("qemu-system")]
    console = [line for line in lines if line not in complaints]
    reached = INIT_REACHED in out
    gave_up = not reached and took < seconds
    return Boot(
        reached=reached,
        seconds=round(took, 1),
        said=((complaints or console if gave_up else console) or [""])[-1],
        gave_up=gave_up,
    )


def processor() -> str:
    """The name of this machine's processor."""
    match = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return match[1] if match else ""


def boot_once(
    host: Runs,
    cache: Path,
    key: tuple[str, ...],
    image: KernelImage,
    *,
    fresh: bool = False,
    seconds: float = BOOT_S,
) -> Boot:
    """:func:`boot`, or what came of it the last time for the same ``key``."""
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    kept = cache / "facts" / f"kvm-{digest}.json"
    if not fresh and kept.exists():
        try:
            return Boot.model_validate_json(kept.read_text())
        except ValidationError:  # of another version: found out anew, and written over
            pass
    found = boot(host, image, seconds)
    write_atomically(kept, found.model_dump_json(indent=2))
    return found


# --- one function a capability: what it has, or why not and what it takes -----------------------


@dataclass(frozen=True, slots=True)
class _Yes:
    detail: str = ""


@dataclass(frozen=True, slots=True)
class _No:
    reason: str
    remedy: str
    detail: str = ""


_Judged = _Yes | _No


def _finding(name: str, judged: _Judged) -> Capability:
    if isinstance(judged, _Yes):
        return Capability(name=name, able=True, detail=judged.detail)
    return Capability(
        name=name, able=False, detail=judged.detail, reason=judged.reason, remedy=judged.remedy
    )


def _kvm(look: Look) -> _Judged:
    if "kvm" not in look.all("device"):
        return _No(
            "the host has no /dev/kvm",
            "turn on virtualization in the firmware and load kvm_intel or kvm_amd; "
            "without it guests are emulated, slowly",
        )
    if look.boot is None:
        return _No("no guest image was at hand to try it with", "`migrate-lab doctor` makes one")
    if look.boot.reached:
        return _Yes(f"a Linux guest reached its init in {look.boot.seconds:.1f} s")
    how = (
        "QEMU gave up before a Linux guest reached its init"
        if look.boot.gave_up
        else f"a Linux guest did not reach its init in {look.boot.seconds:.0f} s"
    )
    return _No(
        f"/dev/kvm opens, but {how}",
        "a machine, or an outer hypervisor, with hardware virtualization that runs 64-bit guests; "
        "without it guests are emulated, slowly",
        look.boot.said,
    )


def _device(device: str, remedy: str) -> Callable[[Look], _Judged]:
    def judged(look: Look) -> _Judged:
        if device in look.all("device"):
            return _Yes(f"/dev/{device}")
        return _No(f"the host has no /dev/{device}", remedy)

    return judged


def _huge_pages(look: Look) -> _Judged:
    if not look.first("huge-free"):
        return _No(
            "this kernel has no huge pages of 2 MiB", "a kernel with CONFIG_HUGETLBFS on x86-64"
        )
    if look.first("ovs-running"):
        return _Yes("held by the host's OVS-DPDK, which is running")
    free = int(look.first("huge-free"))
    if free >= HUGE_PAGES:
        return _Yes(f"{free} pages of 2 MiB are free")
    return _No(
        f"{free} huge pages of 2 MiB are free, and {HUGE_PAGES} are needed",
        f"free memory, then `sysctl vm.nr_hugepages={HUGE_PAGES}`, or huge_pages in the lab file",
    )


def _ovs_dpdk(look: Look) -> _Judged:
    versions = _switch_versions(look)
    if "dpdk" not in versions:
        return _No(
            "the host has no Open vSwitch that is built with DPDK",
            "apt-get install openvswitch-switch-dpdk",
        )
    pages = _huge_pages(look)
    detail = f"OVS {versions.get('ovs', '?')}, DPDK {versions['dpdk']}"
    return _Yes(detail) if isinstance(pages, _Yes) else _No(pages.reason, pages.remedy, detail)


def _userfaultfd(look: Look) -> _Judged:
    if not look.first("userfaultfd"):
        return _No(
            "this kernel has no userfaultfd, which post-copy needs",
            "a kernel with CONFIG_USERFAULTFD",
        )
    return _Yes("post-copy is possible")


def _no_vdpa(look: Look) -> _No | None:
    """What is missing before any vDPA device could be had."""
    if "vdpa" not in look.all("bus") and not look.all("vdpa-module"):
        return _No("this kernel has no vDPA bus", "a kernel with CONFIG_VDPA and a vDPA device")
    if "vdpa-tool" not in look.said:
        return _No("the host has no `vdpa` program to ask with", "apt-get install iproute2")
    return None


def _managements(look: Look) -> dict[str, tuple[str, ...]]:
    """Management devices for networks, each with its features."""
    try:
        shown = json.loads(look.first("vdpa-tool"))["mgmtdev"]
        return {
            name: tuple(canonical_name(told) for told in one.get("dev_features", ()))
            for name, one in shown.items()
            if "net" in one.get("supported_classes", ())
        }
    except (ValueError, KeyError, TypeError, AttributeError):  # it prints nothing, or a complaint
        return {}


def _vhost_vdpa(look: Look) -> _Judged:
    """A vDPA device for a guest could be made: on a management device, or on what becomes one."""
    if missing := _no_vdpa(look):
        return missing
    modules = look.all("vdpa-module")
    if "vhost_vdpa" not in modules:
        return _No("this kernel has no module vhost_vdpa", "a kernel with CONFIG_VHOST_VDPA")
    # What is no hardware is no use: migrate.backends.vdpa.backend says why.
    found = {
        name: features
        for name, features in _managements(look).items()
        if name not in ("vduse", "vdpasim_net")
    }
    able = [_with_doubts(name, features) for name, features in found.items()]
    if "vp_vdpa" in modules:
        bindable = (f"pci/{address}" for address in look.all("virtio-net"))
        able += [f"{name} by vp_vdpa" for name in bindable if name not in found]
    if able:
        return _Yes(", ".join(able))
    return _No(
        "no management device has a network behind it, and no virtio device can become one",
        "load the vDPA driver of the network card (mlx5_vdpa, ...); for a virtio device: vp_vdpa",
    )


def _with_doubts(name: str, features: tuple[str, ...]) -> str:
    """QEMU blocks the migration of what it can't follow: that is said beforehand."""
    off = not_shadowable(features)
    return f"{name} (QEMU 10 shadows no {', '.join(off)}: see features_off)" if off else name


def _vdpa_management(look: Look) -> _Judged:
    if missing := _no_vdpa(look):
        return missing
    if devices := _managements(look):
        return _Yes(", ".join(devices))
    return _No(
        "no driver offers a vDPA management device",
        "load the vDPA driver of the network card (mlx5_vdpa, ...)",
    )


def _sriov(look: Look) -> _Judged:
    functions = [line.split() for line in look.all("pf")]
    able = [(name, int(total), int(free)) for name, total, free in functions if int(total) > 0]
    if not able:
        return _No(
            "no PCI device here can make virtual functions",
            "a network card with SR-IOV, turned on in the firmware",
        )
    detail = ", ".join(f"{name}: {free} of {total} free" for name, total, free in able)
    if any(free for _, _, free in able):
        return _Yes(detail)
    return _No(
        "every virtual function is in use by VFIO already",
        "end the guests that hold them, or unbind them from vfio-pci",
        detail,
    )


def _iommu(look: Look) -> _Judged:
    if groups := look.all("iommu-group"):
        return _Yes(f"{len(groups)} groups")
    return _No(
        "the kernel made no IOMMU groups",
        "turn on VT-d or AMD-Vi in the firmware and boot with intel_iommu=on",
    )


def _vfio_variant(look: Look) -> _Judged:
    loaded = VARIANTS & {name.replace("-", "_") for name in look.all("vfio-driver")}
    modules = {name.partition(".ko")[0].replace("-", "_") for name in look.all("vfio-module")}
    if loaded:
        return _Yes(", ".join(sorted(loaded)))
    if there := VARIANTS & modules:
        return _Yes(f"modules that can be loaded: {', '.join(sorted(there))}")
    return _No(
        "this kernel has no VFIO driver that can carry a device's state",
        "a card with such a driver (mlx5_vfio_pci, virtio_vfio_pci, ...) and a kernel with it",
    )


def _switch_versions(look: Look) -> dict[str, str]:
    """Of OVS and, where it is built with it, DPDK; the first program found wins."""
    found: dict[str, str] = {}
    for text in look.all("ovs"):
        for name, pattern in (("ovs", r"\(Open vSwitch\) (\S+)"), ("dpdk", r"\bDPDK (\S+)")):
            if match := re.search(pattern, text):
                found.setdefault(name, match[1])
    return found


CAPABILITIES: Mapping[str, Callable[[Look], _Judged]] = {
    "kvm": _kvm,
    "vhost-net": _device("vhost-net", "`modprobe vhost_net`; without it QEMU moves the packets"),
    "tun": _device("net/tun", "`modprobe tun`"),
    "huge-pages": _huge_pages,
    "ovs-dpdk": _ovs_dpdk,
    "userfaultfd": _userfaultfd,
    "vhost-vdpa": _vhost_vdpa,
    "vdpa-management": _vdpa_management,
    "sriov": _sriov,
    "iommu": _iommu,
    "vfio-variant": _vfio_variant,
}
