"""Many attempts: where cases are placed, what is noted, and what the exit code says."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import date
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from migrate import attempt as spine
from migrate import log, world
from migrate.backends.registry import backend_mode
from migrate.campaign import session
from migrate.campaign.progress import Progress, outcome
from migrate.campaign.run_source import NewRun, RunSource
from migrate.campaign.session import Session, begin, open_session
from migrate.drivers.libvirt import Hypervisor
from migrate.drivers.shell import Completed
from migrate.errors import ConfigurationError, GuestError, HostError, LabError, MeasurementError
from migrate.lab import manager
from migrate.lab.api import Host
from migrate.lab.local.config import LocalConfig
from migrate.lab.local.lab import LocalLab
from migrate.lab.namespaces import NamespaceHost
from migrate.lab.state import HostRecord, LabRecord
from migrate.model import Attempt, Capability, Case, HostFacts, QuarantineEntry, Skip
from migrate.model.recording import Recording
from migrate.recorder.base import AttemptEnv
from migrate.results.reader import read_run
from migrate.results.writer import RunWriter
from selftests.doubles import synthetic
from selftests.helpers import SaidSoFar

ROOTS = {"a": "debian-13", "b": "debian-12", "c": "debian-13"}
NOT_DONE = "the fault kill-guest at device was not done: the phase never came"
ABLE = (*backend_mode("virtio").needs, "userfaultfd")


def facts(host: str, *able: str) -> HostFacts:
    found = (Capability(name=name, able=True) for name in (*able, *ABLE))
    lacking = Capability(name="moon", able=False, reason="it is day", remedy="wait")
    return HostFacts(
        host=host, root=ROOTS[host], kernel="6", versions={}, capabilities=(*found, lacking)
    )


@pytest.fixture
def going(tmp_path: Path) -> Session:
    """A session on hosts of which nothing is asked; only ``c`` has stars."""
    record = LabRecord(
        config=LocalConfig(name="paper"),
        folder=tmp_path / "state",
        fabric="none",
        hosts=tuple(
            HostRecord(name=name, root=root, root_folder=tmp_path, namespace="none", address="")
            for name, root in ROOTS.items()
        ),
    )
    found = tuple(facts(name, *(["stars"] if name == "c" else [])) for name in ROOTS)
    writer = RunWriter.create(tmp_path / "results", synthetic.run(skips=()))
    return Session(LocalLab(record), found, writer, Progress(quiet=True))


def case(name: str = "synthetic", **fields: object) -> Case:
    return synthetic.case("virtio", name, **fields)


def names(place: tuple[Host, Host] | Skip) -> tuple[str, str]:
    assert not isinstance(place, Skip), place
    return place[0].name, place[1].name


def test_a_run_says_what_its_lab_was_made_of(
    going: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "look", lambda _lab: going.facts)
    assert begin(going.lab, NewRun(tmp_path / "local"), going.reporter).run.lab_kind == "local"
    monkeypatch.setattr(LocalLab, "kind", "nested")
    begun = begin(going.lab, NewRun(tmp_path / "nested"), going.reporter)
    assert read_run(begun.writer.folder).run.lab_kind == "nested"


# --- placing ---


def test_the_first_two_hosts_that_can(going: Session) -> None:
    assert names(going.place(case())) == ("a", "b")


def test_roots_choose_the_hosts_in_their_order(going: Session) -> None:
    assert names(going.place(case(roots=["debian-13", "debian-13"]))) == ("a", "c")
    assert names(going.place(case(roots=["debian-12", "debian-13"]))) == ("b", "a")


def test_roots_that_no_host_has_are_named(going: Session) -> None:
    place = going.place(case(roots=["debian-13", "debian-13-backports"]))
    assert isinstance(place, Skip)
    assert "debian-13 and debian-13-backports" in place.reason
    assert "here are debian-13, debian-12, debian-13" in place.reason
    assert "--lab" in place.remedy


def test_a_host_that_is_not_there_today_says_why(going: Session) -> None:
    absent = Capability(name="root", able=False, reason="unmet dependencies", remedy="another day")
    sid = HostFacts(host="e", root="debian-sid", kernel="", versions={}, capabilities=(absent,))
    going.facts = (*going.facts, sid)
    place = going.place(case(roots=["debian-13", "debian-sid"]))
    assert isinstance(place, Skip)
    assert (place.reason, place.remedy) == ("unmet dependencies", "another day")
    assert names(going.place(case())) == ("a", "b")


def test_the_reason_is_that_of_the_hosts_that_a_case_is_for(going: Session) -> None:
    place = going.place(case(roots=["debian-13", "debian-12"], needs=["moon"]))
    assert isinstance(place, Skip)
    assert place.reason == "it is day"


def test_a_need_that_is_not_met_gives_reason_and_remedy(going: Session) -> None:
    place = going.place(case(needs=["moon"]))
    assert isinstance(place, Skip)
    assert (place.reason, place.remedy) == ("it is day", "wait")


def test_a_dirty_ring_takes_kvm_on_both_hosts(going: Session) -> None:
    ring = case(guest={"dirty_ring": 4096})
    lacking = Capability(name="kvm", able=False, reason="it has none", remedy="turn it on")
    able = Capability(name="kvm", able=True)

    def facts_of(*found: Capability) -> None:
        going.facts = tuple(
            one.model_copy(update={"capabilities": (*one.capabilities, kvm)})
            for one, kvm in zip(going.facts, found, strict=True)
        )

    original = going.facts
    facts_of(able, lacking, lacking)
    place = going.place(ring)
    assert isinstance(place, Skip)
    assert (place.reason, place.remedy) == ("it has none", "turn it on")
    assert names(going.place(case())) == ("a", "b")
    going.facts = original
    facts_of(able, lacking, able)
    assert names(going.place(ring)) == ("a", "c")


def test_both_hosts_must_meet_a_need(going: Session) -> None:
    assert isinstance(going.place(case(needs=["stars"])), Skip)


def test_a_need_that_nobody_knows_is_never_met(going: Session) -> None:
    place = going.place(case(needs=["starz"]))
    assert isinstance(place, Skip)
    assert place.reason == "not looked for"
    assert "doctor" in place.remedy


# --- trying ---


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Attempts as they are asked for; a case called ``lost-…`` leaves none, ``bad-…`` fails."""
    asked: list[tuple[str, int]] = []
    errors: dict[str, LabError] = {
        "lost": GuestError("start the guest", host="a", said="no"),
        "gone": HostError("connect to libvirt", host="b", said="no"),
        "full": MeasurementError("results could not be written"),
        "image": ConfigurationError("use the disk x.qcow2", said="No such file", remedy="x"),
    }

    def attempt(wanted: Case, number: int, *_others: object) -> Attempt:
        asked.append((wanted.id, number))
        kind = wanted.id.partition("-")[0]
        if kind in errors:
            raise errors[kind]
        done = synthetic.attempt(wanted, number)
        result = "fail" if kind == "bad" else "pass"
        verdicts = tuple(v.model_copy(update={"result": result}) for v in done.verdicts)
        return done.model_copy(update={"verdicts": verdicts})

    monkeypatch.setattr(session, "attempt", attempt)
    return asked


def test_an_attempt_waits_for_a_quiet_machine_if_it_was_asked_to(
    going: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[tuple[tuple[str, ...], float]] = []
    told: list[tuple[str, ...]] = []

    def wait(_lab: object, pair: tuple[Host, Host], seconds: float, _check: object) -> Any:
        waited.append((names(pair), seconds))
        return ("it was not quiet",)

    def attempt(of: Case, number: int, env: AttemptEnv, *_rest: object) -> Attempt:
        told.append(env.notes)
        return synthetic.attempt(of, number)

    monkeypatch.setattr(session, "wait_quiet", wait)
    monkeypatch.setattr(session, "attempt", attempt)
    going.try_all([case()], repeat=1)
    going.quiet_s = 60.0
    going.try_all([case()], repeat=1)
    assert waited == [(("a", "b"), 60.0)]
    assert told == [(), ("it was not quiet",)]


def test_cases_take_turns(going: Session, tries: list[tuple[str, int]]) -> None:
    going.try_all([case(name="x"), case(name="y")], repeat=2)
    assert tries == [("x-virtio", 1), ("y-virtio", 1), ("x-virtio", 2), ("y-virtio", 2)]
    assert going.exit_code == 0
    assert going.next_number(case(name="x")) == 3


def test_a_void_attempt_is_no_pass_no_fail_and_no_zero(going: Session) -> None:
    """A case whose fault was not done, say: by its verdicts it would pass."""
    good = synthetic.attempt(case())
    void = good.model_copy(update={"void": (NOT_DONE,), "number": 2})
    assert (good.result, void.result, void.passed) == ("pass", "void", False)
    entry = QuarantineEntry(
        case="*", owner="me", bug="1", expires=date(9999, 1, 1), reason="known to fail"
    )
    going.writer.change(quarantine=(entry,))
    going.attempts[:] = [good]
    assert going.exit_code == 0
    going.attempts.append(void)
    assert going.exit_code == MeasurementError.exit_code, "quarantined or not"
    assert outcome(void) == f"completed: VOID ({NOT_DONE})"


@pytest.mark.usefixtures("tries")
@pytest.mark.parametrize(
    ("kinds", "code"),
    [
        (["good"], 0),
        (["good", "bad"], 1),
        (["bad", "gone"], 3),
        (["good", "image"], 3),  # 2 would say that no host was touched
        (["gone", "good", "lost"], 4),
        (["lost", "full", "bad"], 5),
        ([], 3),
    ],
)
def test_the_exit_code_is_that_of_the_worst(going: Session, kinds: list[str], code: int) -> None:
    going.try_all([case(name=kind) for kind in kinds], repeat=1)
    assert going.exit_code == code


@pytest.mark.usefixtures("tries")
def test_a_case_that_expects_a_failure_without_a_word_is_told_before_it_is_tried(
    going: Session, told: SaidSoFar
) -> None:
    unnamed = case(name="unnamed", expect={"outcome": "failed"})
    named = case(name="named", expect={"outcome": "failed", "error": "refused"})
    anyhow = case(name="any", expect={"outcome": "lost", "allow_unmeasured": ["error"]})
    going.try_all([unnamed, named, anyhow], repeat=1)
    (advice,) = (line for line in told.lines if "set expect.error" in line)
    assert advice.startswith("unnamed-virtio: it expects 'failed'")


@pytest.mark.usefixtures("tries")
def test_one_error_stops_no_other_case_and_is_noted_at_once(
    going: Session, told: SaidSoFar
) -> None:
    going.try_all([case(name="lost"), case(name="good")], repeat=1)
    assert [done.case.id for done in going.attempts] == ["good-virtio"]
    assert "no attempt: start the guest on host a: no" in told
    (mishap,) = read_run(going.writer.folder).run.mishaps
    assert (mishap.case_id, mishap.number, mishap.problem.said) == ("lost-virtio", 1, "no")


def test_skips_are_said_once_and_never_pass(
    going: Session, told: SaidSoFar, tries: list[tuple[str, int]]
) -> None:
    going.try_all([case(name="x", needs=["moon"])], repeat=5)
    assert tries == []
    assert [line for line in told.lines if "it is day" in line] == told.lines
    assert len(told.lines) == 1
    assert going.exit_code == session.NOTHING_RAN
    assert len(read_run(going.writer.folder).run.skips) == 1


@pytest.mark.usefixtures("tries")
def test_the_end_leaves_a_report_and_junit(going: Session) -> None:
    going.try_all([case(name="good"), case(name="bad"), case(name="lost")], repeat=1)
    report = going.finish()
    assert "lost-virtio" in report.read_text()
    junit = (report.parent / "junit.xml").read_text()
    assert 'tests="3"' in junit


# --- the lab's lifetime ---


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch, going: Session) -> dict[str, object]:
    """A machine on which labs only seem to come up and go down."""
    there: dict[str, object] = {}

    def up(config: LocalConfig, _share: object = None) -> object:
        return there.setdefault(config.name, going.lab)

    monkeypatch.setattr(manager, "is_up", lambda config: config.name in there)
    monkeypatch.setattr(manager, "up", up)
    monkeypatch.setattr(manager, "down", lambda config: there.pop(config.name))
    return there


# --- one way in ---


@pytest.fixture
def source(going: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunSource:
    """Hosts of which nothing is asked, and a place for a run folder."""
    monkeypatch.setattr(session, "look", lambda _lab: going.facts)
    return NewRun(tmp_path / "runs", command=("a", "door"))


def test_a_session_ends_with_its_report_and_then_its_lab(
    known: dict[str, object], source: RunSource, told: SaidSoFar, tmp_path: Path
) -> None:
    said = io.StringIO()
    copy = tmp_path / "junit.xml"
    with open_session(LocalConfig(name="x"), source, Progress(said), junit_copy=copy) as opened:
        assert "x" in known
        assert opened.run.command == ("a", "door")
        opened.skip(Skip(case=case(), reason="it is day", remedy="wait"))
    assert known == {}
    assert opened.report.exists()
    assert copy.read_bytes() == (opened.folder / "junit.xml").read_bytes()
    assert opened.exit_code == session.NOTHING_RAN
    assert told.lines[-2:] == ["writing the report", "taking the lab down"]
    assert [line.split("] ")[1] for line in said.getvalue().splitlines()] == told.lines
    logged = (opened.folder / log.RUN_LOG).read_text()
    assert [line.split(": ", 1)[1] for line in logged.splitlines()] == told.lines


def test_a_session_that_is_interrupted_has_a_report_too(
    known: dict[str, object], source: RunSource
) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        open_session(LocalConfig(name="x"), source, Progress(quiet=True)) as opened,
    ):
        raise KeyboardInterrupt
    assert opened.report.exists()
    assert known == {}


# --- hosts out of their mind ----------------------------------------------------------------------


def odd_journal(_host: object, argv: Sequence[str], *_more: object, **_checks: object) -> Completed:
    """Whatever is run says JSON that is no journal of guests."""
    return Completed(tuple(argv), 0, '{"id": []}\n', "")


def odd_name(_connection: object, name: str) -> None:
    raise UnicodeDecodeError("utf-8", name.encode(), 0, 1, "invalid start byte")


@pytest.mark.parametrize("kind", ["journal", "domain"])
def test_hosts_that_answer_nonsense_leave_no_attempt_and_the_next_one_is_made(
    going: Session, told: SaidSoFar, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The first attempt's, really asked; the second one finds them as they should be."""
    nothing: Any = SimpleNamespace(close=lambda: None, lookupByName=partial(odd_name, None))
    monkeypatch.setattr(world, "guest_image", lambda *_words: None)
    monkeypatch.setattr(NamespaceHost, "connect", lambda host: Hypervisor(nothing, host.name))
    if kind == "journal":
        monkeypatch.setattr(NamespaceHost, "run", odd_journal)
    else:
        monkeypatch.setattr(world, "end_left", lambda *_words: False)
    really, turns = spine.record, iter([True])

    def record(*words: Any) -> Recording:
        return really(*words) if next(turns, False) else synthetic.recording()

    monkeypatch.setattr(spine, "record", record)
    monkeypatch.setattr(spine, "leftovers", lambda _pair: ())
    going.try_all([case()], repeat=2)
    (mishap,) = read_run(going.folder).run.mishaps
    assert (mishap.number, mishap.exit_code) == (1, HostError.exit_code)
    tried = {"journal": "read which guests are ours", "domain": "look for domain guest"}[kind]
    assert (mishap.problem.tried, mishap.problem.host) == (tried, "a")
    assert mishap.problem.said
    (done,) = going.attempts
    assert done.number == 2
    assert any(line.startswith(f"no attempt: {tried} on host a: ") for line in told.lines)
