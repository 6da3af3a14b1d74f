"""What is in the cache is whole, is built once, and leaves nothing when it can't be built."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from migrate.errors import HostError
from migrate.images import cache
from migrate.images.cache import build_once
from migrate.locks import LockedError
from selftests.helpers import mode_of


def file(path: Path) -> None:
    path.write_text("whole")


def folder(path: Path) -> None:
    path.mkdir()
    (path / "part").write_text("whole")


BOTH = pytest.mark.parametrize("build", [file, folder])


def names(path: Path) -> list[str]:
    return sorted(one.name for one in path.iterdir() if one.suffix != ".lock")


@BOTH
def test_it_is_built_once(tmp_path: Path, build: Callable[[Path], None]) -> None:
    path = tmp_path / "cache" / "thing"
    assert build_once(path, build)
    assert names(path.parent) == ["thing"]
    assert not build_once(path, lambda _beside: pytest.fail("it is there"))


def test_of_several_builders_at_once_one_builds(tmp_path: Path) -> None:
    built: list[bool] = []
    threads = [
        threading.Thread(target=lambda: built.append(build_once(tmp_path / "thing", folder)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(built) == [False, False, False, True]


@BOTH
def test_what_fails_leaves_nothing(tmp_path: Path, build: Callable[[Path], None]) -> None:
    def fail(beside: Path) -> None:
        build(beside)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_once(tmp_path / "thing", fail)
    assert names(tmp_path) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from migrate.images.cache import build_once

def build(beside):
    if sys.argv[2] == "folder":
        beside.mkdir()
        (beside / "half").touch()
    else:
        beside.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)

build_once(Path(sys.argv[1]), build)
"""


@BOTH
@pytest.mark.parametrize("left", ["file", "folder"])
def test_what_a_killed_builder_left_is_removed_by_the_next(
    tmp_path: Path, build: Callable[[Path], None], left: str
) -> None:
    path = tmp_path / "thing"
    subprocess.run([sys.executable, "-c", KILLED, str(path), left], check=False)
    assert names(tmp_path) == [".thing.part"]
    assert build_once(path, build)
    assert names(tmp_path) == ["thing"]
    assert "half" not in str(list(path.iterdir()) if path.is_dir() else path.read_text())


def test_a_cache_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HostError) as refused:
        build_once(tmp_path / "file" / "thing", folder)
    assert str(tmp_path / "file") in refused.value.tried
    assert "is no folder" in refused.value.said


def test_one_who_waits_for_a_builder_is_told_for_whom_and_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "BUILD_S", 0.1)

    def build(_beside: Path) -> None:
        build_once(tmp_path / "thing", folder)

    with pytest.raises(LockedError, match=f"build .*thing: held by process {os.getpid()}"):
        build_once(tmp_path / "thing", build)


def test_a_folder_of_the_cache_is_closed_to_others(tmp_path: Path) -> None:
    build_once(tmp_path / "roots" / "debian", folder)
    assert mode_of(tmp_path / "roots") == 0o700


def test_one_that_an_older_version_left_open_is_closed_when_it_is_used(tmp_path: Path) -> None:
    """Programs of a root may be set-uid: also where nothing has to be built."""
    (tmp_path / "roots" / "debian").mkdir(parents=True)
    (tmp_path / "roots").chmod(0o755)
    assert not build_once(tmp_path / "roots" / "debian", folder)
    assert mode_of(tmp_path / "roots") == 0o700


def test_one_in_which_others_can_write_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "roots" / "debian").mkdir(parents=True)
    (tmp_path / "roots").chmod(0o777)
    with pytest.raises(HostError, match=r"may be theirs|may rename"):
        build_once(tmp_path / "roots" / "debian", folder)


def test_a_link_in_the_builders_place_is_removed_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / ".thing.part").symlink_to("precious")
    assert build_once(tmp_path / "thing", folder)
    assert names(tmp_path) == ["precious", "thing"]
    assert list((tmp_path / "precious").iterdir()) == []
