"""What commands that run share: the options of CI, and what they print of a run, table or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from migrate.campaign.session import Session
    from migrate.model import Quarantined
    from migrate.results.reader import RunRecord

Command = Callable[..., Any]

PATH = click.Path(path_type=Path)


def ci_options(command: Command) -> Command:
    """Where JUnit's XML goes, and what is known to fail."""
    junit = click.option(
        "--junit",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Write JUnit's XML here, too.",
    )
    listed = click.option(
        "--quarantine",
        "quarantine_file",
        type=PATH,
        help="List of known failures [default: quarantine.toml here, if there is one].",
    )
    return junit(listed(command))


@dataclass(frozen=True, slots=True)
class ForCi:
    """What these options came to."""

    junit: Path | None = None
    quarantine: tuple[Quarantined, ...] = ()

    @classmethod
    def asked(cls, junit: Path | None, quarantine_file: Path | None) -> ForCi:
        """Read the list, and remove what is at ``junit``: nobody shall take it for this run's.

        Raises ConfigurationError: a wrong list, or a place where no file can be.
        """
        from migrate.checks.quarantine import load
        from migrate.errors import ConfigurationError

        listed = load(quarantine_file)
        if junit is not None:
            try:
                junit.parent.mkdir(parents=True, exist_ok=True)
                junit.unlink(missing_ok=True)
            except OSError as error:
                raise ConfigurationError(
                    f"write --junit {junit}", said=str(error), remedy="name another file"
                ) from error
        return cls(junit, listed)

    def finish(self, going: Session) -> Path:
        """The end of a run: its report, whose path is returned, and JUnit's XML where asked for."""
        from migrate.results.files import copy_out

        report = going.finish()
        if self.junit is not None:
            copy_out(going.writer.folder / "junit.xml", self.junit)
        return report


NOT_CI = ForCi()


def print_run(record: RunRecord, *, as_json: bool) -> None:
    """On standard output."""
    from migrate.checks import quarantine
    from migrate.report import table

    if as_json:
        click.echo(_as_json(record))
        return
    attempts = [found.attempt for found in record.attempts]
    made = table.run_table(record.run, attempts)
    if not attempts:
        click.echo("\n".join(["no attempt was made", *map(table.clean, made.skips)]))
    elif sys.stdout.isatty():
        from rich.console import Console

        Console().print(table.rich(made))
    else:
        click.echo(table.plain(made), nl=False)
    for attempt in attempts:
        known = "quarantined: " if quarantine.excuses(record.run, attempt) else ""
        for verdict in attempt.failed_verdicts:
            click.echo(
                f"{known}{attempt.case.id}/{attempt.number}: {table.clean(verdict.check)} "
                f"{verdict.result}: {table.clean(verdict.evidence or verdict.measured)}"
            )
    for left in record.unfinished:
        click.echo(f"{table.clean(left)}: cut off, not finished")


def _as_json(record: RunRecord) -> str:
    from migrate.checks import quarantine

    document = {
        "folder": str(record.folder),
        "run": record.run.model_dump(mode="json"),
        "attempts": [
            {
                **found.attempt.model_dump(mode="json"),
                "passed": found.attempt.passed,
                "quarantined": bool(quarantine.excuses(record.run, found.attempt)),
            }
            for found in record.attempts
        ],
        "unfinished": list(record.unfinished),
    }
    return json.dumps(document, indent=1)
