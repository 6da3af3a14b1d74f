"""Whoever waits for a lock is told for whom, and not for ever; nobody else can take one of ours."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrate import locks
from migrate.clock import Deadline
from migrate.errors import HostError
from migrate.files import user_name
from migrate.locks import LockedError, acquire, file_lock, holders, holding_processes
from selftests.helpers import SaidSoFar, as_somebody_elses, mode_of, soon

HOLD = """
import sys
from pathlib import Path
from migrate.clock import Deadline
from migrate.locks import file_lock
with file_lock(Path(sys.argv[1]), Deadline.after(60), "hold it", note="for a test"):
    print("held", flush=True)
    sys.stdin.read()
"""


TOLD = """
import logging
from migrate import locks
logging.basicConfig(level="INFO")
locks.SILENT_S = 0
"""


@contextmanager
def held_by_another(path: Path) -> Iterator[int]:
    """Another process has the lock while the block runs; its id."""
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process.pid
        process.kill()


def test_who_has_it_is_told_at_the_deadline_with_its_command(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with (
        held_by_another(path) as pid,
        pytest.raises(LockedError) as refused,
        file_lock(path, Deadline.after(0.2), "write the report"),
    ):
        pytest.fail("it was held twice")
    assert refused.value.tried == "write the report"
    user = user_name(os.geteuid())
    assert f"held by process {pid} of {user} ({sys.executable} -c" in refused.value.said
    assert "for a test" in refused.value.said
    assert str(path) in refused.value.remedy


def test_one_who_waits_is_told_for_whom_again_and_again(
    tmp_path: Path, told: SaidSoFar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "SILENT_S", 0.05)
    monkeypatch.setattr(locks, "REPEAT_S", 0.05)
    path = tmp_path / "lock"
    with (
        held_by_another(path) as pid,
        pytest.raises(LockedError),
        file_lock(path, Deadline.after(1), "build a root"),
    ):
        pytest.fail("it was held twice")
    assert len(told.lines) > 1
    assert all(
        line.startswith(f"waiting to build a root, held by process {pid}") for line in told.lines
    )
    assert told.lines[0].endswith("; 0 s so far, 1 s at most")


@pytest.mark.usefixtures("silent")
def test_it_is_had_at_once_when_its_holder_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with held_by_another(path) as pid:
        os.kill(pid, signal.SIGKILL)
    with file_lock(path, soon(), "go on"):
        pass


@pytest.mark.usefixtures("silent")
def test_it_is_had_when_its_holder_lets_it_go(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    order: list[str] = []

    def second() -> None:
        with file_lock(path, soon(), "be second"):
            order.append("second")

    with file_lock(path, soon(), "be first"):
        thread = threading.Thread(target=second)
        thread.start()
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_several_may_share_it_and_one_alone_has_to_wait(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with ExitStack() as stack:
        for _ in range(2):
            stack.callback(os.close, acquire(path, soon(), "write", shared=True))
        with pytest.raises(LockedError):
            acquire(path, Deadline.after(0), "have it alone")
    os.close(acquire(path, soon(), "have it alone"))


def test_ctrl_c_ends_the_wait(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    script = HOLD.replace('print("held"', 'sys.exit("it was held twice"')
    command = [sys.executable, "-c", TOLD + script, str(path)]
    with (
        held_by_another(path),
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process,
    ):
        assert process.stderr is not None
        assert "waiting to hold it" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in process.stderr.read()
    assert process.returncode == -signal.SIGINT


def test_its_file_is_closed_to_others_also_one_that_was_open_to_them(tmp_path: Path) -> None:
    before = os.umask(0)
    for name in ("new", "old"):
        path = tmp_path / name
        if name == "old":
            path.touch(0o666)
        with file_lock(path, soon(), "look"):
            assert mode_of(path) == 0o600
    os.umask(before)


def test_a_link_and_a_pipe_are_no_locks(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    (tmp_path / "link").symlink_to(victim)
    with pytest.raises(HostError, match="symbolic link"):
        acquire(tmp_path / "link", soon(), "try")
    assert not victim.exists()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(HostError, match="no file"):
        acquire(tmp_path / "pipe", soon(), "try")


@pytest.mark.usefixtures("root")
def test_somebody_elses_file_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "lock").touch()
    with (
        as_somebody_elses(folder / "lock", monkeypatch),
        pytest.raises(HostError, match=r"belongs to .*, and its folder to"),
    ):
        acquire(folder / "lock", soon(), "try")


@pytest.mark.usefixtures("root")
def test_root_in_a_users_folder_shares_its_locks_and_touches_no_file_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second name of a file of root's, put there by the folder's owner, is left as it is."""
    precious = tmp_path / "precious"
    precious.write_text("of root")
    precious.chmod(0o644)
    folder = tmp_path / "run"
    folder.mkdir()
    with as_somebody_elses(folder, monkeypatch):
        with file_lock(folder / "lock", soon(), "write", note="for a test"):
            assert (folder / "lock").stat().st_uid == folder.stat().st_uid
        (folder / "planted").hardlink_to(precious)
        with (
            pytest.raises(HostError, match="belongs to root, and its folder to"),
            file_lock(folder / "planted", soon(), "write", note="for a test"),
        ):
            pytest.fail("it was locked")
    assert (precious.read_text(), mode_of(precious)) == ("of root", 0o644)
    assert precious.stat().st_uid == 0


def test_one_whose_file_was_removed_keeps_nobody_else_out_of_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with file_lock(path, soon(), "be first"):
        path.unlink()
        with file_lock(path, soon(), "be second"):
            assert path.exists()


@pytest.mark.usefixtures("root")
def test_another_user_can_not_take_it(tmp_path: Path) -> None:
    """By the very command that stopped root's runs: it can't even open the file."""
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    path = tmp_path / "lock"
    with file_lock(path, soon(), "make it"):
        pass
    flock = [shutil.which("flock") or "flock", "--exclusive", str(path), "true"]
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--", *flock]
    refused = subprocess.run(nobody, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "Permission denied" in refused.stderr


# --- who has it ---------------------------------------------------------------------------------

TABLE = """\
1: FLOCK  ADVISORY  WRITE 4711 00:19:1234 0 EOF
1: -> FLOCK  ADVISORY  WRITE 4712 00:19:1234 0 EOF
2: POSIX  ADVISORY  WRITE 4713 00:19:1234 0 EOF
3: FLOCK  ADVISORY  READ  4714 fe:00:1234 0 EOF
4: FLOCK  ADVISORY  READ  4715 fe:00:5678 0 EOF
"""


def test_of_the_kernels_table_those_count_who_hold_a_lock_of_that_very_file() -> None:
    assert holding_processes(TABLE, (0, 0x19), 1234) == (4711,)
    assert holding_processes(TABLE, (0xFE, 0), 1234) == (4714,)
    assert holding_processes(TABLE, (0xFE, 0), 5678) == (4715,)
    assert holding_processes(TABLE, (7, 7), 1234) == (4711, 4714), "btrfs: another device"
    assert holding_processes(TABLE, (0, 0x19), 9) == ()


@given(st.text(max_size=400))
def test_a_table_of_another_make_tells_nobody(text: str) -> None:
    assert isinstance(holding_processes(text, (0, 0x19), 1234), tuple)


def test_what_can_not_be_told_is_said_as_such(tmp_path: Path) -> None:
    assert holders(tmp_path / "none") == "another process"
    path = tmp_path / "free"
    path.write_bytes(b"\x1b[31m\xff" + b"x" * 9999)
    said = holders(path)
    assert said.startswith("another process, \\x1b[31m")
    assert len(said) < 500
