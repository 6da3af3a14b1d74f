"""Open vSwitch with DPDK on a host: a switch of our own, and ports of guests on it.

It is started when it is first needed and stays until the lab goes down. Where the host provides a
bridge of its own OVS (``resources.ovs_bridge``), that is used, and its switch is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from migrate.backends.base import LeftoverKind
from migrate.clock import Deadline
from migrate.errors import HostError
from migrate.lab.log_tail import log_tail

if TYPE_CHECKING:
    from migrate.lab.api import Host

RUN = "/run/openvswitch"
LOG = "/var/log/openvswitch/ovs-vswitchd.log"
DATABASE = f"{RUN}/conf.db"
DATABASE_PID = f"{RUN}/ovsdb.pid"
OTHERS_PID = f"{RUN}/ovsdb-server.pid"
"""Of the database that a distribution's own service starts."""
SWITCH_PID = f"{RUN}/ovs-vswitchd.pid"
PROCESSES = {"ovs-vswitchd": (SWITCH_PID,), "ovsdb-server": (DATABASE_PID, OTHERS_PID)}
CONTROL = f"{RUN}/ovs-vswitchd.ctl"
SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
BRIDGE = "dpu"
PORT = "vhu0"
MARK = "external_ids:migrate-lab"
"""A key of ours in OVS's database (ovs-vswitchd.conf.db(5)): a port without it is not ours."""
SWITCH = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk"
LOG_LINES = 2000
UNDO_S = 15.0
SWITCH_S = 60.0
"""For the switch to take on what it is told: one that starts in an emulated host is slow."""
_END = r"""
pkill -KILL --pidfile "$1" "^ovs" || exit 0
while pgrep --pidfile "$1" "^ovs" >/dev/null; do sleep 0.01; done
"""
# Argument: a pid file.
MEMORY_MIB = 128
"""Of huge pages for one OVS: 64 pages of 2 MiB hold the buffers of a few ports."""

# Post-copy support is left off: with it on, OVS 3.5 with DPDK 24.11 switches over and then never
# ends; without it QEMU refuses post-copy at once, in clear words.
SETTINGS = (
    "other_config:dpdk-init=true",
    f"other_config:dpdk-socket-mem={MEMORY_MIB}",
    # DPDK asks for none of the machine's PCI devices, and needs no hugetlbfs mount (--in-memory).
    "other_config:dpdk-extra=--no-pci",
    "other_config:per-port-memory=true",
)
POLLED_UPLINK = '{dpdk-devargs="net_af_packet0,iface=%s"}'
SLEEP_SETTINGS = ("pmd-sleep-max", "pmd-maxsleep")
"""For how many µs the poll threads sleep when idle: the name since OVS 3.2, and the one before."""


def ensure_switch(host: Host, deadline: Deadline) -> None:
    """Have OVS-DPDK run on ``host`` with its bridge and uplink.

    HostError with its log if it does not come up; then nothing that was started goes on.
    """
    if is_running(host, deadline):
        return
    _no_other(host, deadline)
    _end(host)  # of a switch that crashed, its database still runs
    try:
        _start(host, deadline)
    except HostError as error:
        raise HostError(
            "start OVS-DPDK",
            host=host.name,
            said=_log_errors(host) or error.said,
            remedy="see `migrate-lab doctor`: are huge pages and OVS-DPDK available?",
        ) from error


def _no_other(host: Host, deadline: Deadline) -> None:
    """A host's own OVS is not to be touched: it has the same folder, and the same pid file."""
    asking = ["sh", "-c", 'kill -0 "$(cat "$1")"', "sh", OTHERS_PID]
    if host.run(asking, deadline, check=False).status == 0:
        raise HostError(
            "start OVS-DPDK",
            host=host.name,
            said=f"another OVS runs there ({OTHERS_PID})",
            remedy="name its bridge of datapath netdev as resources.ovs_bridge in the lab file",
        )


def _start(host: Host, deadline: Deadline) -> None:
    host.run(["mkdir", "-p", RUN, str(PurePosixPath(LOG).parent)], deadline)
    host.run(["rm", "-f", DATABASE, LOG], deadline)
    host.run(["ovsdb-tool", "create", DATABASE, SCHEMA], deadline)
    with ExitStack() as undo:
        undo.callback(_end, host)
        host.run(
            [
                *("ovsdb-server", DATABASE, f"--remote=punix:{RUN}/db.sock"),
                *("--detach", "--no-chdir", f"--pidfile={DATABASE_PID}"),
                "--log-file=/var/log/openvswitch/ovsdb-server.log",
            ],
            deadline,
        )
        _vsctl(host, deadline, "--no-wait", "init")
        sleep_us = host.resources.ovs_sleep_us
        sleeps = [f"other_config:{name}={sleep_us}" for name in SLEEP_SETTINGS]
        _vsctl(host, deadline, "--no-wait", "set", "Open_vSwitch", ".", *SETTINGS, *sleeps)
        host.run(
            [
                *(SWITCH, "--detach", "--no-chdir", f"--pidfile={SWITCH_PID}"),
                *(f"--unixctl={CONTROL}", f"--log-file={LOG}"),
            ],
            deadline,
        )
        _add_uplink(host, deadline)
        undo.pop_all()


def _add_uplink(host: Host, deadline: Deadline) -> None:
    """The bridge, and the uplink in it, polled as guests' ports are.

    A port of the kernel's is served by the switch's main thread, which goes through all of its
    duties for every packet: in an emulated host 1 ms of the guest's processor. So it is taken by
    DPDK's driver for a link of Linux, where that is installed
    (https://doc.dpdk.org/guides/nics/af_packet.html).
    """
    uplink = host.resources.ovs_uplink
    _vsctl(
        host,
        deadline,
        *("--may-exist", "add-br", BRIDGE),
        *("--", "set", "bridge", BRIDGE, "datapath_type=netdev"),
        *("--", "--may-exist", "add-port", BRIDGE, uplink),
        *("--", "set", "interface", uplink, "type=dpdk", f"options={POLLED_UPLINK % uplink}"),
    )
    asking = [*_command(deadline), "get", "interface", uplink, "error"]
    if host.run(asking, deadline).out.strip() == "[]":
        return
    _vsctl(host, deadline, "set", "interface", uplink, "type=system", "options={}")


def _log_errors(host: Host) -> str:
    """What went wrong by the switch's own log; empty where it says nothing."""
    log = log_tail(host, LOG, Deadline.after(UNDO_S), LOG_LINES) or ""
    # A line is date|number|module|level|text.
    lines = (line.split("|", 4) for line in log.splitlines())
    worst = [part[4] for part in lines if len(part) == 5 and part[3] in ("ERR", "EMER")]
    return "; ".join(worst[:4])


def _end(host: Host) -> None:
    """End switch and database, if they run: by the ids that they wrote down, and their name.

    They have ended when it returns: a signal alone is only on its way.
    """
    for file in (SWITCH_PID, DATABASE_PID):
        ending = ["timeout", f"{UNDO_S:.0f}", "sh", "-c", _END, "sh", file]
        host.run(ending, Deadline.after(2 * UNDO_S), check=False)


def is_running(host: Host, deadline: Deadline) -> bool:
    """Whether the switch answers."""
    asked = host.run(
        ["ovs-appctl", "--timeout=2", f"--target={CONTROL}", "version"], deadline, check=False
    )
    return asked.status == 0


def end_switch(host: Host, deadline: Deadline) -> None:
    """End switch and database, unless ports of guests are left: HostError with their names."""
    left = guest_ports(host, deadline)
    if left:
        raise HostError("end OVS-DPDK", host=host.name, said=f"it has the ports {', '.join(left)}")
    _end(host)


@contextmanager
def client_port(host: Host, socket: str, deadline: Deadline) -> Iterator[None]:
    """A port that connects to a guest's socket while the block runs."""
    bridge = host.resources.ovs_bridge or BRIDGE
    _check_ours(host, deadline)
    # Another path for a port that exists has no effect: it is deleted and added.
    _vsctl(
        host,
        deadline,
        *("--if-exists", "del-port", bridge, PORT),
        *("--", "add-port", bridge, PORT),
        *("--", "set", "port", PORT, f"{MARK}=guest"),
        *("--", "set", "interface", PORT, "type=dpdkvhostuserclient"),
        f"options:vhost-server-path={socket}",
    )
    try:
        yield
    finally:
        if host.resources.ovs_bridge is not None or is_running(host, Deadline.after(UNDO_S)):
            _vsctl(host, Deadline.after(UNDO_S), "--if-exists", "del-port", bridge, PORT)


def _check_ours(host: Host, deadline: Deadline) -> None:
    """HostError if a port of that name is there which we have not made."""
    asked = ["get", "port", PORT, "external_ids"]
    said = host.run([*_command(deadline), "--if-exists", *asked], deadline).out.strip()
    if said and "migrate-lab=" not in said:
        raise HostError(
            f"add the port {PORT} to OVS",
            host=host.name,
            said=f"there is a port {PORT} that is not ours (external_ids {said}): it is left alone",
            remedy=f"`ovs-vsctl del-port {PORT}` there, if nobody uses it",
        )


def guest_ports(host: Host, deadline: Deadline) -> tuple[str, ...]:
    """Ports beside the uplink of our bridge, if the switch runs."""
    if not is_running(host, deadline):
        return ()
    listing = ["ovs-vsctl", "--timeout=10", f"--db=unix:{RUN}/db.sock", "list-ports", BRIDGE]
    ports = host.run(listing, deadline, check=False).out.split()
    return tuple(port for port in ports if port != host.resources.ovs_uplink)


def kill_switch(host: Host, deadline: Deadline) -> None:
    """End the switch as a crash would: by the id that it wrote down."""
    pid = host.run(["cat", SWITCH_PID], deadline).out.strip()
    host.run(["kill", "-KILL", pid], deadline)


def _remove_port(host: Host, port: str, deadline: Deadline) -> None:
    _check_ours(host, deadline)
    _vsctl(host, deadline, "--if-exists", "del-port", port)


PORT_LEFTOVER = LeftoverKind(
    "port {} of OVS",
    # Of a switch that crashed, the database goes on: its ports are nobody's, and go with it.
    f"if ovs-appctl --timeout=2 --target={CONTROL} version >/dev/null 2>&1; then\n"
    f"    ovs-vsctl --timeout=10 --db=unix:{RUN}/db.sock --bare --columns=name \\\n"
    f"        find port {MARK}=guest 2>/dev/null || :\n"
    "fi",
    _remove_port,
)


def _vsctl(host: Host, deadline: Deadline, *words: str) -> None:
    host.run([*_command(deadline), *words], deadline)


def _command(deadline: Deadline) -> list[str]:
    seconds = max(1, int(min(deadline.left(), SWITCH_S)))
    return ["ovs-vsctl", f"--timeout={seconds}", f"--db=unix:{RUN}/db.sock"]
