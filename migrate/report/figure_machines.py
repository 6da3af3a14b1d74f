"""Lanes of the machines in the figure of an attempt: what of their CPUs others used, and when."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from migrate.analysis.machines import OTHERS_CPUS, OTHERS_SHARE, Window, use
from migrate.model import MachineRecording, MachineUse
from migrate.report.figure_data import FigureData
from migrate.report.figure_lanes import Bar, Lane

BARS_MOST = 16
"""Of a machine: more looks than that are drawn together."""
LEAST_LEVEL = 0.08
"""A quiet machine has a thin line, one that was not looked at has none."""


def machine_lanes(data: FigureData) -> Iterator[Lane]:
    """A lane for each machine that was looked at twice."""
    for machine in data.machines:
        if len(machine.samples) > 1:
            hover = "height: share of CPUs used by other programs; dark: busy"
            yield Lane(f"CPUs of {machine.name}", list(_bars(data, machine)), hover=hover)


def _bars(data: FigureData, machine: MachineRecording) -> Iterator[Bar]:
    """Between two looks a bar: as high as what others used, with all of it when pointed at."""
    step = 1 + len(machine.samples) // BARS_MOST
    borders = [sample.at_ns for sample in machine.samples[::step]]
    for begin_ns, end_ns in pairwise(borders):
        used = use(machine, Window("move", 0, begin_ns, end_ns))
        begin, end = data.ms(begin_ns), data.ms(end_ns)
        yield Bar(begin, end, _kind(used), _hover(used), level=_level(used))


def _level(used: MachineUse) -> float:
    if used.others_cpus is None:
        return LEAST_LEVEL
    return max(LEAST_LEVEL, min(1.0, used.others_cpus / (used.cpus or 1.0)))


def _kind(used: MachineUse) -> str:
    if used.others_cpus is None:
        return "unknown"
    limit = max(OTHERS_CPUS, OTHERS_SHARE * (used.cpus or 1.0))
    return "busy" if used.others_cpus > limit else "quiet"


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
        *(f"{name}: {share:.0%}" for name, share in shares if share),
        *([f"threads that run or wait: {used.runnable:g}"] if used.runnable is not None else []),
        *([f"swapped: {used.swapped_mib:.1f} MiB"] if used.swapped_mib else []),
        *([f"throttled: {used.throttled_s:.2f} s"] if used.throttled_s else []),
    ]
    return "\n".join(lines) or "not measured"
