"""Streams whose lengths, counts and depths are meant to do harm: an error, and little work."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migrate.errors import MeasurementError
from migrate.formats import vmstate_description
from migrate.formats.virtio_net_state import decode_net_state
from migrate.formats.vmstate_stream import read_stream, read_stream_end
from selftests.doubles.vmstate_stream import (
    FULL,
    PAGE,
    Writer,
    named,
    net_state,
    numbers,
    page,
    subsection,
    with_devices,
)


def field(name: str = "x", size: Any = 0, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "uint8", "size": size, **more}


def described(*fields: Any, times: int = 1, content: bytes = b"") -> bytes:
    """A stream with one device, whose section comes so often."""
    writer = Writer()
    writer.device(3, "x", content, *fields)
    for number in range(1, times):
        writer.section(FULL, 3 + number, content, "x")
    return writer.stream()


def nested(depth: int) -> dict[str, Any]:
    inner = field("y" * 100)
    for _ in range(depth):
        inner = field("y" * 100, struct={"fields": [inner]})
    return inner


def deep_name() -> bytes:
    text = described().replace(b'"name": "x"', b'"name": ' + b"[" * 900 + b"]" * 900)
    return resized(text)


def resized(stream: bytes) -> bytes:
    """With the length of its description as it is now."""
    at = stream.index(b'{"page_size')
    return stream[: at - 4] + numbers("I", len(stream) - at) + stream[at:]


def blocks(number: int) -> bytes:
    writer = Writer()
    records = b"".join(named(f"b{n}") + numbers("Q", 1) for n in range(number))
    writer.section(1, 2, page(PAGE * number, 4) + records, "ram", 4)
    return writer.stream()


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "a device that comes again and again": (
        lambda: described(*[field()] * 5000, times=3000),
        "x 0 is not described",
    ),
    "states within states": (lambda: described(nested(200)), "deeper than any state is"),
    "a number of 4,000 digits": (lambda: described(field(size=10**4000)), "description: size of"),
    "two numbers of 4,000 digits": (
        lambda: described(field(size=10**4000, array_len=10**4000)),
        "its description: array_len of",
    ),
    "a name that is a deep list": (deep_name, "x 0 is not described"),
    "sections without end": (
        lambda: resized(
            described().replace(
                b"\0\6", b"".join(numbers("BI", 1, n) + named("ram") + bytes(8) + numbers("Q", 16)
                                  + numbers("BI", 0x7E, n) for n in range(9, 20_000)) + b"\0\6", 1
            )
        ),
        "more than 16384 sections",
    ),
    "blocks of memory without end": (lambda: blocks(5000), "more than 4096 blocks"),
    "a long machine": (
        lambda: with_devices().stream().replace(
            b"\7" + numbers("I", 3), b"\7" + numbers("I", 300) + bytes(297), 1
        ),
        "a machine's name of 300 bytes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_stream_is_an_error_of_few_words(name: str) -> None:
    make, said = HOSTILE[name]
    with pytest.raises(MeasurementError) as raised:
        read_stream(make())
    assert said in str(raised.value)
    assert len(str(raised.value)) < 1000


def test_an_end_that_is_described_too_deep_is_an_error() -> None:
    state: dict[str, Any] = {"vmsd_name": "x"}
    for _ in range(200):
        state = {"vmsd_name": "x", "subsections": [state]}
    writer = Writer(devices=[{"name": "x", **state}])
    with pytest.raises(MeasurementError, match="its description: subsections"):
        read_stream_end(writer.stream())


def test_names_on_the_way_to_a_field_are_cut() -> None:
    account = read_stream(described(*[nested(20)] * 100))
    ((*_, last),) = [section.fields for section in account.sections if section.name == "x"]
    assert len(last.name) <= 240
    assert last.name.endswith("y" * 60)


def test_what_looks_like_descriptions_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each looks like one as long as all that follows, and none is."""
    monkeypatch.setattr(vmstate_description, "_LARGEST", 100_000)
    read, really = list[int](), json.loads

    def loads(text: bytes) -> Any:
        read.append(len(text))
        return really(text)

    monkeypatch.setattr(json, "loads", loads)
    text = b"[" + b"[]," * 10_000
    tail = (b"\0\6" + numbers("I", len(text)) + text) * 60
    with pytest.raises(MeasurementError, match="no description"):
        read_stream(b"QEVM" + numbers("I", 3) + tail)
    assert 0 < sum(read) <= 100_000


def net(old: bytes, new: bytes) -> bytes:
    state = net_state()
    assert state.count(old) == 1
    return state.replace(old, new)


MACS = numbers("HBBI", 1, 1, 0, 1)


def test_a_filter_without_end_is_an_error() -> None:
    state = net(MACS, numbers("HBBI", 1, 1, 0, 1 << 30))
    with pytest.raises(MeasurementError, match="a filter of 1073741824 addresses"):
        decode_net_state(state)


def test_a_configuration_without_end_is_an_error() -> None:
    state = net(numbers("I", 10), numbers("I", 1 << 31))
    with pytest.raises(MeasurementError, match="a configuration of 2147483648 bytes"):
        decode_net_state(state)


def test_a_subsection_that_comes_twice_ends_what_is_read() -> None:
    again = subsection("virtio/started", b"\1") * 50_000
    state = decode_net_state(net_state() + again)
    assert state.unread.endswith("subsection 'virtio/started' comes twice")
    assert state.mac == "52:54:00:6d:6c:01"


def test_the_state_of_a_device_that_is_far_too_long_is_a_note() -> None:
    writer = Writer()
    state = net_state() + bytes(1 << 20)
    name = "0000:00:02.0/virtio-net"
    writer.device(4, name, state, {"name": "virtio", "type": "virtio", "size": len(state)})
    account = read_stream(writer.stream())
    assert account.network == {}
    assert "it has" in account.notes[0]


WORDS: st.SearchStrategy[Any] = st.one_of(
    st.text(max_size=5), st.integers(-2, 1 << 70), st.none(), st.just([])
)
STATE = st.recursive(
    st.fixed_dictionaries(
        {}, optional={"name": WORDS, "size": WORDS, "type": WORDS, "array_len": WORDS}
    ),
    lambda inner: st.fixed_dictionaries(
        {"name": WORDS, "size": st.integers(0, 4)},
        optional={
            "fields": st.lists(inner, max_size=3),
            "subsections": st.lists(inner, max_size=2),
            "struct": inner,
            "vmsd_name": WORDS,
            "index": WORDS,
            "instance_id": WORDS,
        },
    ),
    max_leaves=12,
)


@settings(max_examples=300)
@given(st.lists(STATE, max_size=3), st.one_of(STATE, st.none()), st.binary(max_size=60))
def test_whatever_is_described_a_stream_gives_an_account_or_an_error(
    devices: list[Any], configuration: Any, content: bytes
) -> None:
    writer = Writer(devices=devices, configuration=configuration)
    writer.sections = content
    for read in (read_stream, read_stream_end):
        try:
            read(writer.stream())
        except MeasurementError as error:
            assert len(str(error)) < 1000


@settings(max_examples=300)
@given(st.integers(0, 6000), st.binary(min_size=1, max_size=8))
def test_whatever_lies_in_a_network_state_it_is_read_or_an_error(at: int, wrong: bytes) -> None:
    state = net_state()
    try:
        decode_net_state(state[:at] + wrong + state[at + len(wrong) :])
    except MeasurementError as error:
        assert error.said
