"""Files of ours on a host: what must be known there after a controller that died, and no other user
of the host can read, hold up or put in its place."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from migrate.clock import Deadline

if TYPE_CHECKING:
    from migrate.lab.api import Host

RUN = PurePosixPath("/run/migrate-lab")
"""On each host: gone after a reboot, as what it tells of is."""

# Arguments: the file, its mode, the folders around it that are ours alone, from the top down. The
# file is whole or not there, and no name that can be guessed is written to.
KEEP = r"""
umask 077
path=$1 mode=$2
shift 2
for folder; do
    mkdir -p "$folder"
    if [ -L "$folder" ] || ! [ -O "$folder" ]; then
        echo "$folder is not ours: look at who made it, and remove it" >&2
        exit 1
    fi
    chmod 700 "$folder"
done
new=$(mktemp "${path%/*}/.new-XXXXXXXXXX")
trap 'rm -f "$new"' EXIT
cat >"$new"
chmod "$mode" "$new"
mv -fT "$new" "$path"
"""


def keep(host: Host, path: str, text: str, deadline: Deadline, *, mode: str = "600") -> None:
    """Write a file on the host, whole or not at all; folders below :data:`RUN` are closed to
    others. HostError: it can't be written, or such a folder is somebody else's."""
    around = reversed(PurePosixPath(path).parents)
    ours = [str(folder) for folder in around if folder.is_relative_to(RUN)]
    host.run(["sh", "-ec", KEEP, "sh", path, mode, *ours], deadline, text=text)
