"""Where a session's run folder comes from."""

from __future__ import annotations

import os
import platform
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from migrate import __version__
from migrate.lab.api import Lab
from migrate.model import Attempt, HostFacts, Plan, QuarantineEntry, Run
from migrate.results.layout import run_name
from migrate.results.writer import RunWriter
from migrate.scenario.loader import Scenario


class RunSource(Protocol):
    """A run that begins, or goes on."""

    def start(self, lab: Lab, facts: tuple[HostFacts, ...]) -> tuple[RunWriter, list[Attempt]]:
        """The run folder, and the attempts that are in it."""


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run folder of its own, below ``results``."""

    results: Path
    command: Sequence[str] = ()
    scenarios: Sequence[Scenario] = ()
    quarantine: tuple[QuarantineEntry, ...] = ()
    plan: Plan | None = None

    def start(self, lab: Lab, facts: tuple[HostFacts, ...]) -> tuple[RunWriter, list[Attempt]]:
        """Make it, and write its head. Raises MeasurementError."""
        run = Run(
            name=run_name(),
            began=datetime.now(UTC).isoformat(timespec="seconds"),
            lab=lab.name,
            lab_kind=lab.kind,
            command=tuple(self.command),
            controller={
                "migrate-lab": __version__,
                "python": platform.python_version(),
                "kernel": platform.release(),
                "processors": str(os.cpu_count()),
            },
            hosts=facts,
            scenarios={scenario.path: scenario.text for scenario in self.scenarios},
            seed=secrets.randbits(32),
            quarantine=self.quarantine,
            plan=self.plan,
        )
        return RunWriter.create(self.results, run), []
