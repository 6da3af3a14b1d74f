"""Several may write a run; nobody who may not can hold them up, and nobody waits without a word."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from migrate import locks, log
from migrate.errors import MeasurementError
from migrate.locks import file_lock
from migrate.results import files, writer
from migrate.results.database import CACHE, open_store
from migrate.results.files import ABANDONED_S, WRITING, exclusive
from migrate.results.prune import KeepRule, prune
from migrate.results.writer import RUN_LOCK, RunWriter
from selftests.doubles import synthetic
from selftests.helpers import SaidSoFar, as_somebody_elses, mode_of, soon

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")


def a_run(root: Path) -> Path:
    made = synthetic.write_run(root, [synthetic.attempt(synthetic.case())])
    made.write("junit.xml", "<testsuites/>")
    return made.folder


@contextmanager
def held_by_nobody(folder: Path) -> Iterator[None]:
    """A local user does to a run's folder what stopped root's runs."""
    argv = [*NOBODY, "flock", "--exclusive", str(folder), "sh", "-c", "echo held; exec sleep inf"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield
        process.kill()


@pytest.mark.usefixtures("root", "silent")
def test_a_local_user_who_locks_the_runs_folder_holds_nobody_up(tmp_path: Path) -> None:
    parents = [tmp_path, *tmp_path.parents]
    for folder in parents[: parents.index(Path(tempfile.gettempdir()))]:
        folder.chmod(0o755)
    folder = a_run(tmp_path / "results")
    with held_by_nobody(folder):
        resumed, attempts = RunWriter.resume(folder)
        resumed.amend(lambda run: run)
        resumed.claim(synthetic.case(), 7)
        assert len(attempts) == 1
        del resumed
        with exclusive(folder) as exclusively:
            assert exclusively


def test_the_locks_of_a_run_are_closed_to_others(tmp_path: Path) -> None:
    folder = a_run(tmp_path)
    RunWriter.resume(folder)[0].amend(lambda run: run)
    assert [mode_of(folder / name) for name in (WRITING, RUN_LOCK)] == [0o600, 0o600]


def test_one_who_holds_run_json_for_too_long_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "SHORT_S", 0.1)
    resumed, _ = RunWriter.resume(a_run(tmp_path))
    with (
        file_lock(resumed.folder / RUN_LOCK, soon(), "hold it"),
        pytest.raises(MeasurementError, match=f"held by process {os.getpid()} of") as refused,
    ):
        resumed.amend(lambda run: run)
    assert "fuser" in refused.value.remedy


def test_one_who_has_a_run_alone_for_too_long_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "SHORT_S", 0.1)
    folder = a_run(tmp_path)
    with (
        exclusive(folder) as exclusively,
        pytest.raises(MeasurementError, match=f"held by process {os.getpid()} of"),
    ):
        assert exclusively
        RunWriter.resume(folder)


def test_a_link_where_a_lock_belongs_is_told_and_not_followed(tmp_path: Path) -> None:
    folder = a_run(tmp_path)
    (folder / WRITING).unlink()
    (folder / WRITING).symlink_to(tmp_path / "victim")
    with pytest.raises(MeasurementError, match="symbolic link"):
        RunWriter.resume(folder)
    assert not (tmp_path / "victim").exists()


@pytest.mark.usefixtures("root")
def test_a_run_of_another_user_is_read_and_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``trend`` and ``prune`` of somebody who may read the folder only."""
    folder = a_run(tmp_path)
    with as_somebody_elses(folder / WRITING, monkeypatch):
        store = open_store(tmp_path)
        (left,) = prune(tmp_path, KeepRule(days=0, runs=0))
    assert store.ask("SELECT count(*) FROM attempts") == [(1,)]
    assert "is read from its JSON each time" in store.problems[0]
    assert "belongs to user 12345, and its folder to" in left.left


def test_to_look_whether_a_run_is_written_makes_it_no_younger(tmp_path: Path) -> None:
    """Also where its lock is made by the look: a run of an older version has none."""
    folder = synthetic.write_run(tmp_path, [synthetic.attempt(synthetic.case())]).folder
    (folder / WRITING).unlink()
    then = time.time() - ABANDONED_S - 1
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (then, then))
    for _ in range(2):
        with exclusive(folder) as exclusively:
            assert exclusively


def test_a_results_folder_in_which_everybody_may_rename_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results").chmod(0o777)
    with pytest.raises(MeasurementError, match=r"everybody can rename.*chmod o-w"):
        a_run(tmp_path / "results")
    (tmp_path / "results").chmod(0o1777)
    assert mode_of(a_run(tmp_path / "results")) == 0o755


def test_a_link_where_the_log_belongs_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = a_run(tmp_path / "results")
    (folder / "run.log").symlink_to(victim)
    with log.recorded() as run_log, pytest.raises(OSError, match="symbolic links"):
        run_log.write_to(folder / "run.log")
    assert victim.read_text() == "precious"


def test_many_who_make_the_cache_of_all_runs_at_once_leave_one_that_is_whole(
    tmp_path: Path,
) -> None:
    a_run(tmp_path)
    script = "import sys; from pathlib import Path; from migrate.results.database import open_store"
    script += "; print(open_store(Path(sys.argv[1])).problems)"
    argv = [sys.executable, "-c", script, str(tmp_path)]
    several = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert {process.communicate()[0] for process in several} == {"[]\n"}
    assert mode_of(tmp_path / CACHE) == 0o644
    assert not list(tmp_path.glob(".*.part"))
    assert open_store(tmp_path).ask("SELECT count(*) FROM attempts") == [(1,)]


def test_one_who_waits_for_a_run_is_told_for_whom(
    tmp_path: Path, told: SaidSoFar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "SILENT_S", 0)
    monkeypatch.setattr(writer, "SHORT_S", 0.2)
    resumed, _ = RunWriter.resume(a_run(tmp_path))
    with (
        file_lock(resumed.folder / RUN_LOCK, soon(), "hold it"),
        pytest.raises(MeasurementError),
    ):
        resumed.amend(lambda run: run)
    assert f"waiting to write to {resumed.folder}, held by process {os.getpid()}" in told
