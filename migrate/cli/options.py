"""Options that several commands have, each said once, and the display that they ask for."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from migrate.errors import quoted

if TYPE_CHECKING:
    from migrate.campaign.progress import Progress

Command = Callable[..., Any]
Decorator = Callable[[Command], Command]


class FilePath(click.Path):
    """A path that can be one: with a name, and none of its parts longer than file systems take.

    Whoever reads the file tells that it can't be read: with a remedy, not as a usage error."""

    def __init__(self, **options: Any) -> None:
        super().__init__(path_type=Path, readable=False, **options)

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """See click; a usage error for what no file can be called."""
        text = os.fspath(value)
        if not text:
            self.fail("it is empty: name a path, e.g. ./results", param, ctx)
        if "\0" in text:
            self.fail("a path has no NUL byte", param, ctx)
        if len(os.fsencode(text)) > 4095 or any(
            len(os.fsencode(p)) > 255 for p in Path(text).parts
        ):
            self.fail(f"{quoted(text)} is too long for a path, or a name in it is", param, ctx)
        return super().convert(value, param, ctx)


PATH = FilePath()
FOLDER = FilePath(file_okay=False)
FILE = FilePath(dir_okay=False)
_VERBOSE = "migrate.verbose"


LONGEST_S = 31 * 86_400
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
        parts = re.findall(r"([0-9]{1,9}) *(h|min|m|s) *", str(value))
        seconds = float(sum(int(number) * UNITS[unit] for number, unit in parts))
        whole = "".join(number + unit for number, unit in parts)
        if whole != re.sub(r"\s", "", str(value)) or not 0 < seconds <= LONGEST_S:
            said = f"{quoted(value)} is no length of time, or longer than a month"
            self.fail(f"{said}: e.g. 8h, 1h30min, 45min", param, ctx)
        return seconds


class Text(click.ParamType[str]):
    """Text of a bounded length that can stand in a file, with a form of its own if one is given."""

    name = "text"

    def __init__(self, form: str = "", example: str = "", most: int = 1000) -> None:
        self.form, self.example, self.most = form, example, most

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        """The same text; a usage error if it has another form."""
        text = str(value)
        if len(text) > self.most:
            self.fail(f"{quoted(text)} is longer than {self.most} letters", param, ctx)
        if re.search("[\0\ud800-\udfff]", text):
            self.fail(f"{quoted(text)} has a NUL or a byte in it that is no UTF-8", param, ctx)
        if self.form and not re.fullmatch(self.form, text):
            self.fail(f"{quoted(text)} is not like {self.example}", param, ctx)
        return text


class RunName(click.ParamType[str]):
    """A run's name, or the path of its folder."""

    name = "run"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        """The same text; a usage error for what no folder can be called."""
        PATH.convert(value, param, ctx)
        return str(value)


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
    help="Show details of what is being done.",
)
LAB = combined(
    click.option(
        "--lab",
        "lab_file",
        type=PATH,
        metavar="FILE",
        help="Lab file [default: two local hosts].",
    ),
    click.option(
        "--name",
        type=Text(),
        metavar="NAME",
        help="Name of the lab, instead of the lab file's: two can be up at once.",
    ),
)
RESULTS = click.option(
    "--results",
    type=FOLDER,
    default="results",
    show_default=True,
    metavar="FOLDER",
    help="Where runs are kept.",
)
CASE = click.option(
    "--case",
    "case",
    type=Text(most=200),
    default="*",
    metavar="GLOB",
    help="Only cases whose id matches, e.g. --case 'modes-v*'.",
)
ATTEMPT = click.option(
    "--attempt",
    "attempt",
    type=click.IntRange(1),
    metavar="N",
    help="Only attempts of this number.",
)
SET = click.option(
    "--set",
    "overrides",
    type=Text(most=200_000),
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a scenario key, e.g. --set policy.hops=2; a list makes one case per value.",
)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
KEEP_LAB = click.option(
    "--keep-lab", is_flag=True, help="Leave the lab up afterwards: the next run starts sooner."
)
WAIT_QUIET = click.option(
    "--wait-quiet",
    type=Duration(),
    is_flag=False,
    flag_value="5min",
    help="Wait for a quiet machine before each attempt, at most so long, e.g. --wait-quiet=1h "
    "[default: 5min]; then run it anyway, and mark it.",
)


def is_chosen(case_id: str, number: int | None, case: str, attempt: int | None) -> bool:
    """Whether an attempt is one that ``--case`` and ``--attempt`` ask for; ``number`` is None for
    all of the case's."""
    return fnmatchcase(case_id, case) and (attempt is None or number in (None, attempt))


def warn_old_spelling(old: str, new: str) -> None:
    """Tell on standard error that an old spelling still works, and for how long."""
    click.echo(f"migrate-lab: {old} is now {new}; the old form goes in the next release", err=True)


RUN_NAME = click.argument("run_name", type=RunName(), default="latest", metavar="[RUN]")


def say(plain: str, document: object, as_json: bool) -> None:
    """Print the result of a command, as text or as JSON."""
    click.echo(json.dumps(document, indent=1) if as_json else plain)


def progress() -> Progress:
    """The display on standard error, with details if the command has ``--verbose``."""
    from migrate.campaign.progress import Progress

    context = click.get_current_context()
    display = Progress(verbose=context.meta.get(_VERBOSE, False))
    context.call_on_close(display.end_line)
    return display


@contextmanager
def shown() -> Iterator[None]:
    """Show what goes on while the block runs."""
    from migrate import log

    display = progress()
    with log.shown(display.say, display.level, display.say_wait):
        yield
