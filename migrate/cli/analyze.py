"""``migrate-lab analyze``: an old run, judged anew by today's code."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from migrate.cli.options import AS_JSON, RESULTS, RUN_NAME


@click.command(short_help="Judge an old run anew, and say what differs.")
@RUN_NAME
@RESULTS
@AS_JSON
def analyze(run_name: str, results: Path, as_json: bool) -> None:
    """Judge the recordings of RUN by today's code; nothing is overwritten. Exit 0 if findings and
    verdicts are the same, 1 if some differ, 5 if an attempt can't be read, 3 if none could be
    judged anew."""
    from migrate.report import reanalysis
    from migrate.results.reader import find_run, read_run

    record = read_run(find_run(results, run_name))
    attempts = [
        *(reanalysis.reanalyse(attempt) for attempt in record.attempts),
        *map(reanalysis.unreadable, record.unreadable),
    ]
    if as_json:
        click.echo(json.dumps(reanalysis.document(record.run.name, attempts), indent=1))
    else:
        click.echo(reanalysis.plain(attempts), nl=False)
    sys.exit(reanalysis.exit_code(attempts))
