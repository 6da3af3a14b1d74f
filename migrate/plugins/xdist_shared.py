"""One lab and one run folder for several processes of one job, e.g. pytest-xdist's workers.

They meet in a folder, the room. The first that needs the lab brings it up and begins the run; who
comes later finds both. Attempts are written by whoever made them; the last word, and the lab's end,
is that of the process that made the room, once all others have ended, however they did.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from migrate.campaign.session import Session, Watcher, begin, write_readers
from migrate.clock import Deadline
from migrate.guest.lifecycle import end_left
from migrate.lab import manager
from migrate.lab.api import Lab
from migrate.lab.config import LabConfig
from migrate.lab.lease.file_lock import BusyError, lock_hosts
from migrate.results.reader import read_head, read_run
from migrate.results.writer import RunWriter


@dataclass(frozen=True, slots=True)
class SharedRun:
    """Where they meet."""

    folder: Path

    @property
    def _run(self) -> Path:
        """The file that names the run folder, once there is one."""
        return self.folder / "run"

    @property
    def _ours(self) -> Path:
        """The file that says that the lab was not up before."""
        return self.folder / "ours"

    def join(
        self, config: LabConfig, results: Path, watcher: Watcher, command: Sequence[str]
    ) -> Session:
        """A session beside others on the same lab and run folder; the first one makes them."""
        with FileLock(self.folder / "lock"):
            if not manager.is_up(config, watcher.say):
                self._ours.touch()
            lab = manager.up(config, watcher.say)
            if not self._run.exists():
                going = begin(lab, results, (), watcher, command)
                self._run.write_text(str(going.writer.folder.absolute()))
                return going
        folder = Path(self._run.read_text())
        run = read_head(folder)
        return Session(lab, run.hosts, RunWriter(folder, run), watcher)

    def close(self, config: LabConfig, say: Callable[[str], None]) -> Path | None:
        """Write the report, and take the lab down if it was not up before; the run folder, if any.

        Of those that were killed the guests are ended also in a lab that stays up.
        """
        lab = None if manager.is_persistent(config) else manager.find(config, say)
        try:
            if not self._run.exists():
                return None
            folder = Path(self._run.read_text())
            say("writing the report")
            found = read_run(folder)
            write_readers(
                RunWriter(folder, found.run), [record.attempt for record in found.attempts]
            )
            return folder
        finally:
            if self._ours.exists():
                say("taking the lab down")
                manager.down(config)
            elif lab is not None and self._run.exists():
                _end_left(lab, say)


def _end_left(lab: Lab, say: Callable[[str], None]) -> None:
    """Guests on hosts that nobody has leased."""
    for host in lab.hosts.values():
        with (
            suppress(BusyError),
            lock_hosts(lab.leases, [host.name], Deadline.after(0), lambda _text: None),
            host.connect() as hypervisor,
        ):
            if end_left(host, hypervisor):
                say(f"host {host.name} had a guest that a killed job left: it is ended")
