"""What a nightly run planned and did not run, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from migrate.model import UnreachedTries

INTERRUPTED = "interrupted"


def unreached_lines(unreached: Sequence[UnreachedTries]) -> Iterator[str]:
    """A line a reason: ``Not run: moves-vhost-user (3 tries, about 11 s each; 5 s were left)``."""
    for reason in dict.fromkeys(missed.reason for missed in unreached):
        same = [missed for missed in unreached if missed.reason == reason]
        head = "Not run, interrupted" if reason == INTERRUPTED else "Not run"
        if len(same) == 1:
            yield f"{head}: {same[0].case_id} ({why_unreached(same[0])})"
            continue
        cases = ", ".join(f"{missed.case_id} ({_tries(missed)})" for missed in same)
        yield f"{head}: {cases}{_left(same[0])}"


def why_unreached(missed: UnreachedTries) -> str:
    """``3 tries, about 11 s each; 5 s were left``."""
    return f"{_tries(missed)}{_left(missed)}"


def _tries(missed: UnreachedTries) -> str:
    count = "1 try" if missed.tries == 1 else f"{missed.tries} tries"
    each = " each" if missed.tries > 1 else ""
    basis = ", assumed: no try in this lab is known yet" if missed.assumed else ""
    return f"{count}, about {missed.expected_s:.0f} s{each}{basis}"


def _left(missed: UnreachedTries) -> str:
    if missed.left_s is None or missed.reason == INTERRUPTED:
        return ""
    return f"; {missed.left_s:.0f} s were left"
