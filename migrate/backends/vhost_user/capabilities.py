"""Whether OVS-DPDK can run on a host, and serve a guest of its QEMU."""

from __future__ import annotations

import re

from migrate.formats.answers import MalformedError, whole_number
from migrate.lab.capabilities import Inspection, Look, No, Yes

HUGE_PAGES = 64
"""Of 2 MiB: what OVS-DPDK and one guest's rings need at the least."""

SCRIPT = r"""
[ ! -S /run/openvswitch/ovs-vswitchd.ctl ] || say ovs-running yes
text huge-free /sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages
for program in /usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk ovs-vswitchd; do
    ! command -v "$program" >/dev/null || say ovs "$("$program" --version 2>&1 | tr '\n' ' ')"
done
"""


def _huge_pages(look: Look) -> Yes | No:
    """64 pages of 2 MiB are free, or OVS-DPDK has them already."""
    if not look.first("huge-free"):
        return No(
            "this kernel has no huge pages of 2 MiB", "a kernel with CONFIG_HUGETLBFS on x86-64"
        )
    if look.first("ovs-running"):
        return Yes("held by the host's OVS-DPDK, which is running")
    try:
        free = whole_number(look.first("huge-free"), "read how many huge pages are free")
    except MalformedError as error:
        return No(f"{error.tried}: {error.said}", "see /sys/kernel/mm/hugepages there")
    if free >= HUGE_PAGES:
        return Yes(f"{free} pages of 2 MiB are free")
    return No(
        f"{free} huge pages of 2 MiB are free, and {HUGE_PAGES} are needed",
        f"free memory, then `sysctl vm.nr_hugepages={HUGE_PAGES}`, or huge_pages in the lab file",
    )


def _ovs_dpdk(look: Look) -> Yes | No:
    """An Open vSwitch that is built with DPDK, and pages for it."""
    versions = _switch_versions(look)
    if "dpdk" not in versions:
        return No(
            "the host has no Open vSwitch that is built with DPDK",
            "apt-get install openvswitch-switch-dpdk",
        )
    pages = _huge_pages(look)
    detail = f"OVS {versions.get('ovs', '?')}, DPDK {versions['dpdk']}"
    return Yes(detail) if isinstance(pages, Yes) else No(pages.reason, pages.remedy, detail)


def _switch_versions(look: Look) -> dict[str, str]:
    """Of OVS and, where it is built with it, DPDK; the first program found wins."""
    versions: dict[str, str] = {}
    for text in look.all("ovs"):
        for name, pattern in (("ovs", r"\(Open vSwitch\) (\S+)"), ("dpdk", r"\bDPDK (\S+)")):
            if match := re.search(pattern, text):
                versions.setdefault(name, match[1])
    return versions


def _vhost_user_guest(look: Look) -> Yes | No:
    """QEMU can have a guest on a vhost-user device: 7.2 crashes without KVM.

    An emulated guest has no vector_irqfd, which QEMU 7.2 (seen with 7.2.22) uses all the same
    when the guest's driver is ready (hw/virtio/virtio-pci.c, virtio_pci_set_guest_notifiers).
    """
    qemu = look.versions.get("qemu", "")
    reached = look.boot is not None and look.boot.reached
    if not qemu:
        return No("the version of the host's QEMU is not known", "libvirt with its QEMU driver")
    if qemu.startswith("7.2.") and not reached:
        return No(
            f"QEMU {qemu} crashes when an emulated guest uses a vhost-user device",
            "KVM, or a newer QEMU: 10.0 is known to work",
        )
    return Yes(f"QEMU {qemu}, {'KVM' if reached else 'emulated'}")


INSPECTION = Inspection(
    SCRIPT,
    {
        "huge-pages": _huge_pages,
        "ovs-dpdk": _ovs_dpdk,
        "vhost-user-guest": _vhost_user_guest,
    },
    _switch_versions,
)
