"""``migrate-lab``: the command line. No logic here: each command calls the layer below.

Heavy modules are imported by the commands that need them, so that ``--help`` is quick.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from migrate.cli import repair as cli_repair
from migrate.cli.analyze import analyze
from migrate.cli.init import init
from migrate.cli.lease import lease
from migrate.cli.nightly import nightly
from migrate.cli.output import NOT_CI, ForCi, ci_options, print_run
from migrate.cli.regression import gate
from migrate.cli.trend import prune, trend

if TYPE_CHECKING:
    from migrate.lab.config import LabConfig
    from migrate.scenario.loader import Scenario

Options = Callable[[Callable[..., Any]], Callable[..., Any]]

RESULTS = Path("results")


def _options(*options: Options) -> Options:
    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


PATH = click.Path(path_type=Path)
LAB = _options(
    click.option("--lab", "lab_file", type=PATH, help="Lab file [default: two local hosts]."),
    click.option("--name", help="Another name for the lab, so that two can be up at once."),
)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
RUN_OPTIONS = _options(
    LAB,
    click.option(
        "--repeat",
        default=1,
        show_default=True,
        type=click.IntRange(1, 1000),
        help="Attempts of each case.",
    ),
    click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key."),
    click.option(
        "--results", type=PATH, default=RESULTS, show_default=True, help="Where runs are kept."
    ),
    click.option("--keep-lab", is_flag=True, help="Leave the lab up afterwards."),
    AS_JSON,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="migrate-lab")
def cli() -> None:
    """Move real guests between hosts and tell the truth about their outage."""


# --- the lab --------------------------------------------------------------------------------------


@cli.group()
def lab() -> None:
    """Bring a lab up, look at it, take it down."""


@lab.command()
@LAB
def prepare(lab_file: Path | None, name: str | None) -> None:
    """Have in the cache what the lab is made of; bring nothing up."""
    from migrate.lab import manager as labs

    config = _config(lab_file, name)
    labs.prepare(config, _progress().say)
    click.echo(f"{config.name} can be brought up")


@lab.command()
@LAB
def up(lab_file: Path | None, name: str | None) -> None:
    """Bring the lab up; does nothing when it is up."""
    from migrate.lab import manager as labs

    config = _config(lab_file, name)
    progress = _progress()
    with closing(labs.up(config, progress.say)) as ready:
        click.echo(f"{ready.name} is up: {', '.join(ready.hosts)}")


@lab.command()
@LAB
@AS_JSON
def status(lab_file: Path | None, name: str | None, as_json: bool) -> None:
    """What is up; exit code 3 if the lab is not."""
    from migrate.lab import manager as labs

    config = _config(lab_file, name)
    wanted = config.name
    there = labs.find(config, _progress().say)
    if as_json:
        click.echo(there.as_json() if there else json.dumps(None))
    elif there is None:
        left = (
            f"; something of it is left: `migrate-lab lab down --name {wanted}`"
            if wanted in labs.names()
            else ""
        )
        click.echo(f"{wanted} is not up{left}")
    else:
        for line in there.summary():
            click.echo(line)
    if there is None:
        sys.exit(3)
    there.close()


@lab.command()
@LAB
def down(lab_file: Path | None, name: str | None) -> None:
    """Remove all of the lab, also what a killed controller left."""
    from migrate.lab import manager as labs

    config = _config(lab_file, name)
    if labs.is_persistent(config):
        click.echo(f"nothing of the {config.kind} {config.name} was brought up")
        return
    labs.down(config)
    click.echo(f"{config.name} is down")


@lab.command()
@click.argument("host")
@click.argument("command", nargs=-1)
@LAB
def shell(host: str, command: Sequence[str], lab_file: Path | None, name: str | None) -> None:
    """A shell on HOST, or COMMAND there (after --)."""
    from migrate.errors import ConfigurationError
    from migrate.lab import manager as labs

    config = _config(lab_file, name)
    wanted = config.name
    there = labs.find(config, _progress().say)
    if there is None:
        raise ConfigurationError(
            f"open a shell in the lab {wanted}",
            said="it is not up",
            remedy=f"`migrate-lab lab up --name {wanted}`",
        )
    if host not in there.hosts:
        raise ConfigurationError(
            f"open a shell on {host}", said="no such host", remedy=", ".join(there.hosts)
        )
    done = subprocess.run(there.enter(host, list(command) or ["bash"]), check=False)
    sys.exit(done.returncode)


@cli.command(short_help="What each host of a lab can do, mode by mode.")
@LAB
@click.option("--fresh", is_flag=True, help="Try KVM again, whatever was found last time.")
@AS_JSON
def doctor(lab_file: Path | None, name: str | None, fresh: bool, as_json: bool) -> None:
    """What each host of a lab can do, mode by mode; if not: the reason and the remedy."""
    from migrate.campaign import session
    from migrate.report import doctor as health

    progress = _progress()
    with session.lab_up(_config(lab_file, name), progress.say) as found:
        facts = session.look(found, progress.say, fresh=fresh)
    if as_json:
        click.echo(json.dumps([host.model_dump() for host in facts], indent=1))
    else:
        needs, to_migrate = session.needs_of_modes(), session.needs_to_migrate()
        click.echo(health.plain(facts, needs, to_migrate))


lab.add_command(cli_repair.ready)
lab.add_command(cli_repair.repair)


# --- running --------------------------------------------------------------------------------------


@cli.command(short_help="Run every case of scenario files.")
@click.argument("scenarios", nargs=-1, required=True, type=PATH)
@RUN_OPTIONS
@ci_options
def run(
    scenarios: Sequence[Path],
    overrides: Sequence[str],
    junit: Path | None,
    quarantine_file: Path | None,
    **options: Any,
) -> None:
    """Run every case of SCENARIOS; exit 0 if all passed, 1 if a verdict failed."""
    from migrate.scenario.loader import load_all

    ci = ForCi.asked(junit, quarantine_file)
    config = _config(options.pop("lab_file"), options.pop("name"))
    _run(config, load_all(scenarios, overrides, config.scenario_defaults()), ci=ci, **options)


@cli.command()
@click.option("--modes", required=True, help="Comma-separated, e.g. virtio,vhost-user.")
@click.option("--scenario", type=PATH, help="All else as in this scenario.")
@RUN_OPTIONS
def compare(modes: str, scenario: Path | None, overrides: Sequence[str], **options: Any) -> None:
    """One workload over several modes, in one table."""
    from migrate.errors import ConfigurationError
    from migrate.scenario.loader import for_modes

    if any(override.startswith("interface.mode=") for override in overrides):
        raise ConfigurationError(
            "compare modes", said="--set interface.mode speaks against --modes", remedy="give one"
        )
    config = _config(options.pop("lab_file"), options.pop("name"))
    defaults = config.scenario_defaults()
    _run(config, (for_modes(modes.split(","), scenario, overrides, defaults),), **options)


def _run(
    config: LabConfig,
    scenarios: tuple[Scenario, ...],
    ci: ForCi = NOT_CI,
    *,
    repeat: int,
    results: Path,
    keep_lab: bool,
    as_json: bool,
) -> None:
    from migrate.campaign import session
    from migrate.errors import visible
    from migrate.results.reader import read_run

    progress = _progress()
    watcher = session.Watcher(
        progress.say, progress.on_sample, progress.on_phase, progress.on_attempt
    )
    cases = [case for scenario in scenarios for case in scenario.cases]
    with session.lab_up(config, progress.say, keep=keep_lab) as found:
        # A path of the disk may be no UTF-8, and what is on record is.
        command = ("migrate-lab", *map(visible, sys.argv[1:]))
        going = session.begin(found, results, scenarios, watcher, command)
        going.writer.change(quarantine=ci.quarantine)
        try:
            going.try_all(cases, repeat)
        finally:
            report = ci.finish(going)
            progress.end()
    print_run(read_run(going.writer.folder), as_json=as_json)
    click.echo(f"run folder: {going.writer.folder}", err=as_json)
    click.echo(f"report:     {report}", err=as_json)
    sys.exit(going.exit_code)


@cli.command(short_help="Print the table of a run.")
@click.argument("run_name", default="latest", metavar="[RUN]")
@click.option(
    "--results", type=PATH, default=RESULTS, show_default=True, help="Where runs are kept."
)
@click.option("--inside", is_flag=True, help="And where each attempt's outage went, its handoff.")
@AS_JSON
def show(run_name: str, results: Path, as_json: bool, inside: bool) -> None:
    """The table of RUN, and why each failed attempt failed."""
    from migrate.results.reader import find_run, read_run

    record = read_run(find_run(results, run_name))
    print_run(record, as_json=as_json)
    if inside and not as_json:
        from migrate.report.move_details import sections
        from migrate.report.table import plain_sections

        for one in record.attempts:
            click.echo(f"--- {one.attempt.case.id}, attempt {one.attempt.number}")
            click.echo(plain_sections(sections(one.attempt)), nl=False)


@cli.command()
@click.argument("run_name", default="latest", metavar="[RUN]")
@click.option(
    "--results", type=PATH, default=RESULTS, show_default=True, help="Where runs are kept."
)
@AS_JSON
def report(run_name: str, results: Path, as_json: bool) -> None:
    """Make report.html of RUN anew, and say where it is."""
    from migrate.report.html import write_report
    from migrate.results.reader import find_run

    path = write_report(find_run(results, run_name))
    click.echo(json.dumps({"report": str(path)}) if as_json else str(path))


@cli.command()
def schema() -> None:
    """The JSON schema of scenario files, for editors."""
    from migrate.scenario.json_schema import schema as made

    click.echo(json.dumps(made(), indent=2))


for command in (analyze, gate, init, lease, nightly, trend, prune):
    cli.add_command(command)


# --- what the commands share ----------------------------------------------------------------------


def _config(lab_file: Path | None, name: str | None) -> LabConfig:
    from migrate.lab.kinds import load_lab

    return load_lab(lab_file, name)


def _progress() -> Any:
    from migrate.campaign.progress import Progress

    return Progress()


def _interrupt(_number: int, _frame: object) -> None:
    """The first one ends what is going on; a second one must not end the undoing of it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: click.echo("migrate-lab: still undoing", err=True))
    raise KeyboardInterrupt


def main() -> None:
    """The entry point: errors of our tree become one clear line and their exit code."""
    from migrate.errors import LabError

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        cli(standalone_mode=False)
    except LabError as error:
        click.echo(f"migrate-lab: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("migrate-lab: interrupted; what was done has been undone", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
