"""The machines that an attempt ran on: what they are, and how busy they were meanwhile.

A machine is one kernel: hosts that share one (namespaces of the controller's) share a machine.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from migrate.model.base import NotNegative, Positive, Value

MachineWindow = Literal["start", "floor", "move", "after"]
"""``start``: until the floor is measured; ``after``: from the last move's end to the traffic's."""


class MachineFacts(Value):
    """What a machine is made of; empty or None: it does not say."""

    cpu: str = ""
    cpus: int | None = None
    """That are online."""
    microcode: str = ""
    virtualised: str = ""
    """By whom, as its firmware names the machine; ``yes`` if only its CPU says so."""
    governor: str = ""
    """Of the first CPU's frequency."""
    memory_mib: int | None = None
    kernel: str = ""


class MachineSample(Value):
    """One look at a machine. Seconds and MiB count since the first look; None: not there.

    Sources: proc(5), ``Documentation/accounting/psi.rst`` and
    ``Documentation/admin-guide/cgroup-v2.rst`` of Linux.
    """

    at_ns: int
    error_ns: NotNegative
    idle_s: NotNegative | None = None
    """Of all CPUs together. That a CPU was idle Linux measures; that it was busy, it counts in
    ticks, and what sleeps between them is missed: a third, with the meter's packets."""
    steal_s: NotNegative | None = None
    """A CPU was wanted, and the hypervisor below had given it to somebody else."""
    runnable: int | None = None
    """Threads that run or wait for a CPU, at this moment."""
    cpu_some_s: NotNegative | None = None
    """PSI: at least one thread waited for a CPU."""
    memory_some_s: NotNegative | None = None
    io_some_s: NotNegative | None = None
    swapped_mib: NotNegative | None = None
    """In and out."""
    throttled_s: NotNegative | None = None
    """A cgroup of ours was kept from running by its quota."""
    parts_s: dict[str, NotNegative] = Field(default={})
    """CPU time of each program of the attempt, e.g. ``qemu on a``."""


class MachineRecording(Value):
    """A machine while an attempt went on."""

    name: str
    """``controller``, else the first of its hosts."""
    hosts: tuple[str, ...] = ()
    facts: MachineFacts = MachineFacts()
    samples: tuple[MachineSample, ...] = ()
    others_s: dict[str, NotNegative] = Field(default={})
    """CPU time of programs of others by name, the greediest first, from the first to the last
    sample; of those that ran at both."""
    overheated: int | None = None
    """How often a CPU was slowed down because it was too hot."""
    unseen: tuple[str, ...] = ()
    """What was not measured, and why."""


class MachineUse(Value):
    """How a machine was used in a stretch of an attempt; shares are of 1, None: not measured."""

    machine: str
    window: MachineWindow
    hop: int = 0
    """Which move it was, from 1; 0: none."""
    begin_ns: int
    end_ns: int
    cpus: Positive | None = None
    busy_cpus: NotNegative | None = None
    """How many CPUs were busy, in the mean."""
    others_cpus: NotNegative | None = None
    """Of these, by programs that are not the attempt's."""
    steal: NotNegative | None = None
    """Share of all CPUs' time."""
    runnable: NotNegative | None = None
    """Median."""
    cpu_pressure: NotNegative | None = None
    """Share of the time in which a thread waited for a CPU, by PSI (``some``)."""
    memory_pressure: NotNegative | None = None
    io_pressure: NotNegative | None = None
    swapped_mib: NotNegative | None = None
    throttled_s: NotNegative | None = None
    parts_s: dict[str, NotNegative] = Field(default={})


class MachineState(Value):
    """The machines of an attempt: what they are, how they were used, and whether that is quiet."""

    facts: dict[str, MachineFacts] = Field(default={})
    """By machine."""
    uses: tuple[MachineUse, ...] = ()
    busy: tuple[str, ...] | None = None
    """Why the attempt's figures are those of a busy machine; None: it was not measured."""
    contended: tuple[str, ...] = ()
    """Where the attempt's own programs waited for a CPU, beside nobody else."""
    others_s: dict[str, dict[str, NotNegative]] = Field(default={})
    """By machine: programs of others and their CPU time, the greediest first."""
    unseen: tuple[str, ...] = ()
