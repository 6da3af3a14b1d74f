"""What a host can do."""

from __future__ import annotations

from migrate.model.base import Value


class Capability(Value):
    """One thing that a host can do, or the reason why not and what it takes."""

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

    def capability(self, name: str) -> Capability:
        """The finding called ``name``; a host that was not asked is not able."""
        for found in self.capabilities:
            if found.name == name:
                return found
        return Capability(
            name=name,
            able=False,
            reason="not looked for",
            remedy="name a fact that `migrate-lab doctor` lists",
        )
