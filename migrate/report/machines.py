"""The machines of attempts in reports: a mark beside figures of a busy one, and why it is one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from migrate.model import Attempt, MachineFacts, MachineUse
from migrate.report.table_model import NOT_MEASURED, Cell, Grid, GridSection

ROWS = (
    *("length, s", "CPUs", "CPUs busy", "CPUs used by others", "steal", "runnable threads"),
    *("CPU pressure", "memory pressure", "I/O pressure", "swapped, MiB", "throttled, s"),
)


def busy_mark(attempts: Sequence[Attempt]) -> str:
    """For the label of a row: in how many of its attempts the machine was busy; else empty."""
    busy = sum(bool(attempt.machine and attempt.machine.busy) for attempt in attempts)
    return f"busy machine {busy}/{len(attempts)}" if busy else ""


def busy_lines(groups: Mapping[str, Sequence[Attempt]]) -> Iterator[str]:
    """Below a table: why, a line a case with the reasons of its first busy attempt."""
    for label, attempts in groups.items():
        busy = [(a.number, a.machine.busy) for a in attempts if a.machine and a.machine.busy]
        if busy:
            number, reasons = busy[0]
            several = f" in {len(busy)} of {len(attempts)} attempts" if len(attempts) > 1 else ""
            which = f"attempt {number}: " if len(busy) > 1 else ""
            yield (
                f"{label}: the machine was busy{several}, so its figures are less reliable; "
                f"{which}{'; '.join(reasons)}"
            )


def machine_sections(attempt: Attempt) -> Iterator[GridSection]:
    """Whether the machines were quiet, and why not; how each was used, a column a stretch."""
    state = attempt.machine
    if state is None:
        return
    yield GridSection(f"the machine: {_verdict(state.busy)}", None, tuple(_lines(attempt)))
    for machine in dict.fromkeys(used.machine for used in state.uses):
        uses = [used for used in state.uses if used.machine == machine]
        columns = [[*_column(used)] for used in uses]
        rows = tuple((Cell(name), *cells) for name, *cells in zip(ROWS, *columns, strict=True))
        heads = (machine, *map(_window, uses))
        yield GridSection(f"How {machine} was used", Grid(heads, rows))


def _verdict(busy: tuple[str, ...] | None) -> str:
    if busy is None:
        return f"whether it was quiet is {NOT_MEASURED}"
    return f"busy ({len(busy)})" if busy else "quiet"


def _lines(attempt: Attempt) -> Iterator[str]:
    state = attempt.machine
    if state is None:
        return
    yield from (f"busy: {reason}" for reason in state.busy or ())
    yield from state.contended
    for used in state.uses:
        parts = {name: seconds for name, seconds in used.parts_s.items() if seconds >= 0.01}
        if parts:
            yield f"CPU time, {used.machine}, {_window(used)}: {_seconds(parts)}"
    for machine, others in state.others_s.items():
        yield f"CPU time of others, {machine}, the whole attempt: {_seconds(others)}"
    for machine, facts in state.facts.items():
        yield f"{machine}: {describe(facts)}"
    yield from state.unseen


def _seconds(used: Mapping[str, float]) -> str:
    first = sorted(used.items(), key=lambda pair: -pair[1])
    return ", ".join(f"{name} {seconds:.2f} s" for name, seconds in first)


def describe(facts: MachineFacts) -> str:
    """What a machine is made of, on a line."""
    known = (
        f"{facts.cpus or '?'} CPUs, {facts.cpu or 'model unknown'}",
        f"microcode {facts.microcode}" if facts.microcode else "",
        f"virtualised{'' if facts.virtualised == 'yes' else f' by {facts.virtualised}'}"
        if facts.virtualised
        else "",
        f"governor {facts.governor}" if facts.governor else "",
        f"{facts.memory_mib / 1024:.1f} GiB" if facts.memory_mib is not None else "",
        f"kernel {facts.kernel}" if facts.kernel else "",
    )
    return ", ".join(part for part in known if part)


def _window(used: MachineUse) -> str:
    return f"move {used.hop}" if used.window == "move" else used.window


def _column(used: MachineUse) -> Iterator[Cell]:
    yield Cell(f"{(used.end_ns - used.begin_ns) / 1e9:.2f}")
    yield Cell(NOT_MEASURED if used.cpus is None else f"{used.cpus:g}")
    for value in (used.busy_cpus, used.others_cpus):
        yield Cell(NOT_MEASURED if value is None else f"{value:.2f}")
    yield _share(used.steal)
    yield Cell(NOT_MEASURED if used.runnable is None else f"{used.runnable:g}")
    for share in (used.cpu_pressure, used.memory_pressure, used.io_pressure):
        yield _share(share)
    yield Cell(NOT_MEASURED if used.swapped_mib is None else f"{used.swapped_mib:.1f}")
    yield Cell(NOT_MEASURED if used.throttled_s is None else f"{used.throttled_s:.2f}")


def _share(value: float | None) -> Cell:
    return Cell(NOT_MEASURED if value is None else f"{value:.1%}")
