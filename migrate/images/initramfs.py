"""Guest images: a recipe becomes a kernel, an initramfs and the probe, once, and is kept.

An image's folder is named by a digest of all that goes into it (recipe, first process, the probe's
sources, this builder), so that a change of any makes another image.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import signal
import subprocess
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from migrate.data import data_path
from migrate.errors import ConfigurationError, HostError, visible
from migrate.images.cache import build_once
from migrate.images.kernel import cpio, in_order, plain, uncompressed_kernel, unpacked_module
from migrate.input_file import parse_toml, read_input
from migrate.model import TextForm, Value
from migrate.refusals import refuse_values
from migrate.source_location import Origin, lines_of
from migrate.waiting import waiting

LOGGER = logging.getLogger(__name__)

BUILDER = "1"
"""Raised when this module builds another image from the same recipe."""
RECIPES = data_path("guest-images")
COMMAND_TIMEOUT_S = 300.0
"""For one program of a build; downloads included."""


# --- values -------------------------------------------------------------------------------------


PackageName = Annotated[
    str,
    TextForm(
        r"^[a-z0-9]([a-z0-9.+-]{0,98}[a-z0-9.+])?$",
        "a Debian package's name: small letters, digits and . + -",
        "busybox-static",
    ),
]
"""As Debian's policy has it (5.6.1); apt would take other words for options, patterns, or packages
to be removed."""
ModuleName = Annotated[
    str,
    TextForm(
        r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$",
        "a kernel module's name: at most 64 letters, digits and _ . -, the first a letter or digit",
        "virtio_net",
    ),
]
Version = Annotated[
    str,
    TextForm(
        r"^[0-9][A-Za-z0-9.+~:-]{0,99}$",
        "a Debian package's version, which begins with a digit",
        "6.12.38-1",
    ),
]
Sha256 = Annotated[
    str, TextForm(r"^[0-9a-f]{64}$", "a SHA-256: 64 hexadecimal digits in small letters", "0a" * 32)
]
Suite = Annotated[
    str,
    TextForm(
        r"^[a-z][a-z0-9-]{0,39}$",
        "a Debian suite: at most 40 small letters, digits and -, the first a letter",
        "trixie",
    ),
]
CommandLine = Annotated[
    str,
    TextForm(r"^[ -~]{0,1000}$", "at most 1000 printable ASCII letters", "console=ttyS0 panic=-1"),
]
"""The kernel itself takes 2048 bytes on x86."""
Mirror = Annotated[
    str,
    TextForm(
        r"^(https?|file|copy):/{1,3}[!-~]{1,500}$",
        "an address with http, https, file or copy",
        "https://deb.debian.org/debian",
    ),
]


class Pin(Value):
    """The version that a package has to have."""

    version: Version
    sha256: Sha256 | None = None


class ImageRecipe(Value):
    """A file of ``guest-images/``; closed to unknown keys."""

    kind: Literal["initramfs", "disk"] = "initramfs"
    """``disk``: a disk that boots by its own loader (see :mod:`migrate.images.disk`)."""
    suite: Suite
    kernel: PackageName
    packages: tuple[PackageName, ...] = Field(default=("busybox-static",), max_length=1000)
    modules: tuple[ModuleName, ...] = Field(default=(), max_length=1000)
    optional_modules: tuple[ModuleName, ...] = Field(default=(), max_length=1000)
    cmdline: CommandLine
    """Words of the kernel's."""
    mirror: Mirror | None = None
    """None: what mmdebstrap finds in the machine's own apt sources for this suite."""
    pinned: dict[PackageName, Pin] = Field(default_factory=dict, max_length=1000)
    system: tuple[PackageName, ...] = Field(default=(), max_length=1000)
    """Packages of the system on a disk, besides Debian's essential ones."""
    size_mib: int = Field(default=512, ge=256, le=65536)
    """A disk's size; it takes only the room that is written to."""


class Package(Value):
    """A package that went into an image."""

    name: str
    version: str
    sha256: str


class Manifest(Value):
    """The content of an image's ``image.json``."""

    name: str
    digest: str
    builder: str
    cmdline: str
    modules: tuple[str, ...]
    packages: tuple[Package, ...]


class Image(Value):
    """A guest image that is whole, and where its files are."""

    name: str
    digest: str
    kernel: Path
    """An ELF kernel: booted by PVH, it starts faster than the compressed one under emulation."""
    compressed_kernel: Path
    """The same as a bzImage, for machines without PVH boot."""
    initrd: Path
    probe: Path
    """The static program that is in the image; the guest's peer runs the same one."""
    cmdline: str
    manifest: Manifest


# --- the one entry ------------------------------------------------------------------------------


def ensure_image(name_or_path: str, cache: Path) -> Image:
    """The image of a recipe, built if ``cache`` does not hold it yet.

    A name means ``guest-images/NAME.toml``; what ends in ``.toml`` is a path. ConfigurationError if
    the recipe is wrong, HostError if this machine can't build it; either leaves nothing behind.
    """
    path = recipe_path(name_or_path)
    recipe = read_recipe(path)
    digest = digest_of(path, RECIPES / "init", *_sources())
    folder = cache / "images" / f"{path.stem}-{digest}"

    def build(beside: Path) -> None:
        LOGGER.info("building guest image %s", path.stem)
        beside.mkdir()
        _build(path, recipe, digest, beside)

    build_once(folder, build)
    return _load(folder)


def read_recipe(path: Path) -> ImageRecipe:
    """The recipe at ``path``; ConfigurationError names the file and the key."""
    tried = f"read guest image recipe {path}"
    known = ", ".join(sorted(recipe.stem for recipe in RECIPES.glob("*.toml")))
    remedy = f"name one of: {known}, or give the path of a .toml file"
    text = read_input(path, tried, remedy)
    document = parse_toml(text, tried)
    origin = Origin(visible(str(path)), lines_of(text))
    keys = f"keys are: {', '.join(ImageRecipe.model_fields)}"
    try:
        return ImageRecipe.model_validate(document)
    except ValidationError as error:
        refuse_values(error, origin, lambda _: keys)


def recipe_path(name_or_path: str) -> Path:
    """A name means a recipe of ``guest-images/``; what ends in ``.toml`` is a path."""
    if name_or_path.endswith(".toml"):
        return Path(name_or_path)
    return RECIPES / f"{name_or_path}.toml"


def digest_of(*paths: Path) -> str:
    """A short name for what an image is made of."""
    whole = hashlib.sha256(BUILDER.encode())
    for path in paths:
        content = path.read_bytes()
        whole.update(f"\0{path.name}\0{len(content)}\0".encode() + content)
    return whole.hexdigest()[:16]


def _load(folder: Path) -> Image:
    try:
        manifest = Manifest.model_validate_json((folder / "image.json").read_text())
    except (OSError, ValidationError) as broken:
        raise HostError(
            f"open guest image {folder}", said=str(broken), remedy="remove the folder"
        ) from broken
    return Image(
        name=manifest.name,
        digest=manifest.digest,
        kernel=folder / "vmlinux",
        compressed_kernel=folder / "vmlinuz",
        initrd=folder / "initramfs",
        probe=folder / "probe",
        cmdline=manifest.cmdline,
        manifest=manifest,
    )


# --- building -----------------------------------------------------------------------------------


def _build(path: Path, recipe: ImageRecipe, digest: str, beside: Path) -> None:
    compile_probe(beside / "probe")
    LOGGER.info("downloading %s of %s", recipe.kernel, recipe.suite)
    root = beside / "root"
    packages = download(recipe, root, path)
    LOGGER.info("packing kernel and initramfs")
    kernel = only_one(root / "boot", "vmlinuz-*").read_bytes()
    (beside / "vmlinuz").write_bytes(kernel)
    (beside / "vmlinux").write_bytes(uncompressed_kernel(kernel))
    modules = kernel_modules(recipe, root, path)
    probe = (beside / "probe").read_bytes()
    archive = initramfs(RECIPES / "init", root, modules, {"probe": probe})
    (beside / "initramfs").write_bytes(archive)
    manifest = Manifest(
        name=path.stem,
        digest=digest,
        builder=BUILDER,
        cmdline=recipe.cmdline,
        modules=tuple(modules),
        packages=packages,
    )
    (beside / "image.json").write_text(manifest.model_dump_json(indent=2) + "\n")
    shutil.rmtree(root)


def _sources() -> list[Path]:
    return sorted((RECIPES / "probe").glob("*.[ch]"))


def compile_probe(target: Path, *extra: str) -> None:
    """The probe as a static program at ``target``; ``extra`` are more options to gcc."""
    sources = [str(path) for path in _sources() if path.suffix == ".c"]
    options = ["-Wall", "-Wextra", "-Werror", "-pthread"]
    static = [] if extra else ["-static"]
    run_tool(
        ["gcc", "-std=c11", "-O2", *static, *options, *extra, "-o", str(target), *sources],
        tried="compile the probe",
        remedy="apt-get install gcc libc6-dev",
    )


def download(recipe: ImageRecipe, root: Path, path: Path) -> tuple[Package, ...]:
    """Extract the recipe's packages, and all that they depend on, to ``root``."""
    wanted = [recipe.kernel, *recipe.packages]
    include = [
        f"{name}={recipe.pinned[name].version}" if name in recipe.pinned else name
        for name in wanted
    ]
    run_tool(
        ["mmdebstrap", "--variant=extract", "--skip=cleanup/apt,cleanup/apt/cache"]
        + [f"--include={','.join(include)}", recipe.suite, str(root)]
        + ([recipe.mirror] if recipe.mirror else []),
        tried=f"download the packages of guest image recipe {path}",
        remedy="apt-get install mmdebstrap; connect this machine to a Debian mirror, or name one "
        "that it reaches by the recipe's key `mirror`",
    )
    packages = tuple(_packages(root / "var/cache/apt/archives", wanted))
    _check_pins(recipe, packages, path)
    return packages


def _packages(archives: Path, wanted: Sequence[str]) -> Iterator[Package]:
    """Those that an image is made of: the ones that were named, and the kernel's own."""
    for deb in sorted(archives.glob("*.deb")):
        name, version, _ = deb.stem.split("_")
        if name in wanted or name.startswith("linux-image-"):
            yield Package(
                name=name,
                version=urllib.parse.unquote(version),
                sha256=hashlib.sha256(deb.read_bytes()).hexdigest(),
            )


def _check_pins(recipe: ImageRecipe, packages: Sequence[Package], path: Path) -> None:
    by_name = {package.name: package for package in packages}
    for name, pin in recipe.pinned.items():
        package = by_name.get(name)
        if package is None:
            raise ConfigurationError(
                f"read guest image recipe {path}, key pinned.{name}",
                said="the recipe uses no such package",
                remedy=f"it uses: {', '.join(by_name)}",
            )
        if pin.version != package.version or pin.sha256 not in (None, package.sha256):
            raise HostError(
                f"pin package {name} of guest image recipe {path}",
                said=f"the mirror has {package.version} with sha256 {package.sha256}",
                remedy="change the pin, or name a snapshot.debian.org mirror in the recipe",
            )


def only_one(folder: Path, pattern: str) -> Path:
    """The one file of ``folder`` that matches; HostError if there is none, or more."""
    matches = sorted(folder.glob(pattern))
    if len(matches) != 1:
        raise HostError(
            f"find {pattern} among the recipe's packages",
            said=f"{len(matches)} files match",
            remedy="the recipe's key `kernel` must name one package with one kernel image",
        )
    return matches[0]


def run_tool(arguments: list[str], *, tried: str, remedy: str) -> bytes:
    """The program's output; HostError if it is missing, fails or takes too long, and then it and
    its children are gone."""
    try:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except FileNotFoundError as missing:
        raise HostError(tried, said=f"{arguments[0]} is not there", remedy=remedy) from missing
    try:
        with waiting(f"{arguments[0]} to {tried}", COMMAND_TIMEOUT_S):
            output, _ = process.communicate(timeout=COMMAND_TIMEOUT_S)
    except subprocess.TimeoutExpired as late:
        said = f"{arguments[0]} took longer than {COMMAND_TIMEOUT_S:.0f} s"
        raise HostError(tried, said=said, remedy=remedy) from late
    finally:
        _end(process)
    if process.returncode:
        lines = output.decode(errors="replace").strip().splitlines()
        if any("No space left on device" in line for line in lines):
            remedy = "free 600 MB at the cache and in the temporary folder"
        raise HostError(tried, said=" | ".join(lines[-6:]), remedy=remedy)
    return output


def _end(process: subprocess.Popen[bytes]) -> None:
    """Asked first, for mmdebstrap then takes its mounts and children away; then made to."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, how)
            with suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=10)


# --- the initramfs ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ModuleTree:
    """What a kernel package brings besides the kernel, by the modules' plain names."""

    files: Mapping[str, Path]
    builtin: frozenset[str]

    @classmethod
    def of(cls, tree: Path) -> ModuleTree:
        """``tree`` is ``usr/lib/modules/VERSION``."""
        listed = (tree / "modules.builtin").read_text().splitlines()
        return cls(
            files={plain(file.name): file for file in (tree / "kernel").rglob("*.ko*")},
            builtin=frozenset(plain(Path(line).name) for line in listed),
        )

    def load(self, name: str) -> bytes | None:
        """The module, unpacked; None for what is built in."""
        if name in self.builtin:
            return None
        return unpacked_module(self.files[name].name, self.files[name].read_bytes())


def kernel_modules(recipe: ImageRecipe, root: Path, path: Path) -> dict[str, bytes]:
    """Modules by name, in the order of loading; what is built in or absent is left out."""
    tree = ModuleTree.of(only_one(root / "usr/lib/modules", "*"))
    wanted = [plain(name) for name in recipe.modules]
    for name in wanted:
        if name not in tree.files and name not in tree.builtin:
            raise ConfigurationError(
                f"read guest image recipe {path}, key modules",
                said=f"{recipe.kernel} of {recipe.suite} has no module {name}",
                remedy="take another kernel package, or move it to optional_modules",
            )
    wanted += [plain(name) for name in recipe.optional_modules if plain(name) in tree.files]
    return in_order(wanted, tree.load)


def initramfs(init: Path, root: Path, modules: dict[str, bytes], more: dict[str, bytes]) -> bytes:
    """Not compressed: unpacking costs an emulated processor more than reading does."""
    files = {
        "init": init.read_bytes(),
        "bin/busybox": (root / "usr/bin/busybox").read_bytes(),
        "modules/order": "".join(f"{name}\n" for name in modules).encode(),
        **{f"modules/{name}.ko": content for name, content in modules.items()},
        **more,
    }
    return cpio(["bin", "dev", "modules", "proc", "sys", "tmp"], files)
