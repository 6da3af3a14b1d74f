"""A folder of the user's that every host of a lab sees: checked before the lab comes up."""

from __future__ import annotations

import re
from pathlib import Path

from migrate.errors import ConfigurationError, quoted
from migrate.model import Value

SHARED_AT = "/mnt/share"
"""Where each host has it."""
WRITABLE, READ_ONLY = "rw", "ro"
_UNUSABLE = re.compile(r"[\0-\x1f\ud800-\udfff\"',:\\]")
"""What parts the options of mounts and of QEMU."""


class SharedFolder(Value):
    """One that a lab was brought up with."""

    path: Path
    """On this machine: absolute, and no symbolic link."""
    writable: bool = False
    """Whether hosts may change what is in it; they do so as root."""

    def __str__(self) -> str:
        how = "hosts may write to it" if self.writable else "read-only"
        return f"{self.path}, {how}, at {SHARED_AT}"

    @property
    def options(self) -> str:
        """Of its mounts: nothing in it is a device, nobody becomes somebody else by it, and
        programs of the user's can be run."""
        return f"{WRITABLE if self.writable else READ_ONLY},nosuid,nodev"


def parse_shared_folder(text: str) -> SharedFolder:
    """What ``--share`` says: ``DIR`` or ``DIR:ro`` is read-only, ``DIR:rw`` is not.

    Raises ConfigurationError for what is no folder, or can't be named in a mount.
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
            remedy="--share DIR names a folder that is there; DIR:rw lets hosts write to it",
        ) from error
    if not path.is_dir():
        raise ConfigurationError(tried, said="it is no folder", remedy="name the folder it is in")
    if _UNUSABLE.search(str(path)):
        raise ConfigurationError(
            tried,
            said=f"its path, {quoted(str(path))}, can't be an option of mounts and of QEMU",
            remedy="a path without commas, colons, quotes and backslashes",
        )
    return SharedFolder(path=path, writable=how == WRITABLE)
