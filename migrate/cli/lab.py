"""``migrate-lab lab …`` and ``doctor``: bring a lab up, look at it, take it down.

Heavy modules are imported by the commands that need them, so that ``--help`` is quick.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import click

from migrate.cli.options import AS_JSON, LAB, PATH, VERBOSE, say, shown
from migrate.cli.repair import ready, repair

LOGGER = logging.getLogger(__name__)


@click.group()
def lab() -> None:
    """Bring a lab up, look at it, take it down."""


@lab.command()
@LAB
@AS_JSON
@VERBOSE
def prepare(lab_file: Path | None, name: str | None, as_json: bool) -> None:
    """Build and download what the lab is made of; bring nothing up."""
    from migrate.lab import manager
    from migrate.lab.kinds import load_lab

    config = load_lab(lab_file, name)
    with shown():
        manager.prepare(config)
    say(f"{config.name} can be brought up", {"lab": config.name, "prepared": True}, as_json)


@lab.command()
@LAB
@click.option(
    "--share",
    type=PATH,
    metavar="DIR[:rw]",
    help="Mount this folder on every host, at /mnt/share; read-only without :rw. Not for racks.",
)
@AS_JSON
@VERBOSE
def up(lab_file: Path | None, name: str | None, share: Path | None, as_json: bool) -> None:
    """Bring the lab up, unless it is up already."""
    from migrate.lab import manager
    from migrate.lab.kinds import load_lab
    from migrate.lab.shared_folder import parse_shared_folder
    from migrate.refusals import collected

    with collected() as refusals:
        with refusals.noted():
            config = load_lab(lab_file, name)
        with refusals.noted():
            shared = None if share is None else parse_shared_folder(str(share))
    with shown(), closing(manager.up(config, shared)) as lab:
        plain = f"{lab.name} is up: {', '.join(lab.hosts)}"
        click.echo(lab.as_json() if as_json else plain)


@lab.command()
@LAB
@AS_JSON
@VERBOSE
def status(lab_file: Path | None, name: str | None, as_json: bool) -> None:
    """Show what is up; exit code 3 if the lab is not."""
    from migrate.lab import manager
    from migrate.lab.kinds import load_lab

    config = load_lab(lab_file, name)
    with shown():
        lab = manager.find(config)
    if as_json:
        click.echo(lab.as_json() if lab else json.dumps(None))
    elif lab is None:
        left = (
            f"; something of it is left: `migrate-lab lab down --name {config.name}`"
            if config.name in manager.names()
            else ""
        )
        click.echo(f"{config.name} is not up{left}")
    else:
        for line in lab.summary():
            click.echo(line)
    if lab is None:
        sys.exit(3)
    lab.close()


@lab.command(short_help="Take the lab down, and remove all that is left of it.")
@LAB
@AS_JSON
@VERBOSE
def down(lab_file: Path | None, name: str | None, as_json: bool) -> None:
    """Take the lab down, and remove what a killed migrate-lab process left of it."""
    from migrate.lab import manager
    from migrate.lab.kinds import load_lab

    config = load_lab(lab_file, name)
    if manager.is_persistent(config):
        plain = f"nothing of the {config.kind} {config.name} was brought up"
        say(plain, {"lab": config.name, "down": False}, as_json)
        return
    with shown():
        manager.down(config)
    say(f"{config.name} is down", {"lab": config.name, "down": True}, as_json)


@lab.command()
@click.argument("host")
@click.argument("command", nargs=-1)
@LAB
@VERBOSE
def shell(host: str, command: Sequence[str], lab_file: Path | None, name: str | None) -> None:
    """Open a shell on HOST, or run COMMAND there (after --).

    If standard input and output are a terminal, COMMAND gets a pseudo-terminal on HOST, as
    `virsh console guest` needs.
    """
    from migrate.drivers.terminal import is_terminal
    from migrate.errors import ConfigurationError
    from migrate.lab import manager
    from migrate.lab.kinds import load_lab

    config = load_lab(lab_file, name)
    with shown():
        lab = manager.find(config)
    if lab is None:
        raise ConfigurationError(
            f"open a shell in the lab {config.name}",
            said="it is not up",
            remedy=f"`migrate-lab lab up --name {config.name}`",
        )
    if host not in lab.hosts:
        raise ConfigurationError(
            f"open a shell on {host}", said="no such host", remedy=", ".join(lab.hosts)
        )
    sys.exit(lab.interact(host, list(command) or ["bash"], terminal=is_terminal()))


@click.command(short_help="Show what each host of a lab can do, mode by mode.")
@LAB
@click.option(
    "--fresh",
    is_flag=True,
    help="Try KVM and the experimental QMP commands again, whatever the last trial found.",
)
@click.option(
    "--reach",
    is_flag=True,
    help="Scan instead what of hosts, fabric and controller a guest can reach; exit code 1 if "
    "anything answers.",
)
@AS_JSON
@VERBOSE
def doctor(
    lab_file: Path | None, name: str | None, fresh: bool, reach: bool, as_json: bool
) -> None:
    """Show what each host of a lab can do, mode by mode, with reason and remedy where it can't.

    Also which experimental QMP commands are sent to its QEMU: none that harmed a throw-away guest.
    """
    if reach:
        _reach(lab_file, name, as_json)
        return
    from migrate.campaign import hosts
    from migrate.lab import manager
    from migrate.lab.kinds import load_lab
    from migrate.report import doctor as report

    with shown(), manager.opened(load_lab(lab_file, name)) as lab:
        facts = hosts.look(lab, fresh=fresh)
    if as_json:
        click.echo(json.dumps([host.model_dump() for host in facts], indent=1))
    else:
        needs, to_migrate = hosts.needs_of_modes(), hosts.needs_to_migrate()
        click.echo(report.plain(facts, needs, to_migrate))


def _reach(lab_file: Path | None, name: str | None, as_json: bool) -> None:
    from migrate.lab import manager
    from migrate.lab.kinds import load_lab
    from migrate.lab.reach import scan_lab
    from migrate.report import reach as report

    with shown(), manager.opened(load_lab(lab_file, name)) as lab:
        scans = scan_lab(lab)
    if as_json:
        click.echo(json.dumps([scan.model_dump() for scan in scans], indent=1))
    else:
        click.echo(report.plain(scans))
    sys.exit(1 if any(scan.wrong for scan in scans) else 0)


for command in (ready, repair):
    lab.add_command(command)
