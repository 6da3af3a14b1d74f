"""A rack: hosts that are there already, reached over ssh and libvirt alone, and a peer beside them.

Nothing of a rack is brought up or taken down. All its hosts and the controller see the cache
(``$MIGRATE_LAB_CACHE``) at the same path: guest images, saved guests and the probe lie there.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
import secrets
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any

from migrate.clock import Deadline
from migrate.drivers.ssh import Connection
from migrate.drivers.ssh_address import Address, resolve
from migrate.drivers.terminal import run_attached
from migrate.errors import ConfigurationError, HostError
from migrate.files import as_host_error, make_private, replace_file
from migrate.images.initramfs import ensure_image
from migrate.lab.api import Place, Programs
from migrate.lab.config import SHARED, cache_folder, shared_folder, state_folder
from migrate.lab.programs import Entered
from migrate.lab.rack.config import RackConfig, RackHost
from migrate.lab.remote_host import Reach, RemoteHost
from migrate.lab.shared_folder import SharedFolder
from migrate.model import HostFacts
from migrate.waiting import waiting

LOGGER = logging.getLogger(__name__)

REACH_S = 30.0
ROOM_BYTES = 1 << 20
PLACES = ("/run/libvirt", "/run/libvirt/qemu", "/var/lib/libvirt", "/var/log/libvirt")
STRICT = ("-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes")
"""The system's ssh asks for nothing, and takes no new host key."""


class RackLab:
    """A rack that was reached; see :class:`migrate.lab.api.Lab`."""

    kind = "rack"
    cpu_model: str | None = None
    peer_is_here = False
    places: Mapping[str, Place] = MappingProxyType({})
    machine_pid_file: str | None = None

    def __init__(self, config: RackConfig, program: str) -> None:
        """No host is touched yet. HostError for one whose key is not known."""
        self.config = config
        self.name = config.name
        self.patience = config.patience
        self.peer_address = str(config.peer.address)
        self.peer_interface = config.peer.interface
        self.guest_address = str(config.guest_address)
        self.prefix = config.prefix
        self.program = program
        self.hosts: Mapping[str, RemoteHost] = {
            name: _remote(name, host, program) for name, host in config.hosts.items()
        }
        self.peer_ssh = Connection(resolve(config.peer.ssh, "peer"))

    @property
    def surroundings(self) -> Mapping[str, Programs]:
        """See Lab; its fabric is not ours to look into."""
        return {"peer": Entered(self.peer_ssh, self.config.peer.enter)}

    @property
    def scenario_defaults(self) -> Mapping[str, Any]:
        """See Lab; from its lab file."""
        return self.config.scenario_defaults()

    @property
    def missing_hosts(self) -> tuple[HostFacts, ...]:
        """None: one that can't be reached is an error."""
        return ()

    @property
    def coordinator(self) -> str | None:
        """See Lab; from its lab file."""
        return self.config.coordinator

    @property
    def shared(self) -> Path:
        """See Lab; the cache."""
        return cache_folder()

    @property
    def leases(self) -> Path:
        """See Lab; one folder for all, since labs of any name may have the same hosts."""
        return make_private(make_private(state_folder()) / "leases")

    @contextlib.contextmanager
    def peer(self) -> Iterator[subprocess.Popen[bytes]]:
        """The probe on the peer's host; it ends when its input does."""
        there = shlex.join([*self.config.peer.enter, self.program, "--fifo", "20"])
        with subprocess.Popen(
            ["ssh", *STRICT, self.config.peer.ssh, "--", there],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Ctrl-C is for the controller: it still has to read the peer's log.
            start_new_session=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def interact(self, host: str, argv: Sequence[str], *, terminal: bool) -> int:
        """See Lab; by the system's own ssh, whose terminal it is."""
        options = [*STRICT, "-t" if terminal else "-T"]
        there = self.config.hosts[host].ssh
        return run_attached(["ssh", *options, there, "--", shlex.join(argv)])

    def isolate_pair(self, source: str, target: str) -> RackLab:
        """The rack itself: two guests at once would have one address on its one network."""
        del source, target
        return self

    def replace_dead_hosts(self) -> tuple[str, ...]:
        """None: nobody here has their switch."""
        return ()

    def close(self) -> None:
        """Let the ssh connections go."""
        for host in self.hosts.values():
            host.close()
        self.peer_ssh.close()

    def summary(self) -> Iterator[str]:
        """What it is made of, a line each."""
        for name, host in self.config.hosts.items():
            yield f"{name}: {host.ssh}, root {host.root}, {host.migration_address}"
            yield f"  provides {host.resources.summary()}"
        yield f"peer: {self.config.peer.ssh}, {self.peer_address} on {self.peer_interface}"

    def as_json(self) -> str:
        """See Lab; its lab file."""
        return self.config.model_dump_json(indent=1)


def _remote(name: str, host: RackHost, program: str) -> RemoteHost:
    address = resolve(host.ssh, name)
    there = host.ssh if host.libvirt == "qemu+ssh" else address.ip
    reach = Reach(
        libvirt=f"{host.libvirt}://{there}/system{_QUIET.get(host.libvirt, '')}",
        libvirt_target=f"{host.migration_libvirt}://{host.migration_address}/system",
        program=program,
        start_libvirt=host.start_libvirt,
        lease_name=_lease_name(address),
    )
    return RemoteHost(address, host.root, str(host.migration_address), host.resources, reach)


def _lease_name(address: Address) -> str:
    """Two lab files may name one host by different names: it has one key."""
    identity = hashlib.sha256("\n".join(sorted(address.host_keys)).encode()).hexdigest()
    return f"host-{identity[:16]}"


_QUIET = {"qemu+ssh": "?no_tty=1"}
"""libvirt's ssh asks for no password, and so fails at once (libvirt's URI parameters)."""


def reach(config: RackConfig) -> RackLab:
    """Reach every host of the rack and its peer, all at once.

    HostError that names all that were not reached, or that do not see the cache.
    """
    image = ensure_image("tiny", cache_folder())
    lab = RackLab(config, str(image.probe))
    LOGGER.info("reaching %s and the peer", ", ".join(lab.hosts))
    for name in ("images", "warm"):
        shared_folder(name).parent.chmod(SHARED)  # seen by hosts where it is, not in a copy
    secret = secrets.token_hex(16)
    token = cache_folder() / "warm" / f"seen-{secrets.token_hex(8)}"
    try:
        with as_host_error("leave a token in the cache", token.parent):
            replace_file(token, secret)
        with ThreadPoolExecutor() as pool, waiting("every host and the peer to answer", REACH_S):
            connections = {name: pool.submit(_libvirt, host) for name, host in lab.hosts.items()}
            rooms = {name: pool.submit(_has_room, host) for name, host in lab.hosts.items()}
            caches = {name: pool.submit(_sees, host, token, secret) for name, host in _all(lab)}
        problems = [
            f"{name}: {error}"
            for calls in (caches, rooms, connections)
            for name, call in calls.items()
            if (error := call.exception()) is not None
        ]
    finally:
        token.unlink(missing_ok=True)
    if problems:
        lab.close()
        raise HostError(f"reach the rack {config.name}", said="; ".join(problems))
    return lab


def _all(lab: RackLab) -> Iterator[tuple[str, RemoteHost | Connection]]:
    yield from lab.hosts.items()
    yield "peer", lab.peer_ssh


def _libvirt(host: RemoteHost) -> None:
    with host.connect():
        pass


def _has_room(host: RemoteHost) -> None:
    """QEMU on a full disk ends without a word of why."""
    df = ["df", "--output=avail,target", "--block-size=1", *PLACES]
    lines = host.run(df, Deadline.after(REACH_S), check=False).out.splitlines()[1:]
    rooms = (re.match(r" *([0-9]{1,19}) +(.+)$", line) for line in lines)  # "-": it can't be told
    full = {room[2] for room in rooms if room is not None and int(room[1]) < ROOM_BYTES}
    if full:
        raise HostError(
            "find room for a guest's files",
            host=host.name,
            said=f"the disk at {' and '.join(sorted(full))} is full",
            remedy=f"make room: libvirt and QEMU write to {', '.join(PLACES)}",
        )


def _sees(host: RemoteHost | Connection, token: Path, secret: str) -> None:
    """That it is the controller's cache, and no other folder of that name."""
    done = host.run(["cat", str(token)], Deadline.after(REACH_S), check=False)
    if done.out != secret:
        name = host.name if isinstance(host, RemoteHost) else host.address.host
        raise HostError(
            f"see the controller's cache at {token.parent.parent}",
            host=name,
            said=done.err.strip() or "it is another folder there",
            remedy="mount one folder at the same path on the controller, all hosts and the peer "
            "(NFS), and name it by MIGRATE_LAB_CACHE where it is not the usual one",
        )


class RackKind:
    """Racks persist: they are reached, and let go; see :class:`migrate.lab.kinds.LabKind`."""

    is_persistent = True

    def prepare(self, _config: RackConfig) -> None:
        """Nothing: its hosts are there."""

    def up(self, config: RackConfig, share: SharedFolder | None = None) -> RackLab:
        """See :func:`reach`; its hosts are not ours to mount anything on."""
        if share is not None:
            raise ConfigurationError(
                f"share the folder {share.path} with the hosts of the rack {config.name}",
                said="migrate-lab mounts nothing on the hosts of a rack",
                remedy="copy it to the hosts, or mount it there (e.g. by NFS); --share is for "
                "local and nested labs",
            )
        return reach(config)

    def find(self, config: RackConfig) -> RackLab:
        """See :func:`reach`."""
        return reach(config)

    def down(self, _config: RackConfig) -> None:
        """Nothing: its hosts stay."""

    def lease_names(self, config: RackConfig) -> tuple[str, ...]:
        """By the keys that its hosts show, which the user's ssh knows."""
        return tuple(_lease_name(resolve(host.ssh, name)) for name, host in config.hosts.items())


KIND = RackKind()
