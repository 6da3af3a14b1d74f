"""A lab of any kind while a block runs, and what each kind has to provide."""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass, field
from typing import Literal, cast

import pytest
from pydantic import Field

from migrate.lab import kinds, manager
from migrate.lab.api import Lab
from migrate.lab.config import HostConfig, LabConfig, Name
from migrate.lab.kinds import KINDS, LabKind, Registered, kind_of
from migrate.lab.local import lab as local
from migrate.lab.local.config import LocalConfig
from migrate.lab.nested import lab as nested
from migrate.lab.nested.config import NestedConfig
from migrate.lab.rack import lab as rack
from migrate.lab.rack.config import RackConfig
from migrate.lab.shared_folder import SharedFolder
from selftests.helpers import SaidSoFar

LOCAL: LabKind[LocalConfig] = local.KIND
NESTED: LabKind[NestedConfig] = nested.KIND
RACK: LabKind[RackConfig] = rack.KIND


class PaperConfig(LabConfig):
    """A lab file of a kind that is in no folder."""

    kind: Literal["paper"] = "paper"
    name: Name = "x"
    hosts: dict[Name, HostConfig] = Field(default={})


@dataclass
class PaperLab:
    """A lab of which only its end is known."""

    closed: int = 0

    def close(self) -> None:
        """Count it."""
        self.closed += 1


@dataclass
class PaperKind:
    """Labs that only seem to come up and go down."""

    is_persistent: bool = False
    known: dict[str, PaperLab] = field(default_factory=dict)
    lab: PaperLab = field(default_factory=PaperLab)
    share: SharedFolder | None = None

    def prepare(self, config: PaperConfig) -> None:
        """Nothing."""

    def up(self, config: PaperConfig, share: SharedFolder | None = None) -> Lab:
        """It is there from now on."""
        self.share = share
        return cast("Lab", self.known.setdefault(config.name, self.lab))

    def find(self, config: PaperConfig) -> Lab | None:
        """It is there."""
        return cast("Lab | None", self.known.get(config.name))

    def down(self, config: PaperConfig) -> None:
        """It is not there any more."""
        assert self.lab.closed, "it is let go first"
        del self.known[config.name]

    def lease_names(self, config: PaperConfig) -> tuple[str, ...]:
        """As its hosts."""
        return tuple(config.hosts)


@pytest.fixture
def kind(monkeypatch: pytest.MonkeyPatch) -> PaperKind:
    """One line more in the registry."""
    paper = PaperKind()
    module = types.ModuleType("paper_kind")
    monkeypatch.setattr(module, "KIND", paper, raising=False)
    monkeypatch.setitem(sys.modules, "paper_kind", module)
    table = {**KINDS, "paper": Registered(PaperConfig, "paper_kind")}
    monkeypatch.setattr(kinds, "KINDS", table)
    return paper


def test_a_lab_goes_down_with_who_brought_it_up(kind: PaperKind, told: SaidSoFar) -> None:
    with manager.opened(PaperConfig()):
        assert "x" in kind.known
    assert kind.known == {}
    assert "taking the lab down" in told


def test_a_lab_goes_down_when_its_user_fails(kind: PaperKind, told: SaidSoFar) -> None:
    with pytest.raises(KeyboardInterrupt), manager.opened(PaperConfig()):
        raise KeyboardInterrupt
    assert kind.known == {}


def test_a_lab_that_was_up_or_is_to_be_kept_stays(kind: PaperKind, told: SaidSoFar) -> None:
    with manager.opened(PaperConfig(), keep=True):
        pass
    with manager.opened(PaperConfig()):
        pass
    assert list(kind.known) == ["x"]
    assert kind.lab.closed == 2
    assert "taking the lab down" not in told


def test_a_lab_that_persists_stays(kind: PaperKind, told: SaidSoFar) -> None:
    kind.is_persistent = True
    with manager.opened(PaperConfig()):
        pass
    assert list(kind.known) == ["x"]
    assert "taking the lab down" not in told


def test_a_kind_is_found_by_its_lab_files(kind: PaperKind) -> None:
    config = kinds.parse_config({"kind": "paper", "name": "y"})
    assert config == PaperConfig(name="y")
    assert kind_of(config) is kind


@pytest.mark.parametrize(("name", "kind"), [("local", LOCAL), ("nested", NESTED), ("rack", RACK)])
def test_the_kinds_are_registered(name: str, kind: LabKind[LabConfig]) -> None:
    config = KINDS[name].config.model_construct(kind=name, name="x", hosts={})
    assert kind_of(config) is kind
    assert kind.is_persistent == (name == "rack")
