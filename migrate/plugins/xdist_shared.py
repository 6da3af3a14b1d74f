"""One lab and one run folder for several processes of one job, e.g. pytest-xdist's workers.

They share a folder. The first that needs the lab brings it up and begins the run; the others join.
Each writes its own attempts; the report, and the lab's end, are left to the process that made the
folder, once all others have ended, however they did.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from migrate import log
from migrate.campaign.progress import Reporter
from migrate.campaign.run_source import NewRun
from migrate.campaign.session import Session, begin, write_log
from migrate.clock import Deadline
from migrate.guest.lifecycle import end_left
from migrate.lab import manager
from migrate.lab.api import Lab
from migrate.lab.config import LabConfig
from migrate.lab.lease.file_lock import lock_hosts
from migrate.locks import BUILD_S, LockedError, file_lock
from migrate.report.readers import write_readers
from migrate.results.reader import read_head, read_run
from migrate.results.writer import RunWriter

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SharedRun:
    """A lab and a run that several processes share, by what is in ``folder``."""

    folder: Path

    @property
    def _run(self) -> Path:
        """The file that names the run folder, once there is one."""
        return self.folder / "run"

    @property
    def _ours(self) -> Path:
        """The file that says that the lab was not up before."""
        return self.folder / "ours"

    @contextmanager
    def session(
        self, config: LabConfig, results: Path, reporter: Reporter, command: Sequence[str]
    ) -> Iterator[Session]:
        """A session beside others on the same lab and run folder; the first one makes them."""
        with log.shown(reporter.say, reporter.level, reporter.say_wait), log.recorded() as run_log:
            lock = self.folder / "lock"
            with file_lock(lock, Deadline.after(BUILD_S), f"bring up the lab {config.name}"):
                if not manager.is_up(config):
                    self._ours.touch()
                lab = manager.up(config)
                if self._run.exists():
                    session = self._join(lab, reporter, run_log)
                else:
                    session = begin(lab, NewRun(results, command), reporter, run_log)
                    self._run.write_text(str(session.folder.absolute()))
            yield session

    def _join(self, lab: Lab, reporter: Reporter, run_log: log.RunLog) -> Session:
        folder = Path(self._run.read_text())
        run = read_head(folder)
        writer = RunWriter(folder, run)
        write_log(run_log, writer)
        return Session(lab, run.hosts, writer, reporter)

    def close(self, config: LabConfig) -> Path | None:
        """Write the report, and take the lab down if it was not up before; the run folder, if any.

        Guests of workers that were killed are ended also in a lab that stays up.
        """
        lab = None if manager.is_persistent(config) else manager.find(config)
        try:
            if not self._run.exists():
                return None
            folder = Path(self._run.read_text())
            LOGGER.info("writing the report")
            record = read_run(folder)
            write_readers(
                RunWriter(folder, record.run), [entry.attempt for entry in record.attempts]
            )
            return folder
        finally:
            if self._ours.exists():
                LOGGER.info("taking the lab down")
                manager.down(config)
            elif lab is not None and self._run.exists():
                _end_left(lab)


def _end_left(lab: Lab) -> None:
    """End guests on hosts that nobody has leased."""
    for host in lab.hosts.values():
        with (
            suppress(LockedError),
            lock_hosts(lab.leases, [host.name], Deadline.after(0)),
            host.connect() as hypervisor,
        ):
            if end_left(host, hypervisor):
                LOGGER.info("host %s had a guest that a killed job left: it is ended", host.name)
