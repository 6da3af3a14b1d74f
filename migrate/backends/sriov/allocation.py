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

from migrate.backends.base import LeftoverKind
from migrate.backends.sriov.capabilities import VARIANTS
from migrate.backends.sriov.functions import Function, Physical, VfSettings, look
from migrate.clock import Deadline
from migrate.errors import HostError
from migrate.lab.state import ProcessId
from migrate.model import Interface, Value

if TYPE_CHECKING:
    from migrate.lab.api import Host

RUN = "/run/migrate-lab"
"""On each host: where it is written what was found."""
MADE = 2
"""VFs that are made where there are none: one for the guest, one to spare."""
UNDO_S = 60.0


class NoFunctionError(HostError):
    """The PF is fine, but all of its VFs are somebody's."""


class Ledger(Value):
    """What one controller found on a PF before it changed anything."""

    owner: str
    made: int
    """VFs that there were."""
    taken: tuple[Function, ...] = ()
    """As they were before."""

    @property
    def addresses(self) -> set[str]:
        """Of what is taken."""
        return {one.address for one in self.taken}

    def with_one(self, vf: Function) -> Ledger:
        """One more is taken."""
        return self.model_copy(update={"taken": (*self.taken, vf)})


@contextmanager
def leased(host: Host, interface: Interface, deadline: Deadline) -> Iterator[Function]:
    """A VF of the PF that ``host`` lends, for the length of the block.

    It is bound to VFIO if ``interface.vf.managed`` is off, else libvirt does that; MAC and VLAN are
    libvirt's to set and to put back in either case. Raises :class:`NoFunctionError`
    where the VFs are all in use, HostError for everything else.
    """
    pf = host.resources.pf
    if pf is None:
        raise HostError(
            "use a virtual function",
            host=host.name,
            said="the host lends no physical function",
            remedy="name the link of a card with SR-IOV as `pf` in the lab file",
        )
    ledger = restored(host, pf, deadline)
    found = look(host, pf, deadline)
    ledger = ledger or Ledger(owner=_owner(), made=found.made)
    mine: set[str] = set()
    try:
        if not found.made:
            _write(host, pf, ledger, deadline)
            found = _make(host, found, deadline)
        chosen = _free(host, found, ledger, interface)
        mine.add(chosen.address)
        _write(host, pf, ledger.with_one(chosen), deadline)
        _tell(host, pf, chosen.number, _wanted(interface), deadline)
        if not interface.vf.managed:
            bind_to_vfio(host, chosen, deadline)
        yield chosen
    finally:
        _release(host, pf, mine, Deadline.after(UNDO_S))


def restored(host: Host, pf: str, deadline: Deadline) -> Ledger | None:
    """Our own ledger of ``pf``, if there is one. That of a controller that is no more is used to
    put back what it left."""
    ledger = _read(host, pf, deadline)
    if ledger is None or ledger.owner == _owner():
        return ledger
    _put_back(host, pf, ledger, ledger.addresses, deadline)
    return None


# --- which one ----------------------------------------------------------------------------------


def _make(host: Host, found: Physical, deadline: Deadline) -> Physical:
    """Make VFs, where there are none. Their number can't change while there are some: that would
    take away all of them, and they may be somebody's."""
    wanted = min(MADE, found.total)
    try:
        _count(host, found, wanted, deadline)
    except HostError as error:
        raise HostError(
            f"make {wanted} virtual functions of {found.link}",
            host=host.name,
            said=error.said,
            remedy="the kernel's log on the host tells why; SR-IOV may be off in the firmware",
        ) from error
    found = look(host, found.link, deadline)
    if not found.functions:
        raise HostError(
            f"make {wanted} virtual functions of {found.link}",
            host=host.name,
            said="the kernel took the number, and none appeared",
            remedy="the kernel's log on the host tells why",
        )
    return found


def _free(host: Host, found: Physical, ledger: Ledger, interface: Interface) -> Function:
    """The first that nobody uses, that shares its IOMMU group with nothing, and that has the
    guest's MAC or can be given it."""
    free = [
        one for one in found.functions if not one.used_by and one.address not in ledger.addresses
    ]
    if not free:
        raise NoFunctionError(
            "lease a virtual function",
            host=host.name,
            said=f"none of the {len(found.functions)} of {found.link} is free",
            remedy=f"end the guests that hold them, or make more: it can have {found.total}",
        )
    alone = [one for one in free if one.group and not one.group_has]
    if not alone:
        one = free[0]
        raise HostError(
            f"pass {one.address} to a guest",
            host=host.name,
            said=f"its IOMMU group {one.group} has {', '.join(one.group_has)}, too"
            if one.group
            else "it is in no IOMMU group",
            remedy="a slot whose upstream ports have ACS"
            if one.group
            else "turn on the IOMMU in the firmware and boot with intel_iommu=on",
        )
    plain = interface.vf.vlan is None
    fitting = [one for one in alone if one.is_told or (plain and one.mac == interface.mac)]
    if not fitting:
        vlan = "" if plain else f", nor its VLAN {interface.vf.vlan}"
        raise HostError(
            f"give a VF of {found.link} the MAC {interface.mac}",
            host=host.name,
            said=f"its driver can't be told a VF's MAC{vlan}, and no free VF has that one",
            remedy="a card whose driver can (`ip link show` lists its VFs), e.g. igb or mlx5",
        )
    return fitting[0]


# --- what it is told, and who has it ------------------------------------------------------------


def _wanted(interface: Interface) -> VfSettings:
    """What the PF is to be told by us; None leaves it alone."""
    wanted = interface.vf
    return VfSettings(spoof_check=wanted.spoof_check, trust=wanted.trust, link=wanted.link)


def _tell(host: Host, pf: str, number: int, told: VfSettings, deadline: Deadline) -> None:
    """Tell the PF of a VF, word by word: a driver may know some and not others."""
    for words in told.words():
        try:
            host.run(["ip", "link", "set", "dev", pf, "vf", str(number), *words], deadline)
        except HostError as error:
            raise HostError(
                f"set {' '.join(words)} of VF {number} of {pf}",
                host=host.name,
                said=error.said,
                remedy="leave that option out, or use a PF whose driver knows it",
            ) from error


def bind_to_vfio(host: Host, vf: Function, deadline: Deadline) -> None:
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
            remedy="the kernel's log on the host tells why",
        )


def _count(host: Host, pf: Physical, number: int, deadline: Deadline) -> None:
    file = f"/sys/bus/pci/devices/{pf.address}/sriov_numvfs"
    host.run(["tee", file], deadline, text=f"{number}\n")


# --- putting back -------------------------------------------------------------------------------


def _release(host: Host, pf: str, mine: set[str], deadline: Deadline) -> None:
    ledger = _read(host, pf, deadline)
    if ledger is not None:
        _put_back(host, pf, ledger, mine, deadline)


def _put_back(host: Host, pf: str, ledger: Ledger, these: set[str], deadline: Deadline) -> None:
    """Of what ``ledger`` has, put ``these`` back; with the last of it goes the file.

    HostError if one can't be had back as it was: the file stays, for the next one to try.
    """
    now = look(host, pf, deadline)
    there = {one.address: one for one in now.functions}
    for found in ledger.taken:
        # One that is gone went with its siblings, by somebody else's hand: its settings, too.
        if found.address in these and found.address in there:
            _put_one_back(host, pf, found, there[found.address], deadline)
    stay = tuple(one for one in ledger.taken if one.address not in these)
    if stay:
        _write(host, pf, ledger.model_copy(update={"taken": stay}), deadline)
        return
    if now.made != ledger.made:
        if now.made and ledger.made:
            _count(host, now, 0, deadline)
        _count(host, now, ledger.made, deadline)
    host.run(["rm", "-f", _file(pf)], deadline)


def _put_one_back(host: Host, pf: str, found: Function, now: Function, deadline: Deadline) -> None:
    _tell(host, pf, found.number, found.settings.differing(now.settings), deadline)
    if now.driver != found.driver or now.override != found.override:
        bind(host, found.address, found.driver, found.override, deadline)


# --- the file -----------------------------------------------------------------------------------


def _owner() -> str:
    """This process, by its start time, too: an id is used again."""
    return f"{platform.node()}/{os.getpid()}/{ProcessId.of(os.getpid()).started}"


def _file(pf: str) -> str:
    return f"{RUN}/vf-{pf}.json"


def _read(host: Host, pf: str, deadline: Deadline) -> Ledger | None:
    said = host.run(["cat", _file(pf)], deadline, check=False)
    return Ledger.model_validate_json(said.out) if said.status == 0 else None


# Argument: the file. It is written aside first, so it is whole or not there.
KEEP = 'mkdir -p "${1%/*}" && cat >"$1.new" && mv "$1.new" "$1"'


def _write(host: Host, pf: str, ledger: Ledger, deadline: Deadline) -> None:
    host.run(["sh", "-c", KEEP, "sh", _file(pf)], deadline, text=ledger.model_dump_json())


LEFTOVERS = (
    LeftoverKind(
        "VFs of {}",
        f"for path in {_file('*')}; do\n"
        '    [ ! -e "$path" ] || { pf=${path##*/vf-}; echo "${pf%.json}"; }\n'
        "done",
        restored,
    ),
)
"""VFs that were not put back, by their PF."""
