"""What a host can do."""

from __future__ import annotations

from migrate.model.base import Value
from migrate.model.machine import MachineFacts


class Capability(Value):
    """One thing that a host can do, or the reason why not and the remedy."""

    name: str
    able: bool
    detail: str = ""
    reason: str = ""
    remedy: str = ""


class HostFacts(Value):
    """What was found on one host."""

    host: str
    root: str
    kernel: str
    versions: dict[str, str]
    capabilities: tuple[Capability, ...]
    machine: MachineFacts | None = None
    """What it is made of; None: not asked."""

    def capability(self, name: str) -> Capability:
        """The capability called ``name``; one that was not looked for is not able."""
        for capability in self.capabilities:
            if capability.name == name:
                return capability
        return Capability(
            name=name,
            able=False,
            reason="not looked for",
            remedy="name a fact that `migrate-lab doctor` lists",
        )
