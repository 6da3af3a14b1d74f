"""What speaks against a comparison of attempts' figures, whatever these are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import median
from typing import NamedTuple

from migrate.analysis.machines import OTHERS_CPUS, STEAL
from migrate.model import Attempt, MachineUse

Groups = Sequence[Sequence[Attempt]]


def why_incomparable(groups: Groups) -> str | None:
    """Why figures of these groups of attempts must not be ranked or tested against each other.

    None: nothing speaks against it. Rows of a table are asked about two by two, a run together with
    its baseline. What was done to the guest is not asked here: it is what a comparison is of.
    """
    return next((why for rule in RULES if (why := rule(groups))), None)


def _every(groups: Groups) -> Iterator[Attempt]:
    return (attempt for group in groups for attempt in group)


def _meters(groups: Groups) -> str | None:
    """Packets that are sent less often see other lengths: the two are other figures."""
    intervals = sorted({attempt.case.workload.interval_us for attempt in _every(groups)})
    if len(intervals) < 2:
        return None
    every = " and ".join(f"{interval / 1e3:g} ms" for interval in intervals)
    return f"their packets were sent every {every}"


def _machines(groups: Groups) -> str | None:
    """Other processors are other machines, whatever their names are."""
    kinds: dict[str, set[str]] = {}
    for name, kind in _kinds(_every(groups)):
        kinds.setdefault(name, set()).add(kind)
    for name, processors in kinds.items():
        if len(processors) > 1:
            return f"{name} was another machine: {' and '.join(sorted(processors))}"
    # Hosts of a rack have other names for each pair: what they are counts.
    of_groups = {frozenset(kind for _, kind in _kinds(group)) for group in groups} - {frozenset()}
    if len(of_groups) < 2:
        return None
    listed = sorted(" with ".join(sorted(kinds_of)) for kinds_of in of_groups)
    return f"they were on other machines: {', and '.join(listed)}"


def _kinds(attempts: Iterable[Attempt]) -> Iterator[tuple[str, str]]:
    """Machines by name, and their processors."""
    for attempt in attempts:
        for name, facts in (attempt.machine.facts if attempt.machine else {}).items():
            if facts.cpu and facts.cpus is not None:
                yield name, f"{facts.cpus} × {facts.cpu}"


def _moods(groups: Groups) -> str | None:
    """Most attempts of one group were on a busy machine, and most of another on a quiet one."""
    counts = []
    for group in groups:
        known = [a.machine.busy for a in group if a.machine and a.machine.busy is not None]
        if known:
            counts.append((sum(map(bool, known)), len(known)))
    if len({2 * busy > of for busy, of in counts}) < 2:
        return None
    return f"the machine was busy in {' and in '.join(f'{busy} of {of}' for busy, of in counts)}"


def _levels(groups: Groups) -> str | None:
    """Others were in the way of one group more than of another, though both may be called busy."""
    for level in LEVELS:
        medians = [found for group in groups if (found := _median(group, level.read)) is not None]
        if medians and max(medians) - min(medians) > level.limit:
            return f"{level.name} {' and '.join(f'{found:.2f}' for found in medians)}"
    return None


class _Level(NamedTuple):
    name: str
    limit: float
    read: Callable[[MachineUse], float | None]


LEVELS = (
    _Level("in the median, programs of others used CPUs:", OTHERS_CPUS, lambda u: u.others_cpus),
    _Level("in the median, shares of the CPUs' time were stolen:", STEAL, lambda u: u.steal),
)


def _median(
    attempts: Sequence[Attempt], read: Callable[[MachineUse], float | None]
) -> float | None:
    """Of each attempt's worst machine, in its floor and its moves; None: of none known."""
    known = [
        [value for used in _judged(one) if (value := read(used)) is not None] for one in attempts
    ]
    worst = [max(values) for values in known if values]
    return median(worst) if worst else None


def _judged(attempt: Attempt) -> Iterator[MachineUse]:
    for used in attempt.machine.uses if attempt.machine is not None else ():
        if used.window in ("floor", "move"):
            yield used


RULES = (_meters, _machines, _moods, _levels)
