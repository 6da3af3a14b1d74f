"""``migrate-lab init``: a lab, a scenario, a test and a CI job to begin with."""

from __future__ import annotations

import json
import os
from importlib.resources import files
from pathlib import Path

import click

from migrate.cli.options import AS_JSON, FOLDER
from migrate.errors import ConfigurationError
from migrate.files import advice

STARTER = ("lab.toml", "first-move.toml", "test_first_move.py", ".gitlab-ci.yml")
"""Files of ``migrate/cli/starter``."""


@click.command(short_help="Write a lab, a scenario, a test and a CI job to start from.")
@click.argument("folder", default=".", type=FOLDER)
@AS_JSON
def init(folder: Path, as_json: bool) -> None:
    """Write a lab file, a scenario, a test and a CI job to FOLDER; they run as they are."""
    tried = f"write a starter to {folder}"
    for name in STARTER:
        if os.path.lexists(folder / name):
            raise ConfigurationError(
                tried, said=f"{name} is there already", remedy="move it away, or name a new folder"
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in STARTER:
            text = files("migrate.cli").joinpath("starter", name).read_text("utf-8")
            with (folder / name).open("x", encoding="utf-8") as file:  # no link is followed
                file.write(text)
            if not as_json:
                click.echo(folder / name)
    except OSError as error:
        raise ConfigurationError(tried, said=str(error), remedy=advice(error, folder)) from error
    if as_json:
        click.echo(json.dumps({"files": [str(folder / name) for name in STARTER]}))
