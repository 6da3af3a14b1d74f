"""``migrate-lab``: the command line. No logic here: each command calls the layer below.

Heavy modules are imported by the commands that need them, so that ``--help`` is quick.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from migrate.cli.analyze import analyze
from migrate.cli.init import init
from migrate.cli.lab import doctor, lab
from migrate.cli.lease import lease
from migrate.cli.nightly import nightly
from migrate.cli.options import AS_JSON, ATTEMPT, CASE, RESULTS, RUN_NAME
from migrate.cli.output import print_run
from migrate.cli.regression import gate
from migrate.cli.run import compare, run
from migrate.cli.streams import ClosedOutputError, OutputError, have_streams, point_nowhere
from migrate.cli.trend import prune, trend

NOBODY_READS = 128 + signal.SIGPIPE
"""Exit code where standard output was closed by who was to read it, as a shell has it."""
COMPLETION = "_MIGRATE_LAB_COMPLETE"
"""The variable by which a shell asks what a word may go on with, as click has it."""
LONGEST = 1000
"""Letters of a usage error."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="migrate-lab")
def cli() -> None:
    """Live-migrate real guests between hosts, and measure the outage of their network."""


@cli.command(short_help="Print what a run found: what failed and why, then its figures.")
@RUN_NAME
@RESULTS
@CASE
@ATTEMPT
@click.option(
    "--inside",
    is_flag=True,
    help="Instead of tables, each attempt in detail: its verdicts, where its outage went, the "
    "handoff of its devices.",
)
@AS_JSON
def show(
    run_name: str,
    results: Path,
    case: str,
    attempt: int | None,
    as_json: bool,
    inside: bool,
) -> None:
    """Print what failed in RUN and why, then its answers and tables."""
    from migrate.results.reader import find_run, read_run
    from migrate.results.selection import selected

    record = selected(read_run(find_run(results, run_name)), case, attempt)
    print_run(record, as_json=as_json, inside=inside)


@cli.command(short_help="Write report.html of a run again.")
@RUN_NAME
@RESULTS
@AS_JSON
def report(run_name: str, results: Path, as_json: bool) -> None:
    """Write report.html of RUN again, and print its path."""
    from migrate.report.html import write_report
    from migrate.results.reader import find_run

    path = write_report(find_run(results, run_name))
    click.echo(json.dumps({"report": str(path)}) if as_json else str(path))


@cli.command()
@click.option("--json", is_flag=True, expose_value=False, help="No change: a schema is JSON.")
def schema() -> None:
    """Print the JSON schema of scenario files, for editors."""
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
    """The entry point: whatever happens is one clear line at most, and an exit code."""
    have_streams()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    if instruction := os.environ.get(COMPLETION):
        from click.shell_completion import shell_complete

        sys.exit(shell_complete(cli, {}, "migrate-lab", COMPLETION, instruction))
    sys.exit(status(sys.argv[1:]))


def status(words: Sequence[str]) -> int | str | None:
    """Do what ``words`` say, and return the exit code: errors become one line."""
    from migrate import log

    try:
        with log.remembered():
            return _done(words)
    except ClosedOutputError:
        point_nowhere(1)
        return NOBODY_READS
    except (KeyboardInterrupt, click.Abort):
        click.echo("migrate-lab: interrupted; what was done has been undone", err=True)
        return 130
    except Exception as error:  # noqa: BLE001 - the last net
        return _told(error, words)


def _told(error: Exception, words: Sequence[str]) -> int:
    """Say what went wrong, a line for each error of a file; returns the exit code of its kind."""
    from migrate.bug_report import as_program_error
    from migrate.errors import CombinedConfigurationError, LabError

    if isinstance(error, OutputError):
        point_nowhere(1)
    if isinstance(error, click.ClickException):
        _show(error)
        return error.exit_code
    if not isinstance(error, LabError):
        error = as_program_error(error, " ".join(("migrate-lab", *words[:1])))
    lines = [str(error)]
    if isinstance(error, CombinedConfigurationError):
        lines = [*error.lines()]
    for line in lines:
        click.echo(f"migrate-lab: {line}", err=True)
    return error.exit_code


def _done(words: Sequence[str]) -> int | str | None:
    """The exit code of a command, once all that it printed is written. Raises what it does.

    Not by click's own way in, which takes every broken pipe for that of standard output.
    """
    try:
        with cli.make_context("migrate-lab", list(words)) as context:
            cli.invoke(context)
        code: int | str | None = 0
    except click.exceptions.Exit as end:
        code = end.exit_code
    except SystemExit as end:
        code = end.code
    sys.stdout.flush()
    return code


def _show(error: click.ClickException) -> None:
    """A line: the command, what is wrong, where to read what is right; click's help is as it is."""
    from migrate.errors import visible

    context = getattr(error, "ctx", None)
    command = context.command_path if context else "migrate-lab"
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return
    said = visible(error.format_message())[:LONGEST]
    click.echo(f"{command}: {said} -- see `{command} --help`", err=True)


if __name__ == "__main__":
    main()
