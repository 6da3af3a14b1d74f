"""Labs by name: bring one up, find it, take it down; local and nested ones alike.

A lab outlives the command that brought it up; what it is made of is in its journal.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import overload

from filelock import FileLock, Timeout

from migrate.clock import Deadline
from migrate.drivers.shell import run
from migrate.errors import CleanupError, HostError, LabError
from migrate.lab import state as journal
from migrate.lab.config import (
    AnyConfig,
    LabConfig,
    MadeConfig,
    NestedConfig,
    RackConfig,
    cache_folder,
    state_folder,
)
from migrate.lab.local import lab as local
from migrate.lab.local.lab import LocalLab
from migrate.lab.nested import lab as nested
from migrate.lab.nested.lab import NestedLab
from migrate.lab.rack import lab as rack
from migrate.lab.rack.lab import RackLab
from migrate.lab.state import LabRecord, ProcessId

Progress = Callable[[str], None]
MadeLab = LocalLab | NestedLab
AnyLab = MadeLab | RackLab


@overload
def up(config: LabConfig, progress: Progress) -> LocalLab: ...
@overload
def up(config: NestedConfig, progress: Progress) -> NestedLab: ...
@overload
def up(config: RackConfig, progress: Progress) -> RackLab: ...
def up(config: AnyConfig, progress: Progress) -> AnyLab:
    """Bring the lab up, or return it when it is up already; a rack is reached.

    Raises :class:`HostError` when something of it can't be had; then nothing of it is left.
    """
    if isinstance(config, RackConfig):
        return rack.reach(config, progress)
    _must_be_root()
    with _lock(config.name):
        existing = find(config.name)
        if existing is not None:
            if existing.record.config == config:
                return existing
            raise HostError(
                f"bring up the lab {config.name}",
                said="it is up already, with other hosts",
                remedy=f"`migrate-lab lab down --name {config.name}`, or another --name",
            )
        record = prepare(config, progress)
        make = nested.make if isinstance(config, NestedConfig) else local.make
        _down(config.name)
        try:
            journal.write_record(record)
            record = make(record, progress)
            record = record.model_copy(update={"complete": True})
            journal.write_record(record)
        except BaseException:
            _down(config.name)
            raise
        return _lab(record)


def prepare(config: MadeConfig, progress: Progress) -> LabRecord:
    """Have in the cache what the lab is made of; nothing of it is brought up."""
    _must_be_root()
    if isinstance(config, NestedConfig):
        return nested.prepare(config, progress)
    return local.prepare(config, progress)


def find(name: str) -> MadeLab | None:
    """The lab called ``name`` if it is up and whole."""
    record = journal.read_record(state_folder() / name)
    if record is None or not record.complete:
        return None
    found = _lab(record)
    return found if found.whole() else None


def _lab(record: LabRecord) -> MadeLab:
    return NestedLab(record) if record.config.kind == "nested" else LocalLab(record)


def names() -> tuple[str, ...]:
    """Labs that have a journal: up, half up, or left behind."""
    state = state_folder()
    return tuple(sorted(path.parent.name for path in state.glob("*/lab.json")))


def down(name: str) -> None:
    """Remove all of the lab, also what a killed controller left; raises :class:`CleanupError`."""
    _must_be_root()
    with _lock(name):
        _down(name)


def _must_be_root() -> None:
    if os.geteuid() != 0:
        raise HostError(
            "use a lab of this machine",
            said="it needs root: it makes network namespaces and mounts",
            remedy="run the same command with sudo",
        )


@contextlib.contextmanager
def _lock(name: str) -> Iterator[None]:
    state = state_folder()
    state.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(state / f"{name}.lock", timeout=120):
            yield
    except Timeout as error:
        raise HostError(
            f"use the lab {name}", said="another command is bringing it up or down"
        ) from error


def _down(name: str) -> None:
    """Every step runs, whatever the others said."""
    folder = state_folder() / name
    record = journal.read_record(folder)
    if record is None:
        return
    deadline = Deadline.after(20)
    steps: list[Callable[[], object]] = [
        functools.partial(host.init.end, deadline) for host in record.hosts if host.init
    ]
    steps += [
        functools.partial(_remove_namespace, namespace, deadline) for namespace in record.namespaces
    ]
    steps.append(functools.partial(journal.give_back_huge_pages, state_folder(), name))
    for kind in ("overlay", "saved"):
        ours = (cache_folder() / "warm").glob(f"{kind}-{name}-*")
        steps += [functools.partial(path.unlink, missing_ok=True) for path in ours]
    # The journal goes last: a controller that is killed in here leaves one that tells of the rest.
    hosts = (folder / host.name for host in record.hosts)
    steps += [functools.partial(shutil.rmtree, host) for host in hosts if host.exists()]
    steps.append(functools.partial(shutil.rmtree, folder))
    reasons: list[Exception] = []
    for step in steps:
        try:
            step()
        except (OSError, LabError) as error:
            reasons.append(error)
    if reasons:
        journal.write_record(record)  # so that another try knows what to look for
        raise CleanupError(f"take down the lab {name}", reasons)


def _remove_namespace(namespace: str, deadline: Deadline) -> None:
    """What still runs in a namespace that we made is ended by the id that the kernel names."""
    if not Path("/run/netns", namespace).exists():
        return
    for pid in run(["ip", "netns", "pids", namespace], deadline).out.split():
        ProcessId.of(int(pid)).end(deadline)
    run(["ip", "netns", "del", namespace], deadline)
