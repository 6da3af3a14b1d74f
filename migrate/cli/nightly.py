"""``migrate-lab nightly``: as much of the matrix as a night has time for."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from migrate.cli.output import PATH, ForCi, ci_options, print_run

if TYPE_CHECKING:
    from migrate.campaign.nightly import Asked
    from migrate.scenario.loader import Scenario

SCENARIOS = Path("testcases/scenarios")
REPEAT = 3
UNITS = {"h": 3600, "min": 60, "m": 60, "s": 1}


class Lasting(click.ParamType[float]):
    """A length of time with units: ``8h``, ``1h30min``, ``90 min``, ``45s``; in seconds."""

    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Seconds; a usage error if it is none, or no time at all."""
        if isinstance(value, float):
            return value
        parts = re.findall(r"(\d+) *(h|min|m|s) *", str(value))
        seconds = float(sum(int(number) * UNITS[unit] for number, unit in parts))
        whole = "".join(number + unit for number, unit in parts)
        if whole != re.sub(r"\s", "", str(value)) or seconds <= 0:
            self.fail(f"{value!r} is no length of time: e.g. 8h, 1h30min, 45min", param, ctx)
        return seconds


@click.command(short_help="As much of the matrix as a night has time for.")
@click.argument("lab_file", type=PATH, metavar="LAB")
@click.argument("scenarios", nargs=-1, type=PATH)
@click.option("--budget", "budget_s", type=Lasting(), help="How long it may take, e.g. 8h.")
@click.option("--resume", metavar="RUN", help="Go on with this run, or with the `latest`.")
@click.option(
    "--repeat",
    type=click.IntRange(1, 1000),
    help=f"Attempts of each case, if there is time [default: {REPEAT}].",
)
@click.option("--name", help="Another name for the lab, so that two can be up at once.")
@click.option(
    "--results", type=PATH, default="results", show_default=True, help="Where runs are kept."
)
@click.option("--keep-lab", is_flag=True, help="Leave the lab up afterwards.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@ci_options
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
    from migrate.campaign import nightly as story
    from migrate.campaign import session
    from migrate.campaign.progress import Progress
    from migrate.results.reader import read_run

    resume = options["resume"]
    if resume is None and options["budget_s"] is None:
        raise click.UsageError("how long may it take? e.g. --budget 8h")
    if resume is not None and (scenarios or options["repeat"] or quarantine_file):
        raise click.UsageError(
            "--resume goes on with the run's own scenarios, --repeat and --quarantine: name none"
        )
    ci = ForCi.asked(junit, quarantine_file)
    asked = _asked(lab_file, scenarios, ci, options)
    progress = Progress()
    watcher = session.Watcher(
        progress.say, progress.on_sample, progress.on_phase, progress.on_attempt
    )
    with story.night(asked, watcher, resume) as night:
        folder = night.going.writer.folder
        try:
            night.go()
        finally:
            report = ci.finish(night.going)
            progress.end()
    print_run(read_run(folder), as_json=as_json)
    click.echo(f"run folder: {folder}", err=as_json)
    click.echo(f"report:     {report}", err=as_json)
    sys.exit(night.going.exit_code)


def _asked(
    lab_file: Path, scenarios: Sequence[Path], ci: ForCi, options: Mapping[str, Any]
) -> Asked:
    from migrate.campaign.nightly import Asked
    from migrate.data import shipped
    from migrate.lab.kinds import load_lab
    from migrate.scenario.loader import load_all

    config = load_lab(lab_file, options["name"])
    paths = scenarios or sorted(shipped(SCENARIOS).glob("*.toml"))
    loaded: tuple[Scenario, ...] = ()
    if options["resume"] is None:
        if not paths:
            raise click.UsageError(f"no SCENARIOS, and none in {SCENARIOS}")
        loaded = load_all(paths, (), config.scenario_defaults())
    return Asked(
        config,
        options["results"],
        loaded,
        options["budget_s"],
        options["repeat"] or REPEAT,
        ci.quarantine,
        ("migrate-lab", *sys.argv[1:]),
        options["keep_lab"],
    )
