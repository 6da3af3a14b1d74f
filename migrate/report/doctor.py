"""What `doctor` prints: host by host, capabilities, modes, each with reason and remedy; and what
its QEMU is asked about guests under test, and is not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from migrate.errors import visible
from migrate.model import HostFacts, Observers
from migrate.report.machines import describe


def plain(
    hosts: Sequence[HostFacts],
    needs: Mapping[str, tuple[str, ...]],
    to_migrate: Mapping[str, tuple[str, ...]],
) -> str:
    """The report as text; hosts that are alike are listed together.

    ``needs``: capabilities that each mode needs; ``to_migrate``: those that it needs besides for
    its guest to be migrated as it is.
    """
    alike: dict[str, list[HostFacts]] = {}
    for facts in hosts:
        alike.setdefault(repr(facts.model_copy(update={"host": ""})), []).append(facts)
    lines: list[str] = []
    for group in alike.values():
        facts = group[0]
        names = ", ".join(host.host for host in group)
        versions = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
        lines.append(f"{names} (root {facts.root}): {versions}")
        if facts.machine is not None:
            lines.append(f"  {'machine':18} {describe(facts.machine)}")
        for capability in facts.capabilities:
            if capability.able:
                lines.append(f"  {capability.name:18} yes  {capability.detail}".rstrip())
            else:
                detail = f" ({capability.detail})" if capability.detail else ""
                why = f"{capability.reason}{detail}; it needs: {capability.remedy}"
                lines.append(f"  {capability.name:18} no   {why}")
        for mode, wanted in needs.items():
            lacking = [
                capability for name in wanted if not (capability := facts.capability(name)).able
            ]
            reason = f"it lacks {', '.join(host.name for host in lacking)}" if lacking else ""
            stays = [host for host in to_migrate.get(mode, ()) if not facts.capability(host).able]
            remark = f"  but not migrated as it is: it lacks {', '.join(stays)}" if stays else ""
            verdict = f"no   {reason}" if reason else f"yes{remark}"
            lines.append(f"  mode {mode:13} {verdict}")
        lines += [f"  {'observers':18} {line}" for line in observers(facts.observers)]
    return "\n".join(map(visible, lines))


def observers(tried: Observers) -> Iterator[str]:
    """What a QEMU is asked of what is experimental, and what it is not, with the reason."""
    if tried.untried:
        yield f"no   nothing experimental is asked of its QEMU: {tried.untried}"
        return
    harms: dict[tuple[str, str], list[str]] = {}
    for trial in tried.trials:
        if trial.harm:
            backing = "" if trial.backing == "none" else f" ({trial.backing})"
            harms.setdefault((trial.command, trial.harm), []).append(trial.state + backing)
    harmful = {(trial.command, trial.state) for trial in tried.trials if trial.harm}
    asked = [one.command for one in tried.trials if (one.command, one.state) not in harmful]
    names = ", ".join(dict.fromkeys(asked)) or "nothing experimental"
    yield f"yes  QEMU {tried.qemu} is asked {names}"
    for (command, harm), states in harms.items():
        when = ", ".join(dict.fromkeys(states))
        yield f"no   {command} {harm} QEMU {tried.qemu}: not asked when {when}"
