"""What is tried next: what was never tried, then what tells most a second; nothing starves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrate.campaign.priority import (
    UNKNOWN_S,
    WEEK_S,
    Choice,
    Cost,
    PastTry,
    Worth,
    costs,
    doubt,
    order,
    worth,
)

NOW = 1_800_000_000.0
DAY = 86400.0
NEW = "qemu 11"

pasts = st.builds(
    PastTry,
    at_s=st.floats(NOW - 10 * WEEK_S, NOW),
    passed=st.booleans(),
    versions=st.sampled_from(["qemu 10", NEW]),
    seconds=st.none() | st.floats(0, 3600),
    outage_ms=st.none() | st.floats(0, 1e5),
)
histories = st.dictionaries(
    st.sampled_from("abcdef"),
    st.lists(pasts, max_size=12).map(lambda found: sorted(found, key=lambda one: one.at_s)),
)
CASES = tuple("abcdef")


def steady(count: int = 10, **fields: object) -> list[PastTry]:
    """Tries that all passed, alike, an hour apart; the last one an hour ago."""
    one = PastTry(NOW, passed=True, versions=NEW, seconds=60.0, outage_ms=100.0)
    found = [replace(one, at_s=NOW - 3600.0 * (count - n)) for n in range(count)]
    return [*found[:-1], replace(found[-1], **fields)]  # type: ignore[arg-type]


def first(**history: list[PastTry]) -> str:
    return order(sorted(history), history, NOW, NEW)[0].case_id


@pytest.mark.parametrize(
    "other",
    [
        [],
        steady(passed=False),
        steady(versions="qemu 10"),
        steady(2),
        [replace(one, outage_ms=100.0 + 90 * (n % 2)) for n, one in enumerate(steady())],
        [replace(one, passed=bool(n % 2)) for n, one in enumerate(steady())],
        [replace(one, at_s=one.at_s - WEEK_S) for one in steady()],
        [replace(one, seconds=20.0) for one in steady()],
    ],
    ids=["never", "failed", "versions", "few", "spread", "flaky", "old", "quick"],
)
def test_what_comes_before_a_case_that_is_well_known(other: list[PastTry]) -> None:
    assert first(a=steady(), b=other) == "b"
    assert first(a=other, b=steady()) == "a"


def test_what_was_never_tried_is_first_and_the_quickest_order_is_that_of_the_file() -> None:
    found = order(["a", "new", "other"], {"a": steady(passed=False)}, NOW, NEW)
    assert [choice.case_id for choice in found] == ["new", "other", "a"]
    assert (found[0].worth, found[0].cost.seconds) == (None, 60.0)


def test_the_reason_is_the_part_that_weighs_most() -> None:
    for past, why in (
        (steady(passed=False), "failed"),
        (steady(versions="qemu 9"), "changed"),
    ):
        found = worth(past, NOW, NEW)
        assert found is not None
        assert found.most == why
    old = worth(steady(), NOW + 10 * WEEK_S, NEW)
    assert old is not None
    assert old.most == "age"


@pytest.mark.parametrize(
    ("worth", "past", "words"),
    [
        (None, [], "never tried in this lab"),
        (Worth(failed=2), "f", "its last try failed"),
        (Worth(doubt=1), "pfppf", "passed 3 of 5"),
        (Worth(doubt=1), "pp", "tried only twice"),
        (Worth(doubt=1), "p", "tried only once"),
        (Worth(doubt=1), "ppp", "tried only 3 times"),
        (Worth(age=2), "p", "last tried 14 days ago"),
    ],
)
def test_the_reason_in_words(worth: Worth | None, past: str, words: str) -> None:
    tries = [PastTry(NOW - 14 * DAY, each == "p", NEW) for each in past]
    choice = Choice("a", Cost(10.0, "own"), worth)
    assert choice.reason(tries, NOW) == words
    assert replace(choice, quarantined=True).reason(tries, NOW) == f"quarantined; {words}"


def test_what_is_known_to_fail_is_last() -> None:
    history = {"a": steady(passed=False), "b": steady()}
    found = order(["a", "new", "b"], history, NOW, NEW, {"a", "new"})
    assert [choice.case_id for choice in found] == ["b", "new", "a"]


def test_costs_are_medians_or_what_is_known_of_others() -> None:
    history = {"a": [replace(steady()[0], seconds=s) for s in (10.0, 1000.0, 30.0, None)]}
    assert costs(["a", "b"], history) == {"a": Cost(30.0, "own"), "b": Cost(30.0, "others")}
    assert costs(["a"], {}) == {"a": Cost(UNKNOWN_S, "assumed")}


def test_doubt_is_entropy() -> None:
    assert doubt([]) == 1.0
    assert doubt([True]) == doubt([False]) > doubt([True, True])
    assert doubt([True, False] * 5) > 0.98
    assert doubt([True] * 9 + [False]) > doubt([False] + [True] * 9), "later ones count more"


@given(history=histories)
def test_every_case_is_there_once_and_the_order_is_one(history: dict[str, list[PastTry]]) -> None:
    found = order(CASES, history, NOW, NEW)
    assert sorted(choice.case_id for choice in found) == list(CASES)
    assert order(CASES, history, NOW, NEW) == found
    assert list(found) == sorted(found, key=lambda choice: choice.rank)


@given(history=histories)
def test_what_was_never_tried_is_before_all_that_was(history: dict[str, list[PastTry]]) -> None:
    tried = [choice.worth is not None for choice in order(CASES, history, NOW, NEW)]
    assert tried == sorted(tried)


@given(past=st.lists(pasts, min_size=1, max_size=12))
def test_all_parts_but_the_age_are_bounded(past: Sequence[PastTry]) -> None:
    found = worth(past, NOW, NEW)
    assert found is not None
    assert 0 <= found.doubt <= 1
    assert 0 <= found.spread <= 1
    assert 0 <= found.sum - found.age <= 6 + 1e-9


@given(past=st.lists(pasts, min_size=1, max_size=12))
def test_a_failure_never_makes_a_case_less_worth_than_a_pass_of_a_steady_one(
    past: list[PastTry],
) -> None:
    alike = [replace(one, passed=True) for one in past]
    failed = [*alike[:-1], replace(alike[-1], passed=False)]
    good, bad = worth(alike, NOW, NEW), worth(failed, NOW, NEW)
    assert good is not None
    assert bad is not None
    assert bad.sum > good.sum


@given(history=histories, slow=st.floats(1, 3600))
def test_nothing_starves(history: dict[str, list[PastTry]], slow: float) -> None:
    """Others are tried again and again, a second each, and always fail: still it gets its turn."""
    waiting = [replace(one, seconds=slow) for one in steady()]
    late = NOW + 8 * slow * WEEK_S
    busy = {
        case: [*past, PastTry(late, passed=False, versions="qemu 9", seconds=0.0)]
        for case, past in history.items()
        if past
    }
    found = order([*busy, "waiting"], {**busy, "waiting": waiting}, late, NEW)
    assert found[0].case_id == "waiting"
