"""The types at the centre: frozen, closed to unknown keys, units in the names, None = not measured.

Times that end in ``_ns`` and begin with ``at``, ``begin`` or ``end`` are points on the axis of time
(see :mod:`migrate.clock`); other ``_ns``, ``_ms`` and ``_s`` are lengths.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

SCHEMA = 1
"""Of the run folder; a newer reader reads older numbers."""


class Value(BaseModel):
    """A frozen value that knows all its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Mode = Literal["virtio", "vhost-user", "vdpa", "hostdev", "failover"]
Direction = Literal["egress", "ingress"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
PhaseName = Literal[
    "setup",
    "wait-unplug",
    "standby",
    "precopy",
    "pre-switchover",
    "stopped",
    "device",
    "postcopy",
    "resumed",
    "announce",
    "replug",
    "settled",
]
Part = Literal["start", "switchover", "tail", "none"]
"""Of a move: before the stop, around it, after the resume; ``none``: no migration overlaps."""
DirtyMethod = Literal["page-sampling", "dirty-bitmap", "dirty-ring", "migration"]
"""Modes of calc-dirty-rate (qapi/migration.json); ``migration``: a move's own account of it."""
DirtyWhen = Literal["before", "during", "after"]
DIRTY_WHEN: tuple[DirtyWhen, ...] = get_args(DirtyWhen)
DIRTY_RATE_S = 1
"""So long each method measures, QEMU's shortest; what is written again within it counts once."""
Outcome = Literal["completed", "aborted", "failed", "lost"]
Side = Literal["source", "target"]

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


# --- what a scenario asks for -------------------------------------------------------------------


class Vdpa(Value):
    """Which vDPA device backs the interface, and how its rings are followed in a migration."""

    device: Literal["auto", "vp_vdpa", "vdpasim_net", "vendor"] = "auto"
    """Of the host's management devices; auto: the first that has a network behind it."""
    shadow: Literal["auto", "on", "off"] = "auto"
    """Shadow virtqueues all the time (``x-svq``); auto: where the device can't be suspended."""
    features_off: tuple[str, ...] = ()
    """Left out when the device is made, by virtio's names in small letters: ``guest_announce``."""


class VirtualFunction(Value):
    """What the physical function is told of the VF, and who binds it; None leaves it alone."""

    vlan: int | None = Field(default=None, ge=1, le=4094)
    port_profile: str | None = Field(default=None, pattern=r"^[\w.:-]{1,39}$")
    """Of the switch port, by 802.1Qbh (libvirt's ``<virtualport>``): the card's firmware asks for
    it. 39 characters are all that libvirt takes."""
    spoof_check: bool | None = None
    trust: bool | None = None
    link: Literal["auto", "enable", "disable"] | None = None
    managed: bool = True
    """libvirt binds it to vfio-pci and back; else we do."""


class Interface(Value):
    """How the guest's interface is backed, and what the guest is offered on it."""

    mode: Mode = "virtio"
    mac: str = Field(default="52:54:00:6d:6c:01", pattern=r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}$")
    queues: int = Field(default=1, ge=1, le=16)
    ring: Literal["split", "packed"] = "split"
    mtu: int = Field(default=1500, ge=576, le=9000)
    offloads: bool = True
    vdpa: Vdpa = Vdpa()
    vf: VirtualFunction = VirtualFunction()


class GuestSpec(Value):
    """The machine that is moved."""

    image: str = "tiny"
    memory_mib: int = Field(default=128, ge=96)
    vcpus: int = Field(default=1, ge=1, le=16)
    machine: Literal["q35", "pc"] = "q35"
    start: Literal["warm", "cold"] = "warm"
    dirty_ring: Literal[1024, 2048, 4096, 8192, 16384, 32768, 65536] | None = None
    """Entries of each processor's dirty ring, under KVM alone; None: KVM keeps a bitmap.

    Sizes are libvirt's (domain XML, ``features/kvm/dirty-ring``).
    """


class Policy(Value):
    """How it is moved; None leaves the hypervisor's own default alone."""

    method: Literal["precopy", "postcopy", "save-restore", "reattach"] = "precopy"
    """``reattach``: the interface is taken out, the guest is moved, and gets the target's."""
    transport: Literal["peer-to-peer", "direct"] = "peer-to-peer"
    hops: int = Field(default=1, ge=1, le=10)
    """Moves in one attempt: 2 is there and back (ping-pong)."""
    bandwidth_mib_s: int | None = Field(default=None, ge=1)
    postcopy_bandwidth_mib_s: int | None = Field(default=None, ge=1)
    postcopy_after_pass: int = Field(default=1, ge=1)
    """Switch to post-copy when this many passes over the memory have begun their successor."""
    downtime_limit_ms: int | None = Field(default=None, ge=1)
    parallel_connections: int | None = Field(default=None, ge=1, le=32)
    auto_converge: bool = False
    compression: Literal["none", "xbzrle", "zlib", "zstd"] = "none"
    timeout_s: Positive = 60.0
    on_timeout: Literal["abort", "suspend", "postcopy"] = "abort"
    abort_at: PhaseName | None = None
    """Abort on purpose when this phase is seen."""


class Workload(Value):
    """What goes on in the guest and on the wire while it is moved."""

    interval_us: int = Field(default=1000, ge=10)
    """Between two packets of a stream, each way."""
    payload_bytes: int = Field(default=256, ge=224, le=1400)
    tcp_connections: int = Field(default=1, ge=0, le=64)
    dirty_mib: int = Field(default=8, ge=0)
    dirty_mib_s: NotNegative = 4.0
    floor_s: Positive = 1.0
    """How long the floor is measured before anything is done."""
    settle_s: Positive = 1.0
    """How long is listened after the move has ended."""


class Fault(Value):
    """Something goes wrong on purpose, when a phase is first seen."""

    at: PhaseName
    do: Literal[
        "kill-guest",
        "stop-libvirtd",
        "cut-migration-link",
        "stop-backend",
        "kill-host",
        "hang-host",
    ]
    on: Side = "source"


class Expect(Value):
    """What has to come out. A limit of None is not checked; `unmeasured` fails unless allowed."""

    outcome: Outcome = "completed"
    held_by: tuple[Side, ...] = ("target",)
    outage_egress_ms: Positive | None = None
    outage_ingress_ms: Positive | None = None
    stall_ms: Positive | None = None
    downtime_ms: Positive | None = None
    total_ms: Positive | None = None
    memory: bool = True
    tcp: bool = True
    device: bool = True
    network: bool = True
    backend_fails: bool = False
    """It is known that the guest arrives with a dead interface; a pass is QEMU saying so."""
    handoff: bool = False
    """No unlawful difference in any device's state."""
    rings: bool = False
    """Every virtqueue was sound when the source had stopped."""
    explained_share: float | None = Field(default=None, gt=0, le=1)
    """Of the longest gap each way, at least so much is told by what was recorded."""
    reported_within_ms: Positive | None = None
    """Of the longest switchover gap, at most so far from the downtime that is reported."""
    announce_within_ms: Positive | None = None
    """After the resume the first announcement is heard by then, and none before it."""
    dirty_rate_within: Positive | None = None
    """The guest's dirty rate before the move is at most this share off the workload's: 0.5, half.
    Asking for it is what makes an attempt measure its dirty rates."""
    allow_unmeasured: tuple[str, ...] = ()


class Case(Value):
    """One row of a scenario's matrix; ``id`` is pytest's id and the folder's name."""

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._=+-]*$")
    guest: GuestSpec = GuestSpec()
    interface: Interface = Interface()
    policy: Policy = Policy()
    workload: Workload = Workload()
    faults: tuple[Fault, ...] = ()
    expect: Expect = Expect()
    roots: tuple[str, str] | None = None
    """Roots that source and target must have, e.g. ("debian-13", "debian-13-backports")."""
    needs: tuple[str, ...] = ()
    """Names of facts that both hosts must show, e.g. "huge-pages"."""
    source_file: str = ""
    row: int = 0


# --- what a host can do -------------------------------------------------------------------------


class Capability(Value):
    """One thing that a host can do, or the reason why not and what it takes."""

    name: str
    able: bool
    detail: str = ""
    reason: str = ""
    remedy: str = ""


class HostFacts(Value):
    """What was found on one host."""

    host: str
    root: str
    kernel: str
    versions: dict[str, str]
    capabilities: tuple[Capability, ...]

    def capability(self, name: str) -> Capability:
        """The finding called ``name``; a host that was not asked is not able."""
        for found in self.capabilities:
            if found.name == name:
                return found
        return Capability(
            name=name,
            able=False,
            reason="not looked for",
            remedy="name a fact that `migrate-lab doctor` lists",
        )


# --- what was seen ------------------------------------------------------------------------------


class Event(Value):
    """Something that happened, by whom it was said, with the error of its place on the axis."""

    at_ns: int
    error_ns: int | None = 0
    """None: the clock that it is told by was set meanwhile, and when it happened is not known."""
    clock: str = "controller"
    source: Literal["qemu", "libvirt", "fabric", "probe", "backend", "controller"]
    host: str
    name: str
    data: dict[str, Any] = {}

    @property
    def off_ns(self) -> int:
        """The error of a place that is known; ValueError for one that is not."""
        if self.error_ns is None:
            raise ValueError(f"when {self.name} happened on {self.host} is not known")
        return self.error_ns


class ClockReading(Value):
    """A host's wall clock, or its peer's, at a point: ``axis = reading + offset_ns``."""

    host: str
    at_ns: int
    offset_ns: int
    error_ns: int


class Phase(Value):
    """A stretch of the axis; ``number`` counts the passes of pre-copy."""

    name: PhaseName
    number: int = 0
    begin_ns: int
    end_ns: int
    error_ns: int = 0


class Gap(Value):
    """From the last packet served to the next one served, in one direction."""

    direction: Direction
    begin_ns: int
    length_ns: int
    error_ns: int
    lost: int = 0
    late: int = 0
    duplicated: int = 0
    reordered: int = 0
    open_ended: bool = False
    """Nothing was served any more until the observation ended: at least this long."""
    phases: tuple[str, ...] = ()
    part: Part = "none"

    @property
    def length_ms(self) -> float:
        """Milliseconds."""
        return self.length_ns / 1e6


class Stall(Value):
    """The guest's own monotonic tick stood still (lost time against the axis) or jumped."""

    kind: Literal["stood-still", "jumped"]
    begin_ns: int
    length_ns: int
    error_ns: int


class Floor(Value):
    """The same meter in the same lab with no migration going on: the longest gap each way."""

    egress_ms: NotNegative
    ingress_ms: NotNegative
    egress_delay_ms: float
    """Median delay one way. Only the two together are a round trip: their split is assumed even."""
    ingress_delay_ms: float
    seconds: Positive
    packets: int

    def ms(self, direction: Direction) -> float:
        """The longest gap that way, in milliseconds."""
        return self.egress_ms if direction == "egress" else self.ingress_ms


class Stream(Value):
    """The account of one direction over the whole observation."""

    direction: Direction
    sent: int
    received: int
    lost: int
    late: int
    duplicated: int
    reordered: int


class Sample(Value):
    """One look at the progress of a migration."""

    at_ns: int
    host: str
    iteration: int | None = None
    remaining_bytes: int | None = None
    transferred_bytes: int | None = None
    rate_bytes_s: int | None = None
    dirty_pages_s: int | None = None
    throttle_percent: int | None = None
    postcopy_requests: int | None = None
    zero_pages: int | None = None
    multifd_bytes: int | None = None
    postcopy_blocktime_ms: int | None = None
    ring_full_us: int | None = None
    """Mean time in which a processor fills its dirty ring; only under a dirty limit."""
    vfio_bytes: int | None = None
    """Of a device's state, by QEMU; only where a VF moves with its guest."""


class DirtyRate(Value):
    """How fast the guest dirtied its memory, by one method: MiB of pages a second.

    A page that is written again while it is measured counts once; by ``migration``, once a pass.
    """

    when: DirtyWhen
    method: DirtyMethod
    host: str
    mib_s: NotNegative | None = None
    error_mib_s: NotNegative = 0.0
    """QEMU tells whole MiB/s; page sampling has twice the deviation of its sample on top."""
    per_vcpu_mib_s: tuple[NotNegative, ...] = ()
    """By the ring only."""
    reason: str = ""
    """Why it was not measured, in QEMU's words where it refused."""


class Reported(Value):
    """What the hypervisor says of the move that it made."""

    downtime_ms: NotNegative | None = None
    total_ms: NotNegative | None = None
    setup_ms: NotNegative | None = None
    transferred_bytes: int | None = None
    iterations: int | None = None
    vfio_precopy_bytes: int | None = None
    """Of a VF's state, what was sent before the guest was stopped."""
    vfio_stopcopy_bytes: int | None = None
    """What was sent after that, as far as it was seen: QEMU ends when the move has."""


class Span(Value):
    """A stretch of a gap, or of the guest's stop, and what went on in it."""

    what: str
    begin_ns: int
    end_ns: int
    error_ns: int = 0
    host: str = ""
    """Where it went on; empty: between the hosts, or on the network."""
    explained: bool = True
    """False: nothing that was recorded tells what went on."""

    @property
    def length_ms(self) -> float:
        """Milliseconds."""
        return (self.end_ns - self.begin_ns) / 1e6


class Blind(Span):
    """A stretch in which QEMU did not answer, and what was missed by it."""

    missed: int | None = None
    """Looks at the progress that were due and were not had; None: not reckoned."""
    stop: bool | None = None
    """Whether the guest was stopped in it: the source's STOP; None: no STOP is on record."""
    stopped_ms: NotNegative | None = None
    """So much of the guest's stop, from STOP to RESUME, lies in it; None: one of them is not on
    record."""


class Explained(Value):
    """What a gap contains: spans in order that cover it from its begin to its end."""

    direction: Direction
    begin_ns: int
    length_ns: int
    spans: tuple[Span, ...]

    @property
    def unexplained_ms(self) -> float:
        """Together, of all spans that nothing tells of."""
        return sum(span.length_ms for span in self.spans if not span.explained)

    @property
    def share(self) -> float:
        """Of the gap that is explained: 0 to 1."""
        return 1 - self.unexplained_ms * 1e6 / self.length_ns if self.length_ns else 1.0


class Difference(Value):
    """One field of a device's state that is not the same on the two ends of a move."""

    field: str
    before: str
    after: str
    lawful: bool
    why: str
    """With the section of the virtio specification, or QEMU's own rule."""


class DeviceHandoff(Value):
    """A device's state as it left the source and arrived on the target."""

    device: str
    """QEMU's name of its section in the stream, e.g. ``0000:00:02.0/virtio-net``."""
    save_ms: NotNegative | None = None
    load_ms: NotNegative | None = None
    size_bytes: int | None = None
    compared: bool = False
    """Whether its state was read at the source's stop and at the target before it ran on."""
    differences: tuple[Difference, ...] = ()
    untold: tuple[str, ...] = ()
    """Fields that one end alone told, with which one: these are not compared."""


class RingAudit(Value):
    """A virtqueue as it lay in the guest's memory when the source had stopped."""

    device: str
    queue: int
    kind: Literal["split", "packed"]
    size: int
    broken: tuple[str, ...] = ()
    """Rules that it breaks, each with the figures and the section of the specification."""
    unchecked: tuple[str, ...] = ()
    facts: dict[str, str] = {}
    """Indices, flags and wrap counters by name, as people read them."""


class Foretold(Value):
    """When pre-copy can stop the guest, by the rates that were known; None: never at these."""

    converges_in: int | None = None
    """The pass after which it can."""
    syncs: int | None = None
    """QEMU's ``dirty-sync-count`` at the end."""
    seconds: NotNegative | None = None
    """From the begin of the first pass to the stop."""


class Convergence(Value):
    """Of one pre-copy: when it should converge, beside what happened."""

    memory_bytes: int | None = None
    """To be sent in the first pass: what is not zero."""
    bandwidth_bytes_s: NotNegative | None = None
    """The policy's, or else what was seen."""
    seen_bytes_s: NotNegative | None = None
    """The median of the rates that QEMU told meanwhile."""
    foretold: Foretold | None = None
    """None: the memory or the bandwidth is not known."""
    syncs: int | None = None
    """QEMU's ``dirty-sync-count``, as it was told last."""
    switched_over: bool = False
    stopped_s: NotNegative | None = None
    """From the begin of the first pass to the guest's stop."""
    suspended: bool = False
    """That stop was the policy's, at its time limit."""
    throttle_seen: tuple[int, ...] | None = None
    """Auto-converge's steps in percent; None: it was not asked for."""
    throttle_due: tuple[int, ...] | None = None
    """As many steps as were seen, as they should be."""


class Inside(Value):
    """What went on inside of one move; None: it could not be seen."""

    hop: int = 1
    stop: tuple[Span, ...] | None = None
    """The guest's stop by stage, from the source's STOP to the RESUME that ended it."""
    devices: tuple[DeviceHandoff, ...] | None = None
    rings: tuple[RingAudit, ...] | None = None
    announced: int | None = None
    """Announcements heard on the fabric after the resume."""
    first_announce_ms: float | None = None
    """After the resume; negative: before the target ran."""
    convergence: Convergence | None = None
    """Of a pre-copy whose progress was seen."""
    announced_by: dict[str, int] | None = None
    """How many of each kind were among them: ``garp`` and ``na`` are the guest's, ``rarp`` is
    QEMU's; 0: listened for, and not heard."""
    announce_rounds_asked: int | None = None
    """By the target's ``announce-rounds``: QEMU announces so often, and asks the guest to."""
    announce_last_due_ms: NotNegative | None = None
    """After QEMU's first round its last one is due."""
    listened_ms: NotNegative | None = None
    """After the resume: so long the fabric was listened to for this hop."""
    first_egress_ms: float | None = None
    """After the resume the first packet of the guest arrived at its peer."""
    first_egress_error_ms: NotNegative | None = None
    first_ingress_ms: float | None = None
    """After the resume the first packet arrived in the guest, by its kernel's stamp."""
    first_ingress_error_ms: NotNegative | None = None
    silent: tuple[Direction, ...] = ()
    """Ways in which no packet arrived from the resume to the end of the hop."""
    postcopy_blocktime_ms: NotNegative | None = None
    """Together, while *every* processor waited for a page; by the target, after post-copy."""
    postcopy_cpus_blocktime_ms: tuple[NotNegative, ...] = ()
    """Of each processor; empty: not measured."""
    blind: tuple[Blind, ...] = ()
    """When QEMU did not answer, and what was not seen meanwhile."""
    unseen: tuple[str, ...] = ()
    """What could not be seen, and why."""
    placed: bool = True
    """False: a clock was set, or a connection broke. Events are missing on the axis: see
    ``unseen``."""


class Nic(Value):
    """The guest's interface as the guest sees it."""

    name: str
    driver: str
    mac: str
    mtu: int
    carrier: bool
    features: str = ""
    """Bits as the kernel prints them, lowest first; empty for a device that is no virtio device."""
    rx_queues: int = 1
    tx_queues: int = 1


class MemoryCheck(Value):
    """The pattern that was written while the guest moved, read back afterwards."""

    pages: int
    writes: int
    wrong_page: int | None = None
    """The first page that was wrong, counted from 0; None: all were right."""
    expected: str = ""
    found: str = ""


class TcpCheck(Value):
    """Connections that were opened before the move and are asked about after it."""

    opened: int
    alive: int
    resets: int
    longest_stall_ms: NotNegative
    """The longest that a connection waited for its next byte."""


class Problem(Value):
    """Why an attempt did not go as asked, in the words of who said it."""

    tried: str
    host: str = ""
    said: str = ""
    remedy: str = ""


class Verdict(Value):
    """One check of one attempt."""

    check: str
    result: Literal["pass", "fail", "unmeasured"]
    measured: str = ""
    limit: str = ""
    unit: str = ""
    evidence: str = ""


class Attempt(Value):
    """One try at a case, from lease to verdicts; a migration that fails is one, too."""

    schema_number: int = SCHEMA
    case: Case
    number: int
    source: str
    target: str
    begin_ns: int
    end_ns: int
    outcome: Outcome
    held_by: tuple[str, ...]
    """Hosts on which the guest runs at the end; more than one, or none, is the worst find."""
    reported: Reported = Reported()
    phases: tuple[Phase, ...] = ()
    gaps: tuple[Gap, ...] | None = None
    streams: tuple[Stream, ...] | None = None
    stalls: tuple[Stall, ...] | None = None
    explained: tuple[Explained, ...] | None = None
    """The longest gap of each direction; None: no gaps or no events to explain them by."""
    inside: tuple[Inside, ...] = ()
    """Hop by hop."""
    dirty_rates: tuple[DirtyRate, ...] | None = None
    """By every method, also by those that were refused; None: nobody asked for them."""
    floor: Floor | None = None
    start_ms: NotNegative | None = None
    """From the ask for a guest to its ready probe."""
    memory: MemoryCheck | None = None
    tcp: TcpCheck | None = None
    nic_before: Nic | None = None
    nic_after: Nic | None = None
    leftovers: tuple[str, ...] | None = None
    backend_failed: tuple[str, ...] | None = None
    """By the log of QEMU where the guest ended: lines that say so; None: it was not read."""
    error: Problem | None = None
    notes: tuple[str, ...] = ()
    clocks: tuple[ClockReading, ...] = ()
    """Of both hosts and of the peer, before, during and after; empty: they were not read."""
    verdicts: tuple[Verdict, ...] = ()

    def seen_from_ms(self, direction: Direction) -> float | None:
        """From which length on a gap is seen: the floor's, and two packets'; None: no floor."""
        if self.floor is None:
            return None
        return max(self.floor.ms(direction), 2 * self.case.workload.interval_us / 1e3)

    @property
    def against(self) -> tuple[Verdict, ...]:
        """The verdicts that keep it from passing."""
        allowed = self.case.expect.allow_unmeasured
        return tuple(
            verdict
            for verdict in self.verdicts
            if verdict.result == "fail"
            or (verdict.result == "unmeasured" and verdict.check not in allowed)
        )

    @property
    def passed(self) -> bool:
        """A green one must mean something: no verdict at all is no pass."""
        return bool(self.verdicts) and not self.against


class Skip(Value):
    """A case that this lab can't run, and why: said once, never counted as passed."""

    case: Case
    reason: str
    remedy: str


class Mishap(Value):
    """A try that left no attempt to record, and why: never counted as passed."""

    case_id: str
    number: int
    problem: Problem
    exit_code: int


Said = Annotated[str, Field(min_length=1)]


class Quarantined(Value):
    """An entry of a quarantine list: a failure that is known, has an owner, and an end."""

    case: Said
    """A pattern of case ids, as a shell's: ``*vhost-user-packed*``."""
    check: Said | None = None
    """A pattern of names of verdicts; None: whatever the verdicts of the case say."""
    owner: Said
    bug: Said
    expires: date
    """The last day on which it covers, in UTC."""
    reason: Said


class Plan(Value):
    """What a nightly run set out to do."""

    until: str
    """Wall clock, ISO 8601 with zone: no attempt begins that is expected to end later."""
    repeat: int = Field(ge=1)
    """Tries of each case."""


class NotReached(Value):
    """Tries that were planned and not begun."""

    case_id: str
    tries: int
    expected_s: Positive
    """How long one was expected to take."""
    reason: str


class Run(Value):
    """The head of a run folder."""

    schema_number: int = SCHEMA
    name: str
    began: str
    """Wall clock, ISO 8601 with zone."""
    lab: str
    lab_kind: str = "local"
    """What its hosts are made of; it decides what a figure can tell."""
    command: tuple[str, ...]
    controller: dict[str, str]
    hosts: tuple[HostFacts, ...]
    scenarios: dict[str, str]
    """Scenario files as they were read, by name."""
    seed: int
    skips: tuple[Skip, ...] = ()
    mishaps: tuple[Mishap, ...] = ()
    quarantine: tuple[Quarantined, ...] = ()
    """As it was read, so that readers of the folder judge as the run did, by the day it began."""
    plan: Plan | None = None
    """None: not a nightly run."""
    not_reached: tuple[NotReached, ...] = ()
