"""The run folder: whole or not there, readable after a kill, clear about what is damaged."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import stat
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from migrate.errors import MeasurementError
from migrate.model import (
    SCHEMA,
    Attempt,
    Case,
    Convergence,
    Event,
    Gap,
    MoveDetails,
    Phase,
    Problem,
    Run,
    Sample,
    Verdict,
)
from migrate.report.junit import junit
from migrate.results.layout import run_name
from migrate.results.reader import find_run, read_attempt, read_run
from migrate.results.recording_file import RECORDING, recording_bytes
from migrate.results.writer import RunWriter
from selftests.doubles import synthetic
from selftests.helpers import ROOT


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    attempt = synthetic.attempt(synthetic.case())
    folder = synthetic.write_run(tmp_path, [attempt]).folder
    record = read_run(folder)
    assert record.run == synthetic.run()
    assert record.unfinished == ()
    (one,) = record.attempts
    assert one.attempt == attempt
    assert [event.name for event in one.events()] == ["STOP", "RESUME"]
    assert one.events()[1].data == {"said": synthetic.HOSTILE}
    assert list(one.samples()) == synthetic.samples()
    written = synthetic.logs(attempt)
    for direction, log in one.arrivals().items():
        for column in ("seq", "sent_ns", "received_ns"):
            assert np.array_equal(getattr(log, column), getattr(written[direction], column))
    assert set(one.arrivals()) == {"egress", "ingress"}
    assert (one.folder / "logs" / "alpha-qemu.log").read_text() == "started\n"


def test_nothing_measured_is_read_as_nothing(tmp_path: Path) -> None:
    attempt = synthetic.attempt(synthetic.case(), gaps=None, stalls=None, floor=None)
    writer = RunWriter.create(tmp_path, synthetic.run())
    one = read_attempt(writer.write_attempt(attempt))
    assert (one.events(), one.samples(), one.arrivals()) == ((), (), {})
    assert one.attempt.gaps is None


def test_a_sample_that_was_not_taken_stays_none(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, synthetic.run())
    sample = Sample(at_ns=1, host="alpha", remaining_bytes=0)
    folder = writer.write_attempt(synthetic.attempt(synthetic.case()), samples=[sample])
    assert read_attempt(folder).samples() == (sample,)


def test_events_are_one_line_each_in_order_of_time(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, synthetic.run())
    late = Event(
        at_ns=2, source="qemu", host="a", name="late", data={"raw": b"\xff", "x": "\ud800"}
    )
    early = Event(at_ns=1, source="libvirt", host="a", name="early", data={"text": "a\nb"})
    folder = writer.write_attempt(synthetic.attempt(synthetic.case()), events=[late, early])
    lines = (folder / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["early", "late"]
    assert [event.name for event in read_attempt(folder).events()] == ["early", "late"]


def test_all_is_readable_by_others_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        folder = synthetic.write_run(tmp_path, [synthetic.attempt(synthetic.case())]).folder
    finally:
        os.umask(before)
    paths = [folder, *folder.rglob("*")]
    for path in paths:
        wanted = 0o755 if path.is_dir() else 0o600 if path.suffix == ".lock" else 0o644
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path
    assert not [path for path in paths if path.name.endswith(".part")]


def test_a_run_of_the_same_name_gets_another_one(tmp_path: Path) -> None:
    first = RunWriter.create(tmp_path, synthetic.run())
    second = RunWriter.create(tmp_path, synthetic.run())
    assert first.folder != second.folder
    assert second.folder.name == second.run.name == read_run(second.folder).run.name


def test_names_of_runs_sort_by_age_and_differ() -> None:
    names = [run_name() for _ in range(50)]
    assert len(set(names)) == 50
    assert names == sorted(names)
    assert all(re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{6}", name) for name in names)


def test_a_run_is_found_by_name_by_path_and_as_the_latest(tmp_path: Path) -> None:
    older = RunWriter.create(tmp_path, synthetic.run("20250101-000000-000000")).folder
    newer = RunWriter.create(tmp_path, synthetic.run("20260101-000000-000000")).folder
    assert find_run(tmp_path) == newer
    assert find_run(tmp_path, older.name) == older
    assert find_run(tmp_path / "elsewhere", str(older)) == older
    with pytest.raises(MeasurementError, match="runs there: 2"):
        find_run(tmp_path, "nothing")
    with pytest.raises(MeasurementError, match="runs there: 0"):
        find_run(tmp_path / "elsewhere")


def test_skips_can_be_added_later(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, synthetic.run(skips=()))
    writer.update(synthetic.run())
    assert len(read_run(writer.folder).run.skips) == 1


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b", "."])
def test_no_file_is_written_outside_the_attempt(tmp_path: Path, name: str) -> None:
    writer = RunWriter.create(tmp_path, synthetic.run())
    with pytest.raises(ValueError, match="below"):
        writer.write_attempt(synthetic.attempt(synthetic.case()), files={name: "x"})


# --- a run that was killed, a disk that is full -------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path

from selftests.doubles import synthetic

case = synthetic.case()
writer = synthetic.write_run(Path(sys.argv[1]), [synthetic.attempt(case)])

class Killed(str):
    def encode(self, *_):
        os.kill(os.getpid(), signal.SIGKILL)

files = {"logs/one.log": "begun", "logs/two.log": Killed("never")}
writer.write_attempt(synthetic.attempt(case, 2), files=files)
"""


def test_a_run_that_was_killed_is_readable_up_to_its_last_attempt(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path], cwd=ROOT, timeout=60, check=False
    )
    assert done.returncode == -signal.SIGKILL
    record = read_run(find_run(tmp_path))
    assert [one.attempt.number for one in record.attempts] == [1]
    assert record.unfinished == ("synthetic-virtio/2",)


def test_an_attempt_can_be_written_again_over_what_a_kill_left(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, synthetic.run())
    case = synthetic.case()
    (writer.attempt_folder(case, 1) / "qemu.log").write_text("written while it ran")
    folder = writer.write_attempt(synthetic.attempt(case))
    assert (folder / "qemu.log").read_text() == "written while it ran"
    assert read_run(writer.folder).unfinished == ()


FULL = """
import subprocess, sys
from pathlib import Path
from migrate.errors import MeasurementError
from migrate.results.reader import read_run
from selftests.doubles import synthetic

folder = sys.argv[1]
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "none", folder], check=True)
case = synthetic.case()
writer = synthetic.write_run(Path(folder), [synthetic.attempt(case)])
try:
    writer.write_attempt(synthetic.attempt(case, 2), files={"serial.log": b"x" * 1_000_000})
except MeasurementError as error:
    print(error)
record = read_run(writer.folder)
print([one.attempt.number for one in record.attempts], record.unfinished)
print([str(path) for path in Path(folder).rglob("*.part")])
"""


@pytest.mark.needs_root
def test_a_full_disk_is_one_clear_error_and_leaves_what_was_finished(tmp_path: Path) -> None:
    done = subprocess.run(
        ["unshare", "-m", "--propagation", "private", sys.executable, "-c", FULL, tmp_path],
        cwd=ROOT,
        timeout=60,
        check=True,
        capture_output=True,
        text=True,
    )
    error, numbers, parts = done.stdout.splitlines()
    assert error.startswith("results could not be written")
    assert "No space left" in error
    assert str(tmp_path) in error
    assert "0 MiB free" in error
    assert (numbers, parts) == ("[1] ()", "[]")
    assert list(tmp_path.iterdir()) == []


def test_a_limit_on_file_size_is_an_error_like_a_full_disk(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, synthetic.run())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(MeasurementError, match="could not be written") as caught:
            writer.write_attempt(synthetic.attempt(synthetic.case()), files={"a": "x" * 2000})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert caught.value.exit_code == 5
    assert read_run(writer.folder).unfinished == ()


def test_a_folder_that_can_not_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MeasurementError, match="could not be written"):
        RunWriter.create(tmp_path / "file" / "results", synthetic.run())


# --- what is damaged, older, newer --------------------------------------------------------------


@pytest.mark.parametrize("name", ["events.jsonl", "samples.parquet", "arrivals.parquet"])
def test_a_file_cut_short_is_named(tmp_path: Path, name: str) -> None:
    writer = synthetic.write_run(tmp_path, [synthetic.attempt(synthetic.case())])
    path = writer.folder / "cases" / "synthetic-virtio" / "1" / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(MeasurementError, match="cut short") as caught:
        one = read_run(writer.folder).attempts[0]
        (one.events(), one.samples(), one.arrivals())
    assert str(path) in caught.value.tried


def test_a_line_cut_short_is_named_by_its_number(tmp_path: Path) -> None:
    writer = synthetic.write_run(tmp_path, [synthetic.attempt(synthetic.case())])
    path = writer.folder / "cases" / "synthetic-virtio" / "1" / "events.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(MeasurementError, match="line 2 is cut short"):
        read_run(writer.folder).attempts[0].events()


def changed(path: Path, **fields: object) -> None:
    document = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({k: v for k, v in document.items() if v != "gone"}))


def test_a_newer_schema_is_refused_by_its_number(tmp_path: Path) -> None:
    folder = synthetic.write_run(tmp_path, []).folder
    changed(folder / "run.json", schema_number=SCHEMA + 1, unheard_of=3)
    with pytest.raises(MeasurementError, match=f"schema {SCHEMA + 1}") as caught:
        read_run(folder)
    assert "newer" in caught.value.remedy


def test_an_older_schema_is_read_with_what_it_had(tmp_path: Path) -> None:
    writer = synthetic.write_run(tmp_path, [synthetic.attempt(synthetic.case())])
    path = writer.folder / "cases" / "synthetic-virtio" / "1" / "attempt.json"
    changed(path, schema_number=SCHEMA - 1, tcp="gone", notes="gone", stalls="gone", clocks="gone")
    changed(writer.folder / "run.json", schema_number=SCHEMA - 1, skips="gone")
    record = read_run(writer.folder)
    assert record.attempts[0].attempt.schema_number == SCHEMA - 1
    assert record.attempts[0].attempt.stalls is None


def test_a_run_that_does_not_say_what_its_lab_was_is_of_a_local_one(tmp_path: Path) -> None:
    folder = synthetic.write_run(tmp_path, [], lab_kind="nested").folder
    assert read_run(folder).run.lab_kind == "nested"
    changed(folder / "run.json", lab_kind="gone")
    assert read_run(folder).run.lab_kind == "local"


@pytest.mark.parametrize("text", ["[]", "{}", '{"schema_number": "x"}', ""])
def test_a_file_of_another_program_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(MeasurementError, match=r"run\.json"):
        read_run(tmp_path)


def test_a_value_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    folder = synthetic.write_run(tmp_path, []).folder
    changed(folder / "run.json", seed="seven")
    with pytest.raises(MeasurementError, match="seed"):
        read_run(folder)


def test_no_run_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match=r"run\.json"):
        read_run(tmp_path)


# --- junit --------------------------------------------------------------------------------------


def test_junit_counts_passes_failures_and_skips() -> None:
    fail = Verdict(check="tcp", result="fail", measured="2 resets", limit="0", evidence="3 open")
    unmeasured = Verdict(check="stall", result="unmeasured", evidence="no tick")
    attempts = [
        synthetic.attempt(synthetic.case()),
        synthetic.attempt(synthetic.case(), 2, verdicts=(fail, unmeasured)),
        synthetic.attempt(synthetic.case(), 3, verdicts=()),
    ]
    suite = ET.fromstring(junit(synthetic.run(), attempts))
    counts = {key: suite.get(key) for key in ("tests", "failures", "skipped")}
    assert counts == {"tests": "4", "failures": "2", "skipped": "1"}
    failures = suite.findall("testcase/failure")
    assert failures[0].get("type") == "tcp"
    assert "stall: unmeasured" in (failures[0].text or "")
    assert failures[1].get("message") == "no verdict was reached"
    assert ["no vDPA" in one.get("message", "") for one in suite.iter("skipped")] == [True]


def test_a_void_attempt_is_an_error_of_junit_whatever_its_verdicts_say() -> None:
    void = synthetic.attempt(synthetic.case()).model_copy(update={"void": ("no fault",)})
    suite = ET.fromstring(junit(synthetic.run(), [void]))
    assert (suite.get("errors"), suite.get("failures")) == ("1", "0")
    error = suite.find("testcase/error")
    assert error is not None
    assert (error.get("message"), error.get("type")) == ("void: no fault", "void")


def test_junit_survives_hostile_text() -> None:
    hostile = synthetic.HOSTILE
    verdict = Verdict(check=hostile, result="fail", measured=hostile, evidence=hostile)
    attempt = synthetic.attempt(
        Case(id="c"), verdicts=(verdict,), error=Problem(tried=hostile, said=hostile)
    )
    suite = ET.fromstring(junit(synthetic.run(), [attempt]))
    text = suite.findtext("testcase/failure") or ""
    assert "<script>alert(1)</script>" in text
    assert "\x00" not in text
    assert "\ufffd" in text


@pytest.mark.parametrize(
    "example",
    re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "run-folder.md").read_text(), re.DOTALL),
)
def test_the_examples_of_the_documentation_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], example: str
) -> None:
    attempt = synthetic.attempt(synthetic.case())
    writer = synthetic.write_run(tmp_path, [attempt])
    recording = recording_bytes(synthetic.recording(traffic=synthetic.traffic(attempt)))
    (writer.folder / "cases" / attempt.case.id / "1" / RECORDING).write_bytes(recording)
    writer.attempt_folder(synthetic.case(), 2)
    exec(example, {"results": tmp_path})
    said = capsys.readouterr().out
    assert "synthetic-virtio" in said
    assert "egress 150.0 ± 2.0 ms" in said or "10851 packets arrived" in said


def test_a_copy_with_changes_is_validated_as_what_is_made_anew() -> None:
    """A stop that lies 0.58 s before the first pass was written once, and no reader took it."""
    with pytest.raises(ValidationError, match="stopped_s"):
        Convergence().model_copy(update={"stopped_s": -0.58})
    with pytest.raises(ValidationError, match="no_such_field"):
        Convergence().model_copy(update={"no_such_field": 1})
    assert Convergence().model_copy(update={"stopped_s": 0.58}).stopped_s == 0.58
    assert Convergence(stopped_s=1.0).model_copy() == Convergence(stopped_s=1.0)


def test_an_attempt_that_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    writer = synthetic.write_run(tmp_path, [synthetic.attempt(synthetic.case())])
    good = synthetic.attempt(synthetic.case(), 2)
    negative = Convergence.model_construct(**{**dict(Convergence()), "stopped_s": -0.58})
    details = MoveDetails().model_copy(update={"convergence": negative})
    bad = good.model_copy(update={"inside": (details,)})
    with pytest.raises(MeasurementError, match="could not be read back"):
        writer.write_attempt(bad)
    assert [one.attempt.number for one in read_run(writer.folder).attempts] == [1]


def test_the_documentation_of_the_folder_names_every_key() -> None:
    text = (ROOT / "docs" / "run-files.md").read_text()
    for kind in (Run, Attempt, Sample, Event, Gap, Phase, Verdict):
        missing = [name for name in kind.model_fields if f"`{name}`" not in text]
        assert not missing, kind
