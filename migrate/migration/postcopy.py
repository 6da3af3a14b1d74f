"""What becomes of a post-copy after libvirt's call has failed: it may go on without libvirt.

QEMU keeps a post-copy whose link is down until TCP gives it up (``postcopy-paused``), and goes on
by itself if the link comes back before. libvirt's call ends earlier, with its own connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from migrate.clock import Deadline, until
from migrate.drivers.qmp import ask
from migrate.errors import LabError
from migrate.formats.qapi import MIGRATION, RUN_STATUS
from migrate.formats.qemu_migration import status_of
from migrate.guest.lifecycle import holders, own_monitor
from migrate.lab.api import Host
from migrate.model import Event
from migrate.model.recording import GuestState
from migrate.recorder.events import Listener

PostcopyEnd = Literal["completed", "failed", "stuck"]
"""``stuck``: both sides hold a part of the guest, and it can be resumed."""
ENDED = ("completed", "failed", "cancelled", "postcopy-paused")
"""Statuses of a source after which nothing more happens by itself."""
ASK_S = 5.0
POLL_S = 0.2
"""Between two looks at who holds the guest, over connections made anew."""


def is_postcopy(events: Sequence[Event], source: str) -> bool:
    """Whether the guest was switched over while its memory was still on its way."""
    return "postcopy-active" in _statuses(events, source)


def await_postcopy(
    listener: Listener, ends: Sequence[Host], uuid: str, since: int, deadline: Deadline
) -> PostcopyEnd:
    """Wait while a post-copy may go on by itself. ``ends``: source and target; ``since``: the
    number of the move's first event. What has not ended at the deadline is stuck."""
    source = ends[0].name

    def has_ended(event: Event) -> bool:
        if event.host != source:
            return False
        return event.name == "stopped" or (_is_status(event) and status_of(event) in ENDED)

    listener.wait(has_ended, deadline, since)
    status = (_statuses(listener.since(since), source) or [""])[-1]
    if status == "completed":
        # libvirt there still has to take note of it.
        until(lambda: bool(holders(ends, uuid)), deadline.sooner(20), POLL_S)
        return "completed"
    return "failed" if status in ("failed", "cancelled") else "stuck"


def _statuses(events: Sequence[Event], source: str) -> list[str]:
    return [status_of(event) for event in events if event.host == source and _is_status(event)]


def _is_status(event: Event) -> bool:
    return event.source == "qemu" and event.name == "MIGRATION"


def guest_states(hosts: Sequence[Host], uuid: str, *, ask_qemu: bool) -> tuple[GuestState, ...]:
    """What libvirt and QEMU say of the guest on each host now; what can't be asked says why.

    QEMU's second monitor takes one client: not while an observer has it.
    """
    return tuple(_state(host, uuid, ask_qemu=ask_qemu) for host in hosts)


def _state(host: Host, uuid: str, *, ask_qemu: bool) -> GuestState:
    try:
        with host.connect() as hypervisor:
            domain = hypervisor.find(uuid)
            said = "no domain" if domain is None else domain.state_and_reason()
    except LabError as error:
        return GuestState(host=host.name, libvirt=str(error))
    if domain is None or not ask_qemu:
        return GuestState(host=host.name, libvirt=said)
    try:
        deadline = Deadline.after(ASK_S)
        with own_monitor(host, deadline) as qemu:
            run_state = ask(qemu, "query-status", RUN_STATUS, deadline).status
            migration = ask(qemu, "query-migrate", MIGRATION, deadline).status
    except LabError as error:
        return GuestState(host=host.name, libvirt=said, qemu=f"not known: {error.said}")
    return GuestState(host=host.name, libvirt=said, qemu=run_state, migration=migration)
