"""Labs that are made on this machine, by name: brought up, found, taken down.

Such a lab outlives the command that brought it up; what it is made of is in its journal.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from migrate.clock import Deadline
from migrate.drivers.shell import run
from migrate.errors import CleanupError, HostError, LabError
from migrate.files import make_private, replace_file
from migrate.formats.answers import whole_number
from migrate.lab import state
from migrate.lab.config import LabConfig, cache_folder, state_folder
from migrate.lab.fabric import FabricLab
from migrate.lab.kinds import kind_of
from migrate.lab.lease.file_lock import place_of
from migrate.lab.namespaces import keep_capabilities
from migrate.lab.shared_folder import SharedFolder
from migrate.lab.state import LabRecord, ProcessId
from migrate.locks import file_lock

DOWN_S = 20.0
"""For a lab to be taken down."""
OTHERS_S = 120.0
"""For another command to bring the same lab up, or take it down."""

Config = TypeVar("Config", bound=LabConfig)
AnyFabricLab = TypeVar("AnyFabricLab", bound=FabricLab)


@dataclass(frozen=True, slots=True)
class FabricKind(Generic[Config, AnyFabricLab]):
    """A kind of lab that is made on this machine; see :class:`migrate.lab.kinds.LabKind`."""

    plan: Callable[[Config], LabRecord]
    """Have in the cache what it takes: the record of a lab of which nothing is made yet."""
    make: Callable[[Config, LabRecord], LabRecord]
    """Make all of it; the journal names each step before it is done."""
    lab: Callable[[LabRecord], AnyFabricLab]
    """The lab that is up."""
    is_persistent: bool = False

    def prepare(self, config: Config) -> None:
        """See LabKind."""
        _must_be_root()
        self.plan(config)

    def up(self, config: Config, share: SharedFolder | None = None) -> AnyFabricLab:
        """See LabKind; HostError also for a lab that is up with other hosts, or another folder."""
        _must_be_root()
        with _lock(config.name):
            existing = find(config.name)
            if existing is not None:
                _check_same(existing.record, config, share)
                return self.lab(existing.record)
            record = self.plan(config).model_copy(update={"share": share})
            _remove(config.name)
            _check_free(record)
            try:
                state.write_record(record)
                record = self.make(config, record)
                record = record.model_copy(update={"complete": True})
                state.write_record(record)
            except BaseException:
                _remove(config.name)
                raise
            return self.lab(record)

    def find(self, config: Config) -> FabricLab | None:
        """See LabKind; by its name, whatever kind it was brought up as."""
        return find(config.name)

    def down(self, config: Config) -> None:
        """See LabKind; by its name, whatever kind it was brought up as."""
        down(config.name)

    def lease_names(self, config: Config) -> tuple[str, ...]:
        """See LabKind."""
        return tuple(place_of(config.name, host, name) for name, host in config.hosts.items())


def _check_same(up: LabRecord, config: LabConfig, share: SharedFolder | None) -> None:
    """HostError unless the lab that is up has these hosts, and ``share`` if one is given.

    Without ``share``, as in a run, a lab that shares a folder can be used."""
    if up.config != config:
        difference = "with other hosts"
    elif share not in (None, up.share):
        difference = f"and shares {up.share or 'no folder'}"
    else:
        return
    raise HostError(
        f"bring up the lab {config.name}",
        said=f"it is up already, {difference}",
        remedy=f"`migrate-lab lab down --name {config.name}`, or another --name",
    )


def _check_free(record: LabRecord) -> None:
    """HostError for a network namespace of our names that no journal of ours knows: a lab of
    another user's, say, whose hosts would be ended with it."""
    taken = [name for name in record.namespaces if Path("/run/netns", name).exists()]
    if taken:
        raise HostError(
            f"bring up the lab {record.config.name}",
            said=f"the network namespace {taken[0]} is there, and not in our journal: it was left "
            "alone",
            remedy=f"another --name; or `ip netns del {taken[0]}`, if nobody uses it",
        )


def find(name: str) -> FabricLab | None:
    """The lab called ``name`` if it is up and healthy."""
    record = state.read_record(state_folder() / name)
    if record is None or not record.complete:
        return None
    lab = _lab(record)
    return lab if lab.is_healthy() else None


def names() -> tuple[str, ...]:
    """Labs that have a journal: up, half up, or left behind."""
    return tuple(sorted(path.parent.name for path in state_folder().glob("*/lab.json")))


def down(name: str) -> None:
    """Remove all of the lab, also what a killed controller left; raises :class:`CleanupError`."""
    _must_be_root()
    with _lock(name):
        _remove(name)


def _lab(record: LabRecord) -> FabricLab:
    kind = kind_of(record.config)
    assert isinstance(kind, FabricKind), "only these kinds write a journal"
    lab: FabricLab = kind.lab(record)
    return lab


def _must_be_root() -> None:
    if os.geteuid() != 0:
        raise HostError(
            "use a lab of this machine",
            said="it needs root: it makes network namespaces and mounts",
            remedy="run the same command with sudo",
        )


@contextlib.contextmanager
def _lock(name: str) -> Iterator[None]:
    folder = make_private(state_folder())
    tried = f"bring the lab {name} up or down"
    with file_lock(folder / f"{name}.lock", Deadline.after(OTHERS_S), tried):
        yield


def _remove(name: str) -> None:
    """Every step runs, whatever the others said."""
    folder = state_folder() / name
    journal = state.journal_text(folder)
    if journal is None:
        return
    record = state.read_remains(folder, journal)
    deadline = Deadline.after(DOWN_S)
    steps: list[Callable[[], object]] = [functools.partial(_keep_capabilities, folder)]
    steps += [functools.partial(host.init.end, deadline) for host in record.hosts if host.init]
    steps += [
        functools.partial(_remove_namespace, namespace, deadline) for namespace in record.namespaces
    ]
    steps.append(functools.partial(state.give_back_huge_pages, state_folder(), name))
    for kind in ("overlay", "saved"):
        ours = (cache_folder() / "warm").glob(f"{kind}-{name}-*")
        steps += [functools.partial(path.unlink, missing_ok=True) for path in ours]
    # The journal goes last: a controller that is killed in here leaves one that names the rest.
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
        # So that another try knows what to look for.
        replace_file(make_private(folder) / state.JOURNAL, journal, 0o600)
        raise CleanupError(f"take down the lab {name}", reasons)


def _keep_capabilities(folder: Path) -> None:
    """Of a lab of this version alone: another one keeps them elsewhere."""
    with contextlib.suppress(HostError):
        if (record := state.read_record(folder)) is not None:
            keep_capabilities(record)


def _remove_namespace(namespace: str, deadline: Deadline) -> None:
    """What still runs in a namespace that we made is ended by the id that the kernel names."""
    if not Path("/run/netns", namespace).exists():
        return
    for pid in run(["ip", "netns", "pids", namespace], deadline).out.split():
        ProcessId.of(whole_number(pid, "ip netns pids")).end(deadline)
    run(["ip", "netns", "del", namespace], deadline)
