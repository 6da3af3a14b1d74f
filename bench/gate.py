"""The gate against histories of which it is known whether anything has changed.

Attempts are made up, no lab is needed: lognormal times with outliers, runs that differ as a whole,
outages that are in a floor which differs itself, attempts that fail now and then. Figures of one
attempt go together, as they do in a move. Nothing is below the gate's floor here: it could only
make fewer alarms.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

from bench.world import run_bench, say, show, write_json
from migrate.statistics.comparison import Allowance, FigureSample, Rules
from migrate.statistics.regression import compare, exit_code
from migrate.statistics.significance import Unit, p_values

FIGURES = 5
"""Two times, two outages of which some are in the floor, and the failed attempts."""
CASES = 4
SPREAD = 0.3
"""Spread of an attempt's logarithm: a quarter of them is off by a third and more."""
TOGETHER = 0.6
"""Correlation of the figures of one attempt."""
OUTLIERS, OUT = 0.03, 3.0
"""So many attempts are that many times longer."""
FAILS = 0.05
MIDDLE = 100.0
FLOORS = (60.0, 0.4)
"""Median and spread of an attempt's floor: about a tenth of outages is in it; half, of the second
case and the fourth."""
ALPHA = 0.05
SHIFTED = ("time 0", "outage 2")
POWER = 0.8
SHIFTS = (*np.round(np.arange(1.05, 2.0, 0.05), 2), *np.round(np.arange(2.0, 5.1, 0.25), 2))
SEVERAL = FIGURES * CASES

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class World:
    """``between``: spread of the runs by the spread of attempts. ``moods``: their distribution."""

    runs: int = 10
    each: int = 10
    new: int = 10
    between: float = 0.0
    moods: Literal["normal", "t3", "drift"] = "normal"

    @property
    def sizes(self) -> list[int]:
        """Attempts of each run, the new one last."""
        return [*[self.each] * self.runs, self.new]

    def name(self) -> str:
        """As a row of a table begins."""
        moods = "" if self.moods == "normal" else f", {self.moods}"
        return f"{self.runs} × {self.each} : {self.new}, between {self.between:g}{moods}"


@dataclass(frozen=True, slots=True)
class Figure:
    """Least and most of each attempt of many histories, run after run, the new run last."""

    name: str
    low: Floats
    high: Floats
    rate: bool = False

    def p_values(self, world: World, unit: Unit = "run") -> Floats:
        """The gate's p values that the new run is worse, and that it is better."""
        return p_values(self.low, self.high, world.sizes, unit, rate=self.rate)

    def sample(self, world: World, number: int) -> FigureSample:
        """One of the histories as the gate's input."""
        pairs = zip(self.low[number].tolist(), self.high[number].tolist(), strict=True)
        runs = [tuple(islice(pairs, size)) for size in world.sizes]
        return FigureSample("case", self.name, tuple(runs[:-1]), runs[-1], rate=self.rate)


def case(
    world: World, histories: int, random: np.random.Generator, deep: float, shift: float = 1.0
) -> Iterator[Figure]:
    """All figures of a case; in the new run all times are ``shift`` fold. ``deep``: the floor."""
    size = sum(world.sizes)
    moods = world.between * np.repeat(_moods(world, histories, random), world.sizes, axis=1)
    common = random.standard_normal((histories, size)) * TOGETHER**0.5
    longer = np.where(random.random((histories, size)) < OUTLIERS, OUT, 1.0)
    longer[:, size - world.new :] *= shift
    for number, name in enumerate(("time", "time", "outage", "outage")):
        own = random.standard_normal((histories, size)) * (1 - TOGETHER) ** 0.5
        values = MIDDLE * np.exp(SPREAD * (moods + common + own)) * longer
        floors = deep * np.exp(FLOORS[1] * random.standard_normal((histories, size)))
        above_floor = (values > floors) | (name == "time")
        low, high = np.where(above_floor, values, 0.0), np.where(above_floor, values, floors)
        yield Figure(f"{name} {number}", low, high)
    failed = random.binomial(1, FAILS, (histories, size)).astype(np.float64)
    yield Figure("failed", failed, failed, rate=True)


def _moods(world: World, histories: int, random: np.random.Generator) -> Floats:
    """The mood of each run, the new one last; a drift has the same spread over the history."""
    shape = histories, world.runs + 1
    if world.moods == "t3":
        return np.asarray(random.standard_t(3, shape) / 3**0.5)
    if world.moods == "drift":
        steps = np.cumsum(random.standard_normal(shape), axis=1)
        return np.asarray(steps / (shape[1] / 6) ** 0.5)
    return random.standard_normal(shape)


# --- false alarms ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Alarms:
    """How many of ``histories`` in which nothing has changed had any call."""

    world: World
    family: int
    histories: int
    worse: int
    better: int
    unit: Unit = "run"

    def interval(self) -> tuple[float, float]:
        """95 % interval of the share of false alarms, by Clopper and Pearson."""
        ci = stats.binomtest(self.worse, self.histories).proportion_ci(0.95)
        return float(ci.low), float(ci.high)

    @property
    def kept(self) -> bool:
        """No more than is stated, as far as so many histories can tell."""
        return self.interval()[0] <= ALPHA


def alarms(world: World, histories: int, seed: int, unit: Unit = "run") -> list[Alarms]:
    """A family of one, the first case's first time, and one of all figures of all cases."""
    random = np.random.default_rng(seed)
    figures = [
        figure.p_values(world, unit)
        for number in range(CASES)
        for figure in case(world, histories, random, FLOORS[0] if number % 2 == 0 else MIDDLE)
    ]
    every = np.stack(figures)
    counts = []
    for family in (1, SEVERAL):
        # Holm calls anything at all exactly if the least p is alpha by the family's size.
        worse, better = (every[:family].min(axis=0) <= ALPHA / family).sum(axis=0)
        counts.append(Alarms(world, family, histories, int(worse), int(better), unit))
    return counts


# --- changes that are found -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LeastChange:
    """The least change, as a factor, that is found in four histories of five; None: none is."""

    world: World
    family: int
    figure: str
    shift: float | None


def power(world: World, histories: int, seed: int) -> list[LeastChange]:
    """The least changes that Holm's first step finds: a p of alpha by the family's size.

    An exact time, and an outage of which half is in the floor before.
    """
    shifts: dict[tuple[str, int], float] = {}
    wanted = [(figure, family) for figure in SHIFTED for family in (1, SEVERAL)]
    for shift in SHIFTS:
        random = np.random.default_rng(seed)
        for figure in case(world, histories, random, MIDDLE, float(shift)):
            if figure.name in SHIFTED and any((figure.name, n) not in shifts for n in (1, SEVERAL)):
                p = figure.p_values(world)[:, 0]
                for family in (1, SEVERAL):
                    if np.mean(p <= ALPHA / family) >= POWER:
                        shifts.setdefault((figure.name, family), float(shift))
        if len(shifts) == len(wanted):
            break
    return [
        LeastChange(world, family, figure, shifts.get((figure, family)))
        for figure, family in wanted
    ]


def coverage(world: World, histories: int, seed: int) -> list[float]:
    """How often the interval of a change holds the true one, 0: of a time, of an outage.

    Each is a family of its own, so that it is an interval of 90 %: 5 % at either end.
    """
    shares = []
    for figure in case(world, histories, np.random.default_rng(seed), MIDDLE):
        if figure.name in SHIFTED:
            spans = [
                (found.low, found.high)
                for number in range(histories)
                for found in compare([figure.sample(world, number)], Rules())
            ]
            # One that is called ends at 0, and does not hold it.
            contains_zero = [
                low < 0 < high for low, high in spans if low is not None and high is not None
            ]
            shares.append(sum(contains_zero) / histories)
    return shares


@dataclass(frozen=True, slots=True)
class Gates:
    """Of ``histories`` in which nothing has changed, how many gates ended with which exit code, as
    they are and with ``--allow-blind``, and how many of all ``results`` were *can't tell*."""

    world: World
    histories: int
    codes: dict[int, int]
    blind_allowed: dict[int, int]
    cant_tell: int
    results: int


def gates(world: World, histories: int, seed: int) -> Gates:
    """Whole gates of all figures of all cases, by the gate's own rules."""
    random = np.random.default_rng(seed)
    figures = [
        figure
        for number in range(CASES)
        for figure in case(world, histories, random, FLOORS[0] if number % 2 == 0 else MIDDLE)
    ]
    codes: Counter[int] = Counter()
    allowed: Counter[int] = Counter()
    cant_tell = 0
    for number in range(histories):
        found = compare([figure.sample(world, number) for figure in figures], Rules())
        codes[exit_code(found)] += 1
        allowed[exit_code(found, Allowance(blind=True))] += 1
        cant_tell += sum(one.result == "can't tell" for one in found)
    results = histories * len(figures)
    return Gates(world, histories, dict(codes), dict(allowed), cant_tell, results)


def print_gates(counts: Sequence[Gates]) -> None:
    """Print a row for each world."""
    rows = [
        [
            count.world.name(),
            *(
                f"{codes.get(code, 0) / count.histories:.0%}"
                for codes in (count.codes, count.blind_allowed)
                for code in (0, 3, 1)
            ),
            f"{count.cant_tell / count.results:.0%}",
        ]
        for count in counts
    ]
    codes = ("exit 0", "3", "1")
    heads = ("runs × attempts : new", *codes, *(f"{code}, allowed" for code in codes), "untold")
    show("whole gates of 20 figures, nothing changed", heads, rows)


# --- what comes out -------------------------------------------------------------------------------

WORLDS = (
    *(World(each=n, new=n, between=b) for n in (5, 10, 30) for b in (0.0, 0.5, 1.0)),
    World(runs=20, between=0.5),
    World(runs=5, between=0.5),
    World(runs=3, between=0.5),
    World(each=1, new=10, between=0.5),
    World(each=30, new=5, between=0.5),
    World(each=5, new=30, between=0.5),
)
UNKIND = (World(between=0.5, moods="t3"), World(between=1.0, moods="t3"))
DRIFTING = (World(between=0.5, moods="drift"), World(between=1.0, moods="drift"))


def print_alarms(title: str, counts: Sequence[Alarms]) -> None:
    """Print a row for each world and family."""
    rows = []
    for count in counts:
        low, high = count.interval()
        rows.append(
            [
                count.world.name(),
                str(count.family),
                f"{count.worse / count.histories:.1%}",
                f"{low:.1%}..{high:.1%}",
                f"{count.better / count.histories:.1%}",
                "kept" if count.kept else "NOT KEPT",
            ]
        )
    heads = ("earlier runs × attempts : new", "family", "worse", "95 %", "better", "5 %")
    show(title, heads, rows)


def print_power(changes: Sequence[LeastChange]) -> None:
    """Print a row for each world, with a column for each figure and family."""
    worlds = list(dict.fromkeys(change.world for change in changes))
    rows = []
    for world in worlds:
        shifts = [change.shift for change in changes if change.world == world]
        cells = ["none" if shift is None else f"+{shift - 1:.0%}" for shift in shifts]
        rows.append([world.name(), *cells])
    heads = [f"{figure}, of {family}" for figure in ("time", "outage") for family in (1, SEVERAL)]
    show("least change found in 80 % of histories", ("runs × attempts : new", *heads), rows)


def main() -> int:
    """1 if there are more false alarms than stated, where what is assumed holds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--histories", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write every figure here, too")
    chosen = parser.parse_args()

    def count(worlds: Sequence[World], histories: int, unit: Unit = "run") -> list[Alarms]:
        counts = []
        for world in worlds:
            counts += alarms(world, histories, chosen.seed, unit)
            say(f"{world.name()}: {counts[-1].worse} of {histories}")
        return counts

    fewer = max(1, chosen.histories // 5)
    kind = count(WORLDS, chosen.histories)
    print_alarms("false alarms, nothing changed", kind)
    unkind = count((*UNKIND, *DRIFTING), chosen.histories)
    print_alarms("the same where runs are no normal sample", unkind)
    alike = count(WORLDS[3:6], fewer, "attempt")
    print_alarms("the same with --unit attempt", alike)
    sizes = [item for world in WORLDS[:12] for item in power(world, fewer, chosen.seed)]
    print_power(sizes)
    spans = {world.name(): coverage(world, fewer, chosen.seed) for world in WORLDS}
    rows = [[name, *(f"{share:.1%}" for share in shares)] for name, shares in spans.items()]
    show("intervals that hold the true change", ("runs × attempts : new", "time", "outage"), rows)
    whole = [gates(world, max(1, fewer // 4), chosen.seed) for world in WORLDS[:12]]
    print_gates(whole)
    counted = [asdict(item) for item in (*kind, *unkind, *alike)]
    changes = [asdict(item) for item in sizes]
    ended = [asdict(item) for item in whole]
    document = {"alarms": counted, "found": changes, "covered": spans, "gates": ended}
    write_json(chosen.json, document)
    return int(not all(item.kept for item in kind))


if __name__ == "__main__":
    raise SystemExit(run_bench(main))
