"""The controller's side of the probe: typed calls.

The same program answers in the guest (over a virtio-serial channel) and on the fabric (over its
standard input and output); what it is told and what it answers is in ``docs/probe-protocol.md``.
Clock stamps are the probe's own ``CLOCK_MONOTONIC`` until a caller maps them by
:meth:`Probe.clock_offset`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from migrate.clock import Deadline, Offset, offset_of
from migrate.guest.answers import (
    MOST_RECORDS,
    Announcement,
    Bound,
    Clock,
    Dirtied,
    Drops,
    Frames,
    Jump,
    Jumps,
    Lowers,
    NicAnswer,
    Page,
    Pages,
    StreamCounts,
    Tcp,
    Verified,
    Work,
    impossible,
)
from migrate.guest.probe_channel import ProbeChannel, Reply
from migrate.model import LowerChange, MemoryCheck, Nic, TcpCheck, WorkSample
from migrate.model.recording import Arrivals, Column, MeterLoss, Sends

PAGE_RECORDS = 5000
"""Records of a log that are asked for at once: some 130 kB a line."""
MIB_S = 20.0
"""The least rate, in MiB/s, at which a slow emulated processor fills or verifies memory."""

_ARRIVAL = np.dtype([("seq", "<u4"), ("sent_ns", "<u8"), ("received_ns", "<u8")])
_SEND = np.dtype([("sent_ns", "<u8")])
_RECEIPT = np.dtype([("seq", "<u4"), ("received_ns", "<u8")])


class Probe(ProbeChannel):
    """A probe, asked by typed calls: each raises GuestError for an answer that is none."""

    # --- clock and network ----------------------------------------------------------------------

    def clock_offset(self, clock: str, rounds: int = 8) -> Offset:
        """From the probe's monotonic clock to the axis, by round trips; ``clock`` names it."""
        return offset_of(clock, lambda: self.ask("clock", Clock).mono_ns, rounds)

    def nic(self, name: str | None = None) -> Nic:
        """The interface ``name``, or the first that is not the loopback and has no master."""
        return self.ask("net", NicAnswer, **_given(name=name)).nic()

    def address(self, ip: str, prefix: int, name: str | None = None) -> None:
        """Give the interface its IPv4 address and bring it up."""
        self.call("addr", ip=ip, prefix=prefix, **_given(name=name))

    # --- which device carries the traffic -------------------------------------------------------

    def lower_start(self) -> None:
        """Begin to note what happens to the interface's lower devices; the log begins anew.

        They are those of a failover pair, say. An interface that has none counts itself.
        """
        self.call("lower.start")

    def lower_log(self) -> tuple[LowerChange, ...]:
        """The newest 1000 changes, oldest first; stamps by the probe's clock.

        Carrier and packets are looked at every 20 ms: so much later is a stamp at most.
        """
        return self.lower_account()[0]

    def lower_account(self) -> tuple[tuple[LowerChange, ...], int]:
        """The log, and how many changes before it are no longer on record."""
        log = self.ask("lower.log", Lowers)
        return log.lower_changes(), log.total - len(log.changes)

    def lower_stop(self) -> None:
        """Note no more; the log stays."""
        self.call("lower.stop")

    # --- streams --------------------------------------------------------------------------------

    def open_stream(self, stream_id: int, port: int = 0) -> int:
        """Listen for stream ``stream_id`` (32 bits); logs begin anew. The port that was bound."""
        return self.ask("stream.open", Bound, stream=stream_id, port=port).port

    def send_stream(self, to: str, port: int, interval_us: int, payload: int) -> None:
        """Begin to send; ``payload`` in bytes, at least 224."""
        self.call("stream.send", to=to, to_port=port, interval_us=interval_us, payload=payload)

    def loop_stream(
        self, stream_id: int, interval_us: int, payload: int, name: str | None = None
    ) -> None:
        """Open a stream to ourselves and send it; what comes back is the stream that is received.

        For a network that returns what it gets. It is in frames of its own to the interface's MAC,
        so no address is needed; both stamps of :meth:`arrivals` are this probe's.
        """
        given = _given(stream=stream_id, interval_us=interval_us, payload=payload, name=name)
        self.call("loop.start", **given)

    def stream_status(self) -> StreamCounts:
        """The account so far."""
        return self.ask("stream.status", StreamCounts)

    def stop_stream(self) -> StreamCounts:
        """End the sending; what the other side has under way is still received."""
        return self.ask("stream.stop", StreamCounts)

    def close_stream(self) -> StreamCounts:
        """End the receiving, too; the logs stay until the next open."""
        return self.ask("stream.close", StreamCounts)

    def arrivals(self, deadline: Deadline | None = None, due: int = MOST_RECORDS) -> Arrivals:
        """What this side received of the other's stream; both clocks as they were stamped.

        ``due``: so many packets the other side can have sent at most.
        """
        log = self._records("stream.log", _ARRIVAL, deadline, due)
        return Arrivals(
            log["seq"].astype(np.int64),
            log["sent_ns"].astype(np.int64),
            log["received_ns"].astype(np.int64),
        )

    def sends(self, deadline: Deadline | None = None) -> Column:
        """When this side sent each of its numbers, from 0 on, by its own clock."""
        log = self._records("stream.sends", _SEND, deadline, MOST_RECORDS)
        return np.asarray(log["sent_ns"].astype(np.int64))

    def unreceived(self, arrived: Column, deadline: Deadline | None = None) -> Sends:
        """When this side sent what is not among the numbers ``arrived``, by its own clock.

        All that it sent is asked for only if anything is missing. A log that is full ends early.
        """
        sent = self.stream_status().sent
        if len(np.unique(arrived[arrived < sent])) >= sent:
            return Sends.empty()
        stamps = self.sends(deadline)
        missing = np.ones(len(stamps), dtype=np.bool_)
        missing[arrived[arrived < len(stamps)]] = False
        numbers = np.flatnonzero(missing)
        return Sends(numbers, stamps[numbers])

    def meter_loss(self) -> MeterLoss:
        """What this side lost itself of what it received: its log was full, its socket dropped."""
        counts = self.stream_status()
        drops = self.ask("stream.drops", Drops).drops
        return MeterLoss(full=counts.unlogged > 0, drops=drops, dropped=counts.socket_drops)

    def receipts(self, deadline: Deadline | None = None, due: int = MOST_RECORDS) -> dict[int, int]:
        """When the other side, by its clock, received our numbers: what it told us of them.

        ``due``: so many we have sent at most.
        """
        log = self._records("stream.receipts", _RECEIPT, deadline, due)
        return dict(zip(log["seq"].tolist(), log["received_ns"].tolist(), strict=True))

    def _records(
        self, do: str, shape: np.dtype[Any], deadline: Deadline | None, due: int
    ) -> NDArray[Any]:
        """A whole log, page by page; GuestError if it has what can't be."""
        deadline = deadline or Deadline.after(6 * self.patience_s)
        pages = [np.empty(0, dtype=shape)]
        had, total = 0, 1
        while had < total:
            page = self.ask(do, Page, deadline, **{"from": had, "max": PAGE_RECORDS})
            try:
                records = page.records(shape, had, PAGE_RECORDS)
            except ValueError as wrong:
                raise self.nonsense(do, str(wrong)) from wrong
            pages.append(records)
            had, total = had + len(records), page.total
        log = np.concatenate(pages)
        if wrong_record := impossible(log, due):
            raise self.nonsense(do, wrong_record)
        return log

    def jumps(self) -> tuple[Jump, ...]:
        """Where the sender's tick was more than 10 ms late; the newest 1000."""
        log = self.ask("tick.log", Jumps)
        return tuple(Jump(at_ns=at_ns, delta_ns=delta_ns) for at_ns, delta_ns in log.jumps)

    # --- memory ---------------------------------------------------------------------------------

    def dirty_start(self, mib: int, mib_s: float, seed: int = 1) -> int:
        """Fill ``mib`` MiB and rewrite them round robin at ``mib_s`` MiB/s; how many pages."""
        deadline = Deadline.after(self.patience_s + mib / MIB_S)
        return self.ask("dirty.start", Pages, deadline, mib=mib, mib_s=mib_s, seed=seed).pages

    def dirty_rate(self) -> float:
        """The rate that was reached so far, in MiB/s."""
        return self.ask("dirty.status", Dirtied).mib_s

    def verify(self, deadline: Deadline | None = None) -> MemoryCheck:
        """Read every byte back; the writer pauses meanwhile."""
        deadline = deadline or Deadline.after(6 * self.patience_s)
        return self.ask("dirty.verify", Verified, deadline).check()

    def pages_written(self) -> int:
        """Since the writer began."""
        return self.ask("dirty.status", Dirtied).writes

    def dirty_corrupt(self, page: int, offset: int = 0) -> None:
        """Break a byte on purpose, so that the check can be seen to fire."""
        self.call("dirty.corrupt", page=page, offset=offset)

    def dirty_stop(self) -> None:
        """Give the memory back."""
        self.call("dirty.stop")

    # --- what the workload has done -------------------------------------------------------------

    def work_start(self) -> None:
        """Begin to note it, each second; the log begins anew."""
        self.call("work.start")

    def work_stop(self) -> None:
        """Note it once more, and then no more; the log stays."""
        self.call("work.stop")

    def work_log(self, deadline: Deadline | None = None) -> tuple[WorkSample, ...]:
        """The newest 4000 seconds; stamps by the probe's clock."""
        return self.ask("work.log", Work, deadline).samples()

    # --- TCP ------------------------------------------------------------------------------------

    def tcp_listen(self, port: int = 0) -> int:
        """Echo whatever connects; the port that was bound."""
        return self.ask("tcp.listen", Bound, port=port).port

    def tcp_open(self, to: str, port: int, count: int, interval_ms: int = 10) -> None:
        """Hold ``count`` connections and have a message echoed on each every interval."""
        self.call("tcp.open", to=to, port=port, count=count, interval_ms=interval_ms)

    def tcp_check(self) -> TcpCheck:
        """How the connections fared, a wait that is going on included."""
        return self.ask("tcp.status", Tcp).check()

    def tcp_close(self) -> None:
        """End the connections, and the echo."""
        self.call("tcp.close")

    # --- announcements --------------------------------------------------------------------------

    def capture(self, interface: str) -> None:
        """Begin to note announcements that come in on ``interface``."""
        self.call("capture.start", name=interface)

    def captured(self) -> tuple[Announcement, ...]:
        """The newest 1000, oldest first; stamps by the probe's clock."""
        return self.capture_log()[0]

    def capture_log(self) -> tuple[tuple[Announcement, ...], int]:
        """The newest 1000, and how many came before them."""
        log = self.ask("capture.log", Frames)
        return log.frames, log.total - len(log.frames)

    def capture_stop(self) -> None:
        """Note no more."""
        self.call("capture.stop")


def _given(**parameters: object) -> Reply:
    return {key: value for key, value in parameters.items() if value is not None}
