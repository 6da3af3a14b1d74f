"""What the workload of an attempt did, beside what it was asked to do."""

from __future__ import annotations

from collections.abc import Iterator

from migrate.model import Attempt, WorkDone
from migrate.report.table_model import Cell, Grid, GridSection

HEADS = ("in", "written, MiB/s", "sent, packets/s", "echoed by TCP, bytes/s")


def work_sections(attempt: Attempt) -> Iterator[GridSection]:
    """Stretch by stretch; nothing where the guest did not tell."""
    if not attempt.work:
        return
    asked = attempt.case.workload
    wanted = (
        Cell("asked"),
        Cell(f"{asked.dirty_mib_s if asked.dirty_mib else 0:g}"),
        Cell(f"{1e6 / asked.interval_us:.0f}"),
        Cell(f"{asked.tcp_connections} connections"),
    )
    rows = (wanted, *(_row(done) for done in attempt.work))
    yield GridSection("the workload, as the guest's probe counted it", Grid(HEADS, rows))


def _row(done: WorkDone) -> tuple[Cell, ...]:
    where = f"move {done.hop}" if done.window == "move" else done.window
    return (
        Cell(where, f"{done.seconds:.2f} s"),
        Cell(f"{done.dirty_mib_s:.1f}"),
        Cell(f"{done.packets_s:.0f}"),
        Cell(f"{done.tcp_bytes_s:.0f}"),
    )
