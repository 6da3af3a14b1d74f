"""Files of /proc as kernels of several ages write them, and as they are when they are damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrate.formats import proc_files

STAT = "cpu  1136575 50710 298079 796618 7778 0 11575 4920 0 0\ncpu0 554799 24319 143469 420388\n"
PRESSURE = """\
some avg10=3.70 avg60=4.22 avg300=4.64 total=4282940024
full avg10=0.00 avg60=0.00 avg300=0.00 total=12
"""
V2 = "usage_usec 9\nnr_periods 4\nnr_throttled 2\nthrottled_usec 1500000\n"
V1 = "nr_periods 4\nnr_throttled 2\nthrottled_time 1500000000\n"


def test_a_cpu_that_waits_for_a_disk_is_idle_and_steal_is_told_apart() -> None:
    assert proc_files.cpu_times(STAT) == pytest.approx((8043.96, 49.2))


def test_pressure_is_the_sum_and_not_an_average() -> None:
    assert proc_files.stalled_s(PRESSURE) == pytest.approx(4282.940024)


@pytest.mark.parametrize("text", [V2, V1])
def test_throttling_of_both_versions_of_cgroups(text: str) -> None:
    assert proc_files.throttled_s(text) == pytest.approx(1.5)


def test_a_root_cgroup_counts_no_throttling() -> None:
    assert proc_files.throttled_s("usage_usec 9\nuser_usec 1\nsystem_usec 8\n") is None


def test_a_quota_may_be_of_any_cgroup_above() -> None:
    assert proc_files.cgroup_files("0::/machine.slice/qemu\n") == (
        "/sys/fs/cgroup/cpu.stat",
        "/sys/fs/cgroup/machine.slice/cpu.stat",
        "/sys/fs/cgroup/machine.slice/qemu/cpu.stat",
    )
    assert proc_files.cgroup_files("9:name=systemd:/\n2:cpu,cpuacct:/x\n") == (
        "/sys/fs/cgroup/cpu/cpu.stat",
        "/sys/fs/cgroup/cpu/x/cpu.stat",
    )


@pytest.mark.parametrize("line", ["0::/../../etc", "0::/a b", "0:", "", "1:cpuset:/x"])
def test_a_cgroup_that_leads_elsewhere_is_not_read(line: str) -> None:
    assert proc_files.cgroup_files(line) == ()


def test_a_process_may_be_called_anything() -> None:
    line = "7 (a) S 1 (b) R 3 4 5 0 -1 6 7 8 9 10 150 50 30 10 20 0 1 0\n"
    process = proc_files.process_time(line)
    assert process is not None
    assert process.name == "a) S 1 (b"
    assert (process.pid, process.parent) == (7, 3)
    assert (process.own_s, process.children_s) == (2.0, 0.4)


def test_swap_counts_both_ways() -> None:
    assert proc_files.swapped_mib("pswpin 256\npswpout 512\n") == pytest.approx(3.0)


@pytest.mark.parametrize(("text", "count"), [("0-3,6\n", 5), ("0\n", 1), ("", None), ("a-b", None)])
def test_cpus_that_are_online(text: str, count: int | None) -> None:
    assert proc_files.count_cpus(text) == count


def test_what_a_machine_says_of_its_first_cpu() -> None:
    info = "processor : 0\nmodel name\t: AMD EPYC\n\nmodel name : other\n"
    assert proc_files.cpu_field(info, "model name") == "AMD EPYC"
    assert proc_files.cpu_field(info, "microcode") == ""


@given(st.text(max_size=200))
def test_nonsense_is_not_there(text: str) -> None:
    for read in (
        proc_files.cpu_times,
        proc_files.runnable,
        proc_files.stalled_s,
        proc_files.swapped_mib,
        proc_files.throttled_s,
        proc_files.process_time,
        proc_files.count_cpus,
        proc_files.memory_mib,
    ):
        read(text)
    proc_files.cgroup_files(text)
    proc_files.processes(text)


def test_this_machine_is_read() -> None:
    assert proc_files.cpu_times(Path("/proc/stat").read_text()) is not None
    assert proc_files.process_time(Path("/proc/self/stat").read_text()) is not None
    assert (proc_files.runnable(Path("/proc/loadavg").read_text()) or 0) >= 1
