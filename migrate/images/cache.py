"""What lies in the cache: each thing is named by a digest of what it is made of, and built once."""

from __future__ import annotations

import errno
import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from migrate.errors import HostError


def digest(*parts: str) -> str:
    """A short name for what a saved state depends on."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(f"{len(part)}:{part}".encode())
    return whole.hexdigest()[:20]


def build_once(path: Path, build: Callable[[Path], object]) -> bool:
    """Have ``path``, a file or a folder, in the cache; whether it was this call that built it.

    ``build`` is given a path beside it at which nothing is, and what it makes there takes its
    place when it is whole. A lock keeps two builders apart. Whatever goes wrong, nothing half made
    is left; what a builder that was killed left is removed by the next one. HostError where the
    cache can't be written; what ``build`` raises goes on to the caller.
    """
    if path.exists():
        return False
    with _disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            if path.exists():
                return False
            beside = path.with_name(f".{path.name}.part")
            _remove(beside)
            try:
                build(beside)
                beside.rename(path)
            finally:
                _remove(beside)
            return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """A full or read-only disk is the host's trouble, not a bug of ours."""
    try:
        yield
    except OSError as trouble:
        full = trouble.errno == errno.ENOSPC
        raise HostError(
            f"build {path}",
            said=str(trouble),
            remedy=f"free 600 MB at {path.parent}" if full else f"make {path.parent} writable",
        ) from trouble
