"""Made-up runs: a second of floor, a move with its gaps, and all that a run folder holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from migrate.model import (
    DIRECTIONS,
    Attempt,
    Capability,
    Case,
    Direction,
    Event,
    Floor,
    Gap,
    HostFacts,
    Interface,
    MemoryCheck,
    Mode,
    Nic,
    Part,
    Phase,
    PhaseName,
    Policy,
    ReportedFigures,
    Run,
    Sample,
    Skip,
    Stall,
    TcpCheck,
    Verdict,
)
from migrate.model.recording import (
    Arrivals,
    HopRecording,
    MoveResult,
    QemuRecording,
    Recording,
    StartRecording,
    TrafficLog,
)
from migrate.results.writer import RunWriter

MS = 1_000_000
BEGIN = 5_000_000 * MS
"""Where the axis of a synthetic attempt begins."""
STOP = BEGIN + 3000 * MS
END = BEGIN + 5500 * MS

HOSTILE = "</script><script>alert(1)</script> & \x00\x1b[31m <img src=x onerror=alert(2)> \ufffe"


def qemu_event(ms: float, name: str, host: str = "a", **data: Any) -> Event:
    """What the QEMU of a host says, so many milliseconds after the begin of the axis."""
    return Event(at_ns=round(ms * MS), source="qemu", host=host, name=name, data=data)


def case(mode: Mode = "virtio", name: str = "synthetic", **fields: object) -> Case:
    """A case of one mode."""
    return Case.model_validate(
        {"id": f"{name}-{mode}", "interface": Interface(mode=mode), "policy": Policy(), **fields}
    )


def arrivals(gaps: list[tuple[int, int]], *, flushed: bool, seed: int = 1) -> Arrivals:
    """A packet a millisecond; inside a gap all are lost, or all arrive when it ends."""
    random = np.random.default_rng(seed)
    sent = np.arange(BEGIN, END, MS, dtype=np.int64)
    seq = np.arange(len(sent), dtype=np.int64)
    received = sent + (0.4 * MS + random.gamma(2.0, 0.2 * MS, len(sent))).astype(np.int64)
    lost = np.zeros(len(sent), dtype=np.bool_)
    for begin_ns, length_ns in gaps:
        inside = (sent > begin_ns) & (sent < begin_ns + length_ns)
        released = begin_ns + length_ns + (np.cumsum(inside) * 20_000)
        received = np.where(inside & flushed, released, received)
        lost |= inside & (not flushed)
    order = np.argsort(received[~lost], kind="stable")
    return Arrivals(seq[~lost][order], sent[~lost][order], received[~lost][order])


def recording(
    *,
    begin_ns: int = 0,
    end_ns: int = 9000 * MS,
    traffic: TrafficLog | None = None,
    reported: ReportedFigures | None = None,
    qemu: QemuRecording | None = None,
    **fields: Any,
) -> Recording:
    """Of one move from a to b that began a second after the floor did; without traffic."""
    nothing = _traffic({way: Arrivals.empty() for way in DIRECTIONS}, end_ns)
    hop = HopRecording(
        source="a",
        target="b",
        result=MoveResult(
            outcome="completed",
            held_by=("b",),
            reported=reported or ReportedFigures(downtime_ms=60.0),
        ),
        begin_ns=begin_ns + 1000 * MS,
        end_ns=end_ns - 1000 * MS,
        qemu=qemu or QemuRecording(),
    )
    return Recording(
        start=StartRecording(
            begin_ns=begin_ns,
            floor_window=(begin_ns, begin_ns + 1000 * MS),
            start_ms=0.0,
            nic=Nic(name="eth0", driver="virtio_net", mac="", mtu=1500, carrier=True),
        ),
        hops=(hop,),
        traffic=traffic or nothing,
        listened_until_ns=end_ns,
        **fields,
    )


def phases() -> tuple[Phase, ...]:
    """A pre-copy of three passes with a stop of 60 ms."""
    edges: list[tuple[PhaseName, int, float]] = [
        ("setup", 0, 1000),
        ("precopy", 1, 1080),
        ("precopy", 2, 2500),
        ("precopy", 3, 2850),
        ("pre-switchover", 0, 2990),
        ("stopped", 0, 3000),
        ("device", 0, 3045),
        ("resumed", 0, 3060),
        ("announce", 0, 3066),
        ("settled", 0, 3800),
    ]
    ends = [edge[2] for edge in edges[1:]] + [4500.0]
    return tuple(
        Phase(
            name=name,
            number=number,
            begin_ns=BEGIN + round(begin * MS),
            end_ns=BEGIN + round(end * MS),
        )
        for (name, number, begin), end in zip(edges, ends, strict=True)
    )


def gap(direction: Direction, begin_ms: float, length_ms: float, part: Part = "switchover") -> Gap:
    """A gap that begins some milliseconds after the stop."""
    return Gap(
        direction=direction,
        begin_ns=STOP + round(begin_ms * MS),
        length_ns=round(length_ms * MS),
        error_ns=2 * MS,
        lost=round(length_ms),
        phases=_PHASES[part],
        part=part,
    )


_PHASES: dict[Part, tuple[str, ...]] = {
    "start": ("wait-unplug", "standby"),
    "switchover": ("stopped", "device", "resumed"),
    "tail": ("announce", "replug"),
    "none": (),
}


def attempt(of: Case, number: int = 1, *, length_ms: float = 150.0, **fields: object) -> Attempt:
    """An attempt that went well, but for what ``fields`` say."""
    good: dict[str, object] = {
        "case": of,
        "number": number,
        "source": "alpha",
        "target": "beta",
        "begin_ns": BEGIN + number,
        "end_ns": END,
        "outcome": "completed",
        "held_by": ("beta",),
        "reported": ReportedFigures(downtime_ms=60.0 + number, total_ms=2060.0, setup_ms=4),
        "phases": phases(),
        "gaps": (gap("egress", -5, length_ms), gap("ingress", -3, length_ms + 660)),
        "stalls": (Stall(kind="stood-still", begin_ns=STOP, length_ns=62 * MS, error_ns=MS),),
        "floor": Floor(
            egress_ms=2.1,
            ingress_ms=2.4,
            egress_delay_ms=0.7,
            ingress_delay_ms=0.7,
            seconds=1,
            packets=2000,
        ),
        "memory": MemoryCheck(pages=2048, writes=9000),
        "tcp": TcpCheck(opened=1, alive=1, resets=0, longest_stall_ms=810.0, answered=1),
        "leftovers": (),
        "verdicts": (
            Verdict(check="outcome", result="pass", measured="completed", limit="completed"),
            Verdict(check="held_by", result="pass", measured="beta", limit="beta"),
            Verdict(
                check="outage_egress",
                result="pass",
                measured=f"{length_ms:.1f}",
                limit="2000",
                unit="ms",
                evidence=f"a gap from {-5} ms, over stopped, device, resumed",
            ),
        ),
    }
    return Attempt.model_validate(good | fields)


FAILOVER_LENGTHS = {"start": 420.0, "switchover": 300.0, "tail": 260.0}
"""Of the egress gaps of :func:`failover`, in ms."""


def failover(number: int = 1, **fields: object) -> Attempt:
    """A primary is unplugged 900 ms before the stop, and carries traffic again 1200 ms after it."""
    edges: list[tuple[PhaseName, int, float, float]] = [
        ("setup", 0, 1960, 1980),
        ("wait-unplug", 0, 1980, 2240),
        ("standby", 0, 2240, 3700),
        ("precopy", 1, 2240, 2900),
        ("precopy", 2, 2900, 2990),
        ("pre-switchover", 0, 2990, 3000),
        ("stopped", 0, 3000, 3260),
        ("device", 0, 3045, 3260),
        ("resumed", 0, 3260, 3300),
        ("announce", 0, 3300, 4100),
        ("replug", 0, 3700, 4200),
        ("settled", 0, 4100, 5400),
    ]
    moved = tuple(
        Phase(
            name=name,
            number=pass_,
            begin_ns=BEGIN + round(begin * MS),
            end_ns=BEGIN + round(end * MS),
        )
        for name, pass_, begin, end in edges
    )
    begins: dict[Part, float] = {"start": -830, "switchover": -20, "tail": 940}
    ways: dict[Direction, int] = {"egress": 0, "ingress": 4}
    gaps = tuple(
        gap(way, begin + late, FAILOVER_LENGTHS[part] + number - late, part)
        for way, late in ways.items()
        for part, begin in begins.items()
    )
    good: dict[str, object] = {
        "phases": moved,
        "gaps": gaps,
        "notes": ("net_failover: the primary is eth2 (igbvf)",),
        "reported": ReportedFigures(downtime_ms=240.0 + number, total_ms=1420.0, setup_ms=4),
    }
    return attempt(case("failover"), number).model_copy(update=good | fields)


def carried() -> list[Event]:
    """What the probe says carries the traffic of :func:`failover`."""
    told = [(0.0, "eth2", "igbvf"), (2210.0, "eth1", "virtio_net"), (4200.0, "eth2", "igbvf")]
    return [
        Event(
            at_ns=BEGIN + round(at * MS),
            error_ns=MS,
            source="probe",
            host="guest",
            name="carried-by",
            data={"device": device, "driver": driver},
        )
        for at, device, driver in told
    ]


def logs(of: Attempt) -> dict[str, Arrivals]:
    """Arrivals that fit the gaps of :func:`attempt`: egress is lost, ingress is flushed late."""
    found: dict[str, Arrivals] = {}
    ways: dict[str, list[tuple[int, int]]] = {}
    for one in of.gaps or ():
        ways.setdefault(one.direction, []).append((one.begin_ns, one.length_ns))
    for way, gaps in ways.items():
        found[way] = arrivals(gaps, flushed=way == "ingress")
    return found


def samples() -> list[Sample]:
    """Progress every 100 ms while memory is copied."""
    return [
        Sample(
            at_ns=BEGIN + (1080 + 100 * step) * MS,
            host="alpha",
            iteration=1 + step // 14,
            remaining_bytes=max(0, 120 - 7 * step) << 20,
            transferred_bytes=(7 * step) << 20,
            rate_bytes_s=(60 + step % 5) << 20,
        )
        for step in range(20)
    ]


def events() -> list[Event]:
    """What QEMU and libvirt would say."""
    return [
        Event(at_ns=STOP, source="qemu", host="alpha", name="STOP", data={}),
        Event(
            at_ns=STOP + 60 * MS,
            error_ns=1000,
            source="qemu",
            host="beta",
            name="RESUME",
            data={"said": HOSTILE},
        ),
    ]


def run(name: str = "20260102-030405-abcdef", **fields: object) -> Run:
    """The head of a run on two hosts."""
    host = HostFacts(
        host="alpha",
        root="debian-13",
        kernel="6.12.107",
        versions={"qemu": "10.0.2", "libvirt": "11.3.0"},
        capabilities=(Capability(name="vhost-net", able=False, reason="no /dev/vhost-net"),),
    )
    good: dict[str, object] = {
        "name": name,
        "began": "2026-01-02T03:04:05+00:00",
        "lab": "local",
        "command": ("migrate-lab", "run", "quickstart.toml"),
        "controller": {"kernel": "6.12.107", "migrate-lab": "0.1.0"},
        "hosts": (host, host.model_copy(update={"host": "beta"})),
        "scenarios": {"quickstart.toml": 'name = "quickstart"\n'},
        "seed": 7,
        "skips": (
            Skip(
                case=case("vdpa"),
                reason="no vDPA management device",
                remedy="load vdpa_sim_net, or use a card with vDPA",
            ),
        ),
    }
    return Run.model_validate(good | fields)


def traffic(one: Attempt) -> TrafficLog:
    """What the probes logged of an attempt."""
    return _traffic(logs(one), END)


def _traffic(arrived: Mapping[str, Arrivals], end_ns: int) -> TrafficLog:
    return TrafficLog(
        egress=arrived["egress"],
        ingress=arrived["ingress"],
        sent_egress=None,
        sent_ingress=len(arrived["ingress"]),
        end_ns=end_ns,
        jumps=None,
    )


def write_run(root: Path, attempts: list[Attempt], **fields: Any) -> RunWriter:
    """A whole run folder below ``root``."""
    writer = RunWriter.create(root, run(**fields))
    for one in attempts:
        files = {"source.xml": "<domain/>", "logs/alpha-qemu.log": "started\n"}
        told = carried() if one.case.interface.mode == "failover" else []
        writer.write_attempt(one, [*events(), *told], samples(), logs(one), files)
    return writer
