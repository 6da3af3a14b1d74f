"""``migrate-lab gate``: a run against earlier runs of the same lab and case."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from migrate.cli.options import AS_JSON, CASE, PATH, RESULTS, RUN_NAME, Number, Text


@click.command(short_help="Compare a run with earlier ones, and fail if it is worse.")
@RUN_NAME
@click.option(
    "--baseline",
    "places",
    type=PATH,
    multiple=True,
    required=True,
    metavar="FOLDER|RUN",
    help="Earlier run, or folder of runs, to compare with; may be given several times.",
)
@RESULTS
@CASE
@click.option(
    "--last",
    type=click.IntRange(1, 1000),
    default=10,
    show_default=True,
    metavar="N",
    help="How many earlier runs of a case to use, the latest ones.",
)
@click.option(
    "--alpha",
    type=Number(0, 0.5, min_open=True),
    default=0.05,
    show_default=True,
    metavar="P",
    help="Probability of a false alarm, over all comparisons together.",
)
@click.option(
    "--relative",
    type=Number(0),
    default=0.1,
    show_default=True,
    metavar="SHARE",
    help="Ignore changes below this share of the baseline's median.",
)
@click.option(
    "--least-ms",
    "least",
    type=Number(0),
    default=5.0,
    show_default=True,
    metavar="MS",
    help="Ignore changes below so many milliseconds.",
)
@click.option(
    "--unit",
    type=click.Choice(["run", "attempt"]),
    default="run",
    show_default=True,
    help="What varies by chance; attempt: assume that runs do not differ from one another.",
)
@click.option(
    "--allow-blind",
    "blind",
    is_flag=True,
    help="Pass a figure that varies too much to be judged, if no change shows.",
)
@click.option(
    "--allow-cant-tell",
    "cant_tell",
    type=Text(most=200),
    multiple=True,
    metavar="FIGURE",
    help="Pass these figures if they can't be judged: a pattern, also CASE/FIGURE; '*': all.",
)
@click.option(
    "--allow-missing",
    "missing",
    type=Text(most=200),
    multiple=True,
    metavar="CASE",
    help="Pass cases of the baseline that have no attempt in RUN: a pattern; '*': all.",
)
@AS_JSON
def gate(
    run_name: str,
    places: Sequence[Path],
    results: Path,
    case: str,
    last: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Compare RUN with earlier runs, figure by figure.

    Exit code 0 if nothing is worse, 1 if something is, 3 if a figure can't be judged or a case of
    the baseline has no attempt, 5 if one can't be read.
    """
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
    ).only(case)
    comparisons = (*compare(earlier.samples, chosen), *earlier.untold)
    if as_json:
        click.echo(json.dumps(report.document(comparisons, earlier, chosen), indent=1))
    else:
        click.echo(report.plain(comparisons, earlier, chosen), nl=False)
    sys.exit(exit_code(comparisons, allowed))
