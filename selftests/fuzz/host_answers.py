"""What hosts and their programs answer: JSON of tools, lines, files of the kernel, logs, XML."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

from migrate.backends.registry import INSPECTIONS
from migrate.backends.sriov.allocation import read_ledger
from migrate.backends.sriov.functions import pf_of
from migrate.backends.vdpa import bus
from migrate.backends.vdpa.backend import Vdpa
from migrate.backends.vhost_user.ovs import _log_errors
from migrate.backends.xml import rewritten, source_rewrite
from migrate.cleanup.leftovers import listed
from migrate.clock import Deadline, Offset
from migrate.drivers.libvirt import Hypervisor
from migrate.drivers.shell import Completed
from migrate.errors import HostError
from migrate.formats import proc_files
from migrate.formats.log_events import parse_ovs_log, parse_qemu_log, unreadable_trace_point
from migrate.formats.network_tools import LINKS, RULESET
from migrate.formats.qemu_end import qemu_end
from migrate.formats.virtio_features import (
    feature_mask,
    feature_names,
    not_shadowable,
    refusal_remedy,
)
from migrate.guest.domain_xml import has_interface
from migrate.guest.identity import Identity, marked, recorded
from migrate.lab.capabilities import HOST, Look, judge, parse
from migrate.lab.log_tail import log_tail
from migrate.lab.prepare.apply import JournalFile
from migrate.lab.prepare.plan import StepRecord
from migrate.lab.prepare.steps import STEPS, PreparedHost
from migrate.lab.rack.lab import _has_room
from migrate.lab.reach import links_of, used_ports
from migrate.lab.remote_host import CLOCK
from migrate.lab.resources import Resources
from migrate.lab.small_files import RemoteFiles
from migrate.lab.trace_points import INSPECTION as TRACE_POINTS
from migrate.migration.silence import console_end
from migrate.recorder.machines import Census, facts_of
from migrate.recorder.programs import Programs, our_sshd
from selftests.fuzz.lane import Lane
from selftests.helpers import ROOT

MAC = "52:54:00:6d:6c:01"


class Says:
    """A host that says one thing, whatever is run there."""

    name = "a"
    root = ""
    resources = Resources()

    def __init__(self, text: str) -> None:
        self.text = text

    def run(self, argv: Sequence[str], _deadline: Deadline, **_more: object) -> Completed:
        """See Host."""
        return Completed(tuple(argv), 0, self.text, "")

    def ask(self, _line: str, _deadline: Deadline) -> str:
        """A program that answers a line by a line."""
        return self.text


def _host(text: str) -> Any:
    return cast("Any", Says(text))


def _soon() -> Deadline:
    return Deadline.after(5)


Door = Callable[[str], object]


def _door(doors: Mapping[str, tuple[Door, str]]) -> Callable[[bytes], object]:
    def door(data: bytes) -> object:
        name, _, text = data.partition(b"\n")
        return doors[name.decode()][0](text.decode(errors="replace"))

    return door


def _seeds(doors: Mapping[str, tuple[Door, str]]) -> list[bytes]:
    return [f"{name}\n{text}".encode() for name, (_, text) in doors.items()]


# --- JSON of tools ------------------------------------------------------------------------------

LINK = {
    "ifindex": 2,
    "ifname": "pf0",
    "flags": ["BROADCAST", "UP", "LOWER_UP"],
    "mtu": 1500,
    "operstate": "UP",
    "address": MAC,
    "linkinfo": {"info_kind": "bridge"},
    "addr_info": [{"family": "inet6", "local": "fe80::1", "prefixlen": 64, "scope": "link"}, {}],
    "vfinfo_list": [
        {
            "vf": 0,
            "link_type": "ether",
            "address": MAC,
            "spoofchk": True,
            "trust": False,
            "vlan_list": [{"vlan": 100, "qos": 3}],
            "link_state": "auto",
        }
    ],
}
MANAGEMENT = {
    "mgmtdev": {
        "pci/0000:00:10.0": {
            "supported_classes": ["net"],
            "max_supported_vqs": 3,
            "dev_features": ["CSUM", "MAC", "STATUS", "CTRL_VQ", "VERSION_1", 57],
        }
    }
}
CHAIN = {"family": "inet", "table": "filter", "name": "input", "type": "filter", "hook": "input"}
RULE = {"family": "inet", "table": "filter", "chain": "input", "handle": 4}
NFT = {
    "nftables": [
        {"metainfo": {"version": "1.0.6", "json_schema_version": 1}},
        {"chain": {**CHAIN, "prio": 0, "policy": "drop"}},
        {"rule": {**RULE, "comment": "migrate-lab", "expr": [{"accept": None}]}},
    ]
}


def _pf(text: str) -> None:
    said = parse("address\t0000:01:00.0\ndriver\tigb\ntotal\t7\nmade\t1\nvf\t0 0000:01:10.0 - 9 -")
    with suppress(HostError):
        pf_of({**said, "links": (text,)}, "pf0", "a").model_dump_json()


def _offers(text: str) -> None:
    for offer in bus.offers(_host(text), _soon()).values():
        not_shadowable(offer.features)
        feature_names(feature_mask(offer.features))


def _step(kind: str, verb: str, found: str, wanted: str) -> Door:
    def door(text: str) -> None:
        site = PreparedHost(_host(text), cast("Any", None))
        step = StepRecord(kind=cast("Any", kind), subject="pf0", found=found, wanted=wanted)
        getattr(STEPS[step.kind], verb)(site, step, _soon())

    return door


def _rulesets(text: str) -> None:
    """As if no firewalld ran there."""
    site = PreparedHost(_host(text), cast("Any", None))
    site.ask(["nft"], RULESET, _soon())


FILES = json.dumps(
    {"id": None, "ok": True, "/proc/loadavg": base64.b64encode(b"0.1 0.2 0.3 1/2 3\n").decode()}
)
JSON: dict[str, tuple[Door, str]] = {
    "ip address": (_pf, json.dumps([LINK, {}])),
    "ip link of a bridge": (_step("bridge", "look", "", ""), json.dumps([LINK])),
    "ip link of a bridge, undone": (_step("bridge", "undo", "", ""), json.dumps([LINK])),
    "ip link of an uplink": (
        _step("uplink", "look", "", "pf0"),
        json.dumps([{**LINK, "addr_info": []}]),
    ),
    "ip link of taps": (lambda text: LINKS.parse(text, "ip link"), json.dumps([LINK, {}])),
    "ip addr": (
        lambda text: list(links_of(_host(text), _soon())),
        json.dumps([{**LINK, "link_type": "ether"}]),
    ),
    "nft": (_rulesets, json.dumps(NFT)),
    "nft, undone": (_step("firewall", "undo", "nft", ""), json.dumps(NFT)),
    "vdpa mgmtdev": (_offers, json.dumps(MANAGEMENT)),
    "vdpa dev": (
        lambda text: bus.devices(_host(text), _soon()),
        json.dumps({"dev": {"x": {"mgmtdev": "y"}}}),
    ),
    "vdpa config": (
        lambda text: bus.config(_host(text), "x", _soon()),
        json.dumps({"config": {"x": {"mac": MAC, "link ": "up", "mtu": 1500, "max_vq_pairs": 1}}}),
    ),
    "small files": (
        lambda text: RemoteFiles("a", Says(text)).read(["/proc/loadavg"], _soon()),
        FILES,
    ),
    "clock": (
        lambda text: CLOCK.parse(text, "read the clock", host="a"),
        '{"ok": true, "real_ns": 7}',
    ),
    "journal of guests": (
        lambda text: recorded(_host(text), _soon()),
        Identity.new().model_dump_json(),
    ),
    "ledger of VFs": (
        lambda text: read_ledger(_host(text), "pf0", _soon()),
        '{"owner": "x", "made": 2, "taken": []}',
    ),
    "journal of a preparation": (
        lambda text: JournalFile.read(PreparedHost(_host(text), cast("Any", None)), _soon()),
        json.dumps(
            {
                "lab": "rack",
                "since": "2026",
                "spec": {},
                "state": "ready",
                "owner": {"controller": "c", "user": "u", "pid": 7, "started": "8"},
                "steps": [{"kind": "module", "subject": "vfio", "state": "done"}],
            }
        ),
    ),
}


# --- lines --------------------------------------------------------------------------------------

CAPABILITIES = f"""kernel\t6.12.1
cpu\tAMD EPYC
device\tkvm
device\tnet/tun
userfaultfd\t0
huge-free\t64
ovs\tovs-vswitchd (Open vSwitch) 3.1.0 DPDK 22.11.4
bus\tvdpa
vdpa-module\tvhost_vdpa
vdpa-tool\t{json.dumps(MANAGEMENT)}
iommu-group\t1
pf\t0000:01:00.0 7 2
trace-point\tvmstate_downtime_save
vfio-module\tmlx5_vfio_pci.ko
"""
INSPECTED = (HOST, *INSPECTIONS, TRACE_POINTS)


def _capabilities(text: str) -> None:
    look = Look(parse(text), None, {"qemu": "10.0.2"})
    for inspection in INSPECTED:
        inspection.versions(look)
    for capability in judge(look, INSPECTED):
        capability.model_dump_json()


PF = f"""address\t0000:01:00.0
driver\tigb
total\t7
made\t2
vf\t0 0000:01:10.0 igbvf 9 (null)
vf\t1 0000:01:10.2 vfio-pci 10 vfio-pci
shares\t0 0000:01:10.0
link\t0 vf0
node\t1 /dev/vfio/devices/vfio0
module\t1 vfio_pci
links\t{json.dumps([LINK])}
open\t/dev/vfio/10
"""
LINES: dict[str, tuple[Door, str]] = {
    "capabilities": (_capabilities, CAPABILITIES),
    "a PF and its VFs": (lambda text: pf_of(parse(text), "pf0", "a").model_dump_json(), PF),
    "leftovers": (
        lambda text: listed(_host(text), {"x": "", "y": ""}, _soon()),
        "0 guest\n1 x y\n",
    ),
    "df": (
        lambda text: _has_room(_host(text)),
        "    Avail Mounted on\n999999999 /run/libvirt\n        - /proc\n",
    ),
    "huge pages": (_step("huge-pages", "settle", "1", "2"), "500 20\n"),
    "zones": (
        _step("firewall", "look", "", ""),
        "public\n  interfaces: eth0\ntrusted (default)\n  sources: x\n",
    ),
    "ss": (used_ports, "tcp LISTEN 0 128 0.0.0.0:22 0.0.0.0:*\nudp UNCONN 0 0 [::]:546 [::]:*\n"),
    "a link's flags": (lambda text: bus._is_up(_host(text), "x", _soon()), "0x1003\n"),
    "a driver": (lambda text: bus.driver_of(_host(text), "pci", "x", _soon()), "../../vp-vdpa\n"),
    "who has it open": (lambda text: bus._user_of(_host(text), "x", _soon()), "/proc/12/fd/3\n"),
    "a refusal": (
        refusal_remedy,
        "qemu: Features 0x1c0010130afffaf unsupported. Allowed features: 0x10179bfffef",
    ),
    "a refusal by shadow queues": (refusal_remedy, "vdpa svq does not work with features 0x40"),
}


# --- files of the kernel ------------------------------------------------------------------------

STAT = "cpu  1136575 50710 298079 796618 7778 0 11575 4920 0 0\ncpu0 554799 24319 143469 420388\n"
PROCESS = "42 (sh (x) y) S 1 42 42 0 -1 4194304 100 0 0 0 7 3 11 2 20 0 1 0 12345 0 0\n"
CPUINFO = "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu hypervisor\nmicrocode\t: 0x1\n"


class Texts:
    """Small files that all have one text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def read(self, paths: Sequence[str], _deadline: Deadline) -> Mapping[str, str]:
        """See SmallFiles."""
        return dict.fromkeys(paths, self.text)


def _programs(text: str) -> None:
    programs = Programs(Texts(text), {"x": ("/run/x.pid",)}, {"y": "/proc/7/stat"})
    programs.look(["/proc/loadavg"], _soon())
    programs.look([], _soon())
    programs.pids()
    our_sshd(Texts(text), _soon())


PROC: dict[str, tuple[Door, str]] = {
    "stat": (proc_files.cpu_times, STAT),
    "loadavg": (proc_files.runnable, "0.50 0.60 0.70 2/300 4711\n"),
    "pressure": (
        proc_files.stalled_s,
        "some avg10=0.00 avg60=0.00 avg300=0.00 total=4711\nfull avg10=0.00 total=3\n",
    ),
    "vmstat": (proc_files.swapped_mib, "nr_free_pages 7\npswpin 3\npswpout 4\n"),
    "cpu.stat": (proc_files.throttled_s, "usage_usec 7\nnr_throttled 1\nthrottled_usec 4711\n"),
    "cgroup": (proc_files.cgroup_files, "0::/system.slice/x.service\n4:cpu,cpuacct:/a/b\n"),
    "process": (proc_files.processes, PROCESS * 2),
    "online": (proc_files.count_cpus, "0-3,6\n"),
    "meminfo": (proc_files.memory_mib, "MemTotal:       24576000 kB\nMemFree: 1 kB\n"),
    "facts": (lambda text: facts_of(Texts(text), _soon()).model_dump_json(), CPUINFO),
    "census": (
        lambda text: Census.of(text).used_since(Census.of(text), frozenset()),
        f"{PROCESS}\n\n3\n4\n",
    ),
    "programs": (_programs, PROCESS),
    "programs by id": (_programs, "4711\n"),
}


# --- logs ---------------------------------------------------------------------------------------

QEMU_LOG = """2025-01-01 00:00:00.123+0000: starting up libvirt version: 11.3.0
LC_ALL=C \\
/usr/bin/qemu-system-x86_64 \\
-name guest
char device redirected to /dev/pts/0 (label charserial0)
162@1000000002.000000:vmstate_downtime_checkpoint src-downtime-start
162@1000000002.500000:vmstate_downtime_save type=non-iterable idstr=cpu instance_id=0 downtime=53
2026-11-28T17:49:38.686446Z vmstate_downtime_checkpoint src-downtime-end
2026-11-28T17:49:38.686446Z qemu-system-x86_64: vhost_set_vring_base failed: Operation not supported
2026-11-28T17:49:38.686446Z qemu-system-x86_64: terminating on signal 15 from pid 7 (/usr/sbin/x)
2026-11-28 17:49:39.000+0000: shutting down, reason=crashed
"""
VHOST = "2026-11-28T17:49:38.686Z|00070|dpdk|INFO|VHOST_CONFIG: (/run/vhu0) "
OVS_LOG = f"""{VHOST}read message VHOST_USER_SET_LOG_BASE
{VHOST}vring base idx:0 last_used_idx:2445 last_avail_idx:2445.
2026-11-28T17:49:38.690Z|00071|netdev_dpdk|INFO|State of queue 1 ( rx_qid 0 ) of vhost device \
'/run/vhu0' changed to 'enabled'
{VHOST}virtio is now ready for processing.
2026-11-28T17:49:38.690Z|00072|netdev_dpdk|ERR|it failed
"""
CONSOLE = "[    1.0] boot\n[    9.9] Kernel panic - not syncing: x\n[   10.0] ---[ end ]---\n"
WALL = Offset("a.wall", -1_700_000_000 * 10**9, 7)


def _logs(text: str) -> None:
    log = log_tail(_host(text), "/var/log/x", _soon(), 2000) or ""
    log.encode()
    for event in (*parse_qemu_log(log, "a", WALL), *parse_ovs_log(log, "a", WALL)):
        event.model_dump_json()
        assert abs(event.at_ns) < 1 << 63
    unreadable_trace_point(log)
    Vdpa().backend_errors(log)
    _log_errors(_host(log))
    console_end(log)
    if (end := qemu_end(log, "a")) is not None:
        end.model_dump_json()


def log_door(data: bytes) -> None:
    """The log of anything, as a host's `tail` gives it."""
    _logs(data.decode(errors="replace"))


# --- XML of libvirt -----------------------------------------------------------------------------

CAPABILITIES_XML = """<capabilities><guest><os_type>hvm</os_type><arch name='x86_64'>
<machine canonical='pc-q35-10.0' maxCpus='4096'>q35</machine><machine>pc-q35-9.2</machine>
<domain type='qemu'/></arch></guest></capabilities>"""
DOMAIN_CAPABILITIES = "<domainCapabilities><machine>pc-q35-10.0</machine></domainCapabilities>"
METADATA = '<guest xmlns="urn:migrate-lab:guest" uuid="x" lab="a"/>'


class Connection:
    """A host's libvirt that has one text for all that is asked."""

    def __init__(self, text: str) -> None:
        self.text = text

    def getCapabilities(self) -> str:  # noqa: N802  libvirt's name
        """See libvirt."""
        return self.text

    def getDomainCapabilities(self, *_words: object) -> str:  # noqa: N802  libvirt's name
        """See libvirt."""
        return self.text


class Marked:
    """A domain with a metadata element."""

    name, uuid, host = "guest", "x", "a"

    def __init__(self, text: str) -> None:
        self.text = text

    def metadata(self, _namespace: str) -> str:
        """See Domain."""
        return self.text


def _domain(text: str) -> None:
    moved = source_rewrite("vdpa", "dev", "/dev/vhost-vdpa-0", "/dev/vhost-vdpa-1")
    has_interface(rewritten(text, (Identity.new().mark, *moved)))


XML: dict[str, tuple[Door, str]] = {
    "capabilities": (
        lambda text: Hypervisor(cast("Any", Connection(text)), "a").machines("q35"),
        CAPABILITIES_XML,
    ),
    "domain capabilities": (
        lambda text: Hypervisor(cast("Any", Connection(text)), "a").machine("q35"),
        DOMAIN_CAPABILITIES,
    ),
    "metadata": (lambda text: marked(cast("Any", Marked(text))), METADATA),
    **{
        f"domain {path.stem}": (_domain, path.read_text())
        for path in sorted((ROOT / "domains" / "golden").glob("*.xml"))
        if "<domain" in path.read_text()
    },
}

LOG_SEEDS = [text.encode() for text in (QEMU_LOG, OVS_LOG, CONSOLE)]
LANES = (
    Lane("host-json", _door(JSON), lambda: _seeds(JSON), kind="json", headed=True),
    Lane("host-lines", _door(LINES), lambda: _seeds(LINES), kind="lines", headed=True),
    Lane("proc-files", _door(PROC), lambda: _seeds(PROC), kind="lines", headed=True),
    Lane(
        "logs", log_door, lambda: [text.encode() for text in (QEMU_LOG, OVS_LOG, CONSOLE)], "lines"
    ),
    Lane("libvirt-xml", _door(XML), lambda: _seeds(XML), kind="bytes", headed=True),
)
