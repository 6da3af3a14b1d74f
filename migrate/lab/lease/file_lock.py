"""Leases: no two jobs use the same host at the same time, nor what it provides.

On one controller a lease is a file lock, so that it ends with its holder, whatever ended that.
Between controllers a coordinator keeps it as well, if the lab names one:
:mod:`migrate.lab.lease.reservation`.
"""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from migrate.clock import Deadline
from migrate.errors import extra
from migrate.files import make_private
from migrate.lab.api import Host, Lab
from migrate.locks import file_lock


class Lease(Protocol):
    """A lease, as its holder has it."""

    def check(self) -> None:
        """Before each step with the hosts; raises :class:`LeaseLostError`."""


class LocalLease:
    """File locks: no one can take them away."""

    def check(self) -> None:
        """Nothing can have taken them."""


def lease_key(host: Host) -> str:
    """What stands for ``host`` among the leases of its lab.

    Its name; or its ``lease_name``, if it has one: a host that several lab files may name. The
    leases of such labs have to be in one folder.
    """
    return _own_name(host) or host.name


def place_of(lab: str, host: object, name: str) -> str:
    """What a host is called at a coordinator: ``LAB/HOST``, or its ``lease_name``."""
    return _own_name(host) or f"{lab}/{name}"


def _own_name(host: object) -> str | None:
    known = getattr(host, "lease_name", None)
    return known if isinstance(known, str) else None


def holder(job: str = "") -> str:
    """This process as those who wait for it will read it."""
    what = f" for {job}" if job else ""
    return f"process {os.getpid()} of {getpass.getuser()}@{socket.gethostname()}{what}"


@contextmanager
def lease_hosts(
    lab: Lab,
    hosts: Iterable[Host],
    job: str,
    deadline: Deadline,
) -> Iterator[Lease]:
    """Hold ``hosts`` while the block runs: on this controller, and at the lab's coordinator.

    Raises :class:`HostError` if they are not free by the deadline; then none of them is held.
    """
    hosts = tuple(hosts)
    keys = [lease_key(host) for host in hosts]
    with (
        lock_hosts(lab.leases, keys, deadline, job=job),
        reserve_hosts(lab, hosts, job, deadline) as lease,
    ):
        yield lease


@contextmanager
def reserve_hosts(
    lab: Lab,
    hosts: Iterable[Host],
    job: str,
    deadline: Deadline,
) -> Iterator[Lease]:
    """Hold ``hosts`` at the lab's coordinator, if it has one, beside this controller's locks."""
    if lab.coordinator is None:
        yield LocalLease()
        return
    places = [place_of(lab.name, host, host.name) for host in hosts]
    with extra("coordinator", "lease hosts, key coordinator of the lab file"):
        from migrate.lab.lease.reservation import reserve_places  # noqa: PLC0415
    with reserve_places(lab.coordinator, places, holder(job), deadline) as lease:
        yield lease


@contextmanager
def lock_hosts(
    folder: Path,
    hosts: Iterable[str],
    deadline: Deadline,
    *,
    job: str = "",
) -> Iterator[None]:
    """Hold ``hosts`` while the block runs; waits until the deadline, and says for whom.

    LockedError at the deadline; HostError where others can reach ``folder``.
    """
    make_private(folder)
    with ExitStack() as stack:
        for host in sorted(set(hosts)):  # one order for all: no two wait for each other
            stack.enter_context(_one(folder, host, deadline, job))
        yield


@contextmanager
def _one(folder: Path, host: str, deadline: Deadline, job: str) -> Iterator[None]:
    since = datetime.now(UTC).strftime("since %Y-%m-%d %H:%M:%S UTC")
    note = f"for {job}, {since}" if job else since
    path = folder / f"{quote(host, safe='')}.lease"
    with file_lock(path, deadline, "lease the host", note=note, host=host):
        yield
