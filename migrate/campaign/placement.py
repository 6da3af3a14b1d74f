"""Which hosts a case can run on, by what they have: pure, nothing is asked of a host."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from migrate.backends.registry import MODES, backend_mode
from migrate.lab.api import Host
from migrate.lab.lease.pair import Pair
from migrate.migration.faults import NEEDS_POWER
from migrate.model import Capability, Case, HostFacts, Skip


def candidate_pairs(
    case: Case, hosts: Sequence[Host], facts: Sequence[HostFacts]
) -> tuple[Pair, ...] | Skip:
    """All pairs (source, target) that ``case`` can be tried on, in the order of the lab file.

    Two hosts are one pair, whichever way round: where one way is not free, the other isn't. Where
    there is none, the reason is that of the first pair with the roots that ``case`` wants.
    """
    wanted: list[Skip] = []
    others: list[Skip] = []
    pairs: dict[frozenset[str], Pair] = {}
    for source, target in itertools.permutations(hosts, 2):
        missing = _missing(case, source, target, hosts, facts)
        if missing is None:
            pairs.setdefault(frozenset((source.name, target.name)), (source, target))
        else:
            skip = Skip(case=case, reason=missing.reason, remedy=missing.remedy)
            (wanted if _wants(case, source, target) else others).append(skip)
    return tuple(pairs.values()) or (wanted or others)[0]


def _wants(case: Case, source: Host, target: Host) -> bool:
    """Whether two hosts have the roots that ``case`` names."""
    return case.roots == (source.root, target.root)


def unmet_needs(
    names: Sequence[str], hosts: Sequence[Host], facts: Sequence[HostFacts]
) -> Skip | None:
    """Why no two hosts have all of these capabilities and modes; None if two have."""
    modes = [mode for mode in MODES if mode in names]
    needs = [need for mode in modes for need in backend_mode(mode).needs]
    needs += [name for name in names if name not in modes]
    pairs = candidate_pairs(Case(id="needs", needs=tuple(needs)), hosts, facts)
    return pairs if isinstance(pairs, Skip) else None


def _missing(
    case: Case, source: Host, target: Host, hosts: Sequence[Host], facts: Sequence[HostFacts]
) -> Capability | None:
    """The first thing that ``case`` takes and these two hosts have not."""
    if case.roots is not None and not _wants(case, source, target):
        return _missing_roots(case.roots, hosts, facts)
    if source.power is None and any(fault.do in NEEDS_POWER for fault in case.faults):
        return Capability(
            name="power",
            able=False,
            reason="its hosts can't be switched off",
            remedy="--lab labs/nested.toml",
        )
    by_host = {known.host: known for known in facts}
    capabilities = (
        by_host[host.name].capability(need) for host in (source, target) for need in needs(case)
    )
    return next((capability for capability in capabilities if not capability.able), None)


def needs(case: Case) -> tuple[str, ...]:
    """Names of the capabilities that both hosts must have."""
    postcopy = ("userfaultfd",) if case.policy.may_postcopy else ()
    ring = ("kvm",) if case.guest.dirty_ring is not None else ()
    return (*backend_mode(case.interface.mode).needs, *case.needs, *postcopy, *ring)


def _missing_roots(
    roots: tuple[str, str], hosts: Sequence[Host], facts: Sequence[HostFacts]
) -> Capability:
    here = [host.root for host in hosts]
    for known in facts:
        if known.root in roots and known.root not in here:
            return known.capability("root")
    return Capability(
        name="roots",
        able=False,
        reason=f"it wants hosts with the roots {' and '.join(roots)}; here are {', '.join(here)}",
        remedy="a lab file with such hosts, e.g. --lab labs/versions.toml",
    )
