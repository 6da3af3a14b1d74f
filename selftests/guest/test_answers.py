"""What a guest may say in place of an answer: each is an error in words, and none costs much."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from migrate.clock import Deadline
from migrate.errors import GuestError
from migrate.guest.probe import Probe
from migrate.guest.probe_channel import MOST_BYTES
from selftests.fuzz.probe_answers import CALLS, Answering

Ask = Callable[[Probe], object]


def answering(*lines: bytes) -> Probe:
    return Probe(Answering(b"\n".join(lines)), "guest on a")


def ok(**fields: Any) -> bytes:
    return json.dumps({"id": 1, "ok": True, **fields}).encode()


def changed(call: str, **fields: Any) -> tuple[Ask, bytes]:
    """A real answer to the call with other fields: its last one, if there are several."""
    ask, *answers = CALLS[call]
    return ask, b"\n".join(ok(**answer) for answer in (*answers[:-1], {**answers[-1], **fields}))


def without(call: str, field: str) -> tuple[Ask, bytes]:
    ask, *answers = CALLS[call]
    (answer,) = answers
    return ask, ok(**{key: value for key, value in answer.items() if key != field})


@pytest.mark.parametrize(
    "line",
    [
        b'{"id": []}',
        b'{"id": {}}',
        b'{"id": null}',
        b'{"id": true, "ok": true, "port": 7}',
        b'{"id": 1.0, "ok": true, "port": 7}',
        b'{"id": "1", "ok": true, "port": 7}',
        b'{"id": 1, "ok": true, "port": NaN}',
        b'{"id": 1, "ok": true, "port": 7, "x": "\\ud800"}',
        b'{"id": 1, "ok": true, "port": ' + b"9" * 5000 + b"}",
        b'{"id": 1, "ok": true, "port": ' + b"[" * 100_000 + b"}",
        b'{"id": 1, "ok": true, "port": 7, "x": "\xff"}',
        b"[1]",
        b"1",
        b"",
        b"\x00",
    ],
    ids=lambda line: repr(line[:40]),
)
def test_a_line_that_is_no_answer_is_waited_past(line: bytes) -> None:
    with pytest.raises(GuestError, match=r"the probe did not answer stream\.open"):
        answering(line).open_stream(7)


NONSENSE = {
    "an answer without its field": (without("open_stream", "port"), "port: Field required"),
    "a field that nobody knows": (changed("open_stream", more=1), "more: Extra inputs"),
    "a number as text": (changed("open_stream", port="40000"), "port: Input should be a valid int"),
    "a port below the first": (changed("open_stream", port=-1), "greater than or equal to 1"),
    "a port that is true": (changed("open_stream", port=True), "port: Input should be a valid int"),
    "a stamp of 2⁶³": (changed("clock_offset", mono_ns=1 << 63), "mono_ns: Input should be less"),
    "a clock before its start": (
        changed("clock_offset", mono_ns=-1),
        "mono_ns: Input should be gr",
    ),
    "a rate that is infinite": (
        (CALLS["dirty_rate"][0], ok(pages=1, writes=1).replace(b"}", b', "mib_s": 1e999}')),
        "mib_s: Input should be",
    ),
    "a rate below zero": (changed("dirty_rate", mib_s=-0.5), "mib_s: Input should be greater"),
    "a wait that is no number": (changed("tcp_check", waiting_ms=["x"]), "waiting_ms.0: "),
    "more waits than connections can be": (changed("tcp_check", waiting_ms=[1.0] * 65), "64 items"),
    "a name of 5,000 letters": (
        changed("nic", name="e" * 5000),
        "name: String should have at most",
    ),
    "features that are no bits": (changed("nic", features="01x"), "features: String should match"),
    "a change of two fields": (changed("lower_account", changes=[[1, "eth0"]]), "changes.0."),
    "a change that nobody knows": (
        changed("lower_account", changes=[[1, "eth0", "x", "melted", 0, 0]]),
        "changes.0.3: Input should be 'appeared'",
    ),
    "more changes than it counted": (changed("lower_account", total=0), "more changes than"),
    "more frames than it counted": (changed("capture_log", total=0), "more frames than"),
    "a frame of a kind of its own": (
        changed("capture_log", frames=[{"at_ns": 1, "kind": "x", "mac": "", "length": 1}]),
        "frames.0.kind",
    ),
    "a late tick of three numbers": (changed("jumps", jumps=[[1, 2, 3]]), "jumps.0"),
    "4,001 seconds of work": (changed("work_log", seconds=[[1, 1, 1, 1]] * 4001), "4000 items"),
    "a wrong page without its words": (changed("verify", expected=None), "expected: Input should"),
    "a log longer than any": (changed("arrivals", total=1 << 40), "total: Input should be less"),
    "a log of no records": (changed("arrivals", count=0, data=""), "it has 5 records, and gives 0"),
    "a page from elsewhere": (changed("arrivals", **{"from": 2}), "from 2 on are not the page"),
    "half a record": (changed("arrivals", data="AAAA"), "3 bytes from 0 on are not the page"),
    "records that are no base64": (changed("arrivals", data="A" * 133 + "!"), "the probe's answer"),
    "more records than were asked for": (
        changed("arrivals", count=6000, data=base64.b64encode(bytes(120_000)).decode()),
        "120000 bytes from 0 on are not the page",
    ),
    "a stamp of a packet that is no time": (
        changed("sends", count=1, total=1, data=base64.b64encode(b"\xff" * 8).decode()),
        "a record's sent_ns is 18446744073709551615",
    ),
    "1,001 drops": (changed("meter_loss", drops=[[1, 1]] * 1001), "1000 items"),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_is_an_error_that_says_what_is_wrong(name: str) -> None:
    (ask, answer), said = NONSENSE[name]
    with pytest.raises(GuestError) as caught:
        ask(answering(answer))
    assert said in str(caught.value)
    assert caught.value.host == "guest on a"


def test_of_many_errors_the_first_three_are_told_and_a_count() -> None:
    ask, answer = changed("work_log", seconds=[["x"] * 4] * 4000)
    with pytest.raises(GuestError) as caught:
        ask(answering(answer))
    assert "seconds.0.0: " in caught.value.said
    assert caught.value.said.endswith("and 15997 more errors")
    assert len(str(caught.value)) < 1000


def test_numbers_that_were_not_due_are_an_error() -> None:
    """Else an array is made that has room for all numbers up to the highest."""
    record = np.array([(4_000_000_000, 1, 1)], dtype="<u4,<u8,<u8").tobytes()
    data = base64.b64encode(record).decode()
    probe = answering(ok(total=1, count=1, data=data, **{"from": 0}))
    with pytest.raises(GuestError, match=r"seq is 4000000000, more than 99"):
        probe.arrivals(due=100)


def test_more_packets_than_were_due_are_an_error() -> None:
    data = base64.b64encode(bytes(20 * 201)).decode()
    probe = answering(ok(total=201, count=201, data=data, **{"from": 0}))
    with pytest.raises(GuestError, match="it has 201 records, 100 were due"):
        probe.arrivals(due=100)


def test_a_refusal_of_a_million_letters_is_quoted_in_part() -> None:
    probe = answering(json.dumps({"id": 1, "ok": False, "error": "x" * 900_000}).encode())
    with pytest.raises(GuestError) as caught:
        probe.dirty_stop()
    assert len(str(caught.value)) < 1000


class Flood:
    """A channel that has more bytes whenever it is asked."""

    def __init__(self, piece: bytes) -> None:
        self.piece = piece
        self.given = 0

    def send(self, data: bytes) -> None:
        """Nobody reads it."""

    def receive(self, deadline: Deadline) -> bytes:
        """The same again and again."""
        self.given += len(self.piece)
        return self.piece

    def close(self) -> None:
        """Nothing to close."""


FLOODS = {
    "no end of line": b"x" * 65536,
    "lines that are no answer": b'{"id": 99}\n' * 6000,
    "empty lines": b"\n" * 65536,
    "a byte at a time": b"x",
}


FLOODED = pytest.mark.parametrize("piece", FLOODS.values(), ids=FLOODS.keys())


@FLOODED
def test_a_flood_is_an_error_long_before_the_deadline(piece: bytes) -> None:
    flood = Flood(piece)
    with pytest.raises(GuestError, match=r"(bytes|lines) came"):
        Probe(flood, "guest on a").call("clock", Deadline.after(600))
    assert flood.given < 2 * MOST_BYTES


@FLOODED
def test_a_flood_in_place_of_a_greeting_is_an_error(piece: bytes) -> None:
    flood = Flood(piece)
    with pytest.raises(GuestError, match="the channel to the probe broke at hello"):
        Probe(flood, "guest on a").ready(Deadline.after(600))
    assert flood.given < 2 * MOST_BYTES


def test_a_guest_that_talks_past_the_question_is_silent_at_the_deadline() -> None:
    with pytest.raises(GuestError, match="the probe did not answer clock"):
        Probe(Flood(b"noise\n"), "guest on a").call("clock", Deadline.after(0))
