"""Lanes of the machines in the figure of an attempt: what of their CPUs others used, and when."""

from __future__ import annotations

import html
from collections.abc import Iterator
from itertools import pairwise

from migrate.analysis.machines import OTHERS_CPUS, OTHERS_SHARE, Window, use
from migrate.model import MachineRecording, MachineUse
from migrate.report.figure_data import Bar, FigureData

QUIET, SOME, BUSY, UNKNOWN = "#dfe9e4", "#f3d9a4", "#d9574a", "#eceff3"
BARS_MOST = 80
"""Of a machine: more looks than that are drawn together."""


def machine_lanes(data: FigureData) -> list[str]:
    """Names of the lanes, one a machine that was looked at twice."""
    return [_lane(machine) for machine in data.machines if len(machine.samples) > 1]


def machine_bars(data: FigureData, at: dict[str, float]) -> Iterator[Bar]:
    """Between two looks a bar: coloured by what others used, with all of it when pointed at."""
    for machine in data.machines:
        step = 1 + len(machine.samples) // BARS_MOST
        borders = [sample.at_ns for sample in machine.samples[::step]]
        for begin_ns, end_ns in pairwise(borders):
            used = use(machine, Window("move", 0, begin_ns, end_ns))
            begin, end = data.ms(begin_ns), data.ms(end_ns)
            yield Bar(at[_lane(machine)], begin, end, _colour(used), _hover(used))


def _lane(machine: MachineRecording) -> str:
    return html.escape(f"CPUs of {machine.name}")


def _colour(used: MachineUse) -> str:
    if used.others_cpus is None:
        return UNKNOWN
    limit = max(OTHERS_CPUS, OTHERS_SHARE * (used.cpus or 1.0))
    if used.others_cpus > limit:
        return BUSY
    return SOME if used.others_cpus > limit / 2 else QUIET


def _hover(used: MachineUse) -> str:
    cpus = "?" if used.cpus is None else f"{used.cpus:g}"
    shares = (
        ("steal", used.steal),
        ("CPU pressure", used.cpu_pressure),
        ("memory pressure", used.memory_pressure),
        ("I/O pressure", used.io_pressure),
    )
    lines = [
        *([f"busy: {used.busy_cpus:.2f} of {cpus} CPUs"] if used.busy_cpus is not None else []),
        *([f"by others: {used.others_cpus:.2f}"] if used.others_cpus is not None else []),
        *(f"{name}: {share:.0%}" for name, share in shares if share is not None),
        *([f"threads that run or wait: {used.runnable:g}"] if used.runnable is not None else []),
        *([f"swapped: {used.swapped_mib:.1f} MiB"] if used.swapped_mib else []),
        *([f"throttled: {used.throttled_s:.2f} s"] if used.throttled_s else []),
    ]
    return "<br>".join(html.escape(line) for line in lines) or "not measured"
