"""What this machine and its hosts keep of locks and loans: the kernel's table, a holder's note, the
accounts of huge pages and virtual functions."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, cast

from migrate.backends.sriov.allocation import Ledger, read_ledger
from migrate.backends.sriov.functions import Vf, VfSettings
from migrate.clock import Deadline
from migrate.drivers.shell import Completed
from migrate.lab.state import read_huge_pages
from migrate.locks import holders, holding_processes
from selftests.fuzz.lane import Lane

if TYPE_CHECKING:
    from migrate.lab.api import Host

TABLE = b"""\
1: FLOCK  ADVISORY  WRITE 4711 00:19:1234 0 EOF
1: -> FLOCK  ADVISORY  WRITE 4712 00:19:1234 0 EOF
2: POSIX  ADVISORY  WRITE 4713 00:19:1234 0 EOF
3: FLOCK  ADVISORY  READ  4714 fe:00:1234 0 EOF
4: LEASE  ACTIVE    READ  4715 fe:00:5678 0 EOF
"""
NOTE = b"for synthetic-virtio, since 2026-01-02 03:04:05 UTC"
PAGES = json.dumps({"base": 0, "local": 512}).encode()
VF = Vf(
    number=0,
    address="0000:01:10.0",
    driver="igbvf",
    group="17",
    links=("eth1",),
    settings=VfSettings(mac="52:54:00:00:00:01", vlan=0, spoof_check=True, trust=False),
)
FOUND = Ledger(owner="controller/4711/123456", made=2, taken=(VF,)).model_dump_json().encode()


class _Host:
    """One that has the file."""

    name = "a"

    def __init__(self, data: bytes) -> None:
        self.said = data.decode(errors="replace")

    def run(self, argv: list[str], _deadline: Deadline, **_options: object) -> Completed:
        return Completed(tuple(argv), 0, self.said, "")


def _table(data: bytes) -> object:
    return holding_processes(data.decode(errors="replace"), (0, 0x19), 1234)


def _note(data: bytes) -> object:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "lock")
        path.write_bytes(data)
        said = holders(path)
    assert len(said) < 5000, "a sentence has an end"
    return said


def _pages(data: bytes) -> object:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "huge-pages.json")
        path.write_bytes(data)
        return read_huge_pages(path)


def _found(data: bytes) -> object:
    return read_ledger(cast("Host", _Host(data)), "up-pf", Deadline.after(60))


LANES = (
    Lane("proc-locks", _table, lambda: (TABLE,), "lines"),
    Lane("lock-note", _note, lambda: (NOTE, b"")),
    Lane("huge-pages", _pages, lambda: (PAGES, b"{}"), "json"),
    Lane("vf-ledger", _found, lambda: (FOUND,), "json"),
)
