"""The one tree of exceptions; an exception means that there is no attempt to record.

::

    LabError                      exit code
    ├── ConfigurationError        2   a file, key or option is wrong; no host was touched
    │   └── CombinedConfigurationError  all that is wrong with a file
    ├── HostError                 3   a host, its libvirt, its backend or the lab itself
    │   └── LeaseLostError            its hosts are others' now
    ├── GuestError                4   the guest did not start, or its probe did not answer
    ├── MeasurementError          5   the run happened, but its numbers can't be obtained
    ├── CleanupError              6   what was done did not go back; a group of reasons
    └── ProgramError              70  an exception that is none of these: an error of this program

A migration that fails is none of these: it is an :class:`~migrate.model.Attempt`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager


def visible(text: str, *, lines: bool = False) -> str:
    """Text that may quote a guest's console or a log, for a terminal, which would obey it.

    Control characters, what turns the direction of writing, and bytes that are no UTF-8 are shown
    as escapes (``\\x1b``); with ``lines`` a line's end stays one.
    """
    return "".join(
        letter
        if letter.isprintable() or (lines and letter == "\n")
        else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )


MOST_SAID = 8000
"""Characters that an error quotes: a program may say megabytes."""


def shortened(text: str, most: int = MOST_SAID) -> str:
    """A text's begin and its end, where it is longer than ``most``; what no file could have, half
    of a surrogate pair, is an escape."""
    half = most // 2
    if len(text) > most:
        text = f"{text[:half]} … {len(text) - 2 * half} characters more … {text[-half:]}"
    return text.encode(errors="backslashreplace").decode()


class LabError(Exception):
    """What was tried, on which host, what it said, and what to do about it."""

    exit_code = 1

    def __init__(self, tried: str, *, host: str = "", said: str = "", remedy: str = "") -> None:
        tried, said, remedy = map(shortened, (tried, said.strip(), remedy))
        super().__init__(tried, host, said, remedy)
        self.tried = tried
        self.host = host
        self.said = said
        self.remedy = remedy

    def __str__(self) -> str:
        where = f" on host {self.host}" if self.host else ""
        said = f": {self.said}" if self.said else ""
        remedy = f" -- {self.remedy}" if self.remedy else ""
        return visible(f"{self.tried}{where}{said}{remedy}", lines=True)


class ConfigurationError(LabError):
    """``tried`` names the file and the key; ``said`` what is wrong; ``remedy`` what is right.

    As text it is one line, whatever a file or an argument has in it.
    """

    exit_code = 2

    def __str__(self) -> str:
        return visible(super().__str__())


MOST_AT_ONCE = 20
"""Errors of one file that are shown; a file of nothing but errors has thousands."""


class CombinedConfigurationError(ConfigurationError):
    """All that is wrong with a file, not only the first of it: a line each as text."""

    def __init__(self, errors: Sequence[ConfigurationError]) -> None:
        first = errors[0]
        super().__init__(first.tried, host=first.host, said=first.said, remedy=first.remedy)
        self.errors = tuple(errors)

    def lines(self) -> Iterator[str]:
        """Each of them as text, at most :data:`MOST_AT_ONCE`."""
        yield from map(str, self.errors[:MOST_AT_ONCE])
        if (more := len(self.errors) - MOST_AT_ONCE) > 0:
            yield f"{more} more errors are not shown -- mend these first"

    def __str__(self) -> str:
        return "\n".join(self.lines())


class ProgramError(LabError):
    """An exception that is not of this tree, and the file that tells of it.

    Made by :mod:`migrate.bug_report` alone. EX_SOFTWARE of sysexits(3).
    """

    exit_code = 70


def quoted(value: object, most: int = 80) -> str:
    """What somebody wrote, for an error: no longer than it takes to recognize it.

    A number of thousands of digits, which Python does not turn into text, is one, too.
    """
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} that is too large to be shown"
    return text if len(text) <= most else f"{text[: most - 1]}…"


@contextmanager
def extra(name: str, tried: str) -> Iterator[None]:
    """Imports in the block come with the package's extra ``name``; ConfigurationError if not."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            tried,
            said=f"{error.name} is not installed",
            remedy=f"pip install 'migrate-lab[{name}]'",
        ) from error


class HostError(LabError):
    """A host, its libvirt, its backend or the lab as a whole."""

    exit_code = 3


class LeaseLostError(HostError):
    """Hosts that were leased may be used by others now: nothing more is done with them."""


class GuestError(LabError):
    """The guest did not start, or its probe did not answer."""

    exit_code = 4


class MeasurementError(LabError):
    """The run happened, but its numbers can't be obtained."""

    exit_code = 5


class CleanupError(LabError):
    """All that did not go back, not only the first of it."""

    exit_code = 6

    def __init__(
        self,
        tried: str,
        reasons: Sequence[Exception],
        *,
        host: str = "",
        remedy: str = "`migrate-lab lab down` removes what it still can",
    ) -> None:
        super().__init__(
            tried,
            host=host,
            said="; ".join(str(reason) or type(reason).__name__ for reason in reasons),
            remedy=remedy,
        )
        self.reasons = tuple(reasons)
