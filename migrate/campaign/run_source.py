"""Where a session's run folder comes from."""

from __future__ import annotations

import os
import platform
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from migrate import __version__
from migrate.errors import ConfigurationError
from migrate.images.disk import check_image
from migrate.lab.api import Lab
from migrate.model import Attempt, Case, HostFacts, Plan, QuarantineEntry, Run
from migrate.refusals import collected
from migrate.results.layout import run_name
from migrate.results.writer import RunWriter
from migrate.scenario.loader import Scenario


class RunSource(Protocol):
    """A run that begins, or goes on."""

    def check(self) -> None:
        """Raise ConfigurationError for what can be refused before the lab is up."""

    def start(self, lab: Lab, facts: tuple[HostFacts, ...]) -> tuple[RunWriter, list[Attempt]]:
        """The run folder, and the attempts that are in it."""


def check_images(cases: Iterable[Case]) -> None:
    """Raise ConfigurationError for all images that are not there."""
    with collected() as refusals:
        for image in dict.fromkeys(case.guest.image for case in cases):
            with refusals.noted():
                check_image(image)


def check_results(results: Path) -> None:
    """Raise ConfigurationError if no run folder can be made below ``results``."""
    place = results
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    if not os.path.isdir(place) or not os.access(place, os.W_OK | os.X_OK):  # noqa: PTH112 - never raises
        raise ConfigurationError(
            f"keep runs in {results}",
            said=f"{place} is no folder that can be written to",
            remedy="--results FOLDER names another one",
        )


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run folder of its own, below ``results``."""

    results: Path
    command: Sequence[str] = ()
    scenarios: Sequence[Scenario] = ()
    quarantine: tuple[QuarantineEntry, ...] = ()
    plan: Plan | None = None

    def check(self) -> None:
        """See RunSource."""
        check_results(self.results)
        check_images(case for scenario in self.scenarios for case in scenario.cases)

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
