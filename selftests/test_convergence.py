"""Whether pre-copy converges, and in which pass."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrate.convergence import Forecast, Period, Steps, Throttle, forecast, steps_seen, throttled

MIB = 2**20


def of(
    dirty: float, *, working_set: int = 64, bandwidth: float = 32, limit_s: float = 0.3
) -> Forecast:
    """In MiB, of 128 MiB of memory."""
    return forecast(
        memory=128 * MIB,
        working_set=working_set * MIB,
        dirty_per_s=dirty * MIB,
        bandwidth_per_s=bandwidth * MIB,
        downtime_s=limit_s,
    )


def test_a_quiet_guest_converges_in_its_first_pass() -> None:
    found = of(0)
    assert (found.converges_in, found.syncs) == (1, 3)
    assert sum(found.passes) + (found.rest or 0) == 128 * MIB
    assert found.seconds == pytest.approx(found.passes[0] / (32 * MIB))


def test_each_pass_sends_what_the_one_before_left() -> None:
    found = of(16, limit_s=0.29)
    in_mib = [round(one / MIB, 1) for one in found.passes]
    # Windows of 3.2 MiB, until no more is left than the 9.28 that fit into the limit; all of the
    # working set, 64, is dirty after the first.
    assert in_mib == [121.6, 57.6, 28.8, 12.8, 6.4, 3.2, 3.2]
    assert (found.converges_in, found.syncs) == (7, 9)
    assert (found.rest or 0) / MIB == pytest.approx(8.0)


def test_memory_that_fits_into_the_limit_is_sent_in_the_stop() -> None:
    found = of(16, limit_s=5)
    assert found == Forecast((0,), 1, 128 * MIB, 0.0)


def test_a_guest_that_dirties_faster_than_it_is_sent_never_converges() -> None:
    found = of(64)
    assert (found.converges_in, found.syncs, found.rest, found.seconds) == (None,) * 4


def test_a_guest_as_fast_as_its_link_is_never_called_done() -> None:
    assert of(32, working_set=128).converges_in is None


def test_a_small_working_set_converges_however_fast_it_is_dirtied() -> None:
    assert of(1e6, working_set=8).converges_in == 1


def test_a_forecast_that_takes_for_ever_is_none() -> None:
    found = of(31.99, limit_s=0.0001)
    assert found.converges_in is None
    assert len(found.passes) == 1000


def test_a_bandwidth_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        of(1, bandwidth=0)


WORKSPACE = st.integers(0, 128)
RATE = st.floats(0, 200)
BANDWIDTH = st.floats(1, 200)
LIMIT_S = st.floats(0.001, 3)


@given(RATE, WORKSPACE, BANDWIDTH, LIMIT_S)
def test_a_forecast_ends_and_keeps_its_word(
    dirty: float, working_set: int, bandwidth: float, limit_s: float
) -> None:
    found = of(dirty, working_set=working_set, bandwidth=bandwidth, limit_s=limit_s)
    threshold = bandwidth * limit_s * MIB
    assert all(after <= max(working_set * MIB, threshold) + 1 for after in found.passes[1:])
    if dirty < bandwidth * 0.9 or working_set <= bandwidth * limit_s:
        assert found.converges_in is not None
    if found.converges_in is not None:
        assert found.converges_in == len(found.passes)
        assert found.rest is not None
        assert found.rest <= threshold + 1


@given(RATE, WORKSPACE, BANDWIDTH, LIMIT_S)
def test_a_slower_guest_is_never_further_from_its_end(
    dirty: float, working_set: int, bandwidth: float, limit_s: float
) -> None:
    fast = of(dirty, working_set=working_set, bandwidth=bandwidth, limit_s=limit_s)
    slow = of(dirty / 2, working_set=working_set, bandwidth=bandwidth, limit_s=limit_s)
    if fast.converges_in is not None:
        assert slow.converges_in is not None


# --- auto-converge ------------------------------------------------------------------------------

HIGH, QUIET = Period(dirtied=51, sent=100), Period(dirtied=50, sent=100)


def test_the_ladder_is_qemus() -> None:
    assert Throttle().steps() == (20, 30, 40, 50, 60, 70, 80, 90, 99)
    assert Throttle(initial=50, increment=30, most=80).steps() == (50, 80)
    assert Throttle(increment=0).steps() == (20,)


def test_a_step_takes_two_high_periods_and_quiet_ones_between_do_not_matter() -> None:
    assert throttled([HIGH, QUIET, QUIET, HIGH, HIGH, QUIET, HIGH]) == (0, 0, 0, 20, 20, 20, 30)


def test_half_is_not_more_than_half() -> None:
    assert throttled([QUIET] * 9) == (0,) * 9


def test_another_trigger_is_another_count() -> None:
    assert throttled([QUIET, QUIET], Throttle(trigger=40)) == (0, 20)


@given(st.lists(st.sampled_from([HIGH, QUIET]), max_size=60))
def test_the_throttle_climbs_its_ladder_and_stays_at_the_top(periods: list[Period]) -> None:
    found = throttled(periods)
    assert list(found) == sorted(found)
    assert set(found) <= {0, *Throttle().steps()}
    assert steps_seen(found).agree
    if periods.count(HIGH) >= 18:
        assert found[-1] == 99


@pytest.mark.parametrize(
    ("samples", "seen", "agree"),
    [
        ((None, None), (), True),  # never throttled
        ((0, 0, 20, 20, 30, None, 0), (20, 30), True),  # let go at the end
        ((None, 20, None, 20, 30), (20, 30), True),  # not told in one sample
        ((20, 40), (20, 40), False),  # too big a step
        ((30,), (30,), False),  # not where it begins
        ((20, 0, 20), (20, 0, 20), False),  # let go in between
        ((20, 30, 20), (20, 30, 20), False),  # back down
    ],
)
def test_steps_are_held_against_the_ladder(
    samples: tuple[int | None, ...], seen: tuple[int, ...], agree: bool
) -> None:
    found = steps_seen(samples)
    assert (found.seen, found.agree) == (seen, agree)


def test_more_steps_than_there_are_disagree() -> None:
    rule = Throttle(initial=50, increment=40, most=90)
    assert steps_seen((50, 90, 99), rule) == Steps((50, 90, 99), (50, 90))
    assert not steps_seen((50, 90, 99), rule).agree
