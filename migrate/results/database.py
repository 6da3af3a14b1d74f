"""Many run folders as one table: the door of duckdb, which reads Parquet and needs no server.

Beside the run folders lies ``.attempts-1.parquet``, the rows of all of them. It is a cache: a run
whose ``attempts.parquet`` is not the one that it was made of is read again, one that is gone leaves
it, and without it, or where it can't be written, all is read from the run folders.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from migrate.errors import ConfigurationError, MeasurementError, extra
from migrate.model import SCHEMA
from migrate.results.index import TYPES, rows, table, write_index
from migrate.results.run_folder import INDEX, alone, joined, read_table

CACHE = ".attempts-1.parquet"
"""Its number changes with the columns."""
_SQL: Final[Mapping[type, str]] = {str: "VARCHAR", int: "BIGINT", float: "DOUBLE", bool: "BOOLEAN"}


@dataclass(slots=True)
class Store:
    """The rows of a folder of runs, as duckdb's table ``attempts``; ``problems``: what is not in
    it, and why."""

    connection: Any
    problems: list[str] = field(default_factory=list)

    def ask(
        self, sql: str, values: Sequence[object] | Mapping[str, object] = ()
    ) -> list[tuple[Any, ...]]:
        """Rows of an answer; what a user gave goes into ``values`` only."""
        return list(self.connection.execute(sql, values).fetchall())


@dataclass(slots=True)
class _Fresh:
    """What the cache does not hold: Arrow tables by run, with the stamp of each run's index."""

    tables: dict[str, Any] = field(default_factory=dict)
    stamps: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def open_store(root: Path) -> Store:
    """All runs in ``root``, which is a path: a folder, a shared one, a mounted object store.

    What is new is read, and kept in the cache. Raises ConfigurationError: no such folder, no
    duckdb.
    """
    with extra("trend", f"look for runs in {root}"):
        import duckdb  # noqa: PLC0415 - heavy

    if not root.is_dir():
        raise ConfigurationError(
            f"look for runs in {root}", said="no such folder", remedy="name one by --results"
        )
    connection = duckdb.connect()
    store = Store(connection)
    present = _present(root)
    cached = _cached(store, root / CACHE)
    valid = {run for run, stamp in cached.items() if present.get(run) == stamp}
    fresh = _read(root, [run for run in present if run not in valid])
    store.problems += fresh.problems
    whole = bool(cached) and len(valid) == len(cached)
    _lay(store, root / CACHE, valid, fresh, whole)
    if fresh.stamps or (cached and not whole):
        _keep(store, root / CACHE)
    store.problems += [
        f"{run}: {case}/{number}: {problem}"
        for run, case, number, problem in store.ask(
            "SELECT run, case_id, number, problem FROM attempts"
            " WHERE kind IN ('damaged', 'cut-off') ORDER BY ALL"
        )
    ]
    return store


# --- what is there ------------------------------------------------------------------------------


def _present(root: Path) -> dict[str, str]:
    """Every run folder with the stamp of its index; an empty stamp: it has none."""
    found = {}
    for entry in sorted(os.scandir(root), key=lambda entry: entry.name):
        if entry.name.startswith(".") or not entry.is_dir():
            continue
        if stamp := _stamp(Path(entry.path)):
            found[entry.name] = stamp
        elif Path(entry.path, "run.json").exists():
            found[entry.name] = ""
    return found


def _stamp(folder: Path) -> str:
    try:
        seen = (folder / INDEX).stat()
    except OSError:
        return ""
    return f"{seen.st_mtime_ns}-{seen.st_size}"


def _cached(store: Store, cache: Path) -> dict[str, str]:
    """Stamps by run, as the cache has them."""
    import duckdb  # noqa: PLC0415 - heavy

    if not cache.exists():
        return {}
    try:
        found = store.ask("SELECT DISTINCT run, stamp FROM read_parquet(?)", [_plain(cache)])
    except duckdb.Error as error:
        store.problems.append(f"{cache} can't be read and is made anew: {error}")
        return {}
    return dict(found)


def _plain(path: Path) -> str:
    """Where duckdb would take a pattern."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in str(path))


# --- reading what is new ------------------------------------------------------------------------


def _read(root: Path, names: Sequence[str]) -> _Fresh:
    fresh = _Fresh()
    for name in names:
        try:
            fresh.tables[name] = _of_run(root / name, fresh)
        except MeasurementError as error:
            fresh.problems.append(f"{name} is left out: {error}")
            continue
        if stamp := _stamp(root / name):
            fresh.stamps[name] = stamp
    return fresh


def _of_run(folder: Path, fresh: _Fresh) -> Any:
    """Its index if that is whole and ours, else what its JSON says."""
    if (folder / INDEX).exists():
        try:
            found = read_table(folder / INDEX)
        except MeasurementError as error:
            fresh.problems.append(f"{error}; its rows are made anew")
        else:
            if _ours(found, folder):
                return found
    made = table(rows(folder))
    with alone(folder) as ours:
        if ours:
            # Again, for until now somebody may have written.
            made = _written(folder, fresh) or made
    return made


def _ours(found: Any, folder: Path) -> bool:
    """Not one of other columns, of a newer schema, or of a folder that had another name then."""
    if found.column_names != list(TYPES) or not found.num_rows:
        return False
    head = found.slice(0, 1).to_pylist()[0]
    return bool(head["schema_number"] <= SCHEMA and head["run"] == folder.name)


def _written(folder: Path, fresh: _Fresh) -> Any:
    try:
        return write_index(folder)
    except MeasurementError as error:
        fresh.problems.append(f"{folder.name} is read from its JSON each time: {error}")
        return None


# --- laying it together -------------------------------------------------------------------------


def _lay(store: Store, cache: Path, valid: set[str], fresh: _Fresh, whole: bool) -> None:
    """``attempts``: a view of the cache if that has all, which reads only the columns that a
    question is about; else a table of both."""
    names = ", ".join(TYPES)
    if whole and not fresh.tables:
        path = _plain(cache).replace("'", "''")  # a view takes no values
        store.ask(f"CREATE TEMP VIEW attempts AS FROM read_parquet('{path}')")
        return
    columns = ", ".join(f"{name} {_SQL[kind]}" for name, kind in TYPES.items())
    store.ask(f"CREATE TEMP TABLE attempts ({columns}, stamp VARCHAR)")
    if valid:
        store.ask(
            f"INSERT INTO attempts SELECT {names}, stamp FROM read_parquet(?)"
            " WHERE run IN (SELECT unnest(?::VARCHAR[]))",
            [_plain(cache), sorted(valid)],
        )
    if fresh.tables:
        store.connection.register("fresh", joined(list(fresh.tables.values())))
        store.ask(
            f"INSERT INTO attempts SELECT {names}, stamp FROM fresh LEFT JOIN"
            " (SELECT unnest(?::VARCHAR[]) AS run, unnest(?::VARCHAR[]) AS stamp) USING (run)",
            [list(fresh.stamps), list(fresh.stamps.values())],
        )


def _keep(store: Store, cache: Path) -> None:
    """Runs without an index of their own are still written to, and not kept."""
    import duckdb  # noqa: PLC0415 - heavy

    temporary = cache.with_name(f"{cache.name}.{os.getpid()}.part")
    try:
        store.ask(
            "COPY (FROM attempts WHERE stamp IS NOT NULL ORDER BY began, run, case_id, number)"
            f" TO '{str(temporary).replace(chr(39), chr(39) * 2)}'"
            " (FORMAT parquet, COMPRESSION zstd)"
        )
        temporary.replace(cache)
    except (duckdb.Error, OSError) as error:
        temporary.unlink(missing_ok=True)
        store.problems.append(f"{cache} could not be written, and it is slower so: {error}")
