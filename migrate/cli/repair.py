"""`migrate-lab lab ready` and `lab repair`: prepare a lab's hosts, put back what was left there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from migrate.cli.options import LAB, VERBOSE, shown

if TYPE_CHECKING:
    from migrate.lab.api import Lab
    from migrate.lab.config import LabConfig


@click.command()
@LAB
@VERBOSE
def ready(lab_file: Path | None, name: str | None) -> None:
    """Prepare every host by the lab file's `prepare`, journalled on the host."""
    from migrate.cleanup import repair as cleanup
    from migrate.lab.kinds import load_lab

    config = load_lab(lab_file, name)
    specs = {name: host.prepare for name, host in config.hosts.items()}
    with shown():
        cleanup.make_ready(_reach(config), specs)
    click.echo(f"{config.name} is ready")


@click.command()
@LAB
@click.option("--dry-run", is_flag=True, help="Only tell what is left.")
@click.option("--force", is_flag=True, help="Also what a lease or a live controller protects.")
@VERBOSE
def repair(lab_file: Path | None, name: str | None, dry_run: bool, force: bool) -> None:
    """Put back what a dead controller left on the lab's hosts."""
    from migrate import log
    from migrate.cleanup import repair as cleanup
    from migrate.lab.kinds import load_lab

    config = load_lab(lab_file, name)
    with shown():
        lab = _reach(config)
    with log.shown(click.echo):
        count = cleanup.repair(lab, dry_run=dry_run, force=force)
    if not count:
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
