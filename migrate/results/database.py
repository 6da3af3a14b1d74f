"""Many run folders as one table: the door of duckdb, which reads Parquet and needs no server.

Beside the run folders lies ``.attempts-2.parquet``, a cache of the rows of all of them. A run whose
``attempts.parquet`` has changed is read again, a run that is gone leaves the cache, and without the
cache, or where it can't be written, all is read from the run folders.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from migrate.errors import ConfigurationError, MeasurementError, extra
from migrate.files import remove_stale_parts, replacing
from migrate.model import SCHEMA
from migrate.results.files import exclusive
from migrate.results.index import TYPES, index_rows, rows_table, write_index
from migrate.results.layout import INDEX
from migrate.results.reader import runs_below
from migrate.results.tables import concat_tables, read_table

CACHE = ".attempts-2.parquet"
"""The cache's file; its number changes with the columns."""
_SQL: Final[Mapping[type, str]] = {str: "VARCHAR", int: "BIGINT", float: "DOUBLE", bool: "BOOLEAN"}


@dataclass(slots=True)
class Store:
    """The rows of a folder of runs, as duckdb's table ``attempts``; ``problems``: what is not in
    it, and why."""

    connection: Any
    problems: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    """Runs of which nothing can be read at all; they are in ``problems``, too."""

    def ask(
        self, sql: str, values: Sequence[object] | Mapping[str, object] = ()
    ) -> list[tuple[Any, ...]]:
        """The rows that a query returns; what a user gave goes into ``values`` only.

        Raises MeasurementError.
        """
        import duckdb  # noqa: PLC0415 - heavy

        try:
            return list(self.connection.execute(sql, values).fetchall())
        except duckdb.Error as error:
            raise MeasurementError(
                "ask the table of all runs",
                said=str(error),
                remedy=f"remove {CACHE} from the results folder: it is made anew",
            ) from error


@dataclass(slots=True)
class _NewRows:
    """Rows that the cache lacks: Arrow tables by run, with the stamp of each run's index."""

    tables: dict[str, Any] = field(default_factory=dict)
    stamps: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def open_store(root: Path) -> Store:
    """All runs in ``root``: a folder, a shared one, a mounted object store.

    New runs are read, and kept in the cache. Raises ConfigurationError: no such folder, no
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
    present = _present(root, store)
    cached = _cached(store, root / CACHE)
    valid = {run for run, stamp in cached.items() if present.get(run) == stamp}
    fresh = _read(root, [run for run in present if run not in valid])
    store.problems += fresh.problems
    store.refused += fresh.refused
    whole = bool(cached) and len(valid) == len(cached)
    _create_attempts(store, root / CACHE, valid, fresh, whole)
    if fresh.stamps or (cached and not whole):
        _save_cache(store, root / CACHE)
    store.problems += [
        f"{run}: {case}/{number}: {problem}"
        for run, case, number, problem in store.ask(
            "SELECT run, case_id, number, problem FROM attempts"
            " WHERE kind IN ('damaged', 'cut-off') ORDER BY ALL"
        )
    ]
    return store


# --- what is there ------------------------------------------------------------------------------


def _present(root: Path, store: Store) -> dict[str, str]:
    """Stamps of the run folders' indexes by run; an empty stamp: it has no index."""
    runs, refused = runs_below(root)
    store.refused += [folder.name for folder in refused]
    store.problems += [f"{folder.name} is left out: {why}" for folder, why in refused.items()]
    return {folder.name: _stamp(folder) for folder in runs}


def _stamp(folder: Path) -> str:
    try:
        status = (folder / INDEX).stat()
    except OSError:
        return ""
    return f"{status.st_mtime_ns}-{status.st_size}"


def _cached(store: Store, cache: Path) -> dict[str, str]:
    """Stamps by run that the cache was made of."""
    if not cache.exists():
        return {}
    try:
        columns = store.ask("DESCRIBE SELECT * FROM read_parquet(?)", [_glob_escaped(cache)])
        expected = {**{name: _SQL[kind] for name, kind in TYPES.items()}, "stamp": "VARCHAR"}
        if {name: kind for name, kind, *_ in columns} != expected:
            store.problems.append(f"{cache} has other columns, and is made anew")
            return {}
        rows = store.ask("SELECT DISTINCT run, stamp FROM read_parquet(?)", [_glob_escaped(cache)])
    except MeasurementError as error:
        store.problems.append(f"{cache} can't be read and is made anew: {error.said}")
        return {}
    return dict(rows)


def _glob_escaped(path: Path) -> str:
    """``path`` where duckdb takes a pattern: its wildcards mean themselves."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in str(path))


# --- reading what is new ------------------------------------------------------------------------


def _read(root: Path, names: Sequence[str]) -> _NewRows:
    fresh = _NewRows()
    for name in names:
        try:
            fresh.tables[name] = _run_table(root / name, fresh)
        except MeasurementError as error:
            fresh.problems.append(f"{name} is left out: {error}")
            fresh.refused.append(name)
            continue
        if stamp := _stamp(root / name):
            fresh.stamps[name] = stamp
    return fresh


def _run_table(folder: Path, fresh: _NewRows) -> Any:
    """A run's index as an Arrow table, or made of its JSON where the index is damaged or old."""
    if (folder / INDEX).exists():
        try:
            index = read_table(folder / INDEX)
        except MeasurementError as error:
            fresh.problems.append(f"{error}; its rows are made anew")
        else:
            if _is_current(index, folder):
                return index
    made = rows_table(index_rows(folder))
    try:
        with exclusive(folder) as exclusively:
            if exclusively:
                # Again, for until now somebody may have written.
                made = write_index(folder)
    except MeasurementError as error:
        fresh.problems.append(f"{folder.name} is read from its JSON each time: {error}")
    return made


def _is_current(index: Any, folder: Path) -> bool:
    """Whether an index has our columns and schema, and was made under the folder's name."""
    if index.schema != rows_table([]).schema or not index.num_rows:
        return False
    head = index.slice(0, 1).to_pylist()[0]
    return bool(head["schema_number"] <= SCHEMA and head["run"] == folder.name)


# --- the table and its cache --------------------------------------------------------------------


def _create_attempts(
    store: Store, cache: Path, valid: set[str], fresh: _NewRows, whole: bool
) -> None:
    """Create ``attempts``: a view of the cache if that is complete, which reads only the columns
    that a query names; else a table of the cache's rows and new ones."""
    names = ", ".join(TYPES)
    if whole and not fresh.tables:
        path = _glob_escaped(cache).replace("'", "''")  # a view takes no values
        store.ask(f"CREATE TEMP VIEW attempts AS FROM read_parquet('{path}')")
        return
    columns = ", ".join(f"{name} {_SQL[kind]}" for name, kind in TYPES.items())
    store.ask(f"CREATE TEMP TABLE attempts ({columns}, stamp VARCHAR)")
    if valid:
        store.ask(
            f"INSERT INTO attempts SELECT {names}, stamp FROM read_parquet(?)"
            " WHERE run IN (SELECT unnest(?::VARCHAR[]))",
            [_glob_escaped(cache), sorted(valid)],
        )
    if fresh.tables:
        store.connection.register("fresh", concat_tables(list(fresh.tables.values())))
        store.ask(
            f"INSERT INTO attempts SELECT {names}, stamp FROM fresh LEFT JOIN"
            " (SELECT unnest(?::VARCHAR[]) AS run, unnest(?::VARCHAR[]) AS stamp) USING (run)",
            [list(fresh.stamps), list(fresh.stamps.values())],
        )


def _save_cache(store: Store, cache: Path) -> None:
    """Write the cache; runs without an index are still being written, and left out."""
    remove_stale_parts(cache)
    try:
        with replacing(cache) as (file, part):
            store.ask(
                "COPY (FROM attempts WHERE stamp IS NOT NULL ORDER BY began, run, case_id, number)"
                f" TO '{str(part).replace(chr(39), chr(39) * 2)}'"
                " (FORMAT parquet, COMPRESSION zstd, USE_TMP_FILE false)"
            )
            os.fchmod(file.fileno(), 0o644)
    except (MeasurementError, OSError) as error:
        store.problems.append(f"{cache} could not be written, and it is slower so: {error}")
