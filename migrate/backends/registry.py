"""Every way to back a guest's interface: a mode is its folder, and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from migrate.backends.base import BackendMode, LeftoverKind
from migrate.backends.failover.backend import Failover
from migrate.backends.hostdev.backend import Hostdev
from migrate.backends.vdpa.backend import Vdpa
from migrate.backends.vhost_user import ovs
from migrate.backends.vhost_user.backend import VhostUser
from migrate.backends.virtio.backend import Virtio
from migrate.errors import ConfigurationError
from migrate.lab.capabilities import Inspection
from migrate.lab.prepare.steps import Switch
from migrate.model import Mode

MODES: Mapping[Mode, BackendMode[Any]] = {
    "virtio": Virtio(),
    "vhost-user": VhostUser(),
    "vdpa": Vdpa(),
    "hostdev": Hostdev(),
    "failover": Failover(),
}

INSPECTIONS: tuple[Inspection, ...] = tuple(
    dict.fromkeys(inspection for mode in MODES.values() for inspection in mode.inspections)
)
"""Of all modes, each once."""

LEFTOVERS: tuple[LeftoverKind, ...] = tuple(
    dict.fromkeys(leftover for mode in MODES.values() for leftover in mode.leftovers)
)
"""Of all modes, each once."""

PROCESSES: Mapping[str, tuple[str, ...]] = {
    name: files for mode in MODES.values() for name, files in mode.processes.items()
}
"""Of all modes: a switch that polls keeps its CPUs busy, whatever an attempt's mode is."""

SWITCH: Switch = ovs
"""What ``lab ready`` starts where a lab file asks for a switch."""


def backend_mode(mode: Mode) -> BackendMode[Any]:
    """The mode of that name; ConfigurationError if there is none."""
    try:
        return MODES[mode]
    except KeyError as error:
        raise ConfigurationError(
            f"use the mode {mode!r}", said="no such mode", remedy=", ".join(MODES)
        ) from error
