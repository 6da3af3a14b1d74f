"""Disks: a user's own and a recipe's, the overlay that takes what is written, and the agent."""

from __future__ import annotations

import base64
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from migrate.clock import Deadline
from migrate.errors import ConfigurationError, GuestError, HostError
from migrate.guest.disk_overlay import overlay
from migrate.guest.lifecycle import CHUNK, PROBE, bring_probe
from migrate.images import disk as disk_image
from migrate.images.disk import Disk, ensure_disk, format_of, is_disk
from migrate.model import Case, GuestSpec
from migrate.world import guest_image
from selftests.helpers import SaidSoFar

TOOLS = ("mformat", "mcopy", "syslinux", "mke2fs", "debugfs")
needs_tools = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in TOOLS), reason=disk_image.TOOLS
)


def qcow2(version: int = 3, backing: int = 0, features: int = 0) -> bytes:
    """The head of a file, by QEMU's docs/interop/qcow2.txt."""
    return (b"QFI\xfb" + struct.pack(">IQ", version, backing)).ljust(72, b"\0") + struct.pack(
        ">Q", features
    ).ljust(432, b"\0")


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The probe, without the image that it comes from."""
    probe = tmp_path / "probe"
    probe.write_bytes(bytes(range(256)) * 500)

    class Made:
        pass

    made: Any = Made()
    made.probe = probe
    monkeypatch.setattr(disk_image, "ensure_image", lambda *_: made)
    return probe


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Path]:
    """A cache in which nothing half made is found after the test."""
    folder = tmp_path / "cache"
    yield folder
    images = folder / "images"
    for left in images.iterdir() if images.is_dir() else ():
        assert left.suffix == ".lock" or not left.name.startswith("."), f"{left} was left"


# --- a user's own -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "disk"),
    [
        ("debian", True),
        ("tiny", False),
        ("/a/b.qcow2", True),
        ("b.raw", True),
        ("b.img", True),
    ],
)
def test_a_disk_is_known_by_its_path_or_its_recipe(image: str, disk: bool) -> None:
    assert is_disk(image) is disk


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="it does not exist") as refused:
        is_disk("no-such-image")
    assert "debian, tiny" in refused.value.remedy


def test_a_users_disk_is_copied_once_and_left_alone(
    tmp_path: Path, cache: Path, told: SaidSoFar
) -> None:
    own = tmp_path / "my disk.qcow2"
    own.write_bytes(qcow2())
    disk = ensure_disk(str(own), cache)
    assert (disk.name, disk.format) == ("my disk", "qcow2")
    assert disk.path.read_bytes() == own.read_bytes()
    assert not disk.path.samefile(own)
    assert ensure_disk(str(own), cache) == disk
    assert len(told.lines) == 1
    own.write_bytes(qcow2(version=2))
    changed = ensure_disk(str(own), cache)
    assert changed.path != disk.path
    assert changed.path.read_bytes() == own.read_bytes()


@pytest.mark.parametrize("version", [2, 3])
def test_a_format_is_known_by_the_first_bytes(tmp_path: Path, version: int) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(qcow2(version))
    assert format_of(path) == "qcow2"
    path.write_bytes(b"\xeb\x63" + bytes(510))
    assert format_of(path) == "raw"


@pytest.mark.parametrize("head", [qcow2(backing=512), qcow2(2, backing=512), qcow2(features=4)])
def test_a_disk_that_is_only_a_part_is_refused(tmp_path: Path, cache: Path, head: bytes) -> None:
    path = tmp_path / "part.qcow2"
    path.write_bytes(head)
    with pytest.raises(ConfigurationError, match="it has a backing file") as refused:
        ensure_disk(str(path), cache)
    assert "qemu-img convert" in refused.value.remedy


def test_a_disk_that_is_not_there_is_told(cache: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.qcow2: No such file"):
        ensure_disk("/nowhere.qcow2", cache)


def test_a_copy_that_fails_leaves_nothing(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "cp").write_text("#!/bin/sh\necho 'No space left on device'; exit 1\n")
    (programs / "cp").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    own = tmp_path / "disk.qcow2"
    own.write_bytes(qcow2())
    with pytest.raises(HostError, match="No space left"):
        ensure_disk(str(own), cache)
    assert not [path for path in (cache / "images").iterdir() if path.is_dir()]


class OneCase:
    """As much of a setting as the choice of an image asks for."""

    def __init__(self, shared: Path) -> None:
        self.lab = self
        self.shared = shared


def test_a_warm_start_of_a_disk_is_refused_with_what_is_right(tmp_path: Path) -> None:
    own = tmp_path / "disk.qcow2"
    own.write_bytes(qcow2())
    setting: Any = OneCase(tmp_path / "cache")
    case = Case(id="disk", guest=GuestSpec(image=str(own)))
    with pytest.raises(ConfigurationError, match=r"key guest\.start") as refused:
        guest_image(case, setting)
    assert 'guest.start = "cold"' in refused.value.remedy
    cold = case.model_copy(update={"guest": GuestSpec(image=str(own), start="cold")})
    assert isinstance(guest_image(cold, setting), Disk)


# --- the overlay --------------------------------------------------------------------------------


class WithQemuImg:
    """A host whose qemu-img makes an empty file, or fails."""

    name = "a"

    def __init__(self, fails: bool = False) -> None:
        self.argv: list[str] = []
        self.fails = fails

    def run(self, argv: list[str], deadline: Deadline) -> None:
        self.argv = argv
        Path(argv[-1]).write_bytes(b"overlay")
        if self.fails:
            raise HostError("qemu-img", host=self.name, said="No space left on device")


@pytest.mark.parametrize("form", ["qcow2", "raw"])
def test_an_overlay_is_there_for_its_block(tmp_path: Path, form: Any) -> None:
    disk = Disk(name="d", digest="0", path=tmp_path / "base", format=form, probe=tmp_path)
    host: Any = WithQemuImg()
    with overlay(disk, host, tmp_path / "over", Deadline.after(5)) as path:
        assert path.exists()
        assert host.argv[:2] == ["qemu-img", "create"]
        assert host.argv[host.argv.index("-F") + 1] == form
        assert host.argv[host.argv.index("-b") + 1] == str(disk.path)
    assert not path.exists()


def test_an_overlay_that_could_not_be_made_is_not_left(tmp_path: Path) -> None:
    disk = Disk(name="d", digest="0", path=tmp_path / "base", format="raw", probe=tmp_path)
    host: Any = WithQemuImg(fails=True)
    with (
        pytest.raises(HostError, match="No space"),
        overlay(disk, host, tmp_path / "over", Deadline.after(5)),
    ):
        pass
    assert not (tmp_path / "over").exists()


# --- one that a recipe makes --------------------------------------------------------------------

RECIPE = """
kind = "disk"
suite = "trixie"
kernel = "linux-image-cloud-amd64"
system = ["qemu-guest-agent"]
size_mib = 256
modules = ["virtio_blk"]
cmdline = "console=ttyS0 quiet"
"""
TREE = {
    "boot/vmlinuz-6.12": b"the kernel",
    "etc/hostname": b"debian",
    "usr/bin/busybox": b"busybox",
    "usr/sbin/qemu-ga": b"agent",
    "usr/lib/modules/6.12/modules.builtin": b"",
    "usr/lib/modules/6.12/kernel/virtio_blk.ko": b"\0depends=\0",
}


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An mmdebstrap that makes the same tree, whatever is asked of it; it notes what was."""
    tree = tmp_path / "tree"
    for name, content in TREE.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(content)
    program = tmp_path / "programs" / "mmdebstrap"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\nimport shutil, sys\n"
        "target = next(word for word in sys.argv if word.endswith(('/root', '/system')))\n"
        f"open({str(tmp_path / 'calls')!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')\n"
        f"shutil.copytree({str(tree)!r}, target)\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/sbin:/usr/bin:/sbin:/bin")
    return tmp_path / "calls"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(RECIPE)
    return path


def read(*argv: str) -> bytes:
    return subprocess.run(argv, check=True, capture_output=True).stdout


@needs_tools
def test_a_recipes_disk_has_a_loader_a_kernel_and_a_system(
    mirror: Path, recipe: Path, cache: Path
) -> None:
    disk = ensure_disk(str(recipe), cache)
    first = disk.path.read_bytes()[:512]
    assert first[510:] == b"\x55\xaa"
    assert first[446] == 0x80, "the first partition is the one to boot"
    (begin, sectors), (system, rest) = (
        struct.unpack_from("<II", first, 446 + 16 * number + 8) for number in (0, 1)
    )
    assert begin + sectors == system
    assert (system + rest) * 512 == 256 << 20 == disk.path.stat().st_size
    within = f"{disk.path}@@{begin * 512}"
    assert read("mtype", "-i", within, "::linux") == b"the kernel"
    assert b"console=ttyS0 quiet" in read("mtype", "-i", within, "::syslinux.cfg")
    assert b"switch_root" in read("mtype", "-i", within, "::initrd")
    assert b"ldlinux" in read("mdir", "-b", "-a", "-i", within, "::").lower()
    there = f"{disk.path}?offset={system * 512}"
    assert read("debugfs", "-R", "cat /usr/sbin/qemu-ga", there) == b"agent"
    assert b"qemu-ga" in read("debugfs", "-R", "cat /etc/inittab", there)
    assert b"busybox" in read("debugfs", "-R", "stat /usr/sbin/init", there)
    assert ensure_disk(str(recipe), cache) == disk
    assert len(mirror.read_text().splitlines()) == 2, "the kernel's packages, and the system"
    assert "--include=qemu-guest-agent" in mirror.read_text()
    assert sorted(path.name for path in disk.path.parent.iterdir()) == ["disk.raw", "image.json"]


def test_a_missing_loader_says_what_to_install(
    recipe: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_image, "LOADER", Path("/nonexistent/mbr.bin"))
    with pytest.raises(HostError, match=r"no /nonexistent/mbr\.bin") as refused:
        ensure_disk(str(recipe), cache)
    assert "apt-get install" in refused.value.remedy


# --- the probe, by the guest agent --------------------------------------------------------------


class Agent:
    """A guest as its agent shows it: it answers after some asks, and keeps what it is given."""

    host = "a"

    def __init__(self, silent_asks: int = 0) -> None:
        self.silent_asks = silent_asks
        self.refused = ""
        self.file = b""
        self.started: list[list[str]] = []
        self.exit_code = 0
        self.runs = "running"

    def state(self) -> str:
        return self.runs

    def agent(self, command: str, deadline: Deadline, **arguments: Any) -> Any:
        if self.silent_asks:
            self.silent_asks -= 1
            raise HostError("ask", host=self.host, said="QEMU guest agent is not connected")
        if command == self.refused:
            raise HostError("ask", host=self.host, said=f"The command {command} has been disabled")
        answers: dict[str, Callable[..., Any]] = {
            "guest-ping": dict,
            "guest-file-open": lambda path, mode: 1000,
            "guest-file-write": self._write,
            "guest-file-close": lambda handle: {},
            "guest-exec": self._execute,
            "guest-exec-status": lambda pid: {"exited": True, "exitcode": self.exit_code},
        }
        return answers[command](**{key.replace("-", "_"): arguments[key] for key in arguments})

    def _write(self, handle: int, buf_b64: str) -> dict[str, int]:
        part = base64.b64decode(buf_b64, validate=True)
        self.file += part
        return {"count": len(part)}

    def _execute(self, path: str, arg: list[str]) -> dict[str, int]:
        self.started.append([path, *arg])
        return {"pid": len(self.started)}


def test_the_agent_brings_the_probe_and_starts_it(tiny: Path) -> None:
    guest: Any = Agent(silent_asks=2)
    bring_probe(guest, tiny, Deadline.after(30))
    assert len(tiny.read_bytes()) > 2 * CHUNK
    assert guest.file == tiny.read_bytes()
    assert guest.started[0][1:] == ["755", PROBE]
    assert guest.started[1][0] == PROBE
    assert "org.migrate-lab.probe.0" in guest.started[1]


@pytest.mark.parametrize("command", ["guest-file-open", "guest-file-write", "guest-exec"])
def test_an_agent_that_refuses_is_told_with_its_words(tiny: Path, command: str) -> None:
    guest: Any = Agent()
    guest.refused = command
    with pytest.raises(GuestError, match=f"{command} has been disabled") as refused:
        bring_probe(guest, tiny, Deadline.after(30))
    assert "allow" in refused.value.remedy


def test_a_program_that_fails_in_the_guest_is_told(tiny: Path) -> None:
    guest: Any = Agent()
    guest.exit_code = 1
    with pytest.raises(GuestError, match="exitcode=1"):
        bring_probe(guest, tiny, Deadline.after(30))


def test_a_guest_without_an_agent_is_given_up_at_the_deadline(tiny: Path) -> None:
    guest: Any = Agent(silent_asks=10**9)
    with pytest.raises(GuestError, match="not connected") as silent:
        bring_probe(guest, tiny, Deadline.after(0.3))
    assert "qemu-guest-agent" in silent.value.remedy


def test_a_guest_that_went_is_not_waited_for(tiny: Path) -> None:
    guest: Any = Agent(silent_asks=10**9)
    guest.runs = "gone"
    deadline = Deadline.after(60)
    with pytest.raises(GuestError, match="wait for the guest agent"):
        bring_probe(guest, tiny, deadline)
    assert not deadline.passed()
