"""The local lab: hosts made of namespaces on this machine, and a fabric between them.

Every host has a network, mount, UTS, IPC and PID namespace. Its process 1 reaps, and whatever runs
in the host ends with it: taking a host down is ending one process. The fabric is one network
namespace with two bridges: ``data`` for the guests' traffic and ``mig`` for migration; the peer's
interface is a port of ``data`` like any other.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

from filelock import FileLock, Timeout

from migrate.clock import Deadline
from migrate.errors import CleanupError, HostError, LabError
from migrate.image import ensure_image
from migrate.lab import journal
from migrate.lab.config import LabConfig, cache_folder, state_folder
from migrate.lab.hosts import DATA_BRIDGE, MIGRATION_LINK, OVS_UPLINK, NamespaceHost
from migrate.lab.journal import HostRecord, LabRecord, ProcessId
from migrate.lab.roots import ensure_root, init_program
from migrate.shell import run, tail

Progress = Callable[[str], None]

PEER_ADDRESS = "10.77.0.1"
GUEST_ADDRESS = "10.77.0.10"
PREFIX = 24
LIBVIRTD = """\
listen_tls = 0
listen_tcp = 1
auth_tcp = "none"
auth_unix_rw = "none"
auth_unix_ro = "none"
unix_sock_rw_perms = "0700"
host_uuid = "{uuid}"
log_outputs = "2:file:/var/log/libvirt/libvirtd.log"
"""
QEMU = """\
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
remember_owner = 0
max_core = 0
"""


class LocalLab:
    """A lab that is up."""

    kind = "local"
    peer_address = PEER_ADDRESS
    peer_interface = "peer"
    guest_address = GUEST_ADDRESS
    prefix = PREFIX

    def __init__(self, record: LabRecord) -> None:
        self.record = record
        self.name = record.config.name
        self.hosts: Mapping[str, NamespaceHost] = {
            host.name: NamespaceHost(
                host.name, host.root, host.address, host.init.pid if host.init else 0
            )
            for host in record.hosts
        }

    @property
    def shared(self) -> Path:
        """The cache: bound into every host at its own path."""
        return cache_folder()

    @property
    def leases(self) -> Path:
        """Beside the journal: they go with the lab."""
        return self.record.folder

    def in_fabric(self, argv: Sequence[str]) -> list[str]:
        """The argument list that runs a program in the fabric's network namespace."""
        return ["ip", "netns", "exec", self.record.fabric, *argv]

    def enter(self, host: str, argv: Sequence[str]) -> list[str]:
        """The argument list that runs a program on a host."""
        return self.hosts[host].enter(argv)

    @contextlib.contextmanager
    def peer(self) -> Iterator[subprocess.Popen[bytes]]:
        """The peer ends when its input does: also when the controller is killed."""
        image = ensure_image("tiny", cache_folder(), lambda _text: None)
        process = subprocess.Popen(
            self.in_fabric([str(image.probe), "--fifo", "20"]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Ctrl-C is for the controller: it still has to read the peer's log.
            start_new_session=True,
        )
        with process:
            try:
                yield process
            finally:
                process.kill()

    def leftovers(self, hosts: Sequence[str]) -> tuple[str, ...]:
        """Domains and their processes, taps."""
        found: list[str] = []
        for host in (self.hosts[name] for name in hosts):
            deadline = Deadline.after(10)
            with host.connect() as hypervisor:
                found += [f"domain {name} on {host.name}" for name in hypervisor.domains()]
            processes = host.run(["ps", "-e", "-o", "pid=,comm="], deadline).out.splitlines()
            found += [f"process {p.strip()} on {host.name}" for p in processes if "qemu-sys" in p]
            links = host.run(["ip", "-brief", "link", "show", "type", "tun"], deadline).out
            found += [
                f"link {line.split()[0]} on {host.name}"
                for line in links.splitlines()
                if line.startswith("vnet")
            ]
        return tuple(found)


def up(config: LabConfig, progress: Progress) -> LocalLab:
    """Bring the lab up, or return it when it is up already.

    Raises :class:`HostError` when something of it can't be had; then nothing of it is left.
    """
    _must_be_root()
    folder = state_folder() / config.name
    with _lock(config.name):
        existing = find(config.name)
        if existing is not None:
            if existing.record.config == config:
                return existing
            raise HostError(
                f"bring up the lab {config.name}",
                said="it is up already, with other hosts",
                remedy=f"`migrate-lab lab down --name {config.name}`, or another --name",
            )
        roots = {
            host.root: ensure_root(host.root, cache_folder(), progress)
            for host in config.hosts.values()
        }
        _down(config.name)
        try:
            return _up(config, folder, roots, progress)
        except BaseException:
            _down(config.name)
            raise


def find(name: str) -> LocalLab | None:
    """The lab called ``name`` if it is up and whole."""
    record = journal.read_record(state_folder() / name)
    if record is None or not record.complete:
        return None
    whole = all(host.init is not None and host.init.alive() for host in record.hosts)
    return LocalLab(record) if whole else None


def names() -> tuple[str, ...]:
    """Labs that have a journal: up, half up, or left behind."""
    state = state_folder()
    return tuple(sorted(path.parent.name for path in state.glob("*/lab.json")))


def down(name: str) -> None:
    """Remove all of the lab, also what a killed controller left; raises :class:`CleanupError`."""
    _must_be_root()
    with _lock(name):
        _down(name)


def _must_be_root() -> None:
    if os.geteuid() != 0:
        raise HostError(
            "use the local lab",
            said="it needs root: it makes network namespaces and mounts",
            remedy="run the same command with sudo",
        )


@contextlib.contextmanager
def _lock(name: str) -> Iterator[None]:
    state = state_folder()
    state.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(state / f"{name}.lock", timeout=120):
            yield
    except Timeout as error:
        raise HostError(
            f"use the lab {name}", said="another command is bringing it up or down"
        ) from error


def _up(config: LabConfig, folder: Path, roots: dict[str, Path], progress: Progress) -> LocalLab:
    pages = sum(host.huge_pages for host in config.hosts.values())
    record = LabRecord(
        config=config,
        folder=folder,
        fabric=f"mlab-{config.name}",
        hosts=tuple(
            HostRecord(
                name=name,
                root=host.root,
                root_folder=roots[host.root],
                namespace=f"mlab-{config.name}-{name}",
                address=f"10.78.0.{number}",
            )
            for number, (name, host) in enumerate(config.hosts.items(), 1)
        ),
    )
    journal.write_record(record)
    lent = journal.borrow_huge_pages(state_folder(), config.name, pages)
    note = "" if lent == pages else f"{pages} huge pages of 2 MiB could not be had"
    progress("making namespaces and the fabric")
    _network(record)
    progress("starting the hosts")
    hosts = tuple(_start_host(host, record) for host in record.hosts)
    record = record.model_copy(update={"hosts": hosts, "huge_pages": lent, "note": note})
    journal.write_record(record)
    lab = LocalLab(record)
    progress("starting libvirt on each host")
    with ThreadPoolExecutor() as pool:
        deadline = Deadline.after(20)
        list(pool.map(lambda host: host.start_libvirt(deadline), lab.hosts.values()))
    record = record.model_copy(update={"complete": True})
    journal.write_record(record)
    return LocalLab(record)


def _network(record: LabRecord) -> None:
    deadline = Deadline.after(20)
    for namespace in record.namespaces:
        run(["ip", "netns", "add", namespace], deadline)
    fabric = [
        "link set lo up",
        *(
            line
            for bridge in (DATA_BRIDGE, "mig")
            # A bridge would answer for the peer's address, and take its packets past its port.
            for line in (f"link add {bridge} type bridge", f"link set {bridge} arp off up")
        ),
        "link add peer type veth peer name peer-port",
        f"link set peer-port master {DATA_BRIDGE} up",
        f"addr add {PEER_ADDRESS}/{PREFIX} dev peer",
        "link set peer up",
    ]
    for host in record.hosts:
        for uplink, bridge in (("data", DATA_BRIDGE), ("ovs", DATA_BRIDGE), ("mig", "mig")):
            fabric += [
                f"link add {host.name}-{uplink} type veth peer up-{uplink} netns {host.namespace}",
                f"link set {host.name}-{uplink} master {bridge} up",
            ]
    _ip(record.fabric, fabric, deadline)
    # A veth leaves checksums to a device that it hasn't got; OVS-DPDK hands them to the guest as
    # they are, and the guest drops the packet. So the peer works them out itself.
    enter = ["ip", "netns", "exec", record.fabric]
    run([*enter, "ethtool", "-K", "peer", "tx", "off"], deadline, remedy="apt-get install ethtool")
    for host in record.hosts:
        _ip(
            host.namespace,
            [
                "link set lo up",
                f"link add {DATA_BRIDGE} type bridge",
                f"link set {DATA_BRIDGE} up",
                f"link set up-data master {DATA_BRIDGE} up",
                f"link set {OVS_UPLINK} up",
                f"addr add {host.address}/{PREFIX} dev {MIGRATION_LINK}",
                f"link set {MIGRATION_LINK} up",
            ],
            deadline,
        )


def _ip(namespace: str, lines: list[str], deadline: Deadline) -> None:
    run(["ip", "-netns", namespace, "-batch", "-"], deadline, text="\n".join(lines) + "\n")


def _start_host(host: HostRecord, record: LabRecord) -> HostRecord:
    """Enter the host's root; the journal has its process 1 before this returns."""
    folder = record.folder / host.name
    upper, work, mount = (folder / part for part in ("upper", "work", "mount"))
    for path in (upper / "etc/libvirt", upper / "var/log/libvirt", work, mount):
        path.mkdir(parents=True, exist_ok=True)
    (upper / "etc/libvirt/libvirtd.conf").write_text(LIBVIRTD.format(uuid=uuid.uuid4()))
    (upper / "etc/libvirt/qemu.conf").write_text(QEMU)
    (upper / "etc/hostname").write_text(host.name + "\n")
    known = [f"{other.address} {other.name}" for other in record.hosts]
    (upper / "etc/hosts").write_text("\n".join(["127.0.0.1 localhost", *known]) + "\n")
    _know_libvirts_user(host, upper)
    _lend_capabilities(host, upper)
    shared = [cache_folder() / "images", cache_folder() / "warm"]
    for path in shared:
        path.mkdir(parents=True, exist_ok=True)
    script = files("migrate.lab").joinpath("enter_root.sh")
    argv = [
        # Forked off: a lab outlives its controller, which has no child to wait for then.
        *("setsid", "--fork", "nsenter", f"--net=/run/netns/{host.namespace}"),
        *("unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child"),
        *("sh", str(script), str(host.root_folder), str(upper), str(work), str(mount)),
        *(host.name, str(init_program()), f"{shared[0]}:ro", f"{shared[1]}:rw"),
    ]
    log = folder / "start.log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, encoding="utf-8"
        ) as starting,
    ):
        said = starting.stdout.readline().split() if starting.stdout else []
    if said[:1] != ["ready"]:
        raise HostError("start the host", host=host.name, said=tail(log))
    return host.model_copy(update={"init": ProcessId.of(int(said[1]))})


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


def _lend_capabilities(host: HostRecord, upper: Path) -> None:
    """Asking an emulator what it can takes libvirt seconds: hand it the answers of last time."""
    kept = _capabilities(host)
    if kept.is_dir() and host.root != "/":
        into = upper / "var/cache/libvirt/qemu/capabilities"
        shutil.copytree(kept, into, dirs_exist_ok=True)


def keep_capabilities(lab: LocalLab) -> None:
    """Keep what libvirt found out about its emulators, for the next time the lab is up."""
    for host in lab.record.hosts:
        made = lab.record.folder / host.name / "upper/var/cache/libvirt/qemu/capabilities"
        kept = _capabilities(host)
        if made.is_dir() and not kept.exists():
            making = kept.with_name(f".making-{uuid.uuid4().hex}")
            shutil.copytree(made, making)
            try:
                making.rename(kept)
            except OSError:  # another lab was first: its answers are as good
                shutil.rmtree(making)


def _down(name: str) -> None:
    """Every step runs, whatever the others said."""
    folder = state_folder() / name
    record = journal.read_record(folder)
    if record is None:
        return
    deadline = Deadline.after(20)
    steps: list[Callable[[], object]] = [
        functools.partial(host.init.end, deadline) for host in record.hosts if host.init
    ]
    steps += [
        functools.partial(_remove_namespace, namespace, deadline) for namespace in record.namespaces
    ]
    steps.append(functools.partial(journal.give_back_huge_pages, state_folder(), name))
    for kind in ("overlay", "saved"):
        ours = (cache_folder() / "warm").glob(f"{kind}-{name}-*")
        steps += [functools.partial(path.unlink, missing_ok=True) for path in ours]
    # The journal goes last: a controller that is killed in here leaves one that tells of the rest.
    hosts = (folder / host.name for host in record.hosts)
    steps += [functools.partial(shutil.rmtree, host) for host in hosts if host.exists()]
    steps.append(functools.partial(shutil.rmtree, folder))
    reasons: list[Exception] = []
    for step in steps:
        try:
            step()
        except (OSError, LabError) as error:
            reasons.append(error)
    if reasons:
        journal.write_record(record)  # so that another try knows what to look for
        raise CleanupError(f"take down the lab {name}", reasons)


def _remove_namespace(namespace: str, deadline: Deadline) -> None:
    """What still runs in a namespace that we made is ended by the id that the kernel names."""
    if not Path("/run/netns", namespace).exists():
        return
    for pid in run(["ip", "netns", "pids", namespace], deadline).out.split():
        ProcessId.of(int(pid)).end(deadline)
    run(["ip", "netns", "del", namespace], deadline)
