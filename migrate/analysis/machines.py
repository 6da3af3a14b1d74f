"""How the machines of an attempt were used while its figures came about, and whether that is quiet.

Busy is what *others* did: the attempt's own programs use CPUs as well, emulated guests all that
there is, and so pressure alone says nothing of others. It is told apart, as contention.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Final, NamedTuple

from migrate.model import (
    MachineRecording,
    MachineSample,
    MachineState,
    MachineUse,
    MachineWindow,
)

if TYPE_CHECKING:
    from migrate.model.recording import Recording

OTHERS_CPUS: Final = 0.25
"""Others keep more than this of a CPU busy, in the mean of a window,"""
OTHERS_SHARE: Final = 0.05
"""and more than this share of all CPUs: a large machine has room for them."""
STEAL: Final = 0.02
"""The hypervisor below took more than this share of all CPUs' time."""
MEMORY: Final = 0.05
"""Threads waited for memory longer than this share of a window."""
SWAPPED_MIB: Final = 1.0
"""More than this was swapped in and out in a window."""
THROTTLED: Final = 0.01
"""A quota kept programs of ours from running for more than this share of a window."""
CONTENDED: Final = 0.25
"""Our own programs waited for a CPU longer than this share of a window: no reason, but told."""
NAMED: Final = 3
"""Programs of others, at most, in a reason."""
COVERED: Final = 0.5
"""Of a window, at least: what was sampled for less of it is not measured."""
SHORTEST_NS: Final = 300_000_000
"""Linux counts CPU time in ticks of 10 ms: nothing is told of a shorter window."""


class Window(NamedTuple):
    """A stretch of the axis."""

    name: MachineWindow
    hop: int
    begin_ns: int
    end_ns: int


def machine_state(recording: Recording) -> MachineState | None:
    """What was seen of all machines; None: nothing of them was recorded."""
    machines = recording.machines
    if not machines:
        return None
    uses = tuple(
        use for machine in machines for use in _uses(machine, tuple(windows(recording, machine)))
    )
    return MachineState(
        facts={machine.name: machine.facts for machine in machines},
        uses=uses,
        busy=busy(machines, uses, len(recording.hops)),
        contended=tuple(_contended(uses)),
        others_s={machine.name: machine.others_s for machine in machines if machine.others_s},
        unseen=tuple(reason for machine in machines for reason in machine.unseen),
    )


def windows(recording: Recording, machine: MachineRecording) -> Iterator[Window]:
    """The start, the floor, each move, and what came after the last."""
    floor_begin_ns, floor_end_ns = recording.start.floor_window
    if machine.samples:
        yield Window("start", 0, machine.samples[0].at_ns, floor_begin_ns)
    yield Window("floor", 0, floor_begin_ns, floor_end_ns)
    for number, hop in enumerate(recording.hops, 1):
        yield Window("move", number, hop.begin_ns, hop.end_ns)
    yield Window("after", 0, recording.hops[-1].end_ns, recording.traffic.end_ns)


# --- how a machine was used -----------------------------------------------------------------------


def _uses(machine: MachineRecording, over: Sequence[Window]) -> Iterator[MachineUse]:
    samples = machine.samples
    for window in over:
        if len(samples) < 2 or window.end_ns - window.begin_ns < SHORTEST_NS:
            continue
        begin_ns = max(window.begin_ns, samples[0].at_ns)
        end_ns = min(window.end_ns, samples[-1].at_ns)
        if end_ns - begin_ns >= COVERED * (window.end_ns - window.begin_ns):
            yield use(machine, window._replace(begin_ns=begin_ns, end_ns=end_ns))


def use(machine: MachineRecording, window: Window) -> MachineUse:
    """The mean over a window that samples cover."""
    samples, seconds = machine.samples, (window.end_ns - window.begin_ns) / 1e9
    cpus = machine.facts.cpus

    def grown(read: Callable[[MachineSample], float | None]) -> float | None:
        known = [(sample.at_ns, value) for sample in samples if (value := read(sample)) is not None]
        if len(known) < 2:
            return None
        return max(0.0, _at(known, window.end_ns) - _at(known, window.begin_ns))

    def share(read: Callable[[MachineSample], float | None]) -> float | None:
        value = grown(read)
        return None if value is None else value / seconds

    names = dict.fromkeys(name for sample in samples for name in sample.parts_s)
    parts = {name: grown(_part(name)) for name in names}
    parts_s = {name: round(used, 3) for name, used in parts.items() if used is not None}
    idle, steal = share(lambda sample: sample.idle_s), share(lambda sample: sample.steal_s)
    busy_cpus = None
    if idle is not None and cpus is not None:
        busy_cpus = max(0.0, cpus - idle - (steal or 0.0))
    threads = [
        sample.runnable
        for sample in samples
        if sample.runnable is not None and window.begin_ns <= sample.at_ns <= window.end_ns
    ]
    others = None if busy_cpus is None else max(0.0, busy_cpus - sum(parts_s.values()) / seconds)
    return MachineUse(
        machine=machine.name,
        window=window.name,
        hop=window.hop,
        begin_ns=window.begin_ns,
        end_ns=window.end_ns,
        cpus=cpus,
        busy_cpus=_rounded(busy_cpus),
        others_cpus=_rounded(others),
        steal=_rounded(None if steal is None or cpus is None else steal / cpus),
        runnable=median(threads) if threads else None,
        cpu_pressure=_rounded(share(lambda sample: sample.cpu_some_s)),
        memory_pressure=_rounded(share(lambda sample: sample.memory_some_s)),
        io_pressure=_rounded(share(lambda sample: sample.io_some_s)),
        swapped_mib=_rounded(grown(lambda sample: sample.swapped_mib)),
        throttled_s=_rounded(grown(lambda sample: sample.throttled_s)),
        parts_s=parts_s,
    )


def _part(name: str) -> Callable[[MachineSample], float]:
    return lambda sample: sample.parts_s.get(name, 0.0)


def _at(known: Sequence[tuple[int, float]], at_ns: int) -> float:
    """A counter at a time between two looks, as if it had grown evenly between them."""
    for (before_ns, before), (after_ns, after) in pairwise(known):
        if before_ns <= at_ns <= after_ns:
            return before + (after - before) * (at_ns - before_ns) / max(1, after_ns - before_ns)
    return known[0][1] if at_ns < known[0][0] else known[-1][1]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


# --- whether that is quiet ------------------------------------------------------------------------


class Reason(NamedTuple):
    """Why a machine is called busy: ``excess`` tells which of several windows was the worst."""

    kind: str
    excess: float
    text: str


def reasons(used: MachineUse) -> Iterator[Reason]:
    """Of one window, by the limits above."""
    seconds = (used.end_ns - used.begin_ns) / 1e9
    cpus = used.cpus or 1.0
    if used.others_cpus is not None and used.others_cpus > max(OTHERS_CPUS, OTHERS_SHARE * cpus):
        text = f"programs of others used {used.others_cpus:.2f} of {cpus:g} CPUs"
        yield Reason("others", used.others_cpus, text)
    if used.steal is not None and used.steal > STEAL:
        text = f"the hypervisor below took {used.steal:.0%} of the CPUs' time (steal)"
        yield Reason("steal", used.steal, text)
    if used.memory_pressure is not None and used.memory_pressure > MEMORY:
        text = f"threads waited for memory {used.memory_pressure:.0%} of the time"
        yield Reason("memory", used.memory_pressure, text)
    if used.swapped_mib is not None and used.swapped_mib > SWAPPED_MIB:
        yield Reason("swap", used.swapped_mib, f"{used.swapped_mib:.0f} MiB were swapped")
    if used.throttled_s is not None and used.throttled_s > THROTTLED * seconds:
        text = f"a quota kept the attempt's programs from running for {used.throttled_s:.2f} s"
        yield Reason("throttled", used.throttled_s, text)


def busy(
    machines: Sequence[MachineRecording], uses: Sequence[MachineUse], hops: int
) -> tuple[str, ...] | None:
    """A sentence for each machine and kind of reason, of its worst window; None: not known, for
    a machine was not seen over the floor and the moves."""
    worst: dict[tuple[str, str], tuple[Reason, MachineUse]] = {}
    for used in uses:
        for reason in reasons(used) if used.window != "start" else ():
            key = used.machine, reason.kind
            if key not in worst or worst[key][0].excess < reason.excess:
                worst[key] = reason, used
    others = {machine.name: machine.others_s for machine in machines}
    told = [
        f"{_where(used, hops)}: {_named(reason, others[used.machine])}"
        for reason, used in worst.values()
    ]
    told += [
        f"{machine.name}: a CPU was too hot, and slowed down, {machine.overheated} times"
        for machine in machines
        if machine.overheated
    ]
    seen = {(used.machine, used.window, used.hop) for used in uses if used.others_cpus is not None}
    wanted = {
        (machine.name, window, hop)
        for machine in machines
        for window, hop in (("floor", 0), *(("move", number) for number in range(1, hops + 1)))
    }
    return tuple(told) if told or wanted <= seen else None


def busy_lately(machine: MachineRecording) -> tuple[str, ...]:
    """Why a machine is busy, by its last two looks."""
    if len(machine.samples) < 2:
        return ()
    before, last = machine.samples[-2:]
    used = use(machine, Window("start", 0, before.at_ns, last.at_ns))
    return tuple(f"{machine.name}: {_named(reason, machine.others_s)}" for reason in reasons(used))


def _named(reason: Reason, others_s: Mapping[str, float]) -> str:
    names = ", ".join(list(others_s)[:NAMED]) if reason.kind == "others" else ""
    return f"{reason.text}: {names}" if names else reason.text


def _where(used: MachineUse, hops: int) -> str:
    names = {"start": "the start", "floor": "the floor", "after": "after the move"}
    move = f"move {used.hop}" if hops > 1 else "the move"
    return f"{used.machine}, {names.get(used.window, move)}"


def _contended(uses: Sequence[MachineUse]) -> Iterator[str]:
    for used in uses:
        quiet = used.window == "move" and not any(reasons(used))
        if quiet and used.cpu_pressure is not None and used.cpu_pressure > CONTENDED:
            own = None
            if used.busy_cpus is not None and used.others_cpus is not None:
                own = used.busy_cpus - used.others_cpus
            using = "" if own is None else f", using {own:.1f} of {used.cpus or 1:g}"
            yield (
                f"{used.machine}, move {used.hop}: the attempt's own programs waited for a CPU "
                f"{used.cpu_pressure:.0%} of the time{using}"
            )
