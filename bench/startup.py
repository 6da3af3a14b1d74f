"""How long it takes until one can begin: the lab, the guest, the command line.

Everything that is cached is cached before the first round: roots, image, booted guest.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from bench.world import (
    bare_guest,
    local_lab,
    number_text,
    options,
    run_bench,
    say,
    show,
    write_json,
)
from migrate.clock import Deadline, now_ns
from migrate.drivers.shell import run
from migrate.errors import ConfigurationError
from migrate.lab import fabric_kind
from migrate.lab.local import lab as local
from migrate.lab.local.config import LocalConfig
from migrate.model import Case, GuestSpec, Interface
from migrate.statistics.spread import spread

Times = dict[str, list[float]]


def time_lab(name: str, times: Times) -> None:
    """Up and down again."""
    begin = now_ns()
    lab = local.KIND.up(LocalConfig(name=name))
    times.setdefault("lab up", []).append(_since(begin))
    lab.close()
    begin = now_ns()
    fabric_kind.down(name)
    times.setdefault("lab down", []).append(_since(begin))


def time_guests(name: str, cases: Sequence[Case], rounds: int, times: Times) -> None:
    """From the ask for a guest to its ready probe."""
    with local_lab(name) as lab:
        for case in cases:
            with bare_guest(lab, case):
                pass  # fills the cache
        for _ in range(rounds):
            for case in cases:
                with bare_guest(lab, case) as guest:
                    times.setdefault(f"guest, {case.guest.start}", []).append(guest.start_ms)
                    say(f"guest, {case.guest.start}: {guest.start_ms:.0f} ms")


def time_command(times: Times) -> None:
    """Time `migrate-lab --help`, to its end."""
    command = Path(sys.executable).with_name("migrate-lab")
    begin = now_ns()
    run([str(command), "--help"], Deadline.after(30), remedy="pip install -e .")
    times.setdefault("migrate-lab --help", []).append(_since(begin))


def _since(begin_ns: int) -> float:
    return (now_ns() - begin_ns) / 1e6


def main() -> int:
    """Always 0: nothing here is judged."""
    chosen = options(__doc__, rounds=5).parse_args()
    if fabric_kind.find(chosen.lab) is not None:
        raise ConfigurationError(
            f"time the lab {chosen.lab}", said="it is up already", remedy="give another --lab"
        )
    with local_lab(chosen.lab):
        pass  # makes the root and the image if they are missing
    times: Times = {}
    cases = [
        Case(
            id=f"start-{start}",
            guest=GuestSpec(start=start),
            interface=Interface(mode=chosen.mode),
        )
        for start in ("warm", "cold")
    ]
    for _ in range(chosen.rounds):
        time_lab(chosen.lab, times)
        time_command(times)
    time_guests(chosen.lab, cases, chosen.rounds, times)
    rows = []
    for what, values in times.items():
        of_all = spread(values)
        cells = (of_all.median, of_all.minimum, of_all.maximum)
        rows.append([what, str(of_all.n), *(number_text(cell, 0) for cell in cells)])
    show("time until it is ready, ms", ("what", "n", "median", "least", "most"), rows)
    write_json(chosen.json, {"mode": chosen.mode, "times_ms": times})
    return 0


if __name__ == "__main__":
    raise SystemExit(run_bench(main))
