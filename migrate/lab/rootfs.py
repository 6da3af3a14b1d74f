"""Named root file systems for the hosts of a local lab: made once by mmdebstrap, then read-only."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from migrate.clock import Deadline
from migrate.drivers.shell import run
from migrate.errors import ConfigurationError, HostError
from migrate.images.cache import build_once
from migrate.waiting import waiting

LOGGER = logging.getLogger(__name__)

VERSION = 3
"""Raised when roots are made in another way: then every root is made anew."""

ROOT_S = 900.0
"""For mmdebstrap: half a minute, with a mirror that is near."""
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
MIRROR = "http://deb.debian.org/debian"

SWITCH = "openvswitch-switch-dpdk"
PACKAGES = (
    "qemu-system-x86",
    "qemu-utils",
    "libvirt-daemon",
    "libvirt-daemon-driver-qemu",
    "libvirt-clients",
    SWITCH,
    "iproute2",
    "procps",
    # Of a nested host, which is reached over ssh, and has drivers and links of its own.
    "openssh-server",
    "ethtool",
    "kmod",
)
# Drivers of DPDK, numbered by its ABI: OVS has its buffers by the first, its uplink by the second.
DPDK_23 = ("librte-mempool-ring23", "librte-net-af-packet23")
DPDK_25 = ("librte-mempool-ring25", "librte-net-af-packet25")


@dataclass(frozen=True, slots=True)
class RootRecipe:
    """What a named root is made of."""

    suite: str
    packages: tuple[str, ...] = PACKAGES
    backports: bool = False
    """Prefer what the suite's backports have: QEMU, and what it depends on."""
    rolling: bool = False
    """Of a suite that changes from day to day: made anew each week; a mirror that lags behind is
    taken as it is, and packages may not be had together on a given day."""
    optional: tuple[str, ...] = ()
    """Packages that a rolling root does without on such a day."""


RECIPES = {
    "debian-13": RootRecipe("trixie", (*PACKAGES, *DPDK_25)),
    "debian-13-backports": RootRecipe("trixie", (*PACKAGES, *DPDK_25), backports=True),
    "debian-12": RootRecipe("bookworm", (*PACKAGES, *DPDK_23)),
    "debian-12-backports": RootRecipe("bookworm", (*PACKAGES, *DPDK_23), backports=True),
    "debian-sid": RootRecipe(
        "sid",
        tuple(package for package in PACKAGES if package != SWITCH),
        rolling=True,
        # Drivers of DPDK that OVS takes at its start (OVS 4.0 names every bus, to look at none);
        # their numbers are not known beforehand.
        optional=(
            SWITCH,
            "?name(^librte-mempool-ring[0-9]+$)",
            "?name(^librte-net-af-packet[0-9]+$)",
            "?name(^librte-bus-[a-z]+[0-9]+$)",
        ),
    ),
}

PROGRAMS = ("libvirtd", "virtlogd", "qemu-system-x86_64", "ip")
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
    folder = cache / "roots" / f"{name}-{_digest(recipe)}"

    def build(beside: Path) -> None:
        LOGGER.info("making the root %s (once; about half a minute)", name)
        try:
            _bootstrap(recipe, (*recipe.packages, *recipe.optional), beside)
        except HostError as error:
            if not recipe.optional or not _UNSATISFIABLE.search(error.said):
                raise
            shutil.rmtree(beside, ignore_errors=True)
            LOGGER.info("%s: without %s: %s", name, " ".join(recipe.optional), error.said)
            _bootstrap(recipe, recipe.packages, beside)

    build_once(folder, build)
    return folder


_UNSATISFIABLE = re.compile(r"Unable to locate|unmet dependencies|no installation candidate|broken")
"""Said by apt of packages that can't be had together, not of a mirror out of reach."""


def may_fail_today(name: str) -> bool:
    """Whether a root is of a suite whose packages may not be had together on a given day."""
    return name in RECIPES and RECIPES[name].rolling


def _digest(recipe: RootRecipe) -> str:
    content = asdict(recipe)
    if not recipe.rolling:  # then the digest is that of before there were such roots
        del content["rolling"], content["optional"]
    made_of = [VERSION, content, *(_week() if recipe.rolling else ())]
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:12]


def _week() -> tuple[int, int]:
    today = datetime.now(UTC).isocalendar()
    return today.year, today.week


def _bootstrap(recipe: RootRecipe, packages: Sequence[str], folder: Path) -> None:
    suites = (recipe.suite, f"{recipe.suite}-backports")[: 1 + recipe.backports]
    bootstrap(recipe.suite, suites, packages, folder, lags=recipe.rolling)


def bootstrap(
    suite: str, suites: Sequence[str], packages: Sequence[str], folder: Path, *, lags: bool = False
) -> None:
    """Make a root of ``suite`` with ``packages``; of several suites the last one is preferred.

    ``lags``: an index that is older than it allows is taken all the same. Signatures are checked.
    """
    options = f"signed-by={KEYRING}" + (" check-valid-until=no" if lags else "")
    sources = "".join(f"deb [{options}] {MIRROR} {suite} main\n" for suite in suites)
    argv = [
        # Asked to end, it takes its children and mounts along: also when we were killed.
        *("setpriv", "--pdeathsig", "TERM", "--", "mmdebstrap"),
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
    try:
        with waiting(f"a root of Debian {suite} to be downloaded and unpacked", ROOT_S):
            run(argv, Deadline.after(ROOT_S), text=sources, remedy=remedy)
    except HostError as error:
        raise HostError(
            f"make a root of Debian {suite}", said=_reasons(error.said), remedy=error.remedy
        ) from error


def _reasons(said: str) -> str:
    """apt's own words of what mmdebstrap said; all of it if there are none."""
    progress = ("I: ", "Get:", "Reading ", "Building ", "Selecting ", "E: setup failed", "E: mmdeb")
    lines = [line for line in said.splitlines() if line.strip() and not line.startswith(progress)]
    return "\n".join(lines[-12:]) or said


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
