"""What the hosts of a lab can do, and what modes need."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor

from migrate.backends.registry import INSPECTIONS, MODES
from migrate.clock import Deadline
from migrate.errors import LabError
from migrate.images.initramfs import ensure_image
from migrate.lab import capabilities, trace_points
from migrate.lab.api import Host, Lab
from migrate.lab.config import cache_folder
from migrate.model import HostFacts, MachineFacts
from migrate.recorder.machines import LOOK_S, facts_of
from migrate.recorder.question_trial import observers_of

LOGGER = logging.getLogger(__name__)


def look(lab: Lab, *, fresh: bool = False) -> tuple[HostFacts, ...]:
    """What each host can do, asked of all at once; and those that are not there today."""
    image = ensure_image("tiny", cache_folder())

    def ask(host: Host) -> HostFacts:
        with host.connect() as hypervisor:
            facts = capabilities.gather(
                host,
                hypervisor,
                cache_folder(),
                image,
                (*INSPECTIONS, trace_points.INSPECTION),
                fresh=fresh,
                patience=lab.patience,
            )
        known = {
            "machine": _machine(host, lab.patience),
            "observers": observers_of(host, cache_folder(), fresh=fresh, patience=lab.patience),
        }
        return facts.model_copy(update=known)

    LOGGER.info("inspecting the hosts")
    with ThreadPoolExecutor() as pool:
        return (*pool.map(ask, lab.hosts.values()), *lab.missing_hosts)


def _machine(host: Host, patience: float) -> MachineFacts | None:
    deadline = Deadline.after(LOOK_S * patience)
    try:
        with host.small_files(deadline) as files:
            return facts_of(files, deadline)
    except LabError as error:
        LOGGER.info("hardware of host %s not known: %s", host.name, error)
        return None


def needs_of_modes() -> dict[str, tuple[str, ...]]:
    """What each mode takes, by the names of capabilities."""
    return {name: mode.needs for name, mode in MODES.items()}


def needs_to_migrate() -> dict[str, tuple[str, ...]]:
    """What a mode takes beside its needs for its guest to be migrated as it is."""
    return {name: mode.needs_to_migrate for name, mode in MODES.items()}
