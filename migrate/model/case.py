"""What a scenario asks for."""

from __future__ import annotations

import re
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field

from migrate.model.base import Mebibytes, Milliseconds, Positive, Seconds, Value, Word
from migrate.model.text_form import TextForm

Mode = Literal["virtio", "vhost-user", "vdpa", "hostdev", "failover"]


PhaseName = Literal[
    "setup",
    "wait-unplug",
    "standby",
    "precopy",
    "pre-switchover",
    "stopped",
    "device",
    "postcopy-device",
    "postcopy",
    "postcopy-paused",
    "postcopy-recover-setup",
    "postcopy-recover",
    "colo",
    "cancelling",
    "failing",
    "resumed",
    "announce",
    "replug",
    "settled",
]


DirtyMethod = Literal["page-sampling", "dirty-bitmap", "dirty-ring", "migration"]
"""Modes of calc-dirty-rate (qapi/migration.json); ``migration``: a move's own account of it."""


DirtyWhen = Literal["before", "during", "after"]


DIRTY_WHEN: tuple[DirtyWhen, ...] = get_args(DirtyWhen)


DIRTY_RATE_S = 1
"""How long each method measures, QEMU's shortest; pages written again within it count once."""


Outcome = Literal["completed", "aborted", "failed", "lost", "recoverable"]
"""``lost``: the guest runs nowhere, and nothing can bring it back. ``recoverable``: a post-copy has
lost its link; both sides hold a part of the guest, and the move can be resumed (QEMU's
``postcopy-paused``, libvirt's VIR_MIGRATE_POSTCOPY_RESUME)."""


Side = Literal["source", "target"]


Feature = Annotated[
    str,
    TextForm(
        r"^[a-z0-9][a-z0-9_]{0,39}$",
        "a feature's name in small letters, digits and _",
        "guest_announce",
    ),
]
PortProfile = Annotated[
    str,
    TextForm(r"^[\w.:-]{1,39}$", "at most 39 letters, digits and _ . : -", "profile-1"),
]
Mac = Annotated[
    str,
    TextForm(
        r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}$",
        "six pairs of hexadecimal digits in small letters, with colons between",
        "52:54:00:6d:6c:01",
    ),
]


class Vdpa(Value):
    """Which vDPA device backs the interface, and whether by shadow virtqueues."""

    device: Literal["auto", "vp_vdpa", "vdpasim_net", "vendor"] = "auto"
    """Which of the management devices that the host provides; ``auto``: the first one with a
    network behind it."""
    shadow: Literal["auto", "on", "off"] = "auto"
    """Shadow virtqueues all the time (QEMU's ``x-svq``); ``auto``: where the device can't be
    suspended."""
    features_off: tuple[Feature, ...] = Field(default=(), max_length=64)
    """Features left out when the device is made, by virtio's names in small letters:
    ``["guest_announce", "host_uso"]``."""


class VirtualFunction(Value):
    """How the physical function sets up the VF, and who binds it; None leaves it alone."""

    vlan: int | None = Field(default=None, ge=1, le=4094)
    """The VLAN that the card puts the VF in."""
    port_profile: PortProfile | None = None
    """The switch port's profile by 802.1Qbh (libvirt's ``<virtualport>``), in place of a VLAN; at
    most 39 characters, as libvirt takes them."""
    spoof_check: bool | None = None
    """Whether the card drops frames of the VF with another source address."""
    trust: bool | None = None
    """Whether the VF may change its address and filters."""
    link: Literal["auto", "enable", "disable"] | None = None
    """The state of the VF's link, as ``ip link`` sets it."""
    managed: bool = True
    """libvirt binds the VF to VFIO and back; false: migrate-lab does."""


class Interface(Value):
    """How the guest's interface is backed, and what the guest is offered on it."""

    mode: Mode = "virtio"
    """How the interface is backed."""
    mac: Mac = "52:54:00:6d:6c:01"
    """The guest's MAC; some devices of a nested lab can have no other than the default."""
    queues: int = Field(default=1, ge=1, le=16)
    """Queue pairs; a VF's are its driver's own."""
    ring: Literal["split", "packed"] = "split"
    """The layout of the virtqueues; a VF's is its driver's own."""
    mtu: int = Field(default=1500, ge=576, le=9000)
    """With ``vhost-user`` and ``vdpa`` 1500 only."""
    offloads: bool = True
    """Whether checksum and segmentation offloads are offered to the guest."""
    vdpa: Vdpa = Vdpa()
    """Of the mode ``vdpa``."""
    vf: VirtualFunction = VirtualFunction()
    """Of the modes ``hostdev`` and ``failover``."""


class GuestSpec(Value):
    """The virtual machine that is migrated."""

    image: str = Field(default="tiny", min_length=1, max_length=4095)
    """``tiny``, another recipe, or the path of a disk or a recipe of your own."""
    memory_mib: int = Field(default=128, ge=96, le=1 << 20)
    """Its memory."""
    vcpus: int = Field(default=1, ge=1, le=16)
    """Its vCPUs."""
    machine: Literal["q35", "pc"] = "q35"
    """The machine type, in the newest version that both hosts know."""
    start: Literal["warm", "cold"] = "warm"
    """``warm``: from a saved, booted state; ``cold``: a boot. A disk can't be started warm."""
    dirty_ring: Literal[1024, 2048, 4096, 8192, 16384, 32768, 65536] | None = None
    """Entries of each vCPU's dirty ring; without it KVM keeps a bitmap. It takes KVM: the case is
    skipped where a host has no ``kvm`` that boots Linux."""


class Policy(Value):
    """How the guest is moved; None leaves the hypervisor's own default."""

    method: Literal["precopy", "postcopy", "save-restore", "reattach"] = "precopy"
    """``save-restore``: saved to a file on the source, restored from it on the target;
    ``reattach``, of a ``hostdev``: the VF is unplugged, the guest is migrated, and the target's VF
    is plugged in."""
    transport: Literal["peer-to-peer", "direct"] = "peer-to-peer"
    """libvirt's mode: the source's libvirt connects to the target's, or the controller to both."""
    hops: int = Field(default=1, ge=1, le=10)
    """Moves in one attempt: 2 is there and back, so ``expect.held_by = ["source"]``."""
    bandwidth_mib_s: Mebibytes | None = Field(default=None, ge=1)
    """Limit of the bandwidth; without it the hypervisor's own."""
    postcopy_bandwidth_mib_s: Mebibytes | None = Field(default=None, ge=1)
    """The same after the switch to post-copy."""
    postcopy_after_pass: int = Field(default=1, ge=1, le=1_000_000)
    """Passes over the memory before the switch to post-copy."""
    downtime_limit_ms: int | None = Field(default=None, ge=1, le=2_000_000)
    """QEMU's ``downtime-limit``: for how long the guest may be stopped, by QEMU's forecast; without
    it the hypervisor's own. At most 2000 s (MAX_MIGRATE_DOWNTIME_SECONDS)."""
    parallel_connections: int | None = Field(default=None, ge=1, le=32)
    """Multifd channels; not with post-copy."""
    auto_converge: bool = False
    """Throttle the guest's vCPUs until the move converges (``auto-converge``)."""
    compression: Literal["none", "xbzrle", "zlib", "zstd"] = "none"
    """``xbzrle`` on one connection; ``zlib`` or ``zstd`` with ``parallel_connections``."""
    timeout_s: Seconds = 60.0
    """How long a move may take before ``on_timeout``."""
    on_timeout: Literal["abort", "suspend", "postcopy"] = "abort"
    """What is done at the timeout; ``suspend``: the guest is stopped, and sent."""
    abort_at: PhaseName | None = None
    """Abort the move when this phase begins."""

    @property
    def may_postcopy(self) -> bool:
        """Whether the move may end as a post-copy."""
        return self.method == "postcopy" or self.on_timeout == "postcopy"


class Workload(Value):
    """What the guest and its peer do meanwhile."""

    interval_us: int = Field(default=1000, ge=10, le=60_000_000)
    """Interval between two packets of a stream, each way."""
    payload_bytes: int = Field(default=256, ge=224, le=1400)
    """Size of a packet, without its headers."""
    tcp_connections: int = Field(default=1, ge=0, le=64)
    """Connections that stay open, with a byte echoed over and over."""
    dirty_mib: Mebibytes = 8
    """How much memory the guest writes to, over and over."""
    dirty_mib_s: float = Field(default=4.0, ge=0, le=1 << 20)
    """How fast it writes."""
    floor_s: Seconds = 1.0
    """How long the floor is measured before the first move."""
    settle_s: Seconds = 1.0
    """How long traffic is measured after the move has ended."""


class Fault(Value):
    """A fault that is injected when a phase begins."""

    at: PhaseName
    """The phase at whose begin it is injected, once."""
    do: Literal[
        "kill-guest",
        "freeze-guest",
        "stop-libvirtd",
        "cut-migration-link",
        "stop-backend",
        "kill-host",
        "hang-host",
    ]
    """Which fault."""
    on: Side = "source"
    """On which host."""
    for_s: Seconds | None = None
    """How long it lasts, if it can be undone; without it until the move has ended."""


def _pattern(text: str) -> str:
    """ValueError for what is no regular expression of Python's."""
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"no regular expression: {error}") from error
    return text


Pattern = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_pattern)]


class Expect(Value):
    """What is expected. A limit of None is not checked; `unmeasured` fails unless allowed."""

    outcome: Outcome = "completed"
    """How the attempt ends; ``recoverable``: a post-copy lost its link, and could be resumed."""
    error: Pattern | None = None
    """Python's regular expression for why it did not complete: found in the error, or in the last
    words of a QEMU that ended. A case that expects ``failed``, ``lost`` or ``recoverable`` does not
    pass without it."""
    held_by: tuple[Side, ...] = ("target",)
    """Which sides run the guest at the end; ``[]``: none."""
    outage_egress_ms: Milliseconds | None = None
    """The longest outage from guest to peer."""
    outage_ingress_ms: Milliseconds | None = None
    """The longest outage from peer to guest."""
    stall_ms: Milliseconds | None = None
    """The longest stall of the guest."""
    downtime_ms: Milliseconds | None = None
    """The downtime that the hypervisor reports."""
    total_ms: Milliseconds | None = None
    """The total time that the hypervisor reports."""
    memory: bool = True
    """Every page that the guest wrote reads back."""
    tcp: bool = True
    """Every connection is alive, and none was reset."""
    device: bool = True
    """The guest's interface is as it was before."""
    network: bool = True
    """Packets arrive each way in the last half of ``workload.settle_s``, and most of those sent
    after the move."""
    loss_within: float | None = Field(default=0.05, gt=0, le=1)
    """With ``network``: at most this share more than on the floor is lost or late outside outages,
    in each window, or twice the floor's own share where that is more."""
    primary: bool = True
    """Of a failover pair the primary, not its standby, carries the traffic before the move and at
    the end, wherever the host has a primary."""
    backend_fails: bool = False
    """The guest is expected to arrive with a dead interface: it passes if QEMU logs that."""
    handoff: bool = False
    """Only allowed differences in any device's state."""
    rings: bool = False
    """Every virtqueue keeps the rules of its layout when the source has stopped."""
    explained_share: float | None = Field(default=None, gt=0, le=1)
    """At least this share of the longest gap each way is explained by what was recorded, e.g.
    0.95."""
    reported_within_ms: Milliseconds | None = None
    """The longest switchover gap differs at most by this from the downtime reported."""
    announce_within_ms: Milliseconds | None = None
    """The first announcement reaches the fabric within this after the resume, and none before."""
    dirty_rate_within: Positive | None = None
    """QEMU's dirty rate before the move differs by at most this share from what the guest wrote:
    0.5 is half. Dirty rates are measured only with this key; ``workload.dirty_mib`` must be at
    least what is written in a second, since a page counts once."""
    allow_unmeasured: tuple[Word, ...] = Field(default=(), max_length=100)
    """Checks that may be unmeasured; any other unmeasured check fails the attempt."""


class Case(Value):
    """One row of a scenario's matrix; ``id`` is pytest's id and the folder's name."""

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._=+-]*$")
    guest: GuestSpec = GuestSpec()
    """The virtual machine that is migrated."""
    interface: Interface = Interface()
    """How its network interface is backed."""
    policy: Policy = Policy()
    """How it is moved."""
    workload: Workload = Workload()
    """What the guest and its peer do meanwhile."""
    faults: tuple[Fault, ...] = Field(default=(), max_length=100)
    """Faults to inject, a table each."""
    expect: Expect = Expect()
    """What is expected of it."""
    roots: tuple[Word, Word] | None = None
    """The root file systems that source and target must have, e.g.
    ``["debian-13", "debian-13-backports"]``."""
    needs: tuple[Word, ...] = Field(default=(), max_length=100)
    """Capabilities that both hosts must have, as ``migrate-lab doctor`` names them, e.g.
    ``["huge-pages"]``."""
    source_file: str = ""
    row: int = 0
