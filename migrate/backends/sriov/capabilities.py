"""Whether a host can give VFs to guests, and with a driver that carries their state."""

from __future__ import annotations

from migrate.formats.answers import MalformedError, quote, whole_number
from migrate.lab.capabilities import Inspection, Look, No, Yes

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

# A VF that is bound to VFIO is free as long as nobody has opened it.
SCRIPT = r"""
names iommu-group /sys/kernel/iommu_groups/*
names vfio-driver /sys/bus/pci/drivers/*vfio*
for path in $(find "/lib/modules/$release/kernel/drivers/vfio" -name '*.ko*' 2>/dev/null); do
    say vfio-module "${path##*/}"
done
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
"""


def _function(line: str) -> tuple[str, int, int]:
    """Address of a PF, how many VFs it can have, and how many are free."""
    words = line.split()
    if len(words) != 3:
        raise MalformedError("look for virtual functions", said=f"a PF is told as {quote(line)}")
    total, free = (whole_number(word, "look for virtual functions") for word in words[1:])
    return words[0], total, free


def _sriov(look: Look) -> Yes | No:
    """A PCI device with virtual functions to spare."""
    try:
        functions = [_function(line) for line in look.all("pf")]
    except MalformedError as error:
        return No(f"its PCI devices could not be inspected: {error.said}", "see /sys/bus/pci there")
    able = [(name, total, free) for name, total, free in functions if total > 0]
    if not able:
        return No(
            "no PCI device here can make virtual functions",
            "a network card with SR-IOV, turned on in the firmware",
        )
    detail = ", ".join(f"{name}: {free} of {total} free" for name, total, free in able)
    if any(free for _, _, free in able):
        return Yes(detail)
    return No(
        "every virtual function is in use by VFIO already",
        "end the guests that hold them, or unbind them from vfio-pci",
        detail,
    )


def _iommu(look: Look) -> Yes | No:
    """The kernel made IOMMU groups."""
    if groups := look.all("iommu-group"):
        return Yes(f"{len(groups)} groups")
    return No(
        "the kernel made no IOMMU groups",
        "turn on VT-d or AMD-Vi in the firmware and boot with intel_iommu=on",
    )


def _vfio_variant(look: Look) -> Yes | No:
    """A VFIO driver that can carry a device's state. Without it a `hostdev` moves only by
    `policy.method = "reattach"`."""
    loaded = VARIANTS & {name.replace("-", "_") for name in look.all("vfio-driver")}
    modules = {name.partition(".ko")[0].replace("-", "_") for name in look.all("vfio-module")}
    if loaded:
        return Yes(", ".join(sorted(loaded)))
    if there := VARIANTS & modules:
        return Yes(f"modules that can be loaded: {', '.join(sorted(there))}")
    return No(
        "this kernel has no VFIO driver that can carry a device's state",
        "a card with such a driver (mlx5_vfio_pci, virtio_vfio_pci, ...) and a kernel with it",
    )


INSPECTION = Inspection(SCRIPT, {"sriov": _sriov, "iommu": _iommu, "vfio-variant": _vfio_variant})
