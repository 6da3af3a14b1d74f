"""What lies in the cache: each thing is named by a digest of what it is made of, and built once."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

from migrate.clock import Deadline
from migrate.files import as_host_error, make_private, private_folder
from migrate.locks import BUILD_S, file_lock


def digest(*parts: str) -> str:
    """A short name for what a saved state depends on."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(f"{len(part)}:{part}".encode())
    return whole.hexdigest()[:20]


def build_once(path: Path, build: Callable[[Path], object]) -> bool:
    """Have ``path``, a file or a folder, in the cache; whether it was this call that built it.

    ``build`` is given a path beside it at which nothing is, and what it makes there takes its
    place when it is whole. A lock keeps two builders apart, for :data:`~migrate.locks.BUILD_S` at
    most. Whatever goes wrong, nothing half made
    is left; what a builder that was killed left is removed by the next one. HostError where the
    cache can't be written, or others can write in it; what ``build`` raises goes on to the caller.
    """
    private_folder(path.parent)
    if path.exists():
        return False
    with as_host_error(f"build {path}", path.parent):
        make_private(path.parent)
        lock = path.with_name(f".{path.name}.lock")
        with file_lock(lock, Deadline.after(BUILD_S), f"build {path}"):
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
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
