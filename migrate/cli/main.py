"""``migrate-lab``: the command line. No logic here: each command calls the layer below.

Heavy modules are imported by the commands that need them, so that ``--help`` is quick.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import click

from migrate.cli.analyze import analyze
from migrate.cli.init import init
from migrate.cli.lab import doctor, lab
from migrate.cli.lease import lease
from migrate.cli.nightly import nightly
from migrate.cli.options import AS_JSON, RESULTS, RUN_NAME
from migrate.cli.output import print_run
from migrate.cli.regression import gate
from migrate.cli.run import compare, run
from migrate.cli.trend import prune, trend


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="migrate-lab")
def cli() -> None:
    """Move real guests between hosts and tell the truth about their outage."""


@cli.command(short_help="Print the table of a run.")
@RUN_NAME
@RESULTS
@click.option("--inside", is_flag=True, help="And where each attempt's outage went, its handoff.")
@AS_JSON
def show(run_name: str, results: Path, as_json: bool, inside: bool) -> None:
    """The table of RUN, and why each failed attempt failed."""
    from migrate.results.reader import find_run, read_run

    record = read_run(find_run(results, run_name))
    print_run(record, as_json=as_json)
    if inside and not as_json:
        from migrate.report.machines import machine_sections
        from migrate.report.move_details import sections
        from migrate.report.table_text import plain_sections
        from migrate.report.work import work_sections

        for one in record.attempts:
            click.echo(f"--- {one.attempt.case.id}, attempt {one.attempt.number}")
            attempt = one.attempt
            told = (*sections(attempt), *work_sections(attempt), *machine_sections(attempt))
            click.echo(plain_sections(told), nl=False)


@cli.command()
@RUN_NAME
@RESULTS
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


for command in (lab, doctor, run, compare, analyze, gate, init, lease, nightly, trend, prune):
    cli.add_command(command)


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
