"""The journal of a lab on this machine: what was done to the machine, written down before it is
done, so that any controller can put it back, also after a ``kill -9``."""

from __future__ import annotations

import json
import os
import select
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeInt,
    SerializeAsAny,
    TypeAdapter,
    ValidationError,
)

from migrate.clock import Deadline
from migrate.errors import HostError
from migrate.files import as_host_error, make_private, replace_file
from migrate.formats.answers import whole_number
from migrate.input_file import read_bounded
from migrate.lab.config import LabConfig, Name
from migrate.lab.kinds import parse_config
from migrate.lab.shared_folder import SharedFolder
from migrate.locks import SHORT_S, file_lock
from migrate.model import HostFacts, Value

HUGE_PAGES = Path("/proc/sys/vm/nr_hugepages")


class ProcessId(Value):
    """A process that we started: its id and its start time, so that no reused id is mistaken."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        """The process ``pid`` as it runs now."""
        return cls(pid=pid, started=_started(pid) or "")

    def alive(self) -> bool:
        """Whether that very process still runs (a zombie does not)."""
        return bool(self.started) and _started(self.pid) == self.started

    def end(self, deadline: Deadline) -> None:
        """Kill it, and wait until it is gone."""
        if not self.alive():
            return
        descriptor = os.pidfd_open(self.pid)
        try:
            if self.alive():
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            wait_gone(descriptor, deadline, self.pid)
        finally:
            os.close(descriptor)


def wait_gone(descriptor: int, deadline: Deadline, pid: int) -> None:
    """Wait for the process behind a pidfd; raises :class:`HostError` at the deadline."""
    ready, _, _ = select.select([descriptor], [], [], deadline.left())
    if not ready:
        raise HostError(f"end process {pid}", said="it is still there at the deadline")


def _started(pid: int) -> str | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if len(fields) < 20 or fields[0] in "ZX" else fields[19]


JOURNAL = "lab.json"
"""In the folder of a lab."""
Namespace = Annotated[str, Field(pattern=r"^mlab-[A-Za-z0-9.-]{1,40}$")]


class HostRecord(Value):
    """One host of a lab that is up."""

    name: str
    number: int = 0
    """Counted from 1; it is in all the host's addresses."""
    root: str
    root_folder: Path
    namespace: str
    address: str
    init: ProcessId | None = None


def _parsed(config: LabConfig | dict[str, Any]) -> LabConfig:
    return config if isinstance(config, LabConfig) else parse_config(config)


class LabRecord(Value):
    """The journal of a lab: ``<state>/<lab>/lab.json``."""

    config: Annotated[SerializeAsAny[LabConfig], BeforeValidator(_parsed)]
    folder: Path
    fabric: str
    hosts: tuple[HostRecord, ...]
    huge_pages: int = Field(default=0, ge=0)
    note: str = ""
    """Why something that was asked for is not there, e.g. huge pages."""
    missing: tuple[HostFacts, ...] = ()
    """Hosts of the lab file that it came up without, and why."""
    share: SharedFolder | None = None
    """A folder of the user's that every host sees."""
    complete: bool = False

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Every network namespace of the lab, the fabric's last."""
        own = (host.namespace for host in self.hosts if host.namespace != self.fabric)
        peers = dict.fromkeys(self.peer_of(host.name) for host in self.hosts)
        return (*own, *peers, self.fabric)

    def peer_of(self, source: str) -> str:
        """The namespace of the peer of a guest that starts on the host ``source``.

        Only where two pairs of hosts can be used at once is there more than one.
        """
        number = next(host.number for host in self.hosts if host.name == source)
        return f"{self.fabric}.{1 if len(self.hosts) < 4 else number}"


def new_record(
    config: LabConfig, roots: Mapping[str, Path], namespace: str, state: Path
) -> LabRecord:
    """The journal of a lab of which nothing has been made; ``namespace`` has a {} for a host.

    Hosts whose root is not in ``roots`` are left out.
    """
    return LabRecord(
        config=config,
        folder=state / config.name,
        fabric=f"mlab-{config.name}",
        hosts=tuple(
            HostRecord(
                name=name,
                number=number,
                root=host.root,
                root_folder=roots[host.root],
                namespace=namespace.format(name),
                address=f"10.78.0.{number}",
            )
            for number, (name, host) in enumerate(config.hosts.items(), 1)
            if host.root in roots
        ),
    )


def write_record(record: LabRecord) -> None:
    """Put the journal on disk, atomically."""
    make_private(record.folder)
    with as_host_error(f"write the journal of the lab {record.config.name}", record.folder):
        replace_file(record.folder / JOURNAL, record.model_dump_json(indent=2), 0o600)


def read_record(folder: Path) -> LabRecord | None:
    """The journal in ``folder``, or None where there is none.

    HostError: it can't be read, or is of another version of this program.
    """
    text = journal_text(folder)
    try:
        return None if text is None else LabRecord.model_validate_json(text)
    except ValueError as error:
        raise HostError(
            f"read the journal of the lab {folder.name}, {folder / JOURNAL}",
            said="it was brought up by another version of migrate-lab, or is damaged",
            remedy=f"`migrate-lab lab down --name {folder.name}` removes it; then bring it up anew",
        ) from error


def journal_text(folder: Path) -> bytes | None:
    """The journal in ``folder`` as it is; None: there is none. Raises HostError."""
    try:
        return read_bounded(folder / JOURNAL)
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise HostError(
            f"look for a lab in {folder.parent}",
            said=str(error),
            remedy="run the same command with sudo: labs of this machine are root's",
        ) from error
    except OSError as error:
        raise HostError(
            f"read {folder / JOURNAL}", said=str(error), remedy=by_hand(folder)
        ) from error


class HostRemains(Value, extra="ignore"):
    """What it takes to remove one host, in whatever version's journal."""

    name: Name
    namespace: Namespace
    init: ProcessId | None = None


class Remains(Value, extra="ignore"):
    """The part of a journal that every version writes and reads: enough to take the lab down."""

    fabric: Namespace
    hosts: tuple[HostRemains, ...] = ()

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Every network namespace that the lab may have, the fabric's last."""
        own = (host.namespace for host in self.hosts if host.namespace != self.fabric)
        peers = (f"{self.fabric}.{number}" for number in range(1, len(self.hosts) + 1))
        return (*own, *peers, self.fabric)


def read_remains(folder: Path, text: bytes) -> Remains:
    """What is to be removed of the lab whose journal says ``text``. Raises HostError."""
    try:
        return Remains.model_validate_json(text)
    except ValueError as error:
        raise HostError(
            f"read the journal of the lab {folder.name}, {folder / JOURNAL}",
            said="it is damaged: what was made for the lab is not known",
            remedy=by_hand(folder),
        ) from error


def by_hand(folder: Path) -> str:
    """How somebody takes down a lab whose journal is lost."""
    return (
        f"by hand: end what `ip netns pids` lists for each mlab-{folder.name}… of `ip netns`, "
        f"`ip netns del` these, unmount what is below {folder}, and remove it"
    )


_ACCOUNT: TypeAdapter[dict[str, NonNegativeInt]] = TypeAdapter(dict[str, NonNegativeInt])


def read_huge_pages(path: Path) -> dict[str, int]:
    """An account of huge pages; HostError for a file that is none."""
    if not path.exists():
        return {}
    try:
        account = _ACCOUNT.validate_json(path.read_bytes())
    except ValidationError as error:
        raise _no_account(path, str(error.errors()[0]["msg"])) from error
    if account and "base" not in account:
        raise _no_account(path, "it does not say how many there were before")
    return account


def _write_huge_pages(path: Path, account: dict[str, int]) -> None:
    with as_host_error("account for huge pages", path.parent):
        replace_file(path, json.dumps(account), 0o600)


def _no_account(path: Path, said: str) -> HostError:
    remedy = f"take every lab down, set {HUGE_PAGES} as it is to be, and remove that file"
    return HostError(f"read the record of huge pages {path}", said=said, remedy=remedy)


@contextmanager
def _ledger(state: Path) -> Iterator[dict[str, int]]:
    """Huge pages by the lab that has them; ``base``: what the machine had before the first lab."""
    path = make_private(state) / "huge-pages.json"
    with file_lock(state / "huge-pages.lock", Deadline.after(SHORT_S), "account for huge pages"):
        ledger = read_huge_pages(path)
        yield ledger
        if set(ledger) <= {"base"}:
            path.unlink(missing_ok=True)
        else:
            _write_huge_pages(path, ledger)


def _huge_pages() -> int:
    return whole_number(HUGE_PAGES.read_text(), f"read {HUGE_PAGES}")


def borrow_huge_pages(state: Path, lab: str, count: int) -> int:
    """Have ``count`` more pages of 2 MiB; returns how many there are for this lab: all or none.

    The machine's own number is only ever changed by what a lab borrows and gives back.
    """
    give_back_huge_pages(state, lab)
    if not count or not HUGE_PAGES.exists():
        return 0
    with _ledger(state) as ledger:
        before = _huge_pages()
        ledger.setdefault("base", before)
        ledger[lab] = count
        _write_huge_pages(state / "huge-pages.json", ledger)
        HUGE_PAGES.write_text(str(before + count))
        if _huge_pages() >= before + count:
            return count
        HUGE_PAGES.write_text(str(before))
        del ledger[lab]
    return 0


def give_back_huge_pages(state: Path, lab: str) -> None:
    """Return what ``lab`` borrowed, if it borrowed any; also what a killed controller noted."""
    with _ledger(state) as ledger:
        count = ledger.pop(lab, 0)
        if count:
            now = _huge_pages()
            others = sum(pages for name, pages in ledger.items() if name != "base")
            floor = ledger["base"] + others
            # Noted but never taken (killed in between): then there is nothing above the floor.
            HUGE_PAGES.write_text(str(max(now - count, min(now, floor))))
