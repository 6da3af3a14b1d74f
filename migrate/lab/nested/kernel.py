"""The kernel of nested hosts: a distribution's own, with the vDPA drivers that it leaves out.

Debian builds no vdpa_sim, vdpa_sim_net, vp_vdpa and no vringh, which they need. They are compiled
once from the distribution's own source package against its own headers, in a root that is made for
that and thrown away; nothing of it is ever committed.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from migrate.clock import Deadline
from migrate.drivers.shell import run
from migrate.errors import HostError
from migrate.images.cache import build_once, digest
from migrate.images.initramfs import ImageRecipe, ModuleTree, download, only_one
from migrate.images.kernel import in_order, plain, uncompressed_kernel
from migrate.lab.rootfs import MIRROR, bootstrap
from migrate.waiting import waiting

LOGGER = logging.getLogger(__name__)

BUILDER = "1"
"""Raised when this module makes something else of the same packages."""
SUITE = "trixie"
KERNEL = "linux-image-amd64"
BUILD_PACKAGES = ("linux-source", "linux-headers-amd64", "make", "xz-utils")
BUILD_S = 600.0

MODULES = (
    *("virtio_pci", "virtio_blk", "virtio_net", "squashfs", "overlay", "9p", "9pnet_virtio"),
    *("tun", "bridge", "veth", "vhost_net", "kvm_amd", "kvm_intel"),
    *("vfio_pci", "vfio_iommu_type1", "igb", "igbvf"),
    *("vhost_vdpa", "vduse", "vdpa_sim", "vdpa_sim_net", "vp_vdpa"),
)
"""Loaded at boot, each after what it depends on: a nested host has no module tree to load from."""
OPTIONS: Mapping[str, str] = {"vdpa_sim": "use_va=0"}
"""With use_va=1, its default, vringh finds no ring ("Failed to access avail idx")."""
SOURCES = {
    "vringh": ("drivers/vhost/vringh.c",),
    "vdpa_sim": ("drivers/vdpa/vdpa_sim/vdpa_sim.c", "drivers/vdpa/vdpa_sim/vdpa_sim.h"),
    "vdpa_sim_net": ("drivers/vdpa/vdpa_sim/vdpa_sim_net.c",),
    "vp_vdpa": ("drivers/vdpa/virtio_pci/vp_vdpa.c",),
}
"""Modules that the distribution leaves out, and what they are made of."""

# Arguments: the files that are wanted out of the source package.
COMPILE = r"""
set -eu
rm -rf /made
mkdir /made
cd /made
archive=$(ls /usr/src/linux-source-*.tar.xz)
top=$(basename "$archive" .tar.xz)
for file; do
    set -- "$@" "$top/$file"
    shift
done
tar -xf "$archive" --strip-components=1 "$@"
find drivers -type f -exec mv {} . \;
objects=
for file in *.c; do objects="$objects ${file%.c}.o"; done
echo "obj-m := $objects" >Makefile
make -s -C /usr/src/linux-headers-*-amd64 M=/made modules
strip --strip-debug ./*.ko
basename "$(echo /usr/src/linux-headers-*-amd64)" | sed 's/^linux-headers-//'
"""


@dataclass(frozen=True, slots=True)
class MachineKernel:
    """A kernel with its modules, and where its files are."""

    folder: Path
    version: str

    @property
    def vmlinux(self) -> Path:
        """An ELF kernel, booted by PVH."""
        return self.folder / "vmlinux"

    @property
    def busybox(self) -> Path:
        """A static one, for the initramfs."""
        return self.folder / "busybox"

    def modules(self) -> dict[str, bytes]:
        """By name, in the order of loading."""
        order = (self.folder / "order").read_text().split()
        return {name: (self.folder / f"{name}.ko").read_bytes() for name in order}

    def index(self) -> dict[str, bytes]:
        """``modules.alias`` and its like: libvirt looks a device's variant driver up there."""
        return {path.name: path.read_bytes() for path in sorted(self.folder.glob("modules.*"))}


def ensure_machine_kernel(cache: Path) -> MachineKernel:
    """The kernel, made if ``cache`` does not hold it yet; HostError if it can't be made."""
    key = digest(BUILDER, SUITE, KERNEL, *MODULES, json.dumps(SOURCES), COMPILE)
    folder = cache / "nested" / f"kernel-{key}"

    def build(beside: Path) -> None:
        LOGGER.info("making the kernel of nested hosts and its vDPA drivers (once; about a minute)")
        beside.mkdir()
        with ThreadPoolExecutor() as pool:
            compiling = pool.submit(_compiled, beside / "build")
            downloading = pool.submit(_downloaded, beside / "root")
            version, built = compiling.result()
            root = downloading.result()
        _pack(root, version, built, beside)
        for part in ("build", "root"):
            shutil.rmtree(beside / part)

    build_once(folder, build)
    return MachineKernel(folder, (folder / "version").read_text())


def _downloaded(root: Path) -> Path:
    recipe = ImageRecipe(suite=SUITE, kernel=KERNEL, cmdline="", mirror=MIRROR)
    download(recipe, root, Path(f"{KERNEL} of nested hosts"))
    return root


def _compiled(root: Path) -> tuple[str, dict[str, bytes]]:
    """The kernel version that the modules are for, and the modules by name."""
    bootstrap(SUITE, (SUITE,), BUILD_PACKAGES, root)
    wanted = [file for files in SOURCES.values() for file in files]
    with waiting("the vDPA drivers to be compiled", BUILD_S):
        done = run(
            ["chroot", str(root), "sh", "-c", COMPILE, "sh", *wanted],
            Deadline.after(BUILD_S),
            remedy="the suite's linux-source and linux-headers must be of one version",
        )
    made = {name: (root / "made" / f"{name}.ko").read_bytes() for name in SOURCES}
    return done.out.split()[-1], made


def _pack(root: Path, version: str, built: Mapping[str, bytes], folder: Path) -> None:
    tree = only_one(root / "usr/lib/modules", "*")
    if tree.name != version:
        raise HostError(
            "make the kernel of nested hosts",
            said=f"the mirror has {KERNEL} {tree.name}, but sources and headers of {version}",
            remedy="try again when the mirror has both of one version",
        )
    shipped = ModuleTree.of(tree)

    def load(name: str) -> bytes | None:
        is_ours = name in built and name not in shipped.builtin
        return built[name] if is_ours else shipped.load(name)

    modules = in_order([plain(name) for name in MODULES], load)
    for name, content in modules.items():
        (folder / f"{name}.ko").write_bytes(content)
    (folder / "order").write_text("".join(f"{name}\n" for name in modules))
    if not (root / "lib").exists():  # unpacked only, it has not got that link yet
        (root / "lib").symlink_to("usr/lib")
    run(
        ["depmod", "--basedir", str(root), version],
        Deadline.after(60),
        remedy="apt-get install kmod",
    )
    for path in tree.glob("modules.*"):
        shutil.copy(path, folder / path.name)
    kernel = only_one(root / "boot", "vmlinuz-*").read_bytes()
    (folder / "vmlinux").write_bytes(uncompressed_kernel(kernel))
    shutil.copy(root / "usr/bin/busybox", folder / "busybox")
    (folder / "version").write_text(version)
