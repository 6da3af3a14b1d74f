"""``migrate-lab analyze``: an old run, judged anew by today's code."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from migrate.cli.options import AS_JSON, ATTEMPT, CASE, RESULTS, RUN_NAME, is_chosen


@click.command(short_help="Judge a run again with today's code, and list what differs.")
@RUN_NAME
@RESULTS
@CASE
@ATTEMPT
@AS_JSON
def analyze(run_name: str, results: Path, case: str, attempt: int | None, as_json: bool) -> None:
    """Judge the recordings of RUN again with today's code; nothing is overwritten.

    Exit code 0 if findings and verdicts are the same, 1 if some differ, 5 if an attempt can't be
    read, 3 if none could be judged again.
    """
    from migrate.report import reanalysis
    from migrate.results.reader import find_run, read_run

    record = read_run(find_run(results, run_name))
    attempts = [
        *(
            reanalysis.reanalyse(entry)
            for entry in record.attempts
            if is_chosen(entry.attempt.case.id, entry.attempt.number, case, attempt)
        ),
        *(
            reanalysis.unreadable(lost)
            for lost in record.unreadable
            if is_chosen(lost.case_id, lost.number, case, attempt)
        ),
    ]
    if as_json:
        click.echo(json.dumps(reanalysis.document(record.run.name, attempts), indent=1))
    else:
        click.echo(reanalysis.plain(attempts), nl=False)
    sys.exit(reanalysis.exit_code(attempts))
