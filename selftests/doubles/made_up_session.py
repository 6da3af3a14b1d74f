"""pytest's door without a lab: a session whose attempts are made up, and whose guests are probes of
this machine. A project's ``conftest.py`` takes :func:`no_lab` from here."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from migrate.campaign import session
from migrate.lab import manager
from migrate.lab.config import LabConfig
from migrate.model import Attempt, Case, Problem, Skip, Verdict
from selftests.doubles import synthetic
from selftests.doubles.made_up_stage import MadeUpWorld, made_up_world

PROBE = "MADE_UP_PROBE"
"""The environment's variable with the path of the probe."""
CONFTEST = "from selftests.doubles.made_up_session import no_lab\n"
ABSENT = ("vdpa", "failover")
"""Modes that this lab has not."""


class MadeUpLab:
    """As much of a lab as a session shows."""

    def __init__(self, config: LabConfig) -> None:
        self.scenario_defaults = config.scenario_defaults()


class MadeUpSession:
    """As much of a session as fixtures use."""

    def __init__(self, lab: MadeUpLab) -> None:
        self.lab = lab
        self.skipped: list[Skip] = []
        self.stages = 0
        self.attempts: list[Attempt] = []
        self.folder = Path("/results/20260102")

    def candidate_pairs(self, case: Case) -> tuple[tuple[str, str], ...] | Skip:
        if case.interface.mode in ABSENT:
            return Skip(case=case, reason="no such card here", remedy="plug one in")
        return (("a", "b"), ("c", "d"))

    def count_stage(self) -> None:
        self.stages += 1

    def skip(self, skip: Skip) -> None:
        self.skipped.append(skip)

    def unmet_needs(self, names: list[str]) -> Skip | None:
        if "moon" not in names:
            return None
        return Skip(case=Case(id="needs"), reason="it is day", remedy="wait")

    def next_number(self, case: Case, wanted: int | None) -> int:
        del case
        return wanted or len(self.attempts) + 1

    def attempt(self, case: Case, number: int, *_pairs: object) -> Attempt:
        """It passes unless the guest is to be moved three times."""
        passes = case.policy.hops < 3
        verdict = Verdict(
            check="held-by",
            result="pass" if passes else "fail",
            measured="nobody",
            limit="b",
            evidence="THE GUEST RUNS NOWHERE",
        )
        done = synthetic.attempt(case, number, outcome="completed" if passes else "lost")
        error = None if passes else Problem(tried="migrate to b", host="a", said="it burns")
        self.attempts.append(done.model_copy(update={"verdicts": (verdict,), "error": error}))
        return self.attempts[-1]

    @contextlib.contextmanager
    def build_world(self, case: Case, *_pairs: object) -> Iterator[MadeUpWorld]:
        with made_up_world(case, Path(os.environ[PROBE])) as world:
            yield world

    def finish(self, junit_copy: Path | None) -> None:
        del junit_copy
        print("the report is written")


@pytest.fixture(scope="session", autouse=True)
def no_lab() -> Iterator[None]:
    """Sessions are made up."""

    def up(config: LabConfig, *, keep: bool) -> contextlib.AbstractContextManager[MadeUpLab]:
        del keep
        return contextlib.nullcontext(MadeUpLab(config))

    def begin(lab: Any, *_words: object) -> MadeUpSession:
        return MadeUpSession(lab)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manager, "opened", up)
        patch.setattr(session, "begin", begin)
        yield
