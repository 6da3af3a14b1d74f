"""What it costs to look: the same warm guest moved with and without probes and sampling.

Three arms in turns, in an order that changes from round to round; the guest rewrites memory at the
same rate in all of them:

- ``bare``: nothing else, the migration is one call to libvirt;
- ``streams``: both streams and a TCP connection go on;
- ``all``: and both hosts' events are listened to, and both QEMUs are looked into, as in an attempt:
  progress 50 times a second, the network device's state on both ends.

QEMU's trace points of the stop are on in all arms: they are in the domain from its start.

Both figures are libvirt's own account, asked for when the migration has ended.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass

from bench.world import (
    BareGuest,
    bare_guest,
    local_lab,
    number_text,
    options,
    run_bench,
    say,
    show,
    write_json,
)
from migrate.backends.xml import rewritten
from migrate.clock import Deadline, pause
from migrate.errors import MeasurementError
from migrate.guest.domain_xml import NAME
from migrate.lab.api import Host, Lab
from migrate.lab.config import cache_folder
from migrate.migration.move import Move, perform_move
from migrate.model import Case, Interface, Policy, Workload
from migrate.recorder.events import listening
from migrate.recorder.phase_tracker import PhaseTracker
from migrate.recorder.qemu_state import watch_qemus
from migrate.recorder.question_trial import observers_of
from migrate.recorder.traffic import Traffic, peer_probe
from migrate.statistics.spread import spread

ARMS = ("bare", "streams", "all")
PAIRS = (("all", "bare"), ("streams", "bare"), ("all", "streams"))
"""Arms whose ratio is printed: the whole cost, the traffic's, the recording's."""
FIGURES = ("total_ms", "downtime_ms")
MOVE_S = 120.0
ACCOUNT = re.compile(r"^(?P<name>Time elapsed|Total downtime):\s+(?P<ms>\d+)\s+ms$", re.MULTILINE)
"""Lines of `virsh domjobinfo --completed`."""


@dataclass(frozen=True, slots=True)
class MigrationTimes:
    """One migration, as libvirt accounts for it."""

    arm: str
    round: int
    total_ms: float
    downtime_ms: float


def migrate(lab: Lab, case: Case, arm: str, number: int) -> MigrationTimes:
    """Move a fresh warm guest once."""
    deadline = Deadline.after(MOVE_S)
    with ExitStack() as stack:
        guest = stack.enter_context(bare_guest(lab, case))
        if arm == "bare":
            guest.probe.dirty_start(case.workload.dirty_mib, case.workload.dirty_mib_s)
        else:
            peer = stack.enter_context(peer_probe(lab, deadline))
            traffic = Traffic(guest.probe, peer, lab, case.workload)
            stack.callback(traffic.release)
            traffic.start(deadline)
        pause(case.workload.floor_s)
        if arm == "all":
            _migrate_recorded(lab, case, guest)
        else:
            _migrate_bare(guest, deadline)
        total, downtime = _account(guest.ends[1].host)
    return MigrationTimes(arm, number, total, downtime)


def _migrate_bare(guest: BareGuest, deadline: Deadline) -> None:
    target = guest.ends[1]
    parameters = {"migrate_uri": f"tcp://{target.host.migration_address}"}
    if guest.rewrites:
        xml = guest.domain.xml(migratable=True)
        parameters["destination_xml"] = rewritten(xml, guest.rewrites)
    flags = frozenset({"live", "peer-to-peer"})
    uri = target.host.libvirt_target
    call = guest.domain.migrate(target.hypervisor, uri, flags, parameters)
    if not call.wait(deadline):
        raise MeasurementError("migrate the guest", said=f"no end after {MOVE_S:g} s")
    call.result()


def _migrate_recorded(lab: Lab, case: Case, guest: BareGuest) -> None:
    source, target = guest.ends
    phases = PhaseTracker(source.host.name)
    move = Move(source, target, case.policy, guest.rewrites, lab.shared / "warm")
    observers = {end.host.name: observers_of(end.host, cache_folder()) for end in guest.ends}
    with (
        listening({end.host.name: end for end in guest.ends}) as listener,
        watch_qemus(
            source.host, target.host, listener, lambda _sample: None, lambda *_: (), observers
        ),
    ):
        call = perform_move(guest.domain, move, listener, phases).call
    if call.ended:
        call.result()


def _account(host: Host) -> tuple[float, float]:
    """Total time and downtime in ms, asked of the host that the guest came to."""
    argv = ["virsh", "domjobinfo", NAME, "--completed"]
    output = host.run(argv, Deadline.after(10)).out
    times = {line["name"]: float(line["ms"]) for line in ACCOUNT.finditer(output)}
    try:
        return times["Time elapsed"], times["Total downtime"]
    except KeyError as missing:
        raise MeasurementError("read libvirt's account", host=host.name, said=output) from missing


def turns(rounds: int) -> list[tuple[int, str]]:
    """All arms in every round; who comes first changes from one to the next."""
    return [(number, ARMS[(number + place) % 3]) for number in range(rounds) for place in range(3)]


# --- what comes out -----------------------------------------------------------------------------


def print_tables(migrations: Sequence[MigrationTimes]) -> None:
    """Medians of the arms, then the ratios round by round."""
    rows = []
    for arm in ARMS:
        cells = [arm]
        for name in FIGURES:
            times = spread(
                getattr(migration, name) for migration in migrations if migration.arm == arm
            )
            ends = f"{number_text(times.minimum)}..{number_text(times.maximum)}"
            cells.append(f"{number_text(times.median)} ({ends})")
        rows.append(cells)
    show("median (least..most), ms", ("arm", "total", "downtime reported"), rows)
    rows = []
    for top, bottom in PAIRS:
        cells = [f"{top} / {bottom}"]
        for name in FIGURES:
            times = spread(_ratios(migrations, top, bottom, name))
            level = "" if times.level is None else f", {times.level:.0%}"
            ends = f"{number_text(times.low, 2)}..{number_text(times.high, 2)}"
            cells.append(f"{number_text(times.median, 2)} ({ends}{level})")
        rows.append(cells)
    show("ratio within a round, median (interval)", ("ratio", "total", "downtime reported"), rows)
    print("1.00: looking costs nothing; an interval that holds 1.00: no cost can be told.")


def _ratios(migrations: Sequence[MigrationTimes], top: str, bottom: str, name: str) -> list[float]:
    by = {
        (migration.arm, migration.round): float(getattr(migration, name))
        for migration in migrations
    }
    rounds = sorted({migration.round for migration in migrations})
    return [by[top, n] / by[bottom, n] for n in rounds if by[bottom, n] > 0]


def main() -> int:
    """Always 0: a cost is no failure."""
    chosen = options(__doc__, rounds=10).parse_args()
    case = Case(
        id="cost-of-looking",
        interface=Interface(mode=chosen.mode),
        workload=Workload(),
        policy=Policy(),
    )
    migrations = []
    with local_lab(chosen.lab) as lab:
        for number, arm in turns(chosen.rounds):
            migrations.append(migrate(lab, case, arm, number))
            say(f"round {number + 1} of {chosen.rounds}: {migrations[-1]}")
    print_tables(migrations)
    write_json(
        chosen.json,
        {"mode": chosen.mode, "migrations": [asdict(migration) for migration in migrations]},
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(run_bench(main))
