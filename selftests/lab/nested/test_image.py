"""What nested hosts boot: a kernel with what its distribution leaves out, an image and its keys."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_private_key,
)

from migrate.clock import Deadline
from migrate.drivers.shell import Completed, run
from migrate.errors import HostError
from migrate.lab.nested import image as machine_image
from migrate.lab.nested import kernel as machine_kernel
from migrate.lab.nested.image import MachineImage, ensure_machine_image
from migrate.lab.nested.kernel import MODULES, SOURCES, MachineKernel, ensure_machine_kernel
from selftests.helpers import SaidSoFar, unpack_newc

# --- the kernel -----------------------------------------------------------------------------------

VERSION = "6.12.107+deb13-amd64"
BUILT_IN = "virtio_blk"


def tree_of(version: str, root: Path) -> None:
    """As much of an unpacked kernel package as is looked at; bridge needs stp, which needs llc."""
    tree = root / "usr/lib/modules" / version
    drivers = tree / "kernel/drivers"
    drivers.mkdir(parents=True)
    needs = {"bridge": "stp", "stp": "llc", "vdpa_sim": "vringh", "vdpa_sim_net": "vdpa-sim"}
    for name in (*MODULES, "stp", "llc"):
        if name not in {*SOURCES, BUILT_IN}:
            module = drivers / f"{name.replace('_', '-')}.ko"
            module.write_bytes(f"{name}\0depends={needs.get(name, '')}\0".encode())
    (tree / "modules.builtin").write_text(f"kernel/drivers/{BUILT_IN.replace('_', '-')}.ko\n")
    (tree / "modules.alias").write_text("alias vfio_pci:* vfio_pci\n")
    for file in ("boot/vmlinuz-x", "usr/bin/busybox"):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(file.encode())


def compiled(root: Path) -> None:
    needs = {"vdpa_sim": "vringh", "vdpa_sim_net": "vdpa_sim"}
    (root / "made").mkdir(parents=True)
    for name in SOURCES:
        (root / f"made/{name}.ko").write_bytes(f"ours\0depends={needs.get(name, '')}\0".encode())


class Mirror:
    """Both ways to get something of a distribution: a kernel package, and a root to compile in."""

    def __init__(self) -> None:
        self.kernel = self.sources = VERSION
        self.asked: list[str] = []

    def download(self, _recipe: object, root: Path, _what: Path) -> None:
        self.asked.append("kernel")
        tree_of(self.kernel, root)

    def bootstrap(self, _suite: str, _suites: object, _packages: object, root: Path) -> None:
        self.asked.append("sources")
        compiled(root)

    def run(self, argv: Sequence[str], _deadline: Deadline, **_how: object) -> Completed:
        said = f"make: done\n{self.sources}\n" if argv[0] == "chroot" else ""
        return Completed(tuple(argv), 0, said, "")


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Mirror:
    found = Mirror()
    for name in ("download", "bootstrap", "run"):
        monkeypatch.setattr(machine_kernel, name, getattr(found, name))
    monkeypatch.setattr(machine_kernel, "uncompressed_kernel", lambda packed: b"elf of " + packed)
    return found


def test_a_kernel_is_made_once_of_a_package_and_of_what_it_leaves_out(
    mirror: Mirror, tmp_path: Path, told: SaidSoFar
) -> None:
    kernel = ensure_machine_kernel(tmp_path)
    assert kernel.version == VERSION
    assert kernel.vmlinux.read_bytes() == b"elf of boot/vmlinuz-x"
    modules = kernel.modules()
    assert {*MODULES, "stp", "llc", "vringh"} - {BUILT_IN} == set(modules)
    assert all(modules[name].startswith(b"ours") for name in SOURCES)
    order = list(modules)
    for first, then in (("llc", "stp"), ("stp", "bridge"), ("vringh", "vdpa_sim")):
        assert order.index(first) < order.index(then)
    assert kernel.index()["modules.alias"] == b"alias vfio_pci:* vfio_pci\n"
    assert not {"build", "root"} & {path.name for path in kernel.folder.iterdir()}
    assert ensure_machine_kernel(tmp_path) == kernel
    assert sorted(mirror.asked) == ["kernel", "sources"]
    assert len(told.lines) == 1


def test_sources_of_another_version_than_the_kernel_are_refused(
    mirror: Mirror, tmp_path: Path
) -> None:
    mirror.sources = "6.12.108+deb13-amd64"
    with pytest.raises(HostError) as caught:
        ensure_machine_kernel(tmp_path)
    assert VERSION in caught.value.said
    assert mirror.sources in caught.value.said
    assert "try again" in caught.value.remedy
    assert [path for path in (tmp_path / "nested").iterdir() if path.is_dir()] == []
    mirror.sources = VERSION
    assert ensure_machine_kernel(tmp_path).version == VERSION


def test_what_can_not_be_compiled_leaves_nothing(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(argv: Sequence[str], _deadline: Deadline, **_how: object) -> Completed:
        raise HostError(argv[0], said="vringh.c: error: no such function")

    monkeypatch.setattr(machine_kernel, "run", fails)
    with pytest.raises(HostError, match=r"vringh\.c"):
        ensure_machine_kernel(tmp_path)
    assert mirror.asked
    assert [path for path in (tmp_path / "nested").iterdir() if path.is_dir()] == []


# --- the image ------------------------------------------------------------------------------------


@pytest.fixture
def kernel(mirror: Mirror, tmp_path: Path) -> MachineKernel:
    assert mirror
    return ensure_machine_kernel(tmp_path)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root of a host, and what of it a nested host has no use for."""
    folder = tmp_path / "roots" / "debian-13-digest"
    for file in ("usr/sbin/sshd", "usr/share/doc/a", "boot/vmlinuz", "etc/libvirt/qemu.conf"):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(file)
    monkeypatch.setattr(machine_image, "ensure_root", lambda *_: folder)
    return folder


Make = Callable[[], MachineImage]


@pytest.fixture
def make(kernel: MachineKernel, root: Path, tmp_path: Path) -> Make:
    assert kernel.folder.exists()
    assert root.exists()
    return lambda: ensure_machine_image("debian-13", tmp_path)


def test_an_initramfs_holds_the_hosts_files_at_their_places(make: Make) -> None:
    content = {name: data for name, (_, data) in unpack_newc(make().initrd.read_bytes()).items()}
    script = content["init"].decode()
    assert script == files("migrate.lab.nested").joinpath("host_initramfs.sh").read_text()
    assert content["bin/busybox"] == b"usr/bin/busybox"
    for path in (
        *("usr/sbin/lab-init", "etc/libvirt/libvirtd.conf", "etc/libvirt/qemu.conf"),
        *("etc/ssh/sshd_config", "etc/ssh/lab_host_key", "root/.ssh/authorized_keys"),
        f"usr/lib/modules/{VERSION}/modules.alias",
    ):
        assert content[f"host/{path}"], path
    assert "HostKey /etc/ssh/lab_host_key" in content["host/etc/ssh/sshd_config"].decode()
    assert "host_uuid" not in content["host/etc/libvirt/libvirtd.conf"].decode(), "the machine's is"
    assert all(str(parent) in content for path in content for parent in Path(path).parents[:-1])


def test_every_driver_that_is_loaded_is_there_with_its_options(make: Make) -> None:
    content = {name: data for name, (_, data) in unpack_newc(make().initrd.read_bytes()).items()}
    lines = [shlex.split(line) for line in content["modules/order"].decode().splitlines()]
    assert [line[0] for line in lines if f"modules/{line[0]}.ko" not in content] == []
    assert ["vdpa_sim", "use_va=0"] in lines


def public_of(private: bytes) -> str:
    key = load_ssh_private_key(private, None).public_key()
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def test_a_host_and_its_visitors_know_each_other_by_key(make: Make) -> None:
    image = make()
    content = {name: data for name, (_, data) in unpack_newc(image.initrd.read_bytes()).items()}
    assert public_of(content["host/etc/ssh/lab_host_key"]) == image.host_key
    ours = public_of(image.key_file.read_bytes())
    assert content["host/root/.ssh/authorized_keys"].decode().strip() == ours
    assert image.key_file.with_name("known_hosts").read_text() == f"* {image.host_key}\n"
    assert ours != image.host_key
    assert image.folder.stat().st_mode & 0o777 == 0o700
    assert image.key_file.stat().st_mode & 0o777 == 0o600


def test_the_disk_is_the_root_without_what_a_host_has_no_use_for(make: Make) -> None:
    if shutil.which("unsquashfs") is None:
        pytest.skip("needs squashfs-tools")
    disk = make().disk
    listed = run(["unsquashfs", "-l", str(disk)], Deadline.after(10)).out.splitlines()
    assert "squashfs-root/usr/sbin/sshd" in listed
    assert not [line for line in listed if "/boot" in line or "/usr/share/doc" in line]


def test_an_image_is_made_once_for_all_that_goes_into_it(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make()
    keys = first.key_file.read_text()
    assert (make(), make().key_file.read_text()) == (first, keys)
    monkeypatch.setattr(machine_image, "SSHD", machine_image.SSHD + "UseDNS yes\n")
    assert make().folder != first.folder


def test_a_root_that_can_not_be_packed_leaves_no_image(
    make: Make, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(HostError) as caught:
        make()
    assert "squashfs-tools" in caught.value.remedy
    left = [p.name for p in (root.parents[1] / "nested").iterdir() if p.name.startswith("debian")]
    assert left == []
