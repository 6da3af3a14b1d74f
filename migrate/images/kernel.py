"""Kernels, their modules and the archives that they boot with, as bytes: values in, values out.

Only zstd has no decompressor in every Python that we support; the program of that name is asked.
"""

from __future__ import annotations

import lzma
import re
import stat
import subprocess
import zlib
from collections.abc import Callable, Iterable, Sequence

from migrate.errors import HostError


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


def plain(name: str) -> str:
    """A module's name as the kernel has it, of a file's name or an alias of it."""
    return name.partition(".ko")[0].replace("-", "_")


def unpacked_module(name: str, content: bytes) -> bytes:
    """The module in a file called ``name``, which tells how it is compressed."""
    if name.endswith(".xz"):
        return lzma.decompress(content)
    return _zstd(content) if name.endswith(".zst") else content


def dependencies(module: bytes) -> list[str]:
    """What a kernel module says in its ``.modinfo`` that it depends on."""
    match = re.search(rb"\0depends=([^\0]*)\0", module)
    return [plain(name) for name in match[1].decode().split(",") if name] if match else []


def in_order(wanted: Iterable[str], load: Callable[[str], bytes | None]) -> dict[str, bytes]:
    """Modules by name, each after what it depends on; ``load`` gives None for what is built in."""
    order: dict[str, bytes] = {}

    def add(name: str) -> None:
        content = None if name in order else load(name)
        if content is not None:
            for needed in dependencies(content):
                add(needed)
            order[name] = content

    for name in wanted:
        add(name)
    return order


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
