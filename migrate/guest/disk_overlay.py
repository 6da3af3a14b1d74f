"""A disk's writable layer, for one attempt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from migrate.clock import Deadline
from migrate.images.disk import Disk
from migrate.lab.api import Host


@contextmanager
def overlay(disk: Disk, host: Host, path: Path, deadline: Deadline) -> Iterator[Path]:
    """``path`` as a disk that has ``disk``'s content and takes what is written, while the block
    runs; what a killed controller left there is replaced."""
    options = ["-q", "-f", "qcow2", "-F", disk.format, "-b", str(disk.path)]
    try:
        host.run(["qemu-img", "create", *options, str(path)], deadline)
        yield path
    finally:
        path.unlink(missing_ok=True)
