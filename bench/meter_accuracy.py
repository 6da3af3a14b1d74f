"""The meter against outages of known length, with no migration going on.

Each delay of ``--delays`` (one way, in ms) and each share of ``--losses`` has rounds of its own; a
delay of 0 is the lab as it is. Every round starts a warm guest and its streams, measures the floor,
and injects all kinds and lengths in a random order that the seed fixes; then the probes' logs are
read back and judged once. A sample whose system calls took too long is injected again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import TypeVar

from bench.accuracy_tables import (
    CUTS,
    DIRECTIONS,
    HELD,
    HELD_BY_NETWORK,
    INTERVAL_MS,
    STOP_ALONE,
    InjectionSample,
    ToolFigures,
    print_tables,
)
from bench.delay_line import Line
from bench.injector import (
    InjectedOutage,
    Injector,
    LongWay,
    fabric_ways,
    injecting,
    long_way,
    qemu_pid,
)
from bench.others import Numbered, Ping, empty_bins, pinging
from bench.world import host_pair, local_lab, options, run_bench, say, write_json
from migrate.analysis.floor import LATE_NS
from migrate.analysis.guest_clock import GuestClock
from migrate.analysis.outage import Measurement, measure
from migrate.analysis.traffic import observation
from migrate.clock import pause
from migrate.errors import MeasurementError
from migrate.lab.local.lab import LocalLab
from migrate.lab.resources import DATA_BRIDGE
from migrate.model import Case, Direction, Floor, Gap, Interface, Unmeasured, Workload
from migrate.model.recording import TrafficLog
from migrate.recorder.base import AttemptEnv
from migrate.world import build_world

LENGTHS_MS = (20, 50, 100, 300, 1000, 3000)
APART_MS = 300
"""Between two in a row."""
PAUSE_S = 0.6
"""Between two injections: what the one disturbed is over when the next one begins."""
MARGIN_NS = 200_000_000
"""What is seen this close to an injection belongs to it."""
NEAR_NS = 5_000_000
"""A gap this close to an injection is its; the delay on the way comes on top."""
DELAYS_MS = (0.0, 3.0, 10.0, 25.0, 50.0)
LOSSES = (0.0, 0.05)
TRIES = 5


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
class BenchSession:
    """One round, read back."""

    episodes: tuple[Episode, ...]
    log: TrafficLog
    found: Measurement
    pings: tuple[Ping, ...]
    window: tuple[int, int]
    delay_ms: float = 0.0
    loss: float = 0.0

    @property
    def floor(self) -> Floor:
        """The floor; MeasurementError without one."""
        if self.found.floor is None:
            raise MeasurementError("measure the floor", said="; ".join(self.found.notes))
        return self.found.floor


# --- injecting ----------------------------------------------------------------------------------


def session(
    lab: LocalLab, case: Case, plan: Sequence[tuple[str, int]], delay_ms: float, loss: float
) -> BenchSession:
    """Inject ``plan`` into the traffic of a fresh warm guest."""
    with ExitStack() as stack:
        way = None
        if delay_ms or loss:
            line = Line(round(delay_ms * 1e6), loss, seed=1)
            port = f"{DATA_BRIDGE}-peer"
            way = stack.enter_context(long_way(lab.in_fabric([]), port, DATA_BRIDGE, line))
        world = stack.enter_context(build_world(case, AttemptEnv(lab), host_pair(lab)))
        ways = fabric_ways(lab, case.interface.mac)
        injector = stack.enter_context(injecting(lab.in_fabric([]), ways))
        if not injector.real_time:
            say("no real-time priority for the injector: its stamps may be wide")
        with ExitStack() as others:
            pings = tuple(others.enter_context(pinging(lab, ms)) for ms in (10, 200))
            pid = qemu_pid(lab, world.domain.host)
            wanted = [one for one in plan if way or one[0] != HELD_BY_NETWORK]
            episodes = tuple(episode(injector, way, pid, *one) for one in wanted)
            _rest()
        recording = world.end()
    log, floor_window = recording.traffic, recording.start.floor_window
    observed = observation(log, round(INTERVAL_MS * 1e6), floor_window)
    return BenchSession(episodes, log, measure(observed), pings, observed.window, delay_ms, loss)


def episode(
    injector: Injector, way: LongWay | None, qemu: int, kind: str, length_ms: int
) -> Episode:
    """Inject once; again if a system call took so long that the length is not known."""
    inject: Callable[[], InjectedOutage] = {
        HELD: lambda: injector.hold(qemu, length_ms),
        HELD_BY_NETWORK: lambda: way.hold(DIRECTIONS, length_ms) if way else _no_way(),
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


def _no_way() -> InjectedOutage:
    raise MeasurementError("hold frames on the way", said="the lab has no long way")


def _rest(seconds: float = PAUSE_S) -> None:
    pause(seconds)


# --- measuring ----------------------------------------------------------------------------------


def samples(session: BenchSession) -> Iterator[InjectionSample]:
    """Every direction of every injection beside what the meter found there."""
    floors = {"egress": session.floor.egress_ms, "ingress": session.floor.ingress_ms}
    early_ns = round(session.delay_ms * 1e6) + NEAR_NS
    for episode in session.episodes:
        for direction in DIRECTIONS:
            gaps = [gap for gap in session.found.gaps if gap.direction == direction]
            blanks = [one for one in session.found.unmeasured if one.direction == direction]
            sample = InjectionSample(
                episode.kind,
                episode.length_ms,
                direction,
                0.0,
                0.0,
                0.0,
                floors[direction],
                delay_ms=session.delay_ms,
                loss=session.loss,
            )
            if direction not in CUTS[episode.kind]:
                yield _with(sample, _longest_gap(gaps, *episode.window))
            elif not _is_no_outage(episode, direction):
                for cut in episode.cuts:
                    stretch = cut.begin[0] - early_ns, cut.end[1] + NEAR_NS
                    one = replace(
                        sample,
                        injected_ms=cut.length_ns / 1e6,
                        error_ms=cut.error_ns / 1e6,
                        measured_ms=None,
                        unmeasured=bool(_reaching(blanks, *stretch)),
                    )
                    one = _with(one, _longest_gap(gaps, *stretch))
                    if episode.kind in (HELD, HELD_BY_NETWORK):
                        if episode.kind == HELD:
                            yield replace(one, kind=STOP_ALONE)
                        caught_up = _catching_up(session, cut, direction, episode.kind) / 1e6
                        one = replace(one, injected_ms=one.injected_ms + caught_up)
                    yield one


def _with(sample: InjectionSample, gap: Gap | None) -> InjectionSample:
    if gap is None:
        return sample
    return replace(sample, measured_ms=gap.length_ms, stated_ms=gap.error_ns / 1e6)


def _catching_up(
    session: BenchSession, cut: InjectedOutage, direction: Direction, kind: str
) -> int:
    """How long after it was released, in ns, the guest was reached again, by the bare logs.

    Of a guest that was stopped, egress: the first packet that it sent since came to the peer. Else:
    the last packet that had been due meanwhile came in.
    """
    log = session.log
    guest = GuestClock.fit(log.egress, log.ingress)
    if direction == "egress":
        sent, came = guest.to_axis(log.egress.sent_ns), log.egress.received_ns
    else:
        sent, came = log.ingress.sent_ns, guest.to_axis(log.ingress.received_ns)
    if direction == "egress" and kind == HELD:
        since = came[sent > cut.end[0]]
    else:
        due = sent + round(session.delay_ms * 1e6)
        since = -came[(due > cut.begin[1]) & (due < cut.end[0])]
    if not len(since):
        raise MeasurementError("see the guest go on", said=f"no packet of {direction}")
    return abs(int(since.min())) - cut.end[0]


def _is_no_outage(episode: Episode, direction: Direction) -> bool:
    """Packets that are held no longer than the late limit are served, by definition."""
    comes_late = episode.kind == HELD_BY_NETWORK or (
        episode.kind == HELD and direction == "ingress"
    )
    return comes_late and episode.length_ms * 1_000_000 <= LATE_NS


Stretch = TypeVar("Stretch", Gap, Unmeasured)


def _reaching(stretches: Sequence[Stretch], begin_ns: int, end_ns: int) -> list[Stretch]:
    """Those that reach into a stretch of the axis."""
    return [
        one
        for one in stretches
        if one.begin_ns <= end_ns and one.begin_ns + one.length_ns >= begin_ns
    ]


def _longest_gap(gaps: Sequence[Gap], begin_ns: int, end_ns: int) -> Gap | None:
    inside = _reaching(gaps, begin_ns, end_ns)
    return max(inside, key=lambda gap: gap.length_ns, default=None)


def _longest(gaps: Sequence[Gap], begin_ns: int, end_ns: int) -> float | None:
    """The longest gap that reaches into a stretch, in ms."""
    gap = _longest_gap(gaps, begin_ns, end_ns)
    return gap.length_ms if gap else None


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


def main() -> int:
    """0 if the criterion is met."""
    parser = options(__doc__, rounds=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--delays", type=float, nargs="+", default=DELAYS_MS, metavar="MS")
    parser.add_argument("--losses", type=float, nargs="+", default=LOSSES, metavar="SHARE")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS_MS, metavar="MS")
    chosen = parser.parse_args()
    case = Case(
        id="meter-accuracy",
        interface=Interface(mode=chosen.mode),
        workload=Workload(dirty_mib=0, floor_s=2.0, tcp_connections=0),
    )
    order = random.Random(chosen.seed)
    samples_found: list[InjectionSample] = []
    tools: list[ToolFigures] = []
    with local_lab(chosen.lab) as lab:
        for number, delay, loss in product(range(chosen.rounds), chosen.delays, chosen.losses):
            say(f"round {number + 1} of {chosen.rounds}, {delay:g} ms one way, {loss:.0%} lost")
            plan = [(kind, length) for kind in CUTS for length in chosen.lengths]
            order.shuffle(plan)
            session_read = session(lab, case, plan, delay, loss)
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
