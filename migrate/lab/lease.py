"""Leases: no two jobs use the same host at the same time. On one controller a lease is a file lock,
so that it ends with its holder, whatever ended that."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from migrate.clock import Deadline
from migrate.errors import HostError


class BusyError(HostError):
    """Another job held the host until the deadline."""


@contextmanager
def leased(
    folder: Path, hosts: Iterable[str], deadline: Deadline, progress: Callable[[str], None]
) -> Iterator[None]:
    """Hold ``hosts`` while the block runs; waits until the deadline, and says for whom."""
    with ExitStack() as stack:
        for host in sorted(hosts):  # one order for all: no two wait for each other
            stack.enter_context(_one(folder, host, deadline, progress))
        yield


@contextmanager
def _one(
    folder: Path, host: str, deadline: Deadline, progress: Callable[[str], None]
) -> Iterator[None]:
    lock = FileLock(folder / f"{host}.lease")
    holder = folder / f"{host}.holder"
    try:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            progress(f"waiting for host {host}, held by {_text(holder)}")
            lock.acquire(timeout=deadline.left())
    except Timeout as error:
        raise BusyError(
            "lease the host", host=host, said=f"held by {_text(holder)} until the deadline"
        ) from error
    try:
        holder.write_text(f"process {os.getpid()}\n")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return "another job"
