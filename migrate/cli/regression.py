"""``migrate-lab gate``: a run against earlier runs of the same lab and case."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from migrate.cli.options import AS_JSON, PATH, RESULTS, RUN_NAME, Number, Text


@click.command(short_help="Hold a run against earlier ones.")
@RUN_NAME
@click.option(
    "--baseline",
    "places",
    type=PATH,
    multiple=True,
    required=True,
    metavar="FOLDER|RUN",
    help="Earlier runs, or folders of runs; as often as you like.",
)
@RESULTS
@click.option(
    "--last",
    type=click.IntRange(1, 1000),
    default=10,
    show_default=True,
    help="Earlier runs of a case that count.",
)
@click.option(
    "--alpha",
    type=Number(0, 0.5, min_open=True),
    default=0.05,
    show_default=True,
    help="False alarms, of all comparisons together.",
)
@click.option(
    "--relative",
    type=Number(0),
    default=0.1,
    show_default=True,
    help="Share of the baseline's median below which nothing is a change.",
)
@click.option(
    "--least-ms",
    "least",
    type=Number(0),
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
@click.option(
    "--allow-blind",
    "blind",
    is_flag=True,
    help="Of a figure that varies too much it need not be told, if no change shows.",
)
@click.option(
    "--allow-cant-tell",
    "cant_tell",
    type=Text(most=200),
    multiple=True,
    metavar="FIGURE",
    help="Figures of which it need not be told: a pattern, also as CASE/FIGURE; '*': all.",
)
@click.option(
    "--allow-missing",
    "missing",
    type=Text(most=200),
    multiple=True,
    metavar="CASE",
    help="Cases of the baseline that need no attempt in RUN: a pattern; '*': all.",
)
@AS_JSON
def gate(
    run_name: str,
    places: Sequence[Path],
    results: Path,
    last: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Hold RUN against earlier runs; exit 0 if nothing is worse, 1 if something is, 3 if it can't
    be told of a figure, or a case of the baseline has no attempt, 5 if one can't be read."""
    from migrate.report import baseline
    from migrate.report import regression as report
    from migrate.results.reader import find_run, read_run
    from migrate.statistics.comparison import Allowance, Rules
    from migrate.statistics.regression import compare, exit_code

    allowed = Allowance(*(options.pop(name) for name in ("cant_tell", "missing", "blind")))
    chosen = Rules(**options)
    new = read_run(find_run(results, run_name))
    earlier = baseline.gather_baseline(
        new, baseline.run_folders([str(place) for place in places], results), last
    )
    comparisons = (*compare(earlier.samples, chosen), *earlier.untold)
    if as_json:
        click.echo(json.dumps(report.document(comparisons, earlier, chosen), indent=1))
    else:
        click.echo(report.plain(comparisons, earlier, chosen), nl=False)
    sys.exit(exit_code(comparisons, allowed))
