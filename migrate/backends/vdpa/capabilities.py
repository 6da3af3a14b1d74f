"""Whether a vDPA device can be made on a host."""

from __future__ import annotations

from collections.abc import Mapping

from migrate.backends.vdpa.bus import Offer, network_offers
from migrate.backends.vdpa.management import NO_NETWORK
from migrate.formats.answers import MalformedError
from migrate.formats.virtio_features import not_shadowable
from migrate.lab.capabilities import Inspection, Look, No, Yes

SCRIPT = r"""
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
if command -v vdpa >/dev/null; then
    say vdpa-tool "$(vdpa mgmtdev show -j 2>/dev/null | tr -d '\n')"
fi
"""


def _no_vdpa(look: Look) -> No | None:
    """What is missing before any vDPA device could be had."""
    if "vdpa" not in look.all("bus") and not look.all("vdpa-module"):
        return No("this kernel has no vDPA bus", "a kernel with CONFIG_VDPA and a vDPA device")
    if "vdpa-tool" not in look.said:
        return No("the host has no `vdpa` program to ask with", "apt-get install iproute2")
    return None


def _managements(look: Look) -> Mapping[str, Offer]:
    """Management devices for networks."""
    try:
        return network_offers(look.first("vdpa-tool"), "vdpa mgmtdev show")
    except MalformedError:  # it prints nothing, or a complaint
        return {}


def _vhost_vdpa(look: Look) -> Yes | No:
    """A vDPA device can be made: there are the bus, `vdpa`, the module vhost_vdpa, and a management
    device with a network behind it or a virtio device that `vp_vdpa` can have."""
    if missing := _no_vdpa(look):
        return missing
    modules = look.all("vdpa-module")
    if "vhost_vdpa" not in modules:
        return No("this kernel has no module vhost_vdpa", "a kernel with CONFIG_VHOST_VDPA")
    usable = {name: offer for name, offer in _managements(look).items() if name not in NO_NETWORK}
    able = [_with_doubts(offer) for offer in usable.values()]
    if "vp_vdpa" in modules:
        bindable = (f"pci/{address}" for address in look.all("virtio-net"))
        able += [f"{name} by vp_vdpa" for name in bindable if name not in usable]
    if able:
        return Yes(", ".join(able))
    return No(
        "no management device has a network behind it, and no virtio device can become one",
        "load the vDPA driver of the network card (mlx5_vdpa, ...); for a virtio device: vp_vdpa",
    )


def _with_doubts(offer: Offer) -> str:
    """QEMU blocks the migration of what it can't follow: that is said beforehand."""
    off = ", ".join(not_shadowable(offer.features))
    return f"{offer.name} (QEMU 10 shadows no {off}: see features_off)" if off else offer.name


def _vdpa_management(look: Look) -> Yes | No:
    """A driver can make vDPA devices: how to get one."""
    if missing := _no_vdpa(look):
        return missing
    if devices := _managements(look):
        return Yes(", ".join(devices))
    return No(
        "no driver offers a vDPA management device",
        "load the vDPA driver of the network card (mlx5_vdpa, ...)",
    )


INSPECTION = Inspection(SCRIPT, {"vhost-vdpa": _vhost_vdpa, "vdpa-management": _vdpa_management})
