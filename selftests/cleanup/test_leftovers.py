"""Looking for what is left: one round trip, whatever there is to look for."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from typing import cast

from migrate.backends.registry import LEFTOVERS
from migrate.cleanup.leftovers import GUESTS, listed
from migrate.clock import Deadline
from migrate.drivers.shell import Completed, run
from migrate.lab.api import Host


class Here:
    """This machine; ``calls`` counts what was asked of it."""

    name = "a"

    def __init__(self) -> None:
        self.calls = 0

    def run(self, argv: Sequence[str], deadline: Deadline) -> Completed:
        self.calls += 1
        return run(argv, deadline, host=self.name)


def test_all_scripts_are_run_at_once_and_each_line_knows_its_own() -> None:
    host = Here()
    scripts = {
        "empty": "true",
        "two {}": "echo one\necho other one",
        "failed": "false",
        "loop {}": "for n in 1 2; do echo $n; done",
    }
    items = listed(cast("Host", host), scripts, Deadline.after(10))
    assert items == (
        ("two {}", "one"),
        ("two {}", "other one"),
        ("loop {}", "1"),
        ("loop {}", "2"),
    )
    assert host.calls == 1


def test_every_script_is_one_that_a_plain_shell_takes() -> None:
    for script in (*GUESTS.values(), *(kind.script for kind in LEFTOVERS)):
        subprocess.run(["sh", "-n", "-c", script], check=True)


def test_a_mechanism_that_modes_share_is_looked_for_once() -> None:
    names = [kind.name for kind in LEFTOVERS]
    assert len(set(names)) == len(names)
