"""Guest images: a recipe becomes a kernel, an initramfs and the probe, once, and is kept.

An image's folder is named by a digest of all that goes into it (recipe, first process, the probe's
sources, this builder). It is made beside its place and renamed when it is whole, so a half-made one
is never found; a lock keeps two builders of one image apart.
"""

from __future__ import annotations

import errno
import hashlib
import lzma
import os
import re
import shutil
import signal
import stat
import subprocess
import tomllib
import urllib.parse
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock
from pydantic import Field, ValidationError

from migrate.errors import ConfigurationError, HostError
from migrate.model import Value

BUILDER = "1"
"""Raised when this module builds another image from the same recipe."""
RECIPES = Path(__file__).parent.parent / "guest-images"
COMMAND_TIMEOUT_S = 300.0
"""For one program of a build; downloads included."""

Progress = Callable[[str], None]


# --- values -------------------------------------------------------------------------------------


class Pin(Value):
    """What a package has to be."""

    version: str = Field(pattern=r"^[A-Za-z0-9.+~:-]+$")
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")


class Recipe(Value):
    """A file of ``guest-images/``; closed to unknown keys."""

    suite: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    kernel: str = Field(pattern=r"^[a-z0-9][a-z0-9.+-]*$")
    packages: tuple[str, ...] = ("busybox-static",)
    modules: tuple[str, ...] = ()
    optional_modules: tuple[str, ...] = ()
    cmdline: str
    mirror: str | None = Field(default=None, pattern=r"^(https?|file|copy)://?\S+$")
    """None: what mmdebstrap finds in the machine's own apt sources for this suite."""
    pinned: dict[str, Pin] = Field(default_factory=dict)


class Package(Value):
    """A package that went into an image."""

    name: str
    version: str
    sha256: str


class Manifest(Value):
    """``image.json``."""

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


def ensure_image(name_or_path: str, cache: Path, progress: Progress) -> Image:
    """The image of a recipe, built if ``cache`` does not hold it yet.

    A name means ``guest-images/NAME.toml``; what ends in ``.toml`` is a path. ConfigurationError if
    the recipe is wrong, HostError if this machine can't build it; either leaves nothing behind.
    """
    path = Path(name_or_path) if name_or_path.endswith(".toml") else _named(name_or_path)
    recipe = read_recipe(path)
    digest = _digest(path)
    folder = cache / "images" / f"{path.stem}-{digest}"
    with _disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder.parent / f".{folder.name}.lock"):
            if not folder.exists():
                progress(f"building guest image {path.stem}")
                _build(path, recipe, digest, folder, progress)
    return _load(folder)


def read_recipe(path: Path) -> Recipe:
    """The recipe at ``path``; ConfigurationError names the file and the key."""
    try:
        return Recipe.model_validate(tomllib.loads(path.read_text()))
    except FileNotFoundError as missing:
        known = ", ".join(sorted(recipe.stem for recipe in RECIPES.glob("*.toml")))
        raise ConfigurationError(
            f"read guest image recipe {path}",
            said="there is no such file",
            remedy=f"name one of: {known}, or give the path of a .toml file",
        ) from missing
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as broken:
        raise ConfigurationError(
            f"read guest image recipe {path}", said=str(broken), remedy="mend the TOML"
        ) from broken
    except ValidationError as wrong:
        first = wrong.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(
            f"read guest image recipe {path}, key {key}",
            said=first["msg"],
            remedy=f"keys are: {', '.join(Recipe.model_fields)}",
        ) from wrong


def _named(name: str) -> Path:
    return RECIPES / f"{name}.toml"


def _sources() -> list[Path]:
    return sorted((RECIPES / "probe").glob("*.[ch]"))


def _digest(recipe: Path) -> str:
    whole = hashlib.sha256(BUILDER.encode())
    for path in [recipe, RECIPES / "init", *_sources()]:
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


def _build(path: Path, recipe: Recipe, digest: str, folder: Path, progress: Progress) -> None:
    beside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(beside, ignore_errors=True)  # of a builder that was killed; the lock is ours
    try:
        beside.mkdir()
        compile_probe(beside / "probe")
        progress(f"downloading {recipe.kernel} of {recipe.suite}")
        root = beside / "root"
        packages = _download(recipe, root, path)
        progress("packing kernel and initramfs")
        kernel = _one(root / "boot", "vmlinuz-*")
        (beside / "vmlinuz").write_bytes(kernel.read_bytes())
        (beside / "vmlinux").write_bytes(uncompressed_kernel(kernel.read_bytes()))
        modules = _modules(recipe, root, path)
        (beside / "initramfs").write_bytes(_initramfs(root, beside / "probe", modules))
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
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def compile_probe(target: Path, *extra: str) -> None:
    """The probe as a static program at ``target``; ``extra`` are more options to gcc."""
    sources = [str(path) for path in _sources() if path.suffix == ".c"]
    options = ["-Wall", "-Wextra", "-Werror", "-pthread"]
    static = [] if extra else ["-static"]
    _run(
        ["gcc", "-std=c11", "-O2", *static, *options, *extra, "-o", str(target), *sources],
        tried="compile the probe",
        remedy="apt-get install gcc libc6-dev",
    )


def _download(recipe: Recipe, root: Path, path: Path) -> tuple[Package, ...]:
    """Extract the recipe's packages, and all that they depend on, to ``root``."""
    wanted = [recipe.kernel, *recipe.packages]
    include = [
        f"{name}={recipe.pinned[name].version}" if name in recipe.pinned else name
        for name in wanted
    ]
    _run(
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


def _check_pins(recipe: Recipe, packages: Sequence[Package], path: Path) -> None:
    found = {package.name: package for package in packages}
    for name, pin in recipe.pinned.items():
        package = found.get(name)
        if package is None:
            raise ConfigurationError(
                f"read guest image recipe {path}, key pinned.{name}",
                said="the recipe uses no such package",
                remedy=f"it uses: {', '.join(found)}",
            )
        if pin.version != package.version or pin.sha256 not in (None, package.sha256):
            raise HostError(
                f"pin package {name} of guest image recipe {path}",
                said=f"the mirror has {package.version} with sha256 {package.sha256}",
                remedy="change the pin, or name a snapshot.debian.org mirror in the recipe",
            )


def _one(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise HostError(
            f"find {pattern} among the recipe's packages",
            said=f"{len(found)} files match",
            remedy="the recipe's key `kernel` must name one package with one kernel image",
        )
    return found[0]


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """A full or read-only disk is the host's trouble, not a bug of ours."""
    try:
        yield
    except OSError as trouble:
        full = trouble.errno == errno.ENOSPC
        raise HostError(
            f"build guest image {folder.name}",
            said=str(trouble),
            remedy=f"free 600 MB at {folder.parent}" if full else f"make {folder.parent} writable",
        ) from trouble


def _run(arguments: list[str], *, tried: str, remedy: str) -> bytes:
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


# --- the kernel ---------------------------------------------------------------------------------


def uncompressed_kernel(image: bytes) -> bytes:
    """The ELF kernel inside a bzImage, by the boot protocol's payload fields (2.08 and later).

    Source: Documentation/arch/x86/boot.rst. HostError if it is no such image.
    """

    def field(offset: int, size: int) -> int:
        return int.from_bytes(image[offset : offset + size], "little")

    if image[0x202:0x206] != b"HdrS" or field(0x206, 2) < 0x208:
        raise _no_kernel("it is no bzImage with a payload")
    begin = (field(0x1F1, 1) + 1) * 512 + field(0x248, 4)
    payload = image[begin : begin + field(0x24C, 4)]
    kernel = _decompressed(payload)
    # Every method ends in the plain length: gzip's own trailer, or four bytes that kbuild appends.
    if kernel[:4] != b"\x7fELF" or len(kernel) != int.from_bytes(payload[-4:], "little"):
        raise _no_kernel("its payload is no whole ELF file")
    return kernel


def _decompressed(payload: bytes) -> bytes:
    try:
        if payload.startswith(b"\x1f\x8b"):
            return zlib.decompress(payload, wbits=31)
        if payload.startswith(b"\xfd7zXZ\0"):
            return lzma.decompress(payload[:-4])
    except (zlib.error, lzma.LZMAError) as broken:
        raise _no_kernel(str(broken)) from broken
    if payload.startswith(b"\x28\xb5\x2f\xfd"):
        return _zstd(payload[:-4])
    raise _no_kernel(f"its payload begins with {payload[:6].hex()}: no gzip, xz or zstd")


def _zstd(data: bytes) -> bytes:
    try:
        done = subprocess.run(["zstd", "-dc"], input=data, capture_output=True, check=True)
    except FileNotFoundError as missing:
        raise HostError(
            "unpack the kernel", said="zstd is not there", remedy="apt-get install zstd"
        ) from missing
    except subprocess.CalledProcessError as broken:
        raise _no_kernel(broken.stderr.decode(errors="replace")) from broken
    return done.stdout


def _no_kernel(said: str) -> HostError:
    return HostError("unpack the kernel", said=said, remedy="use a Debian kernel package")


def _modules(recipe: Recipe, root: Path, path: Path) -> dict[str, bytes]:
    """Modules by name, each after what it depends on; what is built in or absent is left out."""
    tree = _one(root / "usr/lib/modules", "*")
    files = {_plain(file.name): file for file in (tree / "kernel").rglob("*.ko*")}
    builtin = {_plain(Path(line).name) for line in _lines(tree / "modules.builtin")}
    order: dict[str, bytes] = {}

    def add(name: str) -> None:
        if name in order or name in builtin:
            return
        content = _module(files[name])
        for needed in dependencies(content):
            add(needed)
        order[name] = content

    for name in map(_plain, recipe.modules):
        if name not in files and name not in builtin:
            raise ConfigurationError(
                f"read guest image recipe {path}, key modules",
                said=f"{recipe.kernel} of {recipe.suite} has no module {name}",
                remedy="take another kernel package, or move it to optional_modules",
            )
        add(name)
    for name in map(_plain, recipe.optional_modules):
        if name in files:
            add(name)
    return order


def _plain(name: str) -> str:
    return name.partition(".ko")[0].replace("-", "_")


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def _module(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(content)
    return _zstd(content) if path.suffix == ".zst" else content


def dependencies(module: bytes) -> list[str]:
    """What a kernel module says in its ``.modinfo`` that it depends on."""
    found = re.search(rb"\0depends=([^\0]*)\0", module)
    return [_plain(name) for name in found[1].decode().split(",") if name] if found else []


# --- the initramfs ------------------------------------------------------------------------------


def _initramfs(root: Path, probe: Path, modules: dict[str, bytes]) -> bytes:
    """Not compressed: unpacking costs an emulated processor more than reading does."""
    files = {
        "init": (RECIPES / "init").read_bytes(),
        "probe": probe.read_bytes(),
        "bin/busybox": (root / "usr/bin/busybox").read_bytes(),
        "modules/order": "".join(f"{name}\n" for name in modules).encode(),
        **{f"modules/{name}.ko": content for name, content in modules.items()},
    }
    return cpio(["bin", "dev", "modules", "proc", "sys", "tmp"], files)


def cpio(folders: Sequence[str], files: dict[str, bytes]) -> bytes:
    """A ``newc`` archive, owned by root and without dates: the same input, the same bytes.

    Source: Documentation/driver-api/early-userspace/buffer-format.rst.
    """
    entries = [(name, stat.S_IFDIR | 0o755, b"") for name in folders]
    entries += [(name, stat.S_IFREG | 0o755, content) for name, content in files.items()]
    archive = bytearray()
    for number, (name, mode, content) in enumerate([*entries, ("TRAILER!!!", 0, b"")], start=1):
        path = name.encode() + b"\0"
        fields = [number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0]
        archive += b"070701" + b"".join(b"%08X" % field for field in fields) + path
        archive += bytes(-len(archive) % 4) + content
        archive += bytes(-len(archive) % 4)
    return bytes(archive)
