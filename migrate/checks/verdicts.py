"""What all checks share: how a verdict is made of a value, its error and a limit."""

from __future__ import annotations

import math
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
    return between(check, value - error, value + error, limit, evidence)


def between(
    check: str, least: float, most: float, limit: float, evidence: str, unit: str = "ms"
) -> Verdict:
    """What lies between two ends against a limit; ``most`` is infinite if there is no upper one."""
    result = ranked(least, most, limit)
    if result == "unmeasured" and math.isfinite(most):
        evidence += f"; the limit of {limit:g}{' ms' if unit == 'ms' else ''} is within the error"
    middle, error = (least + most) / 2, (most - least) / 2
    digits = 1 if unit == "ms" else 3
    measured = f"{middle:.{digits}f} ± {error:.{digits}f}" if error else f"{middle:.{digits}f}"
    return Verdict(
        check=check,
        result=result,
        measured=measured if math.isfinite(most) else f"≥ {least:.{digits}f}",
        limit=f"{limit:g}",
        unit=unit,
        evidence=evidence,
    )


def share_between(value: float, least: float, most: float) -> str:
    """A share and the ends between which it lies, as a verdict has them."""
    return f"{value:.3f} [{least:.3f}..{most:.3f}]" if most > least else f"{value:.3f}"


def ranked(least: float, most: float, limit: float) -> CheckResult:
    """Over a limit, within it, or neither for what is known."""
    if least > limit:
        return "fail"
    return "pass" if most <= limit else "unmeasured"


def guest_expected(attempt: Attempt) -> bool:
    """Whether a guest should be left to ask; none is where ``held_by`` is expected empty."""
    return bool(attempt.case.expect.held_by)


def listed(names: tuple[str, ...]) -> str:
    """Names in a sentence, ``none`` for none."""
    return ", ".join(names) or "none"
