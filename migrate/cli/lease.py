"""``migrate-lab lease``: hosts at a labgrid coordinator, for leases across controllers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from migrate.cli.options import LAB, Text

ADDRESS = r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9][A-Za-z0-9.-]{0,252}):[0-9]{1,5}"
"""As in lab files, whose modules are too heavy to be imported for ``--help``."""
COORDINATOR = click.option(
    "--coordinator",
    type=Text(ADDRESS, "lab.example.org:20408"),
    metavar="HOST:PORT",
    help="Instead of the lab file's key coordinator.",
)


@click.group()
def lease() -> None:
    """Leases of hosts across controllers, at a labgrid coordinator."""


@lease.command()
@LAB
@COORDINATOR
@click.option(
    "--tag",
    "tags",
    type=Text("[A-Za-z0-9_.-]{1,64}=[^\n]{0,200}", "mode=vdpa"),
    multiple=True,
    metavar="KEY=VALUE",
    help="A tag of each place.",
)
def register(
    lab_file: Path | None, name: str | None, coordinator: str | None, tags: Sequence[str]
) -> None:
    """Make the hosts of a lab known; does nothing for those that are."""
    from migrate.lab.lease.coordinator import session
    from migrate.lab.lease.file_lock import holder

    address, places = _places(lab_file, name, coordinator)
    wanted = dict(_key_value(tag) for tag in tags)
    with session(address, holder("lease register")) as asked:
        for place in places:
            asked.register(place, wanted)
            click.echo(f"{place} is known to {address}")


@lease.command()
@LAB
@COORDINATOR
def show(lab_file: Path | None, name: str | None, coordinator: str | None) -> None:
    """Who holds the hosts of a lab, and since when."""
    from migrate.lab.lease.coordinator import session
    from migrate.lab.lease.file_lock import holder

    address, places = _places(lab_file, name, coordinator)
    with session(address, holder("lease show")) as asked:
        for name_of_place in places:
            place = asked.place(name_of_place)
            free = place is not None and not place.acquired and not place.reservation
            has = "free" if free else f"held by {asked.holder(name_of_place)}"
            click.echo(f"{name_of_place}: {has}")


def _key_value(tag: str) -> tuple[str, str]:
    key, _, value = tag.partition("=")
    return key, value


def _places(
    lab_file: Path | None, name: str | None, coordinator: str | None
) -> tuple[str, tuple[str, ...]]:
    """The coordinator's address, and what it calls the lab's hosts."""
    from migrate.errors import ConfigurationError
    from migrate.lab.kinds import kind_of, load_lab

    config = load_lab(lab_file, name)
    address = coordinator or config.coordinator
    if address is None:
        raise ConfigurationError(
            "find the coordinator",
            said=f"the lab {config.name} names none",
            remedy="--coordinator HOST:PORT, or the key coordinator in the lab file",
        )
    return address, kind_of(config).lease_names(config)
