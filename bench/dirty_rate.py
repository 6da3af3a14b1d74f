"""Dirty rates against the truth: what each of QEMU's methods measures of a guest's known rate.

A boot sector writes to 256 MiB of pages at a set rate, and counts; what it wrote during a
measurement is the truth of that one. Twice: with KVM's dirty ring, and without, since QEMU refuses
the bitmap with the ring; where there is no KVM once, emulated. Then the limit on the guest, and
live moves of it with the forecast beside what happened.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.boot_sector import PAGE, build
from bench.sector import PageCount, await_sector, pages_so_far, rate, sector_guest, tsc_hz
from bench.world import host_pair, local_lab, number_text, options, run_bench, say, show, write_json
from migrate.analysis.convergence import (
    Forecast,
    Period,
    forecast,
    throttle_after_periods,
    throttle_steps,
)
from migrate.clock import Deadline, now_ns
from migrate.drivers.qmp import Monitor, ask
from migrate.errors import HostError, MeasurementError
from migrate.formats.qapi import MIGRATION, RamStats
from migrate.lab.api import Host
from migrate.recorder.dirty_rate import (
    METHODS,
    RateAnswer,
    VcpuLimit,
    limited,
    limits,
    measure,
    measure_all,
)

MIB = 2**20
RATES_MIB_S = (4, 16, 64)
RANGE_MIB = 256
SECONDS = 2
LIMITED_MIB_S, LIMIT_MIB_S = 64, 8
MOVE_S = 60.0
"""A move that has not converged by then is cancelled."""
WARM_S = 5
"""So long the guest writes before it is moved."""
BANDWIDTH_MIB_S, DOWNTIME_MS = 64, 100
MOVES = ((16, False), (48, False), (96, False), (96, True))
"""MiB/s that the guest is set to, and whether auto-converge is on."""
PORT = 4444
"""In the network namespace of a host of our own."""
KVM = {"kvm, ring of 4096": "kvm,dirty-ring-size=4096", "kvm, no ring": "kvm"}
EMULATED = {"tcg": "tcg,thread=multi"}
"""The first of these is the one that limits and moves are tried with."""


@dataclass(frozen=True, slots=True)
class MethodRow:
    """One method at one rate."""

    accelerator: str
    set_mib_s: float
    truth_mib_s: float
    found: RateAnswer


def accelerators(host: Host, chosen: str) -> dict[str, str]:
    """QEMU's ``-accel`` by name; ``auto``: KVM where the host has it. It need not run Linux."""
    has = host.run(["test", "-w", "/dev/kvm"], Deadline.after(5), check=False).status == 0
    return KVM if chosen == "kvm" or (chosen == "auto" and has) else EMULATED


def rows(
    host: Host, sector: bytes, name: str, accelerator: str, mib_s: float
) -> Iterator[MethodRow]:
    """Every method, one after the other, in one guest."""
    with sector_guest(host, sector, accelerator) as qemu:
        await_sector(qemu, host)
        for method in METHODS:
            begin = pages_so_far(qemu)
            answer = measure(qemu, method, SECONDS)
            truth = rate(begin, pages_so_far(qemu)) if not answer.refused else 0.0
            yield MethodRow(name, mib_s, truth, answer)


# --- the limit ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LimitResult:
    """The guest's rate before, under and after the limit, by its own count; QEMU's account."""

    before_mib_s: float
    under_mib_s: float
    after_mib_s: float
    told: tuple[VcpuLimit, ...]


def limit(host: Host, sector: bytes, accelerator: str, mib_s: int) -> LimitResult:
    """Measure the limit. Raises HostError with QEMU's message where it supports none."""
    with sector_guest(host, sector, accelerator) as qemu:
        await_sector(qemu, host)
        before = _rate_over(qemu, SECONDS)
        with limited(qemu, mib_s):
            _rate_over(qemu, SECONDS)  # it takes the limit a while to bite
            under = _rate_over(qemu, SECONDS)
            by_qemu = limits(qemu)
        _rate_over(qemu, SECONDS)  # what it is late it catches up, as fast as it can
        return LimitResult(before, under, _rate_over(qemu, SECONDS), by_qemu)


def _rate_over(qemu: Monitor, seconds: float) -> float:
    begin = pages_so_far(qemu)
    _listen(qemu, Deadline.after(seconds))
    return rate(begin, pages_so_far(qemu))


def _listen(qemu: Monitor, deadline: Deadline) -> None:
    """Take events until the deadline, and do nothing with them."""
    while not deadline.passed():
        qemu.event(deadline)


# --- a move -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PassSample:
    """QEMU and the guest when a pass began: bytes and pages since the start."""

    at_ns: int
    sent: int
    dirty_pages_s: int
    throttle: int | None
    guest: PageCount | None


@dataclass(frozen=True, slots=True)
class Move:
    """One move with its forecast. The rate before it is by QEMU's best method; see ``by``."""

    set_mib_s: float
    auto_converge: bool
    by: str
    before_mib_s: float
    foretold: Forecast
    status: str
    syncs: int
    total_ms: float | None
    downtime_ms: float | None
    looks: tuple[PassSample, ...] = field(repr=False)
    after_mib_s: float | None = None

    def passes(self) -> list[tuple[float, float | None]]:
        """MiB sent in each pass, and the guest's own rate in it."""
        return [
            (
                (end.sent - begin.sent) / MIB,
                rate(begin.guest, end.guest) if begin.guest and end.guest else None,
            )
            for begin, end in zip(self.looks, self.looks[1:], strict=False)
        ]

    def stood_still(self) -> tuple[int, ...]:
        """Passes in which the guest wrote nothing while it should run: no move to judge by."""
        rates = [own for _, own in self.passes()]
        return tuple(
            number for number, own in enumerate(rates[:-1], 1) if own is not None and not own
        )

    def periods(self) -> list[Period]:
        """Periods between QEMU's looks at its rates: each ends with the first pass after 1 s."""
        periods, begin = [], self.looks[0]
        for end in self.looks[1:]:
            seconds = (end.at_ns - begin.at_ns) / 1e9
            if seconds > 1:
                dirtied = round(end.dirty_pages_s * PAGE * seconds)
                periods.append(Period(dirtied, end.sent - begin.sent))
                begin = end
        return periods


def live_move(
    hosts: tuple[Host, Host], accelerator: str, mib_s: float, *, auto_converge: bool
) -> Move:
    """A live move; RAM that the guest never wrote to is zero, and costs nothing."""
    source, target = hosts
    sector = build(mib_s, RANGE_MIB, tsc_hz())
    place = f"tcp:{target.migration_address}:{PORT}"
    with (
        sector_guest(target, sector, accelerator, "-incoming", place) as arriving,
        sector_guest(source, sector, accelerator) as leaving,
    ):
        await_sector(leaving, source)
        _listen(leaving, Deadline.after(WARM_S))
        rates = {
            answer.method: answer.mib_s
            for answer in measure_all(leaving, 1)
            if answer.mib_s is not None
        }
        by = min(rates, key=("dirty-ring", "dirty-bitmap", "page-sampling").index)
        foretold = _forecast(rates[by], pages_so_far(leaving))
        _prepare(leaving, auto_converge=auto_converge)
        status, looks = _migrate(leaving, place)
        account = ask(leaving, "query-migrate", MIGRATION, Deadline.after(10))
        after = None
        if status == "completed":
            await_sector(arriving, target)
            after = _rate_over(arriving, 1)
        return Move(
            *(mib_s, auto_converge, by, rates[by], foretold, status),
            syncs=(account.ram and account.ram.dirty_sync_count) or len(looks),
            total_ms=account.total_time,
            downtime_ms=account.downtime,
            looks=looks,
            after_mib_s=after,
        )


def _forecast(mib_s: float, so_far: PageCount | None) -> Forecast:
    if so_far is None:
        raise MeasurementError("ask the sector how much it wrote", said="it runs no more")
    share = min(mib_s / BANDWIDTH_MIB_S, 0.99)  # of the first pass goes to what is new in it
    return forecast(
        memory=min(RANGE_MIB * MIB, round(so_far.pages * PAGE / (1 - share))),
        working_set=RANGE_MIB * MIB,
        dirty_per_s=mib_s * MIB,
        bandwidth_per_s=BANDWIDTH_MIB_S * MIB,
        downtime_s=DOWNTIME_MS / 1000,
    )


def _prepare(qemu: Monitor, *, auto_converge: bool) -> None:
    wanted = {"events": True, "auto-converge": auto_converge}
    capabilities = [{"capability": name, "state": state} for name, state in wanted.items()]
    qemu.execute("migrate-set-capabilities", Deadline.after(10), capabilities=capabilities)
    numbers = {"max-bandwidth": BANDWIDTH_MIB_S * MIB, "downtime-limit": DOWNTIME_MS}
    qemu.execute("migrate-set-parameters", Deadline.after(10), **numbers)


def _migrate(qemu: Monitor, place: str) -> tuple[str, tuple[PassSample, ...]]:
    """Migrate, sampling each pass; returns the last status. A move that is too slow is cancelled.

    QEMU emits MIGRATION_PASS when its throttle is set, so no step falls between two samples.
    """
    samples: list[PassSample] = []
    until = Deadline.after(MOVE_S)
    qemu.execute("migrate", Deadline.after(10), uri=place)
    cancelled = False
    while True:
        event = qemu.event(until)
        if event is None and cancelled:
            raise MeasurementError("cancel a move", said="QEMU does not say that it is cancelled")
        if event is None:
            qemu.execute("migrate_cancel", Deadline.after(10))
            cancelled, until = True, until.later(10)
        elif event.name == "MIGRATION_PASS":
            samples.append(_sample_pass(qemu))
        elif _ends(event.status):
            return event.status, tuple(samples)


def _ends(status: str) -> bool:
    return status in ("completed", "failed", "cancelled")


def _sample_pass(qemu: Monitor) -> PassSample:
    account = ask(qemu, "query-migrate", MIGRATION, Deadline.after(10))
    ram = account.ram or RamStats()
    return PassSample(
        now_ns(),
        ram.transferred or 0,
        ram.dirty_pages_rate or 0,
        account.cpu_throttle_percentage,
        pages_so_far(qemu),
    )


# --- what comes out -----------------------------------------------------------------------------


def print_rates(rows: Sequence[MethodRow]) -> None:
    """Print a line for each method and rate."""
    lines = []
    for row in rows:
        cells = [row.accelerator, f"{row.set_mib_s:g}", row.found.method]
        if row.found.mib_s is None:
            lines.append([*cells, "", "", f"refused: {row.found.refused}"])
            continue
        error = 100 * (row.found.mib_s / row.truth_mib_s - 1)
        lines.append([*cells, f"{row.truth_mib_s:.2f}", f"{row.found.mib_s:g}", f"{error:+.0f} %"])
    heads = ("accelerator", "set", "method", "truth", "measured", "error")
    show("dirty rate, MiB/s", heads, lines)


def print_limit(result: LimitResult) -> None:
    """Print the limit's effect in a line."""
    own = ", ".join(f"vCPU {vcpu.vcpu} {vcpu.now_mib_s:g}" for vcpu in result.told)
    print(
        f"limited to {LIMIT_MIB_S} MiB/s: {result.before_mib_s:.1f} before, "
        f"{result.under_mib_s:.1f} under the limit (QEMU: {own}), {result.after_mib_s:.1f} after"
    )


def print_moves(moves: Sequence[Move]) -> None:
    """Print a line for each move, and one for each pass."""
    lines, passes = [], []
    for move in moves:
        name = f"{move.set_mib_s:g}{', auto-converge' if move.auto_converge else ''}"
        kept = [rate for _, rate in move.passes()[:-1] if rate is not None]
        lines.append(
            [
                *(name, f"{move.before_mib_s:g} ({move.by})", number_text(max(kept, default=None))),
                f"{move.foretold.syncs or 'never'}",
                f"{move.syncs if move.status == 'completed' else move.status}",
                *(
                    number_text(move.total_ms, 0),
                    number_text(move.downtime_ms, 0),
                    number_text(move.after_mib_s),
                ),
            ]
        )
        for number, (sent, own) in enumerate(move.passes(), 1):
            before = move.foretold.passes[number - 1 : number]
            due = f"{before[0] / MIB:.1f}" if before else ""
            passes.append([name, str(number), due, f"{sent:.1f}", number_text(own)])
    heads = ("set", "measured", "most in it", "syncs foretold", "syncs")
    show("live moves, MiB/s", (*heads, "total, ms", "downtime, ms", "after"), lines)
    heads_of_passes = ("set", "pass", "foretold", "sent", "guest, MiB/s")
    show("their passes, MiB", heads_of_passes, passes)
    for move in moves:
        if move.stood_still():
            where = ", ".join(map(str, move.stood_still()))
            print(
                f"at {move.set_mib_s:g} MiB/s the guest stood still in pass {where}: not converged"
            )
        if move.auto_converge:
            steps = throttle_steps([look.throttle for look in move.looks])
            by_periods = tuple(
                dict.fromkeys(rate for rate in throttle_after_periods(move.periods()) if rate)
            )
            print(f"auto-converge: {steps.seen}, due {steps.expected}; by the periods {by_periods}")


def main() -> int:
    """Always 0: an error of a method is a result, and no failure."""
    parser = options(__doc__, rounds=1)
    parser.add_argument("--accelerator", choices=("auto", "kvm", "tcg"), default="auto")
    chosen = parser.parse_args()
    rows_found: list[MethodRow] = []
    limit_result: LimitResult | None = None
    moves: list[Move] = []
    with local_lab(chosen.lab) as lab:
        hosts = host_pair(lab)
        known = accelerators(hosts[0], chosen.accelerator)
        first = next(iter(known.values()))
        for mib_s in RATES_MIB_S:
            sector = build(mib_s, RANGE_MIB, tsc_hz())
            for name, accelerator in known.items():
                say(f"{mib_s} MiB/s, {name}")
                rows_found += rows(hosts[0], sector, name, accelerator, mib_s)
        print_rates(rows_found)
        try:
            say("the limit")
            sector = build(LIMITED_MIB_S, RANGE_MIB, tsc_hz())
            limit_result = limit(hosts[0], sector, first, LIMIT_MIB_S)
            print_limit(limit_result)
        except HostError as error:
            print(f"no limit here: {error}")
        for mib_s, auto_converge in MOVES:
            say(f"a move at {mib_s} MiB/s{', auto-converge' if auto_converge else ''}")
            moves.append(live_move(hosts, first, mib_s, auto_converge=auto_converge))
        print_moves(moves)
    record: dict[str, Any] = {"rows": [asdict(row) for row in rows_found]}
    record |= {
        "limit": limit_result and asdict(limit_result),
        "moves": [asdict(move) for move in moves],
    }
    write_json(chosen.json, record)
    return 0


if __name__ == "__main__":
    raise SystemExit(run_bench(main))
