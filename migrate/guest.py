"""The guest: started warm from a saved, booted state, or cold, which is what fills the cache."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from migrate.clock import Deadline
from migrate.domain import NAME, digest
from migrate.errors import CleanupError, GuestError, LabError
from migrate.image import Image
from migrate.lab.hosts import Host
from migrate.libvirt_client import Domain, Hypervisor

Prepare = Callable[[Domain], None]
"""Called once a guest has been started cold: waits for its probe, and gives it its address."""


@dataclass(frozen=True, slots=True)
class Order:
    """A guest that is asked for."""

    xml: str
    image: Image
    warm: bool
    cache: Path
    """Where saved states are kept; the hosts see it under the same path."""


def saved_state(order: Order, hypervisor: Hypervisor) -> Path:
    """Where the booted guest is kept: one for each image, domain and QEMU version."""
    versions = hypervisor.versions()
    key = digest(order.image.digest, order.xml, versions["qemu"], versions["libvirt"])
    return order.cache / "warm" / f"{order.image.name}-{key}.sav"


@contextmanager
def running(
    order: Order, first: Hypervisor, hosts: Sequence[Host], prepare: Prepare, deadline: Deadline
) -> Iterator[Domain]:
    """A guest that runs on ``first`` when the block begins; ended on all ``hosts`` at its end."""
    try:
        yield _start(order, first, prepare, deadline)
    finally:
        _end_everywhere(hosts)


def _start(order: Order, on: Hypervisor, prepare: Prepare, deadline: Deadline) -> Domain:
    if not order.warm:
        return _cold(order, on, prepare, deadline)
    path = saved_state(order, on)
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            making = path.with_name(f".{uuid.uuid4().hex}.sav")
            try:
                _cold(order, on, prepare, deadline).save(str(making))
                making.rename(path)
            finally:
                making.unlink(missing_ok=True)
    try:
        return on.restore(str(path), NAME, deadline)
    except GuestError as error:
        raise GuestError(
            error.tried,
            host=error.host,
            said=error.said,
            remedy=error.remedy or f"if this guest never starts again, delete {path}",
        ) from error


def _cold(order: Order, on: Hypervisor, prepare: Prepare, deadline: Deadline) -> Domain:
    domain = on.create(order.xml, deadline)
    try:
        prepare(domain)
    except BaseException:
        with contextlib.suppress(LabError):  # the first error is the one to tell
            domain.destroy()
        raise
    return domain


def _end_everywhere(hosts: Sequence[Host]) -> None:
    """By connections of its own: those of the attempt may have broken in it."""
    reasons: list[Exception] = []
    for host in hosts:
        try:
            with host.connect() as hypervisor:
                domain = hypervisor.find(NAME)
                if domain is not None:
                    domain.destroy()
        except LabError as error:
            reasons.append(error)
    if reasons:
        raise CleanupError("end the guest", reasons)


def holders(hosts: Sequence[Host]) -> tuple[str, ...]:
    """The hosts on which the guest runs now: asked of each, guessed of none."""
    found = []
    for host in hosts:
        with host.connect() as hypervisor:
            domain = hypervisor.find(NAME)
            if domain is not None and domain.state() == "running":
                found.append(host.name)
    return tuple(found)
