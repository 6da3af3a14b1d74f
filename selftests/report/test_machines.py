"""A busy machine beside its figures: in the table, in the report, and in the picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from migrate.model import Attempt, MachineFacts, MachineState, MachineUse, WorkDone
from migrate.report.figure_data import FigureData
from migrate.report.figure_machines import machine_lanes
from migrate.report.html import write_report
from migrate.report.machines import describe, machine_sections
from migrate.report.table import run_table
from migrate.report.table_text import plain, plain_sections
from migrate.report.work import work_sections
from migrate.results.reader import read_run
from migrate.results.tables import MACHINES, machines_to_parquet
from selftests.doubles import synthetic
from selftests.doubles.machine import looks

REASON = "controller, the move: programs of others used 1.20 of 2 CPUs: cc1plus"


def attempt(busy: tuple[str, ...] | None, number: int = 1, **fields: object) -> Attempt:
    machine = MachineState.model_validate({"busy": busy, **fields})
    return synthetic.attempt(synthetic.case(), number, machine=machine)


def test_a_busy_machine_is_marked_beside_the_figures_and_explained_below() -> None:
    attempts = [attempt((), 1), attempt((REASON,), 2)]
    text = plain(run_table(synthetic.run(), attempts), width=1000)
    assert "busy machine 1/2" in text
    (line,) = [line for line in text.splitlines() if "cc1plus" in line]
    assert "busy in 1 of 2 attempts, so its figures are less reliable" in line


@pytest.mark.parametrize("busy", [(), None])
def test_a_quiet_machine_has_no_mark_nor_one_that_was_not_looked_at(busy: Any) -> None:
    assert "busy" not in plain(run_table(synthetic.run(), [attempt(busy)]))


@pytest.mark.parametrize(
    ("busy", "said"),
    [((), "quiet"), (None, "whether it was quiet is not measured"), ((REASON,), "busy (1)")],
)
def test_what_is_not_known_is_not_called_quiet(busy: Any, said: str) -> None:
    assert f"the machine: {said}" in plain_sections(list(machine_sections(attempt(busy))))


def test_all_that_was_seen_is_shown_and_what_was_not_says_so() -> None:
    used = MachineUse(
        machine="b", window="move", hop=1, begin_ns=0, end_ns=10**9, cpus=2,
        busy_cpus=1.5, others_cpus=0.25, parts_s={"qemu on b": 1.25},
    )  # fmt: skip
    machine = MachineState(
        busy=(),
        uses=(used,),
        others_s={"b": {"cc1plus": 9.0}},
        facts={"b": MachineFacts(cpu="AMD EPYC", cpus=2, governor="performance")},
        unseen=("b: pressure not measured: its kernel has no PSI",),
    )
    seen = synthetic.attempt(synthetic.case(), machine=machine)
    text = plain_sections(list(machine_sections(seen)))
    for said in ("1.50", "0.25", "qemu on b 1.25 s", "cc1plus 9.00 s", "governor performance"):
        assert said in text
    assert "not measured" in text
    assert "no PSI" in text


def test_a_machine_that_says_nothing_of_itself() -> None:
    assert describe(MachineFacts()) == "? CPUs, model unknown"


def test_the_report_says_it_above_the_picture(tmp_path: Path) -> None:
    hostile = f"{REASON} {synthetic.HOSTILE}"
    writer = synthetic.write_run(tmp_path, [attempt((hostile,))])
    page = write_report(writer.folder).read_text()
    assert page.index("The machine was busy") < page.index('class="fig"')
    assert "<script>alert(1)" not in page


# --- the picture --------------------------------------------------------------------------------


def test_a_machine_has_a_lane_that_is_high_and_dark_where_others_were_in_the_way() -> None:
    machine = looks(4, {"idle_s": 0.5, "cpu_some_s": 0.5})
    (lane,) = machine_lanes(FigureData(attempt(()), {}, (), machines=(machine,)))
    assert lane.name == "CPUs of controller"
    bars = [bar for bar in lane.bars if "by others: 1.50" in bar.hover]
    assert [(bar.kind, bar.level) for bar in bars] == [("busy", 0.75)] * 4


def test_many_looks_are_drawn_together() -> None:
    machine = looks(2000, {"idle_s": 1.9})
    (lane,) = machine_lanes(FigureData(attempt(()), {}, (), machines=(machine,)))
    assert 10 < len(lane.bars) <= 16


def test_looks_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    machine = looks(3, {"idle_s": 1.5, "qemu": 0.5, "swapped_mib": 0.1})
    one = attempt((), facts={"controller": {"cpu": "X", "cpus": 2}})
    writer = synthetic.write_run(tmp_path, [])
    writer.write_attempt(one, files={MACHINES: machines_to_parquet([machine])})
    (record,) = read_run(writer.folder).attempts
    assert record.machines() == (machine,)


def test_a_run_from_before_machines_were_looked_at(tmp_path: Path) -> None:
    writer = synthetic.write_run(tmp_path, [synthetic.attempt(synthetic.case())])
    (record,) = read_run(writer.folder).attempts
    assert record.machines() == ()
    assert list(machine_sections(record.attempt)) == []


def test_what_the_workload_did_stands_beside_what_it_was_asked() -> None:
    done = WorkDone(
        window="move", hop=1, seconds=2.5, dirty_mib_s=1.1, packets_s=180.2, tcp_bytes_s=6400
    )
    seen = synthetic.attempt(synthetic.case(), work=(done,))
    lines = plain_sections(list(work_sections(seen))).splitlines()
    assert lines[3].split()[:3] == ["asked", "4", "1000"]
    assert lines[4].split() == ["move", "1", "2.50", "s", "1.1", "180", "6400"]
    assert list(work_sections(synthetic.attempt(synthetic.case()))) == []
