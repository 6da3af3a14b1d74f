"""Whether pre-copy converges, and in which pass."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrate.convergence import Forecast, forecast

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
    assert of(0) == Forecast((128 * MIB,), 1)


def test_each_pass_sends_what_the_one_before_left() -> None:
    found = of(16)
    assert found.passes == (128 * MIB, 64 * MIB, 32 * MIB, 16 * MIB)
    assert found.converges_in == 4  # 8 MiB are left, and 9.6 fit into the limit


def test_a_guest_that_dirties_faster_than_it_is_sent_never_converges() -> None:
    assert of(64).converges_in is None


def test_a_small_working_set_converges_however_fast_it_is_dirtied() -> None:
    assert of(1e6, working_set=8).converges_in == 1


def test_a_bandwidth_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        of(1, bandwidth=0)


@given(st.floats(0, 200), st.integers(0, 128), st.floats(1, 200), st.floats(0.001, 3))
def test_a_forecast_ends_and_keeps_its_word(
    dirty: float, working_set: int, bandwidth: float, limit_s: float
) -> None:
    found = of(dirty, working_set=working_set, bandwidth=bandwidth, limit_s=limit_s)
    assert all(after <= working_set * MIB for after in found.passes[1:])
    if dirty < bandwidth * 0.9 or working_set <= bandwidth * limit_s:
        assert found.converges_in is not None
    if found.converges_in is not None:
        assert found.converges_in == len(found.passes)
