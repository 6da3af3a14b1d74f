"""``migrate-lab run`` and ``compare``: every case of scenario files, or one workload by mode.

Heavy modules are imported by the commands that need them, so that ``--help`` is quick.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from migrate.cli.options import (
    AS_JSON,
    CASE,
    FILE,
    KEEP_LAB,
    LAB,
    PATH,
    RESULTS,
    SET,
    VERBOSE,
    WAIT_QUIET,
    Text,
    ValuesByEqualsSign,
    combined,
    progress,
)
from migrate.cli.output import end_run

if TYPE_CHECKING:
    from migrate.lab.config import LabConfig
    from migrate.model import QuarantineEntry
    from migrate.scenario.loader import Scenario

RUN = combined(
    LAB,
    click.option(
        "--repeat",
        default=1,
        show_default=True,
        type=click.IntRange(1, 1000),
        metavar="N",
        help="Attempts of each case, in turns.",
    ),
    SET,
    CASE,
    RESULTS,
    WAIT_QUIET,
    KEEP_LAB,
    AS_JSON,
    VERBOSE,
)
CI = combined(
    click.option(
        "--junit",
        type=FILE,
        metavar="FILE",
        help="Write JUnit's XML to this file as well.",
    ),
    click.option(
        "--quarantine",
        "quarantine_file",
        type=PATH,
        metavar="FILE",
        help="List of known failures [default: quarantine.toml here, if there is one].",
    ),
)
"""Where JUnit's XML goes, and what is known to fail."""


@dataclass(frozen=True, slots=True)
class CiOptions:
    """Parsed CI options."""

    junit: Path | None = None
    quarantine: tuple[QuarantineEntry, ...] = ()

    @classmethod
    def parse(cls, junit: Path | None, quarantine_file: Path | None) -> CiOptions:
        """Read the list, and remove what is at ``junit``, lest it is taken for this run's.

        Raises ConfigurationError: a wrong list, or a path where no file can be.
        """
        from migrate.checks.quarantine import load
        from migrate.errors import ConfigurationError

        listed = load(quarantine_file)
        if junit is not None:
            try:
                junit.parent.mkdir(parents=True, exist_ok=True)
                junit.unlink(missing_ok=True)
            except OSError as error:
                raise ConfigurationError(
                    f"write --junit {junit}", said=str(error), remedy="name another file"
                ) from error
        return cls(junit, listed)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Parsed options of :data:`RUN`, beside its lab."""

    repeat: int
    results: Path
    keep_lab: bool
    as_json: bool
    wait_quiet: float | None


@click.command(cls=ValuesByEqualsSign, short_help="Run every case of scenario files.")
@click.argument("scenarios", nargs=-1, required=True, type=PATH)
@RUN
@CI
def run(
    scenarios: Sequence[Path],
    overrides: Sequence[str],
    junit: Path | None,
    quarantine_file: Path | None,
    **options: Any,
) -> None:
    """Run every case of SCENARIOS, and print a table. Exit code 0 if all passed, 1 if a verdict
    failed."""
    from migrate.lab.kinds import load_lab
    from migrate.scenario.loader import load_all, matching

    ci = CiOptions.parse(junit, quarantine_file)
    config = load_lab(options.pop("lab_file"), options.pop("name"))
    loaded = load_all(scenarios, overrides, config.scenario_defaults())
    _run(config, matching(loaded, options.pop("case")), RunOptions(**options), ci)


@click.command(cls=ValuesByEqualsSign, short_help="Run one workload over several modes.")
@click.option(
    "--modes",
    type=Text(),
    required=True,
    metavar="MODE,…",
    help="Modes to compare, e.g. --modes virtio,vhost-user.",
)
@click.option(
    "--scenario", type=PATH, metavar="FILE", help="Take everything but the mode from this scenario."
)
@RUN
def compare(modes: str, scenario: Path | None, overrides: Sequence[str], **options: Any) -> None:
    """Run one workload over several modes, and print one table. Exit codes: as of `run`."""
    from migrate.errors import ConfigurationError
    from migrate.lab.kinds import load_lab
    from migrate.scenario.loader import for_modes, matching

    if any(override.startswith("interface.mode=") for override in overrides):
        raise ConfigurationError(
            "compare modes", said="--set interface.mode conflicts with --modes", remedy="give one"
        )
    config = load_lab(options.pop("lab_file"), options.pop("name"))
    defaults = config.scenario_defaults()
    cases = for_modes(modes.split(","), scenario, overrides, defaults)
    _run(config, matching((cases,), options.pop("case")), RunOptions(**options))


def _run(
    config: LabConfig,
    scenarios: tuple[Scenario, ...],
    options: RunOptions,
    ci: CiOptions = CiOptions(),
) -> None:
    from migrate.campaign.run_source import NewRun
    from migrate.campaign.session import open_session
    from migrate.errors import visible

    # A path of the disk may be no UTF-8, and what is on record is.
    command = ("migrate-lab", *map(visible, sys.argv[1:]))
    source = NewRun(options.results, command, scenarios, ci.quarantine)
    cases = [case for scenario in scenarios for case in scenario.cases]
    with open_session(
        config, source, progress(), keep_lab=options.keep_lab, junit_copy=ci.junit
    ) as session:
        session.quiet_s = options.wait_quiet
        session.try_all(cases, options.repeat)
    end_run(session, as_json=options.as_json)
