"""Both QEMUs watched from inside while a guest moves, over monitors of our own.

libvirt's monitor is busy with the migration; ours answers meanwhile. The source's is asked for the
progress, and for the state of its virtio devices and rings when it has stopped; the target's for
the state of its devices when it has loaded them, before libvirt lets the guest run. Events and
answers come in one order over one connection: a state is the one before the guest ran on only if
its last answer came before RESUME.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from migrate.analysis.device_state import ring_regions
from migrate.analysis.network_devices import supplemented
from migrate.clock import Deadline, now_ns
from migrate.drivers.qmp import MonitorEvent, ask
from migrate.errors import HostError
from migrate.formats.answers import MalformedError
from migrate.formats.qapi import CAPABILITIES, MIGRATION, PARAMETERS, MigrationParameters
from migrate.formats.qemu_migration import FINAL, sample_of_query
from migrate.guest.domain_xml import MONITOR
from migrate.guest.lifecycle import own_monitor
from migrate.lab.api import Host
from migrate.model import Event, Observers, Sample
from migrate.model.recording import (
    SAMPLE_INTERVAL_S,
    AnnounceParameters,
    Blocktime,
    DeviceStates,
    HopRecording,
    QemuRecording,
)
from migrate.recorder.base import Hop
from migrate.recorder.events import Listener
from migrate.recorder.noted_monitor import NotedMonitor, noted
from migrate.recorder.qmp_queries import ANSWER_S, Questions, Side, backends

LOGGER = logging.getLogger(__name__)

LEAVE_S = 2.0
ROUNDS = 2
"""Of reading memory: the rings, and then the tables that they point to."""

Regions = Callable[[DeviceStates, Mapping[int, bytes], bool], Sequence[tuple[int, int]]]
"""Address and length of the guest's memory that is wanted with a state, given what of it has been
captured, and whether a backend works the queues."""


@dataclass(slots=True)
class QemuWatch:
    """What was seen inside of both QEMUs so far: fields of :class:`QemuRecording`."""

    interval_s: float = SAMPLE_INTERVAL_S
    source: DeviceStates | None = None
    target: DeviceStates | None = None
    vhost: bool | None = None
    memory: dict[int, bytes] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    answered_ns: list[int] = field(default_factory=list)
    announce: AnnounceParameters | None = None
    blocktime: Blocktime | None = None
    unseen: list[str] = field(default_factory=list)
    threads: tuple[threading.Thread, ...] = ()

    def recording(self) -> QemuRecording:
        """As it is now; that of a QEMU that owes an answer yet is waited for, or its deadline."""
        for thread in self.threads:
            thread.join(ANSWER_S)
        return QemuRecording(
            interval_s=self.interval_s,
            source=self.source,
            target=self.target,
            vhost=self.vhost,
            memory=dict(self.memory),
            samples=tuple(self.samples),
            answered_ns=tuple(self.answered_ns),
            announce=self.announce,
            blocktime=self.blocktime,
            unseen=tuple(self.unseen),
        )

    def add_to(self, recording: HopRecording) -> HopRecording:
        """The hop's recording with what was seen inside."""
        return recording.model_copy(update={"qemu": self.recording()})


@contextmanager
def observe_qemus(hop: Hop) -> Iterator[QemuWatch]:
    """Watch both ends of a hop; rings are read if the case expects something of them."""

    def regions(
        states: DeviceStates, memory: Mapping[int, bytes], vhost: bool
    ) -> Sequence[tuple[int, int]]:
        if not hop.case.expect.rings:
            return ()
        known = supplemented(states, {}, hop.nic)
        return ring_regions(known, memory, hop.case.guest.memory_mib, vhost=vhost)

    interval_s = SAMPLE_INTERVAL_S * hop.env.lab.patience
    ends, on_sample, observers = (hop.source, hop.target), hop.env.on_sample, hop.env.observers
    with watch_qemus(*ends, hop.listener, on_sample, regions, observers, interval_s) as watch:
        yield watch


@contextmanager
def watch_qemus(
    source: Host,
    target: Host,
    listener: Listener,
    on_sample: Callable[[Sample], None],
    regions: Regions,
    observers: Mapping[str, Observers],
    interval_s: float = SAMPLE_INTERVAL_S,
) -> Iterator[QemuWatch]:
    """Watch both ends while the block runs.

    ``observers``: what the QEMU of a host may be asked; ``interval_s``: between two questions for
    progress.
    """
    ended, watch = threading.Event(), QemuWatch(interval_s)
    leaving = _Source(source, ended, watch, listener, observers)
    leaving.on_sample, leaving.regions = on_sample, regions
    arriving = _Target(target, ended, watch, listener, observers)
    ends = (leaving, arriving)
    watch.threads = tuple(
        threading.Thread(target=end.run, name="qemu-watch", daemon=True) for end in ends
    )
    for thread in watch.threads:
        thread.start()
    leaving.ready.wait(ANSWER_S)  # the target's QEMU is not there yet
    try:
        yield watch
    finally:
        ended.set()
        for thread in watch.threads:
            # A QEMU that hangs answers when it has been ended, which comes later.
            thread.join(LEAVE_S)


class _End:
    """One QEMU, in a thread of its own."""

    def __init__(
        self,
        host: Host,
        ended: threading.Event,
        watch: QemuWatch,
        listener: Listener,
        observers: Mapping[str, Observers],
    ) -> None:
        self.host, self.listener = host, listener
        self.ended, self.watch = ended, watch
        self.observers = observers.get(host.name, Observers())
        self.ready = threading.Event()
        self.since = listener.mark()

    def run(self) -> None:
        """In its thread; that a QEMU ends, or does not answer, is noted and nothing more."""
        try:
            if self.awaited():
                with (
                    own_monitor(self.host, Deadline.after(ANSWER_S)) as monitor,
                    noted(monitor, self.host.name, self.listener) as qemu,
                ):
                    self.follow(qemu)
        except HostError as error:
            if not self.ended.is_set() and self.missing():
                self.unseen(f"{error.tried}: {error.said}")
        except Exception as error:  # whatever an answer led to: the move goes on
            LOGGER.debug("the QEMU of %s is not watched any more", self.host.name, exc_info=True)
            self.unseen(f"not watched any more: {type(error).__name__}: {error}")
        finally:
            self.ready.set()

    def unseen(self, *reasons: str) -> None:
        """Note what was not seen, and why."""
        self.watch.unseen += [f"{self.host.name}: {why}" for why in reasons]

    def awaited(self) -> bool:
        """Whether its QEMU came to be there."""
        return True

    def missing(self) -> bool:
        """Whether what it was there for has not been had."""
        raise NotImplementedError

    def follow(self, qemu: NotedMonitor) -> None:
        """Until the end."""
        raise NotImplementedError

    def questions(self, qemu: NotedMonitor, side: Side, *, queues: bool, vhost: bool) -> Questions:
        """What it may be asked, see :meth:`Questions.of`; what it may not is noted."""
        questions = Questions.of(qemu, side, self.observers, queues=queues, vhost=vhost)
        for why in questions.not_asked:
            self.unseen(why)
        return questions


class _Source(_End):
    on_sample: Callable[[Sample], None]
    regions: Regions
    odd = False
    """Whether an answer about the progress made no sense: that is noted once."""

    def missing(self) -> bool:
        return self.watch.source is None

    def follow(self, qemu: NotedMonitor) -> None:
        questions = self.questions(qemu, "source", queues=True, vhost=True)
        self.watch.vhost = questions.vhost
        self.ready.set()
        due = Deadline.after(self.watch.interval_s)
        stopped = False
        while not self.ended.is_set():
            event = qemu.event(due)
            if event is None:
                self._sample(qemu)
                due = Deadline.after(self.watch.interval_s)
                continue
            if event.name in ("STOP", "RESUME"):
                stopped = event.name == "STOP"
                if not stopped and self.watch.source is None and questions.kinds is not None:
                    self._drop("the guest ran on before its state was read")
            if stopped and _is_due(event, vhost=questions.vhost is not False):
                self._read(qemu, questions)

    def _answered(self) -> None:
        self.watch.answered_ns.append(now_ns())

    def _sample(self, qemu: NotedMonitor) -> None:
        """One look at the progress; an answer that makes no sense is none, and noted."""
        try:
            answer = ask(qemu, "query-migrate", MIGRATION, Deadline.after(ANSWER_S))
        except MalformedError as error:
            if not self.odd:
                self.unseen(f"progress: not measured: {error.tried}: {error.said}")
            self.odd = True
            return
        finally:
            self._answered()
        if answer.status == "completed":
            return
        if (sample := sample_of_query(now_ns(), self.host.name, answer)) is not None:
            self.watch.samples.append(sample)
            self.on_sample(sample)

    def _read(self, qemu: NotedMonitor, questions: Questions) -> None:
        """All of it is dropped if the guest ran on meanwhile: a move may be given up after STOP."""
        turns = ["STOP"]
        while turns[-1:] == ["STOP"] and not self.ended.is_set():
            self.watch.source = None
            self.watch.memory.clear()
            turns = _turns(qemu)
            if not turns:
                reading = questions.state(qemu, events_between=True)
                self.watch.source = reading.states
                self._answered()
                self.unseen(*reading.odd)
                if self.watch.source is not None:
                    self._read_memory(qemu, self.watch.source)
                turns = _turns(qemu)
            if turns:
                self._drop("the guest ran on while its state was read: it is not compared")
            if questions.vhost is not False:
                return

    def _drop(self, why: str) -> None:
        self.watch.source = None
        self.watch.memory.clear()
        self.unseen(why)

    def _read_memory(self, qemu: NotedMonitor, states: DeviceStates) -> None:
        """QEMU writes it to a file of its host, which is read and taken away."""
        name, saved = MONITOR.replace(".monitor", ".memory"), False
        memory = self.watch.memory
        try:
            for _ in range(ROUNDS):
                for address, length in self.regions(states, memory, bool(self.watch.vhost)):
                    saved = True
                    memory[address] = self._saved(qemu, name, address, length)
        except HostError as error:  # its QEMU ended, or it refuses: the state is had all the same
            memory.clear()
            self.unseen(f"its rings were not read: {error.tried}: {error.said}")
        finally:
            if saved:
                self.host.run(["rm", "-f", name], Deadline.after(ANSWER_S))

    def _saved(self, qemu: NotedMonitor, name: str, address: int, length: int) -> bytes:
        """Memory of the guest, by way of a file."""
        asked = {"val": address, "size": length, "filename": name}
        qemu.execute("pmemsave", Deadline.after(ANSWER_S), **asked)
        self._answered()
        content = self.host.read(name, Deadline.after(ANSWER_S))
        if len(content) != length:
            said = f"{len(content)} bytes came, and {length} were asked for"
            raise HostError("pmemsave", host=self.host.name, said=said)
        return content


def _is_due(event: MonitorEvent, *, vhost: bool) -> bool:
    """Whether a source that has stopped can be asked now (see :meth:`Questions.of`).

    One whose queues a backend works, or may work, only when it will not run on any more: a move
    that is given up after STOP may let it run within a few ms, while a question is on its way.
    """
    if not vhost:
        return event.name == "STOP"
    return event.status in FINAL


def _turns(qemu: NotedMonitor) -> list[str]:
    """Stops and resumes of the guest that were not taken in yet."""
    names = [event.name for event in qemu.pending()]
    return [name for name in names if name in ("STOP", "RESUME")]


class _Target(_End):
    def missing(self) -> bool:
        return self.watch.target is None

    def awaited(self) -> bool:
        """QEMU is there when it says that it is about to take a guest in, or libvirt does."""
        while not self.ended.is_set():
            if self.listener.wait(self._is_there, Deadline.after(0.2), self.since):
                return True
        return False

    def _is_there(self, event: Event) -> bool:
        return event.host == self.host.name and event.name in ("started", "MIGRATION")

    def follow(self, qemu: NotedMonitor) -> None:
        """Its QEMU is asked at once, long before the load ends, and then not before it has ended.
        When all is asked, it is heard until the hop's end: whether it ends.

        Of progress there is nothing to ask for meanwhile: a QEMU that takes a guest in tells its
        status alone (QEMU migration/migration.c, fill_destination_migration_info), which comes as
        an event anyway.
        """
        postcopy, runs, over = self._prepare(qemu), False, False
        still = self.watch.vhost is False
        questions = self.questions(qemu, "target", queues=still, vhost=False)
        while True:
            event = qemu.event(Deadline.after(0.2))
            if event is None and self.ended.is_set():
                return
            if event is None or over:
                continue
            if event.name == "RESUME":
                self._resumed(qemu, questions)
                runs, over = True, not postcopy
            if event.status == "completed":
                if runs:
                    self._read_blocktime(qemu)
                    over = True
                else:
                    self._read(qemu, questions)

    def _prepare(self, qemu: NotedMonitor) -> bool:
        """Whether the guest may come in post-copy: then QEMU is told to note what waits for pages.

        libvirt does not ask for that, and leaves it on (QEMU's capability postcopy-blocktime).
        """
        deadline = Deadline.after(ANSWER_S)
        parameters = ask(qemu, "query-migrate-parameters", PARAMETERS, deadline)
        self.watch.announce = announce_parameters(parameters)
        capabilities = ask(qemu, "query-migrate-capabilities", CAPABILITIES, deadline)
        on = {one.capability for one in capabilities if one.state}
        if "postcopy-ram" not in on:
            return False
        wanted = {"capability": "postcopy-blocktime", "state": True}
        try:
            qemu.execute("migrate-set-capabilities", deadline, capabilities=[wanted])
        except HostError as error:
            self.unseen(f"{error.tried}: {error.said}")
        return True

    def _read_blocktime(self, qemu: NotedMonitor) -> None:
        answer = ask(qemu, "query-migrate", MIGRATION, Deadline.after(ANSWER_S))
        if (every := answer.postcopy_blocktime) is not None:
            each = answer.postcopy_vcpu_blocktime
            self.watch.blocktime = Blocktime(every_ms=every, each_ms=each)

    def _read(self, qemu: NotedMonitor, questions: Questions) -> None:
        reading = questions.state(qemu)
        self.watch.target = reading.states
        self.unseen(*reading.odd)
        if reading.late:
            answers = f"{reading.late} of {reading.questions} answers"
            why = f"the guest ran on before {answers} came"
            self.unseen(f"{why}: these are not compared")

    def _resumed(self, qemu: NotedMonitor, questions: Questions) -> None:
        if questions.kinds is None:
            return
        if self.watch.target is None:
            self.unseen("the guest ran on before its state could be read")
        elif self.watch.vhost:  # a backend is told of what was negotiated when the guest runs on
            for path, backend in backends(qemu, questions.kinds or (), self.observers).items():
                self.watch.target[path]["backend"] = backend


def announce_parameters(answer: MigrationParameters) -> AnnounceParameters | None:
    """From the answer to query-migrate-parameters; None if it names none (QEMU before 4.0)."""
    rounds, step_ms = answer.announce_rounds, answer.announce_step
    initial_ms, max_ms = answer.announce_initial, answer.announce_max
    if rounds is None or initial_ms is None or step_ms is None or max_ms is None:
        return None
    return AnnounceParameters(rounds=rounds, initial_ms=initial_ms, step_ms=step_ms, max_ms=max_ms)
