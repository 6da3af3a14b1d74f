"""Old runs lose what is large and keep what counts; what is no old run stays as it is."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from migrate.errors import ConfigurationError, MeasurementError
from migrate.model import SCHEMA
from migrate.report.html import write_report
from migrate.report.trend import TrendQuery, trend
from migrate.results.database import open_store
from migrate.results.layout import PRUNED
from migrate.results.prune import KeepRule, PruneResult, prune
from migrate.results.reader import find_run, read_run
from migrate.results.writer import RunWriter
from selftests.command_line import Run as Command
from selftests.doubles import synthetic

NOW = datetime(2026, 2, 1, tzinfo=UTC)
ALL = KeepRule(days=0, runs=0)
ATTEMPT = "cases/synthetic-virtio/1"


def a_run(root: Path, day: int, **fields: Any) -> Path:
    """A run that is done, with all that a run leaves."""
    writer = synthetic.write_run(
        root,
        [synthetic.attempt(synthetic.case(), number) for number in (1, 2)],
        name=f"202601{day:02d}-030405-000000",
        began=f"2026-01-{day:02d}T03:04:05+00:00",
        **fields,
    )
    writer.write("junit.xml", "<testsuites/>")
    writer.write("mishap-x-1-a-qemu.log", "said")
    writer.write("run.log", "said")
    writer.write("report.html", "<!doctype html>")
    (writer.folder / ".report.html.0123abcd.part").write_text("<!doc")  # by one who was killed
    return writer.folder


def pruned(root: Path, keep: KeepRule = ALL, **how: Any) -> list[PruneResult]:
    return list(prune(root, keep, now=NOW, **how))


def files(root: Path) -> dict[str, int]:
    """Sizes by name; locks are none of what a run keeps."""
    paths = [path for path in root.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {str(path.relative_to(root)): path.stat().st_size for path in paths}


def test_what_is_large_goes_and_what_counts_stays(tmp_path: Path) -> None:
    folder = a_run(tmp_path, 1)
    before, record = files(folder), read_run(folder)
    (one,) = pruned(tmp_path)
    after = files(folder)
    assert set(after) == {
        *("run.json", "junit.xml", PRUNED),
        *(f"cases/synthetic-virtio/{n}/attempt.json" for n in (1, 2)),
    }
    assert one == PruneResult(
        folder.name, sum(size for name, size in before.items() if name not in after)
    )
    assert read_run(folder) == record
    assert json.loads((folder / PRUNED).read_text())["removed"] == [
        *(".report.html.0123abcd.part", "arrivals.parquet", "events.jsonl", "logs"),
        "mishap-x-1-a-qemu.log",
        *("report.html", "run.log", "samples.parquet", "source.xml"),
    ]


def test_a_trend_is_the_same_before_and_after(tmp_path: Path) -> None:
    a_run(tmp_path, 1)
    a_run(tmp_path, 2)
    before = trend(open_store(tmp_path), TrendQuery())
    assert len(pruned(tmp_path)) == 2
    assert trend(open_store(tmp_path), TrendQuery()) == before
    for index in tmp_path.rglob("*.parquet"):
        index.unlink()
    assert trend(open_store(tmp_path), TrendQuery()) == before


def test_a_second_time_there_is_nothing_to_do(tmp_path: Path) -> None:
    a_run(tmp_path, 1)
    assert len(pruned(tmp_path)) == 1
    assert pruned(tmp_path) == []


def test_the_young_and_the_last_of_each_lab_stay_whole(tmp_path: Path) -> None:
    runs = [a_run(tmp_path, day) for day in (1, 10, 20, 30)]
    a_run(tmp_path, 2, lab="rack")
    assert pruned(tmp_path, KeepRule(days=100, runs=0)) == []
    assert pruned(tmp_path, KeepRule(days=0, runs=9)) == []
    found = [one.run for one in pruned(tmp_path, KeepRule(days=5, runs=2))]
    assert found == [run.name for run in runs[:2]]
    assert [one.run for one in pruned(tmp_path, KeepRule(days=5, runs=1))] == [runs[2].name]


def test_a_dry_run_says_the_same_and_does_nothing(tmp_path: Path) -> None:
    a_run(tmp_path, 1)
    before = files(tmp_path)
    for whole in (False, True):
        said = pruned(tmp_path, dry=True, whole=whole)
        assert files(tmp_path) == before
        assert said[0].freed > 0
    stripped = pruned(tmp_path, dry=True)
    assert stripped == pruned(tmp_path)


def test_a_whole_run_goes(tmp_path: Path) -> None:
    folder, size = a_run(tmp_path, 1), sum(files(tmp_path).values())
    a_run(tmp_path, 2)
    assert pruned(tmp_path, KeepRule(days=0, runs=1), whole=True) == [
        PruneResult(folder.name, size)
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["20260102-030405-000000"]


def test_a_run_that_is_written_is_left(tmp_path: Path) -> None:
    folder = a_run(tmp_path, 1)
    writer = RunWriter(folder, synthetic.run())
    before = files(folder)
    for whole in (False, True):
        (one,) = pruned(tmp_path, whole=whole)
        assert "being written" in one.left
    assert files(folder) == before
    del writer
    assert pruned(tmp_path)[0].freed


def test_a_run_without_an_end_is_left_while_it_may_go_on(tmp_path: Path) -> None:
    """Its writer may be on another machine that shares the folder."""
    folder = a_run(tmp_path, 1)
    (folder / "junit.xml").unlink()
    assert "no end yet" in pruned(tmp_path)[0].left
    assert (folder / "report.html").exists()


def test_what_is_no_run_folder_is_not_touched(tmp_path: Path) -> None:
    elsewhere = a_run(tmp_path / "elsewhere", 1)
    root = tmp_path / "results"
    damaged, newer, other = (root / name for name in ("damaged", "newer", "other"))
    for folder in (damaged, newer, other, root / ".hidden"):
        (folder / ATTEMPT).mkdir(parents=True)
        (folder / ATTEMPT / "arrivals.parquet").write_text("mine")
    (damaged / "run.json").write_text("{")
    (newer / "run.json").write_text(json.dumps({"schema_number": SCHEMA + 1}))
    (root / "link").symlink_to(elsewhere)
    before = files(tmp_path)
    found = pruned(root, whole=True)
    assert [one.run for one in found] == ["damaged", "newer"]
    assert all(one.left for one in found)
    assert files(tmp_path) == before


def test_files_of_others_in_a_run_stay(tmp_path: Path) -> None:
    folder = a_run(tmp_path, 1)
    for name in ("notes.txt", f"{ATTEMPT}/notes.txt", "cases/synthetic-virtio/mine/events.jsonl"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")
    pruned(tmp_path)
    assert sum("mine" in path.read_text() for path in folder.rglob("*.*") if path.is_file()) == 3


@pytest.mark.parametrize("whole", [False, True])
def test_what_a_killed_prune_left_is_swept_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    folder = a_run(tmp_path, 1)

    def killed(_path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("migrate.results.prune.shutil.rmtree", killed)
        pruned(tmp_path, whole=whole)
    if whole:
        with pytest.raises(MeasurementError, match="runs there: 0"):
            find_run(tmp_path)
    else:
        assert len(read_run(folder).attempts) == 2
    assert trend(open_store(tmp_path), TrendQuery()).problems == ()
    pruned(tmp_path, whole=whole)
    assert not list(tmp_path.rglob(".pruned-*"))


def test_the_report_of_a_pruned_run_says_why_it_can_not_be_made(tmp_path: Path) -> None:
    folder = a_run(tmp_path, 1)
    pruned(tmp_path)
    with pytest.raises(MeasurementError, match="it was pruned"):
        write_report(folder)


def test_the_command(tmp_path: Path, migrate_lab: Command) -> None:
    a_run(tmp_path, 1)
    a_run(tmp_path, 2)
    words = ("prune", "--results", tmp_path, "--keep-days", "1", "--keep-runs", "1")
    said = migrate_lab(*words, "--dry-run")
    assert said.status == 0, said.err
    assert "1 runs, " in said.out
    assert "would be freed" in said.out
    done = json.loads(migrate_lab(*words, "--json").out)
    assert done["freed_bytes"] > 0
    assert [run["run"] for run in done["runs"]] == ["20260101-030405-000000"]
    assert migrate_lab("show", "--results", tmp_path, "20260101-030405-000000").status == 0
    assert migrate_lab("prune", "--results", tmp_path).status == 2
    with pytest.raises(ConfigurationError):
        pruned(tmp_path / "nowhere")
