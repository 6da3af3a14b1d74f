"""What speaks against a comparison of attempts' figures, whatever these are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from migrate.model import Attempt

Groups = Sequence[Sequence[Attempt]]


def why_incomparable(groups: Groups) -> str | None:
    """Why figures of these groups of attempts must not be ranked or tested against each other.

    None: nothing speaks against it. Rows of a table are asked about two by two, a run together with
    its baseline. What was done to the guest is not asked here: it is what a comparison is of.
    """
    return next((why for rule in (_meters, _machines, _moods) if (why := rule(groups))), None)


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
    for attempt in _every(groups):
        for name, facts in (attempt.machine.facts if attempt.machine else {}).items():
            if facts.cpu and facts.cpus is not None:
                kinds.setdefault(name, set()).add(f"{facts.cpus} × {facts.cpu}")
    for name, processors in kinds.items():
        if len(processors) > 1:
            return f"{name} was another machine: {' and '.join(sorted(processors))}"
    return None


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
