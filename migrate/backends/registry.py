"""How a guest's interface can be backed: one module a mode, and this table of them.

A module answers six questions: what facts a host must show (``needs``), how to make the backend on
a host (``provide``), what the domain's template must know (``describe``), what is plugged in once
the guest runs (``plugs``), how the target's XML differs (``adapt``), and which lines of QEMU's log
tell that the backend failed it (``complaints``). What the guest sees of its device is compared
alike for every mode.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from migrate.backends.failover.backend import Failover
from migrate.backends.hostdev.backend import Hostdev
from migrate.backends.vdpa.backend import Vdpa
from migrate.backends.vhost_user.backend import VhostUser
from migrate.backends.virtio.backend import Virtio
from migrate.backends.xml import Rewrite
from migrate.clock import Deadline
from migrate.errors import ConfigurationError
from migrate.lab.api import Host
from migrate.model import Interface, Mode

Backend = Mapping[str, Any]
"""What a host's backend is called there: a bridge, a socket, a VF's address. Of every mode it may
have ``notes`` for the attempt; ``savable``: False where a saved state can't be gone on with;
``saved_with``: what such a state depends on that is not in the domain's XML; and ``loops``: True of
one that returns what the guest sends and has no peer.
"""


class InterfaceModule(Protocol):
    """The six questions."""

    @property
    def logs(self) -> Mapping[str, str]:
        """Logs of the backend by name, as paths on the host."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of capabilities (see ``migrate-lab doctor``) that a host must show."""

    def provide(
        self, host: Host, interface: Interface, deadline: Deadline
    ) -> AbstractContextManager[Backend]:
        """Have the backend on ``host`` while the block runs; HostError if it can't be had."""

    def describe(self, interface: Interface, backend: Backend) -> Backend:
        """What the template must know."""

    def plugs(self, interface: Interface, backend: Backend) -> str | None:
        """A device's XML that is plugged in once the guest runs: one that no saved state can hold.

        It is none of the domain's as it is started, and part of it from then on.
        """

    def complaints(self, log: str) -> tuple[str, ...]:
        """The lines of QEMU's log by which the backend failed the guest, though it runs on."""

    def adapt(self, source: Backend, target: Backend) -> tuple[Rewrite, ...]:
        """Rewrites that make the source's XML the target's; none where both are the same."""


MODES: Mapping[Mode, InterfaceModule] = {
    "virtio": Virtio(),
    "vhost-user": VhostUser(),
    "vdpa": Vdpa(),
    "hostdev": Hostdev(),
    "failover": Failover(),
}

TO_MIGRATE: Mapping[Mode, tuple[str, ...]] = {"hostdev": ("vfio-variant",)}
"""What a mode takes, beside its needs, for its guest to be migrated as it is. A case that asks for
that is tried all the same: the hypervisor's own refusal is a finding."""


def module_for(mode: Mode) -> InterfaceModule:
    """The module of ``mode``."""
    try:
        return MODES[mode]
    except KeyError as error:
        raise ConfigurationError(
            f"use the mode {mode!r}", said="no such mode", remedy=", ".join(MODES)
        ) from error
