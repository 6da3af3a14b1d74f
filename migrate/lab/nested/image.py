"""What a nested host boots: a named root as a read-only disk, a kernel, and an initramfs that joins
them; with the keys by which its sshd and its visitors know each other."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from migrate.clock import Deadline
from migrate.drivers.shell import run
from migrate.drivers.ssh_address import key_pair
from migrate.images.cache import build_once, digest
from migrate.images.kernel import cpio
from migrate.lab.fabric import own_addresses
from migrate.lab.namespaces import LIBVIRTD, QEMU
from migrate.lab.nested.kernel import OPTIONS, MachineKernel, ensure_machine_kernel
from migrate.lab.rootfs import ensure_root
from migrate.waiting import waiting

LOGGER = logging.getLogger(__name__)

BUILDER = "1"
"""Raised when this module makes another image of the same root and kernel."""
PACK_S = 120.0
LEFT_OUT = ("boot", "usr/lib/modules", "usr/share/doc", "usr/share/man", "var/cache", "var/lib/apt")
SSHD = """\
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
UseDNS no
HostKey /etc/ssh/lab_host_key
MaxSessions 64
Subsystem sftp internal-sftp
"""
# Without this filter libvirt asks QEMU for some 450 properties of the processor one by one whenever
# a guest starts, 20 ms each in a nested host; with it, for two.
QEMU_NESTED = (
    # The logs' folder is small there (host_init.sh), and a second daemon costs its boot time.
    QEMU.replace('stdio_handler = "logd"', 'stdio_handler = "file"')
    + 'capability_filters = [ "cpu-unavailable-features" ]\n'
)


@dataclass(frozen=True, slots=True)
class MachineImage:
    """All that a nested host's machine is booted from; its folder is root's alone."""

    folder: Path
    kernel: Path

    @property
    def digest(self) -> str:
        """Names all that went into it."""
        return self.folder.name

    @property
    def initrd(self) -> Path:
        """Drivers, and the files that are a lab's own."""
        return self.folder / "initramfs"

    @property
    def disk(self) -> Path:
        """The root as an uncompressed squashfs."""
        return self.folder / "root.squashfs"

    @property
    def key_file(self) -> Path:
        """The private key by which we are let in."""
        return self.folder / "client_key"

    @property
    def host_key(self) -> str:
        """The public key that the host's sshd has to show."""
        return (self.folder / "host_key.pub").read_text()


def ensure_machine_image(root: str, cache: Path) -> MachineImage:
    """The image of the root called ``root``, made if ``cache`` does not hold it yet."""
    with ThreadPoolExecutor() as pool:
        making = pool.submit(ensure_root, root, cache)
        kernel = ensure_machine_kernel(cache)
        folder = making.result()
    scripts = [_text("host_init.sh"), _text("host_initramfs.sh"), own_addresses()]
    texts = [*scripts, LIBVIRTD, QEMU_NESTED, SSHD]
    key = digest(BUILDER, folder.name, kernel.folder.name, *texts, *LEFT_OUT)

    def build(beside: Path) -> None:
        LOGGER.info("packing the image of nested hosts from %s", root)
        beside.mkdir(mode=0o700)
        _build(folder, kernel, beside)

    image = cache / "nested" / f"{root}-{key}"
    build_once(image, build)
    return MachineImage(image, kernel.vmlinux)


def _build(root: Path, kernel: MachineKernel, folder: Path) -> None:
    host_private, host_public = key_pair()
    private, public = key_pair()
    (folder / "host_key.pub").write_text(host_public)
    (folder / "known_hosts").write_text(f"* {host_public}\n")
    (folder / "client_key").touch(mode=0o600)
    (folder / "client_key").write_text(private)
    (folder / "initramfs").write_bytes(_initramfs(kernel, host_private, public))
    excluded = [word for path in LEFT_OUT for word in ("-e", path)]
    packing = ["mksquashfs", str(root), str(folder / "root.squashfs"), "-no-progress"]
    # Not compressed: unpacking costs an emulated processor more than reading does.
    plain = ["-noI", "-noD", "-noF", "-noX"]
    argv = [*packing, *plain, *excluded]
    with waiting(f"the image of nested hosts to be made of the root {root.name}", PACK_S):
        run(argv, Deadline.after(PACK_S), remedy="apt-get install squashfs-tools")


def _initramfs(kernel: MachineKernel, host_private: str, public: str) -> bytes:
    modules = kernel.modules()
    order = "".join(f"{name} {OPTIONS.get(name, '')}".strip() + "\n" for name in modules)
    own = {
        "usr/sbin/lab-init": _text("host_init.sh"),
        "usr/sbin/own-addresses": own_addresses(),
        "etc/libvirt/libvirtd.conf": LIBVIRTD,
        "etc/libvirt/qemu.conf": QEMU_NESTED,
        "etc/ssh/sshd_config": SSHD,
        "etc/ssh/lab_host_key": host_private,
        "root/.ssh/authorized_keys": public + "\n",
    }
    content = {
        "init": _text("host_initramfs.sh").encode(),
        "bin/busybox": kernel.busybox.read_bytes(),
        "modules/order": order.encode(),
        **{f"modules/{name}.ko": module for name, module in modules.items()},
        **{f"host/{path}": text.encode() for path, text in own.items()},
        **{
            f"host/usr/lib/modules/{kernel.version}/{name}": index
            for name, index in kernel.index().items()
        },
    }
    return cpio(_folders(content, "dev", "proc", "sys", "lower", "layer", "root"), content)


def _folders(paths: Iterable[str], *more: str) -> list[str]:
    """Every folder of ``paths``, parents first."""
    folders = set(more)
    for path in paths:
        folders.update(str(parent) for parent in Path(path).parents if str(parent) != ".")
    return sorted(folders)


def _text(name: str) -> str:
    return files("migrate.lab.nested").joinpath(name).read_text()
