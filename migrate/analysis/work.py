"""What the workload did, by the guest's own count, against what it was asked to do.

A guest that is held back, an emulated one above all, writes and sends less than it was asked to;
measurements are held against what it did.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal, NamedTuple

import numpy as np

from migrate.formats.proc_files import PAGE_MIB
from migrate.model import Case, WorkDone, Workload, WorkSample
from migrate.model.recording import Arrivals, Column, Recording

SHORT: Final = 0.8
"""The workload falls short that does less than this share of what it was asked to do."""
SHORTEST_NS: Final = 300_000_000
"""The guest counts once a second: nothing is told of a shorter stretch."""
TCP_BYTES_S: Final = 6400
"""Of one connection: 64 bytes are echoed every 10 ms (``guest-images/probe/tcp.c``)."""


class _Stretch(NamedTuple):
    window: Literal["floor", "move", "after"]
    hop: int
    begin_ns: int
    end_ns: int


def work_done(
    recording: Recording, arrivals: Mapping[str, Arrivals]
) -> tuple[WorkDone, ...] | None:
    """Stretch by stretch; None: the guest did not tell, or its clock is not on the axis."""
    work, by_guest = recording.traffic.work, recording.traffic.egress
    on_axis = arrivals.get("egress")
    if not work or len(work) < 2 or on_axis is None or len(on_axis) < 2:
        return None
    order = np.argsort(by_guest.sent_ns, kind="stable")
    read_ns = np.array([sample.at_ns for sample in work])
    at_ns = np.interp(read_ns, by_guest.sent_ns[order], on_axis.sent_ns[order])
    return tuple(
        _done(work, at_ns.astype(np.int64), stretch)
        for stretch in _stretches(recording)
        if stretch.end_ns - stretch.begin_ns >= SHORTEST_NS
    )


def _stretches(recording: Recording) -> Iterator[_Stretch]:
    yield _Stretch("floor", 0, *recording.start.floor_window)
    for number, hop in enumerate(recording.hops, 1):
        yield _Stretch("move", number, hop.begin_ns, hop.end_ns)
    yield _Stretch("after", 0, recording.hops[-1].end_ns, recording.traffic.end_ns)


def _done(work: Sequence[WorkSample], at_ns: Column, stretch: _Stretch) -> WorkDone:
    seconds = (stretch.end_ns - stretch.begin_ns) / 1e9

    def a_second(counts: list[float]) -> float:
        begin, end = np.interp([stretch.begin_ns, stretch.end_ns], at_ns, counts)
        return round(max(0.0, float(end - begin)) / seconds, 3)

    return WorkDone(
        window=stretch.window,
        hop=stretch.hop,
        seconds=seconds,
        dirty_mib_s=round(a_second([sample.pages for sample in work]) * PAGE_MIB, 3),
        packets_s=a_second([sample.packets for sample in work]),
        tcp_bytes_s=a_second([sample.tcp_bytes for sample in work]),
    )


def as_done(case: Case, work: Sequence[WorkDone] | None) -> Case:
    """The case with the dirty rate that the guest reached before the move, where it told: that is
    what a forecast of the move has to go by."""
    reached = next((done.dirty_mib_s for done in work or () if done.window == "floor"), None)
    if reached is None:
        return case
    workload = case.workload.model_copy(update={"dirty_mib_s": reached})
    return case.model_copy(update={"workload": workload})


def short_rates(
    asked: Workload, *, dirty_mib_s: float, packets_s: float, tcp_bytes_s: float | None = None
) -> list[str]:
    """What the workload did and was asked to do a second, where that fell short."""
    rates = [
        (dirty_mib_s, asked.dirty_mib_s if asked.dirty_mib else 0.0, "MiB/s written"),
        (packets_s, 1e6 / asked.interval_us, "packets/s sent"),
    ]
    if tcp_bytes_s is not None:
        rates.append((tcp_bytes_s, asked.tcp_connections * TCP_BYTES_S, "bytes/s echoed by TCP"))
    return [f"{did:.1f} of {of:g} {what}" for did, of, what in rates if did < SHORT * of]


def shortfalls(work: Sequence[WorkDone], asked: Workload, *, loops: bool) -> Iterator[str]:
    """A sentence if the workload fell short before anything was done to the guest."""
    for done in work:
        short = short_rates(
            asked,
            dirty_mib_s=done.dirty_mib_s,
            packets_s=done.packets_s,
            tcp_bytes_s=None if loops else done.tcp_bytes_s,
        )
        if done.window == "floor" and short:
            yield f"the workload fell short, before the move already: {', '.join(short)}"
