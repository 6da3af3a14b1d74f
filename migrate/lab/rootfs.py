"""Named root file systems for the hosts of a local lab: made once by mmdebstrap, then read-only."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from migrate.clock import Deadline
from migrate.drivers.shell import run
from migrate.errors import ConfigurationError, HostError
from migrate.images.cache import build_once

LOGGER = logging.getLogger(__name__)

VERSION = 3
"""Raised when roots are made in another way: then every root is made anew."""

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
MIRROR = "http://deb.debian.org/debian"

PACKAGES = (
    "qemu-system-x86",
    "qemu-utils",
    "libvirt-daemon",
    "libvirt-daemon-driver-qemu",
    "libvirt-clients",
    "openvswitch-switch-dpdk",
    "iproute2",
    "procps",
    # Of a nested host, which is reached over ssh, and has drivers and links of its own.
    "openssh-server",
    "ethtool",
    "kmod",
)


@dataclass(frozen=True, slots=True)
class RootRecipe:
    """What a named root is made of."""

    suite: str
    packages: tuple[str, ...] = PACKAGES
    backports: bool = False
    """Prefer what the suite's backports have: QEMU, and what it depends on."""


RECIPES = {
    "debian-13": RootRecipe("trixie", (*PACKAGES, "librte-mempool-ring25")),
    "debian-13-backports": RootRecipe(
        "trixie",
        (*PACKAGES, "librte-mempool-ring25"),
        backports=True,
    ),
    "debian-12": RootRecipe("bookworm", (*PACKAGES, "librte-mempool-ring23")),
    "debian-12-backports": RootRecipe(
        "bookworm",
        (*PACKAGES, "librte-mempool-ring23"),
        backports=True,
    ),
}

PROGRAMS = ("libvirtd", "qemu-system-x86_64", "ip")
"""What a root must hold to serve as a host."""


def ensure_root(name: str, cache: Path) -> Path:
    """The folder of the root called ``name``, made if it isn't there; ``/`` is this machine's own.

    Raises :class:`ConfigurationError` for a name that is none, :class:`HostError` where the root
    can't be made: the half-made folder is gone then.
    """
    if name == "/":
        return _own_root()
    if name not in RECIPES:
        known = ", ".join([*RECIPES, "/"])
        raise ConfigurationError(f"use the root {name!r}", said="no such root", remedy=known)
    recipe = RECIPES[name]
    digest = hashlib.sha256(json.dumps([VERSION, asdict(recipe)]).encode()).hexdigest()[:12]
    folder = cache / "roots" / f"{name}-{digest}"

    def build(beside: Path) -> None:
        LOGGER.info("making the root %s (once; about half a minute)", name)
        suites = (recipe.suite, f"{recipe.suite}-backports")[: 1 + recipe.backports]
        bootstrap(recipe.suite, suites, recipe.packages, beside)

    build_once(folder, build)
    return folder


def bootstrap(suite: str, suites: Sequence[str], packages: Sequence[str], folder: Path) -> None:
    """Make a root of ``suite`` with ``packages``; of several suites the last one is preferred."""
    sources = "".join(f"deb [signed-by={KEYRING}] {MIRROR} {suite} main\n" for suite in suites)
    argv = [
        # Asked to end, it takes its children and mounts along: also when we were killed.
        *("setpriv", "--pdeathsig", "TERM", "--", "mmdebstrap"),
        "--quiet",
        "--variant=apt",
        '--aptopt=APT::Install-Recommends "false"',
        f'--aptopt=APT::Default-Release "{suites[-1]}"',
        f"--include={','.join(packages)}",
        # Docs and translations are of no use to a host, and a third of the files.
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        suite,
        str(folder),
        "-",
    ]
    remedy = "needs the package mmdebstrap, a Debian mirror within reach, and 1 GB of disk"
    run(argv, Deadline.after(900), text=sources, remedy=remedy)


def _own_root() -> Path:
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        raise HostError(
            "use this machine's own root",
            said=f"{', '.join(missing)} not installed",
            remedy=f"apt-get install --no-install-recommends {' '.join(PACKAGES)}",
        )
    return Path("/")


def init_program() -> Path:
    """A static init that reaps: process 1 of every host of a local lab."""
    for path in (Path("/usr/bin/tini-static"), Path("/bin/tini-static")):
        if os.access(path, os.X_OK):
            return path
    raise HostError(
        "find an init for the hosts", said="no tini-static", remedy="apt-get install tini"
    )
