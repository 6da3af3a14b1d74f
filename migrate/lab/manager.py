"""A lab of any kind, by its lab file: prepared, brought up, found, used and taken down."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from migrate.lab import fabric_kind
from migrate.lab.api import Lab
from migrate.lab.config import LabConfig
from migrate.lab.kinds import kind_of
from migrate.lab.shared_folder import SharedFolder

LOGGER = logging.getLogger(__name__)


@contextmanager
def opened(config: LabConfig, *, keep: bool = False) -> Iterator[Lab]:
    """The lab of ``config`` while the block runs.

    It is taken down afterwards if it was this that brought it up, unless ``keep``; a lab that was
    up before, or that persists, stays.
    """
    stays = keep or is_up(config)
    lab = up(config)
    try:
        yield lab
    finally:
        lab.close()
        if not stays:
            LOGGER.info("taking the lab down")
            down(config)


def prepare(config: LabConfig) -> None:
    """Have in the cache what the lab is made of; nothing of it is brought up."""
    kind_of(config).prepare(config)


def up(config: LabConfig, share: SharedFolder | None = None) -> Lab:
    """Bring the lab up, with ``share`` seen by every host; one that is up is returned as it is.

    Raises :class:`HostError`; ConfigurationError: its hosts can't be given a folder.
    """
    return kind_of(config).up(config, share)


def find(config: LabConfig) -> Lab | None:
    """The lab if it is up and healthy; one that persists is reached, or a HostError."""
    return kind_of(config).find(config)


def down(config: LabConfig) -> None:
    """Remove all of the lab, also what a killed controller left; raises CleanupError."""
    kind_of(config).down(config)


def names() -> tuple[str, ...]:
    """Labs that have a journal on this machine: up, half up, or left behind."""
    return fabric_kind.names()


def is_up(config: LabConfig) -> bool:
    """Whether the lab is up and healthy; one that persists always counts as such."""
    return is_persistent(config) or find(config) is not None


def is_persistent(config: LabConfig) -> bool:
    """Whether the lab is there without us: nothing is brought up, nothing taken down."""
    return kind_of(config).is_persistent
