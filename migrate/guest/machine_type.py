"""A machine type that a guest can be moved with: each QEMU has versions of its own, and drops old
ones."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from migrate.errors import HostError


@dataclass(frozen=True, slots=True)
class MachineTypes:
    """Versioned names of one kind of machine on a host, e.g. ``pc-q35-10.0``."""

    host: str
    default: str
    """What the kind's alias stands for there."""
    known: Collection[str]


def common_machine(ends: Sequence[MachineTypes]) -> str:
    """The newest that all ends know: one that is a default there, if there is such.

    Raises HostError where there is none.
    """
    known = frozenset[str].intersection(*(frozenset(end.known) | {end.default} for end in ends))
    defaults = [end.default for end in ends if end.default in known]
    if not known:
        lists = "; ".join(f"{end.host}: {', '.join(sorted(end.known))}" for end in ends)
        raise HostError(
            "find a machine type that both hosts know",
            said=lists,
            remedy="two QEMUs whose versions are nearer to each other",
        )
    return _newest(defaults or known)


def _newest(names: Iterable[str]) -> str:
    """By the numbers in their names: ``pc-q35-10.0`` is newer than ``pc-q35-9.2``."""
    return max(names, key=lambda name: ([int(n) for n in re.findall(r"\d+", name)], name))
