"""The registry of checks, walked: each passes, fails, and is unmeasured for want of each part that
it needs to have seen; documentation says the same.

``python -m selftests.checks.test_registry --update`` writes the table of ``docs/checks.md`` anew.
"""

from __future__ import annotations

import re
import sys

import pytest

from migrate.checks.needs import Need
from migrate.checks.registry import CHECKS, Check
from selftests.checks.samples import ALL_LIMITS, SAMPLES, attempt
from selftests.helpers import ROOT

PAGE = ROOT / "docs" / "checks.md"
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


# --- documentation ------------------------------------------------------------------------------


def table() -> str:
    heads = ("check", "key of `[expect]`", "passes if", "looks at", "needs to have seen")
    rows: list[tuple[str, ...]] = [heads, ("---",) * len(heads)]
    rows += [
        (
            f"`{check.name}`",
            f"`{check.key}`" if check.key else "always",
            check.passes_if,
            check.looks_at,
            ", ".join(check.needs_by_docstring) or "nothing else",
        )
        for check in CHECKS
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def with_table(page: str) -> str:
    return re.sub(r"^\|.*\|$", table(), page, count=1, flags=re.DOTALL | re.MULTILINE)


def test_the_table_in_the_documentation_is_that_of_the_registry() -> None:
    page = PAGE.read_text()
    assert page == with_table(page), "python -m selftests.checks.test_registry --update"


if __name__ == "__main__":
    if sys.argv[1:] != ["--update"]:
        sys.exit("python -m selftests.checks.test_registry --update")
    PAGE.write_text(with_table(PAGE.read_text()))
