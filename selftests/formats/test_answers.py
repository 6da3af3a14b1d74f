"""Answers of hosts, against the shapes in which they are read: anything else is an error."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest

from migrate.errors import HostError
from migrate.formats import answers
from migrate.formats.answers import Count, MalformedError, QapiPart, Shape, plain, whole_number
from migrate.formats.qapi import KEPT
from migrate.formats.xml_document import parse_xml
from selftests.helpers import ROOT


class Rate(QapiPart):
    dirty_rate: Count
    vcpus: tuple[int, ...] = ()


RATE = Shape(Rate)
DEEP = "[" * 100_000


def test_what_is_read_is_had_and_the_rest_is_left_out() -> None:
    answer = RATE.of({"dirty-rate": 7, "vcpus": [1, 2], "x-new": {"deep": []}}, "query-x")
    assert (answer.dirty_rate, answer.vcpus) == (7, (1, 2))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ([], "should be an object: '[]'"),
        ({}, "dirty-rate: Field required"),
        ({"dirty-rate": None}, "dirty-rate: Input should be a valid integer"),
        ({"dirty-rate": "7"}, "dirty-rate: Input should be a valid integer"),
        ({"dirty-rate": True}, "dirty-rate: Input should be a valid integer"),
        ({"dirty-rate": 7.5}, "dirty-rate: Input should be a valid integer"),
        ({"dirty-rate": -1}, "dirty-rate: Input should be greater than or equal to 0"),
        ({"dirty-rate": 10**30}, "dirty-rate: Input should be less than"),
        ({"dirty-rate": 7, "vcpus": [1, {}]}, "vcpus.1: Input should be a valid integer"),
        ({"dirty-rate": float("nan")}, "dirty-rate: "),
        ("\ud800", "its answer can't be kept: UnicodeEncodeError"),
    ],
)
def test_anything_else_says_what_was_asked_where_and_what_is_wrong(
    answer: object, said: str
) -> None:
    with pytest.raises(MalformedError) as caught:
        RATE.of(answer, "query-dirty-rate", host="a")
    assert str(caught.value).startswith("query-dirty-rate on host a: ")
    assert said in str(caught.value)
    assert isinstance(caught.value, HostError)


@pytest.mark.parametrize(
    "text",
    ["", DEEP, '{"a":' * 100_000, "1" * 5000, "NaN", '{"dirty-rate": 1e999}', '"\\ud800"', b"\xff"],
)
def test_a_text_that_is_no_json_is_told_in_few_words(text: str | bytes) -> None:
    with pytest.raises(MalformedError) as caught:
        RATE.parse(text, "vdpa -j dev show", host="a")
    assert len(str(caught.value)) < 600


def test_a_text_that_nobody_would_read_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MOST_TEXT", 10)
    with pytest.raises(MalformedError, match="it answered with 15 characters"):
        RATE.parse('{"dirty-rate":7}'[:15], "ask")


@pytest.mark.parametrize("answer", [{"x": float("inf")}, "\udfff", {"x": [float("nan")]}])
def test_what_no_file_could_have_is_not_kept(answer: object) -> None:
    with pytest.raises(MalformedError):
        plain(answer, "query-x")
    assert plain({"x": [1, None, "é"]}, "query-x") == {"x": [1, None, "é"]}


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "٣", "9" * 20, "0x10", "1 2"])
def test_a_number_is_digits_and_not_too_many(text: str) -> None:
    with pytest.raises(MalformedError, match="it is no number"):
        whole_number(text, "read sriov_totalvfs", host="a")
    assert whole_number(" 7\n", "read it") == 7
    assert whole_number("0x1003\n", "read it", base=16) == 0x1003


def test_answers_of_real_qemus_have_their_shapes() -> None:
    """As they lie in the recordings."""
    read = 0
    for path in sorted((ROOT / "selftests" / "recordings").glob("*/recording.json.gz")):
        for hop in json.loads(gzip.decompress(path.read_bytes()))["hops"]:
            for end in ("source", "target"):
                for state in (hop["qemu"][end] or {}).values():
                    told = [("x-query-virtio-status", state["status"])]
                    told += [("x-query-virtio-queue-status", one) for one in state["queues"]]
                    for command, answer in told:
                        if answer is not None:
                            KEPT[command].of(answer, command)
                            read += 1
    assert read > 50


# --- XML ------------------------------------------------------------------------------------------

BOMB = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
ODD_XML: dict[str, tuple[Callable[[], str], str]] = {
    "nothing": (lambda: "", "no element found"),
    "no end": (lambda: "<domain>", "no element found"),
    "an entity that grows": (
        lambda: f'<!DOCTYPE x [<!ENTITY e0 "x">{BOMB}]><x>&e9;</x>',
        "it has a document type",
    ),
    "a file of the controller's": (
        lambda: '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>',
        "it has a document type",
    ),
    "no end of depth": (lambda: "<a>" * 100_000, "more than 100 elements"),
    "half a character": (lambda: "<a>\ud800</a>", "surrogates not allowed"),
    "a zero": (lambda: "<a>\x00</a>", "not well-formed"),
}


@pytest.mark.parametrize("kind", ODD_XML)
def test_xml_that_means_harm_is_told_in_few_words(kind: str) -> None:
    made, said = ODD_XML[kind]
    with pytest.raises(MalformedError) as caught:
        parse_xml(made(), "read the domain's XML", host="a")
    assert said in str(caught.value)
    assert len(str(caught.value)) < 600


def test_xml_of_libvirt_is_read() -> None:
    root: Any = parse_xml("<domain type='kvm'><uuid>x</uuid></domain>", "read it")
    assert (root.get("type"), root.findtext("uuid")) == ("kvm", "x")
