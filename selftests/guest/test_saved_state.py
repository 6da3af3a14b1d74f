"""A saved guest's memory is for nobody else to read; what a killed controller left is no trap."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from migrate.drivers.libvirt import Hypervisor
from migrate.errors import HostError
from migrate.guest import lifecycle
from migrate.guest.identity import Identity
from selftests.helpers import mode_of

OLD = "11111111-2222-3333-4444-555555555555"


class Restorer:
    """A libvirt that reads a saved guest's XML."""

    host = "a"

    def saved_xml(self, path: str) -> str:
        return Path(path).read_text()


@pytest.fixture
def saved(tmp_path: Path) -> Iterator[Path]:
    before = os.umask(0)
    path = tmp_path / "tiny.sav"
    path.write_text(f"<domain><uuid>{OLD}</uuid></domain>")
    yield path
    os.umask(before)


def copy_of(saved: Path, identity: Identity) -> contextlib.AbstractContextManager[Path]:
    return lifecycle._own_copy(saved, identity, cast("Hypervisor", Restorer()))


def test_a_copy_of_a_saved_guest_is_for_nobody_else_to_read(saved: Path) -> None:
    identity = Identity.new(lab="local")
    with copy_of(saved, identity) as copy:
        assert mode_of(copy) == 0o600
        assert copy.read_text() == f"<domain><uuid>{identity.uuid}</uuid></domain>"
    assert list(saved.parent.iterdir()) == [saved]


@pytest.mark.parametrize("left", ["open", "link"])
def test_what_lies_in_its_place_is_replaced_and_not_written_to(saved: Path, left: str) -> None:
    victim = saved.with_name("victim")
    victim.write_text("precious")
    place = saved.with_name("saved-local-a-start.sav")
    if left == "link":
        place.symlink_to(victim)
    else:
        place.touch(0o666)
    with copy_of(saved, Identity.new(lab="local")) as copy:
        assert (copy, mode_of(copy), copy.is_symlink()) == (place, 0o600, False)
    assert victim.read_text() == "precious"


def test_no_room_for_it_is_told(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(HostError, match="make room"), copy_of(saved, Identity.new()):
        pytest.fail("it was copied")
    assert list(saved.parent.iterdir()) == [saved]
