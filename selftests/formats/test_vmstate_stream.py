"""The account of a migration stream: of one that is written here, whole and damaged."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migrate.drivers.libvirt import Domain
from migrate.errors import MeasurementError
from migrate.formats.virtio_features import feature_mask
from migrate.formats.virtio_net_state import decode_net_state
from migrate.formats.vmstate_description import Field
from migrate.formats.vmstate_stream import StreamAccount, read_stream, read_stream_end
from migrate.migration.move import End, Move, perform_move
from migrate.model import Policy
from migrate.model.recording import HopRecording, MoveResult
from migrate.recorder.collect import stream_file
from migrate.recorder.events import Listener
from migrate.recorder.phase_tracker import PhaseTracker
from migrate.recorder.stream_capture import stream_recording
from selftests.doubles.vmstate_stream import (
    FEATURES,
    PAGE,
    PART,
    Writer,
    by_libvirt,
    named,
    net_state,
    numbers,
    subsection,
    with_devices,
    with_ram,
)

# --- what it tells ------------------------------------------------------------------------------


def test_memory_is_counted_by_pages_and_bytes() -> None:
    told = read_stream(with_ram().stream())
    assert told.ram is not None
    assert (told.ram.full_pages, told.ram.zero_pages, told.ram.delta_pages) == (2, 1, 1)
    assert told.ram.blocks == {"pc.ram": 3 * PAGE}
    (section,) = told.sections
    assert (section.name, section.kind, section.parts, section.version) == ("ram", "iterated", 3, 4)
    assert section.bytes == told.ram.bytes == len(with_ram().sections)
    assert told.machine == "q35"


def test_sections_and_the_rest_are_all_of_the_stream() -> None:
    data = with_devices().stream()
    for whole in (data, by_libvirt(data)):
        told = read_stream(whole)
        assert told.stream_bytes == len(data)
        assert sum(one.bytes for one in told.sections) + told.other_bytes == len(data)
        assert told.description_bytes < told.other_bytes
    assert told.saved_by_libvirt
    names = {one.name for one in told.sections}
    assert names == {"0000:00:02.0/virtio-net", "ram", "pm", "rtc"}


def test_sections_of_one_name_are_distinguished() -> None:
    writer = Writer()
    for number in range(2):
        writer.device(number, "dma", b"ab", {"name": "x", "type": "uint16", "size": 2})
        writer.devices[-1]["instance_id"] = number
    second = writer.sections.rfind(named("dma")) + len(named("dma"))
    writer.sections = writer.sections[: second + 3] + b"\1" + writer.sections[second + 4 :]
    told = read_stream(writer.stream()).sections
    assert [(one.name, one.instance) for one in told] == [("dma", 0), ("dma", 1)]


def test_a_stream_without_its_begin_still_gives_its_devices() -> None:
    data = with_devices().stream()
    whole = read_stream(data)
    devices = tuple(one for one in whole.sections if one.kind == "full")
    first = len(data) - whole.description_bytes - 1 - sum(one.bytes for one in devices)
    for begin in (first, 3, 0):
        told = read_stream_end(data[begin:])
        assert told.sections == devices
        assert told.network == whole.network
        assert told.description_bytes == whole.description_bytes
    with pytest.raises(MeasurementError, match="devices are described that were not captured"):
        read_stream_end(data[first + 1 :])


def test_an_end_that_is_not_as_described_is_an_error() -> None:
    writer = with_devices()
    name = str(writer.devices[0]["name"])
    writer.devices[0]["name"] = "x" * len(name)
    with pytest.raises(MeasurementError, match="is not described"):
        read_stream_end(writer.stream())


def test_fields_have_places_and_values() -> None:
    sections = {one.name: one for one in read_stream(with_devices().stream()).sections}
    assert sections["rtc"].fields == (
        Field("index", "uint8", 0, 1, value=7),
        Field("inner.period", "uint16", 1, 2, value=0x1234),
        Field("inner.offset", "int32", 3, 4, value=-2),
        Field("cmos", "buffer", 7, 6),
        Field("irq", "uint16", 13, 4, count=2),
    )
    assert sections["pm"].fields[1:] == (Field("pm/more.x", "uint32", 14, 4, value=9),)


def test_the_network_device_is_decoded() -> None:
    (state,) = read_stream(with_devices().stream()).network.values()
    assert state.status == ("acknowledge", "driver", "driver_ok", "features_ok")
    assert state.features == ("ctrl_guest_offloads", "mac", "ctrl_vq", "version_1")
    assert (state.mac, state.link_up, state.promiscuous) == ("52:54:00:6d:6c:01", True, True)
    assert (state.mac_table, state.vlans) == (("33:33:00:00:00:01",), 2)
    assert state.guest_offloads == ("guest_csum",)
    second = state.queues[1]
    assert (second.size, second.descriptors, second.last_avail) == (256, 0x2000, 11)
    assert (second.vector, second.available, second.used_ring) == (2, 0xA001, 0xB001)
    assert (second.used, second.avail_wrap, second.in_flight) == (None, None, None)
    assert (state.started, state.broken, state.unread) == (True, False, "")


def test_a_packed_ring_has_its_indices_in_the_stream() -> None:
    features = FEATURES | feature_mask(["ring_packed"])
    queue = decode_net_state(net_state(features=features, packed=True)).queues[2]
    assert (queue.last_avail, queue.avail_wrap) == (22, True)
    assert (queue.used, queue.used_wrap, queue.in_flight) == (20, False, 2)


def test_several_queue_pairs_and_no_offloads() -> None:
    state = decode_net_state(net_state(features=feature_mask(["mac", "version_1"]), pairs=2))
    assert (state.queue_pairs, state.max_queue_pairs, state.guest_offloads) == (2, 2, None)
    assert state.unread == ""


def test_features_beyond_the_64th_are_read_too() -> None:
    """As QEMU saves them from 10.1 on."""
    wide = subsection("virtio/128bit_features", (1 << 67 - 64).to_bytes(8, "big"))
    assert decode_net_state(net_state() + wide).features[-1] == "host_udp_tunnel_gso"


def test_an_unknown_subsection_is_named_and_what_was_read_stays() -> None:
    state = decode_net_state(net_state() + subsection("virtio/from_tomorrow", b"xyz"))
    assert "virtio/from_tomorrow" in state.unread
    assert state.mac == "52:54:00:6d:6c:01"
    assert "virtio/started" in state.subsections


def test_a_network_state_that_is_none_is_a_note() -> None:
    writer = Writer()
    writer.device(1, "virtio-net", b"abc", {"name": "virtio", "type": "virtio", "size": 3})
    told = read_stream(writer.stream())
    assert told.network == {}
    (note,) = told.notes
    assert "virtio-net can't be read" in note


def test_a_configuration_with_capabilities() -> None:
    writer = with_ram()
    content = numbers("I", 3) + b"q35" + subsection("cap", numbers("I", 1) + named("mapped-ram"))
    capability = {"name": "capabilities", "type": "capability", "size": 11}
    writer.configuration = {
        "fields": [
            {"name": "len", "type": "uint32", "size": 4},
            {"name": "name", "type": "buffer", "size": 3},
        ],
        "subsections": [
            {"vmsd_name": "cap", "fields": [{"name": "n", "type": "uint32", "size": 4}, capability]}
        ],
    }
    stream = writer.stream().replace(numbers("I", 3) + b"q35", content, 1)
    with pytest.raises(MeasurementError, match="mapped-ram"):
        read_stream(stream)
    ignored = stream.replace(named("mapped-ram"), named("mapped-raw"), 1)
    assert read_stream(ignored).machine == "q35"


# --- what is wrong with it ----------------------------------------------------------------------


def changed(old: bytes, new: bytes, *, last: bool = False) -> bytes:
    data = with_devices().stream()
    at = data.rfind(old) if last else data.find(old)
    assert at >= 0
    return data[:at] + new + data[at + len(old) :]


DAMAGED = {
    "not a stream": (b"GIF89a" * 9, "neither a migration stream nor"),
    "nothing": (b"", "neither a migration stream nor"),
    "not finished": (by_libvirt(b"", b"LibvirtQemudPart"), "did not finish to save"),
    "compressed": (by_libvirt(b"", kind=3), "saved it as xz, and only raw"),
    "sparse": (by_libvirt(b"", kind=6), "saved it as sparse"),
    "a new format": (by_libvirt(b"", kind=99), "saved it as format 99"),
    "not after the XML": (by_libvirt(b"abcd" + with_ram().stream()[4:]), "no migration stream"),
    "cut off": (with_devices().stream()[:-9], "no description of the devices"),
    "another version": (changed(b"QEVM\0\0\0\3", b"QEVM\0\0\0\4"), "version 4 of the stream"),
    "RDMA's record": (changed(numbers("Q", 0x200), numbers("Q", 0x80)), "flags 0x80"),
    "a footer": (changed(numbers("BI", 0x7E, 3), numbers("BI", 0x7D, 3)), "rtc does not end"),
    "another's footer": (changed(numbers("BI", 0x7E, 3), numbers("BI", 0x7E, 9)), "another sec"),
    "not described": (changed(b'"name": "rtc"', b'"name": "rtd"'), "rtc 0 is not described"),
    "a size": (changed(b'"size": 6}', b'"size": -}'), "no description of the devices"),
    "a negative size": (changed(b'"size": 6', b'"size":-6'), "its description: size of"),
    "a size too great": (changed(b'"buffer", "size": 6', b'"buffer", "size":6e'), "no descr"),
    "a struct": (changed(b'"int32", "size": 4', b'"int32", "size": 3'), "longer than its fields"),
    "a subsection": (changed(b"pm/more", b"pm/less"), "no subsection 'pm/more'"),
    "goes on": (changed(numbers("BI", PART, 2), numbers("BI", PART, 8)), "never began"),
    "unknown records": (changed(named("ram"), named("ROM")), "how long records of ROM are"),
    "of no kind": (changed(numbers("BI", PART, 2), numbers("BI", 9, 2)), "a section of kind 0x09"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_stream_is_an_error_with_its_place(name: str) -> None:
    data, said = DAMAGED[name]
    with pytest.raises(MeasurementError) as raised:
        read_stream(data)
    assert said in str(raised.value)


def test_a_compressed_file_has_a_remedy() -> None:
    with pytest.raises(MeasurementError) as raised:
        read_stream(by_libvirt(b"", kind=3))
    assert "save_image_format" in raised.value.remedy


def test_a_deep_description_is_no_crash() -> None:
    text = b'{"a":' * 100_000
    with pytest.raises(MeasurementError, match="no description"):
        read_stream(b"QEVM" + numbers("I", 3) + b"\0\6" + numbers("I", len(text)) + text)


SMALL = by_libvirt(with_devices().stream())


@settings(max_examples=300)
@given(st.integers(0, len(SMALL)))
def test_a_stream_cut_off_anywhere_is_an_error(size: int) -> None:
    if size < len(SMALL):
        with pytest.raises(MeasurementError):
            read_stream(SMALL[:size])


TAIL = len(SMALL) - SMALL.rfind(b'{"page_size')
PLACES = st.one_of(
    st.integers(0, len(SMALL) - 1),
    st.integers(0, 400),  # heads and memory's first records
    st.integers(len(SMALL) - TAIL - 100, len(SMALL) - 1),  # the description, and what is before it
)


@settings(max_examples=1500)
@given(st.lists(st.tuples(PLACES, st.integers(0, 255)), min_size=1, max_size=3))
def test_a_wrong_byte_gives_an_account_or_an_error(wrong: list[tuple[int, int]]) -> None:
    data = bytearray(SMALL)
    for place, byte in wrong:
        data[place] = byte
    try:
        told = read_stream(bytes(data))
    except MeasurementError as error:
        assert error.said
    else:
        assert sum(one.bytes for one in told.sections) + told.other_bytes == told.stream_bytes


# --- in a move ----------------------------------------------------------------------------------


def moved(
    path: Path, content: bytes | None, *, fails: bool = False, gone: bool = False
) -> tuple[Any, list[bytes]]:
    """A guest that is saved and restored: what came of it, and the file as the restore saw it."""
    restored: list[bytes] = []

    def restore(file: str, *_words: object) -> None:
        restored.append(Path(file).read_bytes())
        if fails:
            raise RuntimeError("no room")
        if gone:
            Path(file).unlink()

    def save(file: str) -> None:
        if content is None:
            raise RuntimeError("no disk")
        Path(file).write_bytes(content)

    host = SimpleNamespace(name="a")
    end = End(cast("Any", host), cast("Any", SimpleNamespace(restore=restore)))
    move = Move(end, end, Policy(method="save-restore", timeout_s=9), (), path)
    guest = cast("Domain", SimpleNamespace(save=save, reachable=lambda: True))
    return perform_move(guest, move, Listener(), PhaseTracker("a")), restored


def test_a_saved_guest_leaves_its_account_and_no_file(tmp_path: Path) -> None:
    done, restored = moved(tmp_path / "saved", SMALL)
    assert restored == [SMALL]
    assert isinstance(done.stream, StreamAccount)
    assert done.stream.network
    assert not any("stream" in note for note in done.notes)
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize("content", [b"", b"nonsense", SMALL[:-1]])
def test_a_file_that_can_not_be_read_is_a_note_and_the_move_goes_on(
    tmp_path: Path, content: bytes
) -> None:
    done, restored = moved(tmp_path / "saved", content)
    assert restored == [content]
    assert done.call.error is None
    assert done.stream is None
    assert [note for note in done.notes if "no account of the saved stream" in note]
    assert not (tmp_path / "saved").exists()


def test_a_file_that_is_gone_after_the_restore_is_a_note(tmp_path: Path) -> None:
    done, _restored = moved(tmp_path / "saved", SMALL, gone=True)
    assert (done.call.error, done.stream) == (None, None)
    assert [note for note in done.notes if "No such file" in note]


def test_a_restore_that_fails_leaves_the_account(tmp_path: Path) -> None:
    done, _restored = moved(tmp_path / "saved", SMALL, fails=True)
    assert str(done.call.error) == "no room"
    assert done.stream is not None


def test_the_run_folder_gets_the_account_of_the_hops_that_have_one() -> None:
    hops = [
        HopRecording(
            source="a",
            target="b",
            result=MoveResult(outcome="completed", held_by=("b",)),
            begin_ns=0,
            end_ns=1,
            stream=stream_recording(stream),
        )
        for stream in (None, read_stream(SMALL))
    ]
    assert stream_file(hops[:1]) == {}
    (told,) = json.loads(stream_file(hops)["stream.json"])
    assert told["hop"] == 2
    assert told["ram"]["zero_pages"] == 1
    assert told["network"]["0000:00:02.0/virtio-net"]["mac"] == "52:54:00:6d:6c:01"
    assert told["sections"][1]["fields"][0]["value"] == 7


def test_of_what_was_not_saved_there_is_neither_account_nor_note(tmp_path: Path) -> None:
    done, restored = moved(tmp_path / "saved", None)
    assert (str(done.call.error), restored, done.stream) == ("no disk", [], None)
    assert not any("stream" in note for note in done.notes)
