"""`migrate-lab lab ready` and `lab repair`: prepare a lab's hosts, put back what was left there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from migrate.lab.api import Lab
    from migrate.lab.config import LabConfig

PATH = click.Path(path_type=Path)
LAB_FILE = click.option("--lab", "lab_file", type=PATH, help="Lab file [default: two local hosts].")
NAME = click.option("--name", help="Another name for the lab.")


@click.command()
@LAB_FILE
@NAME
def ready(lab_file: Path | None, name: str | None) -> None:
    """Prepare every host by the lab file's `prepare`, journalled on the host."""
    from migrate.campaign.progress import Progress
    from migrate.cleanup import repair as repairing
    from migrate.lab.kinds import load_lab

    config = load_lab(lab_file, name)
    specs = {name: host.prepare for name, host in config.hosts.items()}
    repairing.make_ready(_up(config), specs, Progress().say)
    click.echo(f"{config.name} is ready")


@click.command()
@LAB_FILE
@NAME
@click.option("--dry-run", is_flag=True, help="Only tell what is left.")
@click.option("--force", is_flag=True, help="Also what a lease or a live controller protects.")
def repair(lab_file: Path | None, name: str | None, dry_run: bool, force: bool) -> None:
    """Put back what a dead controller left on the lab's hosts."""
    from migrate.cleanup import repair as repairing
    from migrate.lab.kinds import load_lab

    config = load_lab(lab_file, name)
    found = repairing.repair(_up(config), click.echo, dry_run=dry_run, force=force)
    if not found:
        click.echo(f"nothing is left on the hosts of {config.name}")


def _up(config: LabConfig) -> Lab:
    from migrate.campaign.progress import Progress
    from migrate.errors import HostError
    from migrate.lab import manager

    lab = manager.find(config, Progress().say)
    if lab is None:
        left = config.name in manager.names()
        raise HostError(
            f"reach the hosts of the lab {config.name}",
            said="it is not up" + (", but something of it is left" if left else ""),
            remedy=f"`migrate-lab lab {'down' if left else 'up'} --name {config.name}`",
        )
    return lab
