"""Virtual functions (VFs) of a host's physical function (PF): each is leased for a block's length.

What is found is written to a file on the host before any of it is changed, and all of it is put
back at the end: the VF's driver and override, what the PF was told of it, and how many VFs there
were. A controller that was killed leaves that file: whoever comes next restores from it first.
Hosts are leased (:mod:`migrate.lab.lease.file_lock`), so a file of another controller's is of a
dead one.

Sources: linux Documentation/PCI/pci-iov-howto.rst, Documentation/ABI/testing/sysfs-bus-pci,
Documentation/driver-api/vfio.rst.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pydantic import ValidationError

from migrate.backends.base import LeftoverKind
from migrate.backends.sriov.capabilities import VARIANTS
from migrate.backends.sriov.functions import Pf, Vf, VfSettings, read_pf
from migrate.clock import Deadline
from migrate.errors import HostError
from migrate.formats.answers import quote
from migrate.lab.host_journal import RUN, keep
from migrate.lab.state import ProcessId
from migrate.model import Interface, Value

if TYPE_CHECKING:
    from migrate.lab.api import Host

DEFAULT_VFS = 2
"""VFs that are made where there are none: one for the guest, one to spare."""
UNDO_S = 60.0


class NoFreeVfError(HostError):
    """The PF is fine, but all of its VFs are somebody's."""


class Ledger(Value):
    """What one controller found on a PF before it changed anything."""

    owner: str
    made: int
    """VFs that there were."""
    taken: tuple[Vf, ...] = ()
    """Those that it leased, as they were before."""

    @property
    def addresses(self) -> set[str]:
        """Where the leased ones are."""
        return {vf.address for vf in self.taken}

    def with_vf(self, vf: Vf) -> Ledger:
        """One more is leased."""
        return self.model_copy(update={"taken": (*self.taken, vf)})


@contextmanager
def lease_vf(host: Host, interface: Interface, deadline: Deadline) -> Iterator[Vf]:
    """A VF of the PF that ``host`` provides, for the length of the block.

    It is bound to VFIO if ``interface.vf.managed`` is off, else libvirt does that; MAC and VLAN are
    libvirt's to set and to put back in either case. Raises :class:`NoFreeVfError`
    where the VFs are all in use, HostError for everything else.
    """
    link = host.resources.pf
    if link is None:
        raise HostError(
            "use a virtual function",
            host=host.name,
            said="the host provides no physical function",
            remedy="name the link of a card with SR-IOV as `pf` in the lab file",
        )
    ledger = restore(host, link, deadline)
    pf = read_pf(host, link, deadline)
    ledger = ledger or Ledger(owner=_owner(), made=pf.num_vfs)
    leased: set[str] = set()
    try:
        if not pf.num_vfs:
            _write(host, link, ledger, deadline)
            pf = _create_vfs(host, pf, deadline)
        vf = _choose(host, pf, ledger, interface)
        leased.add(vf.address)
        _write(host, link, ledger.with_vf(vf), deadline)
        _apply(host, link, vf.number, _settings_of(interface), deadline)
        if not interface.vf.managed:
            bind_to_vfio(host, vf, deadline)
        yield vf
    finally:
        _release(host, link, leased, Deadline.after(UNDO_S))


def restore(host: Host, link: str, deadline: Deadline) -> Ledger | None:
    """Our own ledger of the PF, if there is one. That of a controller that is no more is used to
    put back what it left."""
    ledger = read_ledger(host, link, deadline)
    if ledger is None or ledger.owner == _owner():
        return ledger
    _put_back(host, link, ledger, ledger.addresses, deadline)
    return None


# --- which one ----------------------------------------------------------------------------------


def _create_vfs(host: Host, pf: Pf, deadline: Deadline) -> Pf:
    """Make VFs, where there are none. Their number can't change while there are some: that would
    take away all of them, and they may be somebody's."""
    number = min(DEFAULT_VFS, pf.total_vfs)
    try:
        _set_num_vfs(host, pf, number, deadline)
    except HostError as error:
        raise HostError(
            f"make {number} virtual functions of {pf.link}",
            host=host.name,
            said=error.said,
            remedy="see the kernel's log on the host; SR-IOV may be off in the firmware",
        ) from error
    pf = read_pf(host, pf.link, deadline)
    if not pf.vfs:
        raise HostError(
            f"make {number} virtual functions of {pf.link}",
            host=host.name,
            said="the kernel took the number, and none appeared",
            remedy="see the kernel's log on the host",
        )
    return pf


def _choose(host: Host, pf: Pf, ledger: Ledger, interface: Interface) -> Vf:
    """The first that nobody uses, that shares its IOMMU group with nothing, and that has the
    guest's MAC or can be given it."""
    free = [vf for vf in pf.vfs if not vf.used_by and vf.address not in ledger.addresses]
    if not free:
        raise NoFreeVfError(
            "lease a virtual function",
            host=host.name,
            said=f"none of the {len(pf.vfs)} of {pf.link} is free",
            remedy=f"end the guests that hold them, or make more: it can have {pf.total_vfs}",
        )
    isolated = [vf for vf in free if vf.group and not vf.group_has]
    if not isolated:
        raise _not_isolated(host, free[0])
    plain = interface.vf.vlan is None
    fitting = [vf for vf in isolated if vf.has_settable_mac or (plain and vf.mac == interface.mac)]
    if not fitting:
        vlan = "" if plain else f", nor its VLAN {interface.vf.vlan}"
        raise HostError(
            f"give a VF of {pf.link} the MAC {interface.mac}",
            host=host.name,
            said=f"its driver can't set a VF's MAC{vlan}, and no free VF has that one",
            remedy="a card whose driver can (`ip link show` lists its VFs), e.g. igb or mlx5",
        )
    return fitting[0]


def _not_isolated(host: Host, vf: Vf) -> HostError:
    if not vf.group:
        said = "it is in no IOMMU group"
        remedy = "turn on the IOMMU in the firmware and boot with intel_iommu=on"
    else:
        said = f"its IOMMU group {vf.group} has {', '.join(vf.group_has)}, too"
        remedy = "a slot whose upstream ports have ACS"
    return HostError(f"pass {vf.address} to a guest", host=host.name, said=said, remedy=remedy)


# --- its settings, and its driver ---------------------------------------------------------------


def _settings_of(interface: Interface) -> VfSettings:
    """What we set; None leaves it alone."""
    wanted = interface.vf
    return VfSettings(spoof_check=wanted.spoof_check, trust=wanted.trust, link=wanted.link)


def _apply(host: Host, link: str, number: int, settings: VfSettings, deadline: Deadline) -> None:
    """Set what the PF has of a VF, one by one: a driver may know some and not others."""
    for argument in settings.arguments():
        try:
            host.run(["ip", "link", "set", "dev", link, "vf", str(number), *argument], deadline)
        except HostError as error:
            raise HostError(
                f"set {' '.join(argument)} of VF {number} of {link}",
                host=host.name,
                said=error.said,
                remedy="leave that option out, or use a PF whose driver knows it",
            ) from error


def bind_to_vfio(host: Host, vf: Vf, deadline: Deadline) -> None:
    """Bind ``vf`` to a VFIO driver: to one that can carry its state if the kernel has one for it,
    by its modules' aliases, as libvirt does where it binds."""
    fitting = [name.replace("-", "_") for name in vf.vfio_modules]
    module = next((name for name in fitting if name in VARIANTS), "vfio_pci")
    host.run(["modprobe", module], deadline)
    drivers = host.run(["ls", f"/sys/module/{module}/drivers"], deadline).out.split()
    driver = next((name.partition(":")[2] for name in drivers if name.startswith("pci:")), "")
    if not driver:
        raise HostError(
            f"bind {vf.address} to VFIO", host=host.name, said=f"{module} has no PCI driver"
        )
    bind(host, vf.address, driver, driver, deadline)


# Arguments: the address, the driver, and the override that stays: "" is none in either case.
BIND = r"""
set -e
poke() { printf '%s\n' "$2" | tee "$1" >/dev/null; }
cd /sys/bus/pci
[ ! -e "devices/$1/driver" ] || poke "devices/$1/driver/unbind" "$1"
poke "devices/$1/driver_override" "$2"
[ -z "$2" ] || poke drivers_probe "$1"
poke "devices/$1/driver_override" "$3"
readlink "devices/$1/driver" || true
"""


def bind(host: Host, address: str, driver: str, override: str, deadline: Deadline) -> None:
    """Have ``driver`` drive the device, whatever drives it now, and leave ``override``."""
    said = host.run(["sh", "-c", BIND, "sh", address, driver, override], deadline).out
    has = said.strip().rpartition("/")[2]
    if has != driver:
        raise HostError(
            f"bind {address} to {driver or 'no driver'}",
            host=host.name,
            said=f"its driver is {has or 'none'}",
            remedy="see the kernel's log on the host",
        )


def _set_num_vfs(host: Host, pf: Pf, number: int, deadline: Deadline) -> None:
    file = f"/sys/bus/pci/devices/{pf.address}/sriov_numvfs"
    host.run(["tee", file], deadline, text=f"{number}\n")


# --- putting back -------------------------------------------------------------------------------


def _release(host: Host, link: str, addresses: set[str], deadline: Deadline) -> None:
    ledger = read_ledger(host, link, deadline)
    if ledger is not None:
        _put_back(host, link, ledger, addresses, deadline)


def _put_back(
    host: Host, link: str, ledger: Ledger, addresses: set[str], deadline: Deadline
) -> None:
    """Put those of the ledger's VFs back that are at ``addresses``; with its last goes the file.

    HostError if one can't be had back as it was: the file stays, for the next one to try.
    """
    pf = read_pf(host, link, deadline)
    present = {vf.address: vf for vf in pf.vfs}
    for before in ledger.taken:
        # One that is gone went with its siblings, by somebody else's hand: its settings, too.
        if before.address in addresses and before.address in present:
            _put_vf_back(host, link, before, present[before.address], deadline)
    rest = tuple(vf for vf in ledger.taken if vf.address not in addresses)
    if rest:
        _write(host, link, ledger.model_copy(update={"taken": rest}), deadline)
        return
    if pf.num_vfs != ledger.made:
        if pf.num_vfs and ledger.made:
            _set_num_vfs(host, pf, 0, deadline)
        _set_num_vfs(host, pf, ledger.made, deadline)
    host.run(["rm", "-f", _file(link)], deadline)


def _put_vf_back(host: Host, link: str, before: Vf, now: Vf, deadline: Deadline) -> None:
    _apply(host, link, before.number, before.settings.differing(now.settings), deadline)
    if now.driver != before.driver or now.override != before.override:
        bind(host, before.address, before.driver, before.override, deadline)


# --- the file -----------------------------------------------------------------------------------


def _owner() -> str:
    """This process, by its start time, too: an id is used again."""
    return f"{platform.node()}/{os.getpid()}/{ProcessId.of(os.getpid()).started}"


def _file(link: str) -> str:
    return f"{RUN}/vf-{link}.json"


def read_ledger(host: Host, link: str, deadline: Deadline) -> Ledger | None:
    """What a controller wrote; None: there is none. HostError: something else lies there."""
    said = host.run(["cat", _file(link)], deadline, check=False)
    if said.status != 0:
        return None
    try:
        return Ledger.model_validate_json(said.out)
    except ValidationError as error:
        raise HostError(
            f"read what was found on {link}",
            host=host.name,
            said=f"{error.errors()[0]['msg']}: {quote(said.out)}",
            remedy=f"look into {_file(link)} there: it was not written by this version",
        ) from error


def _write(host: Host, link: str, ledger: Ledger, deadline: Deadline) -> None:
    keep(host, _file(link), ledger.model_dump_json(), deadline)


LEFTOVERS = (
    LeftoverKind(
        "VFs of {}",
        f"for path in {_file('*')}; do\n"
        '    [ ! -e "$path" ] || { pf=${path##*/vf-}; echo "${pf%.json}"; }\n'
        "done",
        restore,
    ),
)
"""VFs that were not put back, by their PF."""
