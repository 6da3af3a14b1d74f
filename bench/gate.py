"""The gate against histories of which it is known whether anything has changed.

Attempts are made up, no lab is needed: lognormal times with outliers, runs that differ as a whole,
outages that are in a floor which differs itself, attempts that fail now and then. Figures of one
attempt go together, as they do in a move. Nothing is below the gate's floor here: it could only
make fewer alarms.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

from bench.world import ended, keep, say, show
from migrate.gate import Compared, Rules, Sample, gate
from migrate.stats import Span

FIGURES = 5
"""Two times, two outages of which some are in the floor, and the failed attempts."""
CASES = 4
SPREAD = 0.3
"""Of an attempt's logarithm: a quarter of them is off by a third and more."""
TOGETHER = 0.6
"""Correlation of the figures of one attempt."""
OUTLIERS, OUT = 0.03, 3.0
"""So many attempts are that many times longer."""
FAILS = 0.05
MIDDLE = 100.0
FLOORS = (60.0, 0.4)
"""Median and spread of an attempt's floor: about a tenth of outages is in it; half, of the second
case and the fourth."""
BARE = Rules(relative=0.0, least=0.0)
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

    def name(self) -> str:
        """As a row of a table begins."""
        moods = "" if self.moods == "normal" else f", {self.moods}"
        return f"{self.runs} × {self.each} : {self.new}, between {self.between:g}{moods}"


def history(world: World, random: np.random.Generator, shift: float = 1.0) -> Iterator[Sample]:
    """All figures of all cases of one history; in the new run all times are ``shift`` fold."""
    sizes = [*[world.each] * world.runs, world.new]
    for case in range(CASES):
        moods = world.between * _moods(world, random)
        runs = []
        for mood, size in zip(moods, sizes, strict=True):
            common = random.standard_normal((size, 1)) * TOGETHER**0.5
            own = random.standard_normal((size, FIGURES - 1)) * (1 - TOGETHER) ** 0.5
            out = np.where(random.random((size, 1)) < OUTLIERS, OUT, 1.0)
            runs.append(MIDDLE * np.exp(SPREAD * (mood + common + own)) * out)
        runs[-1] *= shift
        name = f"case {case}"
        for figure in range(2):
            yield _sample(name, f"time {figure}", [_exact(run[:, figure]) for run in runs])
        deep = FLOORS[0] if case % 2 == 0 else MIDDLE
        for figure in (2, 3):
            seen = [_floored(run[:, figure], deep, random) for run in runs]
            yield _sample(name, f"outage {figure}", seen)
        failed = [_exact(random.binomial(1, FAILS, size).astype(np.float64)) for size in sizes]
        yield replace(_sample(name, "failed", failed), rate=True)


def _moods(world: World, random: np.random.Generator) -> Floats:
    """Of each run, the new one last; a drift has the same spread over the whole history."""
    size = world.runs + 1
    if world.moods == "t3":
        return np.asarray(random.standard_t(3, size) / 3**0.5)
    if world.moods == "drift":
        return np.asarray(np.cumsum(random.standard_normal(size)) / (size / 6) ** 0.5)
    return random.standard_normal(size)


def _exact(values: Floats) -> tuple[Span, ...]:
    return tuple((value, value) for value in values.tolist())


def _floored(values: Floats, deep: float, random: np.random.Generator) -> tuple[Span, ...]:
    floors = deep * np.exp(FLOORS[1] * random.standard_normal(len(values)))
    pairs = zip(values.tolist(), floors.tolist(), strict=True)
    return tuple((value, value) if value > floor else (0.0, floor) for value, floor in pairs)


def _sample(case: str, figure: str, runs: Sequence[tuple[Span, ...]]) -> Sample:
    return Sample(case, figure, tuple(runs[:-1]), runs[-1])


# --- false alarms ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Alarms:
    """Of ``histories`` in which nothing has changed, so many had any call."""

    world: World
    family: int
    histories: int
    worse: int
    better: int
    unit: str = "run"

    def interval(self) -> tuple[float, float]:
        """Of the share of false alarms: Clopper and Pearson, 95 %."""
        found = stats.binomtest(self.worse, self.histories).proportion_ci(0.95)
        return float(found.low), float(found.high)

    @property
    def kept(self) -> bool:
        """No more than is stated, as far as so many histories can tell."""
        return self.interval()[0] <= BARE.alpha


def alarms(world: World, histories: int, seed: int, rules: Rules = BARE) -> list[Alarms]:
    """A family of one, the first case's first time, and one of all figures of all cases."""
    random = np.random.default_rng(seed)
    worse, better = np.zeros(2, dtype=int), np.zeros(2, dtype=int)
    for _ in range(histories):
        samples = list(history(world, random))
        for place, family in enumerate((samples[:1], samples)):
            results = {one.result for one in gate(family, rules)}
            worse[place] += "worse" in results
            better[place] += "better" in results
    return [
        Alarms(world, family, histories, int(worse[place]), int(better[place]), rules.unit)
        for place, family in enumerate((1, SEVERAL))
    ]


# --- what is found --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """The least change, as a factor, that is found in four histories of five; None: none is."""

    world: World
    family: int
    figure: str
    shift: float | None


def power(world: World, histories: int, seed: int) -> list[Found]:
    """By Holm's first step: a p of alpha by the family's size, which is the least it can find.

    An exact time, and an outage of which half is in the floor before.
    """
    found: dict[tuple[str, int], float] = {}
    for shift in SHIFTS:
        random = np.random.default_rng(seed)
        called = {"time 0": np.zeros(2), "outage 2": np.zeros(2)}
        for _ in range(histories):
            of_case = list(history(world, random, float(shift)))[FIGURES : 2 * FIGURES]
            for sample in of_case:
                if sample.figure in called:
                    called[sample.figure] += [
                        _called(gate([sample], replace(BARE, alpha=BARE.alpha / family)))
                        for family in (1, SEVERAL)
                    ]
        for figure, times in called.items():
            for family, count in zip((1, SEVERAL), times, strict=True):
                if count >= POWER * histories:
                    found.setdefault((figure, family), float(shift))
        if len(found) == 4:
            break
    return [
        Found(world, family, figure, found.get((figure, family)))
        for figure in ("time 0", "outage 2")
        for family in (1, SEVERAL)
    ]


def _called(found: Sequence[Compared]) -> bool:
    return found[0].result == "worse"


def covered(world: World, histories: int, seed: int) -> tuple[float, float]:
    """How often the interval of a change holds the true one, 0: of a time, of an outage."""
    random = np.random.default_rng(seed)
    held = {"time 0": 0, "outage 2": 0}
    for _ in range(histories):
        for one in gate(list(history(world, random))[:FIGURES], BARE):
            if one.figure in held and one.low is not None and one.high is not None:
                held[one.figure] += one.low <= 0 <= one.high
    return held["time 0"] / histories, held["outage 2"] / histories


# --- telling --------------------------------------------------------------------------------------

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


def tell_alarms(title: str, found: Sequence[Alarms]) -> None:
    """A row a world and family."""
    rows = []
    for one in found:
        low, high = one.interval()
        rows.append(
            [
                one.world.name(),
                str(one.family),
                f"{one.worse / one.histories:.1%}",
                f"{low:.1%}..{high:.1%}",
                f"{one.better / one.histories:.1%}",
                "kept" if one.kept else "NOT KEPT",
            ]
        )
    heads = ("earlier runs × attempts : new", "family", "worse", "95 %", "better", "5 %")
    show(title, heads, rows)


def tell_power(found: Sequence[Found]) -> None:
    """A row a world, a column a figure and family."""
    worlds = list(dict.fromkeys(one.world for one in found))
    rows = []
    for world in worlds:
        shifts = [one.shift for one in found if one.world == world]
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

    def count(worlds: Sequence[World], rules: Rules = BARE) -> list[Alarms]:
        found = []
        for world in worlds:
            found += alarms(world, chosen.histories, chosen.seed, rules)
            say(f"{world.name()}: {found[-1].worse} of {chosen.histories}")
        return found

    kind = count(WORLDS)
    tell_alarms("false alarms, nothing changed", kind)
    unkind = count((*UNKIND, *DRIFTING))
    tell_alarms("the same where runs are no normal sample", unkind)
    alike = count(WORLDS[3:6], replace(BARE, unit="attempt"))
    tell_alarms("the same with --unit attempt", alike)
    sizes = [
        one for world in WORLDS[:12] for one in power(world, chosen.histories // 5, chosen.seed)
    ]
    tell_power(sizes)
    spans = {world.name(): covered(world, chosen.histories // 2, chosen.seed) for world in WORLDS}
    rows = [[name, *(f"{share:.1%}" for share in shares)] for name, shares in spans.items()]
    show("intervals that hold the true change", ("runs × attempts : new", "time", "outage"), rows)
    counted = [asdict(one) for one in (*kind, *unkind, *alike)]
    found = [asdict(one) for one in sizes]
    keep(chosen.json, {"alarms": counted, "found": found, "covered": spans})
    return int(not all(one.kept for one in kind))


if __name__ == "__main__":
    raise SystemExit(ended(main))
