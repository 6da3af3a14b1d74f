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


def print_run(record: RunRecord, *, as_json: bool, inside: bool = False) -> None:
    """Print it on standard output: its result, what did not pass and why, then its tables.

    ``inside``: the details of each attempt in place of the tables.
    """
    from migrate.report.failure_text import failure_text

    if as_json:
        click.echo(_as_json(record))
        return
    lines = failure_text(record)
    click.echo("\n".join((lines[0], *(lines[1:] and ["", *lines[1:]]), "")))
    if inside:
        _print_details(record)
    else:
        _print_tables(record)


def _print_tables(record: RunRecord) -> None:
    from migrate.report import table_text
    from migrate.report.table import run_table

    attempts = [entry.attempt for entry in record.attempts]
    table = run_table(record.run, attempts, record.unreadable)
    if not attempts:
        none = "no attempt can be read" if record.unreadable else "no attempt was made"
        click.echo("\n".join([none, *table_text.wrapped(table.skips)]))
    elif sys.stdout.isatty():
        from rich.console import Console

        console = Console()
        console.print(table_text.rich(table, console.width))
    else:
        click.echo(table_text.plain(table), nl=False)


def _print_details(record: RunRecord) -> None:
    from migrate.report.attempt_text import attempt_text

    for entry in record.attempts:
        click.echo("\n".join(attempt_text(entry.attempt)))


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
