"""What a check has to have seen: the edges of it."""

from __future__ import annotations

from migrate.checks import needs
from selftests.checks.samples import MS, attempt, gap, losses, unknown


def test_a_silence_that_was_seen_to_the_end_is_known_whatever_was_not_right_before_it() -> None:
    silent = gap(600, begin_ns=400 * MS, open_ended=True)
    seen = attempt(**losses("egress", "after", 0), gaps=(silent,), unmeasured=(unknown(385, 14),))
    assert needs.KNOWN.missing(seen) == ""
    said = needs.ENDED.missing(seen)
    assert said == "egress received nothing for the last 600 ms, and may be for good"


def test_what_nothing_is_known_of_after_a_silence_is_not_known() -> None:
    silent = gap(300, begin_ns=400 * MS, open_ended=True)
    seen = attempt(
        **losses("egress", "after", 0),
        gaps=(silent,),
        unmeasured=(unknown(700, 300, open_ended=True),),
    )
    assert needs.KNOWN.missing(seen) == "egress is not known to the end: the log was full"
