"""Made-up runs: a second of floor, a move with its gaps, and all that a run folder holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from migrate.model import (
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
    Phase,
    PhaseName,
    Policy,
    Reported,
    Run,
    Sample,
    Skip,
    Stall,
    TcpCheck,
    Verdict,
)
from migrate.results import RunWriter
from migrate.timeline import Arrivals

MS = 1_000_000
BEGIN = 5_000_000 * MS
"""Where the axis of a synthetic attempt begins."""
STOP = BEGIN + 3000 * MS
END = BEGIN + 5500 * MS

HOSTILE = "</script><script>alert(1)</script> & \x00\x1b[31m <img src=x onerror=alert(2)> \ufffe"


def case(mode: Mode = "virtio", name: str = "synthetic", **fields: object) -> Case:
    """A case of one mode."""
    return Case.model_validate(
        {"id": f"{name}-{mode}", "interface": Interface(mode=mode), "policy": Policy(), **fields}
    )


def arrivals(begin_ns: int, length_ns: int, *, flushed: bool, seed: int = 1) -> Arrivals:
    """A packet a millisecond; inside the gap all are lost, or all arrive when it ends."""
    random = np.random.default_rng(seed)
    sent = np.arange(BEGIN, END, MS, dtype=np.int64)
    seq = np.arange(len(sent), dtype=np.int64)
    received = sent + (0.4 * MS + random.gamma(2.0, 0.2 * MS, len(sent))).astype(np.int64)
    inside = (sent > begin_ns) & (sent < begin_ns + length_ns)
    if flushed:
        released = begin_ns + length_ns + (np.cumsum(inside) * 20_000)
        received = np.where(inside, released, received)
        inside = np.zeros_like(inside)
    order = np.argsort(received[~inside], kind="stable")
    return Arrivals(seq[~inside][order], sent[~inside][order], received[~inside][order])


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


def gap(direction: Direction, begin_ms: float, length_ms: float) -> Gap:
    """A gap that begins some milliseconds after the stop."""
    return Gap(
        direction=direction,
        begin_ns=STOP + round(begin_ms * MS),
        length_ns=round(length_ms * MS),
        error_ns=2 * MS,
        lost=round(length_ms),
        phases=("stopped", "device", "resumed"),
        part="switchover",
    )


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
        "reported": Reported(downtime_ms=60.0 + number, total_ms=2060.0, setup_ms=4),
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
        "tcp": TcpCheck(opened=1, alive=1, resets=0, longest_stall_ms=810.0),
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


def logs(of: Attempt) -> dict[str, Arrivals]:
    """Arrivals that fit the gaps of :func:`attempt`: egress is lost, ingress is flushed late."""
    found: dict[str, Arrivals] = {}
    for one in of.gaps or ():
        flushed = one.direction == "ingress"
        found[one.direction] = arrivals(one.begin_ns, one.length_ns, flushed=flushed)
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


def write_run(root: Path, attempts: list[Attempt]) -> RunWriter:
    """A whole run folder below ``root``."""
    writer = RunWriter.create(root, run())
    for one in attempts:
        files = {"source.xml": "<domain/>", "logs/alpha-qemu.log": "started\n"}
        writer.write_attempt(one, events(), samples(), logs(one), files)
    return writer
