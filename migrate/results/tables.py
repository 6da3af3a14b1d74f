"""Arrow tables and Parquet files: the door of pyarrow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from migrate.input_file import read_bounded
from migrate.model import MachineFacts, MachineRecording, MachineSample, Sample
from migrate.results.layout import damaged

if TYPE_CHECKING:
    from migrate.model.recording import Arrivals

LARGEST = 1 << 28
"""Bytes of a file: an hour of both streams has a tenth of it."""
LARGEST_READ = 1 << 30
"""Bytes of it in memory, as far as it tells beforehand."""
ARRIVALS = ("direction", "seq", "sent_ns", "received_ns")
"""Columns of ``arrivals.parquet``."""


def samples_to_parquet(samples: Sequence[Sample]) -> bytes:
    import pyarrow as pa  # noqa: PLC0415 - heavy

    types = {"at_ns": pa.int64(), "host": pa.string()}
    schema = pa.schema([(name, types.get(name, pa.int64())) for name in Sample.model_fields])
    return to_parquet(pa.Table.from_pylist([sample.model_dump() for sample in samples], schema))


def arrivals_to_parquet(arrivals: Mapping[str, Arrivals]) -> bytes:
    import numpy as np  # noqa: PLC0415 - heavy
    import pyarrow as pa  # noqa: PLC0415 - heavy

    def column(name: str) -> Any:
        parts = [getattr(log, name) for log in arrivals.values()]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)

    direction = np.repeat(
        np.asarray(list(arrivals), dtype=object), [len(log) for log in arrivals.values()]
    )
    columns = [pa.array(direction, pa.string()), *(pa.array(column(n)) for n in ARRIVALS[1:])]
    return to_parquet(pa.table(dict(zip(ARRIVALS, columns, strict=True))))


MACHINES = "machines.parquet"
_COUNTERS = tuple(
    name for name in MachineSample.model_fields if name not in ("at_ns", "error_ns", "parts_s")
)


def machines_to_parquet(machines: Sequence[MachineRecording]) -> bytes:
    """A row for each look at a machine, and one for each program of ours that it saw."""
    types: dict[str, type] = {"machine": str, "at_ns": int, "error_ns": int, "part": str}
    types |= {"cpu_s": float, **dict.fromkeys(_COUNTERS, float), "runnable": int}
    return to_parquet(to_arrow(list(_machine_rows(machines)), types))


def _machine_rows(machines: Sequence[MachineRecording]) -> Iterator[dict[str, object]]:
    for machine in machines:
        for sample in machine.samples:
            when = {"machine": machine.name, "at_ns": sample.at_ns, "error_ns": sample.error_ns}
            yield {**when, **{name: getattr(sample, name) for name in _COUNTERS}}
            for part, seconds in sample.parts_s.items():
                yield {**when, "part": part, "cpu_s": seconds}


def machines_of_rows(
    rows: Sequence[Mapping[str, Any]], facts: Mapping[str, MachineFacts]
) -> tuple[MachineRecording, ...]:
    """The machines' samples out of rows of ``machines.parquet``."""
    samples: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        of_machine = samples.setdefault(row["machine"], [])
        if row["part"] is None:
            when = {"at_ns": row["at_ns"], "error_ns": row["error_ns"], "parts_s": {}}
            of_machine.append({**when, **{name: row[name] for name in _COUNTERS}})
        else:
            of_machine[-1]["parts_s"][row["part"]] = row["cpu_s"]
    return tuple(
        MachineRecording(
            name=name,
            facts=facts.get(name, MachineFacts()),
            samples=tuple(MachineSample(**sample) for sample in looks),
        )
        for name, looks in samples.items()
    )


def to_arrow(rows: Sequence[Mapping[str, object]], types: Mapping[str, type]) -> Any:
    """An Arrow table of ``rows`` with a nullable column for each of ``types``."""
    import pyarrow as pa  # noqa: PLC0415 - heavy

    known = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    schema = pa.schema([(name, known[kind]) for name, kind in types.items()])
    return pa.Table.from_pylist([dict(row) for row in rows], schema)


def concat_tables(tables: Sequence[Any]) -> Any:
    """One Arrow table of several with the same columns."""
    import pyarrow as pa  # noqa: PLC0415 - heavy

    return pa.concat_tables(tables)


def to_parquet(table: Any, *, small: bool = False) -> bytes:
    """An Arrow table as a Parquet file's bytes; ``small``: for a few rows of many columns."""
    import pyarrow as pa  # noqa: PLC0415 - heavy
    import pyarrow.parquet as pq  # noqa: PLC0415 - heavy

    # Metadata of the columns is larger than the rows then, and has to be read with them.
    how = dict.fromkeys(("use_dictionary", "write_statistics", "store_schema"), not small)
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd", **how)
    return bytes(buffer.getvalue().to_pybytes())


def read_table(path: Path) -> Any:
    """A Parquet file as an Arrow table. Raises MeasurementError."""
    import pyarrow as pa  # noqa: PLC0415 - heavy
    import pyarrow.parquet as pq  # noqa: PLC0415 - heavy

    try:
        with pq.ParquetFile(pa.BufferReader(read_bounded(path, LARGEST))) as file:
            about = file.metadata
            sizes = [
                about.row_group(number).total_byte_size for number in range(about.num_row_groups)
            ]
            if max(sum(sizes), about.num_rows * about.num_columns * 8) > LARGEST_READ:
                raise damaged(path, f"it has {about.num_rows} rows, more than any attempt's")
            return file.read(use_threads=False)  # of Arrow's, none outlives the call
    except (OSError, pa.ArrowException, ValueError, OverflowError, MemoryError) as error:
        raise damaged(path, f"cut short or damaged: {error}") from error
