"""The events on the page: what is listed, and what is told together."""

from __future__ import annotations

from typing import Any

from migrate.model import Event
from migrate.report.event_lines import LINES, event_lines
from migrate.report.figure_data import FigureData
from selftests.doubles import synthetic
from selftests.doubles.synthetic import HOSTILE, MS, STOP


def event(after_ms: float, name: str = "device-load", **fields: Any) -> Event:
    at_ns = STOP + round(after_ms * MS)
    return Event.model_validate(
        {"at_ns": at_ns, "source": "qemu", "host": "alpha", "name": name, **fields}
    )


def lines(*events: Event) -> tuple[str, ...]:
    return event_lines(FigureData(synthetic.attempt(synthetic.case()), {}, (), events))


def test_a_line_says_when_who_and_what() -> None:
    (line,) = lines(event(12.5, "STOP", error_ns=3000, data={"a": "é"}))
    assert line.split(maxsplit=6) == [
        "+12.500",
        "±",
        "0.003",
        "alpha",
        "qemu",
        "STOP",
        '{"a": "é"}',
    ]


def test_when_an_event_happened_may_not_be_known() -> None:
    assert "± " in lines(event(0, error_ns=None))[0]
    assert "?" in lines(event(0, error_ns=None))[0]


def test_many_of_a_name_within_a_moment_are_one_line_and_others_keep_theirs() -> None:
    burst = [event(number, data={"number": number}) for number in range(30)]
    later = event(2000, data={"number": 99})
    first, between, last = lines(*burst, event(30, "STOP"), later)
    assert first.endswith("device-load 30 times, last at +29.000")
    assert between.endswith("STOP")
    assert last.endswith('device-load {"number": 99}')


def test_a_few_are_listed_one_by_one_and_so_are_statuses() -> None:
    assert len(lines(*(event(number) for number in range(4)))) == 4
    statuses = [event(n, "MIGRATION", data={"status": f"status {n}"}) for n in range(9)]
    assert len(lines(*statuses)) == 9


def test_how_many_are_left_out_is_told() -> None:
    said = lines(*(event(number, f"event {number}") for number in range(LINES + 7)))
    assert len(said) == LINES + 1
    assert said[-1] == "… and 7 more"


def test_control_characters_are_shown_and_long_data_is_cut() -> None:
    (line,) = lines(event(0, data={"text": HOSTILE * 9}))
    assert line.isprintable()
    assert line.endswith("letters)")
    assert len(line) < 200
