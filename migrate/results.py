"""The run folder: JSON, Parquet and logs, written as the run goes, readable after a kill.

``docs/run-folder.md`` holds the schema. An attempt is written into ``.partial-<number>`` and
renamed when it is whole; every file comes by a temporary one, ``fsync`` and ``os.replace``. So
whoever reads sees finished attempts only, and a run that was killed up to its last one.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import FileLock
from pydantic import ValidationError

from migrate.errors import MeasurementError
from migrate.model import SCHEMA, Attempt, Case, Event, Run, Sample, Value

if TYPE_CHECKING:
    from migrate.timeline import Arrivals

PARTIAL = ".partial-"
ARRIVALS = ("direction", "seq", "sent_ns", "received_ns")

Model = TypeVar("Model", bound=Value)


def run_name() -> str:
    """UTC date and time to the microsecond: sorts by age, e.g. ``20260102-030405-678901``."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}"


class RunWriter:
    """Writes one run folder, maybe beside others that write to it at the same time.

    All that fails on the way to the disk is a MeasurementError.
    """

    def __init__(self, folder: Path, run: Run) -> None:
        self.folder = folder
        self.run = run

    @classmethod
    def create(cls, root: Path, run: Run) -> RunWriter:
        """Make ``root/<run.name>``; if that exists the run gets another name (see ``.run``)."""
        with _told(root):
            root.mkdir(parents=True, exist_ok=True)
            while True:
                try:
                    (root / run.name).mkdir()
                    break
                except FileExistsError:
                    run = run.model_copy(update={"name": run_name()})
            _make(root / run.name, root)
            writer = cls(root / run.name, run)
            writer.update(run)
        return writer

    def update(self, run: Run) -> None:
        """Write ``run.json`` again, e.g. when the skips are known."""
        self.run = run
        self.write("run.json", run.model_dump_json(indent=1) + "\n")

    def amend(self, change: Callable[[Run], Run]) -> None:
        """Change ``run.json`` as it is on the disk: others may have changed it since."""
        with self._alone():
            self.update(change(read_head(self.folder)))

    def claim(self, case: Case, wanted: int = 1) -> int:
        """A number of an attempt that nobody else has, from ``wanted`` on; its folder is made."""
        with self._alone():
            folder = self.folder / "cases" / case.id
            number = wanted
            while any((folder / f"{kind}{number}").exists() for kind in ("", PARTIAL)):
                number += 1
            self.attempt_folder(case, number)
        return number

    def disclaim(self, case: Case, number: int) -> None:
        """There is no attempt after all: its folder goes if nothing is in it."""
        folder = self.folder / "cases" / case.id / f"{PARTIAL}{number}"
        with contextlib.suppress(OSError):
            folder.rmdir()
            folder.parent.rmdir()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with _told(self.folder), FileLock(self.folder / ".run.lock"):
            yield

    def write(self, name: str, data: str | bytes) -> Path:
        """A file of the whole run, such as ``report.html``."""
        with _told(self.folder):
            _write(self.folder / name, data)
        return self.folder / name

    def attempt_folder(self, case: Case, number: int) -> Path:
        """The folder of an attempt that goes on; logs may be written there by others."""
        folder = self.folder / "cases" / case.id / f"{PARTIAL}{number}"
        with _told(self.folder):
            _make(folder, self.folder)
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
        ``logs/source-qemu.log``. If the disk can't take it, nothing of the attempt is left.
        """
        folder = self.attempt_folder(attempt.case, attempt.number)
        final = folder.with_name(str(attempt.number))
        lines = [_line(event) for event in sorted(events, key=lambda event: event.at_ns)]
        try:
            with _told(self.folder):
                for name, data in (files or {}).items():
                    path = _inside(folder, name)
                    _make(path.parent, folder)
                    _write(path, data)
                _write(folder / "events.jsonl", "".join(lines))
                _write(folder / "samples.parquet", _samples(samples))
                _write(folder / "arrivals.parquet", _arrivals(arrivals or {}))
                _write(folder / "attempt.json", attempt.model_dump_json(indent=1) + "\n")
                folder.rename(final)
                _sync(final.parent)
        except MeasurementError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return final


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """An OSError in the words of who has to make room."""
    try:
        yield
    except OSError as error:
        there = next((part for part in (folder, *folder.parents) if part.is_dir()), Path("/"))
        free = shutil.disk_usage(there).free / 2**20
        raise MeasurementError(
            "results could not be written",
            said=str(error),
            remedy=f"{folder} has {free:.0f} MiB free: make room there, or name another folder",
        ) from error


def _inside(folder: Path, name: str) -> Path:
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts or path == folder:
        raise ValueError(f"{name!r} is no name of a file below the attempt's folder")
    return path


def _make(folder: Path, top: Path) -> None:
    """``folder`` and what leads to it from ``top``, open to readers whatever the umask."""
    while folder != top:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        folder = folder.parent


def _write(path: Path, data: str | bytes) -> None:
    """All of it or nothing; text that is no UTF-8 gets ``?`` in place of what can't be said."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as file:
            file.write(data if isinstance(data, bytes) else data.encode("utf-8", "replace"))
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _line(event: Event) -> str:
    return json.dumps(event.model_dump(), default=repr) + "\n"


def _samples(samples: Sequence[Sample]) -> bytes:
    import pyarrow as pa  # noqa: PLC0415 - heavy, and only needed here

    types = {"at_ns": pa.int64(), "host": pa.string()}
    schema = pa.schema([(name, types.get(name, pa.int64())) for name in Sample.model_fields])
    return _parquet(pa.Table.from_pylist([sample.model_dump() for sample in samples], schema))


def _arrivals(arrivals: Mapping[str, Arrivals]) -> bytes:
    import numpy as np  # noqa: PLC0415 - heavy, and only needed here
    import pyarrow as pa  # noqa: PLC0415 - heavy, and only needed here

    def column(name: str) -> Any:
        parts = [getattr(log, name) for log in arrivals.values()]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)

    direction = np.repeat(
        np.asarray(list(arrivals), dtype=object), [len(log) for log in arrivals.values()]
    )
    columns = [pa.array(direction, pa.string()), *(pa.array(column(n)) for n in ARRIVALS[1:])]
    return _parquet(pa.table(dict(zip(ARRIVALS, columns, strict=True))))


def _parquet(table: Any) -> bytes:
    import pyarrow as pa  # noqa: PLC0415 - heavy, and only needed here
    import pyarrow.parquet as pq  # noqa: PLC0415 - heavy, and only needed here

    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd")
    return bytes(buffer.getvalue().to_pybytes())


# --- reading ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """A finished attempt; what is large is read when asked for."""

    folder: Path
    attempt: Attempt

    def events(self) -> tuple[Event, ...]:
        """In order of time."""
        path = self.folder / "events.jsonl"
        found = []
        for number, line in enumerate(_text(path).splitlines(), 1):
            try:
                found.append(Event.model_validate(json.loads(line)))
            except (ValueError, ValidationError) as error:
                raise _damaged(path, f"line {number} is cut short or damaged: {error}") from error
        return tuple(found)

    def samples(self) -> tuple[Sample, ...]:
        """The progress, in order of time."""
        return tuple(Sample(**row) for row in _table(self.folder / "samples.parquet").to_pylist())

    def arrivals(self) -> dict[str, Arrivals]:
        """By direction, in order of arrival, times on the axis; only directions with a log."""
        from migrate.timeline import Arrivals  # noqa: PLC0415 - numpy is heavy

        table = _table(self.folder / "arrivals.parquet")
        direction = table["direction"].to_numpy(zero_copy_only=False)
        columns = [table[name].to_numpy() for name in ARRIVALS[1:]]
        return {
            str(name): Arrivals(*(column[direction == name] for column in columns))
            for name in dict.fromkeys(direction)
        }


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run folder as it was found; ``unfinished`` names the attempts that were cut off."""

    folder: Path
    run: Run
    attempts: tuple[AttemptRecord, ...]
    unfinished: tuple[str, ...] = ()


def read_run(folder: Path) -> RunRecord:
    """The run in ``folder``, attempts by time of beginning.

    Raises MeasurementError: no run folder, a file cut short, a schema that is newer than this.
    """
    run = read_head(folder)
    found = [path for path in folder.glob("cases/*/*") if path.is_dir() and path.name.isdecimal()]
    partial = sorted(folder.glob(f"cases/*/{PARTIAL}*"))
    attempts = sorted((read_attempt(path) for path in found), key=lambda r: r.attempt.begin_ns)
    return RunRecord(
        folder,
        run,
        tuple(attempts),
        tuple(f"{path.parent.name}/{path.name.removeprefix(PARTIAL)}" for path in partial),
    )


def read_head(folder: Path) -> Run:
    """``run.json`` alone. Raises MeasurementError."""
    return _model(folder / "run.json", Run)


def read_attempt(folder: Path) -> AttemptRecord:
    """One finished attempt. Raises MeasurementError."""
    return AttemptRecord(folder, _model(folder / "attempt.json", Attempt))


def find_run(root: Path, name: str = "latest") -> Path:
    """The folder of a run by name or path, or of the latest one. Raises MeasurementError."""
    names = sorted(path.parent.name for path in root.glob("*/run.json"))
    if name == "latest" and names:
        return root / names[-1]
    for folder in (root / name, Path(name)):
        if (folder / "run.json").is_file():
            return folder
    raise MeasurementError(
        f"find run {name} in {root}",
        said=f"runs there: {len(names)}" + (f", the latest is {names[-1]}" if names else ""),
        remedy="name a run folder, or run something first",
    )


def _model(path: Path, kind: type[Model]) -> Model:
    try:
        document = json.loads(_text(path))
    except ValueError as error:
        raise _damaged(path, f"cut short or damaged: {error}") from error
    number = document.get("schema_number") if isinstance(document, dict) else None
    if not isinstance(number, int):
        raise _damaged(path, "no schema_number: this is no file of a run folder")
    if number > SCHEMA:
        raise MeasurementError(
            f"read {path}",
            said=f"it has schema {number}, and this migrate-lab knows up to {SCHEMA}",
            remedy="read it with the migrate-lab that wrote it, or a newer one",
        )
    try:
        return kind.model_validate_json(json.dumps(document))
    except ValidationError as error:
        raise _damaged(path, str(error)) from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(path, str(error)) from error


def _table(path: Path) -> Any:
    import pyarrow as pa  # noqa: PLC0415 - heavy, and only needed here
    import pyarrow.parquet as pq  # noqa: PLC0415 - heavy, and only needed here

    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise _damaged(path, f"cut short or damaged: {error}") from error


def _damaged(path: Path, said: str) -> MeasurementError:
    return MeasurementError(
        f"read {path}", said=said, remedy="name a run folder with a whole run.json and attempts"
    )
