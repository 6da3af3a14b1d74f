"""The stated error covers the truth: random outages, delays, rates and senders, simulated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from migrate.checks.verdicts import within
from migrate.model import DIRECTIONS, Gap
from selftests.doubles.wire import MS, Trouble, cut, held, look, of, on_axis

DELAYS_MS = (0.1, 0.4, 3.0, 10.0, 25.0, 50.0)
CUTS = 300
COVERAGE = 0.99


@dataclass(frozen=True, slots=True)
class Measured:
    """An outage of a known length, and the gap that it made."""

    truth: Trouble
    gap: Gap

    @property
    def is_covered(self) -> bool:
        return abs(self.gap.length_ms - self.truth.length) <= self.gap.error_ns / MS

    @property
    def is_placed(self) -> bool:
        off_ns = abs(self.gap.begin_ns - on_axis(self.truth.begin))
        return off_ns <= self.gap.place_off_ns


def random_outages(kind: str, seed: int, **wire: Any) -> Iterator[Measured]:
    """Of a kind, one in each log; an outage of both ways is measured both ways."""
    random = np.random.default_rng(seed)
    for number in range(CUTS):
        least = 26 if kind != "cut" else 5
        interval = wire.get("interval", 1.0)
        truth = Trouble(
            kind,
            float(random.uniform(1500, 1700)),
            float(random.uniform(max(least, 3.5 * interval), 400)),
            DIRECTIONS[number % 2],
        )
        measurement = look(
            truth,
            **{"length": 2500.0, "floor": 1000.0, **wire},
            delay=float(random.choice(DELAYS_MS)),
            seed=int(random.integers(1 << 30)),
        )
        for way in DIRECTIONS if kind == "frozen" else (truth.direction,):
            around = [
                gap
                for gap in of(measurement, way)
                if gap.begin_ns < on_axis(truth.end + 60)
                and gap.begin_ns + gap.length_ns > on_axis(truth.begin - 60)
            ]
            if around:
                yield Measured(truth, max(around, key=lambda gap: gap.length_ns))
            else:  # in the floor of a sender that is late so often: it can't be seen there
                assert measurement.floor is not None
                assert truth.length < 2 * measurement.floor.ms(way)


@pytest.mark.parametrize("kind", ["cut", "held", "frozen"])
@pytest.mark.parametrize(
    "wire",
    [
        pytest.param({}, id="1 ms"),
        pytest.param({"interval": 10.0, "drift": 2e-4}, id="10 ms, and a clock that drifts"),
        pytest.param({"lapses": 10.0, "sends": True}, id="late senders, and their records"),
        pytest.param({"lapses": 10.0}, id="late senders"),
        pytest.param({"loss": 0.05}, id="one in twenty lost"),
        pytest.param({"loss": 0.3}, id="three in ten lost"),
    ],
)
def test_the_error_covers_the_truth(kind: str, wire: dict[str, Any]) -> None:
    measured = list(random_outages(kind, 7, **wire))
    assert len(measured) >= CUTS * 0.95
    assert sum(one.is_covered for one in measured) >= COVERAGE * len(measured)
    assert sum(one.is_placed for one in measured) >= COVERAGE * len(measured)
    for one in measured:
        error_ms = one.gap.error_ns / MS
        if one.is_covered:
            beyond = within(
                "outage", one.gap.length_ms, error_ms, one.truth.length + 2 * error_ms, ""
            )
            assert beyond.result == "pass"
            inside = within("outage", one.gap.length_ms, error_ms, one.truth.length + 0.5, "")
            assert inside.result != "fail"


def test_the_error_is_no_more_than_it_must_be() -> None:
    """Even sending: one interval, and what delays differ by."""
    errors = [one.gap.error_ns / MS for one in random_outages("cut", 7)]
    assert np.median(errors) < 1.5
    with_records = [
        one.gap.error_ns / MS for one in random_outages("cut", 7, lapses=10.0, sends=True)
    ]
    without = [one.gap.error_ns / MS for one in random_outages("cut", 7, lapses=10.0)]
    assert np.median(with_records) < 2
    assert np.median(without) > 5


@pytest.mark.parametrize("delay", [0.4, 3, 10, 25, 50])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_hold_is_as_long_at_any_delay(direction: Any, delay: float) -> None:
    measurement = look(held(direction, 2000, 300), delay=delay)
    (gap,) = measurement.gaps
    assert gap.direction == direction
    assert abs(gap.length_ms - 300) <= gap.error_ns / MS < 3


@pytest.mark.parametrize("loss", [0.05, 0.5])
def test_loss_without_an_outage_makes_no_gap_beyond_the_floors(loss: float) -> None:
    measurement = look(loss=loss, floor=2000.0)
    assert measurement.floor is not None
    for gap in measurement.gaps:
        assert gap.least_ns / MS < measurement.floor.ms(gap.direction)
    assert measurement.unmeasured == ()


def test_a_limit_within_the_error_is_not_judged() -> None:
    """Two milliseconds above the truth at one packet in ten milliseconds."""
    (gap,) = look(cut("egress", 2000, 205), interval=10.0).gaps
    verdict = within("outage", gap.length_ms, gap.error_ns / MS, 207, "")
    assert verdict.result == "unmeasured"
