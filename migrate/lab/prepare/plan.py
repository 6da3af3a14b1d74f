"""What a host is to be prepared with, and the journal of it that lies on the host.

Only values are here, so that lab files can be read without anything heavy; what is done by them is
in :mod:`migrate.lab.prepare.apply`, step by step in :mod:`migrate.lab.prepare.steps`.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AliasChoices, Field, model_validator

from migrate.lab.resources import Link
from migrate.model import TextForm, Value

Module = Annotated[
    str,
    TextForm(
        r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$",
        "a kernel module's name: at most 64 letters, digits and _ -, the first a letter or digit",
        "vfio-pci",
    ),
]
Kind = Literal["module", "huge-pages", "bridge", "uplink", "ovs", "firewall"]
State = Literal["planned", "there", "begun", "done", "undone"]
"""How far a step is. ``there``: what it would make was there already, and is not ours to take away;
``begun``: written down before the deed, so whether it was done has to be looked up."""


class Preparation(Value):
    """What `lab ready` has a host have for its lab, beyond what it has; nothing by default."""

    huge_pages: int = Field(default=0, ge=0, le=1 << 20)
    """How many pages of 2 MiB to add."""
    bridge: Link | None = None
    """Name of a bridge for taps. One that is created has no address, no IPv6 and no ARP, and the
    host accepts nothing that comes in by it: guests reach nothing of the host."""
    uplink: Link | None = None
    """A link to add to that bridge as a port, without IPv6; one with an address is refused, since
    the host might be cut off."""
    firewall: bool = False
    """Open TCP ports 49152-49215 for migrations, except from the bridge, and let frames pass the
    bridge."""
    modules: tuple[Module, ...] = Field(default=(), max_length=100)
    """Kernel modules to load, e.g. ``["vfio-pci"]``."""
    ovs: bool = False
    """Start OVS-DPDK, with its bridge and the host's `ovs_uplink`."""

    @model_validator(mode="after")
    def _has_a_bridge(self) -> Self:
        if self.uplink and not self.bridge:
            raise ValueError("an uplink needs a bridge")
        return self


class StepRecord(Value):
    """One step: what it found and what it makes of it, in words that its kind reads again."""

    kind: Kind
    subject: str = ""
    """A module's, bridge's or link's name."""
    state: State = "planned"
    found: str = ""
    wanted: str = ""

    @property
    def summary(self) -> str:
        """One line: ``bridge data``."""
        return f"{self.kind} {self.subject}".strip()


class Owner(Value):
    """Who prepares: a process of a controller, by its start time, too: an id is used again."""

    controller: str
    user: str
    pid: int
    started: str

    def __str__(self) -> str:
        return f"{self.user} on {self.controller}, process {self.pid}"


class Journal(Value):
    """``/run/migrate-lab/prepared/LAB.json`` of a host: it is there before the first deed is."""

    lab: str = Field(pattern=r"^[a-z][a-z0-9]{0,7}$")
    owner: Owner
    since: str
    """ISO 8601 in UTC, by the controller's clock."""
    spec: Preparation = Field(validation_alias=AliasChoices("spec", "wishes"))
    """``wishes`` in journals of earlier versions."""
    state: Literal["preparing", "ready", "undoing"] = "preparing"
    steps: tuple[StepRecord, ...] = ()

    def at(self, number: int, step: StepRecord) -> Journal:
        """With another record of one step."""
        steps = (*self.steps[:number], step, *self.steps[number + 1 :])
        return self.model_copy(update={"steps": steps})

    def begun_as(self, other: Journal) -> bool:
        """Whether both are of the same preparation, however far each is."""
        mine = (self.owner, self.lab, self.since, self.spec)
        return mine == (other.owner, other.lab, other.since, other.spec)

    @property
    def summary(self) -> str:
        """One line: how far, for what, by whom, since when."""
        return f"{self.state} for the lab {self.lab} by {self.owner} since {self.since}"


def plan(spec: Preparation) -> tuple[StepRecord, ...]:
    """The steps in their order; undone they are in the other one."""
    steps = [StepRecord(kind="module", subject=name) for name in dict.fromkeys(spec.modules)]
    if spec.huge_pages:
        steps.append(StepRecord(kind="huge-pages", subject=str(spec.huge_pages)))
    if spec.bridge:
        steps.append(StepRecord(kind="bridge", subject=spec.bridge))
    if spec.uplink:
        steps.append(StepRecord(kind="uplink", subject=spec.uplink, wanted=spec.bridge or ""))
    if spec.ovs:
        steps.append(StepRecord(kind="ovs"))
    if spec.firewall:
        steps.append(StepRecord(kind="firewall", subject=spec.bridge or ""))
    return tuple(steps)
