"""The run folder: JSON, Parquet and logs, written as the run goes, readable after a kill.

``docs/run-folder.md`` holds the schema. An attempt is written into ``.partial-<number>`` and
renamed when it is whole; every file comes by a temporary one, ``fsync`` and ``os.replace``. So
whoever reads sees finished attempts only, and a run that was killed up to its last one.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import FileLock
from pydantic import ValidationError

from migrate.errors import MeasurementError
from migrate.model import SCHEMA, Attempt, Case, Event, Run, Sample, Value

if TYPE_CHECKING:
    from migrate.model.recording import Arrivals

PARTIAL = ".partial-"
INDEX = "attempts.parquet"
"""A row an attempt, of a run that is done: made of the rest, and made anew when it is missing."""
PRUNED = "pruned.json"
"""There once bulky parts of the run were removed; says when, and which."""
QUIET_S = 86_400
"""A run without an end that nobody touched for so long is not being written any more."""
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
        with _told(folder):
            held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        weakref.finalize(self, os.close, held)
        # The kernel gives it back when the process dies, however it dies. See alone().
        with suppress(OSError):
            fcntl.flock(held, fcntl.LOCK_SH)

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

    @classmethod
    def resume(cls, folder: Path) -> tuple[RunWriter, tuple[Attempt, ...]]:
        """Go on in the folder of a run that ended or was killed: finished attempts stay.

        What was cut off is removed. Whoever calls it sees to it that no one else writes there.
        Raises MeasurementError, as :func:`read_run` does.
        """
        record = read_run(folder)
        with _told(folder):
            for partial in folder.glob(f"cases/*/{PARTIAL}*"):
                shutil.rmtree(partial)
            for part in folder.rglob(".*.part"):
                part.unlink()
        return cls(folder, record.run), tuple(found.attempt for found in record.attempts)

    def update(self, run: Run) -> None:
        """Write ``run.json`` again, e.g. when the skips are known."""
        self.run = run
        self.write("run.json", run.model_dump_json(indent=1) + "\n")

    def change(self, **fields: object) -> None:
        """Write ``run.json`` again with other ``fields``."""
        self.amend(lambda run: run.model_copy(update=fields))

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
        with suppress(OSError):
            folder.rmdir()
            folder.parent.rmdir()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with _told(self.folder), FileLock(self.folder / ".run.lock"):
            yield

    def write(self, name: str, data: str | bytes) -> Path:
        """A file of the whole run, such as ``report.html``."""
        return write_file(self.folder / name, data)

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
                _write(folder / "attempt.json", _readable(attempt))
                (self.folder / INDEX).unlink(missing_ok=True)  # it would lack this one
                folder.rename(final)
                _sync(final.parent)
        except MeasurementError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return final


def copy_out(path: Path, to: Path) -> None:
    """``path`` as it is, for whoever looks elsewhere, e.g. for JUnit's XML. MeasurementError."""
    with _told(to.parent):
        _write(to, path.read_bytes())


def write_file(path: Path, data: str | bytes) -> Path:
    """A file of a run that is there already, all of it or nothing. Raises MeasurementError."""
    with _told(path.parent):
        _write(path, data)
    return path


@contextmanager
def alone(folder: Path) -> Iterator[bool]:
    """Whether nobody writes the run in ``folder``; while this lasts nobody begins to.

    A writer on this machine holds a lock. One on another machine that shares the folder can't be
    seen: a run that has not ended (no ``junit.xml``) counts as written for :data:`QUIET_S`.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:
            pass  # a file system without locks: what is left is whether it has ended
        yield (folder / "junit.xml").exists() or _quiet(folder)
    finally:
        os.close(descriptor)


def _quiet(folder: Path) -> bool:
    parts = (folder, folder / "run.json", folder / "cases", *folder.glob("cases/*/*"))
    newest = max((path.stat().st_mtime for path in parts if path.exists()), default=0.0)
    return time.time() - newest > QUIET_S


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


def _readable(attempt: Attempt) -> str:
    """Its JSON, which can be read back: MeasurementError for one that can't.

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


def _samples(samples: Sequence[Sample]) -> bytes:
    import pyarrow as pa  # noqa: PLC0415 - heavy, and only needed here

    types = {"at_ns": pa.int64(), "host": pa.string()}
    schema = pa.schema([(name, types.get(name, pa.int64())) for name in Sample.model_fields])
    return parquet(pa.Table.from_pylist([sample.model_dump() for sample in samples], schema))


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
    return parquet(pa.table(dict(zip(ARRIVALS, columns, strict=True))))


def arrow(rows: Sequence[Mapping[str, object]], types: Mapping[str, type]) -> Any:
    """Rows as an Arrow table with a column for each of ``types``, each of which may be null."""
    import pyarrow as pa  # noqa: PLC0415 - heavy, and only needed here

    known = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    schema = pa.schema([(name, known[kind]) for name, kind in types.items()])
    return pa.Table.from_pylist([dict(row) for row in rows], schema)


def joined(tables: Sequence[Any]) -> Any:
    """Arrow tables of the same columns as one."""
    import pyarrow as pa  # noqa: PLC0415 - heavy, and only needed here

    return pa.concat_tables(tables)


def parquet(table: Any, *, small: bool = False) -> bytes:
    """An Arrow table as a Parquet file's bytes; ``small``: for a few rows of many columns."""
    import pyarrow as pa  # noqa: PLC0415 - heavy, and only needed here
    import pyarrow.parquet as pq  # noqa: PLC0415 - heavy, and only needed here

    # What is said of each column is more than the rows then, and has to be read with them.
    how = dict.fromkeys(("use_dictionary", "write_statistics", "store_schema"), not small)
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd", **how)
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
        return tuple(
            Sample(**row) for row in read_table(self.folder / "samples.parquet").to_pylist()
        )

    def arrivals(self) -> dict[str, Arrivals]:
        """By direction, in order of arrival, times on the axis; only directions with a log."""
        from migrate.model.recording import Arrivals  # noqa: PLC0415 - numpy is heavy

        table = read_table(self.folder / "arrivals.parquet")
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
    found = attempt_folders(folder)
    attempts = sorted((read_attempt(path) for path in found), key=lambda r: r.attempt.begin_ns)
    return RunRecord(folder, run, tuple(attempts), unfinished(folder))


def read_head(folder: Path) -> Run:
    """``run.json`` alone. Raises MeasurementError."""
    return _model(folder / "run.json", Run)


def attempt_folders(folder: Path) -> list[Path]:
    """Of all finished attempts of a run."""
    return [path for path in folder.glob("cases/*/*") if path.is_dir() and path.name.isdecimal()]


def unfinished(folder: Path) -> tuple[str, ...]:
    """The attempts that were cut off, as ``CASE/NUMBER``."""
    partial = sorted(folder.glob(f"cases/*/{PARTIAL}*"))
    return tuple(f"{path.parent.name}/{path.name.removeprefix(PARTIAL)}" for path in partial)


def read_attempt(folder: Path) -> AttemptRecord:
    """One finished attempt. Raises MeasurementError."""
    return AttemptRecord(folder, _model(folder / "attempt.json", Attempt))


def find_run(root: Path, name: str = "latest") -> Path:
    """The folder of a run by name or path, or of the latest one. Raises MeasurementError."""
    found = (path.parent.name for path in root.glob("*/run.json"))
    names = sorted(name for name in found if not name.startswith("."))
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


def read_table(path: Path) -> Any:
    """A Parquet file as an Arrow table. Raises MeasurementError."""
    import pyarrow as pa  # noqa: PLC0415 - heavy, and only needed here
    import pyarrow.parquet as pq  # noqa: PLC0415 - heavy, and only needed here

    try:
        with pq.ParquetFile(path) as file:
            return file.read()
    except (OSError, pa.ArrowInvalid) as error:
        raise _damaged(path, f"cut short or damaged: {error}") from error


def _damaged(path: Path, said: str) -> MeasurementError:
    return MeasurementError(
        f"read {path}", said=said, remedy="name a run folder with a whole run.json and attempts"
    )
