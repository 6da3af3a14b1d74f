"""What all checks share: how a verdict is made of a value, its error and a limit."""

from __future__ import annotations

from typing import Literal

from migrate.model import Attempt, Verdict

CheckResult = Literal["pass", "fail", "unmeasured"]


def unmeasured(check: str, reason: str, limit: float | None = None, unit: str = "ms") -> Verdict:
    """A verdict on what could not be measured, and why; with the limit that was set, if any."""
    if limit is None:
        return Verdict(check=check, result="unmeasured", evidence=reason)
    return Verdict(check=check, result="unmeasured", limit=f"{limit:g}", unit=unit, evidence=reason)


def within(check: str, value: float, error: float, limit: float, evidence: str) -> Verdict:
    """Milliseconds against a limit; nothing is ranked inside its own error."""
    result: CheckResult
    if value - error > limit:
        result = "fail"
    elif value + error <= limit:
        result = "pass"
    else:
        result = "unmeasured"
        evidence += f"; the limit of {limit:g} ms lies inside the error"
    return Verdict(
        check=check,
        result=result,
        measured=f"{value:.1f} ± {error:.1f}" if error else f"{value:.1f}",
        limit=f"{limit:g}",
        unit="ms",
        evidence=evidence,
    )


def guest_expected(attempt: Attempt) -> bool:
    """Whether a guest should be left to ask; none is where ``held_by`` is expected empty."""
    return bool(attempt.case.expect.held_by)


def listed(names: tuple[str, ...]) -> str:
    """Names in a sentence, ``none`` for none."""
    return ", ".join(names) or "none"
