"""The probe and its client: real processes on loopback, and doubles for a channel that fails."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from migrate.analysis.meter_losses import losses_of
from migrate.clock import Deadline
from migrate.errors import GuestError
from migrate.guest import probe as probe_client
from migrate.guest import probe_channel
from migrate.guest.probe import Probe
from migrate.guest.transport import PipeTransport
from migrate.images.initramfs import compile_probe
from selftests.doubles.probe_process import STREAM, Running, received, running, wait_until
from selftests.doubles.scripted_transport import Scripted
from selftests.helpers import SANITIZED

LOOPBACK = "127.0.0.1"


@pytest.fixture(scope="session")
def forgetful_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A probe whose logs hold 200 records."""
    path = tmp_path_factory.mktemp("forgetful") / "probe"
    compile_probe(path, *SANITIZED, "-DMAX_RECORDS=200")
    return path


@pytest.fixture
def left(program: Path) -> Iterator[Running]:
    with running(program, where="left") as probe:
        yield probe


@pytest.fixture
def right(program: Path) -> Iterator[Running]:
    with running(program, where="right") as probe:
        yield probe


def exchange(left: Probe, right: Probe, interval_us: int = 1000) -> None:
    """Both streams begin."""
    left_port, right_port = left.open_stream(STREAM), right.open_stream(STREAM)
    left.send_stream(LOOPBACK, right_port, interval_us, 256)
    right.send_stream(LOOPBACK, left_port, interval_us, 256)


# --- the channel --------------------------------------------------------------------------------


def test_hello_tells_who_answers(left: Running) -> None:
    hello = left.ready(Deadline.after(5))
    assert hello.protocol == probe_channel.PROTOCOL
    assert hello.pid == left.process.pid


def test_the_probe_ends_with_its_input(program: Path) -> None:
    with running(program) as probe:
        probe.pipes.close()
        assert probe.process.wait(10) == 0


def test_the_probe_ends_when_told(left: Running) -> None:
    left.call("quit")
    assert left.process.wait(10) == 0


def test_half_a_line_of_an_earlier_controller_is_no_harm(left: Running) -> None:
    left.pipes.send(b'{"id":1,"do":"stream.op')
    left.reconnect(left.pipes)
    assert left.ready(Deadline.after(5)).pid == left.process.pid


def test_a_probe_that_moved_is_silent_on_the_host_where_it_is(left: Running) -> None:
    left.reconnect(left.pipes, "guest on b")
    left.process.kill()
    left.process.wait()
    with pytest.raises(GuestError) as caught:
        left.ready(Deadline.after(5))
    assert caught.value.host == "guest on b"


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"id":1',
        b'{"id":1,}',
        b'{"id":1} x',
        b'{"id":"1","do":"hello"}',
        b'{"id":1.5,"do":"hello"}',
        b'{"id":99999999999999999999,"do":"hello"}',
        b'{"id":1e999}',
        b'{"id":-}',
        b'{"id":{"id":1}}',
        b'{"id":1,"do":"' + b"x" * 3000 + b'"}',
        b'{"id":1,"' + b"k" * 40 + b'":1}',
        b'{"id":1,"do":"\\u0000"}',
        b'{"id":1,"do":"\\ud800"}',
        b'{"id":1,"do":"\\x"}',
        b'{"id":1,"do":"\\',
        b'{"id":1,"do":"hello"}\0',
        b"{" + b",".join(b'"%d":1' % number for number in range(40)) + b"}",
        b"x" * 10_000,
    ],
    ids=lambda line: repr(line[:30]),
)
def test_a_malformed_line_is_refused_and_the_probe_lives(left: Running, line: bytes) -> None:
    reply = left.raw(line + b"\n")
    assert reply["ok"] is False
    assert reply["id"] is None
    assert reply["error"]
    left.ready(Deadline.after(5))


def test_noise_never_ends_the_probe(program: Path) -> None:
    pieces = st.sampled_from(
        [b'{"id":1,"do":"', b"hello", b'"', b"}", b"\\u00", b":", b",", b"-", b"1e5", b"stream.log"]
    )
    with running(program) as probe:

        @settings(max_examples=150, suppress_health_check=list(HealthCheck))
        @given(st.lists(pieces | st.binary(max_size=30), max_size=12))
        def make_noise(parts: list[bytes]) -> None:
            noise = b"".join(parts).replace(b"quit", b"")
            probe.pipes.send(b"\n" + noise + b"\n")
            probe.call("clock")

        make_noise()


@pytest.mark.parametrize(
    ("do", "parameters", "said"),
    [
        ("dance", {}, 'no command "dance"'),
        ("stream.open", {}, "stream must be an integer"),
        ("stream.open", {"stream": 1, "port": 70000}, "port must be 0 to 65535"),
        ("stream.send", {"to": "::1", "to_port": 1}, "to must be an IPv4 address"),
        ("stream.send", {"to": LOOPBACK, "to_port": 1, "payload": 20}, "payload must be 224"),
        ("stream.send", {"to": LOOPBACK, "to_port": 1}, "no stream is open"),
        ("stream.log", {"from": -1}, "from must be 0"),
        ("dirty.start", {"mib": 1, "mib_s": "fast"}, "mib_s must be a number"),
        ("dirty.start", {"mib": 0, "mib_s": 1}, "mib must be 1"),
        ("dirty.verify", {}, "no memory is being dirtied"),
        ("tcp.status", {}, "no connection was opened"),
        ("net", {"name": "nowhere0"}, "no interface nowhere0"),
        ("net", {"name": 'a"b\\c'}, 'no interface a"b\\c'),
        ("capture.start", {"name": "nowhere0"}, "no interface nowhere0"),
        ("addr", {"name": "lo", "ip": "10.0.0.1", "prefix": 33}, "prefix must be 0 to 32"),
    ],
)
def test_what_can_not_be_done_is_told_in_words(
    left: Running, do: str, parameters: dict[str, object], said: str
) -> None:
    with pytest.raises(GuestError) as refused:
        left.call(do, None, **parameters)
    assert said in refused.value.said
    assert refused.value.host == "left"
    assert do in refused.value.tried


def ok(**fields: object) -> Callable[[dict[str, object]], bytes]:
    return lambda request: json.dumps({"id": request["id"], "ok": True, **fields}).encode() + b"\n"


GREETING = {"version": "1", "pid": 1, "fifo": False, "uptime_ms": 1, "mono_ns": 1, "real_ns": 1}


def test_a_silent_probe_is_an_error_at_the_deadline() -> None:
    probe = Probe(Scripted([lambda _: b"login: "]), "alpha")
    with pytest.raises(GuestError, match="did not answer hello") as silent:
        probe.ready(Deadline.after(0.05))
    assert silent.value.host == "alpha"
    assert silent.value.said == "login:"
    assert "console" in silent.value.remedy


def test_a_call_ends_by_its_deadline_and_says_what_came() -> None:
    probe = Probe(Scripted([lambda _: b"Kernel panic\n"]), "alpha")
    with pytest.raises(GuestError, match=r"did not answer clock on host alpha: Kernel panic"):
        probe.call("clock", Deadline.after(0.05))
    with pytest.raises(GuestError, match="nothing was received"):
        probe.call("clock", Deadline.after(0.05))


def test_a_late_answer_to_ready_counts() -> None:
    """The first hello is answered only after the second was sent, as by a port that opens late."""
    first: list[object] = []

    def late(_: dict[str, object]) -> bytes:
        return ok(protocol=probe_channel.PROTOCOL, **GREETING)({"id": first[0]})

    probe = Probe(Scripted([lambda request: first.append(request["id"]), late]), "alpha")
    assert probe.ready(Deadline.after(10)).pid == 1


def test_an_answer_to_an_earlier_request_is_dropped() -> None:
    stale = b'{"id":0,"ok":true,"mono_ns":1}\n{"id":null,"ok":false,"error":"?"}\nnoise\n'
    probe = Probe(Scripted([lambda request: stale + ok(mono_ns=2)(request)]), "alpha")
    assert probe.call("clock") == {"mono_ns": 2}


def test_an_answer_to_another_clients_question_is_never_taken_for_ours() -> None:
    """It lay in the guest's buffer when its state was saved, say; that client counted as we do."""
    ids: list[int] = []

    def answer(request: dict[str, object]) -> bytes:
        ids.append(cast("int", request["id"]))
        return ok(mono_ns=len(ids))(request)

    stale = ok(mono_ns=1)
    Probe(Scripted([answer]), "alpha").call("clock")
    other = Probe(Scripted([lambda request: stale({"id": ids[0]}) + answer(request)]), "alpha")
    assert other.call("clock") == {"mono_ns": 2}
    assert ids[0] != ids[1]


def test_a_question_that_was_lost_is_asked_again() -> None:
    heard: list[object] = []
    lost = [lambda request: heard.append(request["do"])] * 2
    probe = Probe(Scripted([*lost, ok(mono_ns=3)]), "alpha")
    assert probe.call("clock", Deadline.after(0.3)) == {"mono_ns": 3}
    assert heard == ["clock", "clock"]


def test_a_late_answer_to_the_first_of_two_askings_counts_and_the_second_is_dropped() -> None:
    asked: list[dict[str, object]] = []

    def both(request: dict[str, object]) -> bytes:
        return ok(mono_ns=1)(asked[0]) + ok(mono_ns=2)(request)

    probe = Probe(Scripted([asked.append, both, ok(mono_ns=3)]), "alpha")
    assert probe.call("clock", Deadline.after(0.3)) == {"mono_ns": 1}
    assert probe.call("clock", Deadline.after(10)) == {"mono_ns": 3}


def test_a_request_that_changes_something_is_said_once() -> None:
    heard: list[object] = []
    transport = Scripted([lambda request: heard.append(request["do"])])
    with pytest.raises(GuestError, match=r"did not answer stream\.send"):
        Probe(transport, "alpha").call("stream.send", Deadline.after(0.05))
    assert heard == ["stream.send"]


def test_a_slow_lab_is_waited_for_longer() -> None:
    assert (
        Probe(Scripted([]), "a", patience=4.0).patience_s == 4 * Probe(Scripted([]), "a").patience_s
    )


def test_half_a_request_is_ended_by_the_next(left: Running) -> None:
    left.pipes.send(b'{"id":1,"do":"clo')
    assert "mono_ns" in left.call("clock", Deadline.after(5))


def test_what_is_answered_in_the_line_of_an_answer_that_was_cut_off_is_asked_again() -> None:
    cut = b'{"id":1,"ok":true,"data":"AAAA'
    answers = [lambda request: cut + ok(mono_ns=1)(request), ok(mono_ns=2)]
    assert Probe(Scripted([*answers]), "alpha").call("clock", Deadline.after(0.3)) == {"mono_ns": 2}


def test_a_probe_of_another_protocol_is_refused() -> None:
    other = probe_channel.PROTOCOL + 1
    probe = Probe(Scripted([ok(protocol=other, **GREETING)]), "alpha")
    with pytest.raises(GuestError, match=f"speaks protocol {other}") as refused:
        probe.ready(Deadline.after(5))
    assert "image" in refused.value.remedy


def test_a_probe_that_ended_is_an_error_at_once(left: Running) -> None:
    left.process.kill()
    left.process.wait()
    with pytest.raises(GuestError, match="channel to the probe broke"):
        left.call("clock")
    with pytest.raises(GuestError, match="channel to the probe broke"):
        left.ready(Deadline.after(60))


def test_a_probe_that_does_not_read_is_an_error(left: Running) -> None:
    left.process.send_signal(signal.SIGSTOP)
    with pytest.raises(ConnectionError, match="no longer reads"):
        for _ in range(1000):
            left.pipes.send(b"x" * 1000)
    with pytest.raises(GuestError, match="channel to the probe broke"):
        left.call("clock", padding="x" * 1000)
    left.process.kill()
    left.process.wait()


def test_pipes_are_required() -> None:
    with subprocess.Popen(["true"]) as process, pytest.raises(ValueError, match="pipes"):
        PipeTransport(process)


class PortTransport:
    """The controller's side of a pseudo-terminal that stands in for a virtio-serial port."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def send(self, data: bytes) -> None:
        os.write(self.fd, data)

    def receive(self, deadline: Deadline) -> bytes:
        if not select.select([self.fd], [], [], deadline.left())[0]:
            raise TimeoutError
        return os.read(self.fd, 65536)

    def close(self) -> None:
        os.close(self.fd)


def test_the_streams_of_a_probe_outlive_the_controller_of_its_port(
    program: Path, left: Running
) -> None:
    master, slave = pty.openpty()
    tty.setraw(slave)
    with subprocess.Popen([str(program), "--port", os.ttyname(slave)]) as process:
        try:
            port = PortTransport(master)
            probe = Probe(port, "guest")
            assert probe.ready(Deadline.after(10)).pid == process.pid
            exchange(left, probe)
            wait_until(received(left, 10))
            os.close(slave)
            port.close()
            had = left.stream_status().received
            wait_until(received(left, had + 100))
            assert process.poll() is None
        finally:
            process.kill()


def test_a_port_that_is_not_there_is_told(program: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [str(program), "--port", str(tmp_path / "vport0p1")], capture_output=True, check=False
    )
    assert done.returncode == 1
    assert b"No such file" in done.stderr


def test_an_unknown_option_is_told(program: Path) -> None:
    done = subprocess.run([str(program), "--dance"], capture_output=True, check=False)
    assert done.returncode == 2
    assert b"--port-name" in done.stderr


# --- clock and network --------------------------------------------------------------------------


def test_the_clock_of_a_probe_on_this_machine_is_the_axis(left: Running) -> None:
    offset = left.clock_offset("left", rounds=20)
    assert offset.clock == "left"
    assert abs(offset.offset_ns) <= offset.error_ns


ANNOUNCE = """
import socket, sys
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
link.bind(("lo", 0))
for frame in sys.argv[1:]:
    link.send(bytes.fromhex(frame))
"""


def test_an_interface_gets_its_address_and_tells_announcements(program: Path) -> None:
    """In a network namespace of its own."""
    alone = ["unshare", "--net"] + (["--map-root-user"] if os.geteuid() else [])
    mac = bytes.fromhex("525400aabbcc")
    to_all, own = b"\xff" * 6 + mac, bytes([10, 0, 0, 5])
    arp = struct.pack(">HHBBH", 1, 0x800, 6, 4, 1) + mac
    rarp = to_all + b"\x80\x35" + bytes(46)
    gratuitous = to_all + b"\x08\x06" + arp + own + bytes(6) + own
    ordinary = to_all + b"\x08\x06" + arp + own + bytes(6) + bytes([10, 0, 0, 6])
    advertisement = to_all + b"\x86\xdd" + bytes(6) + b"\x3a\xff" + bytes(32) + b"\x88" + bytes(23)
    other = to_all + b"\x08\x00" + bytes(46)
    tcp = to_all + b"\x08\x00" + bytes(9) + b"\x06" + bytes(36)
    frames = [rarp, gratuitous, other, ordinary, tcp, tcp, tcp, advertisement]
    with running(program, *alone) as probe:
        with pytest.raises(GuestError, match="no interface but the loopback"):
            probe.nic()
        probe.address("10.99.0.1", 24, name="lo")
        seen = probe.nic("lo")
        assert (seen.name, seen.mac, seen.carrier) == ("lo", "00:00:00:00:00:00", True)
        assert seen.features == ""
        probe.capture("lo")
        enter = ["nsenter", f"--target={probe.process.pid}", "--net", "--preserve-credentials"]
        enter += ["--user"] if os.geteuid() else []
        script = [sys.executable, "-c", ANNOUNCE, *(frame.hex() for frame in frames)]
        subprocess.run([*enter, *script], check=True)
        wait_until(lambda: len(probe.captured()) >= 5)
        told = probe.captured()
        assert [frame.kind for frame in told] == ["rarp", "garp", "arp", "tcp", "na"]
        assert {frame.mac for frame in told} == {"52:54:00:aa:bb:cc"}
        assert [frame.at_ns for frame in told] == sorted(frame.at_ns for frame in told)
        assert 0 < time.monotonic_ns() - told[0].at_ns < 60e9
        probe.capture_stop()


# --- streams ------------------------------------------------------------------------------------


def test_two_streams_and_what_each_side_says_of_them(left: Running, right: Running) -> None:
    exchange(left, right)
    wait_until(received(right, 300))
    wait_until(received(left, 300))
    left.stop_stream()
    right.stop_stream()
    wait_until(lambda: left.stream_status().received >= right.stream_status().sent)
    wait_until(lambda: right.stream_status().received >= left.stream_status().sent)
    sent, counts = left.close_stream(), right.close_stream()
    got = right.arrivals()
    assert got.seq.tolist() == list(range(sent.sent))
    assert counts.received == sent.sent
    assert (counts.strays, counts.dropped_records, counts.socket_drops) == (0, 0, 0)
    assert (got.sent_ns[0], got.sent_ns[-1]) == (sent.first_sent_ns, sent.last_sent_ns)
    assert bool(np.all(np.diff(got.sent_ns) > 0))
    # Kernel stamps are wall clock, brought back by a sampled offset: one clock, a little slack.
    assert bool(np.all(got.received_ns > got.sent_ns - 50_000))


def test_receipts_are_the_other_sides_arrivals(left: Running, right: Running) -> None:
    exchange(left, right)
    wait_until(received(right, 100))
    left.stop_stream()
    wait_until(lambda: len(left.receipts()) >= left.stream_status().sent)
    got = right.arrivals()
    assert left.receipts() == dict(zip(got.seq.tolist(), got.received_ns.tolist(), strict=True))


def test_a_log_is_read_in_pages(
    left: Running, right: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_client, "PAGE_RECORDS", 7)
    exchange(left, right)
    wait_until(received(right, 100))
    left.stop_stream()
    wait_until(lambda: right.stream_status().received == left.stream_status().sent)
    assert right.arrivals().seq.tolist() == list(range(left.stream_status().sent))


def test_no_packet_follows_a_stop_and_the_other_side_is_still_heard(
    left: Running, right: Running
) -> None:
    exchange(left, right)
    wait_until(received(right, 10))
    stopped = left.stop_stream()
    had = stopped.received
    wait_until(received(left, had + 50))
    assert left.stream_status().sent == stopped.sent


def test_a_side_that_dies_leaves_log_and_receipts(left: Running, right: Running) -> None:
    exchange(left, right)
    wait_until(received(right, 50))
    wait_until(lambda: len(left.receipts()) >= 50)
    right.process.kill()
    right.process.wait()
    had = left.stream_status().sent
    wait_until(lambda: left.stream_status().sent > had + 50)
    counts = left.close_stream()
    assert counts.sent > len(left.receipts()) >= 50
    assert len(left.arrivals()) == counts.received


def test_packets_of_another_run_are_strays(left: Running, right: Running) -> None:
    port = right.open_stream(STREAM)
    left.open_stream(STREAM + 1)
    left.send_stream(LOOPBACK, port, 1000, 256)
    wait_until(lambda: right.stream_status().strays >= 20)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        had = right.stream_status().strays
        stranger.sendto(b"short", (LOOPBACK, port))
        wait_until(lambda: right.stream_status().strays > had)
    assert right.stream_status().received == 0
    assert len(right.arrivals()) == 0


def test_packets_that_were_not_due_are_told(left: Running, right: Running) -> None:
    """A guest knows its stream: it can send as many of its packets as it likes."""
    port = right.open_stream(STREAM)
    head = struct.pack("<IHHIIQII", 0x626F7270, probe_channel.PROTOCOL, 0, STREAM, 7, 1, 0, 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as guest:
        for _ in range(300):
            guest.sendto(head.ljust(224, b"\0"), (LOOPBACK, port))
    wait_until(lambda: right.stream_status().received >= 201)
    assert len(right.arrivals()) >= 201
    with pytest.raises(GuestError, match="records, 100 were due"):
        right.arrivals(due=100)
    with pytest.raises(GuestError, match="a record's seq is 7, more than 6"):
        right.arrivals(due=7)


def test_a_stream_is_sent_once(left: Running) -> None:
    port = left.open_stream(STREAM)
    left.send_stream(LOOPBACK, port, 1000, 256)
    with pytest.raises(GuestError, match="open a new one"):
        left.send_stream(LOOPBACK, port, 1000, 256)
    left.open_stream(STREAM)
    assert left.stream_status().sent == 0


def test_a_port_that_is_taken_is_told(left: Running, right: Running) -> None:
    port = left.open_stream(STREAM)
    with pytest.raises(GuestError, match="in use"):
        right.open_stream(STREAM, port)
    assert not right.stream_status().open


def test_what_the_kernel_refuses_to_send_uses_up_its_number(left: Running) -> None:
    """The broadcast address is refused to a socket that did not ask for it."""
    left.open_stream(STREAM)
    left.send_stream("255.255.255.255", 9, 1000, 256)
    wait_until(lambda: left.stream_status().send_errors >= 20)
    counts = left.close_stream()
    assert counts.send_errors == counts.sent


def test_a_sender_that_stood_still_skips_and_tells_the_jump(left: Running, right: Running) -> None:
    exchange(left, right)
    wait_until(received(right, 20))
    before = time.monotonic_ns()
    left.process.send_signal(signal.SIGSTOP)
    time.sleep(0.2)  # the time that passes is what is tested
    left.process.send_signal(signal.SIGCONT)
    sent = left.stream_status().sent
    wait_until(lambda: left.stream_status().sent > sent + 20)
    counts = left.close_stream()
    longest = max(left.jumps(), key=lambda jump: jump.delta_ns)
    assert longest.delta_ns >= 0.19e9
    assert longest.at_ns + longest.delta_ns > before
    assert counts.skipped >= 150
    wait_until(received(right, counts.sent))
    assert right.arrivals().seq.tolist() == list(range(counts.sent)), "no burst, no hole"


def test_kernel_stamps_do_not_count_the_receivers_own_delay(left: Running, right: Running) -> None:
    exchange(left, right)
    wait_until(received(right, 20))
    right.process.send_signal(signal.SIGSTOP)
    time.sleep(0.2)  # the time that passes is what is tested
    right.process.send_signal(signal.SIGCONT)
    had = right.stream_status().received
    wait_until(received(right, had + 20))
    got = right.arrivals()
    late = np.count_nonzero(got.received_ns - got.sent_ns > 50e6)
    assert late < 20, "200 packets waited up to 200 ms for the process, but not for the kernel"


def test_a_sender_knows_when_it_sent_what_did_not_arrive(left: Running, right: Running) -> None:
    exchange(left, right)
    wait_until(received(right, 100))
    left.stop_stream()
    wait_until(lambda: right.stream_status().received == left.stream_status().sent)
    got = right.arrivals()
    assert len(left.unreceived(got.seq)) == 0
    assert np.array_equal(left.sends(), got.sent_ns)
    lost = np.isin(got.seq, [3, 50, 51])
    missing = left.unreceived(got.seq[~lost])
    assert missing.seq.tolist() == [3, 50, 51]
    assert missing.sent_ns.tolist() == got.sent_ns[lost].tolist()


def test_what_a_sockets_buffer_had_no_room_for_is_known_to_be_the_probes(
    left: Running, right: Running
) -> None:
    port = right.open_stream(STREAM)
    left.open_stream(STREAM)
    left.send_stream(LOOPBACK, port, 10, 1400)
    wait_until(received(right, 100))
    right.process.send_signal(signal.SIGSTOP)
    flood = left.stream_status().sent + 30_000
    wait_until(lambda: left.stream_status().sent > flood)
    left.stop_stream()
    right.process.send_signal(signal.SIGCONT)
    wait_until(lambda: right.meter_loss().dropped > 0)
    sent = left.stream_status().sent
    wait_until(lambda: right.stream_status().received + right.meter_loss().dropped >= sent)
    loss, got = right.meter_loss(), right.arrivals()
    assert loss.dropped == sent - len(got)
    lost = losses_of(loss, got, "right")
    assert lost.cut_short or len(lost.numbers) == loss.dropped


def test_a_full_log_counts_what_it_drops(forgetful_program: Path, left: Running) -> None:
    with running(forgetful_program) as forgetful:
        exchange(left, forgetful)
        # Receipts are dropped as well, so what is dropped does not tell that the log is full.
        wait_until(lambda: forgetful.stream_status().received > 260)
        assert forgetful.stream_status().dropped_records >= 50
        left.stop_stream()
        counts = forgetful.close_stream()
        assert len(forgetful.arrivals()) == 200
        assert len(forgetful.receipts()) <= 200
        assert counts.received > 200
        assert forgetful.meter_loss().full
        assert not left.meter_loss().full


# --- memory -------------------------------------------------------------------------------------


def test_memory_that_was_rewritten_verifies(left: Running) -> None:
    assert left.dirty_start(1, 100.0, seed=7) == 256
    wait_until(lambda: left.verify().writes > 600)
    check = left.verify()
    assert (check.pages, check.wrong_page) == (256, None)
    assert left.dirty_rate() > 0
    left.dirty_stop()
    with pytest.raises(GuestError, match="no memory"):
        left.verify()


def test_what_the_workload_did_is_noted_each_second(left: Running, right: Running) -> None:
    left.work_start()
    wait_until(lambda: bool(left.work_log()))  # the first is noted by a thread of its own
    left.dirty_start(1, 4.0)
    exchange(left, right)
    left.tcp_open(LOOPBACK, right.tcp_listen(), 1)
    wait_until(lambda: len(left.work_log()) > 2)
    left.work_stop()
    first, *_, last = left.work_log()
    assert (first.pages, first.packets, first.tcp_bytes) == (0, 0, 0)
    assert 0 < last.pages <= left.verify().writes
    assert last.packets > 0
    assert last.tcp_bytes >= 64
    assert last.at_ns > first.at_ns + 1_000_000_000
    assert len(left.work_log()) == len(left.work_log())


def test_a_probe_that_notes_nothing_has_no_seconds(left: Running) -> None:
    assert left.work_log() == ()
    left.work_stop()
    assert left.work_log() == ()


def test_a_wrong_byte_is_found_and_named(left: Running) -> None:
    left.dirty_start(1, 0)
    left.dirty_corrupt(page=200, offset=4095)
    left.dirty_corrupt(page=77, offset=1001)
    check = left.verify()
    assert check.wrong_page == 77
    assert check.writes == 0
    assert "byte 1000" in check.found
    assert check.expected.endswith("of pass 0")
    expected, found = int(check.expected.split()[0], 16), int(check.found.split()[0], 16)
    assert expected ^ found == 0xFF << 8, "little endian: byte 1001 is the second of its word"


def test_a_stale_page_says_from_which_pass_it_is() -> None:
    reply = {"pages": 9, "writes": 90, "wrong_page": 4, "offset": 0, "expected": "a", "found": "b"}
    probe = Probe(Scripted([ok(**reply, generation=10, found_generation=8)]), "alpha")
    check = probe.verify()
    assert check.expected == "a of pass 10"
    assert check.found == "b at byte 0, which pass 8 wrote"


def test_more_memory_than_there_can_be_is_refused(left: Running) -> None:
    with pytest.raises(GuestError, match="mib must be"):
        left.call("dirty.start", mib=1 << 21, mib_s=1)


# --- TCP ----------------------------------------------------------------------------------------


def test_connections_live_and_tell_their_longest_wait(left: Running, right: Running) -> None:
    left.tcp_open(LOOPBACK, right.tcp_listen(), 3)
    wait_until(lambda: left.tcp_check().longest_stall_ms > 0)
    right.process.send_signal(signal.SIGSTOP)
    wait_until(lambda: left.tcp_check().longest_stall_ms > 300)  # a wait that is going on
    right.process.send_signal(signal.SIGCONT)
    check = left.tcp_check()
    assert (check.opened, check.alive, check.resets) == (3, 3, 0)
    left.tcp_close()
    with pytest.raises(GuestError, match="no connection"):
        left.tcp_check()


def test_each_open_connection_tells_when_its_last_byte_came(left: Running, right: Running) -> None:
    """An open socket tells nothing: what is sent may never be answered."""
    left.tcp_open(LOOPBACK, right.tcp_listen(), 2)
    right.process.send_signal(signal.SIGSTOP)
    wait_until(lambda: min(left.tcp_check().waiting_ms or ()) > 300)
    assert left.tcp_check().alive == 2
    right.process.send_signal(signal.SIGCONT)
    wait_until(lambda: max(left.tcp_check().waiting_ms or ()) < 300)
    right.process.kill()
    wait_until(lambda: left.tcp_check().waiting_ms == ())


def test_an_echo_ends_the_wait(left: Running, right: Running) -> None:
    """Had no byte come back, the wait would be as long as the connection is old."""
    left.tcp_open(LOOPBACK, right.tcp_listen(), 1, interval_ms=1)
    began = time.monotonic()
    wait_until(lambda: time.monotonic() - began > 0.5)
    assert left.tcp_check().longest_stall_ms < 450


def test_a_peer_that_ends_is_no_longer_alive(left: Running, right: Running) -> None:
    left.tcp_open(LOOPBACK, right.tcp_listen(), 2)
    right.process.kill()
    right.process.wait()
    wait_until(lambda: left.tcp_check().alive == 0)


def test_a_reset_is_counted(left: Running) -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        left.tcp_open(LOOPBACK, server.getsockname()[1], 1)
        connection, _ = server.accept()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        wait_until(lambda: left.tcp_check().resets == 1)
    assert left.tcp_check().alive == 0


def test_a_refused_connection_is_told_and_nothing_is_left_open(left: Running) -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(GuestError, match="connection 1 of 2: Connection refused"):
        left.tcp_open(LOOPBACK, port, 2)
    with pytest.raises(GuestError, match="no connection"):
        left.tcp_check()


def test_the_echo_serves_one_controller_after_another(left: Running, right: Running) -> None:
    """More connections, one run after another, than the server has room for at once."""
    port = right.tcp_listen()
    for _ in range(3):
        left.tcp_open(LOOPBACK, port, 40, interval_ms=1)
        wait_until(lambda: left.tcp_check().longest_stall_ms > 0)
        assert left.tcp_check().alive == 40
        left.tcp_close()


# --- as a relay -----------------------------------------------------------------------------------


def relayed(program: Path, path: Path) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    argv = [str(program), "--relay", str(path)]
    return subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe)


def test_a_relay_joins_its_streams_to_a_socket(program: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        listening.listen()
        listening.settimeout(10)
        with relayed(program, tmp_path / "socket") as relay:
            plug, _ = listening.accept()
            with plug:
                plug.settimeout(10)
                plug.sendall(b"greeting\n")
                assert relay.stdout is not None
                assert relay.stdout.readline() == b"greeting\n"
                out, err = relay.communicate(b"question\n", timeout=10)
                assert plug.recv(100) == b"question\n"
            assert (relay.returncode, out, err) == (0, b"", b"")


def test_a_relay_to_nothing_says_so(program: Path, tmp_path: Path) -> None:
    with relayed(program, tmp_path / "none") as relay:
        _, err = relay.communicate(timeout=10)
    assert relay.returncode == 1
    assert err.startswith(b"probe: connect to ")
    assert b"No such file" in err
    with relayed(program, tmp_path / ("x" * 200)) as relay:
        _, err = relay.communicate(timeout=10)
    assert relay.returncode == 1
    assert b"too long" in err
