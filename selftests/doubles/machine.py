"""A machine on paper: files of /proc that grow by what it is told to do, and its processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from migrate.clock import Deadline
from migrate.drivers.shell import Completed
from migrate.errors import HostError
from migrate.model import MachineFacts, MachineRecording, MachineSample

S = 1_000_000_000
CPUINFO = """\
processor	: 0
model name	: AMD EPYC 7713
microcode	: 0xa0011d1
flags		: fpu hypervisor lahf_lm

processor	: 1
model name	: another
"""


def stat_line(pid: int, name: str, cpu_s: float, parent: int = 1, children_s: float = 0.0) -> str:
    """``/proc/PID/stat``; user and system time are half of it each."""
    half, ended = round(cpu_s * 50), round(children_s * 50)
    return (
        f"{pid} ({name}) S {parent} 1 1 0 -1 4194304 1 2 3 4 {half} {half} {ended} {ended} 20 0\n"
    )


@dataclass(slots=True)
class PaperMachine:
    """Files by path; a path that is None is not there."""

    boot: str = "one"
    cpus: int = 2
    idle_s: float = 100.0
    steal_s: float = 0.0
    pressure: bool = True
    stalled_s: float = 0.0
    swapped_pages: int = 0
    threads: int = 1
    files: dict[str, str] = field(default_factory=dict)
    processes: dict[int, tuple[str, float]] = field(default_factory=dict)
    """Name and CPU time."""
    throttled: int | None = None
    """Of CPUs by heat."""
    answers: int = 10**9
    """How many more times it answers."""
    asked: int = 0

    def read(self, paths: Sequence[str], _deadline: Deadline) -> Mapping[str, str]:
        """See SmallFiles."""
        self.asked += 1
        if self.asked > self.answers:
            raise HostError("read small files", host="b", said="no answer before the deadline")
        there = self._all()
        return {path: there[path] for path in paths if path in there}

    def run(self, argv: Sequence[str], _deadline: Deadline) -> Completed:
        """The census."""
        stats = "".join(stat_line(pid, *known) for pid, known in self.processes.items())
        heat = "" if self.throttled is None else f"{self.throttled}\n0\n"
        return Completed(tuple(argv), 0, f"{stats}\n{heat}", "")

    def _all(self) -> dict[str, str]:
        idle, steal = round(self.idle_s * 100), round(self.steal_s * 100)
        pressure = f"some avg10=1.00 avg60=1.00 avg300=1.00 total={self.stalled_s * 1e6:.0f}\n"
        pressed = {f"/proc/pressure/{name}": pressure for name in ("cpu", "memory", "io")}
        stats = {f"/proc/{p}/stat": stat_line(p, *known) for p, known in self.processes.items()}
        return {
            "/proc/sys/kernel/random/boot_id": self.boot,
            "/proc/stat": f"cpu  999 0 1 {idle} 0 0 3 {steal} 0 0\ncpu0 1 2 3\n",
            "/proc/loadavg": f"0.50 0.40 0.30 {self.threads}/200 4711\n",
            "/proc/vmstat": f"pswpin 0\npswpout {self.swapped_pages}\npgfault 1\n",
            "/proc/cpuinfo": CPUINFO,
            "/proc/meminfo": "MemTotal:        2097152 kB\n",
            "/sys/devices/system/cpu/online": f"0-{self.cpus - 1}\n",
            **(pressed if self.pressure else {}),
            **stats,
            **self.files,
        }


def looks(
    seconds: int, per_s: Mapping[str, float], *, name: str = "controller", cpus: int = 2
) -> MachineRecording:
    """A machine that was looked at every second; ``per_s``: how much a counter grows a second, with
    ``qemu`` for the CPU time of a program of ours."""
    grows = {counter: rate for counter, rate in per_s.items() if counter != "qemu"}
    samples = tuple(
        MachineSample(
            at_ns=second * S,
            error_ns=0,
            parts_s={"qemu on a": second * per_s.get("qemu", 0.0)},
            runnable=1,
            **{counter: second * rate for counter, rate in grows.items()},
        )
        for second in range(seconds + 1)
    )
    return MachineRecording(name=name, facts=MachineFacts(cpus=cpus, cpu="X"), samples=samples)
