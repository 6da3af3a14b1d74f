"""CPU time of an attempt's own programs, over programs that come, go and change their numbers."""

from __future__ import annotations

import pytest

from migrate.clock import Deadline
from migrate.recorder.programs import Programs, our_sshd
from selftests.doubles.machine import PaperMachine, stat_line

QEMU = "/run/libvirt/qemu/guest.pid"
DEADLINE = Deadline.after(3600)


def test_a_program_that_was_there_counts_from_the_first_look_a_new_one_from_its_begin() -> None:
    machine = PaperMachine(processes={7: ("libvirtd", 50.0)}, files={"/run/libvirtd.pid": "7\n"})
    programs = Programs(machine, {"qemu": [QEMU], "libvirt": ["/run/libvirtd.pid"]})
    programs.look((), DEADLINE)
    assert programs.used_s == {"libvirt": 0.0}
    machine.processes |= {7: ("libvirtd", 51.0), 9: ("qemu", 3.0)}
    machine.files[QEMU] = "9\n"
    programs.look((), DEADLINE)
    assert programs.used_s == {"libvirt": 1.0, "qemu": 3.0}


def test_a_guest_that_left_and_came_back_is_added_up() -> None:
    machine = PaperMachine(processes={9: ("qemu", 3.0)}, files={QEMU: "9"})
    programs = Programs(machine, {"qemu": [QEMU]})
    programs.look((), DEADLINE)
    machine.processes[9] = ("qemu", 5.0)
    programs.look((), DEADLINE)
    del machine.processes[9], machine.files[QEMU]
    programs.look((), DEADLINE)
    assert programs.used_s == {"qemu": 2.0}
    machine.processes[12], machine.files[QEMU] = ("qemu", 1.5), "12"
    programs.look((), DEADLINE)
    assert programs.used_s == {"qemu": 3.5}


def test_the_daemon_is_found_by_the_file_that_there_is() -> None:
    machine = PaperMachine(processes={8: ("virtqemud", 1.0)}, files={"/run/virtqemud.pid": "8\n"})
    programs = Programs(machine, {"libvirt": ["/run/libvirtd.pid", "/run/virtqemud.pid"]})
    programs.look((), DEADLINE)
    assert programs.pids() == {8}


@pytest.mark.parametrize("text", ["", "x\n", "-1\n", "12 13\n"])
def test_a_pid_file_with_nonsense_is_nobody(text: str) -> None:
    programs = Programs(PaperMachine(files={QEMU: text}), {"qemu": [QEMU]})
    programs.look((), DEADLINE)
    assert programs.used_s == {}


def test_a_quota_that_throttles_is_seen_wherever_it_is() -> None:
    slice_stat = "/sys/fs/cgroup/machine.slice/cpu.stat"
    machine = PaperMachine(
        processes={9: ("qemu", 3.0)},
        files={
            QEMU: "9",
            "/proc/9/cgroup": "0::/machine.slice/vm\n",
            slice_stat: "throttled_usec 5000000\n",
        },
    )
    programs = Programs(machine, {"qemu": [QEMU]})
    programs.look((), DEADLINE)
    assert programs.throttled_s == 0.0
    machine.files[slice_stat] = "throttled_usec 5250000\n"
    programs.look((), DEADLINE)
    assert programs.throttled_s == pytest.approx(0.25)


def test_without_a_quota_throttling_is_not_measured() -> None:
    programs = Programs(PaperMachine(processes={9: ("qemu", 3.0)}, files={QEMU: "9"}))
    programs.look((), DEADLINE)
    assert programs.throttled_s is None


def test_commands_that_we_ran_there_are_the_sshds_that_brought_us() -> None:
    machine = PaperMachine(
        files={
            "/proc/self/stat": stat_line(30, "probe", 0.1, parent=29),
            "/proc/29/stat": stat_line(29, "sh", 0.1, parent=28),
            "/proc/28/stat": stat_line(28, "sshd-session", 0.1, parent=1),
        }
    )
    assert our_sshd(machine, DEADLINE) == "/proc/28/stat"
    assert our_sshd(PaperMachine(), DEADLINE) is None
