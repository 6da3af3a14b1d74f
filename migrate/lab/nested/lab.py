"""The nested lab: hosts that are virtual machines on this machine, with an IOMMU, an SR-IOV NIC and
vDPA devices of the kernel's own bus; guests run in them under KVM, and move from one to the other.

Each machine is run by its root's QEMU, in namespaces of its own (:mod:`migrate.lab.namespaces`),
and boots that same root. From outside it is a host like any other, reached over ssh and libvirt.
"""

from __future__ import annotations

import functools
import logging
import os
import shlex
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from migrate.clock import Deadline, until
from migrate.drivers.shell import tail
from migrate.drivers.ssh_address import Address
from migrate.drivers.terminal import run_attached
from migrate.errors import HostError
from migrate.files import make_private
from migrate.images.cache import build_once, digest
from migrate.images.initramfs import ensure_image
from migrate.lab import kvm_boot, namespaces, state
from migrate.lab.config import cache_folder, state_folder
from migrate.lab.fabric import FabricLab, ip_batch, make_fabric
from migrate.lab.fabric_kind import FabricKind
from migrate.lab.namespaces import Mount, NamespaceHost
from migrate.lab.nested.config import MachineConfig, NestedConfig
from migrate.lab.nested.image import ensure_machine_image
from migrate.lab.nested.machine import (
    CONSOLE,
    PID_FILE,
    VDPA_SLOT,
    Machine,
    restore,
    save,
    start,
    taps,
)
from migrate.lab.remote_host import Reach, RemoteHost
from migrate.lab.resources import DATA_BRIDGE, Resources
from migrate.lab.rootfs import ensure_root
from migrate.lab.state import HostRecord, LabRecord
from migrate.locks import BUILD_S, file_lock
from migrate.waiting import waiting

LOGGER = logging.getLogger(__name__)

START_S = 180.0
"""For all machines to boot and answer: emulated on two cores it takes some ten seconds."""
SAVE_S = 60.0
RESTORE_S = 30.0
POLL_S = 0.1
"""Between two knocks at an sshd that is not up yet."""
PROBING_S = 120.0
"""For libvirt to ask an emulator what it can, in an emulated host."""
OVS_SLEEP_US = 2000
"""Every wake-up of a poll thread takes the one processor from the guest, and that costs a machine
that emulates another one the whole of its TLB, twice."""
NETWORKS = (DATA_BRIDGE, "mig", "mgmt")
CONTROLLER = "10.79.0.254/24"
"""The controller's address on the management network, inside the fabric."""

# Arguments: the time of day, then folders of the controller that the host is to see, each with a
# colon and its mount options. Reading ahead (cache=mmap) is ten times as fast as one request after
# the other; a file is looked up anew each time it is opened, so what the controller writes between
# is seen. pkttyagent: see enter_root.sh.
SETTLE = r"""
set -eu
date --set="@$1" >/dev/null
shift
number=0
for entry; do
    folder=${entry%:*} options=trans=virtio,version=9p2000.L,msize=512000,cache=mmap,${entry##*:}
    mkdir -p "$folder"
    mount -t 9p -o "$options" "share$number" "$folder"
    number=$((number + 1))
done
[ ! -e /usr/bin/pkttyagent ] || chmod a-x /usr/bin/pkttyagent
"""


class NestedLab(FabricLab):
    """A nested lab that is up."""

    kind = "nested"
    cpu_model: str | None = "qemu64"
    """host-model has features that libvirt can't verify in a nested host without asking for all."""
    patience = 4.0
    machine_pid_file: str | None = PID_FILE

    def __init__(self, record: LabRecord) -> None:
        self.places: Mapping[str, NamespaceHost] = {h.name: _outer(h) for h in record.hosts}
        self.hosts: Mapping[str, RemoteHost] = {
            host.name: _remote(host, record, MachinePower(self, host)) for host in record.hosts
        }
        super().__init__(record)

    def interact(self, host: str, argv: Sequence[str], *, terminal: bool) -> int:
        """See Lab; the terminal is its ssh's."""
        return run_attached(self.enter(host, argv, terminal=terminal))

    def enter(self, host: str, argv: Sequence[str], *, terminal: bool = False) -> list[str]:
        """The argument list that runs a program on a host, by the system's own ssh."""
        address = self.hosts[host].address
        known = address.key_files[0].with_name("known_hosts")
        options = [f"UserKnownHostsFile={known}", "StrictHostKeyChecking=yes", "LogLevel=ERROR"]
        ssh = ["ssh", "-i", str(address.key_files[0]), *(w for o in options for w in ("-o", o))]
        there = [f"{address.user}@{address.ip}", "--", shlex.join(argv)]
        return self.in_fabric([*ssh, "-t" if terminal else "-T", *there])

    def is_healthy(self) -> bool:
        """Whether all of it still runs."""
        return super().is_healthy() and all(
            host.init is not None and host.init.alive() and self.runs(host.name)
            for host in self.record.hosts
        )

    def runs(self, host: str) -> bool:
        """Whether the machine behind a host is there at all."""
        pgrep = ["pgrep", "--pidfile", PID_FILE, "^qemu"]
        return self.places[host].run(pgrep, Deadline.after(5), check=False).status == 0

    def data_ports(self, host: str) -> tuple[str, ...]:
        """Taps of the machine's links, also of VFs that are devices of their own."""
        links = taps(host, _config(self.record, host))
        return tuple(tap for tap, bridge in links if bridge == DATA_BRIDGE)

    def replace_dead_hosts(self) -> tuple[str, ...]:
        """Start the machines anew that are gone; their names."""
        gone = tuple(name for name in self.hosts if not self.runs(name))
        for name in gone:
            self.replace(name)
        return gone

    def replace(self, name: str) -> None:
        """Start the machine anew, from its saved state where there is one."""
        record = next(host for host in self.record.hosts if host.name == name)
        machines = [_machine(self, host) for host in self.record.hosts]
        replaced = machines[record.number - 1]
        self.hosts[name].close()
        _kill(self, replaced)
        states = _states(self, machines)
        if states.is_dir():
            _restore(self, states, replaced)
        else:
            _boot(self, replaced)
            _settle(self, replaced)

    def close(self) -> None:
        """Let the ssh connections go."""
        for host in self.hosts.values():
            host.close()


@dataclass(frozen=True, slots=True)
class MachinePower:
    """The switch of a machine; see :class:`migrate.lab.api.Power`."""

    lab: NestedLab
    host: HostRecord

    def kill(self) -> None:
        """See Power."""
        self._signal("KILL")

    def hang(self) -> None:
        """See Power. Its clocks go on meanwhile, as those of a host that hangs do."""
        self._signal("STOP")

    def resume(self) -> None:
        """See Power."""
        self._signal("CONT")

    def replace(self) -> None:
        """See Power."""
        self.lab.replace(self.host.name)

    def _signal(self, name: str) -> None:
        place = self.lab.places[self.host.name]
        signalling = ["pkill", f"-{name}", "--pidfile", PID_FILE, "^qemu"]
        place.run(signalling, Deadline.after(5))


def _outer(host: HostRecord) -> NamespaceHost:
    return NamespaceHost(host.name, host.root, host.address, host.init.pid if host.init else 0)


def _remote(host: HostRecord, record: LabRecord, power: MachinePower) -> RemoteHost:
    image = ensure_machine_image(host.root, cache_folder())
    probe = ensure_image("tiny", cache_folder()).probe
    address = Address(
        host=host.name,
        ip=f"10.79.0.{host.number}",
        host_keys=(image.host_key,),
        key_files=(image.key_file,),
        namespace=Path("/run/netns", record.fabric),
    )
    vdpa = (f"pci/{VDPA_SLOT}", "vdpasim_net")
    resources = Resources(pf="up-pf", vdpa=vdpa, ovs_sleep_us=OVS_SLEEP_US)
    reach = Reach(
        # TCP without authentication, on networks inside the lab only, which no guest is on.
        libvirt=f"qemu+tcp://{host.address}/system",
        libvirt_target=f"qemu+tcp://{host.address}/system",
        program=str(probe),
    )
    return RemoteHost(address, host.root, host.address, resources, reach, power)


# --- up -------------------------------------------------------------------------------------------


def plan(config: NestedConfig) -> LabRecord:
    """Have the images that it takes; nothing of the lab is made yet."""
    roots: dict[str, Path] = {}
    for name in dict.fromkeys(host.root for host in config.hosts.values()):
        ensure_machine_image(name, cache_folder())
        roots[name] = ensure_root(name, cache_folder())
    ensure_image("tiny", cache_folder())
    return state.new_record(config, roots, f"mlab-{config.name}", state_folder())


def make(_config: NestedConfig, record: LabRecord) -> LabRecord:
    """Make all of it; the journal names each step before it is done."""
    LOGGER.info("making the fabric and the machines' namespaces")
    _network(record)
    images = cache_folder() / "nested"
    shared = [Mount(images, str(images), "rw"), *namespaces.mounts(record.share)]
    hosts = tuple(namespaces.start_host(host, record, shared) for host in record.hosts)
    record = record.model_copy(update={"hosts": hosts})
    state.write_record(record)
    lab = NestedLab(record)
    with closing(lab):
        _start(lab, [_machine(lab, host) for host in hosts])
    return record


def _network(record: LabRecord) -> None:
    deadline = Deadline.after(20)
    make_fabric(record, NETWORKS, deadline, "mgmt")
    lines = ["link set mgmt arp on", f"addr add {CONTROLLER} dev mgmt"]
    for host in record.hosts:
        for tap, bridge in taps(host.name, _config(record, host.name)):
            lines += [f"tuntap add {tap} mode tap", f"link set {tap} master {bridge} up"]
    # What listens for the other hosts is the controller's, too, and goes on when their link is cut.
    routes = [f"route add {host.address} via 10.79.0.{host.number}" for host in record.hosts]
    ip_batch(record.fabric, [*lines, *routes], deadline)


def _config(record: LabRecord, host: str) -> MachineConfig:
    assert isinstance(record.config, NestedConfig), "a nested lab's record"
    return record.config.hosts[host]


def _machine(lab: NestedLab, host: HostRecord) -> Machine:
    return Machine(
        name=host.name,
        number=host.number,
        config=_config(lab.record, host.name),
        image=ensure_machine_image(host.root, cache_folder()),
        shares=[Path(mount.target) for mount in namespaces.mounts(lab.record.share)],
        accelerator=_accelerator(lab.places[host.name], host),
    )


def _accelerator(place: NamespaceHost, host: HostRecord) -> str:
    """KVM where it can nest and was seen to boot Linux; else the machine is emulated."""
    switches = Path("/sys/module").glob("kvm_*/parameters/nested")
    if not any(switch.read_text().strip() in ("1", "Y") for switch in switches):
        return "tcg"
    image = ensure_image("tiny", cache_folder())
    key = (host.root_folder.name, os.uname().release, kvm_boot.processor())
    with waiting(f"the trial boot of Linux under KVM for host {host.name}", kvm_boot.BOOT_S):
        boot = kvm_boot.boot_once(place, cache_folder(), key, image)
    return "kvm" if boot.reached else "tcg"


# --- the machines' start --------------------------------------------------------------------------


def _start(lab: NestedLab, machines: Sequence[Machine]) -> None:
    """Start the machines from the state saved when they were first ready; else boot and save it.

    Labs of the same machines start one after the other: at once they would be too slow to answer.
    """
    states = _states(lab, machines)
    make_private(states.parent)
    lock = states.with_suffix(".lock")
    with file_lock(lock, Deadline.after(BUILD_S), "start the machines of a nested lab"):
        if states.is_dir() and _restore_all(lab, machines, states):
            return
        if machines[0].accelerator == "tcg":
            build_once(states, functools.partial(_boot_and_save, lab, machines))
        else:
            _boot_all(lab, machines)
        _each(machines, functools.partial(_settle, lab))


def _restore_all(lab: NestedLab, machines: Sequence[Machine], states: Path) -> bool:
    """Whether all go on; if not, none runs, and their state is gone."""
    try:
        LOGGER.info("starting the machines from their saved state")
        _each(machines, functools.partial(_restore, lab, states))
    except HostError as error:
        LOGGER.info("the saved state does not load (%s): booting the machines", error)
        shutil.rmtree(states)
        _each(machines, functools.partial(_kill, lab))
        return False
    return True


def _boot_all(lab: NestedLab, machines: Sequence[Machine]) -> None:
    LOGGER.info("booting %s machines (%s)", len(machines), machines[0].accelerator)
    _each(machines, functools.partial(_boot, lab))


def _boot_and_save(lab: NestedLab, machines: Sequence[Machine], folder: Path) -> None:
    _boot_all(lab, machines)
    LOGGER.info("saving their state for the next time")
    folder.mkdir(mode=0o700)
    for machine in machines:
        state = folder / f"{machine.name}.state"
        with waiting(f"the state of host {machine.name} to be saved", SAVE_S):
            save(lab.places[machine.name], state, Deadline.after(SAVE_S))


def _states(lab: NestedLab, machines: Sequence[Machine]) -> Path:
    """The folder of the machines' saved states: one for all that these depend on, which the lab's
    own name is not."""
    commands = [" ".join(machine.arguments()) for machine in machines]
    key = digest(*commands, *(host.root_folder.name for host in lab.record.hosts))
    return cache_folder() / "nested" / f"states-{key}"


def _each(machines: Sequence[Machine], do: Callable[[Machine], None]) -> None:
    with ThreadPoolExecutor() as pool:
        list(pool.map(do, machines))


def _boot(lab: NestedLab, machine: Machine) -> None:
    """Cold, until libvirt knows its emulator: asking it takes seconds, and is part of the state."""
    start(machine, lab.places[machine.name], Deadline.after(30))
    _await_ssh(lab, machine.name, Deadline.after(START_S))
    names = "".join(f"{host.address} {host.name}\n" for host in lab.record.hosts)
    host = lab.hosts[machine.name]
    known = f"127.0.0.1 localhost\n{names}"
    host.run(["tee", "/etc/hosts"], Deadline.after(10), text=known)
    with waiting(f"libvirt on host {machine.name} to probe QEMU's capabilities", PROBING_S):
        host.run(["virsh", "domcapabilities"], Deadline.after(PROBING_S))


def _restore(lab: NestedLab, states: Path, machine: Machine) -> None:
    state = states / f"{machine.name}.state"
    with waiting(f"host {machine.name} to start from its saved state", RESTORE_S):
        restore(machine, lab.places[machine.name], state, Deadline.after(RESTORE_S))
    _await_ssh(lab, machine.name, Deadline.after(RESTORE_S))
    _settle(lab, machine)


def _settle(lab: NestedLab, machine: Machine) -> None:
    """Set its clock, which stood still with it, and give it the shared folders."""
    shared = [f"{mount.target}:{mount.options}" for mount in namespaces.mounts(lab.record.share)]
    script = ["sh", "-c", SETTLE, "sh", f"{time.time():.6f}", *shared]
    lab.hosts[machine.name].run(script, Deadline.after(20))


def _await_ssh(lab: NestedLab, host: str, deadline: Deadline) -> None:
    """Wait for the host's sshd, as long as its machine runs."""

    def answers() -> bool:
        lab.hosts[host].run(["true"], deadline.sooner(5))
        return True

    try:
        with waiting(f"host {host} to boot and answer", deadline):
            until(answers, deadline, POLL_S, not_yet=lambda _error: lab.runs(host))
    except HostError as error:
        console = lab.places[host].file(CONSOLE)
        said = f"{error.said}; its console ends: {tail(console)}"
        raise HostError("boot the host", host=host, said=said) from error


def _kill(lab: NestedLab, machine: Machine) -> None:
    ending = ["pkill", "-KILL", "--pidfile", PID_FILE, "^qemu"]
    lab.places[machine.name].run(ending, Deadline.after(5), check=False)


KIND = FabricKind(plan, make, NestedLab)
