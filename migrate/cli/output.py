"""What commands print of a run: a table, or JSON."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from migrate.campaign.session import Session
    from migrate.results.reader import RunRecord


def end_run(session: Session, *, as_json: bool) -> None:
    """Print the run of a session that has ended, and exit by its result."""
    from migrate.results.reader import read_run

    record = read_run(session.folder)
    print_run(record, as_json=as_json)
    click.echo(f"run folder: {session.folder}", err=as_json)
    click.echo(f"report:     {session.report}", err=as_json)
    sys.exit(with_unreadable(session.exit_code, record))


def with_unreadable(code: int, record: RunRecord) -> int:
    """The exit code of a run of which attempts may be unreadable: the greatest of 3 to 6."""
    from migrate.errors import MeasurementError

    return max(code, MeasurementError.exit_code) if record.unreadable else code


def print_run(record: RunRecord, *, as_json: bool) -> None:
    """Print it on standard output, with each verdict by which an attempt failed."""
    from migrate.checks import quarantine
    from migrate.report import table_text
    from migrate.report.table import run_table
    from migrate.report.verdict_text import verdict_text

    if as_json:
        click.echo(_as_json(record))
        return
    attempts = [entry.attempt for entry in record.attempts]
    made = run_table(record.run, attempts, record.unreadable)
    if not attempts:
        none = "no attempt can be read" if record.unreadable else "no attempt was made"
        click.echo("\n".join([none, *map(table_text.clean, made.skips)]))
    elif sys.stdout.isatty():
        from rich.console import Console

        console = Console()
        console.print(table_text.rich(made, console.width))
    else:
        click.echo(table_text.plain(made), nl=False)
    for attempt in attempts:
        known = "quarantined: " if quarantine.excuses(record.run, attempt) else ""
        if attempt.void:
            name = f"{attempt.case.id}/{attempt.number}"
            click.echo(f"{name}: void: {table_text.clean(attempt.void_reason)}")
        for verdict in attempt.failed_verdicts:
            click.echo(
                f"{known}{attempt.case.id}/{attempt.number}: {verdict.result}: "
                f"{table_text.clean(verdict_text(verdict))}"
                f"{table_text.clean(f': {verdict.evidence}' if verdict.evidence else '')}"
            )
    for left in record.unfinished:
        click.echo(f"{table_text.clean(left)}: cut off, not finished")


def _as_json(record: RunRecord) -> str:
    from migrate.checks import quarantine

    document = {
        "folder": str(record.folder),
        "run": record.run.model_dump(mode="json"),
        "attempts": [
            {
                **entry.attempt.model_dump(mode="json"),
                "passed": entry.attempt.passed,
                "result": entry.attempt.result,
                "quarantined": bool(quarantine.excuses(record.run, entry.attempt)),
            }
            for entry in record.attempts
        ],
        "unfinished": list(record.unfinished),
        "unreadable": [{"attempt": lost.name, "why": lost.why} for lost in record.unreadable],
    }
    return json.dumps(document, indent=1)
