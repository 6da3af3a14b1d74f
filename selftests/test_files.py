"""Files are whole or not there, whoever writes them at once; a folder that somebody else could
change is not used."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from migrate.errors import HostError
from migrate.files import (
    STALE_S,
    advice,
    make_private,
    private_folder,
    remove_stale_parts,
    replace_file,
)
from migrate.lab import config
from selftests.helpers import as_somebody_elses, mode_of


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """Whatever a test makes it, the next one has another."""
    before = os.umask(0o022)
    yield
    os.umask(before)


# --- written whole ------------------------------------------------------------------------------

WRITER = """
import sys
from pathlib import Path
from migrate.files import replace_file
for number in range(60):
    replace_file(Path(sys.argv[1]), sys.argv[2] * 5000)
"""


def test_of_several_writers_at_once_each_succeeds_and_one_file_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), letter]) for letter in "abc"
    ]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert path.read_text() in {letter * 5000 for letter in "abc"}
    assert list(tmp_path.iterdir()) == [path]


def test_threads_of_one_process_are_writers_too(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: replace_file(path, f"{number}" * 999), range(200)))
    assert len(set(path.read_text())) <= 3
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["run.json", ".run.json.part"])
def test_a_link_that_somebody_planted_is_not_followed(tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / name).symlink_to(victim)
    replace_file(folder / "run.json", "ours")
    assert victim.read_text() == "precious"
    assert (folder / "run.json").read_text() == "ours"
    assert not (folder / "run.json").is_symlink()


def test_the_umask_is_not_asked(tmp_path: Path) -> None:
    for umask in (0o000, 0o077):
        os.umask(umask)
        replace_file(tmp_path / "a", "text")
        replace_file(tmp_path / "b", "text", 0o600)
        assert (mode_of(tmp_path / "a"), mode_of(tmp_path / "b")) == (0o644, 0o600)


def test_a_write_that_fails_leaves_the_old_text_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lab.json"
    replace_file(path, "old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        replace_file(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_longest_name_that_a_file_may_have_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("ä" * 127)
    replace_file(path, "text")
    assert path.read_text() == "text"


KILLED = """
import os, signal, sys
from pathlib import Path
from migrate.files import replacing
with replacing(Path(sys.argv[1])):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_left_goes_once_nobody_can_be_writing_it(tmp_path: Path) -> None:
    path = tmp_path / "runs.parquet"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    (part,) = tmp_path.iterdir()
    (tmp_path / ".other.x.part").touch()
    remove_stale_parts(path)
    assert part.exists(), "it may be another's that writes now"
    then = time.time() - STALE_S - 1
    for file in tmp_path.iterdir():
        os.utime(file, (then, then))
    remove_stale_parts(path)
    assert [file.name for file in tmp_path.iterdir()] == [".other.x.part"]


# --- advice -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "make room"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "may not write there"),
        (errno.EPERM, "immutable"),
        (errno.EMFILE, "ulimit -n"),
        (errno.ENFILE, "fs.file-max"),
        (errno.ENAMETOOLONG, "shorter name"),
        (errno.ELOOP, "symbolic link"),
        (errno.EXDEV, "different file systems"),
        (errno.ENOTDIR, "is a file"),
        (errno.EISDIR, "a folder of that name"),
        (errno.ENOENT, "never was"),
        (errno.EIO, "dmesg"),
        (errno.ESTALE, "file server"),
        (errno.EFBIG, "ulimit -f"),
        (errno.ENOTTY, "name another folder"),
    ],
)
def test_the_advice_is_for_the_error_that_came(tmp_path: Path, number: int, words: str) -> None:
    said = advice(OSError(number, os.strerror(number)), tmp_path)
    assert words in said
    assert ("make room" in said) == (number in {errno.ENOSPC, errno.EDQUOT})


def test_a_disk_without_inodes_is_not_called_full_of_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.statvfs(tmp_path)
    no_inodes = os.statvfs_result([*real[:5], 1000, 0, 0, *real[8:]])
    monkeypatch.setattr(os, "statvfs", lambda _path: no_inodes)
    assert "inodes" in advice(OSError(errno.ENOSPC, ""), tmp_path)


# --- folders that are ours ----------------------------------------------------------------------


def test_a_new_folder_and_those_above_it_are_closed_to_others(tmp_path: Path) -> None:
    os.umask(0)
    folder = make_private(tmp_path / "new" / "state")
    assert [mode_of(path) for path in (folder, folder.parent)] == [0o700, 0o700]


def test_one_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    for mode, after in ((0o755, 0o700), (0o750, 0o700), (0o711, 0o711), (0o700, 0o700)):
        folder = tmp_path / f"{mode:o}"
        folder.mkdir()
        folder.chmod(mode)
        assert private_folder(folder) == folder
        assert mode_of(folder) == after


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770, 0o702])
def test_one_in_which_others_could_write_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(mode)
    with pytest.raises(HostError, match=r"chmod.*MIGRATE_LAB_STATE") as refused:
        private_folder(tmp_path / "state")
    assert f"{mode:04o}" in refused.value.said
    assert mode_of(tmp_path / "state") == mode


def test_one_that_somebody_else_put_there_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    with (
        as_somebody_elses(folder, monkeypatch),
        pytest.raises(HostError, match=r"belongs to .*, who can put anything there"),
    ):
        make_private(folder)


def test_one_in_somebody_elses_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "theirs" / "state").mkdir(parents=True)
    with (
        as_somebody_elses(tmp_path / "theirs", monkeypatch),
        pytest.raises(HostError, match="belongs to"),
    ):
        private_folder(tmp_path / "theirs" / "state")


def test_one_that_everybody_could_replace_is_refused(tmp_path: Path) -> None:
    (tmp_path / "shared" / "state").mkdir(parents=True)
    (tmp_path / "shared").chmod(0o777)
    with pytest.raises(HostError, match="everybody may rename"):
        private_folder(tmp_path / "shared" / "state")
    (tmp_path / "shared").chmod(0o1777)
    private_folder(tmp_path / "shared" / "state")


def test_a_link_of_ours_is_followed_and_somebody_elses_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "large-disk").mkdir()
    link = tmp_path / "cache"
    link.symlink_to("large-disk")
    assert private_folder(link) == link
    assert mode_of(tmp_path / "large-disk") == 0o700
    (tmp_path / "large-disk").chmod(0o777)
    with pytest.raises(HostError, match="0777"):
        private_folder(link)
    (tmp_path / "large-disk").chmod(0o700)
    with as_somebody_elses(link, monkeypatch), pytest.raises(HostError, match="belongs to"):
        private_folder(link)


def test_one_that_is_roots_is_told_to_another_user_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_path: Path) -> os.stat_result:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "lstat", refused)
    with pytest.raises(HostError, match="sudo"):
        make_private(tmp_path / "state" / "leases")


def test_a_circle_of_links_and_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(HostError, match="circle"):
        make_private(tmp_path / "circle")
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match="no folder"):
        make_private(tmp_path / "file")


@pytest.mark.parametrize(
    ("variable", "folder"),
    [("MIGRATE_LAB_CACHE", config.cache_folder), ("MIGRATE_LAB_STATE", config.state_folder)],
)
def test_cache_and_state_are_looked_at_each_time_they_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, folder: object
) -> None:
    assert callable(folder)
    monkeypatch.setenv(variable, str(tmp_path / "it"))
    assert folder() == tmp_path / "it"
    assert not (tmp_path / "it").exists(), "whoever only looks makes nothing"
    (tmp_path / "it").mkdir(0o755)
    folder()
    assert mode_of(tmp_path / "it") == 0o700
    (tmp_path / "it").chmod(0o777)
    with pytest.raises(HostError):
        folder()


def test_what_hosts_see_of_the_cache_is_behind_a_closed_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIGRATE_LAB_CACHE", str(tmp_path / "cache"))
    assert config.shared_folder("images") == tmp_path / "cache/images"
    assert (mode_of(tmp_path / "cache"), mode_of(tmp_path / "cache/images")) == (0o700, 0o711)
