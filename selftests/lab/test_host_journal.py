"""What is kept on a host is whole, and in folders that no other user there can reach."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import cast

import pytest

from migrate.clock import Deadline
from migrate.drivers.shell import Completed, run
from migrate.errors import HostError
from migrate.lab import host_journal
from migrate.lab.api import Host
from migrate.lab.host_journal import keep
from selftests.helpers import as_somebody_elses, mode_of, soon


class ThisMachine:
    """A host whose journal is in a folder of the test."""

    name = "a"

    def run(
        self,
        argv: Sequence[str],
        deadline: Deadline,
        *,
        text: str | None = None,
        check: bool = True,
    ) -> Completed:
        return run(argv, deadline, host=self.name, text=text, check=check)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(host_journal, "RUN", PurePosixPath(tmp_path / "run/ours"))
    (tmp_path / "run").mkdir()
    return cast("Host", ThisMachine())


@pytest.fixture(params=[0o000, 0o022, 0o077], autouse=True)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def test_folders_and_files_are_closed_to_others(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "run/ours/guests/one"
    keep(host, str(path), "text\n", soon())
    assert path.read_text() == "text\n"
    assert [mode_of(part) for part in (path, path.parent, path.parent.parent)] == [
        0o600,
        0o700,
        0o700,
    ]
    assert list(path.parent.iterdir()) == [path]


def test_what_an_older_version_left_open_is_closed(host: Host, tmp_path: Path) -> None:
    (tmp_path / "run/ours").mkdir()
    (tmp_path / "run/ours").chmod(0o755)
    keep(host, str(tmp_path / "run/ours/one"), "text", soon())
    assert mode_of(tmp_path / "run/ours") == 0o700


def test_a_program_can_be_run_by_all_and_its_folder_stays_as_it_is(
    host: Host, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin").chmod(0o755)
    keep(host, str(tmp_path / "bin/emulator"), "#!/bin/sh\n", soon(), mode="755")
    assert (mode_of(tmp_path / "bin/emulator"), mode_of(tmp_path / "bin")) == (0o755, 0o755)


def test_links_that_somebody_planted_are_not_followed(host: Host, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "run/ours").mkdir()
    (tmp_path / "run/ours/one").symlink_to(victim)
    keep(host, str(tmp_path / "run/ours/one"), "text", soon())
    assert victim.read_text() == "precious"
    (tmp_path / "run/ours/guests").symlink_to(tmp_path)
    with pytest.raises(HostError, match="is not ours"):
        keep(host, str(tmp_path / "run/ours/guests/one"), "text", soon())


@pytest.mark.usefixtures("root")
def test_a_folder_that_somebody_else_made_is_refused(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run/ours").mkdir()
    with (
        as_somebody_elses(tmp_path / "run/ours", monkeypatch),
        pytest.raises(HostError, match="is not ours: look at who made it"),
    ):
        keep(host, str(tmp_path / "run/ours/one"), "text", soon())


def test_of_several_writers_at_once_each_succeeds(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "run/ours/one"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: keep(host, str(path), f"{n}" * 999, soon()), range(8)))
    assert len(set(path.read_text())) == 1
    assert list(path.parent.iterdir()) == [path]
