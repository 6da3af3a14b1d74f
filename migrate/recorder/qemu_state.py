"""Both QEMUs watched from inside while a guest moves, over monitors of our own.

libvirt's monitor is busy with the migration; ours answers meanwhile. The source's is asked for the
progress, and for the state of its virtio devices and rings when it has stopped; the target's for
the state of its devices when it has loaded them, before libvirt lets the guest run. Events and
answers come in one order over one connection: a state is the one before the guest ran on only if
its last answer came before RESUME.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from migrate.analysis.announcements import AnnounceParameters
from migrate.clock import Deadline, now_ns
from migrate.drivers.qmp import Monitor
from migrate.errors import HostError
from migrate.guest.domain_xml import MONITOR
from migrate.guest.lifecycle import own_monitor
from migrate.lab.api import Host
from migrate.model import Event, Sample
from migrate.recorder.events import Listener
from migrate.recorder.qmp_queries import ANSWER_S, Questions, State, backends

INTERVAL_S = 0.02
"""Between two looks at the progress."""
LEAVE_S = 2.0
FINAL = ("completed", "postcopy-active")
"""Of a migration: a source that has stopped does not run on, unless the target fails yet."""
ROUNDS = 2
"""Of reading memory: the rings, and then the tables that they point to."""


@dataclass(frozen=True, slots=True)
class Blocktime:
    """How long processors waited for pages in post-copy, by the target's QEMU, in milliseconds.

    Source: qapi/migration.json, MigrationInfo, ``postcopy-blocktime`` and
    ``postcopy-vcpu-blocktime``.
    """

    every_ms: int
    """While all of them waited."""
    each_ms: tuple[int, ...]


@dataclass(slots=True)
class QemuRecording:
    """What was seen inside of both QEMUs in one move; it grows while the move goes on."""

    interval_s: float = INTERVAL_S
    """Between two looks at the progress."""
    source: State | None = None
    target: State | None = None
    vhost: bool | None = None
    """Whether a backend works the source's queues; None: not known."""
    memory: dict[int, bytes] = field(default_factory=dict)
    """Of the guest, at the source's stop: what its rings lie in, by address."""
    samples: list[Sample] = field(default_factory=list)
    answered_ns: list[int] = field(default_factory=list)
    """When the source answered, in order, whatever it was asked; the last time is when it ended, or
    was given up, if it owed an answer then."""
    rounds: AnnounceParameters | None = None
    """In which the target's QEMU announces the guest."""
    blocktime: Blocktime | None = None
    unseen: list[str] = field(default_factory=list)


Regions = Callable[[State, Mapping[int, bytes], bool], Sequence[tuple[int, int]]]
"""Address and length of the guest's memory that is wanted with a state, given what of it has been
captured, and whether a backend works the queues."""


@contextmanager
def watch_qemus(
    source: Host,
    target: Host,
    listener: Listener,
    on_sample: Callable[[Sample], None],
    regions: Regions,
    interval_s: float = INTERVAL_S,
) -> Iterator[QemuRecording]:
    """Watch both ends while the block runs; ``interval_s``: between two looks at the progress."""
    ended, looked = threading.Event(), QemuRecording(interval_s)
    leaving = _Source(source, ended, looked, on_sample, regions)
    arriving = _Target(target, ended, looked, listener, listener.mark())
    watches = (leaving, arriving)
    threads = [threading.Thread(target=one.run, name="inside", daemon=True) for one in watches]
    for thread in threads:
        thread.start()
    leaving.ready.wait(ANSWER_S)  # the target's QEMU is not there yet
    try:
        yield looked
    finally:
        ended.set()
        for thread in threads:
            # A QEMU that hangs answers when it has been ended, which comes later.
            thread.join(LEAVE_S)


class _Watch:
    def __init__(self, host: Host, ended: threading.Event, looked: QemuRecording) -> None:
        self.host = host
        self.ended, self.looked = ended, looked
        self.ready = threading.Event()

    def run(self) -> None:
        """In its thread; that a QEMU ends, or does not answer, is noted and nothing more."""
        try:
            if self.awaited():
                with own_monitor(self.host, Deadline.after(ANSWER_S)) as qemu:
                    self.watch(qemu)
        except HostError as error:
            if not self.ended.is_set() and self.missing():
                self.looked.unseen.append(f"{self.host.name}: {error.tried}: {error.said}")
        finally:
            self.ready.set()

    def awaited(self) -> bool:
        """Whether its QEMU came to be there."""
        return True

    def missing(self) -> bool:
        """Whether what it was there for has not been had."""
        raise NotImplementedError

    def watch(self, qemu: Monitor) -> None:
        """Until the end."""
        raise NotImplementedError


class _Source(_Watch):
    def __init__(
        self,
        host: Host,
        ended: threading.Event,
        looked: QemuRecording,
        on_sample: Callable[[Sample], None],
        regions: Regions,
    ) -> None:
        super().__init__(host, ended, looked)
        self.on_sample, self.regions = on_sample, regions

    def missing(self) -> bool:
        return self.looked.source is None

    def watch(self, qemu: Monitor) -> None:
        questions = Questions.of(qemu, queues=True, vhost=True)
        self.looked.vhost = questions.vhost
        self.ready.set()
        due = Deadline.after(self.looked.interval_s)
        stopped = False
        while not self.ended.is_set():
            event = qemu.event(due)
            if event is None:
                self._sample(qemu)
                due = Deadline.after(self.looked.interval_s)
                continue
            if event["event"] in ("STOP", "RESUME"):
                stopped = event["event"] == "STOP"
                if not stopped and self.looked.source is None:
                    self._dropped("the guest ran on before its state was read")
            if stopped and _is_due(event, vhost=questions.vhost):
                self._read(qemu, questions)

    def _answered(self) -> None:
        self.looked.answered_ns.append(now_ns())

    def _sample(self, qemu: Monitor) -> None:
        try:
            told = qemu.execute("query-migrate", Deadline.after(ANSWER_S))
        finally:
            self._answered()
        if "ram" in told and told.get("status") != "completed":
            sample = to_sample(self.host.name, told)
            self.looked.samples.append(sample)
            self.on_sample(sample)

    def _read(self, qemu: Monitor, questions: Questions) -> None:
        """All of it is dropped if the guest ran on meanwhile: a move may be given up after STOP."""
        turns = ["STOP"]
        while turns[-1:] == ["STOP"] and not self.ended.is_set():
            self.looked.source = None
            self.looked.memory.clear()
            turns = _turns(qemu)
            if not turns:
                self.looked.source = questions.state(qemu, events_between=True)[0]
                self._answered()
                self._memory(qemu, self.looked.source)
                turns = _turns(qemu)
            if turns:
                self._dropped("the guest ran on while its state was read: it is not compared")
            if questions.vhost:
                return

    def _dropped(self, said: str) -> None:
        self.looked.source = None
        self.looked.memory.clear()
        self.looked.unseen.append(f"{self.host.name}: {said}")

    def _memory(self, qemu: Monitor, state: State) -> None:
        """QEMU writes it to a file of its host, which is read and taken away."""
        name, saved = MONITOR.replace(".monitor", ".memory"), False
        try:
            for _ in range(ROUNDS):
                known = self.looked.memory
                for address, length in self.regions(state, known, bool(self.looked.vhost)):
                    told = {"val": address, "size": length, "filename": name}
                    saved = True
                    qemu.execute("pmemsave", Deadline.after(ANSWER_S), **told)
                    self._answered()
                    known[address] = self.host.read(name, Deadline.after(ANSWER_S))
        except HostError as error:  # its QEMU ended, or it refuses: the state is had all the same
            self.looked.memory.clear()
            said = f"{error.tried}: {error.said}"
            self.looked.unseen.append(f"{self.host.name}: its rings were not read: {said}")
        finally:
            if saved:
                self.host.run(["rm", "-f", name], Deadline.after(ANSWER_S))


def _is_due(event: Mapping[str, Any], *, vhost: bool) -> bool:
    """Whether a source that has stopped can be asked now (see :meth:`Questions.of`).

    One whose queues a backend works only when it will not run on any more: a move that is given up
    after STOP may let it run within a few ms, while a question is on its way.
    """
    if not vhost:
        return bool(event["event"] == "STOP")
    return event["event"] == "MIGRATION" and event["data"]["status"] in FINAL


def _turns(qemu: Monitor) -> list[str]:
    """That the guest stopped or ran on, of which nobody has heard yet."""
    names = [str(event["event"]) for event in qemu.pending()]
    return [name for name in names if name in ("STOP", "RESUME")]


class _Target(_Watch):
    def __init__(
        self,
        host: Host,
        ended: threading.Event,
        looked: QemuRecording,
        listener: Listener,
        since: int,
    ) -> None:
        super().__init__(host, ended, looked)
        self.listener, self.since = listener, since

    def missing(self) -> bool:
        return self.looked.target is None

    def awaited(self) -> bool:
        """QEMU is there when it says that it is about to take a guest in, or libvirt does."""
        while not self.ended.is_set():
            if self.listener.wait(self._is_there, Deadline.after(0.2), self.since):
                return True
        return False

    def _is_there(self, event: Event) -> bool:
        return event.host == self.host.name and event.name in ("started", "MIGRATION")

    def watch(self, qemu: Monitor) -> None:
        """Its QEMU is asked at once, long before the load ends, and then not before it has ended.

        Of progress there is nothing to ask for meanwhile: a QEMU that takes a guest in tells its
        status alone (QEMU migration/migration.c, fill_destination_migration_info), which comes as
        an event anyway.
        """
        postcopy, runs = self._prepare(qemu), False
        questions = Questions.of(qemu, queues=self.looked.vhost is False, vhost=False)
        while True:
            event = qemu.event(Deadline.after(0.2))
            if event is None and self.ended.is_set():
                return
            if event is None:
                continue
            if event["event"] == "RESUME":
                self._ran_on(qemu, questions)
                if not postcopy:
                    return
                runs = True
            if event["event"] == "MIGRATION" and event["data"]["status"] == "completed":
                if runs:
                    self._blocktime(qemu)
                    return
                self._look(qemu, questions)

    def _prepare(self, qemu: Monitor) -> bool:
        """Whether the guest may come in post-copy: then QEMU is told to note what waits for pages.

        libvirt does not ask for that, and leaves it on (QEMU's capability postcopy-blocktime).
        """
        deadline = Deadline.after(ANSWER_S)
        self.looked.rounds = AnnounceParameters.of(
            qemu.execute("query-migrate-parameters", deadline)
        )
        told = qemu.execute("query-migrate-capabilities", deadline)
        on = {one["capability"] for one in told if one["state"]}
        if "postcopy-ram" not in on:
            return False
        wanted = {"capability": "postcopy-blocktime", "state": True}
        try:
            qemu.execute("migrate-set-capabilities", deadline, capabilities=[wanted])
        except HostError as error:
            self.looked.unseen.append(f"{self.host.name}: {error.tried}: {error.said}")
        return True

    def _blocktime(self, qemu: Monitor) -> None:
        told = qemu.execute("query-migrate", Deadline.after(ANSWER_S))
        if (every := told.get("postcopy-blocktime")) is not None:
            each = told.get("postcopy-vcpu-blocktime", ())
            self.looked.blocktime = Blocktime(int(every), tuple(int(ms) for ms in each))

    def _look(self, qemu: Monitor, questions: Questions) -> None:
        self.looked.target, late = questions.state(qemu)
        if late:
            said = f"the guest ran on before {late} of {len(questions.asked)} answers came"
            self.looked.unseen.append(f"{self.host.name}: {said}: these are not compared")

    def _ran_on(self, qemu: Monitor, questions: Questions) -> None:
        if self.looked.target is None:
            said = "the guest ran on before its state could be read"
            self.looked.unseen.append(f"{self.host.name}: {said}")
        elif self.looked.vhost:  # a backend is told of what was negotiated when the guest runs on
            for path, backend in backends(qemu, questions.kinds).items():
                self.looked.target[path]["backend"] = backend


def to_sample(host: str, told: Mapping[str, Any]) -> Sample:
    """query-migrate's answer as a sample (qapi/migration.json, MigrationInfo)."""
    ram = told["ram"]
    mbps = ram.get("mbps")
    return Sample(
        at_ns=now_ns(),
        host=host,
        iteration=ram.get("dirty-sync-count"),
        remaining_bytes=ram.get("remaining"),
        transferred_bytes=ram.get("transferred"),
        rate_bytes_s=None if mbps is None else round(mbps * 1e6 / 8),
        dirty_pages_s=ram.get("dirty-pages-rate"),
        throttle_percent=told.get("cpu-throttle-percentage"),
        postcopy_requests=ram.get("postcopy-requests"),
        zero_pages=ram.get("duplicate"),
        multifd_bytes=ram.get("multifd-bytes"),
        postcopy_blocktime_ms=told.get("postcopy-blocktime"),
        ring_full_us=told.get("dirty-limit-ring-full-time"),
        vfio_bytes=told.get("vfio", {}).get("transferred"),
    )
