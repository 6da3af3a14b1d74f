"""Linux' own account of a machine: files of /proc, /sys and of cgroups, as text.

Whatever is cut short, of another kernel, or nonsense is None: not there; a number of more than 18
digits is none of the kernel's. Sources: proc(5),
``Documentation/accounting/psi.rst``, ``Documentation/admin-guide/cgroup-v2.rst`` (``cpu.stat``) and
``Documentation/scheduler/sched-bwc.rst`` (the same of cgroup v1).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

TICKS_S = 100
"""USER_HZ, the unit of CPU times in /proc: 100 on all that Linux calls its x86 and ARM."""
PAGE_MIB = 4096 / 2**20
CGROUPS = "/sys/fs/cgroup"
LONGEST = 4096
"""Characters of a path (PATH_MAX)."""
DEEPEST = 32
"""Of cgroups inside of one another, and of hierarchies, that are looked at."""


class CpuTimes(NamedTuple):
    """Of all CPUs together, in seconds since the boot."""

    idle_s: float
    """Waiting for a disk included."""
    steal_s: float


class ProcessTime(NamedTuple):
    """A process: its CPU time in seconds, its own, and that of children that have ended."""

    pid: int
    name: str
    parent: int
    own_s: float
    children_s: float


def cpu_times(stat: str) -> CpuTimes | None:
    """Of ``/proc/stat``."""
    found = re.match(r"cpu +((?:[0-9]{1,18} ){7}[0-9]{1,18})\b", stat)
    if found is None:
        return None
    ticks = [int(number) for number in found[1].split()]
    return CpuTimes((ticks[3] + ticks[4]) / TICKS_S, ticks[7] / TICKS_S)


def runnable(loadavg: str) -> int | None:
    """Threads that run or wait for a CPU, of ``/proc/loadavg``."""
    found = re.match(r"\S+ \S+ \S+ ([0-9]{1,18})/[0-9]", loadavg)
    return int(found[1]) if found else None


def stalled_s(pressure: str) -> float | None:
    """How long at least one thread waited, of a file of ``/proc/pressure``."""
    found = re.search(r"^some .*total=([0-9]{1,18})$", pressure, re.M)
    return int(found[1]) / 1e6 if found else None


def swapped_mib(vmstat: str) -> float | None:
    """In and out since the boot, of ``/proc/vmstat``."""
    pages = [int(number) for number in re.findall(r"^pswp(?:in|out) ([0-9]{1,18})$", vmstat, re.M)]
    return sum(pages) * PAGE_MIB if pages else None


def throttled_s(cpu_stat: str) -> float | None:
    """Of a cgroup's ``cpu.stat``, of either version."""
    found = re.search(r"^throttled_(usec|time) ([0-9]{1,18})$", cpu_stat, re.M)
    if found is None:
        return None
    return int(found[2]) / (1e6 if found[1] == "usec" else 1e9)


def cgroup_files(cgroup: str) -> tuple[str, ...]:
    """``cpu.stat`` of a process's cgroup and of all above it, by its ``/proc/PID/cgroup``."""
    return tuple(
        f"{top}{part}/cpu.stat"
        for line in cgroup.splitlines()[:DEEPEST]
        for top, path in _cgroup_paths(line)
        for part in _ways_down(path)
    )


def _cgroup_paths(line: str) -> Iterator[tuple[str, str]]:
    _, _, rest = line.partition(":")
    controllers, colon, path = rest.partition(":")
    if not colon or not path.startswith("/") or ".." in path or " " in path:
        return
    if len(path) > LONGEST:
        return
    if not controllers:
        yield CGROUPS, path
    elif "cpu" in controllers.split(","):
        yield f"{CGROUPS}/cpu", path


def _ways_down(path: str) -> Iterator[str]:
    """The root, ``/a`` and ``/a/b`` of ``/a/b``: whichever has the quota throttles."""
    parts = [part for part in path.split("/") if part][:DEEPEST]
    for number in range(len(parts) + 1):
        yield "".join(f"/{part}" for part in parts[:number])


def process_time(stat: str) -> ProcessTime | None:
    """Of ``/proc/PID/stat``; a process's name may have any letters, parentheses too."""
    found = re.match(r"([0-9]{1,9}) \((.*)\) \S ([0-9]{1,9}) ((?:-?[0-9]{1,18} ){13})", stat, re.S)
    if found is None:
        return None
    utime, stime, cutime, cstime = (int(ticks) for ticks in found[4].split()[9:13])
    return ProcessTime(
        pid=int(found[1]),
        name=found[2],
        parent=int(found[3]),
        own_s=(utime + stime) / TICKS_S,
        children_s=(cutime + cstime) / TICKS_S,
    )


def processes(stats: str) -> dict[int, ProcessTime]:
    """Many files ``/proc/PID/stat`` one after the other, by process."""
    known = (process_time(line) for line in stats.splitlines())
    return {process.pid: process for process in known if process is not None}


def count_cpus(online: str) -> int | None:
    """Of ``/sys/devices/system/cpu/online``: ``0-3,6`` are 5."""
    count = 0
    for part in online.strip().split(","):
        found = re.fullmatch(r"([0-9]{1,6})(?:-([0-9]{1,6}))?", part)
        if found is None:
            return None
        count += max(0, int(found[2] or found[1]) - int(found[1]) + 1)
    return count or None


def cpu_field(cpuinfo: str, name: str) -> str:
    """Of the first CPU in ``/proc/cpuinfo``; empty: it has no such field."""
    found = re.search(rf"^{re.escape(name)}\s*: *(.*)$", cpuinfo, re.M)
    return found[1].strip() if found else ""


def memory_mib(meminfo: str) -> int | None:
    """All of it, of ``/proc/meminfo``."""
    found = re.search(r"^MemTotal: +([0-9]{1,18}) kB", meminfo, re.M)
    return int(found[1]) // 1024 if found else None
