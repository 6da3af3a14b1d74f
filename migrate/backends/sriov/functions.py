"""A PF and its VFs as they are, by sysfs and `ip link`, in one round trip."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from migrate.clock import Deadline
from migrate.errors import HostError
from migrate.formats.answers import MalformedError, quote, whole_number
from migrate.formats.network_tools import LINKS, Link, VfInfo, VfLink
from migrate.lab.capabilities import parse
from migrate.model import Value

if TYPE_CHECKING:
    from migrate.lab.api import Host

# Every line is a key, a tab and a value; "-" stands for nothing. Argument: the PF's link.
PF_SCRIPT = r"""
say() { printf '%s\t%s\n' "$1" "$2"; }
name() { path=$(readlink "$1") && echo "${path##*/}" || echo -; }
cd -P "/sys/class/net/$1/device" 2>/dev/null || exit 0
# A virtio device is on a bus of its own, below the PCI device that has the functions.
[ -e sriov_totalvfs ] || [ ! -e ../sriov_totalvfs ] || cd ..
say address "${PWD##*/}"
say driver "$(name driver)"
[ -r sriov_totalvfs ] || exit 0
say total "$(cat sriov_totalvfs)"
say made "$(cat sriov_numvfs)"
for vf in virtfn*; do
    [ -e "$vf" ] || continue
    number=${vf#virtfn}
    address=$(name "$vf")
    override=$(cat "$vf/driver_override")
    say vf "$number $address $(name "$vf/driver") $(name "$vf/iommu_group") $override"
    for other in "$vf"/iommu_group/devices/*; do
        # A bridge in the group is no device that could reach into the guest.
        case $(cat "$other/class" 2>/dev/null) in 0x0604*) continue ;; esac
        [ ! -e "$other" ] || say shares "$number ${other##*/}"
    done
    for link in "$vf"/net/* "$vf"/virtio*/net/*; do
        [ ! -e "$link" ] || say link "$number ${link##*/}"
    done
    for device in "$vf"/vfio-dev/*; do
        [ ! -e "$device" ] || say node "$number /dev/vfio/devices/${device##*/}"
    done
    for module in $(modprobe --resolve-alias "vfio_$(cat "$vf/modalias")" 2>/dev/null); do
        say module "$number $module"
    done
    [ ! -e "/run/libvirt/hostdevmgr/$1_vf$number" ] || say libvirt "$number"
done
say links "$(ip -json -details address show)"
find /proc/[0-9]*/fd -lname '/dev/vfio/*' -printf 'open\t%l\n' 2>/dev/null
exit 0
"""


class VfSettings(Value):
    """What a PF is set to for a VF; None: its driver does not say, or it is left alone."""

    mac: str | None = None
    vlan: int | None = None
    """0 is none."""
    spoof_check: bool | None = None
    trust: bool | None = None
    link: VfLink | None = None

    def arguments(self) -> list[tuple[str, str]]:
        """As ``ip link set … vf N`` takes them."""
        arguments: list[tuple[str, str]] = []
        if self.mac is not None:
            arguments.append(("mac", self.mac))
        if self.vlan is not None:
            arguments.append(("vlan", str(self.vlan)))
        if self.spoof_check is not None:
            arguments.append(("spoofchk", "on" if self.spoof_check else "off"))
        if self.trust is not None:
            arguments.append(("trust", "on" if self.trust else "off"))
        if self.link is not None:
            arguments.append(("state", self.link))
        return arguments

    def differing(self, other: VfSettings) -> VfSettings:
        """What of this is otherwise in ``other``."""
        own, others = self.model_dump(), other.model_dump()
        return VfSettings(**{key: own[key] for key in own if own[key] != others[key]})


class Vf(Value):
    """A virtual function as it is."""

    number: int
    address: str
    """Its PCI address, e.g. ``0000:01:10.0``."""
    driver: str = ""
    override: str = ""
    group: str = ""
    """Its IOMMU group."""
    group_has: tuple[str, ...] = ()
    """Other devices of that group, bridges left out."""
    links: tuple[str, ...] = ()
    """Network interfaces of the host, where a network driver has it."""
    used_by: str = ""
    """By whom, as far as can be seen; "" is nobody."""
    vfio_modules: tuple[str, ...] = ()
    """VFIO drivers that say they fit, by their aliases."""
    mac: str = ""
    """That of its link on the host."""
    settings: VfSettings = VfSettings()

    @property
    def has_settable_mac(self) -> bool:
        """Whether the PF can give it another MAC; else it has one for good."""
        return self.settings.mac is not None


class Pf(Value):
    """A physical function."""

    link: str
    address: str
    total_vfs: int
    """VFs that it can have."""
    num_vfs: int
    """VFs that it has."""
    vfs: tuple[Vf, ...]


def read_pf(host: Host, pf: str, deadline: Deadline) -> Pf:
    """The PF ``pf`` (the name of its link) with its VFs; HostError if it can't have any now."""
    return pf_of(parse(host.run(["sh", "-c", PF_SCRIPT, "sh", pf], deadline).out), pf, host.name)


def pf_of(said: Mapping[str, tuple[str, ...]], pf: str, host: str) -> Pf:
    """The PF by what :data:`PF_SCRIPT` printed; HostError if it can't have VFs now."""
    tried = f"use the physical function {pf}"

    def count(key: str) -> int:
        return whole_number(said.get(key, ("0",))[0], f"{tried}: {key}", host=host)

    driver = said.get("driver", ("-",))[0]
    if "address" not in said or driver == "-":
        raise HostError(
            tried,
            host=host,
            said="its driver is gone" if "address" in said else "the host has no such link",
            remedy="is the card's driver loaded (`lspci -k`), and `pf` right in the lab file?",
        )
    address = said["address"][0]
    if count("total") == 0:
        raise HostError(
            tried,
            host=host,
            said=f"{driver} makes no virtual functions of {address}",
            remedy="a card with SR-IOV, turned on in the firmware",
        )
    listed = LINKS.parse(said.get("links", ("",))[0], "ip address show", host=host)
    links = {link.ifname: link for link in listed if link.ifname}
    if pf not in links or "UP" not in links[pf].flags:
        raise HostError(
            tried,
            host=host,
            said="its link is down: its virtual functions would have no carrier",
            remedy=f"ip link set dev {pf} up",
        )
    settings = {info.vf: _settings(info) for info in links[pf].vfinfo_list}
    vfs = [_vf(_words(line, tried, host), said, links, settings) for line in said.get("vf", ())]
    return Pf(
        link=pf,
        address=address,
        total_vfs=count("total"),
        num_vfs=count("made"),
        vfs=tuple(sorted(vfs, key=lambda vf: vf.number)),
    )


def _words(line: str, tried: str, host: str) -> tuple[str, ...]:
    """Number, address, driver, group and override of a VF."""
    words = tuple(line.split())
    if len(words) != 5:
        raise MalformedError(tried, host=host, said=f"a VF is told as {quote(line)}")
    whole_number(words[0], tried, host=host)
    return words


def _vf(
    words: tuple[str, ...],
    said: Mapping[str, tuple[str, ...]],
    links: Mapping[str, Link],
    settings: Mapping[int, VfSettings],
) -> Vf:
    number, address, driver, group, override = words
    own = {
        key: tuple(line.partition(" ")[2] for line in lines if line.partition(" ")[0] == number)
        for key, lines in said.items()
        if key in ("shares", "link", "node", "module", "libvirt")
    }
    netdevs = own.get("link", ())
    nodes = {f"/dev/vfio/{group}", *own.get("node", ())}
    used = ""
    if nodes & set(said.get("open", ())):
        used = "a process that has it open"
    elif own.get("libvirt"):
        used = "libvirt"
    elif busy := [name for name in netdevs if name in links and _is_used(links[name])]:
        used = f"the host's link {busy[0]}"
    return Vf(
        number=int(number),
        address=address,
        driver=driver.strip("-"),
        override="" if override == "(null)" else override,
        group=group.strip("-"),
        group_has=tuple(other for other in own.get("shares", ()) if other != address),
        links=netdevs,
        used_by=used,
        vfio_modules=own.get("module", ()),
        mac=next((links[name].address for name in netdevs if name in links), ""),
        settings=settings.get(int(number), VfSettings()),
    )


def _is_used(link: Link) -> bool:
    """Whether the host uses the link: it has a master, or an address that was given to it."""
    addresses = [entry for entry in link.addr_info if entry.scope != "link"]
    return bool(addresses) or link.master is not None


def _settings(info: VfInfo) -> VfSettings:
    return VfSettings(
        mac=info.address,
        vlan=info.vlan_list[0].vlan if info.vlan_list else 0,
        spoof_check=info.spoofchk,
        trust=info.trust,
        link=info.link_state,
    )
