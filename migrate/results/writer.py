"""Writes a run folder as the run goes."""

from __future__ import annotations

import json
import os
import shutil
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from migrate.clock import Deadline
from migrate.errors import MeasurementError
from migrate.files import PART, replace_file, sync_folder
from migrate.locks import SHORT_S, file_lock
from migrate.model import Attempt, Case, Event, Run, Sample
from migrate.results.files import (
    as_measurement_error,
    join_writers,
    make_folder,
    make_results,
    path_below,
    write_file,
)
from migrate.results.layout import INDEX, PARTIAL, run_name
from migrate.results.reader import read_head, read_run
from migrate.results.tables import arrivals_to_parquet, samples_to_parquet

if TYPE_CHECKING:
    from migrate.model.recording import Arrivals


RUN_LOCK = ".run.lock"
"""In a run folder: for as long as ``run.json`` is read and written anew."""


class RunWriter:
    """Writes one run folder, maybe beside others that write to it at the same time.

    All that fails on the way to the disk is a MeasurementError.
    """

    def __init__(self, folder: Path, run: Run) -> None:
        self.folder = folder
        self.run = run
        # The kernel releases it when the process dies, however it dies. See exclusive().
        weakref.finalize(self, os.close, join_writers(folder))

    @classmethod
    def create(cls, root: Path, run: Run) -> RunWriter:
        """Make ``root/<run.name>``; if that exists the run gets another name (see ``.run``)."""
        with as_measurement_error(root):
            make_results(root)
            while True:
                try:
                    (root / run.name).mkdir(0o755)
                    break
                except FileExistsError:
                    run = run.model_copy(update={"name": run_name()})
            make_folder(root / run.name, root)
            writer = cls(root / run.name, run)
            writer.update(run)
        return writer

    @classmethod
    def resume(cls, folder: Path) -> tuple[RunWriter, tuple[Attempt, ...]]:
        """Continue in the folder of a run that ended or was killed; returns its attempts, too.

        Unfinished attempts are removed. The caller makes sure that no one else writes there.
        Raises MeasurementError, as :func:`read_run` does.
        """
        record = read_run(folder)
        with as_measurement_error(folder):
            for partial in folder.glob(f"cases/*/{PARTIAL}*"):
                shutil.rmtree(partial)
            for part in folder.rglob(f".*{PART}"):
                part.unlink()
        return cls(folder, record.run), tuple(
            attempt_record.attempt for attempt_record in record.attempts
        )

    def update(self, run: Run) -> None:
        """Write ``run.json`` again, e.g. when the skips are known."""
        self.run = run
        self.write("run.json", run.model_dump_json(indent=1) + "\n")

    def change(self, **fields: object) -> None:
        """Write ``run.json`` again with other ``fields``."""
        self.amend(lambda run: run.model_copy(update=fields))

    def amend(self, change: Callable[[Run], Run]) -> None:
        """Change ``run.json`` as it is on the disk: others may have changed it since."""
        with self._locked():
            self.update(change(read_head(self.folder)))

    def claim(self, case: Case, wanted: int = 1) -> int:
        """Reserve an attempt's number, the first free one from ``wanted`` on, by its folder."""
        with self._locked():
            folder = self.folder / "cases" / case.id
            number = wanted
            while any((folder / f"{kind}{number}").exists() for kind in ("", PARTIAL)):
                number += 1
            self.attempt_folder(case, number)
        return number

    def disclaim(self, case: Case, number: int) -> None:
        """Release a claimed number: the attempt's folder goes if nothing is in it."""
        folder = self.folder / "cases" / case.id / f"{PARTIAL}{number}"
        with suppress(OSError):
            folder.rmdir()
            folder.parent.rmdir()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        tried = f"write to {self.folder}"
        lock = file_lock(self.folder / RUN_LOCK, Deadline.after(SHORT_S), tried)
        with as_measurement_error(self.folder), lock:
            yield

    def write(self, name: str, data: str | bytes) -> Path:
        """Write a file of the whole run, such as ``report.html``; returns its path."""
        return write_file(self.folder / name, data)

    def attempt_folder(self, case: Case, number: int) -> Path:
        """The folder of a running attempt; others may write logs there."""
        folder = self.folder / "cases" / case.id / f"{PARTIAL}{number}"
        with as_measurement_error(self.folder):
            make_folder(folder, self.folder)
        return folder

    def write_attempt(
        self,
        attempt: Attempt,
        events: Sequence[Event] = (),
        samples: Sequence[Sample] = (),
        arrivals: Mapping[str, Arrivals] | None = None,
        files: Mapping[str, str | bytes] | None = None,
    ) -> Path:
        """Write all of an attempt and make it visible; returns its folder.

        ``arrivals`` by direction, times on the axis; ``files`` by name below the folder, e.g.
        ``logs/source-qemu.log``. If the disk is full, nothing of the attempt is left.
        """
        text = check_readable(attempt)
        folder = self.attempt_folder(attempt.case, attempt.number)
        final = folder.with_name(str(attempt.number))
        lines = [_line(event) for event in sorted(events, key=lambda event: event.at_ns)]
        try:
            with as_measurement_error(self.folder):
                for name, data in (files or {}).items():
                    path = path_below(folder, name)
                    make_folder(path.parent, folder)
                    replace_file(path, data)
                replace_file(folder / "events.jsonl", "".join(lines))
                replace_file(folder / "samples.parquet", samples_to_parquet(samples))
                replace_file(folder / "arrivals.parquet", arrivals_to_parquet(arrivals or {}))
                replace_file(folder / "attempt.json", text)
                (self.folder / INDEX).unlink(missing_ok=True)  # it would lack this one
                folder.rename(final)
                sync_folder(final.parent)
        except MeasurementError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return final


def check_readable(attempt: Attempt) -> str:
    """An attempt's JSON, which can be read back: MeasurementError for one that can't.

    One attempt that no reader takes would take the whole run's report with it.
    """
    text = attempt.model_dump_json(indent=1, warnings=False) + "\n"
    try:
        Attempt.model_validate_json(text)
    except ValidationError as error:
        raise MeasurementError(
            f"write attempt {attempt.number} of {attempt.case.id}",
            said=f"it could not be read back: {error}",
            remedy="this is an error of migrate-lab: report it with the hosts' logs",
        ) from error
    return text


def _line(event: Event) -> str:
    return json.dumps(event.model_dump(), default=repr) + "\n"
