"""What `doctor` prints: host by host, capabilities and then modes, each with reason and remedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from migrate.errors import visible
from migrate.model import HostFacts


def plain(
    hosts: Sequence[HostFacts],
    needs: Mapping[str, tuple[str, ...]],
    to_migrate: Mapping[str, tuple[str, ...]],
) -> str:
    """Text; hosts that are alike are told of once.

    ``needs`` are the capabilities that each mode takes; ``to_migrate`` what a mode takes beside its
    needs for its guest to be migrated as it is.
    """
    alike: dict[str, list[HostFacts]] = {}
    for facts in hosts:
        alike.setdefault(repr(facts.model_copy(update={"host": ""})), []).append(facts)
    lines: list[str] = []
    for group in alike.values():
        facts = group[0]
        names = ", ".join(one.host for one in group)
        versions = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
        lines.append(f"{names} (root {facts.root}): {versions}")
        for found in facts.capabilities:
            if found.able:
                lines.append(f"  {found.name:18} yes  {found.detail}".rstrip())
            else:
                said = f" ({found.detail})" if found.detail else ""
                why = f"{found.reason}{said}; it takes: {found.remedy}"
                lines.append(f"  {found.name:18} no   {why}")
        for mode, wanted in needs.items():
            lacking = [found for name in wanted if not (found := facts.capability(name)).able]
            against = f"it lacks {', '.join(one.name for one in lacking)}" if lacking else ""
            stays = [one for one in to_migrate.get(mode, ()) if not facts.capability(one).able]
            but = f"  but not migrated as it is: it lacks {', '.join(stays)}" if stays else ""
            verdict = f"no   {against}" if against else f"yes{but}"
            lines.append(f"  mode {mode:13} {verdict}")
    return "\n".join(map(visible, lines))
