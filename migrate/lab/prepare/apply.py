"""Preparing a host, and its exact reversal: also of what a controller that is dead left.

The journal lies on the host and is written before each deed. Who writes says what was read
before, so that of two controllers that begin at once one is refused. After a reboot of the host
``/run`` is empty, and so is all that a step changed: there is nothing to undo.
"""

from __future__ import annotations

import getpass
import hashlib
import logging
import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import ValidationError

from migrate.clock import Deadline
from migrate.errors import CleanupError, HostError, LabError
from migrate.lab.prepare.plan import Journal, Owner, Preparation, StepRecord, plan
from migrate.lab.prepare.steps import STEPS, PreparedHost
from migrate.lab.state import ProcessId
from migrate.waiting import waiting

LOGGER = logging.getLogger(__name__)

UNDO_S = 60.0
CHANGED = 75
"""The script's exit status where the journals are not those that were read."""


class TakenError(HostError):
    """The host is another's, or became another's while we were at it."""


def current_owner() -> Owner:
    """The owner of what this process prepares."""
    started = ProcessId.of(os.getpid()).started
    return Owner(
        controller=platform.node(), user=getpass.getuser(), pid=os.getpid(), started=started
    )


def owner_exited(owner: Owner) -> bool:
    """Whether that process has ended; False where it can't be told: on another controller."""
    here = owner.controller == platform.node()
    return here and not ProcessId(pid=owner.pid, started=owner.started).alive()


@dataclass(slots=True)
class JournalFile:
    """The journals on a host as they were last read or written by us; there is at most one."""

    site: PreparedHost
    text: str = ""
    journal: Journal | None = None

    @classmethod
    def read(cls, site: PreparedHost, deadline: Deadline) -> JournalFile:
        """What is on the host; HostError if it is no journal of ours."""
        text = site.script(deadline, "read").out
        try:
            journals = [Journal.model_validate_json(line) for line in text.splitlines()]
        except ValidationError as error:
            raise site.error(
                "read the host's preparation",
                str(error.errors()[0]["msg"]),
                "look into /run/migrate-lab/prepared there: it was not written by this version",
            ) from error
        return cls(site, text, journals[0] if journals else None)

    def keep(self, journal: Journal, deadline: Deadline) -> None:
        """Write it, if nobody else did meanwhile; else :class:`TakenError`."""
        text = journal.model_dump_json() + "\n"
        self._change("keep", journal.lab, text, deadline)
        self.text, self.journal = text, journal

    def drop(self, deadline: Deadline) -> None:
        """Remove it, as the last thing."""
        if self.journal is not None:
            self._change("drop", self.journal.lab, None, deadline)
        self.text, self.journal = "", None

    def _change(self, verb: str, lab: str, text: str | None, deadline: Deadline) -> None:
        digest = hashlib.sha256(self.text.encode()).hexdigest()
        done = self.site.script(deadline, verb, lab, digest, text=text, check=False)
        if done.status == CHANGED:
            raise TakenError(
                "prepare the host",
                host=self.site.host.name,
                said="another controller does it at this moment",
            )
        if done.status != 0:
            raise self.site.error(f"{verb} the journal of its preparation", done.err)


# --- preparing ----------------------------------------------------------------------------------


def prepare(site: PreparedHost, lab: str, spec: Preparation, deadline: Deadline) -> Journal | None:
    """Have all that ``spec`` names; nothing is done where that was done for the same lab already.

    :class:`TakenError` where the host is prepared for something else, or is being prepared.
    HostError where a step fails: then all of them are undone. None: ``spec`` names nothing.
    """
    file = JournalFile.read(site, deadline)
    if file.journal is not None:
        return _same(site, file.journal, lab, spec)
    if not plan(spec):
        return None
    now = datetime.now(UTC).isoformat(timespec="seconds")
    journal = Journal(lab=lab, owner=current_owner(), since=now, spec=spec, steps=plan(spec))
    try:
        file.keep(journal, deadline)
        for number, step in enumerate(journal.steps):
            journal = _take(file, journal, number, step, deadline)
        journal = journal.model_copy(update={"state": "ready"})
        file.keep(journal, deadline)
    except BaseException:
        # Read anew: what a lost connection cut off may have been written, or be another's now.
        left = JournalFile.read(site, Deadline.after(UNDO_S))
        if left.journal is not None and left.journal.begun_as(journal):
            undo(left, Deadline.after(UNDO_S))
        raise
    return journal


def _same(site: PreparedHost, journal: Journal, lab: str, spec: Preparation) -> Journal:
    if (journal.state, journal.lab, journal.spec) == ("ready", lab, spec):
        return journal
    raise TakenError(
        f"prepare the host for the lab {lab}",
        host=site.host.name,
        said=f"it is {journal.summary}",
        remedy=f"`migrate-lab lab repair --name {journal.lab}` puts back what was done",
    )


def _take(
    file: JournalFile, journal: Journal, number: int, step: StepRecord, deadline: Deadline
) -> Journal:
    kind = STEPS[step.kind]
    step = kind.look(file.site, step, deadline)
    file.keep(journal.at(number, step), deadline)
    if step.state == "begun":
        with waiting(f"host {file.site.host.name} to be prepared ({step.summary})", deadline):
            kind.do(file.site, step, deadline)
        step = step.model_copy(update={"state": "done"})
        file.keep(journal.at(number, step), deadline)
    how = "done" if step.state == "done" else f"{step.found} already"
    LOGGER.info("%s: %s: %s", file.site.host.name, step.summary, how)
    return journal.at(number, step)


# --- putting back -------------------------------------------------------------------------------


def undo(file: JournalFile, deadline: Deadline) -> None:
    """Put back what the journal lists, the last step first; each is tried.

    Raises :class:`CleanupError` with all that did not go back; then the journal stays.
    """
    if file.journal is None:
        return
    # From here on it is ours: another one that repairs is refused.
    taken = {"owner": current_owner(), "state": "undoing"}
    journal = file.journal.model_copy(update=taken)
    file.keep(journal, deadline)
    reasons: list[Exception] = []
    for number in reversed(range(len(journal.steps))):
        try:
            journal = _put_back(file, journal, number, deadline)
        except TakenError:
            raise
        except (
            LabError,
            ValueError,
            LookupError,
        ) as error:  # also of an answer that can't be parsed
            reasons.append(error)
    if reasons:
        raise CleanupError(
            "put back the preparation",
            reasons,
            host=file.site.host.name,
            remedy=f"then `migrate-lab lab repair --name {journal.lab}` again",
        )
    file.drop(deadline)


def _put_back(file: JournalFile, journal: Journal, number: int, deadline: Deadline) -> Journal:
    step = journal.steps[number]
    if step.state not in ("begun", "done"):
        return journal
    kind = STEPS[step.kind]
    settled, remark = kind.settle(file.site, step, deadline)
    if settled != step:
        file.keep(journal.at(number, settled), deadline)
    what = f"the preparation of host {file.site.host.name} to be undone ({step.summary})"
    with waiting(what, deadline):
        remark = kind.undo(file.site, settled, deadline) or remark
    journal = journal.at(number, settled.model_copy(update={"state": "undone"}))
    file.keep(journal, deadline)
    LOGGER.info("%s: %s: %s", file.site.host.name, step.summary, remark or "put back")
    return journal
