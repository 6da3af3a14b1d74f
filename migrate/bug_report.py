"""The last net: an exception that is not of our tree is an error of this program, and a file tells
of it.

:func:`program_errors` is around whatever must not end in a traceback: a command, an attempt, a
test of avocado's. The file is what to attach to a bug report: the traceback, the versions, the
command line, the end of the log. What looks like a secret is left out of it.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from migrate import log
from migrate.errors import LabError, ProgramError, visible

PACKAGES = ("pydantic", "click", "libvirt-python", "numpy", "pyarrow", "duckdb", "paramiko")
"""Of what we stand on, as far as it is installed."""
BUG_REPORT = "bug-report.txt"
"""In an attempt's folder, where its recording is that shows the error again."""
MOST_LINES = 400
"""Of a traceback: one without an end has no more to tell."""
_WORDS = "password|passwd|passphrase|secret|token|api.?key"
_SECRETS = (
    (re.compile(r"(://[^/\s:@]*):[^@\s/]+@"), r"\1:…@"),
    (re.compile(rf"(?i)((?:{_WORDS})\w*['\"]?[ =:]+)\S+"), r"\1…"),
    (re.compile(r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END|\Z)"), "(a private key)"),
)


@contextmanager
def program_errors(tried: str, folder: Path | None = None) -> Iterator[None]:
    """Raise ProgramError for an exception of the block that is not of our tree.

    What there is to tell is in a file of ``folder``; or of the working folder, or the first of
    those for temporary files that takes it. What ends a program goes on: Ctrl-C, ``sys.exit``.
    """
    try:
        yield
    except LabError:
        raise
    except Exception as error:
        raise as_program_error(error, tried, folder) from error


def as_program_error(error: Exception, tried: str, folder: Path | None = None) -> ProgramError:
    """The error of our tree that stands for ``error``, which is told in a file."""
    kind = type(error).__name__
    path = _written(bug_report(error, tried), folder)
    where = f"attach {path} to a bug report" if path else "no folder takes a file that tells more"
    said = visible(f"{kind}: {error}" if str(error) else kind)[:300]
    return ProgramError(tried, said=said, remedy=f"an error of migrate-lab itself: {where}")


def bug_report(error: BaseException, tried: str) -> str:
    """What there is to tell, for whoever is to mend it."""
    lines = "".join(traceback.format_exception(error)).splitlines()
    if more := len(lines) - MOST_LINES:
        half = MOST_LINES // 2
        lines = lines if more < 0 else [*lines[:half], f"… {more} lines …", *lines[-half:]]
    parts = {
        "tried": [tried],
        "command": [" ".join(map(visible, sys.argv))],
        "when": [datetime.now(UTC).isoformat(timespec="seconds")],
        "versions": [*_versions()],
        "traceback": lines,
        "end of the log": log.last_lines(),
    }
    text = "\n".join(f"{head}\n{_indented(part)}" for head, part in parts.items())
    return _without_secrets(text)


def _indented(lines: Sequence[str]) -> str:
    return "".join(f"    {visible(line)}\n" for line in lines)


def _versions() -> Iterator[str]:
    yield f"migrate-lab {_version('migrate-lab')}, Python {platform.python_version()}"
    yield f"{platform.system()} {platform.release()}, {platform.machine()}"
    yield ", ".join(f"{name} {_version(name)}" for name in PACKAGES)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _without_secrets(text: str) -> str:
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


def _written(text: str, folder: Path | None) -> Path | None:
    """The path of a new file with ``text``, for its owner alone; None where no folder takes it."""
    name = f"migrate-lab-error-{datetime.now(UTC):%Y%m%d-%H%M%S-%f}.txt"
    temporary: list[Path] = []
    with suppress(OSError):
        temporary.append(Path(tempfile.gettempdir()))
    for place in (*([folder] if folder else []), Path(), *temporary):
        with suppress(OSError):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            path = (place / name).absolute()
            with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
                file.write(text.encode("utf-8", "replace"))
            return path
    return None
