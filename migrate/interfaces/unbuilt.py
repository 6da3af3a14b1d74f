"""Modes that this version knows the needs of, but has no backend for yet."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any

from migrate.clock import Deadline
from migrate.domain import Rewrite
from migrate.errors import HostError
from migrate.lab.hosts import Host
from migrate.model import Interface


class Unbuilt:
    """Says so instead of pretending."""

    built = False
    logs: Mapping[str, str] = MappingProxyType({})

    def __init__(self, mode: str, needs: tuple[str, ...]) -> None:
        self.mode = mode
        self.needs = needs

    def provide(
        self, host: Host, interface: Interface, deadline: Deadline
    ) -> AbstractContextManager[Mapping[str, Any]]:
        """Raises HostError."""
        del interface, deadline
        raise HostError(
            f"make a backend for {self.mode}",
            host=host.name,
            said="the host could, but this version of migrate-lab has no module for it yet",
            remedy="use another mode",
        )

    def describe(self, interface: Interface, backend: Mapping[str, Any]) -> Mapping[str, Any]:
        """Nothing."""
        del interface
        return backend

    def plugs(self, interface: Interface, backend: Mapping[str, Any]) -> str | None:
        """Nothing."""
        del interface, backend
        return None

    def complaints(self, log: str) -> tuple[str, ...]:
        """None that are known."""
        del log
        return ()

    def adapt(self, source: Mapping[str, Any], target: Mapping[str, Any]) -> tuple[Rewrite, ...]:
        """Nothing."""
        del source, target
        return ()
