"""Hosts on this machine: a root file system entered in namespaces of its own.

Its process 1 reaps, and whatever runs in the host ends with it.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from migrate.clock import Deadline, Offset, wall_offset
from migrate.drivers.libvirt import Hypervisor
from migrate.drivers.shell import MOST_BYTES, Completed, piped, run, tail
from migrate.errors import HostError
from migrate.formats.answers import whole_number
from migrate.images.cache import build_once
from migrate.lab.api import Power
from migrate.lab.config import cache_folder, shared_folder
from migrate.lab.resources import PLAIN_RESOURCES, Resources
from migrate.lab.rootfs import init_program
from migrate.lab.shared_folder import SHARED_AT, SharedFolder
from migrate.lab.small_files import LocalFiles, SmallFiles
from migrate.lab.state import HostRecord, LabRecord, ProcessId

LIBVIRTD = """\
listen_tls = 0
listen_tcp = 1
auth_tcp = "none"
auth_unix_rw = "none"
auth_unix_ro = "none"
unix_sock_rw_perms = "0700"
log_outputs = "2:file:/var/log/libvirt/libvirtd.log"
"""
QEMU = """\
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "logd"
remember_owner = 0
max_core = 0
"""
VIRTLOGD = """\
max_size = 4194304
max_backups = 1
"""
"""Of a guest's console and of QEMU's log: a guest that floods them fills no disk of a host."""


class Mount(NamedTuple):
    """A folder of this machine in a host; ``options`` as mount(8) has them."""

    source: Path
    target: str
    options: str


def mounts(share: SharedFolder | None) -> list[Mount]:
    """What every host sees: folders of the cache at the same paths, and the user's if it is one."""
    modes = {"images": "ro", "warm": "rw"}
    folders = [(shared_folder(name), mode) for name, mode in modes.items()]
    own = [Mount(folder, str(folder), mode) for folder, mode in folders]
    return [*own, *([Mount(share.path, SHARED_AT, share.options)] if share else [])]


def start_host(host: HostRecord, record: LabRecord, shared: Sequence[Mount]) -> HostRecord:
    """Enter the host's root; the journal has its process 1 before this returns."""
    folder = record.folder / host.name
    upper, work, mount = (folder / part for part in ("upper", "work", "mount"))
    for path in (upper / "etc/libvirt", upper / "var/log/libvirt", work, mount):
        path.mkdir(parents=True, exist_ok=True)
    own = f'host_uuid = "{uuid.uuid4()}"\nlisten_addr = "{host.address}"\n'
    incoming = f'migration_address = "{host.address}"\n'
    (upper / "etc/libvirt/libvirtd.conf").write_text(LIBVIRTD + own)
    (upper / "etc/libvirt/qemu.conf").write_text(QEMU + incoming)
    (upper / "etc/libvirt/virtlogd.conf").write_text(VIRTLOGD)
    (upper / "etc/hostname").write_text(host.name + "\n")
    known = [f"{other.address} {other.name}" for other in record.hosts]
    (upper / "etc/hosts").write_text("\n".join(["127.0.0.1 localhost", *known]) + "\n")
    _know_libvirts_user(host, upper)
    _reuse_capabilities(host, upper)
    script = files("migrate.lab").joinpath("enter_root.sh")
    argv = [
        # Forked off: a lab outlives its controller, which has no child to wait for then.
        *("setsid", "--fork", "nsenter", f"--net=/run/netns/{host.namespace}"),
        *("unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child"),
        *("sh", str(script), str(host.root_folder), str(upper), str(work), str(mount)),
        *(host.name, str(init_program()), *(":".join(map(str, mount)) for mount in shared)),
    ]
    log = folder / "start.log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, encoding="utf-8"
        ) as starting,
    ):
        words = starting.stdout.readline().split() if starting.stdout else []
    if len(words) != 2 or words[0] != "ready":
        raise HostError("start the host", host=host.name, said=tail(log))
    init = whole_number(words[1], "start the host", host=host.name)
    return host.model_copy(update={"init": ProcessId.of(init)})


def _know_libvirts_user(host: HostRecord, upper: Path) -> None:
    """libvirtd looks its packaged user up before it reads that it shall use another one; Debian 12
    makes that user in a package that a host has no other use for."""
    for name, line in (
        ("passwd", "libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin"),
        ("group", "libvirt-qemu:x:64055:"),
    ):
        known = (host.root_folder / "etc" / name).read_text()
        if "libvirt-qemu:" not in known:
            (upper / "etc" / name).write_text(f"{known}{line}\n")


def _capabilities(host: HostRecord) -> Path:
    return (
        cache_folder() / "capabilities" / f"{host.root_folder.name or 'own'}-{os.uname().release}"
    )


def _reuse_capabilities(host: HostRecord, upper: Path) -> None:
    """Asking an emulator what it can do takes libvirt seconds: hand it the answers of last time."""
    kept = _capabilities(host)
    if kept.is_dir() and host.root != "/":
        into = upper / "var/cache/libvirt/qemu/capabilities"
        shutil.copytree(kept, into, dirs_exist_ok=True)


def keep_capabilities(record: LabRecord) -> None:
    """Keep what libvirt found out about its emulators, for the next time the lab is up."""
    if not record.complete:
        return
    for host in record.hosts:
        made = record.folder / host.name / "upper/var/cache/libvirt/qemu/capabilities"
        kept = _capabilities(host)
        if made.is_dir() and any(made.iterdir()):
            with suppress(HostError):  # without it the next lab is slower to come up, no more
                build_once(kept, partial(shutil.copytree, made))


@dataclass(frozen=True, slots=True)
class NamespaceHost:
    """A host made of namespaces on this machine, entered by way of its process 1."""

    name: str
    root: str
    migration_address: str
    init_pid: int
    resources: Resources = PLAIN_RESOURCES
    power: Power | None = None
    path: str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

    @property
    def libvirt_target(self) -> str:
        """TCP without authentication, on a network that exists inside the lab only."""
        return f"qemu+tcp://{self.migration_address}/system"

    def run(
        self,
        argv: Sequence[str],
        deadline: Deadline,
        *,
        text: str | None = None,
        check: bool = True,
    ) -> Completed:
        """Run a program inside the host's namespaces and root."""
        return run(self.enter(argv), deadline, host=self.name, text=text, check=check)

    def piped(
        self, argv: Sequence[str], _deadline: Deadline
    ) -> AbstractContextManager[socket.socket]:
        """See Programs."""
        return piped(self.enter(argv))

    def enter(self, argv: Sequence[str], terminal: str = "dumb") -> list[str]:
        """The argument list that runs a program on the host, without our environment.

        ``terminal``: which kind it is at, as terminfo(5) calls it.
        """
        own = ["HOME=/root", "LANG=C.UTF-8", f"TERM={terminal}"]
        clean = ["env", "-i", f"PATH={self.path}", *own]
        return ["nsenter", "--target", str(self.init_pid), "--all", "--", *clean, *argv]

    def file(self, path: str) -> Path:
        """The host's file as this machine sees it."""
        return Path(f"/proc/{self.init_pid}/root") / path.lstrip("/")

    def read(self, path: str, _deadline: Deadline) -> bytes:
        """What is in a file of the host."""
        try:
            with self.file(path).open("rb") as file:
                content = file.read(MOST_BYTES + 1)
        except OSError as error:
            raise HostError(f"read {path}", host=self.name, said=str(error)) from error
        if len(content) > MOST_BYTES:
            said = f"it has more than {MOST_BYTES >> 20} MiB"
            raise HostError(f"read {path}", host=self.name, said=said)
        return content

    @contextmanager
    def small_files(self, _deadline: Deadline) -> Iterator[SmallFiles]:
        """See Host; its /proc has the numbers that its processes have there."""
        yield LocalFiles(self.file)

    @contextmanager
    def dial(self, path: str, deadline: Deadline) -> Iterator[socket.socket]:
        """A connection to a unix socket of the host while the block runs."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as plug:
            plug.settimeout(max(deadline.left(), 0.001))
            try:
                plug.connect(str(self.file(path)))
            except OSError as error:
                raise HostError(f"connect to {path}", host=self.name, said=str(error)) from error
            yield plug

    def connect(self) -> Hypervisor:
        """Over the host's own socket."""
        place = self.file("/run/libvirt/libvirt-sock")
        return Hypervisor.open(f"qemu+unix:///system?socket={place}", self.name)

    def wall_clock(self) -> Offset:
        """The host shares this machine's clock."""
        return wall_offset()

    def start_libvirt(self, deadline: Deadline) -> None:
        """libvirtd as a daemon: the command returns when its sockets listen, and may fail yet."""
        if not self.file("/run/libvirt/virtlogd-sock").exists():
            self.run(["virtlogd", "--daemon"], deadline)
        self.run(["libvirtd", "--daemon", "--listen", "--timeout", "0"], deadline)
        try:
            with self.connect():
                pass
        except HostError as error:
            log = self.file("/var/log/libvirt/libvirtd.log")
            raise HostError("start libvirtd", host=self.name, said=tail(log)) from error
