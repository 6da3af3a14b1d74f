"""``migrate-lab trend`` and ``migrate-lab prune``: over many run folders.

Heavy modules are imported by the commands that need them, so that ``--help`` is quick.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click

from migrate.cli.options import (
    AS_JSON,
    CASE,
    FILE,
    PATH,
    RESULTS,
    Number,
    Text,
    warn_old_spelling,
)

PROBLEMS = 20
"""Told on standard error at most; the page and --json have all."""


@click.command(short_help="Show medians and spreads over many runs.")
@RESULTS
@CASE
@click.option(
    "--mode", "mode", type=Text(most=200), default="", metavar="MODE", help="Only this mode."
)
@click.option(
    "--lab", "lab_file", type=PATH, metavar="FILE", help="Only runs in the lab of this lab file."
)
@click.option(
    "--name",
    "lab_name",
    type=Text(most=200),
    default="",
    metavar="NAME",
    help="Only runs in the lab of this name.",
)
@click.option(
    "--figure",
    type=click.Choice(("downtime", "egress", "ingress", "total", "stall")),
    default="egress",
    show_default=True,
    help="Figure to show; egress and ingress are the outage seen.",
)
@click.option(
    "--by",
    type=click.Choice(("run", "day")),
    default="run",
    show_default=True,
    help="One row per run, or per day.",
)
@click.option(
    "--since",
    type=Text(most=200),
    default="",
    metavar="DATE",
    help="Only runs from this UTC date on, e.g. --since 2026-01-31.",
)
@click.option(
    "--html", "html_file", type=FILE, metavar="FILE", help="Write a page with plots to this file."
)
@AS_JSON
def trend(
    results: Path,
    lab_file: Path | None,
    lab_name: str,
    since: str,
    html_file: Path | None,
    as_json: bool,
    **asked: str,
) -> None:
    """Show medians and spreads by lab, case and mode over time; changes of versions are marked."""
    from migrate.errors import MeasurementError
    from migrate.report import trend as made
    from migrate.report.trend_page import render
    from migrate.results.database import open_store
    from migrate.results.files import write_file

    lab = lab_name or _lab_name(lab_file)
    question = made.TrendQuery(lab=lab, since=_date(since), **asked)  # type: ignore[arg-type]
    store = open_store(results)
    result = made.trend(store, question)
    if html_file:
        write_file(html_file, render(result))
    if as_json:
        click.echo(json.dumps(made.as_json(result), indent=1))
    elif html_file:
        click.echo(str(html_file))
    else:
        click.echo(made.plain(result), nl=False)
    for line in result.problems[:PROBLEMS]:
        click.echo(_clean(f"left out: {line}"), err=True)
    if more := len(result.problems[PROBLEMS:]):
        click.echo(f"left out: {more} more; --json has all", err=True)
    if store.refused:
        sys.exit(MeasurementError.exit_code)


def _lab_name(lab_file: Path | None) -> str:
    """The name that a lab file gives; empty without one."""
    from migrate.data import shipped
    from migrate.lab.kinds import load_lab

    if lab_file is None:
        return ""
    if lab_file.suffix != ".toml" and not os.path.lexists(shipped(lab_file)):
        warn_old_spelling("`trend --lab NAME`", "`trend --name NAME`")
        return str(lab_file)
    return load_lab(lab_file).name


def _date(text: str) -> str:
    """A date or time as it stands in the store: UTC, in a form that sorts."""
    from datetime import UTC, datetime

    from migrate.errors import ConfigurationError, quoted

    if not text:
        return ""
    tried = f"read --since {quoted(text)}"
    try:
        given = datetime.fromisoformat(text)
        utc = given.astimezone(UTC) if given.tzinfo else given
    except (ValueError, OverflowError) as error:
        raise ConfigurationError(
            tried, said="that is no date", remedy="a UTC date as 2026-01-31"
        ) from error
    return f"{utc.replace(tzinfo=None).isoformat(timespec='seconds')}Z"


@click.command(short_help="Remove the bulky parts of old runs.")
@RESULTS
@click.option(
    "--keep-days",
    type=Number(min=0, max=36_500),
    required=True,
    metavar="DAYS",
    help="Keep runs that are younger than this.",
)
@click.option(
    "--keep-runs",
    type=click.IntRange(min=0),
    required=True,
    metavar="N",
    help="Keep the last runs of each lab, whatever their age.",
)
@click.option("--whole", is_flag=True, help="Remove the whole run; no baseline has it any more.")
@click.option("--dry-run", is_flag=True, help="Only list what would be removed.")
@AS_JSON
def prune(
    results: Path, keep_days: float, keep_runs: int, whole: bool, dry_run: bool, as_json: bool
) -> None:
    """Remove packets, samples, events and logs of runs that are both old and not among the last.

    What `show`, `trend` and a baseline need stays: run.json, attempts.parquet and attempt.json.
    """
    from migrate.errors import MeasurementError
    from migrate.results import prune as pruning

    keep = pruning.KeepRule(keep_days, keep_runs)
    outcomes = []
    for outcome in pruning.prune(results, keep, whole=whole, dry=dry_run):
        outcomes.append(outcome)
        if not as_json:
            click.echo(_clean(_line(outcome.run, outcome.freed, outcome.left, dry_run)))
            for name in outcome.kept:
                click.echo(
                    _clean(f"{outcome.run}: {name} can't be read: all of it stays"), err=True
                )
    freed = sum(outcome.freed for outcome in outcomes)
    if as_json:
        runs = [
            {
                "run": each.run,
                "freed_bytes": each.freed,
                "left": each.left,
                "kept": list(each.kept),
            }
            for each in outcomes
        ]
        click.echo(json.dumps({"dry_run": dry_run, "freed_bytes": freed, "runs": runs}, indent=1))
    else:
        done = sum(not outcome.left for outcome in outcomes)
        click.echo(f"{done} runs, {_mib(freed)} {'would be freed' if dry_run else 'freed'}")
    if any(outcome.unreadable for outcome in outcomes):
        sys.exit(MeasurementError.exit_code)


def _line(run: str, freed: int, left: str, dry: bool) -> str:
    if left:
        return f"{run}: left as it is: {left}"
    return f"{run}: {_mib(freed)} {'would be freed' if dry else 'freed'}"


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"


def _clean(text: str) -> str:
    from migrate.report.table_text import clean

    return clean(text)
