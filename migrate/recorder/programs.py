"""CPU time of an attempt's own programs on one host, and how its cgroups were throttled."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from migrate.clock import Deadline
from migrate.formats.proc_files import cgroup_files, process_time, throttled_s
from migrate.lab.small_files import SmallFiles

SSHD_AT_MOST = 4
"""Steps from a program to the sshd that it came by: a shell or two lie between."""


def stat_file(pid: int) -> str:
    """Where Linux tells of a process."""
    return f"/proc/{pid}/stat"


@dataclass(slots=True)
class Programs:
    """Programs in one place, by name; each is looked up by a file that has its number.

    A program that has ended keeps what it had used when it was last seen; one that comes while we
    look counts from its own begin.
    """

    files: SmallFiles
    pid_files: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By name: the files that may have its number, one or the other by the distribution."""
    stats: Mapping[str, str] = field(default_factory=dict)
    """By name: ``/proc/PID/stat`` of what is there all the time."""
    used_s: dict[str, float] = field(default_factory=dict)
    throttled_s: float | None = None
    _pids: dict[str, int] = field(default_factory=dict)
    _last: dict[str, float] = field(default_factory=dict)
    """By file: what it said last, of CPU time or of throttling."""
    _cgroups: set[str] = field(default_factory=set)
    _looked: bool = False

    def look(self, more: Sequence[str], deadline: Deadline) -> Mapping[str, str]:
        """Look at them, in one go with the files ``more``, which are returned."""
        numbers = [path for paths in self.pid_files.values() for path in paths]
        texts = dict(self.files.read([*more, *numbers, *self._known()], deadline))
        fresh = dict(self._fresh(texts))
        self._pids |= fresh
        stats = [path for pid in fresh.values() for path in (stat_file(pid), _cgroup_file(pid))]
        if not self._looked:
            stats += [_cgroup_file_of(path) for path in self.stats.values()]
        if stats:
            texts |= self.files.read(stats, deadline)
        quotas = {
            quota
            for path in stats
            if path.endswith("/cgroup")
            for quota in cgroup_files(texts.get(path, ""))
        }
        if quotas - self._cgroups:
            texts |= self.files.read(sorted(quotas - self._cgroups), deadline)
            self._cgroups |= quotas
        self._count(texts)
        self._looked = True
        return texts

    def pids(self) -> frozenset[int]:
        """Of those that were seen, as the place numbers them."""
        named = (path.split("/")[2] for path in self.stats.values())
        return frozenset((*self._pids.values(), *(int(n) for n in named if _is_pid(n))))

    def _known(self) -> Iterable[str]:
        return (
            *self.stats.values(),
            *(stat_file(pid) for pid in self._pids.values()),
            *sorted(self._cgroups),
        )

    def _fresh(self, texts: Mapping[str, str]) -> Iterable[tuple[str, int]]:
        for name, paths in self.pid_files.items():
            said = next((texts[path].strip() for path in paths if path in texts), "")
            if _is_pid(said) and self._pids.get(name) != int(said):
                yield name, int(said)

    def _count(self, texts: Mapping[str, str]) -> None:
        for name, path in self.stats.items():
            self._add(name, path, texts, children=True)
        for name, pid in self._pids.items():
            self._add(name, stat_file(pid), texts, children=False)
        for path in self._cgroups:
            now_s = throttled_s(texts.get(path, ""))
            if now_s is not None:
                since_s = now_s - self._last.get(path, now_s)
                self.throttled_s = (self.throttled_s or 0.0) + max(0.0, since_s)
                self._last[path] = now_s

    def _add(self, name: str, path: str, texts: Mapping[str, str], *, children: bool) -> None:
        process = process_time(texts.get(path, ""))
        if process is None:
            return
        now_s = process.own_s + (process.children_s if children else 0.0)
        before_s = self._last.get(path, 0.0 if self._looked else now_s)
        self.used_s[name] = self.used_s.get(name, 0.0) + max(0.0, now_s - before_s)
        self._last[path] = now_s


def _is_pid(text: str) -> bool:
    return re.fullmatch("[0-9]{1,9}", text) is not None


def _cgroup_file(pid: int) -> str:
    return f"/proc/{pid}/cgroup"


def _cgroup_file_of(stat: str) -> str:
    return stat.removesuffix("/stat") + "/cgroup"


def our_sshd(files: SmallFiles, deadline: Deadline) -> str | None:
    """``/proc/PID/stat`` of the sshd that brought the reader of ``files`` to its host, whose
    children our commands there are; None: it came some other way."""
    path = "/proc/self/stat"
    for _ in range(SSHD_AT_MOST):
        process = process_time(files.read([path], deadline).get(path, ""))
        if process is None:
            return None
        if process.name.startswith("sshd"):
            return path
        path = stat_file(process.parent)
    return None
