"""The meter against outages of known length, with no migration going on.

Every round starts a warm guest and its streams, measures the floor, and injects all kinds and
lengths in a random order that the seed fixes; then the probes' logs are read back and judged once.
A sample whose system calls took too long is injected again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import product

from bench.injector import InjectedOutage, Injector, fabric_ways, injecting, qemu_pid
from bench.others import Numbered, Ping, empty_bins, pinging
from bench.world import host_pair, local_lab, number_text, options, run_bench, say, show, write_json
from migrate.analysis.floor import LATE_NS
from migrate.analysis.guest_clock import GuestClock
from migrate.analysis.outage import Measurement, measure
from migrate.analysis.traffic import observation
from migrate.clock import pause
from migrate.errors import MeasurementError
from migrate.lab.local.lab import LocalLab
from migrate.model import Case, Direction, Floor, Gap, Interface, Workload
from migrate.model.recording import TrafficLog
from migrate.recorder.base import AttemptEnv
from migrate.statistics.spread import meter_errors, spread
from migrate.world import build_world

LENGTHS_MS = (20, 50, 100, 300, 1000, 3000)
APART_MS = 300
"""Between two in a row."""
PAUSE_S = 0.6
"""Between two injections: what the one disturbed is over when the next one begins."""
MARGIN_NS = 200_000_000
"""What is seen this close to an injection belongs to it."""
WITHIN_MS = 2.0
"""The criterion: median and 95th percentile of the error within this and the floor."""
INTERVAL_MS = 1.0
TRIES = 5
DIRECTIONS: tuple[Direction, Direction] = ("egress", "ingress")
HELD = "held, flushed late"
STOP_ALONE = "held, by the stop alone"
"""The same samples against the stop of QEMU: what the guest takes to catch up is in the error."""
CUTS: Mapping[str, Sequence[Direction]] = {
    "egress cut": ("egress",),
    "ingress cut": ("ingress",),
    "both cut": DIRECTIONS,
    "two in a row": DIRECTIONS,
    HELD: DIRECTIONS,
    "none": (),
}
"""Which directions each kind cuts."""


@dataclass(frozen=True, slots=True)
class Episode:
    """Injections that belong together (two in a row: two; none: none), and their stretch."""

    kind: str
    length_ms: int
    cuts: tuple[InjectedOutage, ...]
    begin_ns: int
    end_ns: int

    @property
    def window(self) -> tuple[int, int]:
        """Begin and end of the episode, with the margin."""
        return self.begin_ns - MARGIN_NS, self.end_ns + MARGIN_NS


@dataclass(frozen=True, slots=True)
class InjectionSample:
    """One direction of one injection: what was injected, and what the meter measured.

    ``injected_ms`` is known to ``error_ms``. Of a direction that was not cut it is 0, and
    ``measured_ms`` the longest gap seen, 0 for none; of one that was cut None means not seen.
    """

    kind: str
    length_ms: int
    direction: Direction
    injected_ms: float
    error_ms: float
    measured_ms: float | None
    floor_ms: float

    @property
    def is_below_floor(self) -> bool:
        """Not seen, and no longer than what is seen with nothing going on."""
        return self.measured_ms is None and self.injected_ms <= self.floor_ms


@dataclass(frozen=True, slots=True)
class ToolFigures:
    """Each tool's figure of one episode: the longest outage, or what stands for it."""

    kind: str
    length_ms: int
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class BenchSession:
    """One round, read back."""

    episodes: tuple[Episode, ...]
    log: TrafficLog
    found: Measurement
    pings: tuple[Ping, ...]
    window: tuple[int, int]

    @property
    def floor(self) -> Floor:
        """The floor; MeasurementError without one."""
        if self.found.floor is None:
            raise MeasurementError("measure the floor", said="; ".join(self.found.notes))
        return self.found.floor


# --- injecting ----------------------------------------------------------------------------------


def session(lab: LocalLab, case: Case, plan: Sequence[tuple[str, int]]) -> BenchSession:
    """Inject ``plan`` into the traffic of a fresh warm guest."""
    with ExitStack() as stack:
        world = stack.enter_context(build_world(case, AttemptEnv(lab), host_pair(lab)))
        ways = fabric_ways(lab, case.interface.mac)
        injector = stack.enter_context(injecting(lab.in_fabric([]), ways))
        if not injector.real_time:
            say("no real-time priority for the injector: its stamps may be wide")
        with ExitStack() as others:
            pings = tuple(others.enter_context(pinging(lab, ms)) for ms in (10, 200))
            pid = qemu_pid(lab, world.domain.host)
            episodes = tuple(episode(injector, pid, *wanted) for wanted in plan)
            _rest()
        recording = world.end()
    log, floor_window = recording.traffic, recording.start.floor_window
    observed = observation(log, round(INTERVAL_MS * 1e6), floor_window)
    return BenchSession(episodes, log, measure(observed), pings, observed.window)


def episode(injector: Injector, qemu: int, kind: str, length_ms: int) -> Episode:
    """Inject once; again if a system call took so long that the length is not known."""
    inject: Callable[[], InjectedOutage] = {
        HELD: lambda: injector.hold(qemu, length_ms),
    }.get(kind, lambda: injector.cut(CUTS[kind], length_ms))
    for _ in range(TRIES):
        _rest()
        cuts = [inject()]
        if kind == "two in a row":
            _rest(APART_MS / 1e3)
            cuts.append(inject())
        begin, end = cuts[0].begin[0], cuts[-1].end[1]
        if all(cut.exact for cut in cuts):
            return Episode(kind, length_ms, tuple(cuts) if CUTS[kind] else (), begin, end)
        say(f"{kind}, {length_ms} ms: a system call took too long, once more")
    raise MeasurementError(
        f"inject {kind}, {length_ms} ms",
        said=f"{TRIES} times a system call took longer than a millisecond",
        remedy="measure on a machine that does nothing else",
    )


def _rest(seconds: float = PAUSE_S) -> None:
    pause(seconds)


# --- measuring ----------------------------------------------------------------------------------


def samples(session: BenchSession) -> Iterator[InjectionSample]:
    """Every direction of every injection beside what the meter found there."""
    floors = {"egress": session.floor.egress_ms, "ingress": session.floor.ingress_ms}
    for episode in session.episodes:
        for direction in DIRECTIONS:
            gaps = [gap for gap in session.found.gaps if gap.direction == direction]
            head = episode.kind, episode.length_ms, direction
            if direction not in CUTS[episode.kind]:
                longest = _longest(gaps, *episode.window) or 0.0
                yield InjectionSample(*head, 0.0, 0.0, longest, floors[direction])
            elif not _is_no_outage(episode, direction):
                for cut in episode.cuts:
                    measured = _longest(gaps, cut.begin[0], cut.end[1])
                    truth, error = cut.length_ns / 1e6, cut.error_ns / 1e6
                    sample = InjectionSample(*head, truth, error, measured, floors[direction])
                    if episode.kind == HELD:
                        yield replace(sample, kind=STOP_ALONE)
                        caught_up = _catching_up(session.log, cut, direction) / 1e6
                        sample = replace(sample, injected_ms=truth + caught_up)
                    yield sample


def _catching_up(log: TrafficLog, cut: InjectedOutage, direction: Direction) -> int:
    """How long after it was released, in ns, the guest was reached again, by the bare logs.

    Egress: the first packet that it sent since came to the peer. Ingress: the last packet that had
    been sent to it meanwhile came in.
    """
    guest = GuestClock.fit(log.egress, log.ingress)
    if direction == "egress":
        sent, came = guest.to_axis(log.egress.sent_ns), log.egress.received_ns
        since = came[sent > cut.end[0]]
    else:
        sent, came = log.ingress.sent_ns, guest.to_axis(log.ingress.received_ns)
        since = -came[(sent > cut.begin[1]) & (sent < cut.end[0])]
    if not len(since):
        raise MeasurementError("see the guest go on", said=f"no packet of {direction}")
    return abs(int(since.min())) - cut.end[0]


def _is_no_outage(episode: Episode, direction: Direction) -> bool:
    """Packets that are held no longer than the late limit are served, by definition."""
    return (
        episode.kind == HELD and direction == "ingress" and episode.length_ms * 1_000_000 <= LATE_NS
    )


def _longest(gaps: Sequence[Gap], begin_ns: int, end_ns: int) -> float | None:
    """The longest gap that reaches into a stretch, in ms."""
    inside = (
        gap.length_ms
        for gap in gaps
        if gap.begin_ns <= end_ns and gap.begin_ns + gap.length_ns >= begin_ns
    )
    return max(inside, default=None)


def tool_figures(session: BenchSession) -> Iterator[ToolFigures]:
    """All tools side by side, the worse of both directions where a tool tells them apart."""
    log = session.log
    guest = GuestClock.fit(log.egress, log.ingress)
    streams = (
        Numbered(log.egress.seq, log.egress.received_ns),
        Numbered(log.ingress.seq, log.ingress.sent_ns),
    )
    received = log.egress.received_ns, guest.to_axis(log.ingress.received_ns)
    for episode in session.episodes:
        figures = {
            "meter": _longest(session.found.gaps, *episode.window) or 0.0,
            **{
                f"ping {ping.interval_ms} ms": ping.outage_ms(episode.window)
                for ping in session.pings
            },
            "loss × 1 ms": max(stream.lost(episode.window) for stream in streams) * INTERVAL_MS,
            "1 s bins": max(
                1e3 * empty_bins(at, session.window, episode.window) for at in received
            ),
        }
        yield ToolFigures(episode.kind, episode.length_ms, figures)


# --- what comes out -----------------------------------------------------------------------------


def print_tables(samples: Sequence[InjectionSample], tools: Sequence[ToolFigures]) -> bool:
    """Print all tables; returns whether the criterion is met by every kind."""
    cut = [sample for sample in samples if sample.injected_ms]
    rows, passed = _rows(cut, _error_row)
    show(
        "measured − injected, ms",
        ("kind", "n", "missed", "below floor", "median", "p95, absolute", "± true", "allowed", ""),
        rows,
    )
    quiet = [sample for sample in samples if not sample.injected_ms]
    quiet_rows, quiet_passed = _rows(quiet, _quiet_row)
    show(
        "directions that were not cut: longest gap, ms",
        ("kind", "n", "with a gap", "p95", "longest", "floor", "allowed", ""),
        quiet_rows,
    )
    names = list(tools[0].figures)
    show(
        "|said − injected| of the longest outage, ms: median / p95",
        ("kind", *names),
        [[kind, *(_tool_error(tools, kind, name) for name in names)] for kind in CUTS],
    )
    print(
        f"criterion: median and p95 within {WITHIN_MS:g} ms and the floor (median of the rounds). "
        "The streams' losses × interval are what iperf3 -u and irtt add up, the bins are "
        "iperf3's empty seconds; both worked out from the arrivals that the meter judged."
    )
    return passed and quiet_passed


RowMaker = Callable[[Sequence[InjectionSample], float], tuple[list[str], bool]]


def _rows(samples: Sequence[InjectionSample], row: RowMaker) -> tuple[list[list[str]], bool]:
    rows, passed = [], True
    for kind, direction in product((*CUTS, STOP_ALONE), DIRECTIONS):
        chosen = [
            sample for sample in samples if (sample.kind, sample.direction) == (kind, direction)
        ]
        if chosen:
            floor = spread(sample.floor_ms for sample in chosen).median or 0.0
            cells, good = row(chosen, floor)
            verdict = "PASS" if good else "FAIL"
            rows.append([f"{kind}: {direction}", *cells, "" if kind == STOP_ALONE else verdict])
            passed &= good or kind == STOP_ALONE
    return rows, passed


def _error_row(samples: Sequence[InjectionSample], floor: float) -> tuple[list[str], bool]:
    above = [sample for sample in samples if not sample.is_below_floor]
    off = meter_errors(
        [sample.measured_ms for sample in above], [sample.injected_ms for sample in above]
    )
    allowed = WITHIN_MS + floor
    good = (
        off.missed == 0
        and off.median is not None
        and off.p95 is not None
        and max(abs(off.median), off.p95) <= allowed
    )
    known = max(sample.error_ms for sample in samples)
    return [
        str(off.n),
        str(off.missed),
        str(len(samples) - len(above)),
        number_text(off.median, 2),
        number_text(off.p95, 2),
        number_text(known, 3),
        number_text(allowed, 2),
    ], good


def _quiet_row(samples: Sequence[InjectionSample], floor: float) -> tuple[list[str], bool]:
    gaps = [sample.measured_ms or 0.0 for sample in samples]
    p95 = meter_errors(gaps, [0.0] * len(gaps)).p95 or 0.0
    allowed = WITHIN_MS + floor
    with_gap = sum(gap > 0 for gap in gaps)
    return [
        str(len(gaps)),
        str(with_gap),
        number_text(p95, 2),
        number_text(max(gaps), 2),
        number_text(floor, 2),
        number_text(allowed, 2),
    ], p95 <= allowed


def _tool_error(tools: Sequence[ToolFigures], kind: str, name: str) -> str:
    truth = [tool.length_ms if CUTS[kind] else 0 for tool in tools if tool.kind == kind]
    off = [
        abs(tool.figures[name] - length)
        for tool, length in zip((tool for tool in tools if tool.kind == kind), truth, strict=True)
    ]
    middle, p95 = spread(off).median, meter_errors(off, [0.0] * len(off)).p95
    return f"{number_text(middle)} / {number_text(p95)}"


def main() -> int:
    """0 if the criterion is met."""
    parser = options(__doc__, rounds=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS_MS, metavar="MS")
    chosen = parser.parse_args()
    case = Case(
        id="meter-accuracy",
        interface=Interface(mode=chosen.mode),
        workload=Workload(dirty_mib=0, floor_s=2.0),
    )
    order = random.Random(chosen.seed)
    samples_found: list[InjectionSample] = []
    tools: list[ToolFigures] = []
    with local_lab(chosen.lab) as lab:
        for number in range(chosen.rounds):
            say(f"round {number + 1} of {chosen.rounds}")
            plan = [(kind, length) for kind in CUTS for length in chosen.lengths]
            order.shuffle(plan)
            session_read = session(lab, case, plan)
            for note in (*session_read.log.notes, *session_read.found.notes):
                say(note)
            samples_found += samples(session_read)
            tools += tool_figures(session_read)
    passed = print_tables(samples_found, tools)
    write_json(
        chosen.json,
        {
            "mode": chosen.mode,
            "seed": chosen.seed,
            "samples": [asdict(item) for item in samples_found],
        }
        | {"said": [asdict(item) for item in tools]},
    )
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(run_bench(main))
