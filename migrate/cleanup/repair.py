"""What a dead controller left on a lab's hosts: listed, and put back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from migrate.backends.registry import LEFTOVERS, SWITCH
from migrate.cleanup.leftovers import listed
from migrate.clock import Deadline
from migrate.drivers.libvirt import Hypervisor
from migrate.errors import CleanupError, HostError, LabError
from migrate.formats.network_tools import LINKS
from migrate.guest.identity import Identity, recorded
from migrate.guest.lifecycle import end_guest
from migrate.lab.api import Host, Lab
from migrate.lab.lease.file_lock import lock_hosts
from migrate.lab.prepare.apply import UNDO_S, JournalFile, owner_exited, prepare, undo
from migrate.lab.prepare.plan import Owner, Preparation
from migrate.lab.prepare.steps import PreparedHost

LOGGER = logging.getLogger(__name__)

LOOK_S = 30.0
FORCE = "--force, if nobody uses the host"
READY_S = 120.0
"""For all steps of one host: OVS with DPDK is the slow one."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something that was left, and how it goes back; ``doubt``: why it may be in use yet."""

    what: str
    put_back: Callable[[Deadline], object]
    doubt: str = ""

    def __str__(self) -> str:
        return f"{self.what} ({self.doubt})" if self.doubt else self.what


def make_ready(lab: Lab, specs: Mapping[str, Preparation]) -> None:
    """Prepare every host as specified; those that were prepared stay so if another one fails."""
    for name, host in lab.hosts.items():
        deadline = Deadline.after(READY_S)
        with lock_hosts(lab.leases, [name], deadline):
            site = PreparedHost(host, SWITCH)
            if prepare(site, lab.name, specs.get(name, Preparation()), deadline) is None:
                LOGGER.info("%s: nothing to prepare", name)


def repair(lab: Lab, *, dry_run: bool = False, force: bool = False) -> int:
    """Put back what is left on every host of ``lab``; how much was there.

    HostError for a host that is leased, or where a live controller is at work, unless ``force``;
    :class:`CleanupError` with all that did not go back. Every host has its turn in any case.
    """
    count = 0
    reasons: list[Exception] = []
    for name, host in lab.hosts.items():
        try:
            with ExitStack() as stack:
                if not (dry_run or force):
                    stack.enter_context(lock_hosts(lab.leases, [name], Deadline.after(0)))
                for look in looks(host, lab.name):
                    try:
                        for leftover in look(Deadline.after(LOOK_S)):
                            count += 1
                            LOGGER.info("%s: %s", host.name, leftover)
                            if not dry_run:
                                reasons += _put_back(host, leftover, force=force)
                    except (LabError, ValueError) as error:  # the other looks go on
                        reasons.append(error)
        except LabError as error:
            reasons.append(error)
    if reasons:
        again = f"then `migrate-lab lab repair --name {lab.name}` again"
        raise CleanupError(f"repair the lab {lab.name}", reasons, remedy=again)
    return count


def _put_back(host: Host, leftover: Leftover, *, force: bool) -> list[Exception]:
    """Why it did not go back, if it did not."""
    try:
        if leftover.doubt and not force:
            tried = f"put back {leftover.what}"
            raise HostError(tried, host=host.name, said=leftover.doubt, remedy=FORCE)
        leftover.put_back(Deadline.after(UNDO_S))
    except (LabError, ValueError) as error:
        return [error]
    return []


# --- what is left -------------------------------------------------------------------------------


def looks(host: Host, lab: str) -> tuple[Callable[[Deadline], Iterator[Leftover]], ...]:
    """In the order in which things go back: guests before what backs them, the preparation last."""
    return (
        partial(_domains, host),
        partial(_taps, host),
        partial(_backends, host),
        partial(_preparation, host, lab),
    )


def _domains(host: Host, deadline: Deadline) -> Iterator[Leftover]:
    """Those that are ours by UUID and metadata; a host may have somebody else's of that name."""
    with host.connect() as hypervisor:
        for identity in recorded(host, deadline):
            domain = hypervisor.find(identity.uuid)
            # One that was coming in goes by itself when its source has gone.
            if domain is not None and identity.owns(domain):
                end = partial(_end_guest, host, hypervisor, identity)
                yield Leftover(f"domain {domain.name}", end)


def _end_guest(host: Host, hypervisor: Hypervisor, identity: Identity, _deadline: Deadline) -> None:
    end_guest(host, hypervisor, identity)


def _taps(host: Host, deadline: Deadline) -> Iterator[Leftover]:
    """Of guests of ours, without a process that holds them."""
    words = ["ip", "-json", "link", "show", "type", "tun"]
    said = host.run(words, deadline, check=False).out
    links = LINKS.parse(said or "[]", " ".join(words), host=host.name)
    down = {link.ifname for link in links if "LOWER_UP" not in link.flags}
    for identity in recorded(host, deadline):
        if (name := identity.tap) in down:
            yield Leftover(f"tap {name}", partial(host.run, ["ip", "link", "del", "dev", name]))


def _backends(host: Host, deadline: Deadline) -> Iterator[Leftover]:
    kinds = {kind.name: kind for kind in LEFTOVERS}
    scripts = {kind.name: kind.script for kind in LEFTOVERS}
    for name, item in listed(host, scripts, deadline):
        yield Leftover(name.format(item), partial(kinds[name].put_back, host, item))


def _preparation(host: Host, lab: str, deadline: Deadline) -> Iterator[Leftover]:
    file = JournalFile.read(PreparedHost(host, SWITCH), deadline)
    if file.journal is not None:
        what = f"the host is {file.journal.summary}"
        doubt = _doubt(file.journal.owner)
        if file.journal.lab != lab:
            doubt = f"that is another lab than {lab}"
        yield Leftover(what, partial(undo, file), doubt)


def _doubt(owner: Owner) -> str:
    return "" if owner_exited(owner) else f"{owner} may be at work yet"
