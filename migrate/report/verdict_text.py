"""A verdict in words: what was measured, against what."""

from __future__ import annotations

from migrate.model import Attempt, Verdict

AT_LEAST = frozenset({"downtime.explained"})
"""Checks whose limit is the least; a number is the most in all others."""
NOT_MEASURED = "not measured"


def limit_text(verdict: Verdict) -> str:
    """``at most 5 ms``; empty without a limit."""
    if not verdict.limit:
        return ""
    bound = "at least" if verdict.check in AT_LEAST else "at most"
    words = f"{bound} {verdict.limit}" if _is_number(verdict.limit) else verdict.limit
    return _with_unit(words, verdict.unit)


def against_limit(verdict: Verdict) -> str:
    """`` against at most 5 ms``, `` (expected completed)``; empty without a limit, or if it is what
    was measured."""
    limit = limit_text(verdict)
    if not limit or verdict.measured == verdict.limit:
        return ""
    return f" against {limit}" if _is_number(verdict.limit) else f" (expected {limit})"


def verdict_text(verdict: Verdict) -> str:
    """``outage.egress 138.0 ms against at most 5 ms``."""
    if not verdict.measured:
        unmeasured = verdict.result == "unmeasured"
        return f"{verdict.check} {NOT_MEASURED if unmeasured else verdict.result}"
    measured = _with_unit(verdict.measured, verdict.unit) if _takes_unit(verdict) else ""
    figures = measured or verdict.measured
    against = against_limit(verdict)
    undecided = ": can't tell" if verdict.result == "unmeasured" else ""
    return f"{verdict.check} {figures}{against}{undecided}"


def _takes_unit(verdict: Verdict) -> bool:
    return verdict.unit == "ms" and verdict.measured[-1:].isdigit()


def _with_unit(text: str, unit: str) -> str:
    return f"{text} {unit}".rstrip() if text else ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def reason(verdict: Verdict) -> str:
    """The verdict, and where it is not decided by a figure alone, its evidence up to a clause."""
    if verdict.result == "fail" and verdict.measured and _is_number(verdict.limit):
        return verdict_text(verdict)
    first = verdict.evidence.partition(";")[0]
    return f"{verdict_text(verdict)}: {first}" if first else verdict_text(verdict)


def why_not_passed(attempt: Attempt) -> tuple[str, ...]:
    """Why an attempt did not pass, what matters most first: the last words of a QEMU that died, if
    the guest is not where it should be, and what libvirt made of it behind; empty: it passed."""
    if attempt.passed:
        return ()
    wrong = list(attempt.failed_verdicts)
    why = [f"void, so it neither passes nor fails: {void}" for void in attempt.void]
    as_expected = attempt.outcome == attempt.case.expect.outcome
    if not as_expected:
        why.append(_outcome_text(attempt))
        wrong = [verdict for verdict in wrong if verdict.check != "outcome"]
    why += map(reason, sorted(wrong, key=lambda verdict: verdict.result != "fail"))
    ends = map(str, attempt.qemu_ends)
    # An abort ends the target's QEMU: that is no reason where the guest is where it should be.
    is_misplaced = not as_expected or any(verdict.check == "held-by" for verdict in wrong)
    reasons = (*ends, *why) if is_misplaced else (*why, *ends)
    return reasons or ("no verdict was reached",)


def _outcome_text(attempt: Attempt) -> str:
    """How it ended, in the words of who said why; those of a QEMU that died are said before."""
    ended, error = f"{attempt.outcome}, not {attempt.case.expect.outcome}", attempt.error
    if error is None or attempt.qemu_ends:
        return ended
    where = f" on {error.host}" if error.host else ""
    return f"{ended}: {error.tried}{where}: {error.said}".rstrip(": ")
