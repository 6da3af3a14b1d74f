"""The machines of an attempt, sampled while it goes on: the controller's and each host's.

Hosts that share a kernel share a machine: it is sampled once, and the programs on each of them. A
look is a handful of small files, twice a second; over ssh one program reads them, so that no look
starts a process. What a machine does not have is said once, and stays None.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from migrate.backends.registry import PROCESSES
from migrate.clock import Deadline, now_ns
from migrate.drivers import shell
from migrate.drivers.shell import Completed
from migrate.errors import LabError
from migrate.formats import proc_files
from migrate.guest.lifecycle import PID_FILE
from migrate.lab.api import Host, Lab
from migrate.lab.small_files import LocalFiles, SmallFiles
from migrate.model import MachineFacts, MachineRecording, MachineSample
from migrate.recorder.programs import Programs, our_sshd, stat_file

CONTROLLER = "controller"
EVERY_S = 0.5
"""Between two looks: a look costs a millisecond or two of one CPU."""
LOOK_S = 5.0
"""For a machine to answer; times the lab's patience."""
GREEDIEST = 5
"""Programs of others that are named, at most."""
REAPER = 1
"""Process 1 is given the time of every daemon that ends, of a guest of ours, say: it is not its."""
LEAST_S = 0.01
"""Of CPU time: Linux counts it in ticks."""

BOOT, STAT, LOADAVG = "/proc/sys/kernel/random/boot_id", "/proc/stat", "/proc/loadavg"
VMSTAT, ONLINE = "/proc/vmstat", "/sys/devices/system/cpu/online"
CPU, MEMORY, IO = (f"/proc/pressure/{name}" for name in ("cpu", "memory", "io"))
LOOKED_AT = (STAT, LOADAVG, CPU, MEMORY, IO, VMSTAT)
CPUINFO, MEMINFO, RELEASE = "/proc/cpuinfo", "/proc/meminfo", "/proc/sys/kernel/osrelease"
GOVERNOR = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
VENDOR, PRODUCT = "/sys/class/dmi/id/sys_vendor", "/sys/class/dmi/id/product_name"
FACTS = (CPUINFO, MEMINFO, RELEASE, GOVERNOR, VENDOR, PRODUCT, ONLINE)
CENSUS = r"""
cat /proc/[0-9]*/stat 2>/dev/null
echo
cat /sys/devices/system/cpu/cpu*/thermal_throttle/*_throttle_count 2>/dev/null
exit 0
"""
LIBVIRT = ("/run/libvirtd.pid", "/run/virtqemud.pid")

MISSING = {
    "idle_s": f"CPU time not measured: it has no {STAT}",
    "cpu_some_s": "pressure not measured: its kernel has no PSI, or has it with psi=1 alone",
    "throttled_s": "throttling not measured: no cgroup of the attempt's programs counts it",
}
"""Why a field of a sample is not there."""

Run = Callable[[Sequence[str], Deadline], Completed]


def facts_of(files: SmallFiles, deadline: Deadline) -> MachineFacts:
    """What a machine is made of. Raises HostError."""
    said = files.read(FACTS, deadline)
    info = said.get(CPUINFO, "")
    firmware = " ".join(said[path].strip() for path in (VENDOR, PRODUCT) if path in said)
    virtual = "hypervisor" in proc_files.cpu_field(info, "flags").split()
    return MachineFacts(
        cpu=proc_files.cpu_field(info, "model name"),
        cpus=proc_files.count_cpus(said.get(ONLINE, "")),
        microcode=proc_files.cpu_field(info, "microcode"),
        virtualised=(firmware or "yes") if virtual else "",
        governor=said.get(GOVERNOR, "").strip(),
        memory_mib=proc_files.memory_mib(said.get(MEMINFO, "")),
        kernel=said.get(RELEASE, "").strip(),
    )


# --- one machine ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Census:
    """All processes of a machine at a moment, and how often its CPUs had been too hot."""

    processes: Mapping[int, proc_files.ProcessTime]
    overheated: int | None

    @classmethod
    def of(cls, said: str) -> Census:
        """What :data:`CENSUS` printed."""
        stats, _, counts = said.rpartition("\n\n")
        numbers = [int(n) for n in counts.splitlines() if re.fullmatch("[0-9]{1,18}", n)]
        return cls(proc_files.processes(stats), sum(numbers) if numbers else None)

    def used_since(self, earlier: Census, roots: frozenset[int]) -> dict[str, float]:
        """CPU time by name of programs that are not below ``roots``, the greediest first."""
        used: dict[str, float] = {}
        # A child that has ended gave its whole life's time to its parent.
        before_s: dict[int, float] = {}
        for pid, process in earlier.processes.items():
            heir = pid if pid in self.processes else process.parent
            ended_s = 0.0 if pid == REAPER else process.children_s
            before_s[heir] = before_s.get(heir, 0.0) + process.own_s + ended_s
        for pid, process in self.processes.items():
            before = earlier.processes.get(pid)
            if before is None or before.name != process.name or self._is_below(pid, roots):
                continue
            ended_s = 0.0 if pid == REAPER else process.children_s
            more = process.own_s + ended_s - before_s[pid]
            if more >= LEAST_S:
                used[process.name] = used.get(process.name, 0.0) + more
        first = sorted(used.items(), key=lambda pair: -pair[1])[:GREEDIEST]
        return {name: round(seconds, 3) for name, seconds in first}

    def _is_below(self, pid: int, roots: frozenset[int]) -> bool:
        seen: set[int] = set()
        while pid in self.processes and pid not in seen:
            if pid in roots:
                return True
            seen.add(pid)
            pid = self.processes[pid].parent
        return False


@dataclass(slots=True)
class Machine:
    """One machine, looked at now and then; the first of its programs is where its files are."""

    name: str
    hosts: tuple[str, ...]
    programs: dict[str, Programs]
    """By host; empty: on none of them, the machine's own."""
    run: Run
    roots: frozenset[int] = frozenset()
    """Processes whose descendants are ours, as the machine numbers them."""
    facts: MachineFacts = field(default_factory=MachineFacts)
    samples: list[MachineSample] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    others_s: dict[str, float] = field(default_factory=dict)
    overheated: int | None = None
    _zero: dict[str, float] = field(default_factory=dict)
    _census: Census | None = None

    def begin(self, deadline: Deadline) -> None:
        """What it is, who runs on it, and the first look. Raises HostError."""
        files = next(iter(self.programs.values())).files
        self.facts = facts_of(files, deadline)
        self._census = self._count(deadline)
        self.look(deadline)

    def look(self, deadline: Deadline) -> None:
        """One sample more. Raises HostError."""
        asked_ns = now_ns()
        first, *others = self.programs.values()
        said = first.look(LOOKED_AT, deadline)
        half_ns = (now_ns() - asked_ns + 1) // 2
        for programs in others:
            programs.look((), deadline)
        self.samples.append(self._sample(said, asked_ns + half_ns, half_ns))

    def name_others(self, deadline: Deadline) -> None:
        """Who else has run on it since this was last asked; nothing if it can't be asked."""
        earlier, later = self._census, self._count(deadline)
        if earlier is None or later is None:
            return
        self.others_s = later.used_since(earlier, self.roots | self._pids(later))
        if earlier.overheated is not None and later.overheated is not None:
            self.overheated = max(0, later.overheated - earlier.overheated)
        self._census = later

    def recording(self) -> MachineRecording:
        """All of it."""
        return MachineRecording(
            name=self.name,
            hosts=self.hosts,
            facts=self.facts,
            samples=tuple(self.samples),
            others_s=self.others_s,
            overheated=self.overheated,
            unseen=(*self._missing(), *self.unseen),
        )

    def _count(self, deadline: Deadline) -> Census | None:
        try:
            return Census.of(self.run(["sh", "-c", CENSUS], deadline).out)
        except LabError as error:
            self.unseen.append(f"who else ran on {self.name}: {error}")
            return None

    def _pids(self, census: Census) -> frozenset[int]:
        """Of programs of ours that are numbered as the machine numbers them."""
        first = next(iter(self.programs.values()))
        return frozenset(pid for pid in first.pids() if pid in census.processes)

    def _sample(self, said: Mapping[str, str], at_ns: int, error_ns: int) -> MachineSample:
        times = proc_files.cpu_times(said.get(STAT, ""))
        since = self._since
        throttled = [p.throttled_s for p in self.programs.values() if p.throttled_s is not None]
        return MachineSample(
            at_ns=at_ns,
            error_ns=error_ns,
            idle_s=since("idle", times.idle_s if times else None),
            steal_s=since("steal", times.steal_s if times else None),
            runnable=proc_files.runnable(said.get(LOADAVG, "")),
            cpu_some_s=since(CPU, proc_files.stalled_s(said.get(CPU, ""))),
            memory_some_s=since(MEMORY, proc_files.stalled_s(said.get(MEMORY, ""))),
            io_some_s=since(IO, proc_files.stalled_s(said.get(IO, ""))),
            swapped_mib=since(VMSTAT, proc_files.swapped_mib(said.get(VMSTAT, ""))),
            throttled_s=round(sum(throttled), 6) if throttled else None,
            parts_s=dict(self._parts()),
        )

    def _since(self, name: str, now: float | None) -> float | None:
        """Since the first look; a counter that went back, as over a restore, has not moved."""
        if now is None:
            return None
        return round(max(0.0, now - self._zero.setdefault(name, now)), 6)

    def _parts(self) -> Iterator[tuple[str, float]]:
        for host, programs in self.programs.items():
            for name, seconds in programs.used_s.items():
                yield f"{name} on {host}" if host else name, round(seconds, 3)

    def _missing(self) -> Iterator[str]:
        """What no sample has."""
        for name, reason in MISSING.items():
            if self.samples and all(getattr(sample, name) is None for sample in self.samples):
                yield f"{self.name}: {reason}"


# --- all of an attempt's --------------------------------------------------------------------------


@dataclass(slots=True)
class Machines:
    """All machines of an attempt, each sampled by a thread of its own while the block runs."""

    machines: list[Machine]
    patience: float
    notes: list[str] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    @contextmanager
    def sampling(self) -> Iterator[Machines]:
        """Look at each again and again while the block runs, or until :meth:`stop`."""
        for machine in self.machines:
            thread = threading.Thread(
                target=self._look_on, args=(machine,), name=f"machine {machine.name}", daemon=True
            )
            self._threads.append(thread)
            thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            self._join()

    def stop(self) -> tuple[MachineRecording, ...]:
        """The last look at each, and all that was recorded."""
        self._ended.set()
        self._join()
        return tuple(machine.recording() for machine in self.machines)

    def _join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _deadline(self) -> Deadline:
        return Deadline.after(LOOK_S * self.patience)

    def _look_on(self, machine: Machine) -> None:
        """Until the end, or until it does not answer: a host may be off on purpose."""
        try:
            machine.begin(self._deadline())
            ended = False
            while not ended:
                ended = self._ended.wait(EVERY_S)
                machine.look(self._deadline())
            machine.name_others(self._deadline())
        except LabError as error:
            machine.unseen.append(f"{machine.name} after {len(machine.samples)} looks: {error}")


@contextmanager
def sampled(lab: Lab, pair: Sequence[Host], peer_pid: int | None = None) -> Iterator[Machines]:
    """The controller's machine and those of ``pair``, sampled while the block runs.

    ``peer_pid``: of the peer's probe, if it runs on this machine.
    """
    with ExitStack() as stack:
        machines = machines_of(lab, pair, peer_pid, stack)
        yield stack.enter_context(Machines(machines, lab.patience).sampling())


def machines_of(
    lab: Lab,
    pair: Sequence[Host],
    peer_pid: int | None,
    stack: ExitStack,
) -> list[Machine]:
    """Each machine once: hosts that tell the same boot id share one."""
    deadline = Deadline.after(LOOK_S * lab.patience)
    here = LocalFiles()
    known = {"migrate-lab": "/proc/self/stat"}
    known |= {"peer": stat_file(peer_pid)} if peer_pid is not None else {}
    roots = frozenset((os.getpid(), *(place.init_pid for place in lab.places.values())))
    own = {"": Programs(here, stats=known), **_outer(lab)}
    controller = Machine(CONTROLLER, (), own, shell.run, roots)
    machines = {here.read([BOOT], deadline).get(BOOT, ""): controller}
    pid_files = {"qemu": (PID_FILE,), "libvirt": LIBVIRT, **PROCESSES}
    for host in pair:
        try:
            files = stack.enter_context(host.small_files(deadline))
            boot = files.read([BOOT], deadline).get(BOOT, host.name)
            sshd = our_sshd(files, deadline)
        except LabError as error:
            controller.unseen.append(f"the machine of {host.name}: {error}")
            continue
        programs = Programs(files, pid_files, {"ssh": sshd} if sshd else {})
        shared = machines.setdefault(boot, Machine(host.name, (), {}, host.run))
        shared.hosts = (*shared.hosts, host.name)
        shared.programs[host.name] = programs
    return list(machines.values())


def _outer(lab: Lab) -> dict[str, Programs]:
    """Programs on this machine that are the machines of hosts."""
    if (pid_file := lab.machine_pid_file) is None:
        return {}
    named = {"machine": (pid_file,)}
    return {name: Programs(LocalFiles(place.file), named) for name, place in lab.places.items()}
