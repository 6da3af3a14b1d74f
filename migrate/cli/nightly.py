"""``migrate-lab nightly``: as much of the matrix as a night has time for."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from migrate.cli.options import (
    AS_JSON,
    KEEP_LAB,
    NAME,
    PATH,
    RESULTS,
    VERBOSE,
    Duration,
    RunName,
    progress,
)
from migrate.cli.output import end_run
from migrate.cli.run import CI, CiOptions

if TYPE_CHECKING:
    from migrate.campaign.nightly import NightRequest
    from migrate.scenario.loader import Scenario

SCENARIOS = Path("testcases/scenarios")
REPEAT = 3


@click.command(short_help="As much of the matrix as a night has time for.")
@click.argument("lab_file", type=PATH, metavar="LAB")
@click.argument("scenarios", nargs=-1, type=PATH)
@click.option("--budget", "budget_s", type=Duration(), help="How long it may take, e.g. 8h.")
@click.option(
    "--resume", type=RunName(), metavar="RUN", help="Go on with this run, or with the `latest`."
)
@click.option(
    "--repeat",
    type=click.IntRange(1, 1000),
    help=f"Attempts of each case, if there is time [default: {REPEAT}].",
)
@NAME
@RESULTS
@KEEP_LAB
@AS_JSON
@VERBOSE
@CI
def nightly(
    lab_file: Path,
    scenarios: Sequence[Path],
    junit: Path | None,
    quarantine_file: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Run the cases of SCENARIOS in LAB while the budget lasts, the most informative first.

    Without SCENARIOS: all of testcases/scenarios. Exit codes as those of `run`.
    """
    from migrate.campaign.nightly import night

    resume = options["resume"]
    if resume is None and options["budget_s"] is None:
        raise click.UsageError("how long may it take? e.g. --budget 8h")
    if resume is not None and (scenarios or options["repeat"] or quarantine_file):
        raise click.UsageError(
            "--resume goes on with the run's own scenarios, --repeat and --quarantine: name none"
        )
    ci = CiOptions.parse(junit, quarantine_file)
    request = _request(lab_file, scenarios, ci, options)
    with night(request, progress(), resume) as going:
        going.go()
    end_run(going.session, as_json=as_json)


def _request(
    lab_file: Path, scenarios: Sequence[Path], ci: CiOptions, options: Mapping[str, Any]
) -> NightRequest:
    from migrate.campaign.nightly import NightRequest
    from migrate.data import shipped
    from migrate.errors import visible
    from migrate.lab.kinds import load_lab
    from migrate.scenario.loader import load_all

    config = load_lab(lab_file, options["name"])
    paths = scenarios or sorted(shipped(SCENARIOS).glob("*.toml"))
    loaded: tuple[Scenario, ...] = ()
    if options["resume"] is None:
        if not paths:
            raise click.UsageError(f"no SCENARIOS, and none in {SCENARIOS}")
        loaded = load_all(paths, (), config.scenario_defaults())
    return NightRequest(
        config,
        options["results"],
        loaded,
        options["budget_s"],
        options["repeat"] or REPEAT,
        ci.quarantine,
        ("migrate-lab", *map(visible, sys.argv[1:])),
        options["keep_lab"],
        ci.junit,
    )
