"""What a host can do: yes, or no with the reason and the remedy.

One script looks at the host, in one round trip; pure functions judge what it said, one for each
capability. Both come in parts: this module has that of the host itself, and each way to back an
interface adds its own (``migrate.backends``). KVM alone is tried out: a ``/dev/kvm`` that opens may
still be unable to run Linux, so only a kernel that reached its init counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from migrate.clock import Deadline
from migrate.lab.kvm_boot import BOOT_S, KernelImage, KvmBoot, boot_once
from migrate.model import Capability, HostFacts
from migrate.waiting import waiting

if TYPE_CHECKING:
    from migrate.drivers.libvirt import Hypervisor
    from migrate.lab.api import Host

# Every line is a key, a tab and a value. A file that is not there is an answer, too.
PRELUDE = r"""
say() { printf '%s\t%s\n' "$1" "$2"; }
names() { key=$1; shift; for path; do [ ! -e "$path" ] || say "$key" "${path##*/}"; done; }
text() { [ ! -r "$2" ] || say "$1" "$(cat "$2")"; }
release=$(uname -r)
say kernel "$release"
say cpu "$(sed -n 's/^model name[^:]*: *//p;T;q' /proc/cpuinfo)"
"""


@dataclass(frozen=True, slots=True)
class Look:
    """What the host said, by key; ``boot`` is None where KVM was not tried."""

    said: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    boot: KvmBoot | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of the kernel, QEMU, libvirt, and what inspections found."""

    def all(self, key: str) -> tuple[str, ...]:
        """Every value of ``key``; none where the host has no such thing."""
        return self.said.get(key, ())

    def first(self, key: str) -> str:
        """The first value of ``key``, or nothing."""
        return next(iter(self.all(key)), "")


@dataclass(frozen=True, slots=True)
class Yes:
    """The host can; with what."""

    detail: str = ""


@dataclass(frozen=True, slots=True)
class No:
    """The host can't: why, and what it takes."""

    reason: str
    remedy: str
    detail: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Inspection:
    """A part of the look at a host."""

    script: str
    """Shell, after :data:`PRELUDE`: it says what there is. What is not there is an answer, too."""
    capabilities: Mapping[str, Callable[[Look], Yes | No]]
    """By name; the docstring of each says what it means, and is in the documentation."""
    versions: Callable[[Look], Mapping[str, str]] = lambda _look: {}
    """Of the programs that it found."""


LOOK_S = 20.0
"""For all that is looked at on a host, in one script."""


def gather(
    host: Host,
    hypervisor: Hypervisor,
    cache: Path,
    image: KernelImage | None,
    inspections: Sequence[Inspection] = (),
    *,
    fresh: bool = False,
    patience: float = 1.0,
) -> HostFacts:
    """Look at a host, with ``inspections`` beside our own; ``fresh``: try KVM again, whatever was
    found last time; ``patience``: how many times longer than usual the host may take.

    Without an image KVM is not tried, and not counted. Raises :class:`HostError` where the host
    can't be asked.
    """
    every = (HOST, *inspections)
    said = parse(host.run(["sh", "-c", script_of(every)], Deadline.after(LOOK_S * patience)).out)
    said["guest-link"] = host.resources.guest_links
    look = Look(said)
    versions = {"kernel": look.first("kernel"), **hypervisor.versions()}
    for inspection in every:
        versions |= inspection.versions(look)
    tried = None
    if image is not None and "kvm" in look.all("device"):
        key = (host.root, versions["kernel"], versions["qemu"], look.first("cpu"))
        boot_s = BOOT_S * patience
        with waiting(f"the trial boot of Linux under KVM on host {host.name}", boot_s):
            tried = boot_once(host, cache, key, image, fresh=fresh, seconds=boot_s)
    look = Look(said, tried, versions)
    return HostFacts(
        host=host.name,
        root=host.root,
        kernel=versions["kernel"],
        versions=versions,
        capabilities=judge(look, every),
    )


def script_of(inspections: Iterable[Inspection]) -> str:
    """The whole script; it succeeds, whatever its last line finds."""
    return "\n".join([PRELUDE, *(inspection.script for inspection in inspections), "exit 0"])


def judge(look: Look, inspections: Iterable[Inspection]) -> tuple[Capability, ...]:
    """All capabilities, in order."""
    return tuple(
        _finding(name, judged(look))
        for inspection in inspections
        for name, judged in inspection.capabilities.items()
    )


def parse(text: str) -> dict[str, tuple[str, ...]]:
    """What the script prints, by key."""
    found: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        key, tab, value = line.partition("\t")
        if tab:
            found[key] = (*found.get(key, ()), value.strip())
    return found


# --- KVM is tried -------------------------------------------------------------------------------


# --- one function a capability: what it has, or why not and what it takes -----------------------


def _finding(name: str, judged: Yes | No) -> Capability:
    if isinstance(judged, Yes):
        return Capability(name=name, able=True, detail=judged.detail)
    return Capability(
        name=name, able=False, detail=judged.detail, reason=judged.reason, remedy=judged.remedy
    )


def _kvm(look: Look) -> Yes | No:
    """A Linux guest reached its init under KVM within the deadline. Without it guests are
    emulated (TCG), and there is no `guest.dirty_ring`."""
    if "kvm" not in look.all("device"):
        return No(
            "the host has no /dev/kvm",
            "turn on virtualization in the firmware and load kvm_intel or kvm_amd; "
            "without it guests are emulated, slowly",
        )
    if look.boot is None:
        return No("no guest image to try it with", "`migrate-lab doctor` makes one")
    if look.boot.reached:
        return Yes(f"a Linux guest reached its init in {look.boot.seconds:.1f} s")
    how = (
        "QEMU gave up before a Linux guest reached its init"
        if look.boot.gave_up
        else f"a Linux guest did not reach its init in {look.boot.seconds:.0f} s"
    )
    return No(
        f"/dev/kvm opens, but {how}",
        "a machine, or an outer hypervisor, with hardware virtualization that runs 64-bit guests; "
        "without it guests are emulated, slowly",
        look.boot.said,
    )


def _device(look: Look, device: str, remedy: str) -> Yes | No:
    if device in look.all("device"):
        return Yes(f"/dev/{device}")
    return No(f"the host has no /dev/{device}", remedy)


def _vhost_net(look: Look) -> Yes | No:
    """The kernel processes a tap's virtqueues. Used where available."""
    return _device(look, "vhost-net", "`modprobe vhost_net`; without it QEMU moves the packets")


def _tun(look: Look) -> Yes | No:
    """Tap devices can be created."""
    return _device(look, "net/tun", "`modprobe tun`")


def _userfaultfd(look: Look) -> Yes | No:
    """Page faults can be handled in user space, as post-copy needs."""
    if not look.first("userfaultfd"):
        return No(
            "this kernel has no userfaultfd, which post-copy needs",
            "a kernel with CONFIG_USERFAULTFD",
        )
    return Yes("post-copy is possible")


def _guest_network(look: Look) -> Yes | No:
    """The host has no address on its bridge, uplink and physical function for guests. With one,
    guests and others on that network reach the host."""
    if not look.all("address"):
        return No("the host's addresses are not known", "apt-get install iproute2")
    links = look.all("guest-link")
    found = [text.split() for text in look.all("address")]
    reached = [f"{link} has {address}" for link, address in found if link in links]
    if reached:
        return No(
            f"guests reach the host itself: {', '.join(reached)}",
            "take the addresses off, and IPv6 (sysctl net.ipv6.conf.LINK.disable_ipv6=1), or name "
            "a bridge that has none; `migrate-lab doctor --reach` says what answers",
        )
    return Yes(f"the host has no address on {', '.join(links)}")


HOST = Inspection(
    script=r"""
for device in kvm vhost-net net/tun userfaultfd; do
    [ ! -c "/dev/$device" ] || say device "$device"
done
text userfaultfd /proc/sys/vm/unprivileged_userfaultfd
ip -o addr show 2>/dev/null | while read -r _ link _ address _; do
    say address "$link ${address%/*}"
done
""",
    capabilities={
        "kvm": _kvm,
        "vhost-net": _vhost_net,
        "tun": _tun,
        "userfaultfd": _userfaultfd,
        "guest-network": _guest_network,
    },
)
