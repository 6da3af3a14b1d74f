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
    """Which vDPA device backs the interface, and how its rings are followed in a migration."""

    device: Literal["auto", "vp_vdpa", "vdpasim_net", "vendor"] = "auto"
    """Which of the host's management devices; auto: the first with a network behind it."""
    shadow: Literal["auto", "on", "off"] = "auto"
    """Shadow virtqueues all the time (``x-svq``); auto: where the device can't be suspended."""
    features_off: tuple[Feature, ...] = Field(default=(), max_length=64)
    """Features left out when the device is made, in small letters: ``guest_announce``."""


class VirtualFunction(Value):
    """How the physical function sets up the VF, and who binds it; None leaves it alone."""

    vlan: int | None = Field(default=None, ge=1, le=4094)
    port_profile: PortProfile | None = None
    """The switch port's profile, by 802.1Qbh (libvirt's ``<virtualport>``), for the card's
    firmware. libvirt takes at most 39 characters."""
    spoof_check: bool | None = None
    trust: bool | None = None
    link: Literal["auto", "enable", "disable"] | None = None
    managed: bool = True
    """libvirt binds it to vfio-pci and back; else we do."""


class Interface(Value):
    """How the guest's interface is backed, and what the guest is offered on it."""

    mode: Mode = "virtio"
    mac: Mac = "52:54:00:6d:6c:01"
    queues: int = Field(default=1, ge=1, le=16)
    ring: Literal["split", "packed"] = "split"
    mtu: int = Field(default=1500, ge=576, le=9000)
    offloads: bool = True
    vdpa: Vdpa = Vdpa()
    vf: VirtualFunction = VirtualFunction()


class GuestSpec(Value):
    """The machine that is moved."""

    image: str = Field(default="tiny", min_length=1, max_length=4095)
    memory_mib: Mebibytes = Field(default=128, ge=96)
    vcpus: int = Field(default=1, ge=1, le=16)
    machine: Literal["q35", "pc"] = "q35"
    start: Literal["warm", "cold"] = "warm"
    dirty_ring: Literal[1024, 2048, 4096, 8192, 16384, 32768, 65536] | None = None
    """Entries of each processor's dirty ring, under KVM alone; None: KVM keeps a bitmap.

    Sizes are libvirt's (domain XML, ``features/kvm/dirty-ring``).
    """


class Policy(Value):
    """How the guest is moved; None leaves the hypervisor's own default."""

    method: Literal["precopy", "postcopy", "save-restore", "reattach"] = "precopy"
    """``reattach``: the interface is detached, the guest is moved, and gets the target's."""
    transport: Literal["peer-to-peer", "direct"] = "peer-to-peer"
    hops: int = Field(default=1, ge=1, le=10)
    """Moves in one attempt: 2 is there and back (ping-pong)."""
    bandwidth_mib_s: Mebibytes | None = Field(default=None, ge=1)
    postcopy_bandwidth_mib_s: Mebibytes | None = Field(default=None, ge=1)
    postcopy_after_pass: int = Field(default=1, ge=1, le=1_000_000)
    """Switch to post-copy when this many passes over the memory have begun their successor."""
    downtime_limit_ms: int | None = Field(default=None, ge=1, le=2_000_000)
    """QEMU takes 2000 s at most (MAX_MIGRATE_DOWNTIME_SECONDS)."""
    parallel_connections: int | None = Field(default=None, ge=1, le=32)
    auto_converge: bool = False
    compression: Literal["none", "xbzrle", "zlib", "zstd"] = "none"
    timeout_s: Seconds = 60.0
    on_timeout: Literal["abort", "suspend", "postcopy"] = "abort"
    abort_at: PhaseName | None = None
    """Abort on purpose when this phase begins."""

    @property
    def may_postcopy(self) -> bool:
        """Whether the move may end as a post-copy."""
        return self.method == "postcopy" or self.on_timeout == "postcopy"


class Workload(Value):
    """What goes on in the guest and on the wire while it is moved."""

    interval_us: int = Field(default=1000, ge=10, le=60_000_000)
    """Interval between two packets of a stream, each way."""
    payload_bytes: int = Field(default=256, ge=224, le=1400)
    tcp_connections: int = Field(default=1, ge=0, le=64)
    dirty_mib: Mebibytes = 8
    dirty_mib_s: float = Field(default=4.0, ge=0, le=1 << 20)
    floor_s: Seconds = 1.0
    """How long the floor is measured before anything is done."""
    settle_s: Seconds = 1.0
    """How long traffic is measured after the move has ended."""


class Fault(Value):
    """Something goes wrong on purpose, when a phase is first seen."""

    at: PhaseName
    do: Literal[
        "kill-guest",
        "freeze-guest",
        "stop-libvirtd",
        "cut-migration-link",
        "stop-backend",
        "kill-host",
        "hang-host",
    ]
    on: Side = "source"
    for_s: Seconds | None = None
    """How long, for what can be put back; None: until the move has ended."""


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
    error: Pattern | None = None
    """What must be said of why it did not complete: a pattern that is found in the error, what it
    says, and the last words of a QEMU that ended. A case that expects ``failed``, ``lost`` or
    ``recoverable`` does not pass without it."""
    held_by: tuple[Side, ...] = ("target",)
    outage_egress_ms: Milliseconds | None = None
    outage_ingress_ms: Milliseconds | None = None
    stall_ms: Milliseconds | None = None
    downtime_ms: Milliseconds | None = None
    total_ms: Milliseconds | None = None
    memory: bool = True
    tcp: bool = True
    device: bool = True
    network: bool = True
    loss_within: float | None = Field(default=0.05, gt=0, le=1)
    """At most this share more than on the floor is lost or late, outside outages; each window."""
    primary: bool = True
    """A failover pair's primary carries the traffic before the move and at the end, wherever the
    host has one."""
    backend_fails: bool = False
    """The guest is known to arrive with a dead interface; it passes if QEMU reports that."""
    handoff: bool = False
    """Only allowed differences in any device's state."""
    rings: bool = False
    """Every virtqueue was sound when the source had stopped."""
    explained_share: float | None = Field(default=None, gt=0, le=1)
    """At least this share of the longest gap each way is explained by what was recorded."""
    reported_within_ms: Milliseconds | None = None
    """The longest switchover gap differs at most by this from the downtime reported."""
    announce_within_ms: Milliseconds | None = None
    """The fabric sees the first announcement within this after the resume, and none before."""
    dirty_rate_within: Positive | None = None
    """QEMU's dirty rate before the move is at most this share off what the guest wrote: 0.5, half.
    Asking for it is what makes an attempt measure its dirty rates."""
    allow_unmeasured: tuple[Word, ...] = Field(default=(), max_length=100)


class Case(Value):
    """One row of a scenario's matrix; ``id`` is pytest's id and the folder's name."""

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._=+-]*$")
    guest: GuestSpec = GuestSpec()
    interface: Interface = Interface()
    policy: Policy = Policy()
    workload: Workload = Workload()
    faults: tuple[Fault, ...] = Field(default=(), max_length=100)
    expect: Expect = Expect()
    roots: tuple[Word, Word] | None = None
    """Roots that source and target must have, e.g. ("debian-13", "debian-13-backports")."""
    needs: tuple[Word, ...] = Field(default=(), max_length=100)
    """Names of facts that both hosts must show, e.g. "huge-pages"."""
    source_file: str = ""
    row: int = 0
