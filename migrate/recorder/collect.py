"""When the moves are over: the workload ends, and all that was logged meanwhile is read back."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import TypeVar

from migrate.analysis.host_clocks import realign
from migrate.analysis.traffic import lower_events
from migrate.backends.registry import backend_mode
from migrate.clock import Deadline, now_ns
from migrate.drivers.together import each
from migrate.errors import LeaseLostError
from migrate.formats.log_events import TRACED, parse_qemu_log
from migrate.formats.qemu_end import qemu_end
from migrate.guest.domain_xml import LOGS
from migrate.lab.api import Host
from migrate.lab.log_tail import log_tail
from migrate.model import Case, DirtyRate, DirtyWhen, Event, QemuEnd
from migrate.model.recording import HopRecording, Recording
from migrate.recorder import traffic
from migrate.recorder.base import Rig
from migrate.recorder.dirty_rate import in_attempt
from migrate.recorder.trace_points import why_no_trace_points
from migrate.waiting import waiting

LOGGER = logging.getLogger(__name__)

T = TypeVar("T")
NO_LOGS: Mapping[str, str] = MappingProxyType({})
LOG_LINES = 2000
"""Of each log of a host: libvirt's and the backend's go on from one attempt to the next."""
READ_BACK_S = 60.0
"""For the probes' logs to be read back."""


@dataclass(slots=True)
class Salvage:
    """Reads on when a part can't be had: the rest of an attempt's recording is kept."""

    missing: list[str] = field(default_factory=list)
    """What was not had, and why."""

    def read(self, what: str, read: Callable[[], T], default: T) -> T:
        """What ``read`` gives; ``default`` where it can't, but for a lease that is lost."""
        try:
            return read()
        except LeaseLostError:
            raise
        except Exception as error:
            LOGGER.debug("%s not had", what, exc_info=True)
            self.missing.append(f"{what} not had: {type(error).__name__}: {error}")
            return default


def collect(rig: Rig, hops: Sequence[HopRecording]) -> Recording:
    """End the workload, and read back all that was logged; what can't be had makes it void."""
    env, start, salvage = rig.env, rig.start, Salvage()
    env.check()
    held_by = hops[-1].result.held_by if hops else (rig.domain.host,)
    silent = any(hop.silent for hop in hops)
    rates = () if silent else held_by
    no_rates: tuple[DirtyRate, ...] = ()
    dirty_rates = salvage.read(
        "dirty rates were", lambda: measure_dirty_rates(rig, "after", rates), no_rates
    )
    LOGGER.info("reading the probes' logs back")
    deadline = env.deadline(READ_BACK_S)
    rig.clocks.read()
    events = _placed(rig, rig.listener.events())
    stops = sorted(e.at_ns for e in events if e.name == "STOP" and e.error_ns is not None)
    with waiting("the probes' logs to be read", deadline):
        log = salvage.read(
            "the probes' logs were",
            lambda: traffic.read_back(
                rig.traffic,
                guest_is_there=bool(held_by),
                deadline=deadline,
                moved_ns=hops[-1].end_ns if hops else start.begin_ns,
                stops=stops,
                silent=silent,
            ),
            traffic.nothing_read(),
        )
    machines = rig.machines.stop()

    def salvaged(host: Host) -> Mapping[str, str]:
        what = f"the logs of {host.name} were"
        return salvage.read(what, partial(logs_of, host, rig.case), NO_LOGS)

    names = [host.name for host in rig.pair]
    logs = dict(zip(names, each(rig.pair, salvaged), strict=True))
    listened_until_ns = now_ns()
    none_heard: tuple[Event, ...] = ()
    heard = salvage.read("announcements were", rig.traffic.announcements, none_heard)
    announcements = _placed(rig, heard)
    logged = _placed(rig, _log_events(rig, logs))
    logged = [event for event in logged if event.at_ns >= start.begin_ns]
    return Recording(
        start=start,
        hops=tuple(hops),
        traffic=log,
        events=(
            *events,
            *announcements,
            *lower_events(log),
            *logged,
        ),
        clocks=tuple(rig.clocks.readings),
        listened_until_ns=listened_until_ns,
        dirty_rates=dirty_rates,
        machines=machines,
        backend_failed=_backend_failed(rig.case, logs, held_by),
        qemu_ends=_qemu_ends(logs),
        void=tuple(salvage.missing),
        no_trace_points=_no_trace_points(rig, logs, logged) if stops else {},
        notes=tuple(rig.clocks.notes),
        files={**start.files, **_files_of_hops(hops), **_log_files(rig, logs)},
    )


def measure_dirty_rates(rig: Rig, when: DirtyWhen, held_by: Sequence[str]) -> tuple[DirtyRate, ...]:
    """By every method on the host that has the guest, if the case asks for it.

    It costs the guest time: neither the floor is measured meanwhile, nor is it moved.
    """
    case = rig.case
    if case.expect.dirty_rate_within is None:
        return ()
    LOGGER.info("measuring the dirty rate %s the move", when)
    hosts = [host for host in rig.pair if host.name in held_by]
    written = rig.traffic.guest.pages_written if case.workload.dirty_mib else None
    return in_attempt(hosts, when, case.guest.memory_mib, rig.listener, written)


Logs = Mapping[str, Mapping[str, str]]
"""By host and name."""


def logs_of(host: Host, case: Case) -> Mapping[str, str]:
    """The last lines of each log that ``host`` has of a guest, its libvirt and its backend."""
    paths = {**LOGS, **backend_mode(case.interface.mode).logs}
    tails = {
        name: log_tail(host, path, Deadline.after(10), LOG_LINES) for name, path in paths.items()
    }
    return {name: text for name, text in tails.items() if text is not None}


def _log_events(rig: Rig, logs: Logs) -> list[Event]:
    """Laid on the axis by the first reading of each host's clock."""
    mode = backend_mode(rig.case.interface.mode)
    events: list[Event] = []
    for host in rig.pair:
        wall = rig.listener.walls[host.name]
        events += parse_qemu_log(logs[host.name].get("qemu", ""), host.name, wall)
        events += mode.log_events(logs[host.name], host.name, wall)
    return events


def _no_trace_points(rig: Rig, logs: Logs, logged: Sequence[Event]) -> dict[str, str]:
    """Why a host's QEMU has told nothing of the guest's stop, by host; of one that has: nothing."""
    traced = {event.host for event in logged if event.name in TRACED}
    return {
        host.name: why_no_trace_points(host, logs[host.name].get("qemu"))
        for host in rig.pair
        if host.name not in traced
    }


def _placed(rig: Rig, events: Sequence[Event]) -> list[Event]:
    """By all readings of the clocks that tell of them."""
    return list(realign(events, rig.listener.walls, rig.clocks.readings))


def _backend_failed(case: Case, logs: Logs, held_by: Sequence[str]) -> tuple[str, ...] | None:
    """By the log of QEMU where the one guest is; None if it was not read."""
    if len(held_by) != 1 or "qemu" not in logs.get(held_by[0], {}):
        return None
    return backend_mode(case.interface.mode).backend_errors(logs[held_by[0]]["qemu"])


def _qemu_ends(logs: Logs) -> tuple[QemuEnd, ...]:
    """One that libvirt ended, since its migration failed, comes after one that crashed."""
    ends = (qemu_end(texts.get("qemu", ""), name) for name, texts in logs.items())
    return tuple(sorted(filter(None, ends), key=lambda end: "failed" in end.how))


def _log_files(rig: Rig, logs: Logs) -> dict[str, str]:
    return {
        f"logs/{side}-{name}.log": text
        for host, side in zip(rig.pair, ("source", "target"), strict=True)
        for name, text in logs[host.name].items()
    }


def _files_of_hops(hops: Sequence[HopRecording]) -> dict[str, str]:
    """``target.xml`` of the last hop that has one, and what both QEMUs and the streams told."""
    files = {name: text for hop in hops for name, text in hop.files.items()}
    states = [
        {"hop": number, "source": hop.qemu.source, "target": hop.qemu.target}
        for number, hop in enumerate(hops, 1)
    ]
    return {**files, "handoff.json": _json(states), **stream_file(hops)}


def stream_file(hops: Sequence[HopRecording]) -> dict[str, str]:
    """``stream.json``: what the streams told of themselves; nothing if none of them did."""
    accounts = [
        {"hop": number, **hop.stream.account}
        for number, hop in enumerate(hops, 1)
        if hop.stream.account
    ]
    return {"stream.json": _json(accounts)} if accounts else {}


def _json(document: object) -> str:
    return json.dumps(document, indent=1) + "\n"
