"""`migrate-lab lab ready` and `lab repair`: prepare a lab's hosts, put back what was left there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from migrate.cli.options import AS_JSON, LAB, VERBOSE, say, shown

if TYPE_CHECKING:
    from migrate.lab.api import Lab
    from migrate.lab.config import LabConfig


@click.command(short_help="Prepare every host as the lab file says.")
@LAB
@AS_JSON
@VERBOSE
def ready(lab_file: Path | None, name: str | None, as_json: bool) -> None:
    """Prepare every host as the lab file's `prepare` says; a journal on the host keeps how to undo
    it."""
    from migrate.cleanup import repair as cleanup
    from migrate.lab.kinds import load_lab

    config = load_lab(lab_file, name)
    specs = {name: host.prepare for name, host in config.hosts.items()}
    with shown():
        cleanup.make_ready(_reach(config), specs)
    say(f"{config.name} is ready", {"lab": config.name, "ready": True}, as_json)


@click.command()
@LAB
@click.option("--dry-run", is_flag=True, help="Only list what is left.")
@click.option(
    "--force",
    is_flag=True,
    help="Clean up also what a lease or a live migrate-lab process protects.",
)
@AS_JSON
@VERBOSE
def repair(
    lab_file: Path | None, name: str | None, dry_run: bool, force: bool, as_json: bool
) -> None:
    """Clean up hosts after a migrate-lab process was killed."""
    from migrate import log
    from migrate.cleanup import repair as cleanup
    from migrate.lab.kinds import load_lab

    config = load_lab(lab_file, name)
    with shown():
        lab = _reach(config)
    lines: list[str] = []

    def note(line: str) -> None:
        lines.append(line)
        click.echo(line, err=as_json)

    with log.shown(note):
        count = cleanup.repair(lab, dry_run=dry_run, force=force)
    if as_json:
        document = {"lab": config.name, "dry_run": dry_run, "leftovers": count, "lines": lines}
        click.echo(json.dumps(document, indent=1))
    elif not count:
        click.echo(f"nothing is left on the hosts of {config.name}")


def _reach(config: LabConfig) -> Lab:
    """The lab, which must be up. Raises HostError."""
    from migrate.errors import HostError
    from migrate.lab import manager

    lab = manager.find(config)
    if lab is None:
        left = config.name in manager.names()
        raise HostError(
            f"reach the hosts of the lab {config.name}",
            said="it is not up" + (", but something of it is left" if left else ""),
            remedy=f"`migrate-lab lab {'down' if left else 'up'} --name {config.name}`",
        )
    return lab
