"""What the analysis makes of one move of several."""

from __future__ import annotations

from migrate.model.base import Value
from migrate.model.details import GapExplanation, MoveDetails
from migrate.model.observation import (
    Floor,
    Gap,
    Phase,
    ReportedFigures,
    Stall,
    Unmeasured,
)


class HopFindings(Value):
    """What the network saw, the guest felt and the hypervisor reports of one move; what was seen of
    another one is not in it. As in :class:`~migrate.model.Findings`, None is not measured."""

    reported: ReportedFigures = ReportedFigures()
    phases: tuple[Phase, ...] = ()
    gaps: tuple[Gap, ...] | None = None
    unmeasured: tuple[Unmeasured, ...] = ()
    stalls: tuple[Stall, ...] | None = None
    explained: tuple[GapExplanation, ...] | None = None
    details: MoveDetails = MoveDetails()
    floor: Floor | None = None
    no_floor: tuple[str, ...] = ()
    void: tuple[str, ...] = ()
    """Why the move tells nothing of what was to be tested."""
