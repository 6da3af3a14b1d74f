"""Disks that guests boot from by their own loader: a user's own, or one that a recipe makes.

A disk is copied into the cache once, where every host sees it, and is never written to: a guest
writes to an overlay that is thrown away. The probe is not on the disk; the guest agent brings it
(see :mod:`migrate.guest.lifecycle`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import struct
from pathlib import Path
from typing import Literal

from migrate.errors import ConfigurationError, HostError
from migrate.images.cache import build_once
from migrate.images.initramfs import (
    RECIPES,
    ImageRecipe,
    digest_of,
    download,
    ensure_image,
    initramfs,
    kernel_modules,
    only_one,
    read_recipe,
    recipe_path,
    run_tool,
)
from migrate.model import Value

LOGGER = logging.getLogger(__name__)

FILES = RECIPES / "disk"
SUFFIXES = (".qcow2", ".raw", ".img")
"""Endings that tell a path to a user's own disk from a recipe's name."""

SECTOR = 512
BOOT_BEGIN = 2048
BOOT_SECTORS = 2048 * 48
"""The boot partition holds loader, kernel and initramfs: 48 MiB of FAT from 1 MiB on."""
SYSTEM_BEGIN = BOOT_BEGIN + BOOT_SECTORS
LOADER = Path("/usr/lib/syslinux/mbr/mbr.bin")
TOOLS = "apt-get install mmdebstrap e2fsprogs syslinux syslinux-common mtools"

Format = Literal["qcow2", "raw"]


class Disk(Value):
    """A disk that is whole, at a path that every host sees."""

    name: str
    digest: str
    path: Path
    format: Format
    probe: Path
    """The static program that the guest agent brings in."""


def is_disk(image: str) -> bool:
    """Whether ``guest.image`` names a disk: by its path, or because its recipe makes one."""
    if image.endswith(SUFFIXES):
        return True
    return read_recipe(recipe_path(image)).kind == "disk"


def check_image(image: str) -> None:
    """That there is what ``guest.image`` names, though it need not be built yet.

    Raises ConfigurationError.
    """
    if image.endswith(SUFFIXES):
        format_of(Path(image))
    else:
        read_recipe(recipe_path(image))


def ensure_disk(image: str, cache: Path) -> Disk:
    """The disk of a recipe, built if ``cache`` has it not, or a copy of the user's own.

    ConfigurationError if what ``image`` names is no disk, HostError if it can't be made; either
    leaves nothing behind.
    """
    probe = ensure_image("tiny", cache).probe
    if image.endswith(SUFFIXES):
        return _copied(Path(image), cache, probe)
    path = recipe_path(image)
    recipe = read_recipe(path)
    digest = digest_of(path, *(FILES / name for name in ("initramfs", "inittab", "rc")))
    folder = cache / "images" / f"{path.stem}-{digest}"
    build_once(folder, lambda beside: _build(recipe, path, beside))
    return Disk(name=path.stem, digest=digest, path=folder / "disk.raw", format="raw", probe=probe)


# --- a user's own -------------------------------------------------------------------------------


def _copied(path: Path, cache: Path, probe: Path) -> Disk:
    kind = format_of(path)
    status = path.stat()
    identity = f"{path.resolve()}\0{status.st_ino}\0{status.st_size}\0{status.st_mtime_ns}"
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    folder = cache / "images" / f"disk-{digest}"

    def build(beside: Path) -> None:
        LOGGER.info("copying the disk %s to where every host sees it", path)
        beside.mkdir()
        # cp keeps holes, and shares the blocks where the file system can.
        copy = ["cp", "--sparse=always", "--reflink=auto", "--", str(path), str(beside / "disk")]
        run_tool(copy, tried=f"copy the disk {path}", remedy=f"free room at {cache}")

    build_once(folder, build)
    return Disk(name=path.stem, digest=digest, path=folder / "disk", format=kind, probe=probe)


def format_of(path: Path) -> Format:
    """Read from the file's head; ConfigurationError for what could not be opened from a copy."""
    tried = f"use the disk {path}"
    try:
        with path.open("rb") as file:
            head = file.read(104)
    except OSError as error:
        raise ConfigurationError(
            tried, said=error.strerror or str(error), remedy="guest.image: a qcow2 or raw file"
        ) from error
    if not head.startswith(b"QFI\xfb"):
        return "raw"
    # Source: QEMU docs/interop/qcow2.txt: version, backing_file_offset; incompatible_features.
    version, backing = struct.unpack_from(">IQ", head, 4)
    (features,) = struct.unpack_from(">Q", head, 72) if version >= 3 else (0,)
    external_data = 1 << 2
    if backing or features & external_data:
        raise ConfigurationError(
            tried,
            said="it has a backing file",
            remedy=f"qemu-img convert -O qcow2 {path} whole.qcow2, and use that",
        )
    return "qcow2"


# --- one that a recipe makes --------------------------------------------------------------------


def _build(recipe: ImageRecipe, path: Path, beside: Path) -> None:
    if not LOADER.exists():
        raise HostError(f"build the disk of {path}", said=f"no {LOADER}", remedy=TOOLS)
    beside.mkdir()
    LOGGER.info("downloading %s of %s", recipe.kernel, recipe.suite)
    parts = beside / "root"
    packages = download(recipe, parts, path)
    LOGGER.info("installing %s for the disk %s", recipe.suite, path.stem)
    system = beside / "system"
    _install(recipe, system, path)
    LOGGER.info("making the disk")
    modules = kernel_modules(recipe, parts, path)
    archive = initramfs(FILES / "initramfs", parts, modules, {})
    (beside / "initramfs").write_bytes(archive)
    disk = beside / "disk.raw"
    disk.write_bytes(_first_sector(recipe.size_mib))
    with disk.open("r+b") as file:
        file.truncate(recipe.size_mib << 20)
    kernel = only_one(parts / "boot", "vmlinuz-*")
    _boot_partition(disk, kernel, beside / "initramfs", recipe.cmdline)
    _system_partition(disk, system, recipe.size_mib)
    listed = [package.model_dump() for package in packages]
    (beside / "image.json").write_text(json.dumps({"packages": listed}, indent=2) + "\n")
    for folder in (parts, system):
        shutil.rmtree(folder)
    (beside / "initramfs").unlink()


def _install(recipe: ImageRecipe, system: Path, path: Path) -> None:
    """Debian's essential packages and the recipe's, configured; with our first process."""
    run_tool(
        [
            *("mmdebstrap", "--quiet", "--variant=essential"),
            '--aptopt=APT::Install-Recommends "false"',
            *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale")),
            *([f"--include={','.join(recipe.system)}"] if recipe.system else []),
            *(recipe.suite, str(system)),
            *([recipe.mirror] if recipe.mirror else []),
        ],
        tried=f"install the system of guest image recipe {path}",
        remedy=TOOLS,
    )
    shutil.copy(FILES / "rc", system / "etc/rc")
    shutil.copy(FILES / "inittab", system / "etc/inittab")
    (system / "usr/sbin/init").unlink(missing_ok=True)
    (system / "usr/sbin/init").symlink_to("../bin/busybox")


def _first_sector(size_mib: int) -> bytes:
    """The loader's first stage and the table of two partitions; the first one is active."""

    def entry(active: int, kind: int, begin: int, sectors: int) -> bytes:
        no_cylinders = b"\xfe\xff\xff"
        return struct.pack("<B3sB3sII", active, no_cylinders, kind, no_cylinders, begin, sectors)

    fat16_lba, linux = 0x0E, 0x83
    left = size_mib * 2048 - SYSTEM_BEGIN
    table = entry(0x80, fat16_lba, BOOT_BEGIN, BOOT_SECTORS)
    table += entry(0, linux, SYSTEM_BEGIN, left) + bytes(32)
    return LOADER.read_bytes()[:440].ljust(446, b"\0") + table + b"\x55\xaa"


def _boot_partition(disk: Path, kernel: Path, archive: Path, cmdline: str) -> None:
    """SYSLINUX on FAT: it installs itself into a file, so no loop device is needed."""
    settings = archive.with_name("syslinux.cfg")
    settings.write_text(
        f"DEFAULT linux\nLABEL linux\nLINUX /linux\nINITRD /initrd\nAPPEND {cmdline}\n"
    )
    within = f"{disk}@@{BOOT_BEGIN * SECTOR}"
    geometry = ["-T", str(BOOT_SECTORS), "-h", "64", "-s", "32", "-H", str(BOOT_BEGIN)]
    steps = [
        ["mformat", "-i", within, *geometry, "::"],
        ["mcopy", "-i", within, str(kernel), "::linux"],
        ["mcopy", "-i", within, str(archive), "::initrd"],
        ["mcopy", "-i", within, str(settings), "::syslinux.cfg"],
        ["syslinux", "--offset", str(BOOT_BEGIN * SECTOR), "--install", str(disk)],
    ]
    for step in steps:
        run_tool(step, tried=f"make the boot partition ({step[0]})", remedy=TOOLS)
    settings.unlink()


def _system_partition(disk: Path, system: Path, size_mib: int) -> None:
    kilobytes = size_mib * 1024 - SYSTEM_BEGIN // 2
    place = ["-E", f"offset={SYSTEM_BEGIN * SECTOR},root_owner=0:0"]
    run_tool(
        ["mke2fs", "-q", "-F", "-t", "ext4", *place, "-d", str(system), str(disk), f"{kilobytes}k"],
        tried="make the system's partition",
        remedy=TOOLS,
    )
