"""``migrate-lab gate``: a run against earlier runs of the same lab and case."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from migrate.cli.options import AS_JSON, RESULTS, RUN_NAME


@click.command(short_help="Hold a run against earlier ones.")
@RUN_NAME
@click.option(
    "--baseline",
    "places",
    multiple=True,
    required=True,
    metavar="FOLDER|RUN",
    help="Earlier runs, or folders of runs; as often as you like.",
)
@RESULTS
@click.option(
    "--last",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="Earlier runs of a case that count.",
)
@click.option(
    "--alpha",
    type=click.FloatRange(0, 0.5, min_open=True),
    default=0.05,
    show_default=True,
    help="False alarms, of all comparisons together.",
)
@click.option(
    "--relative",
    type=click.FloatRange(0),
    default=0.1,
    show_default=True,
    help="Share of the baseline's median below which nothing is a change.",
)
@click.option(
    "--least-ms",
    "least",
    type=click.FloatRange(0),
    default=5.0,
    show_default=True,
    help="Milliseconds below which nothing is a change.",
)
@click.option(
    "--unit",
    type=click.Choice(["run", "attempt"]),
    default="run",
    show_default=True,
    help="attempt: runs are taken to be all alike.",
)
@AS_JSON
def gate(
    run_name: str, places: Sequence[str], results: Path, last: int, as_json: bool, **rules: Any
) -> None:
    """Hold RUN against earlier runs; exit 0 if nothing is worse, 1 if something is, 3 if nothing
    could be compared."""
    from migrate.report import baseline
    from migrate.report import regression as report
    from migrate.results.reader import find_run, read_run
    from migrate.statistics import regression

    chosen = regression.Rules(**rules)
    new = read_run(find_run(results, run_name))
    earlier = baseline.gather_baseline(new, baseline.run_folders(places, results), last)
    comparison = regression.compare(earlier.samples, chosen)
    if as_json:
        click.echo(json.dumps(report.document(comparison, earlier, chosen), indent=1))
    else:
        click.echo(report.plain(comparison, earlier, chosen), nl=False)
    sys.exit(regression.exit_code(comparison))
