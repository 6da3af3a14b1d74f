"""A lab while a block runs, and what its hosts can do."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from migrate.backends.registry import INSPECTIONS, MODES
from migrate.images.initramfs import ensure_image
from migrate.lab import capabilities
from migrate.lab import manager as labs
from migrate.lab.api import Host, Lab
from migrate.lab.config import AnyConfig, RackConfig, cache_folder
from migrate.lab.manager import AnyLab
from migrate.model import HostFacts

LOGGER = logging.getLogger(__name__)


@contextmanager
def lab_up(config: AnyConfig, *, keep: bool = False) -> Iterator[AnyLab]:
    """The lab of ``config``; taken down if it was this that brought it up, unless ``keep``."""
    if isinstance(config, RackConfig):
        rack = labs.up(config, LOGGER.info)
        try:
            yield rack
        finally:
            rack.keep()
        return
    was_up = labs.find(config.name) is not None
    lab = labs.up(config, LOGGER.info)
    try:
        yield lab
    finally:
        lab.keep()
        if not was_up and not keep:
            LOGGER.info("taking the lab down")
            labs.down(config.name)


def look(lab: Lab, *, fresh: bool = False) -> tuple[HostFacts, ...]:
    """What each host can do, asked of all at once."""
    image = ensure_image("tiny", cache_folder(), LOGGER.info)

    def ask(host: Host) -> HostFacts:
        with host.connect() as hypervisor:
            return capabilities.gather(
                host,
                hypervisor,
                cache_folder(),
                image,
                INSPECTIONS,
                fresh=fresh,
                seconds=capabilities.BOOT_S * lab.patience,
            )

    LOGGER.info("asking the hosts what they can do")
    with ThreadPoolExecutor() as pool:
        return tuple(pool.map(ask, lab.hosts.values()))


def needs_of_modes() -> dict[str, tuple[str, ...]]:
    """What each mode takes, by the names of capabilities."""
    return {name: mode.needs for name, mode in MODES.items()}


def needs_to_migrate() -> dict[str, tuple[str, ...]]:
    """What a mode takes beside its needs for its guest to be migrated as it is."""
    return {name: mode.needs_to_migrate for name, mode in MODES.items()}
