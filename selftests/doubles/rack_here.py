"""A rack on this machine: hosts in namespaces that are reached over ssh and TCP alone.

It is a local lab of three hosts (the third one is the guests' peer) with an sshd in each, and a
controller in a network namespace of its own, with keys, a known_hosts and an ssh configuration of
its own. What runs there has no other way to the hosts than their addresses:

    python -m selftests.doubles.rack_here NAME -- migrate-lab run testcases/scenarios/modes.toml
    --lab LAB

``LAB`` is replaced by the path of the rack's lab file. The rack ends with the command, with Ctrl-C,
SIGTERM and SIGHUP; what a ``kill -9`` left is removed by the next rack of that name, or by
``migrate-lab lab down --name NAME`` and ``ip netns del mlab-NAME-ctl``.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from migrate.drivers.shell import run
from migrate.drivers.ssh_address import key_pair
from migrate.lab import fabric_kind
from migrate.lab.config import NAME
from migrate.lab.fabric import ip_batch, make_namespace, own_addresses
from migrate.lab.local import lab as local
from migrate.lab.local.config import LocalConfig, LocalHostConfig
from migrate.lab.local.lab import LocalLab
from migrate.lab.namespaces import NamespaceHost
from selftests.helpers import soon

HOSTS = ("a", "b")
PEER = "p"
ADDRESS = "10.78.0.253"
"""The controller's, on the network that the hosts' migration addresses are in."""
PEER_ADDRESS, GUEST_ADDRESS = "10.77.0.2", "10.77.0.10"
DAEMON = '["libvirtd", "--daemon", "--listen", "--timeout", "0"]'
CONFIG = """\
HostKey /run/rack/host_key
AuthorizedKeysFile /run/rack/authorized_keys
PidFile /run/rack/sshd.pid
StrictModes no
UsePAM no
MaxSessions 64
Subsystem sftp internal-sftp
"""


@dataclass(frozen=True, slots=True)
class Rack:
    """A rack that is there."""

    lab: LocalLab
    home: Path
    """What lies over the controller's user's home: ``.ssh`` is in it."""
    file: Path
    """The lab file."""
    namespace: str
    """The controller's network namespace."""

    def controller(self, argv: Sequence[str]) -> list[str]:
        """The argument list that runs a program where the controller is."""
        # ssh looks into its user's home by the password database, whatever HOME says: there our
        # files lie over what is there.
        ours = Path("~root").expanduser()
        layers = f"lowerdir={ours},upperdir={self.home},workdir={self.home.with_name('work')}"
        script = 'mount -t overlay overlay -o "$1" "$2" && shift 2 && exec "$@"'
        inside = ["unshare", "--mount", "sh", "-c", script, "sh", layers, str(ours)]
        return ["ip", "netns", "exec", self.namespace, *inside, *argv]

    def host(self, name: str) -> NamespaceHost:
        """A host from behind the scenes."""
        return self.lab.hosts[name]

    def new_host_key(self, name: str) -> None:
        """Have a host show another key from now on, as one that was installed anew."""
        host = self.host(name)
        _write(host, "/run/rack/host_key", key_pair()[0])
        stop_sshd(host)
        start_sshd(host)


@contextmanager
def rack(name: str, folder: Path) -> Iterator[Rack]:
    """A rack while the block runs; its user's files lie in ``folder``."""
    config = LocalConfig(name=name, hosts={host: LocalHostConfig() for host in (*HOSTS, PEER)})
    with ExitStack() as undo:
        lab = local.KIND.up(config)
        undo.callback(fabric_kind.down, name)
        namespace = f"mlab-{name}-ctl"
        # What a killed one left would be in the way.
        run(["ip", "netns", "del", namespace], soon(), check=False)
        make_namespace(namespace, soon(), "mgmt")
        undo.callback(run, ["ip", "netns", "del", namespace], soon(600))
        _wire(lab, namespace)
        home = folder / "home"
        (home / ".ssh").mkdir(parents=True, mode=0o700)
        (folder / "work").mkdir()
        private, public = key_pair()
        _secret(home / ".ssh/id_ed25519", private)
        known, config_lines = [], []
        for number, host in enumerate(lab.hosts.values()):
            host_private, host_public = key_pair()
            _write(host, "/run/rack/host_key", host_private)
            _write(host, "/run/rack/authorized_keys", public + "\n")
            address = lab.record.hosts[number].address
            _write(host, "/run/rack/sshd_config", f"ListenAddress {address}\n{CONFIG}")
            start_sshd(host)
            known.append(f"{address} {host_public}")
            config_lines.append(f"Host rack-{host.name}\n  HostName {address}\n  User root\n")
        (home / ".ssh/known_hosts").write_text("\n".join(known) + "\n")
        (home / ".ssh/config").write_text("".join(config_lines))
        file = folder / "rack.toml"
        file.write_text(_lab_file(lab))
        yield Rack(lab, home, file, namespace)


def _wire(lab: LocalLab, namespace: str) -> None:
    """The controller is on the hosts' network; the peer has an address on the data network, in a
    namespace of its host with nothing else in it."""
    port = "link add ctl-mig type veth peer name mgmt netns"
    ip_batch(lab.record.fabric, [f"{port} {namespace}", "link set ctl-mig master mig up"], soon())
    ip_batch(
        namespace,
        [f"addr add {ADDRESS}/24 dev mgmt", "link set mgmt up"],
        soon(),
    )
    peer = lab.hosts[PEER]
    peer.run(["ip", "netns", "add", "peer"], soon())
    enter = ["ip", "netns", "exec", "peer"]
    peer.run([*enter, "sh", "-c", own_addresses(), "sh", "peer"], soon())
    joining = ["link add data-peer type veth peer name peer netns peer"]
    joining += ["link set data-peer master data up"]
    peer.run(["ip", "-batch", "-"], soon(), text="\n".join(joining) + "\n")
    here = [f"addr add {PEER_ADDRESS}/24 dev peer", "link set lo up", "link set peer up"]
    peer.run(["ip", "-netns", "peer", "-batch", "-"], soon(), text="\n".join(here) + "\n")
    # As the local lab's peer: checksums are worked out here, for OVS hands them to the guest.
    peer.run([*enter, "ethtool", "-K", "peer", "tx", "off"], soon())


def _lab_file(lab: LocalLab) -> str:
    addresses = {host.name: host.address for host in lab.record.hosts}
    hosts = "".join(
        f'[hosts.{name}]\nssh = "rack-{name}"\nroot = "debian-13"\n'
        f'migration_address = "{addresses[name]}"\nmigration_libvirt = "qemu+tcp"\n'
        f"start_libvirt = {DAEMON}\n"
        for name in HOSTS
    )
    return (
        f'kind = "rack"\nname = "{lab.name}r"\nguest_address = "{GUEST_ADDRESS}"\n'
        f'[peer]\nssh = "rack-{PEER}"\ninterface = "peer"\nnamespace = "peer"\n'
        f'address = "{PEER_ADDRESS}"\n{hosts}'
    )


def start_sshd(host: NamespaceHost, folder: str = "/run/rack") -> None:
    """It listens when this returns: its command does before that, its id is there afterwards."""
    pid = f"{folder}/sshd.pid"
    host.run(["mkdir", "-p", "/run/sshd"], soon())
    host.run(["rm", "-f", pid], soon())
    host.run(["/usr/sbin/sshd", "-f", f"{folder}/sshd_config"], soon())
    host.run(["sh", "-c", 'until [ -s "$1" ]; do sleep 0.02; done', "sh", pid], soon())


def stop_sshd(host: NamespaceHost, *, sessions: bool = False) -> None:
    """End it; ``sessions``: and all connections that it has, as a host does that goes down."""
    pid = host.run(["cat", "/run/rack/sshd.pid"], soon()).out.strip()
    if sessions:
        host.run(["pkill", "-KILL", "-P", pid], soon(), check=False)
        host.run(["pkill", "-KILL", "sshd-session"], soon(), check=False)
    host.run(["kill", "-KILL", pid], soon(), check=False)


def _write(host: NamespaceHost, path: str, text: str) -> None:
    place = host.file(path)
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    place.write_text(text)
    place.chmod(0o600)


def _secret(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)


def parsed(words: Sequence[str]) -> tuple[str, list[str]]:
    """The rack's name and the command. SystemExit for a request for help, and for what is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m selftests.doubles.rack_here",
        usage="%(prog)s [-h] NAME -- COMMAND …",
        description="Make a rack of three hosts on this machine, run COMMAND where its controller "
        "is, and take the rack away. The word LAB in COMMAND becomes the path of its lab file. "
        "Ctrl-C, SIGTERM and SIGHUP end the command and take the rack away, too.",
        epilog="Example: %(prog)s rk -- migrate-lab run testcases/scenarios/modes.toml --lab LAB",
    )
    parser.add_argument("name", metavar="NAME", help=f"{NAME.words}, e.g. rk")
    end = words.index("--") if "--" in words else len(words)
    name: str = parser.parse_args(words[:end]).name
    if not NAME.fits(name):
        parser.error(f"NAME {name!r}: {NAME.words}")
    command = list(words[end + 1 :])
    if not command:
        parser.error("no COMMAND after --")
    return name, command


def end_by_signal(number: int, _frame: object) -> None:
    """Undo on the way out, as after Ctrl-C."""
    sys.exit(128 + number)


def main(words: Sequence[str]) -> int:
    """Have a rack, run a command where its controller is, and take the rack away."""
    name, command = parsed(words)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end_by_signal)
    with tempfile.TemporaryDirectory() as folder, rack(name, Path(folder)) as made:
        argv = [str(made.file) if word == "LAB" else word for word in command]
        process = subprocess.Popen(made.controller(argv), env=os.environ)
        try:
            return process.wait()
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
