"""What a host can do, and what its QEMU may be asked."""

from __future__ import annotations

from typing import Literal

from migrate.model.base import Value
from migrate.model.machine import MachineFacts


class Capability(Value):
    """One thing that a host can do, or the reason why not and the remedy."""

    name: str
    able: bool
    detail: str = ""
    reason: str = ""
    remedy: str = ""


QemuState = Literal["running", "stopped", "migrated", "incoming", "loaded", "resumed"]
"""Of a QEMU whose guest moves: the source's, until it has stopped, and when all has been sent; the
target's, before anything has come, when all has, and when the guest runs there."""
Backing = Literal["none", "vhost-user"]
"""What works the queues of a network device: QEMU itself, or a vhost-user backend."""


class QuestionTrial(Value):
    """An experimental question, as it went with a throw-away guest in a state in which it is asked
    of guests under test."""

    command: str
    state: QemuState
    backing: Backing
    harm: str = ""
    """What it did, in words that the version of a QEMU can follow: ``ends``; empty: nothing."""


class Observers(Value):
    """What the QEMU of a host may be asked about a guest under test.

    Whatever was not tried is not asked. A question that harms a guest of one backing is asked of
    none: before it is asked, nobody knows what works the queues.
    """

    qemu: str = ""
    """Its version, as its monitor tells it."""
    trials: tuple[QuestionTrial, ...] = ()
    untried: str = "not tried on a throw-away guest"
    """Why nothing could be tried; empty: it was."""

    def objection(self, command: str, state: QemuState) -> str:
        """Why a question may not be asked in a state, in words that follow its name; empty: it
        may."""
        trials = [one for one in self.trials if (one.command, one.state) == (command, state)]
        harm = next((one.harm for one in trials if one.harm), "")
        if harm:
            return f"{harm} QEMU {self.qemu}"
        return "" if trials else f"is {self.untried or 'not known to this QEMU'}"


class HostFacts(Value):
    """What was found on one host."""

    host: str
    root: str
    kernel: str
    versions: dict[str, str]
    capabilities: tuple[Capability, ...]
    machine: MachineFacts | None = None
    """What it is made of; None: not asked."""
    observers: Observers = Observers()

    def capability(self, name: str) -> Capability:
        """The capability called ``name``; one that was not looked for is not able."""
        for capability in self.capabilities:
            if capability.name == name:
                return capability
        return Capability(
            name=name,
            able=False,
            reason="not looked for",
            remedy="name a fact that `migrate-lab doctor` lists",
        )
