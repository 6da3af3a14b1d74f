"""``migrate-lab nightly``: as much of the matrix as a night has time for."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from migrate.cli.options import (
    AS_JSON,
    CASE,
    KEEP_LAB,
    LAB,
    PATH,
    RESULTS,
    SET,
    VERBOSE,
    Duration,
    RunName,
    progress,
    warn_old_spelling,
)
from migrate.cli.output import end_run
from migrate.cli.run import CI, CiOptions

if TYPE_CHECKING:
    from migrate.campaign.nightly import NightRequest
    from migrate.scenario.loader import Scenario

SCENARIOS = Path("testcases/scenarios")
REPEAT = 3


@click.command(short_help="Run as many cases as a time budget allows.")
@click.argument("scenarios", nargs=-1, type=PATH)
@LAB
@click.option(
    "--budget",
    "budget_s",
    type=Duration(),
    metavar="TIME",
    help="How long it may take, e.g. --budget 8h.",
)
@click.option("--resume", type=RunName(), metavar="RUN", help="Continue this run, or the `latest`.")
@click.option(
    "--repeat",
    type=click.IntRange(1, 1000),
    metavar="N",
    help=f"Attempts of each case, if there is time [default: {REPEAT}].",
)
@SET
@CASE
@RESULTS
@KEEP_LAB
@AS_JSON
@VERBOSE
@CI
def nightly(
    scenarios: Sequence[Path],
    junit: Path | None,
    quarantine_file: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Run the cases of SCENARIOS while the budget lasts, the most informative first.

    Without SCENARIOS: all of testcases/scenarios. Exit codes: as of `run`.
    """
    from migrate.campaign.nightly import night

    resume = options["resume"]
    if options["lab_file"] is None:
        options["lab_file"], scenarios = _lab_by_position(scenarios)
    if resume is None and options["budget_s"] is None:
        raise click.UsageError("how long may it take? e.g. --budget 8h")
    chosen = options["repeat"] or options["overrides"] or options["case"] != "*"
    if resume is not None and (scenarios or chosen or quarantine_file):
        raise click.UsageError(
            "--resume continues with the run's own scenarios, --repeat, --set, --case and "
            "--quarantine: give none of them"
        )
    ci = CiOptions.parse(junit, quarantine_file)
    request = _request(scenarios, ci, options)
    with night(request, progress(), resume) as going:
        going.go()
    end_run(going.session, as_json=as_json)


def _lab_by_position(paths: Sequence[Path]) -> tuple[Path | None, Sequence[Path]]:
    """The lab file of ``nightly LAB …``, as it was before there was ``--lab``, and the rest."""
    from migrate.lab.kinds import is_lab_file

    if not paths or not is_lab_file(paths[0]):
        return None, paths
    warn_old_spelling("`nightly LAB`", "`nightly --lab LAB`")
    return paths[0], paths[1:]


def _request(scenarios: Sequence[Path], ci: CiOptions, options: Mapping[str, Any]) -> NightRequest:
    from migrate.campaign.nightly import NightRequest
    from migrate.data import shipped
    from migrate.errors import visible
    from migrate.lab.kinds import load_lab
    from migrate.scenario.loader import load_all, matching

    config = load_lab(options["lab_file"], options["name"])
    paths = scenarios or sorted(shipped(SCENARIOS).glob("*.toml"))
    loaded: tuple[Scenario, ...] = ()
    if options["resume"] is None:
        if not paths:
            raise click.UsageError(f"no SCENARIOS, and none in {SCENARIOS}")
        loaded = load_all(paths, options["overrides"], config.scenario_defaults())
        loaded = matching(loaded, options["case"])
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
        tuple(map(visible, options["overrides"])),
        options["case"],
    )
