"""How a QEMU ended, and what it said last, by logs as libvirt and QEMU write them."""

from __future__ import annotations

import pytest

from migrate.formats.qemu_end import qemu_end

START = """\
2026-11-28 17:49:30.000+0000: starting up libvirt version: 11.3.0, package: 3, hostname: b
LC_ALL=C \\
/usr/bin/qemu-system-x86_64 \\
-name guest=guest,debug-threads=on \\
-msg timestamp=on
2026-11-28 17:49:55.438+0000: Domain id=1 is tainted: high-privileges
char device redirected to /dev/pts/0 (label charserial0)
2026-11-28T17:49:30.100000Z qemu-system-x86_64: warning: host doesn't support requested feature
2026-11-28T17:49:30.200000Z qemu-system-x86_64: something of the start
2026-11-28T17:49:59.000000Z warning: fd: migration to a file is deprecated. Use file: instead.
2026-11-28 17:49:59.467+0000: initiating migration
515@1795905707.456713:vmstate_downtime_load type=non-iterable idstr=PCIBUS instance_id=3
"""


def down(reason: str) -> str:
    return (
        f"2026-11-28 17:50:00.500+0000: shutting down, reason={reason}\n"
        "2026-11-28T17:50:00.600000Z qemu-system-x86_64: terminating on signal 15 from pid 39\n"
    )


ASSERTION = (
    "qemu-system-x86_64: qapi/qapi-visit-core.c:52: visit_start_struct: Assertion "
    "`!(v->type & VISITOR_OUTPUT) || *obj' failed."
)


def test_an_assertion_stands_in_the_end_of_a_qemu_that_crashed() -> None:
    end = qemu_end(f"{START}{ASSERTION}\n{down('crashed')}", "a")
    assert end is not None
    assert (end.host, end.how) == ("a", "by libvirt: crashed")
    assert end.last_words == ASSERTION
    assert str(end).startswith("QEMU on a ended (by libvirt: crashed): qemu-system-x86_64: qapi/")


def test_one_that_was_killed_said_nothing() -> None:
    """libvirt may notice the failed migration before it does the end of QEMU."""
    unasked, _signal = down("failed").splitlines()
    end = qemu_end(f"{START}{unasked}\n", "b")
    assert str(end) == "QEMU on b ended (by libvirt: failed), without a word"
    end = qemu_end(START + down("crashed"), "a")
    assert str(end) == "QEMU on a ended (by libvirt: crashed), without a word"


def test_a_signal_that_is_not_libvirts_is_named() -> None:
    said = (
        "2026-11-28T17:50:00.400000Z qemu-system-x86_64: terminating on signal 6 from pid 7 (x)\n"
    )
    end = qemu_end(START + said + down("crashed"), "a")
    assert end is not None
    assert end.how == "signal 6"
    assert "from pid 7 (x)" in end.last_words


def test_an_incoming_one_that_refuses_ends_in_its_own_words() -> None:
    words = "VQ 0 vring.num 1024 exceeds allocated max 128"
    said = f"2026-11-28T17:50:00.400000Z qemu-system-x86_64: {words}\n"
    end = qemu_end(START + said + down("failed"), "b")
    assert end is not None
    assert end.last_words == f"qemu-system-x86_64: {words}"
    assert qemu_end(START + down("failed"), "b") is None, "libvirt ended it: another had failed"


@pytest.mark.parametrize("reason", ["migrated", "saved", "destroyed", "shutdown"])
def test_one_that_ended_as_it_was_asked_to_is_none(reason: str) -> None:
    assert qemu_end(f"{START}{ASSERTION}\n{down(reason)}", "a") is None


def test_a_line_of_no_day_or_hour_has_no_age() -> None:
    log = f"{START}2026-13-28T17:49:59.000000Z {ASSERTION}\n{down('crashed')}"
    for text in (log, log.replace("28 17:50:00.5", "28 27:50:00.5")):
        end = qemu_end(text, "a")
        assert end is not None
        assert end.last_words.startswith(ASSERTION), "before what else was said"


def test_one_that_goes_on_is_none_whatever_an_earlier_one_said() -> None:
    assert qemu_end(f"{START}{ASSERTION}\n{down('crashed')}{START}", "a") is None
    assert qemu_end(START, "a") is None
    assert qemu_end("", "a") is None


def test_the_last_words_have_an_end() -> None:
    log = START + "x" * 5000 + "\n" + "y\n" * 100 + down("crashed")
    end = qemu_end(log, "a")
    assert end is not None
    assert len(end.last_words) <= 600
