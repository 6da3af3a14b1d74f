"""Options that several commands have, each said once, and the display that they ask for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from migrate.campaign.progress import Progress

Command = Callable[..., Any]
Decorator = Callable[[Command], Command]

PATH = click.Path(path_type=Path)
_VERBOSE = "migrate.verbose"


def combined(*decorators: Decorator) -> Decorator:
    """Several options as one, in this order."""

    def add(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return add


def _note_verbose(context: click.Context, _option: click.Parameter, value: bool) -> None:
    context.meta[_VERBOSE] = value


VERBOSE = click.option(
    "--verbose",
    is_flag=True,
    expose_value=False,
    callback=_note_verbose,
    help="Show details of what is done, too.",
)
NAME = click.option("--name", help="Another name for the lab, so that two can be up at once.")
LAB = combined(
    click.option("--lab", "lab_file", type=PATH, help="Lab file [default: two local hosts]."), NAME
)
RESULTS = click.option(
    "--results", type=PATH, default="results", show_default=True, help="Where runs are kept."
)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
KEEP_LAB = click.option("--keep-lab", is_flag=True, help="Leave the lab up afterwards.")


class Number(click.FloatRange):
    """A number in a range: neither infinite nor none at all, which no comparison would refuse."""

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """The number; a usage error if it is none."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is no number that can be used here", param, ctx)
        return number


RUN_NAME = click.argument("run_name", default="latest", metavar="[RUN]")


def progress() -> Progress:
    """The display on standard error, with details if the command has ``--verbose``."""
    from migrate.campaign.progress import Progress

    return Progress(verbose=click.get_current_context().meta.get(_VERBOSE, False))


@contextmanager
def shown() -> Iterator[None]:
    """Show what goes on while the block runs."""
    from migrate import log

    display = progress()
    with log.shown(display.say, display.level):
        yield
