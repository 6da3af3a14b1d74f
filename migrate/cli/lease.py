"""``migrate-lab lease``: hosts at a labgrid coordinator, for leases across controllers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from migrate.cli.options import AS_JSON, LAB, Text

ADDRESS = r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9][A-Za-z0-9.-]{0,252}):[0-9]{1,5}"
"""As in lab files, whose modules are too heavy to be imported for ``--help``."""
COORDINATOR = click.option(
    "--coordinator",
    type=Text(ADDRESS, "lab.example.org:20408"),
    metavar="HOST:PORT",
    help="Coordinator to use, instead of the lab file's `coordinator`.",
)


@click.group(short_help="Share hosts between controllers, by leases.")
def lease() -> None:
    """Share hosts between controllers, by leases at a labgrid coordinator."""


@lease.command()
@LAB
@COORDINATOR
@click.option(
    "--tag",
    "tags",
    type=Text("[A-Za-z0-9_.-]{1,64}=[^\n]{0,200}", "mode=vdpa"),
    multiple=True,
    metavar="KEY=VALUE",
    help="Tag of each host's place, for labgrid's own tools, e.g. --tag mode=vdpa.",
)
@AS_JSON
def register(
    lab_file: Path | None,
    name: str | None,
    coordinator: str | None,
    tags: Sequence[str],
    as_json: bool,
) -> None:
    """Register the hosts of a lab, unless they are registered already."""
    from migrate.lab.lease.coordinator import session
    from migrate.lab.lease.file_lock import holder

    address, places = _places(lab_file, name, coordinator)
    wanted = dict(_key_value(tag) for tag in tags)
    with session(address, holder("lease register")) as asked:
        for place in places:
            asked.register(place, wanted)
            if not as_json:
                click.echo(f"{place} is registered at {address}")
    if as_json:
        click.echo(json.dumps({"coordinator": address, "registered": list(places)}, indent=1))


@lease.command()
@LAB
@COORDINATOR
@AS_JSON
def show(lab_file: Path | None, name: str | None, coordinator: str | None, as_json: bool) -> None:
    """Show who holds the hosts of a lab, and since when."""
    from migrate.lab.lease.coordinator import session
    from migrate.lab.lease.file_lock import holder

    address, places = _places(lab_file, name, coordinator)
    holders: dict[str, str | None] = {}
    with session(address, holder("lease show")) as asked:
        for name_of_place in places:
            place = asked.place(name_of_place)
            free = place is not None and not place.acquired and not place.reservation
            holders[name_of_place] = None if free else asked.holder(name_of_place)
    if as_json:
        hosts = [{"place": place, "held_by": held_by} for place, held_by in holders.items()]
        click.echo(json.dumps({"coordinator": address, "hosts": hosts}, indent=1))
        return
    for name_of_place, held_by in holders.items():
        has = "free" if held_by is None else f"held by {held_by}"
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
