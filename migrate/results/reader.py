"""Reads a run folder; what is large is read when asked for."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from migrate.errors import MeasurementError
from migrate.input_file import first_refusal, read_bounded
from migrate.model import SCHEMA, Attempt, Event, MachineRecording, Run, Sample
from migrate.results.layout import PARTIAL, damaged
from migrate.results.tables import ARRIVALS, MACHINES, machines_of_rows, read_table

if TYPE_CHECKING:
    from migrate.model.recording import Arrivals

LARGEST = 1 << 26
"""Bytes of a JSON file of a run: a hundred times what an attempt has."""
Model = TypeVar("Model", Attempt, Run)


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """A finished attempt; what is large is read when asked for."""

    folder: Path
    attempt: Attempt

    def events(self) -> tuple[Event, ...]:
        """All events in order of time. Raises MeasurementError for a damaged line."""
        path = self.folder / "events.jsonl"
        events = []
        for number, line in enumerate(_text(path).splitlines(), 1):
            try:
                events.append(Event.model_validate(json.loads(line)))
            except (ValueError, RecursionError) as error:
                raise damaged(path, f"line {number} is cut short or damaged: {error}") from error
        return tuple(events)

    def samples(self) -> tuple[Sample, ...]:
        """Samples of the progress, in order of time."""
        path = self.folder / "samples.parquet"
        try:
            return tuple(Sample(**row) for row in read_table(path).to_pylist())
        except (TypeError, ValidationError) as error:
            raise damaged(path, str(error)) from error

    def machines(self) -> tuple[MachineRecording, ...]:
        """The looks at the machines; empty where an older migrate-lab took none."""
        path = self.folder / MACHINES
        if not path.exists():
            return ()
        facts = self.attempt.machine.facts if self.attempt.machine is not None else {}
        try:
            return machines_of_rows(read_table(path).to_pylist(), facts)
        except (KeyError, IndexError, TypeError, ValidationError) as error:
            raise damaged(path, f"not the looks at a machine: {error}") from error

    def arrivals(self) -> dict[str, Arrivals]:
        """Packets by direction, in order of arrival, times on the axis; only directions logged."""
        from migrate.model.recording import Arrivals  # noqa: PLC0415 - numpy is heavy

        path = self.folder / "arrivals.parquet"
        table = read_table(path)
        if missing := set(ARRIVALS) - set(table.column_names):
            raise damaged(path, f"no columns {', '.join(sorted(missing))}")
        direction = table["direction"].to_numpy(zero_copy_only=False)
        columns = [table[name].to_numpy() for name in ARRIVALS[1:]]
        return {
            str(name): Arrivals(*(column[direction == name] for column in columns))
            for name in dict.fromkeys(direction)
        }


@dataclass(frozen=True, slots=True)
class UnreadableAttempt:
    """An attempt that was finished and can't be read: neither pass nor fail, and in no figure."""

    case_id: str
    number: int | None
    """None: it is all of the case's, whose folder can't be listed."""
    why: str

    @property
    def name(self) -> str:
        """``CASE/NUMBER``."""
        return self.case_id if self.number is None else f"{self.case_id}/{self.number}"

    def describe(self) -> str:
        """A line for people."""
        return f"{self.name}: could not be read, and is no pass: {self.why}"


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run folder's content; ``unfinished``: attempts that were cut off, as ``CASE/NUMBER``."""

    folder: Path
    run: Run
    attempts: tuple[AttemptRecord, ...]
    unfinished: tuple[str, ...] = ()
    unreadable: tuple[UnreadableAttempt, ...] = ()


def read_run(folder: Path) -> RunRecord:
    """The run in ``folder``, its attempts in the order in which they began.

    One that can't be read takes no other away. Raises MeasurementError: no run folder, a
    ``run.json`` that is cut short or of a schema that is newer than this.
    """
    run = read_head(folder)
    attempts, unreadable = read_attempts(folder)
    return RunRecord(folder, run, tuple(attempts), unfinished(folder), tuple(unreadable))


def read_attempts(folder: Path) -> tuple[list[AttemptRecord], list[UnreadableAttempt]]:
    """All finished attempts of a run, in the order in which they began, and those that can't be
    read. Raises MeasurementError: its cases can't be listed."""
    attempts, unreadable = [], []
    for case in _folders(folder / "cases"):
        try:
            numbered = [path for path in _folders(case) if path.name.isdecimal()]
        except MeasurementError as error:
            unreadable.append(UnreadableAttempt(case.name, None, str(error)))
            continue
        for path in numbered:
            try:
                attempts.append(read_attempt(path))
            except MeasurementError as error:
                unreadable.append(UnreadableAttempt(case.name, int(path.name), str(error)))
    return sorted(attempts, key=lambda record: record.attempt.begin_ns), unreadable


def _folders(folder: Path) -> list[Path]:
    """The folders in one, by name; none if it is not there."""
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(entry.path) for entry in entries if _is_folder(entry))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise damaged(folder, str(error)) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Links are followed; one that leads in circles leads to no folder."""
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return False
        raise


def read_head(folder: Path) -> Run:
    """``run.json`` alone. Raises MeasurementError."""
    return _model(folder / "run.json", Run)


def unfinished(folder: Path) -> tuple[str, ...]:
    """Attempts that were cut off, as ``CASE/NUMBER``."""
    partial = sorted(folder.glob(f"cases/*/{PARTIAL}*"))
    return tuple(f"{path.parent.name}/{path.name.removeprefix(PARTIAL)}" for path in partial)


def read_attempt(folder: Path) -> AttemptRecord:
    """One finished attempt. Raises MeasurementError."""
    return AttemptRecord(folder, _model(folder / "attempt.json", Attempt))


def runs_below(root: Path) -> tuple[list[Path], dict[Path, str]]:
    """The run folders in ``root``, by name; and the folders of which that can't be told, with why.

    None where there is no folder ``root``. Raises MeasurementError: it can't be listed.
    """
    runs: list[Path] = []
    refused: dict[Path, str] = {}
    try:
        folders = _folders(root)
    except MeasurementError as error:
        if isinstance(error.__cause__, NotADirectoryError):
            return [], {}
        raise
    for folder in folders:
        if folder.name.startswith("."):
            continue
        try:
            (folder / "run.json").stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            refused[folder] = str(error)
        else:
            runs.append(folder)
    return runs, refused


def find_run(root: Path, name: str = "latest") -> Path:
    """The folder of a run by name or path, or of the latest one. Raises MeasurementError."""
    runs, refused = runs_below(root)
    names = [folder.name for folder in runs]
    if name == "latest":
        hidden = [folder for folder in refused if not names or folder.name > names[-1]]
        if hidden:
            why = f"it may be the latest run: {refused[hidden[-1]]}"
            raise damaged(hidden[-1], why)
        if names:
            return root / names[-1]
    for folder in (root / name, Path(name)):
        try:
            if (folder / "run.json").is_file():
                return folder
        except OSError as error:
            raise damaged(folder / "run.json", str(error)) from error
    raise MeasurementError(
        f"find run {name} in {root}",
        said=f"runs there: {len(names)}" + (f", the latest is {names[-1]}" if names else ""),
        remedy="name a run folder, or run something first",
    )


def _model(path: Path, kind: type[Model]) -> Model:
    """Parsed and checked in one go; a file that is none is parsed again, to say why."""
    text = _text(path)
    try:
        model = kind.model_validate_json(text)
    except ValidationError as error:
        _check_schema(path, text)
        key, said = first_refusal(error)
        raise damaged(path, f"{key}: {said}") from error
    if "schema_number" not in model.model_fields_set or model.schema_number > SCHEMA:
        _check_schema(path, text)
    return model


def _check_schema(path: Path, text: str) -> None:
    """Raises MeasurementError for a text that is no JSON, and for one of a newer schema."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"cut short or damaged: {error}") from error
    number = document.get("schema_number") if isinstance(document, dict) else None
    if not isinstance(number, int):
        raise damaged(path, "no schema_number: this is no file of a run folder")
    if number > SCHEMA:
        raise MeasurementError(
            f"read {path}",
            said=f"it has schema {number}, and this migrate-lab knows up to {SCHEMA}",
            remedy="read it with the migrate-lab that wrote it, or a newer one",
        )


def _text(path: Path) -> str:
    try:
        return read_bounded(path, LARGEST).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise damaged(path, str(error)) from error
