"""What the meter's bench found, as tables: how far off, and how often the error covers it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from bench.world import number_text, show
from migrate.model import Direction
from migrate.statistics.spread import meter_errors, spread

COVERAGE = 0.99
"""The criterion: the share of cuts of which the stated error covers the truth."""
WITHIN_MS = 2.0
"""Of a direction that was not cut: the 95th percentile within this and the floor."""
INTERVAL_MS = 1.0
DIRECTIONS: tuple[Direction, Direction] = ("egress", "ingress")
HELD = "held, flushed late"
HELD_BY_NETWORK = "held on the way"
"""Frames wait between the fabric and the peer, where there is a long way."""
STOP_ALONE = "held, by the stop alone"
"""The same samples against the stop of QEMU: what the guest takes to catch up is in the error."""
CUTS: Mapping[str, Sequence[Direction]] = {
    "egress cut": ("egress",),
    "ingress cut": ("ingress",),
    "both cut": DIRECTIONS,
    "two in a row": DIRECTIONS,
    HELD: DIRECTIONS,
    HELD_BY_NETWORK: DIRECTIONS,
    "none": (),
}
"""Which directions each kind cuts."""


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
    stated_ms: float = 0.0
    """The error that the meter states."""
    delay_ms: float = 0.0
    loss: float = 0.0
    unmeasured: bool = False
    """The meter says that it can't tell whether there was one."""

    @property
    def off_ms(self) -> float | None:
        """Measured − injected; None if there was no gap."""
        return None if self.measured_ms is None else self.measured_ms - self.injected_ms

    @property
    def is_covered(self) -> bool:
        """Whether the stated error covers the truth, which is known to ``error_ms``."""
        return self.off_ms is not None and abs(self.off_ms) <= self.stated_ms + self.error_ms

    @property
    def is_below_floor(self) -> bool:
        """Not seen, and no longer than what is seen with nothing going on.

        An interval more: what is seen is the spacing of packets, and an outage lies inside it.
        """
        return self.measured_ms is None and self.injected_ms <= self.floor_ms + INTERVAL_MS


@dataclass(frozen=True, slots=True)
class ToolFigures:
    """Each tool's figure of one episode: the longest outage, or what stands for it."""

    kind: str
    length_ms: int
    figures: Mapping[str, float]


def print_tables(samples: Sequence[InjectionSample], tools: Sequence[ToolFigures]) -> bool:
    """Print all tables; returns whether the criterion is met."""
    cut = [sample for sample in samples if sample.injected_ms]
    columns = ("n", "missed", "below floor", "median", "p95", "stated ±", "± true", "covered", "")
    rows, _ = _rows(cut, _error_row)
    show(
        "|measured − injected|, ms, and how often the stated error covers it", ("", *columns), rows
    )
    by_way = [
        [f"{delay:g} ms, {loss:.0%} lost", *_error_row(chosen, 0.0)[0], ""]
        for delay, loss in sorted({(one.delay_ms, one.loss) for one in cut})
        if (chosen := [one for one in _judged(cut) if (one.delay_ms, one.loss) == (delay, loss)])
    ]
    show("the same by delay one way and loss", ("", *columns), by_way)
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
        [
            [kind, *(_tool_error(tools, kind, name) for name in names)]
            for kind in CUTS
            if any(tool.kind == kind for tool in tools)
        ],
    )
    total, good = _error_row(_judged(cut), 0.0)
    print(
        f"criterion: of all cuts above the floor none is missed, and the stated error covers "
        f"{COVERAGE:.0%} or more: {total[1]} missed, {total[7]} covered. "
        "The streams' losses × interval are what iperf3 -u and irtt add up, the bins are "
        "iperf3's empty seconds; both worked out from the arrivals that the meter judged."
    )
    return good and quiet_passed


def _judged(samples: Sequence[InjectionSample]) -> list[InjectionSample]:
    """Those whose truth is all of the outage."""
    return [sample for sample in samples if sample.kind != STOP_ALONE]


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


def _error_row(samples: Sequence[InjectionSample], _floor: float) -> tuple[list[str], bool]:
    """Of what can be seen; a stretch that the meter calls unmeasured is no miss."""
    above = [one for one in samples if not one.is_below_floor]
    seen = [one for one in above if one.measured_ms is not None]
    missed = [one for one in above if one.measured_ms is None and not one.unmeasured]
    off = [abs(one.off_ms or 0.0) for one in seen]
    covered = sum(one.is_covered for one in seen) / len(seen) if seen else 0.0
    return [
        str(len(above)),
        str(len(missed)),
        str(len(samples) - len(above)),
        number_text(spread(off).median, 2),
        number_text(meter_errors(off, [0.0] * len(off)).p95, 2),
        number_text(spread(one.stated_ms for one in seen).median, 2),
        number_text(max(one.error_ms for one in samples), 3),
        f"{covered:.1%}",
    ], bool(seen) and not missed and covered >= COVERAGE


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
