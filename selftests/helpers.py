"""What tests of several folders use: deadlines, labs of their own, and what a lab left."""

from __future__ import annotations

import os
import re
import secrets
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from migrate.clock import Deadline
from migrate.drivers.netns import inside
from migrate.lab import fabric_kind
from migrate.lab.config import state_folder

ROOT = Path(__file__).parents[1]
SCENARIOS = ROOT / "testcases" / "scenarios"
SANITIZED = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g")
"""For the probe: what the sanitizers find ends it, and its test."""


def soon(seconds: float = 30) -> Deadline:
    """A deadline that only what hangs will miss."""
    return Deadline.after(seconds)


def new_name() -> str:
    """A lab's name that no one else uses."""
    return f"t{secrets.token_hex(3)}"


def remove_lab(name: str) -> None:
    """Take it down, with the lock that its name leaves."""
    fabric_kind.down(name)
    (state_folder() / f"{name}.lock").unlink(missing_ok=True)


@dataclass(slots=True)
class SaidSoFar:
    """What a session said while it went on."""

    lines: list[str] = field(default_factory=list)

    def __contains__(self, text: str) -> bool:
        return any(text in line for line in self.lines)


def traces(name: str) -> list[str]:
    """All that a lab can leave on this machine, seen from outside of its journal."""
    marks = (f"mlab-{name}", f"{state_folder()}/{name}/")
    found = [str(path) for path in Path("/run/netns").glob(f"mlab-{name}*")]
    if (state_folder() / name).exists():
        found.append(f"the folder {name}")
    ledger = state_folder() / "huge-pages.json"
    if ledger.exists() and f'"{name}"' in ledger.read_text():
        found.append("huge pages")
    for process in Path("/proc").glob("[0-9]*"):
        for file in ("mountinfo", "cmdline"):
            try:
                text = (process / file).read_text(errors="replace")
            except OSError:
                continue  # it ended while we looked
            if process.name != str(os.getpid()) and any(mark in text for mark in marks):
                found.append(f"{process.name} {file}")
    if any(mark in Path("/proc/self/mountinfo").read_text() for mark in marks):
        found.append("a mount of this machine")
    return found


def listening_in(namespace: Path, kind: socket.SocketKind, at: str) -> socket.socket:
    """A socket in a network namespace, on a port that is free there, of IPv6 if ``at`` is."""

    def made() -> socket.socket:
        opened = socket.socket(socket.AF_INET6 if ":" in at else socket.AF_INET, kind)
        if ":" in at:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind((at, 0))
        if kind == socket.SOCK_STREAM:
            opened.listen()
        return opened

    return inside(namespace, "listen", made, soon())


def unpack_newc(archive: bytes) -> dict[str, tuple[int, bytes]]:
    """Names to modes and contents of a newc archive."""
    entries: dict[str, tuple[int, bytes]] = {}
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = archive[at + 110 : at + 110 + name_size - 1].decode()
        at = (at + 110 + name_size + 3) // 4 * 4
        if name == "TRAILER!!!":
            return entries
        entries[name] = (mode, archive[at : at + size])
        at = (at + size + 3) // 4 * 4


def mode_of(path: Path) -> int:
    """The permissions of a file or folder."""
    return stat.S_IMODE(path.stat().st_mode)


@contextmanager
def as_somebody_elses(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """``path`` belongs to another user while the block runs.

    Root gives it away; anybody else is somebody else meanwhile, to whom all of ours is another's,
    also what is around it.
    """
    if os.geteuid() == 0:
        os.chown(path, 12345, -1, follow_symlinks=False)
        yield
        os.chown(path, 0, -1, follow_symlinks=False)
        return
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: 12345)
        yield


def grid_rows(text: str) -> list[str]:
    """The rows of the tables in what a command printed, a line each: cells that go on below are put
    together, and two spaces are between two cells."""
    rows: list[list[str]] = []
    columns: list[slice] = []
    for line in text.splitlines():
        if line.strip() and set(line) <= {"-", " "}:
            columns = [slice(*match.span()) for match in re.finditer("-+", line)]
            continue
        gaps = "".join(line[a.stop : b.start] for a, b in pairwise(columns))
        if not columns or gaps.strip() or len(line) > columns[-1].stop:
            columns = []
            continue
        cells = [line[column].strip() for column in columns]
        if cells[0]:
            rows.append(cells)
        else:
            rows[-1] = [_joined(*two) for two in zip(rows[-1], cells, strict=True)]
    return ["  ".join(row) for row in rows]


def _joined(begin: str, end: str) -> str:
    return f"{begin}{'' if begin.endswith('..') or not end or not begin else ' '}{end}"
