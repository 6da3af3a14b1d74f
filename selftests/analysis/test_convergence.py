"""Whether pre-copy converges, and in which pass."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrate.analysis.convergence import (
    Forecast,
    Period,
    Throttle,
    ThrottleSteps,
    assess_convergence,
    first_pass_bytes,
    forecast,
    throttle_after_periods,
    throttle_steps,
)
from migrate.analysis.hop_events import HopEvents
from migrate.analysis.move_details import move_details
from migrate.model import (
    Case,
    Convergence,
    ConvergenceForecast,
    Event,
    Policy,
    Sample,
    Workload,
)
from migrate.model.recording import QemuRecording
from selftests.doubles.synthetic import qemu_event, recording

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
    assert (found.passes_needed, found.syncs) == (1, 3)
    assert sum(found.passes) + (found.rest or 0) == 128 * MIB
    assert found.seconds == pytest.approx(found.passes[0] / (32 * MIB))


def test_each_pass_sends_what_the_one_before_left() -> None:
    found = of(16, limit_s=0.29)
    in_mib = [round(one / MIB, 1) for one in found.passes]
    # Windows of 3.2 MiB, until no more is left than the 9.28 that fit into the limit; all of the
    # working set, 64, is dirty after the first.
    assert in_mib == [121.6, 57.6, 28.8, 12.8, 6.4, 3.2, 3.2]
    assert (found.passes_needed, found.syncs) == (7, 9)
    assert (found.rest or 0) / MIB == pytest.approx(8.0)


def test_memory_that_fits_into_the_limit_is_sent_in_the_stop() -> None:
    found = of(16, limit_s=5)
    assert found == Forecast((0,), 1, 128 * MIB, 0.0)


def test_a_guest_that_dirties_faster_than_it_is_sent_never_converges() -> None:
    found = of(64)
    assert (found.passes_needed, found.syncs, found.rest, found.seconds) == (None,) * 4


def test_a_guest_as_fast_as_its_link_is_never_called_done() -> None:
    assert of(32, working_set=128).passes_needed is None


def test_a_small_working_set_converges_however_fast_it_is_dirtied() -> None:
    assert of(1e6, working_set=8).passes_needed == 1


def test_a_forecast_that_takes_for_ever_is_none() -> None:
    found = of(31.99, limit_s=0.0001)
    assert found.passes_needed is None
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
        assert found.passes_needed is not None
    if found.passes_needed is not None:
        assert found.passes_needed == len(found.passes)
        assert found.rest is not None
        assert found.rest <= threshold + 1


@given(RATE, WORKSPACE, BANDWIDTH, LIMIT_S)
def test_a_slower_guest_is_never_further_from_its_end(
    dirty: float, working_set: int, bandwidth: float, limit_s: float
) -> None:
    fast = of(dirty, working_set=working_set, bandwidth=bandwidth, limit_s=limit_s)
    slow = of(dirty / 2, working_set=working_set, bandwidth=bandwidth, limit_s=limit_s)
    if fast.passes_needed is not None:
        assert slow.passes_needed is not None


# --- auto-converge ------------------------------------------------------------------------------

HIGH, QUIET = Period(dirtied=51, sent=100), Period(dirtied=50, sent=100)


def test_the_ladder_is_qemus() -> None:
    assert Throttle().steps() == (20, 30, 40, 50, 60, 70, 80, 90, 99)
    assert Throttle(initial=50, increment=30, most=80).steps() == (50, 80)
    assert Throttle(increment=0).steps() == (20,)


def test_a_step_takes_two_high_periods_and_quiet_ones_between_do_not_matter() -> None:
    assert throttle_after_periods([HIGH, QUIET, QUIET, HIGH, HIGH, QUIET, HIGH]) == (
        0,
        0,
        0,
        20,
        20,
        20,
        30,
    )


def test_half_is_not_more_than_half() -> None:
    assert throttle_after_periods([QUIET] * 9) == (0,) * 9


def test_another_trigger_is_another_count() -> None:
    assert throttle_after_periods([QUIET, QUIET], Throttle(trigger=40)) == (0, 20)


@given(st.lists(st.sampled_from([HIGH, QUIET]), max_size=60))
def test_the_throttle_climbs_its_ladder_and_stays_at_the_top(periods: list[Period]) -> None:
    found = throttle_after_periods(periods)
    assert list(found) == sorted(found)
    assert set(found) <= {0, *Throttle().steps()}
    assert throttle_steps(found).agree
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
def test_throttle_steps_are_compared_with_those_expected(
    samples: tuple[int | None, ...], seen: tuple[int, ...], agree: bool
) -> None:
    found = throttle_steps(samples)
    assert (found.seen, found.agree) == (seen, agree)


def test_more_steps_than_there_are_disagree() -> None:
    rule = Throttle(initial=50, increment=40, most=90)
    assert throttle_steps((50, 90, 99), rule) == ThrottleSteps((50, 90, 99), (50, 90))
    assert not throttle_steps((50, 90, 99), rule).agree


# --- of a move ----------------------------------------------------------------------------------

MS = 1_000_000
BUSY = Workload(dirty_mib=64, dirty_mib_s=16)


def sample(
    iteration: int, left: int, sent: int, zero: int | None = 0, **fields: int | None
) -> Sample:
    """``left``, ``sent`` and ``zero`` in MiB."""
    return Sample(
        at_ns=0,
        host="a",
        iteration=iteration,
        remaining_bytes=left * MIB,
        transferred_bytes=sent * MIB,
        zero_pages=None if zero is None else zero * 256,
        **fields,
    )


PASSES = [
    sample(0, 0, 0),
    sample(1, 250, 2, 4, rate_bytes_s=20 * MIB),
    sample(1, 10, 90, 160, throttle_percent=20),
    sample(2, 64, 98, 164, rate_bytes_s=32 * MIB, throttle_percent=20),
    sample(3, 32, 150, 170, rate_bytes_s=33 * MIB, throttle_percent=30),
]


def converged(
    policy: Policy | None = None, samples: list[Sample] = PASSES, workload: Workload = BUSY
) -> Convergence:
    found = assess_convergence(samples, policy or Policy(), workload)
    assert found is not None
    return found


def test_a_forecast_uses_the_memory_to_send_and_the_policy() -> None:
    found = converged(Policy(bandwidth_mib_s=32))
    assert (found.memory_bytes, found.bandwidth_bytes_s) == (86 * MIB, 32 * MIB)
    due = forecast(
        memory=86 * MIB,
        working_set=64 * MIB,
        dirty_per_s=16 * MIB,
        bandwidth_per_s=32 * MIB,
        downtime_s=0.3,
    )
    assert found.foretold == ConvergenceForecast(
        converges_in=due.passes_needed, syncs=due.syncs, seconds=due.seconds
    )
    assert found.syncs == 3
    assert found.seen_bytes_s == 32 * MIB
    assert (found.throttle_seen, found.throttle_due) == (None, None)


def test_a_bandwidth_that_is_not_set_is_the_median_rate() -> None:
    assert converged().bandwidth_bytes_s == 32 * MIB


def test_a_longer_downtime_limit_is_met_earlier() -> None:
    slow, fast = (converged(Policy(downtime_limit_ms=ms)).foretold for ms in (50, 1500))
    assert slow and fast
    assert slow.seconds and fast.seconds
    assert fast.seconds < slow.seconds


def test_a_guest_that_is_too_fast_never_converges() -> None:
    fast = converged(Policy(bandwidth_mib_s=8))
    assert fast.foretold == ConvergenceForecast()


def test_throttle_steps_are_reported_under_auto_converge_only() -> None:
    found = converged(Policy(auto_converge=True))
    assert (found.throttle_seen, found.throttle_due) == ((20, 30), (20, 30))


def test_without_samples_there_is_no_forecast() -> None:
    assert assess_convergence([], Policy(), BUSY) is None


@pytest.mark.parametrize(
    "samples",
    [
        [sample(0, 0, 0)],  # nothing was to be sent yet
        PASSES[3:],  # no look fell into the first pass
        PASSES[:3],  # nor one past it: not all of its zeros are known
        [sample(1, 250, 2, None), sample(2, 0, 2, None)],  # it is not known what is zero
    ],
)
def test_what_was_to_be_sent_is_not_guessed(samples: list[Sample]) -> None:
    assert first_pass_bytes(samples) is None
    assert converged(Policy(bandwidth_mib_s=8), samples).foretold is None


def test_without_a_known_rate_there_is_no_forecast() -> None:
    found = converged(samples=[sample(1, 250, 2), sample(2, 0, 252)])
    assert (found.memory_bytes, found.foretold) == (252 * MIB, None)


STOPPED = (
    qemu_event(100, "MIGRATION_PASS", "a", **{"pass": 1}),
    qemu_event(2000, "MIGRATION_PASS", "a", **{"pass": 2}),
    qemu_event(3100, "STOP"),
    qemu_event(3101, "MIGRATION", status="pre-switchover"),
    qemu_event(3110, "MIGRATION_PASS", "a", **{"pass": 5}),
)


def hop(
    policy: Policy, events: tuple[Event, ...] = STOPPED, qemu: QemuRecording | None = None
) -> Convergence | None:
    """Of the one hop of a move from a to b."""
    case = Case(id="x", policy=policy, workload=BUSY)
    whole = recording(qemu=qemu or QemuRecording())
    (found,) = move_details(whole, (HopEvents(events, "a", "b"),), case, {})
    return found.convergence


def sampled() -> QemuRecording:
    return QemuRecording(samples=tuple(PASSES))


def test_a_hop_has_what_happened_beside_its_forecast() -> None:
    found = hop(Policy(bandwidth_mib_s=32), qemu=sampled())
    assert found is not None
    assert (found.switched_over, found.stopped_s, found.suspended) == (True, 3.0, False)
    assert found.syncs == 5  # nobody looked so late
    assert found.foretold is not None


def test_libvirts_account_tells_what_came_after_the_last_look() -> None:
    job = {"memory_iteration": 3, "memory_constant": 256 * 200, "data_processed": 90 * MIB}
    first = QemuRecording(samples=tuple(PASSES[1:2]))
    events = (*STOPPED, qemu_event(3200, "job-completed", "a", **job))
    bare, told = hop(Policy(), qemu=first), hop(Policy(), events, first)
    assert bare and told
    assert (bare.memory_bytes, told.memory_bytes) == (None, 56 * MIB)  # 252 less 196


def test_without_qemus_passes_the_samples_count_the_syncs() -> None:
    found = hop(Policy(), STOPPED[2:4], sampled())
    assert found is not None
    assert (found.syncs, found.switched_over, found.stopped_s) == (3, True, None)


def test_a_guest_that_was_stopped_before_the_first_pass_did_not_stop_after_it() -> None:
    """A move that its policy suspends at once, or one of a guest that was paused."""
    found = hop(Policy(), (qemu_event(40, "STOP"), *STOPPED[:2]), sampled())
    assert found is not None
    assert found.stopped_s is None


def test_a_hop_that_was_given_up_did_not_stop() -> None:
    found = hop(
        Policy(), (*STOPPED[:2], qemu_event(4000, "MIGRATION", status="cancelled")), sampled()
    )
    assert found is not None
    assert (found.switched_over, found.stopped_s) == (False, None)


def test_a_stop_by_the_time_limit_is_no_convergence() -> None:
    suspends = Policy(on_timeout="suspend", timeout_s=3)
    found = hop(suspends, qemu=sampled())
    assert found is not None
    assert found.suspended
    patient = hop(suspends.model_copy(update={"timeout_s": 4.0}), qemu=sampled())
    assert patient is not None
    assert not patient.suspended


def test_a_move_that_is_no_precopy_or_has_no_samples_has_no_convergence() -> None:
    assert hop(Policy(method="postcopy"), qemu=sampled()) is None
    assert hop(Policy(method="save-restore"), qemu=sampled()) is None
    assert hop(Policy()) is None
    assert hop(Policy(), qemu=QemuRecording()) is None
    over = (*STOPPED, qemu_event(3200, "MIGRATION", status="postcopy-active"))
    assert hop(Policy(on_timeout="postcopy"), over, sampled()) is None
