"""One lab for all tests that need a guest, and the command line as its users start it."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pytest

from migrate import log
from migrate.campaign.progress import Progress
from migrate.campaign.run_source import NewRun
from migrate.campaign.session import Session, begin
from migrate.clock import Deadline
from migrate.images.initramfs import compile_probe
from migrate.lab import manager
from migrate.lab.config import LabConfig, state_folder
from migrate.lab.local.lab import LocalLab

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[1]
SCENARIOS = ROOT / "testcases" / "scenarios"
PATIENCE_S = 100.0
"""For a command to say a line or to end: it would otherwise be waited for in vain."""
SANITIZED = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g")


def pytest_configure() -> None:
    """Ctrl-C is tested, and a shell has it ignored in what it starts in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def new_name() -> str:
    """A lab's name that no one else uses."""
    return f"t{secrets.token_hex(3)}"


def remove_lab(name: str) -> None:
    """Take it down, with the lock that its name leaves."""
    manager.down(name)
    (state_folder() / f"{name}.lock").unlink(missing_ok=True)


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The probe with the sanitizers in it: what they find ends it, and its test."""
    path = tmp_path_factory.mktemp("probe") / "probe"
    compile_probe(path, *SANITIZED)
    return path


@pytest.fixture(scope="session")
def shared_lab() -> Iterator[LocalLab]:
    """Two hosts that are up for the whole run: tests put back what they break."""
    name = new_name()
    try:
        yield manager.up(LabConfig(name=name), lambda _text: None)
    finally:
        remove_lab(name)


@pytest.fixture
def lab_name() -> Iterator[str]:
    """The name of a lab that is not up; whatever is up under it at the end is taken down."""
    name = new_name()
    yield name
    remove_lab(name)


@dataclass(slots=True)
class SaidSoFar:
    """What a session said while it went on."""

    lines: list[str] = field(default_factory=list)

    def __contains__(self, text: str) -> bool:
        return any(text in line for line in self.lines)


@pytest.fixture
def told() -> Iterator[SaidSoFar]:
    """What a person is told while the test goes on."""
    said = SaidSoFar()
    with log.shown(said.lines.append):
        yield said


@pytest.fixture
def going(shared_lab: LocalLab, tmp_path: Path) -> Session:
    """A session on the shared lab, with a run folder of its own."""
    return begin(shared_lab, NewRun(tmp_path / "results"), Progress(quiet=True))


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended, and what it printed."""

    status: int
    out: str
    err: str


class Command:
    """``migrate-lab`` in a process group of its own, as a shell starts it."""

    def __init__(self, argv: Sequence[str], prefix: Sequence[str] = ()) -> None:
        self.err: list[str] = []
        self._changed = threading.Condition()
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "migrate.cli", *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            cwd=ROOT,
            process_group=0,
        )
        self._out: list[str] = []
        self._readers = [
            threading.Thread(target=self._read, args=(stream, into), daemon=True)
            for stream, into in (
                (self._process.stdout, self._out),
                (self._process.stderr, self.err),
            )
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: IO[str] | None, into: list[str]) -> None:
        assert stream is not None
        with stream:
            for line in stream:
                with self._changed:
                    into.append(line)
                    self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def await_line(self, text: str, times: int = 1) -> None:
        """Wait until so many lines on standard error have ``text``."""
        deadline = Deadline.after(PATIENCE_S)
        with self._changed:
            while sum(text in line for line in self.err) < times:
                ended = self._process.poll() is not None
                assert not ended, f"it ended before it said {text!r}: {''.join(self.err)}"
                assert self._changed.wait(deadline.left()), f"never said {text!r}: {self.err}"

    def file(self, path: Path) -> Path:
        """A file as the command sees it, which may have mounts of its own."""
        return Path(f"/proc/{self._process.pid}/root{path}")

    def kill(self) -> None:
        """``kill -9`` of the controller alone."""
        self._process.kill()

    def interrupt(self) -> None:
        """Ctrl-C: the terminal tells the whole process group."""
        os.killpg(self._process.pid, signal.SIGINT)

    def terminate(self) -> None:
        """SIGTERM to the controller, as a service manager does it."""
        self._process.terminate()

    def wait(self) -> Ended:
        """Wait for its end."""
        try:
            status = self._process.wait(PATIENCE_S)
        finally:
            self.end()
        return Ended(status, "".join(self._out), "".join(self.err))

    def end(self) -> None:
        """End it, if it goes on."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        for reader in self._readers:
            reader.join(PATIENCE_S)


@contextmanager
def started(*argv: object, prefix: Sequence[str] = ()) -> Iterator[Command]:
    """A command that goes on while the block runs."""
    command = Command([str(word) for word in argv], prefix)
    try:
        yield command
    finally:
        command.end()


Run = Callable[..., Ended]


@pytest.fixture
def migrate_lab() -> Run:
    """Run ``migrate-lab`` with words as arguments, to its end."""

    def run(*argv: object, prefix: Sequence[str] = ()) -> Ended:
        with started(*argv, prefix=prefix) as command:
            return command.wait()

    return run


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
