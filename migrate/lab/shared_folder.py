"""A folder of this machine that every host of a lab mounts; checked before the lab comes up."""

from __future__ import annotations

import re
from pathlib import Path

from migrate.errors import ConfigurationError, quoted
from migrate.model import Value

SHARED_AT = "/mnt/share"
"""Its mount point on every host."""
WRITABLE, READ_ONLY = "rw", "ro"
_UNUSABLE = re.compile(r"[\0-\x1f\ud800-\udfff\"',:\\]")
"""Separators in the options of mount(8) and of QEMU, and control characters."""


class SharedFolder(Value):
    """The folder that a lab was brought up with."""

    path: Path
    """On this machine: absolute, without symbolic links."""
    writable: bool = False
    """Whether hosts may change what is in it; they do so as root."""

    def __str__(self) -> str:
        how = "writable" if self.writable else "read-only"
        return f"{self.path}, at {SHARED_AT} on every host, {how}"

    @property
    def options(self) -> str:
        """Mount options: neither devices nor set-user-ID bits count, programs can be run."""
        return f"{WRITABLE if self.writable else READ_ONLY},nosuid,nodev"


def parse_shared_folder(text: str) -> SharedFolder:
    """What ``--share`` says: ``DIR`` or ``DIR:ro`` is read-only, ``DIR:rw`` is not.

    Raises ConfigurationError: it is no folder, or its path can't be in mount options.
    """
    name, _, how = text.rpartition(":")
    if how not in (READ_ONLY, WRITABLE):
        name, how = text, READ_ONLY
    tried = f"share the folder {quoted(name)} with the hosts"
    try:
        path = Path(name).resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links is a RuntimeError
        raise ConfigurationError(
            tried,
            said=getattr(error, "strerror", None) or str(error),
            remedy="--share DIR takes an existing folder; with DIR:rw hosts can write to it",
        ) from error
    if not path.is_dir():
        raise ConfigurationError(
            tried, said="it is no folder", remedy="share the folder that it is in"
        )
    if _UNUSABLE.search(str(path)):
        raise ConfigurationError(
            tried,
            said=f"its path, {quoted(str(path))}, can't be in options of mount and QEMU",
            remedy="a path without commas, colons, quotes, backslashes and control characters",
        )
    return SharedFolder(path=path, writable=how == WRITABLE)
