"""Several processes, one lab: who gets which hosts, what each writes, what a dead one leaves."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from migrate import log
from migrate.campaign.session import Session
from migrate.cleanup.leftovers import leftovers
from migrate.clock import Deadline
from migrate.errors import HostError
from migrate.lab import fabric_kind
from migrate.lab.api import Lab
from migrate.lab.kinds import load_lab
from migrate.lab.lease.file_lock import lock_hosts
from migrate.lab.lease.pair import Pair, lease_first_free
from migrate.lab.local import lab as local
from migrate.lab.local.config import LocalConfig, LocalHostConfig
from migrate.lab.local.lab import LocalLab
from migrate.lab.state import new_record
from migrate.model import AttemptError, Case, Problem, Skip
from migrate.plugins.xdist_shared import SharedRun
from migrate.results.reader import read_run
from migrate.results.writer import RunWriter
from selftests.doubles import synthetic
from selftests.helpers import ROOT, SaidSoFar, remove_lab

HOSTS: list[Any] = [SimpleNamespace(name=name) for name in "abcd"]
A, B, C, D = HOSTS
PAIRS: list[Pair] = [(A, B), (C, D)]


# --- which pair ---


def lab(folder: Path) -> Lab:
    """One whose leases are in a folder, and that has no coordinator."""
    return cast("Lab", SimpleNamespace(leases=folder, coordinator=None))


@pytest.mark.usefixtures("silent")
def test_the_first_pair_that_is_free(tmp_path: Path) -> None:
    soon = Deadline.after(10)
    with lease_first_free(lab(tmp_path), PAIRS, "a case", soon) as (first, _):
        assert first == (A, B)
        with lease_first_free(lab(tmp_path), PAIRS, "a case", soon) as (second, _):
            assert second == (C, D)
    with lease_first_free(lab(tmp_path), PAIRS, "a case", soon) as (again, _):
        assert again == (A, B)


@pytest.mark.usefixtures("silent")
def test_half_a_pair_is_not_kept(tmp_path: Path) -> None:
    soon = Deadline.after(10)
    with (
        lock_hosts(tmp_path, ["b"], soon),
        lease_first_free(lab(tmp_path), PAIRS, "a case", soon) as (found, _),
        lock_hosts(tmp_path, ["a"], soon),
    ):
        assert found == (C, D)


def test_who_finds_none_free_waits_for_any_and_says_for_whom(tmp_path: Path) -> None:
    release, heard = threading.Event(), []

    def hold(holding: threading.Event) -> None:
        with lock_hosts(tmp_path, ["d"], Deadline.after(10)):
            holding.set()
            release.wait(30)

    def said(line: str) -> None:
        heard.append(line)
        release.set()

    holding = threading.Event()
    holder = threading.Thread(target=hold, args=(holding,))
    holder.start()
    assert holding.wait(10)
    with (
        log.shown(said),
        lock_hosts(tmp_path, ["a"], Deadline.after(10)),
        lease_first_free(lab(tmp_path), PAIRS, "a case", Deadline.after(30)) as (found, _),
    ):
        assert found == (C, D)
    holder.join()
    holder_of = f"held by process {os.getpid()}"
    (line,) = heard
    for part, name in zip(line.split("; waiting"), "ad", strict=True):
        assert f"for host {name}, {holder_of}" in part
    assert line.endswith("; 0 s so far, 30 s at most")


def test_who_finds_none_free_gives_up_at_the_deadline(tmp_path: Path) -> None:
    with (
        lock_hosts(tmp_path, ["a", "c"], Deadline.after(10)),
        pytest.raises(HostError, match="none of 2 pairs was free") as caught,
        lease_first_free(lab(tmp_path), PAIRS, "a case", Deadline.after(0)),
    ):
        pass
    assert "waiting for host a, held by process" in caught.value.said


@pytest.mark.parametrize(("count", "peers"), [(2, 1), (3, 1), (4, 4), (8, 8)])
def test_each_source_has_a_peer_of_its_own_where_pairs_can_be_used_at_once(
    count: int, peers: int, tmp_path: Path
) -> None:
    config = LocalConfig(name="x", hosts={name: LocalHostConfig() for name in "abcdefgh"[:count]})
    record = new_record(config, {"debian-13": tmp_path}, "mlab-x-{}", tmp_path)
    own = {record.peer_of(host.name) for host in record.hosts}
    assert len(own) == peers and record.fabric not in own
    assert len(set(record.namespaces)) == len(record.namespaces) == count + 1 + peers
    assert record.namespaces[-1] == record.fabric


def test_the_example_has_four_pairs() -> None:
    assert len(load_lab(ROOT / "labs" / "four-pairs.toml").hosts) == 8


# --- one run folder ---


@pytest.fixture
def writers(tmp_path: Path) -> Iterator[tuple[RunWriter, RunWriter]]:
    """Two processes' views of one run folder."""
    first = RunWriter.create(tmp_path, synthetic.run(skips=()))
    yield first, RunWriter(first.folder, first.run)


def test_what_one_notes_another_keeps(writers: tuple[RunWriter, RunWriter]) -> None:
    skip = Skip(case=synthetic.case(), reason="no", remedy="yes")
    mishap = AttemptError(
        case_id="x", number=1, problem=Problem(tried="it", said="no"), exit_code=3
    )
    writers[0].amend(lambda run: run.model_copy(update={"skips": (*run.skips, skip)}))
    writers[1].amend(lambda run: run.model_copy(update={"mishaps": (*run.mishaps, mishap)}))
    found = read_run(writers[0].folder).run
    assert (found.skips, found.mishaps) == ((skip,), (mishap,))


def test_no_two_attempts_have_one_number(writers: tuple[RunWriter, RunWriter]) -> None:
    first, second = writers
    case = synthetic.case()
    assert [writer.claim(case) for writer in (first, second)] == [1, 2]
    first.write_attempt(synthetic.attempt(case, 1))
    assert second.claim(case, 1) == 3
    first.disclaim(case, 3)
    assert second.claim(case, 3) == 3
    assert read_run(first.folder).unfinished == (f"{case.id}/2", f"{case.id}/3")


# --- workers ---

CASE = """
name = "one"
workload.floor_s = 1
workload.settle_s = 1
[matrix]
"interface.mode" = ["virtio", "failover"]
"interface.ring" = ["split", "packed"]
"""
DIES = """
import os
from migrate.model import Case

def test_dies(boot):
    with boot(Case(id="dies")):
        os._exit(9)
"""


@pytest.fixture
def four_hosts(lab_name: str) -> Iterator[LocalLab]:
    """Two pairs; up before the tests begin, so that it is not theirs to take down."""
    hosts = {name: LocalHostConfig(huge_pages=0) for name in "abcd"}
    try:
        yield local.KIND.up(LocalConfig(name=lab_name, hosts=hosts))
    finally:
        remove_lab(lab_name)


def test_workers_share_a_lab_and_one_that_dies_leaves_nothing(
    pytester: pytest.Pytester, four_hosts: LocalLab, tmp_path: Path
) -> None:
    hosts = "".join(f"[hosts.{name}]\nhuge_pages = 0\n" for name in four_hosts.hosts)
    pytester.path.joinpath("lab.toml").write_text(hosts)
    pytester.path.joinpath("one.toml").write_text(CASE)
    test = pytester.makepyfile(DIES)
    where = ("--lab", "lab.toml", "--lab-name", four_hosts.name, "--results", str(tmp_path / "r"))
    result = pytester.runpytest_subprocess(
        *("-p", "no:cacheprovider", "-n2", "--repeat=2", *where, str(test), "one.toml")
    )
    result.assert_outcomes(passed=4, skipped=4, failed=1)
    result.stdout.fnmatch_lines(["worker 'gw*' crashed while running*test_dies*"])
    (folder,) = (tmp_path / "r").iterdir()
    found = read_run(folder)
    assert len(found.run.skips) == 2, "each case is said once, whoever met it"
    attempts = [record.attempt for record in found.attempts]
    assert [one.passed for one in attempts] == [True] * 4
    assert {one.number for one in attempts} == {1, 2}
    pairs = [{one.source, one.target} for one in attempts]
    at_once = [
        (pairs[n], pairs[m])
        for n, one in enumerate(attempts)
        for m, other in enumerate(attempts[:n])
        if one.begin_ns < other.end_ns and other.begin_ns < one.end_ns
    ]
    assert at_once
    assert not [both for both in at_once if set.intersection(*both)]
    assert (folder / "report.html").exists()
    assert (folder / "junit.xml").exists()
    assert fabric_kind.find(four_hosts.name) is not None
    assert leftovers(four_hosts.hosts.values()) == ()


KILLED = """
import os, sys
from migrate.lab import fabric_kind
from migrate.model import Case
from migrate.campaign.progress import Progress
from migrate.campaign.run_source import NewRun
from migrate.campaign.session import begin
from pathlib import Path
going = begin(fabric_kind.find(sys.argv[1]), NewRun(Path(sys.argv[2])), Progress(quiet=True))
case = Case(id="killed")
going.next_number(case)
with going.build_world(case, going.place(case)):
    print(going.writer.folder, flush=True)
    os._exit(9)
"""


def killed(lab: LocalLab, results: Path) -> str:
    """A job that dies while its guest runs; its run folder."""
    argv = [sys.executable, "-c", KILLED, lab.name, str(results)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 9, done.stderr
    assert [line for line in leftovers([lab.hosts["a"]]) if line.startswith("domain")]
    return done.stdout.strip()


def test_who_comes_next_ends_what_a_dead_job_left(
    shared_lab: LocalLab, going: Session, told: SaidSoFar, tmp_path: Path
) -> None:
    killed(shared_lab, tmp_path / "killed")
    case = Case(id="next")
    place = going.place(case)
    assert isinstance(place, tuple)
    assert going.attempt(case, going.next_number(case), place).passed
    assert "host a had a guest that a killed job left" in told


def test_the_last_word_ends_it_in_a_lab_that_stays_up(
    shared_lab: LocalLab, told: SaidSoFar, tmp_path: Path
) -> None:
    folder = killed(shared_lab, tmp_path / "killed")
    room = tmp_path / "room"
    room.mkdir()
    (room / "run").write_text(folder)
    assert SharedRun(room).close(LocalConfig(name=shared_lab.name)) == Path(folder)
    assert "host a had a guest that a killed job left" in told
    assert leftovers(shared_lab.hosts.values()) == ()
    assert read_run(Path(folder)).unfinished == ("killed/1",)
    assert fabric_kind.find(shared_lab.name) is not None
