"""An end of a move without a host."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from migrate.migration.move import End


def move_end(name: str, guest: object = None) -> End:
    """The host ``name``, on whose libvirt every guest that is looked for is ``guest``."""
    host = SimpleNamespace(name=name, migration_address="192.0.2.2", libvirt_target="")
    return End(cast("Any", host), cast("Any", SimpleNamespace(find=lambda _name: guest)))
