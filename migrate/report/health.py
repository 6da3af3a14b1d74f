"""What `doctor` prints: host by host, capabilities and then modes, each with reason and remedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from migrate.model import HostFacts


def plain(hosts: Sequence[HostFacts], needs: Mapping[str, tuple[str, ...]]) -> str:
    """Text; ``needs`` are the capabilities that each mode takes."""
    lines: list[str] = []
    for facts in hosts:
        versions = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
        lines.append(f"{facts.host} (root {facts.root}): {versions}")
        for found in facts.capabilities:
            if found.able:
                lines.append(f"  {found.name:18} yes  {found.detail}".rstrip())
            else:
                lines.append(f"  {found.name:18} no   {found.reason}; it takes: {found.remedy}")
        for mode, wanted in needs.items():
            lacking = [found for name in wanted if not (found := facts.capability(name)).able]
            verdict = (
                f"no   it lacks {', '.join(one.name for one in lacking)}" if lacking else "yes"
            )
            lines.append(f"  mode {mode:13} {verdict}")
    return "\n".join(lines)
