"""The registry of checks, walked: each passes, fails, and is unmeasured for want of each part that
it needs to have seen."""

from __future__ import annotations

import pytest

from migrate.checks.needs import Need
from migrate.checks.registry import CHECKS, Check
from selftests.checks.samples import ALL_LIMITS, SAMPLES, attempt

NEEDS = [
    pytest.param(check, need, id=f"{check.name}-{need.name}")
    for check in CHECKS
    for need in check.needs
]


def name(check: Check) -> str:
    return check.name


def test_there_are_samples_of_every_check() -> None:
    assert list(SAMPLES) == [check.name for check in CHECKS]
    for check in CHECKS:
        assert list(SAMPLES[check.name].without) == [need.name for need in check.needs], check.name


@pytest.mark.parametrize("check", CHECKS, ids=name)
def test_a_check_passes_and_fails(check: Check) -> None:
    good = check.judge(attempt(expect=ALL_LIMITS))
    bad = check.judge(attempt(expect=ALL_LIMITS, **SAMPLES[check.name].fails))
    assert good is not None
    assert bad is not None
    assert (good.check, good.result, bad.result) == (check.name, "pass", "fail")


@pytest.mark.parametrize(("check", "need"), NEEDS)
def test_a_check_does_not_pass_without_what_it_needs(check: Check, need: Need) -> None:
    """The sample lacks this part alone, and the verdict says so."""
    sample = attempt(expect=ALL_LIMITS, **SAMPLES[check.name].without[need.name])
    lacks = [other.name for other in check.needs if other.missing(sample)]
    verdict = check.judge(sample)
    assert verdict is not None
    assert (lacks, verdict.result) == ([need.name], "unmeasured")
    assert verdict.evidence


@pytest.mark.parametrize("check", CHECKS, ids=name)
def test_the_docstring_says_what_a_check_looks_at_and_needs(check: Check) -> None:
    assert check.looks_at
    assert check.needs_by_docstring == tuple(need.name for need in check.needs)


def test_a_docstring_without_it_is_noticed() -> None:
    check = CHECKS[0]
    with pytest.raises(ValueError, match="outcome lacks"):
        _ = Check(check.name, lambda _attempt: None, check.key, check.passes_if).looks_at
