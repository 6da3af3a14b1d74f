"""An attempt out of its findings: whose they are, and what the checks say of them."""

from __future__ import annotations

from migrate.checks.registry import run_checks
from migrate.model import Attempt, Case, Findings


def evaluate(
    findings: Findings,
    case: Case,
    number: int,
    hosts: tuple[str, str],
    *,
    leftovers: tuple[str, ...] | None,
    end_ns: int,
) -> Attempt:
    """``hosts``: source and target; ``leftovers``: None if nobody could look for them."""
    attempt = Attempt(
        **dict(findings),
        case=case,
        number=number,
        source=hosts[0],
        target=hosts[1],
        end_ns=end_ns,
        leftovers=leftovers,
    )
    return attempt.model_copy(update={"verdicts": run_checks(attempt)})
