"""Options that several commands have, each said once, and the display that they ask for."""

from __future__ import annotations

import math
import re
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


UNITS = {"h": 3600, "min": 60, "m": 60, "s": 1}


class Number(click.FloatRange):
    """A number in a range: neither infinite nor none at all, which no comparison would refuse."""

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """The number; a usage error if it is none."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is no number that can be used here", param, ctx)
        return number


class Duration(click.ParamType[float]):
    """A length of time with units: ``8h``, ``1h30min``, ``90 min``, ``45s``; in seconds."""

    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Seconds; a usage error if it is none, or no time at all."""
        if isinstance(value, float):
            return value
        parts = re.findall(r"(\d+) *(h|min|m|s) *", str(value))
        seconds = float(sum(int(number) * UNITS[unit] for number, unit in parts))
        whole = "".join(number + unit for number, unit in parts)
        if whole != re.sub(r"\s", "", str(value)) or seconds <= 0:
            self.fail(f"{value!r} is no length of time: e.g. 8h, 1h30min, 45min", param, ctx)
        return seconds


class ValuesByEqualsSign(click.Command):
    """Of an option whose value may be left out, a value is what follows ``=`` alone: the next word
    is an argument."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See click; ``--option`` becomes ``--option=its flag value``."""
        bare = {
            name: f"{name}={option.flag_value}"
            for option in self.params
            if isinstance(option, click.Option)
            and not option.is_flag
            and isinstance(option.flag_value, str)
            for name in option.opts
        }
        return super().parse_args(ctx, [bare.get(word, word) for word in args])


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
WAIT_QUIET = click.option(
    "--wait-quiet",
    type=Duration(),
    is_flag=False,
    flag_value="5min",
    help="Before each attempt, wait for a quiet machine, e.g. --wait-quiet=1h [5min if no time is "
    "given]; then go on, and mark the attempt.",
)
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
