"""A lab of any kind, by its lab file: prepared, brought up, found, used and taken down."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from migrate.lab.api import Lab
from migrate.lab.config import LabConfig
from migrate.lab.kinds import Say, kind_of


@contextmanager
def opened(config: LabConfig, say: Say, *, keep: bool = False) -> Iterator[Lab]:
    """The lab of ``config`` while the block runs.

    It is taken down afterwards if it was this that brought it up, unless ``keep``; a lab that was
    up before, or that persists, stays.
    """
    stays = keep or is_up(config, say)
    lab = up(config, say)
    try:
        yield lab
    finally:
        lab.close()
        if not stays:
            say("taking the lab down")
            down(config)


def prepare(config: LabConfig, say: Say) -> None:
    """Have in the cache what the lab is made of; nothing of it is brought up."""
    kind_of(config).prepare(config, say)


def up(config: LabConfig, say: Say) -> Lab:
    """Bring the lab up; one that is up is returned as it is. Raises :class:`HostError`."""
    return kind_of(config).up(config, say)


def find(config: LabConfig, say: Say) -> Lab | None:
    """The lab if it is up and healthy; one that persists is reached, or a HostError."""
    return kind_of(config).find(config, say)


def down(config: LabConfig) -> None:
    """Remove all of the lab, also what a killed controller left; raises CleanupError."""
    kind_of(config).down(config)


def is_up(config: LabConfig, say: Say) -> bool:
    """Whether the lab is up and healthy; one that persists always counts as such."""
    return is_persistent(config) or find(config, say) is not None


def is_persistent(config: LabConfig) -> bool:
    """Whether the lab is there without us: nothing is brought up, nothing taken down."""
    return kind_of(config).is_persistent
