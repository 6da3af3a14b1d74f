"""Whether a host's QEMU writes trace points of the stop: the emulator is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from migrate.clock import Deadline
from migrate.drivers.shell import Completed, run
from migrate.lab.capabilities import No, Yes
from migrate.lab.trace_points import ask_trace_points

ALL = "vmstate_downtime_save\nvmstate_downtime_load\nvmstate_downtime_checkpoint"
ITEMS = "cpu_reset       show CPU state\ntrace:PATTERN   enable trace events"
NO_BACKEND = "cpu_reset       show CPU state\nstrace          log every call"


@dataclass(frozen=True, slots=True)
class Here:
    """This machine, with an emulator of our own that comes first."""

    programs: Path

    def run(
        self,
        argv: Sequence[str],
        deadline: Deadline,
        *,
        text: str | None = None,
        check: bool = True,
    ) -> Completed:
        env = ["env", "-i", f"PATH={self.programs}:/usr/bin:/bin"]
        return run([*env, *argv], deadline, text=text, check=check)


def emulator(folder: Path, traces: str, items: str) -> Here:
    program = folder / "qemu-system-x86_64"
    program.write_text(f"#!/bin/sh\ncase $1 in -trace) echo '{traces}';; -d) echo '{items}';; esac")
    program.chmod(0o755)
    return Here(folder)


def test_a_qemu_with_all_of_them_and_the_log_backend_writes_them(tmp_path: Path) -> None:
    host = emulator(tmp_path, f"savevm_section_end\n{ALL}\nxvmstate_downtime_save", ITEMS)
    assert ask_trace_points(host) == Yes("vmstate_downtime_*")


@pytest.mark.parametrize(
    ("traces", "items", "reason", "remedy"),
    [
        ("savevm_section_end", ITEMS, "no trace points vmstate_downtime_*", "8.2"),
        ("vmstate_downtime_save", ITEMS, "no trace points vmstate_downtime_*", "8.2"),
        ("", "", "no trace points vmstate_downtime_*", "8.2"),
        (ALL, NO_BACKEND, "without the trace backend log", "--enable-trace-backends=log"),
    ],
    ids=["older", "some", "says-nothing", "another-backend"],
)
def test_what_is_missing_is_told_with_its_remedy(
    tmp_path: Path, traces: str, items: str, reason: str, remedy: str
) -> None:
    answer = ask_trace_points(emulator(tmp_path, traces, items))
    assert isinstance(answer, No)
    assert reason in answer.reason
    assert remedy in answer.remedy
