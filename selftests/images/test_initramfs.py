"""Guest images, built from a double of mmdebstrap; the real one is used by quickstart and check."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import lzma
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from migrate import log
from migrate.errors import ConfigurationError, HostError
from migrate.images import initramfs as builder
from migrate.images.initramfs import ensure_image, read_recipe
from migrate.images.kernel import cpio, dependencies, uncompressed_kernel
from selftests.helpers import SaidSoFar, unpack_newc

ELF = b"\x7fELF" + bytes(range(256)) * 64
RECIPE = """
suite = "trixie"
kernel = "linux-image-cloud-amd64"
modules = ["virtio_net", "virtio-console"]
optional_modules = ["igbvf", "ixgbevf"]
cmdline = "quiet"
"""
TREE = {
    "boot/vmlinuz-6.12": b"",
    "usr/bin/busybox": b"busybox",
    "usr/lib/modules/6.12/modules.builtin": b"kernel/drivers/char/virtio_console.ko\n",
    "usr/lib/modules/6.12/kernel/net/failover.ko.xz": lzma.compress(b"\0depends=\0name=failover\0"),
    "usr/lib/modules/6.12/kernel/net/net-failover.ko": b"\0depends=failover\0",
    "usr/lib/modules/6.12/kernel/net/virtio_net.ko.xz": lzma.compress(b"\0depends=net-failover\0"),
    "usr/lib/modules/6.12/kernel/net/ixgbevf.ko": b"\0license=GPL\0depends=\0",
    "var/cache/apt/archives/busybox-static_1%3a1.37.0-6_amd64.deb": b"deb",
    "var/cache/apt/archives/linux-image-6.12_6.12.1-1_amd64.deb": b"kernel deb",
    "var/cache/apt/archives/systemd_257_amd64.deb": b"of no interest",
}


def bz_image(payload: bytes, version: int = 0x20F) -> bytes:
    """A bzImage as the boot protocol says: one set-up sector, then 16 bytes, then the payload."""
    head = bytearray(1024 + 16)
    head[0x1F1] = 1
    head[0x202:0x206] = b"HdrS"
    head[0x206:0x208] = version.to_bytes(2, "little")
    head[0x248:0x24C] = (16).to_bytes(4, "little")
    head[0x24C:0x250] = len(payload).to_bytes(4, "little")
    return bytes(head) + payload + b"what follows the payload"


def with_length(packed: bytes, plain: bytes) -> bytes:
    return packed + len(plain).to_bytes(4, "little")


TREE["boot/vmlinuz-6.12"] = bz_image(gzip.compress(ELF))


class Mirror:
    """The double of mmdebstrap on PATH: notes how it was called, then makes the tree or fails."""

    def __init__(self, folder: Path) -> None:
        self.calls = folder / "calls"
        self.calls.touch()
        self.tree = folder / "tree"
        for name, content in TREE.items():
            path = self.tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        self.program = folder / "bin" / "mmdebstrap"
        self.program.parent.mkdir()
        self.does(f"shutil.copytree({str(self.tree)!r}, target)")

    def does(self, code: str) -> None:
        self.program.write_text(
            f"#!{sys.executable}\nimport shutil, subprocess, sys, time\n"
            "target = next(word for word in sys.argv if word.endswith('/root'))\n"
            f"open({str(self.calls)!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')\n{code}\n"
        )
        self.program.chmod(0o755)

    def called(self) -> list[str]:
        return self.calls.read_text().splitlines()


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mirror:
    folder = tmp_path / "mirror"
    folder.mkdir()
    double = Mirror(folder)
    monkeypatch.setenv("PATH", f"{double.program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(builder, "compile_probe", lambda target: target.write_bytes(b"the probe"))
    return double


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Path]:
    """A cache in which no half-made image is found after the test."""
    folder = tmp_path / "cache"
    yield folder
    images = folder / "images"
    for left in images.iterdir() if images.is_dir() else ():
        assert left.suffix == ".lock" or (left / "image.json").exists(), f"{left} was left"


# --- building -----------------------------------------------------------------------------------


def test_an_image_is_built_once_and_found_again(
    mirror: Mirror, recipe: Path, cache: Path, told: SaidSoFar
) -> None:
    image = ensure_image(str(recipe), cache)
    assert image.kernel.read_bytes() == ELF
    assert image.compressed_kernel.read_bytes() == TREE["boot/vmlinuz-6.12"]
    assert image.probe.read_bytes() == b"the probe"
    assert (image.name, image.cmdline) == ("small", "quiet")
    assert sorted(path.name for path in image.kernel.parent.iterdir()) == [
        "image.json",
        "initramfs",
        "probe",
        "vmlinux",
        "vmlinuz",
    ]
    assert "small" in told
    assert ensure_image(str(recipe), cache) == image
    (called,) = mirror.called()
    assert "--variant=extract" in called
    assert "--include=linux-image-cloud-amd64,busybox-static trixie" in called


def test_the_initramfs_holds_all_that_the_first_process_asks_for(
    mirror: Mirror, recipe: Path, cache: Path
) -> None:
    image = ensure_image(str(recipe), cache)
    entries = unpack_newc(image.initrd.read_bytes())
    script = entries["init"][1].decode()
    assert entries["init"][0] == 0o100755
    assert entries["dev"][0] == 0o040755
    assert entries["bin/busybox"][1] == b"busybox"
    assert entries["probe"][1] == b"the probe"
    assert "migrate-lab: init reached" in script
    order = entries["modules/order"][1].decode().split()
    assert order == ["failover", "net_failover", "virtio_net", "ixgbevf"]
    assert all(f"modules/{name}.ko" in entries for name in order)
    assert entries["modules/failover.ko"][1].endswith(b"name=failover\0"), "no longer compressed"
    assert image.manifest.modules == tuple(order)


def test_the_manifest_names_packages_by_version_and_hash(
    mirror: Mirror, recipe: Path, cache: Path
) -> None:
    image = ensure_image(str(recipe), cache)
    written = json.loads((image.kernel.parent / "image.json").read_text())
    assert written["packages"] == [
        {
            "name": "busybox-static",
            "version": "1:1.37.0-6",
            "sha256": hashlib.sha256(b"deb").hexdigest(),
        },
        {
            "name": "linux-image-6.12",
            "version": "6.12.1-1",
            "sha256": hashlib.sha256(b"kernel deb").hexdigest(),
        },
    ]


def test_another_recipe_is_another_image(mirror: Mirror, recipe: Path, cache: Path) -> None:
    first = ensure_image(str(recipe), cache)
    recipe.write_text(RECIPE.replace("quiet", "debug"))
    second = ensure_image(str(recipe), cache)
    assert (first.cmdline, second.cmdline) == ("quiet", "debug")
    assert first.digest != second.digest
    assert first.kernel.exists()


def test_a_mirror_of_the_recipe_is_used(mirror: Mirror, recipe: Path, cache: Path) -> None:
    recipe.write_text(RECIPE + 'mirror = "https://snapshot.debian.org/archive/debian/20260101/"\n')
    ensure_image(str(recipe), cache)
    assert mirror.called()[0].endswith("https://snapshot.debian.org/archive/debian/20260101/")


def test_two_builders_of_one_image_build_it_once(mirror: Mirror, recipe: Path, cache: Path) -> None:
    images: list[builder.Image] = []

    def build() -> None:
        images.append(ensure_image(str(recipe), cache))

    threads = [threading.Thread(target=build) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(images) == 3
    assert len(mirror.called()) == 1


def test_what_a_killed_builder_left_is_removed(mirror: Mirror, recipe: Path, cache: Path) -> None:
    image = ensure_image(str(recipe), cache)
    folder = image.kernel.parent
    folder.rename(folder.with_name(f".{folder.name}.part"))
    (folder.with_name(f".{folder.name}.part") / "vmlinux").write_bytes(b"half")
    assert ensure_image(str(recipe), cache).kernel.read_bytes() == ELF


# --- what goes wrong leaves nothing -------------------------------------------------------------


def test_offline_says_so_in_the_words_of_the_program(
    mirror: Mirror, recipe: Path, cache: Path
) -> None:
    mirror.does("sys.exit(\"E: Could not resolve 'deb.debian.org'\")")
    with pytest.raises(HostError, match=r"Could not resolve 'deb\.debian\.org'") as offline:
        ensure_image(str(recipe), cache)
    assert "mirror" in offline.value.remedy


def test_a_full_disk_under_mmdebstrap(mirror: Mirror, recipe: Path, cache: Path) -> None:
    mirror.does("print('dpkg: error: No space left on device'); sys.exit(1)")
    with pytest.raises(HostError) as full:
        ensure_image(str(recipe), cache)
    assert "free 600 MB" in full.value.remedy


def test_a_full_disk_under_the_builder(
    mirror: Mirror, recipe: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(folders: object, files: object) -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(builder, "cpio", no_room)
    with pytest.raises(HostError, match="No space left") as full:
        ensure_image(str(recipe), cache)
    assert "make room" in full.value.remedy


def test_a_cache_that_can_not_be_written(mirror: Mirror, recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HostError) as refused:
        ensure_image(str(recipe), tmp_path / "file")
    assert "is no folder" in refused.value.said


def test_an_interrupt_in_the_middle_leaves_nothing(
    mirror: Mirror, recipe: Path, cache: Path
) -> None:
    def interrupt(what: str) -> None:
        if "packing" in what:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), log.shown(interrupt):
        ensure_image(str(recipe), cache)
    assert [path.suffix for path in (cache / "images").iterdir()] == [".lock"]


def test_a_program_that_takes_too_long_is_ended_with_its_children(
    mirror: Mirror, recipe: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    noted = tmp_path / "child"
    mirror.does(
        "child = subprocess.Popen(['sleep', '600'])\n"
        f"open({str(noted)!r}, 'w').write(str(child.pid))\ntime.sleep(600)"
    )
    monkeypatch.setattr(builder, "COMMAND_TIMEOUT_S", 1.0)
    with pytest.raises(HostError, match="longer than 1 s"):
        ensure_image(str(recipe), cache)
    state = Path(f"/proc/{noted.read_text()}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"


@pytest.mark.parametrize(
    ("missing", "remedy"), [("mmdebstrap", "apt-get install mmdebstrap"), ("gcc", "gcc")]
)
def test_a_missing_program_says_what_to_install(
    recipe: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, missing: str, remedy: str
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    if missing == "mmdebstrap":
        monkeypatch.setattr(builder, "compile_probe", lambda target: target.touch())
    with pytest.raises(HostError, match=f"{missing} is not there") as refused:
        ensure_image(str(recipe), cache)
    assert remedy in refused.value.remedy


def test_a_probe_that_does_not_compile_tells_why(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="unrecognized"):
        builder.compile_probe(tmp_path / "probe", "--no-such-option")


def test_an_image_whose_manifest_is_broken_is_told(
    mirror: Mirror, recipe: Path, cache: Path
) -> None:
    image = ensure_image(str(recipe), cache)
    (image.kernel.parent / "image.json").write_text("{}")
    with pytest.raises(HostError) as broken:
        ensure_image(str(recipe), cache)
    assert "remove the folder" in broken.value.remedy


def test_two_kernels_are_refused(mirror: Mirror, recipe: Path, cache: Path) -> None:
    (mirror.tree / "boot/vmlinuz-6.13").touch()
    with pytest.raises(HostError, match="2 files match"):
        ensure_image(str(recipe), cache)


# --- pins and modules ---------------------------------------------------------------------------


def pinned(recipe: Path, name: str, version: str, sha256: str | None = None) -> str:
    text = RECIPE + f'[pinned.{name}]\nversion = "{version}"\n'
    recipe.write_text(text + (f'sha256 = "{sha256}"\n' if sha256 else ""))
    return str(recipe)


def test_a_pin_that_holds_is_asked_for(mirror: Mirror, recipe: Path, cache: Path) -> None:
    digest = hashlib.sha256(b"deb").hexdigest()
    ensure_image(pinned(recipe, "busybox-static", "1:1.37.0-6", digest), cache)
    assert "busybox-static=1:1.37.0-6" in mirror.called()[0]


@pytest.mark.parametrize(("version", "sha256"), [("1:1.36", None), ("1:1.37.0-6", "0" * 64)])
def test_a_pin_that_does_not_hold_fails(
    mirror: Mirror, recipe: Path, cache: Path, version: str, sha256: str | None
) -> None:
    with pytest.raises(HostError, match=r"the mirror has 1:1\.37\.0-6 with sha256") as refused:
        ensure_image(pinned(recipe, "busybox-static", version, sha256), cache)
    assert "snapshot" in refused.value.remedy


def test_a_pin_of_nothing_is_refused(mirror: Mirror, recipe: Path, cache: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"small\.toml, key pinned\.zsh"):
        ensure_image(pinned(recipe, "zsh", "5"), cache)


def test_a_module_that_the_kernel_lacks_is_refused(
    mirror: Mirror, recipe: Path, cache: Path
) -> None:
    recipe.write_text(RECIPE.replace('"virtio_net"', '"igbvf"'))
    with pytest.raises(ConfigurationError, match=r"key modules: .* has no module igbvf") as refused:
        ensure_image(str(recipe), cache)
    assert "optional_modules" in refused.value.remedy


def test_dependencies_are_read_from_the_module() -> None:
    assert dependencies(b"\x7fELF\0license=GPL\0depends=a-b,c\0name=x\0") == ["a_b", "c"]
    assert dependencies(b"\0depends=\0") == []
    assert dependencies(b"no module") == []


# --- recipes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key", "said", "remedy"),
    [
        (RECIPE + "colour = 1\n", ": colour", "no such key", "optional_modules"),
        (RECIPE.replace('"trixie"', "13"), ": suite", "13 is not allowed", "a valid string"),
        (RECIPE.replace('"trixie"', '"--help"'), ': suite = "--help"', "a Debian suite", "trixie"),
        (RECIPE.replace('cmdline = "quiet"', ""), ": cmdline", "not there", "optional_modules"),
        (
            RECIPE + 'mirror = "deb.debian.org"\n',
            ': mirror = "deb.debian.org"',
            "an address with http",
            "https:",
        ),
        (
            RECIPE + '[pinned.x]\nversion = "1"\nsha256 = "12"\n',
            ': pinned.x.sha256 = "12"',
            "64 hexadecimal",
            "0a0a",
        ),
    ],
)
def test_a_wrong_recipe_names_file_and_key(
    recipe: Path, text: str, key: str, said: str, remedy: str
) -> None:
    recipe.write_text(text)
    with pytest.raises(ConfigurationError) as wrong:
        read_recipe(recipe)
    assert wrong.value.tried.startswith(str(recipe))
    assert wrong.value.tried.endswith(key)
    assert said in wrong.value.said
    assert remedy in wrong.value.remedy


def test_toml_that_is_none(recipe: Path) -> None:
    recipe.write_text("suite = trixie")
    with pytest.raises(ConfigurationError, match="line 1"):
        read_recipe(recipe)


def test_a_name_that_no_recipe_has_tells_which_there_are(cache: Path) -> None:
    with pytest.raises(ConfigurationError) as unknown:
        ensure_image("huge", cache)
    assert "tiny" in unknown.value.remedy


@pytest.mark.parametrize("path", sorted(builder.RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_of_ours_is_read(path: Path) -> None:
    assert "console=ttyS0" in read_recipe(path).cmdline


# --- formats ------------------------------------------------------------------------------------


def zstd(plain: bytes) -> bytes:
    return subprocess.run(["zstd", "-c"], input=plain, capture_output=True, check=True).stdout


@pytest.mark.parametrize(
    "packed",
    [
        gzip.compress,
        lambda plain: with_length(lzma.compress(plain), plain),
        lambda plain: with_length(zstd(plain), plain),
    ],
    ids=["gzip", "xz", "zstd"],
)
def test_the_kernel_inside_is_found(packed: Callable[[bytes], bytes]) -> None:
    assert uncompressed_kernel(bz_image(packed(ELF))) == ELF


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (b"", "no bzImage"),
        (b"MZ" * 5000, "no bzImage"),
        (bz_image(gzip.compress(ELF), version=0x207), "no bzImage"),
        (bz_image(gzip.compress(b"text")), "no whole ELF"),
        (bz_image(with_length(lzma.compress(ELF), ELF + b"more")), "no whole ELF"),
        (bz_image(gzip.compress(ELF)[:-20]), "incomplete"),
        (bz_image(with_length(b"\xfd7zXZ\0 and so on", ELF)), "Corrupt"),
        (bz_image(with_length(b"\x28\xb5\x2f\xfd and so on", ELF)), "stdin"),
        (bz_image(b"\x02\x21\x4c\x18 lz4"), "begins with 02214c18"),
    ],
)
def test_what_is_no_kernel_is_refused(image: bytes, said: str) -> None:
    with pytest.raises(HostError, match=said):
        uncompressed_kernel(image)


def test_no_zstd_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    image = bz_image(with_length(zstd(ELF), ELF))
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(HostError, match="apt-get install zstd"):
        uncompressed_kernel(image)


def test_an_archive_is_the_same_bytes_for_the_same_files() -> None:
    files = {"a": b"", "bb": b"1", "ccc": b"12345"}
    archive = cpio(["dev"], files)
    assert archive == cpio(["dev"], dict(files))
    assert {
        name: content for name, (_, content) in unpack_newc(archive).items() if name != "dev"
    } == files
