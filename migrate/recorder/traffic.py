"""The workload and the meter's raw material: two numbered streams, TCP connections, dirty memory.

Both probes are commanded, the guest's and its peer's on the fabric; what they logged is fetched at
the end, the guest's over its virtio-serial channel and not over the network under test.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from migrate.analysis.announcements import FRAMES_MISSED
from migrate.clock import MONOTONIC, Deadline, Offset, now_ns, until
from migrate.drivers.libvirt import Domain, Hypervisor
from migrate.errors import GuestError
from migrate.guest.answers import MOST_RECORDS, Announcement, StreamCounts
from migrate.guest.probe import Probe
from migrate.guest.transport import PipeTransport
from migrate.lab.api import Lab
from migrate.model import Event, Nic, TcpCheck, Workload
from migrate.model.recording import Arrivals, TrafficLog
from migrate.recorder.loopback import ClockLook, both_ways, clock_by_looks, look_at_clock

LOOPED = (
    "the network returns what it gets and has no peer: both directions are one, the way there and "
    "back, stamped by the guest alone; no TCP connection was opened"
)
_EVENTS = {"rarp": "announce", "garp": "announce", "na": "announce", "tcp": "frame"}
"""Events by the kind of a captured frame; the rest by their kind itself."""
CLOCK_ROUNDS = 24
FIRST_PACKETS = 100
"""How many have to arrive each way before a stream counts as started."""
TIMED_OUT = "timed out"
"""In the probe's answer to a connection that it gave up."""
MORE_S = 3.0
"""At most so long is waited at the end for one more packet each way."""
TCP_PATIENCE_S = 15.0
"""At most so long is waited for a byte on connections that have had none since the move."""
SPARE_PACKETS = 10_000
"""That a stream may have beyond twice of what was due in its time."""
POLL_S = 0.02
"""Between two looks at a count that a probe keeps: it speaks only when asked."""


@contextmanager
def guest_probe(domain: Domain, lab: Lab, deadline: Deadline) -> Iterator[Probe]:
    """The probe in the guest, ready."""
    channel = domain.channel()
    try:
        probe = Probe(channel, f"guest on {domain.host}", patience=lab.patience)
        probe.ready(deadline)
        yield probe
    finally:
        channel.close()


@contextmanager
def peer_probe(lab: Lab, deadline: Deadline) -> Iterator[Probe]:
    """The peer on the fabric: the same program, ended with the block."""
    with lab.peer() as process:
        probe = Probe(PipeTransport(process), "peer", patience=lab.patience)
        probe.ready(deadline)
        yield probe


class Traffic:
    """A workload that goes on between a guest and its peer.

    ``loops``: the guest's network has no peer and returns what it gets. There is one stream, and no
    TCP; the peer only hears whether anything is announced on the fabric.
    """

    def __init__(
        self, guest: Probe, peer: Probe, lab: Lab, workload: Workload, *, loops: bool = False
    ) -> None:
        self.guest = guest
        self.peer = peer
        self.loops = loops
        self.looks: list[ClockLook] = []
        self._lab = lab
        self.workload = workload
        self._followed = ExitStack()
        self.asked_ns = self.began_ns = 0
        self.peer_clock = MONOTONIC if lab.peer_is_here else peer.clock_offset("peer", CLOCK_ROUNDS)

    def start(self, deadline: Deadline) -> Nic:
        """Start it all; returns the guest's interface when packets have arrived both ways."""
        wanted, guest, peer = self.workload, self.guest, self.peer
        self.asked_ns = now_ns()
        before = guest.nic()
        guest.lower_start()
        if wanted.dirty_mib:
            guest.dirty_start(wanted.dirty_mib, wanted.dirty_mib_s)
        peer.capture(self._lab.peer_interface)
        number = secrets.randbits(32)
        if self.loops:
            guest.loop_stream(number, wanted.interval_us, wanted.payload_bytes)
        else:
            self._start_both_ways(number, deadline)
        self._await_first(deadline)
        guest.work_start()
        self.began_ns = now_ns()
        self.read_guest_clock()
        return before

    def _start_both_ways(self, number: int, deadline: Deadline) -> None:
        wanted, guest, peer = self.workload, self.guest, self.peer
        if wanted.tcp_connections:
            self._connect(peer.tcp_listen(), deadline)
        to_guest, to_peer = guest.open_stream(number), peer.open_stream(number)
        step = wanted.interval_us, wanted.payload_bytes
        peer.send_stream(self._lab.guest_address, to_guest, *step)
        guest.send_stream(self._lab.peer_address, to_peer, *step)

    def _connect(self, port: int, deadline: Deadline) -> None:
        """The probe gives a connection three seconds: in a slow lab the first one takes longer."""

        def connects() -> bool:
            self.guest.tcp_open(self._lab.peer_address, port, self.workload.tcp_connections)
            return True

        until(
            connects,
            deadline,
            POLL_S,
            not_yet=lambda error: isinstance(error, GuestError) and TIMED_OUT in error.said,
        )

    def read_guest_clock(self) -> None:
        """Read the guest's clock, if nobody else's stamps say how it goes; at rest only."""
        if self.loops:
            self.looks.append(look_at_clock(self.guest))

    def _await_first(self, deadline: Deadline) -> None:
        """The first packets are slow: addresses are resolved, code is translated."""
        receivers = (self.guest,) if self.loops else (self.guest, self.peer)

        def flow() -> bool:
            return all(probe.stream_status().received >= FIRST_PACKETS for probe in receivers)

        if not until(flow, deadline, POLL_S):
            raise GuestError(
                "start the streams",
                host=self.guest.where,
                said="no packets arrived in one of the directions",
                remedy="is the guest connected to the fabric? see its backend's log",
            )

    def follow(self, hypervisor: Hypervisor, domain: Domain, deadline: Deadline) -> None:
        """Go on over the channel of the host that the guest runs on now; keeps ``hypervisor``."""
        self.release()
        self._followed.callback(hypervisor.close)
        channel = domain.channel()
        self._followed.callback(channel.close)
        self.guest.reconnect(channel, f"guest on {domain.host}")
        self.guest.ready(deadline)
        self.read_guest_clock()

    def due(self) -> int:
        """So many packets a stream has sent until now at most, whatever a guest or its packets
        say: an array is made that has room for the highest number."""
        due = (now_ns() - self.asked_ns) // (self.workload.interval_us * 1000)
        return min(MOST_RECORDS, 2 * due + SPARE_PACKETS)

    def release(self) -> None:
        """Give back what :meth:`follow` opened."""
        self._followed.close()

    def announcements(self) -> tuple[Event, ...]:
        """Frames on the fabric that tell where the guest's MAC is, and whether older ones are
        missing."""
        frames, missed = self.peer.capture_log()
        events = tuple(self._heard(frame) for frame in frames)
        if not missed or not events:
            return events
        data = {"count": missed}
        return (events[0].model_copy(update={"name": FRAMES_MISSED, "data": data}), *events)

    def _heard(self, frame: Announcement) -> Event:
        return Event(
            at_ns=self.peer_clock.to_axis(frame.at_ns),
            error_ns=self.peer_clock.error_ns,
            clock=self.peer_clock.clock,
            source="fabric",
            host="fabric",
            name=_EVENTS.get(frame.kind, frame.kind),
            data={"kind": frame.kind, "mac": frame.mac, "length": frame.length},
        )


def silent_since(check: TcpCheck, at_ns: int) -> tuple[float, ...]:
    """How long those connections have waited, in ms, that have had no byte since ``at_ns``."""
    if check.asked_ns is None:
        return ()
    return tuple(w for w in check.waiting_ms or () if w * 1e6 >= check.asked_ns - at_ns)


def read_back(
    traffic: Traffic,
    *,
    guest_is_there: bool,
    deadline: Deadline,
    moved_ns: int = 0,
    stops: Sequence[int] = (),
    silent: bool = False,
) -> TrafficLog:
    """End the workload and read everything back; a guest that is gone leaves its receipts.

    On the axis, ``moved_ns``: when the last move was over, 0: there was none; ``stops``: when the
    guest was stopped, in order. ``silent``: it has not answered before, and is not asked.
    """
    end_ns = now_ns()
    if silent:
        return _without_guest(
            traffic, end_ns, "the guest's probe stopped answering: its own log could not be read"
        )
    if not guest_is_there:
        return _without_guest(traffic, end_ns, "the guest is gone: its own log went with it")
    try:
        if traffic.loops:
            return _looped(traffic, end_ns, stops, deadline)
        return _with_guest(traffic, end_ns, moved_ns, deadline)
    except GuestError as error:
        return _without_guest(traffic, end_ns, str(error))


def _with_guest(traffic: Traffic, end_ns: int, moved_ns: int, deadline: Deadline) -> TrafficLog:
    guest, peer = traffic.guest, traffic.peer
    guest.work_stop()
    tcp = tcp_since(guest, moved_ns, deadline) if traffic.workload.tcp_connections else None
    await_more((guest, peer), deadline.sooner(MORE_S))
    out, into = _stopped(traffic), peer.stop_stream()
    due = traffic.due()
    _await_last(peer, out, deadline.sooner(0.5))
    _await_last(guest, into, deadline.sooner(0.5))
    memory = guest.verify(deadline) if traffic.workload.dirty_mib else None
    to_axis = traffic.peer_clock.offset_ns
    egress, ingress = peer.arrivals(deadline, due), guest.arrivals(deadline, due)
    to_guest = peer.unreceived(ingress.seq, deadline)
    return TrafficLog(
        egress=replace(egress, received_ns=egress.received_ns + to_axis),
        ingress=replace(ingress, sent_ns=ingress.sent_ns + to_axis),
        unreceived_egress=guest.unreceived(egress.seq, deadline),
        unreceived_ingress=replace(to_guest, sent_ns=to_guest.sent_ns + to_axis),
        lost_by_peer=peer.meter_loss(),
        lost_by_guest=guest.meter_loss(),
        peer_error_ns=traffic.peer_clock.error_ns,
        sent_egress=out.sent,
        sent_ingress=into.sent,
        end_ns=end_ns,
        **_late_ticks(guest),
        memory=memory,
        tcp=tcp,
        nic=guest.nic(),
        from_receipts=False,
        **_lowers(guest),
        work=guest.work_log(deadline),
        notes=_meter_losses(guest.stream_status(), peer.stream_status()),
    )


def tcp_since(guest: Probe, moved_ns: int, deadline: Deadline) -> TcpCheck:
    """How the connections fared; one without a byte since the move may be between two tries.

    TCP doubles the time between its tries (RFC 6298, 5.5), so what has waited is tried again before
    it has waited twice as long.
    """

    check = _asked(guest)

    def all_answered() -> bool:
        nonlocal check
        check = _asked(guest)
        return not silent_since(check, moved_ns)

    if waits_ms := silent_since(check, moved_ns):
        until(all_answered, deadline.sooner(min(TCP_PATIENCE_S, max(waits_ms) / 1e3)), POLL_S)
    return check


def _asked(guest: Probe) -> TcpCheck:
    asked_ns = now_ns()
    return guest.tcp_check().model_copy(update={"asked_ns": asked_ns})


def _looped(traffic: Traffic, end_ns: int, stops: Sequence[int], deadline: Deadline) -> TrafficLog:
    guest = traffic.guest
    traffic.read_guest_clock()
    guest.work_stop()
    await_more((guest,), deadline.sooner(MORE_S))
    out = _stopped(traffic)
    _await_last(guest, out, deadline.sooner(0.5))
    memory = guest.verify(deadline) if traffic.workload.dirty_mib else None
    clock = clock_by_looks(traffic.looks, stops)
    returned = guest.arrivals(deadline, traffic.due())
    egress, ingress = both_ways(returned, clock)
    lost, own_loss = guest.unreceived(returned.seq, deadline), guest.meter_loss()
    return TrafficLog(
        egress=egress,
        ingress=ingress,
        unreceived_egress=lost,
        unreceived_ingress=replace(lost, sent_ns=clock.to_axis(lost.sent_ns)),
        lost_by_peer=own_loss,
        lost_by_guest=own_loss,
        sent_egress=out.sent,
        sent_ingress=out.sent,
        end_ns=end_ns,
        **_late_ticks(guest),
        memory=memory,
        tcp=None,
        nic=guest.nic(),
        from_receipts=False,
        **_lowers(guest),
        work=guest.work_log(deadline),
        notes=(LOOPED, *_meter_losses(guest.stream_status())),
        looped=Offset("guest.mono", 0, clock.error_across(traffic.began_ns, end_ns)),
    )


def _stopped(traffic: Traffic) -> StreamCounts:
    """The guest's account when it has stopped to send; GuestError if it can't have sent so much."""
    counts, due = traffic.guest.stop_stream(), traffic.due()
    if counts.sent > due:
        said = f"it sent {counts.sent} packets, {due} were due at most"
        raise GuestError("read the guest's account", host=traffic.guest.where, said=said)
    return counts


def _late_ticks(guest: Probe) -> dict[str, Any]:
    """Fields of :class:`TrafficLog`: the late ticks, and how many the probe has no more."""
    jumps = guest.jumps()
    return {
        "jumps": tuple((jump.at_ns, jump.delta_ns) for jump in jumps),
        "jumps_missed": guest.stream_status().jumps - len(jumps),
    }


def _lowers(guest: Probe) -> dict[str, Any]:
    """Fields of :class:`TrafficLog`: what became of devices, and how much of it is not known."""
    guest.lower_stop()
    changes, missed = guest.lower_account()
    return {"lowers": changes, "lowers_missed": missed}


def await_more(receivers: Sequence[Probe], deadline: Deadline) -> tuple[Probe, ...]:
    """Wait for one more packet each way: whether a silence at the end went on is known by it.

    Those that have received none by the deadline.
    """
    before = [probe.stream_status().received for probe in receivers]
    silent: tuple[Probe, ...] = ()

    def came() -> bool:
        nonlocal silent
        counts = zip(receivers, before, strict=True)
        silent = tuple(probe for probe, count in counts if probe.stream_status().received <= count)
        return not silent

    until(came, deadline, POLL_S)
    return silent


def _await_last(receiver: Probe, sent: StreamCounts, deadline: Deadline) -> None:
    """What was sent last may still be under way: wait until nothing more comes, or all is there."""
    before = -1

    def all_arrived() -> bool:
        nonlocal before
        last, before = before, receiver.stream_status().received
        return before >= sent.sent or before == last

    until(all_arrived, deadline, POLL_S)


def _meter_losses(*sides: StreamCounts) -> tuple[str, ...]:
    notes = []
    for where, side in zip(("guest", "peer"), sides, strict=False):
        if side.unlogged:
            notes.append(f"the {where}'s log was full: {side.unlogged} arrivals are missing")
        if side.socket_drops:
            notes.append(f"the {where}'s probe was too slow for {side.socket_drops} packets")
    return tuple(notes)


def nothing_read() -> TrafficLog:
    """Of an attempt whose peer can't be asked either."""
    return TrafficLog(
        egress=Arrivals.empty(),
        ingress=Arrivals.empty(),
        sent_egress=None,
        sent_ingress=0,
        end_ns=now_ns(),
        jumps=None,
        nothing_logged=True,
    )


def _without_guest(traffic: Traffic, end_ns: int, why: str) -> TrafficLog:
    """Ingress from the receipts that the guest's own packets carried."""
    peer = traffic.peer
    into = peer.stop_stream()
    to_axis = traffic.peer_clock.offset_ns
    due = traffic.due()
    egress = peer.arrivals(due=due)
    egress = replace(egress, received_ns=egress.received_ns + to_axis)
    receipts = sorted(peer.receipts(due=due).items())
    seq = np.array([number for number, _ in receipts], dtype=np.int64)
    received = np.array([at for _, at in receipts], dtype=np.int64)
    sends = peer.sends()
    known = seq < len(sends)
    to_guest = peer.unreceived(seq)
    return TrafficLog(
        egress=egress,
        ingress=Arrivals(seq[known], sends[seq[known]] + to_axis, received[known]),
        unreceived_ingress=replace(to_guest, sent_ns=to_guest.sent_ns + to_axis),
        lost_by_peer=peer.meter_loss(),
        peer_error_ns=traffic.peer_clock.error_ns,
        sent_egress=None,
        sent_ingress=into.sent,
        end_ns=end_ns,
        jumps=None,
        memory=None,
        tcp=None,
        nic=None,
        from_receipts=True,
        lowers=None,
        notes=(why,),
        nothing_logged=traffic.loops,
    )
