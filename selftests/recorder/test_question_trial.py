"""Questions that are tried on a throw-away guest before they are asked of any other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from migrate.campaign.progress import Progress
from migrate.campaign.run_source import NewRun
from migrate.campaign.session import Session, begin
from migrate.errors import HostError
from migrate.guest.throwaway_guest import ThrowawaySide, throwaway_guest
from migrate.lab.local import lab as local
from migrate.lab.local.config import LocalConfig, LocalHostConfig
from migrate.lab.local.lab import LocalLab
from migrate.model import Case, MoveDetails, Observers
from migrate.recorder import question_trial
from migrate.recorder.qmp_queries import DEVICES, EXPERIMENTAL, QUEUE, STATUS
from migrate.recorder.question_trial import NOT_ANSWERED, observers_of, try_questions
from selftests.doubles.qmp import observers
from selftests.helpers import ROOT, new_name, remove_lab, soon


@pytest.fixture(scope="module")
def newer_lab(root: None) -> Iterator[LocalLab]:
    """A host with QEMU 11.1.3, which x-query-virtio-status ends, and one with an older one."""
    name = new_name()
    hosts = {
        "a": LocalHostConfig(root="debian-13-backports"),
        "b": LocalHostConfig(root="debian-13"),
    }
    try:
        yield local.KIND.up(LocalConfig(name=name, hosts=hosts))
    finally:
        remove_lab(name)


def harms(tried: Observers) -> dict[tuple[str, str], str]:
    return {(one.command, one.state): one.harm for one in tried.trials if one.harm}


def test_a_question_that_ends_qemu_is_found_in_every_state(
    newer_lab: LocalLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QEMU 11.1.3, once; what is harmless is asked still. And it is tried no second time."""
    host = newer_lab.hosts["a"]
    tried = observers_of(host, tmp_path)
    if tried.qemu != "11.1.3":
        pytest.skip(f"the root has QEMU {tried.qemu} by now")
    states = [state for state, names in EXPERIMENTAL.items() if STATUS in names]
    assert harms(tried) == {(STATUS, state): "ends" for state in states}
    assert tried.objection(STATUS, "running") == "ends QEMU 11.1.3"
    assert tried.objection(DEVICES, "running") == ""
    assert all(not tried.objection(QUEUE, state) for state in ("stopped", "migrated", "loaded"))
    monkeypatch.setattr(question_trial, "try_questions", lambda *_, **__: pytest.fail("again"))
    assert observers_of(host, tmp_path) == tried


def test_questions_that_do_no_harm_are_all_asked(
    newer_lab: LocalLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QEMU 10.0; a kept result that can't be read is found out anew, and so is one by request."""
    host = newer_lab.hosts["b"]
    tried = observers_of(host, tmp_path)
    assert harms(tried) == {}
    assert {one.backing for one in tried.trials} == {"none", "vhost-user"}
    for state, names in EXPERIMENTAL.items():
        assert [tried.objection(name, state) for name in names] == [""] * len(names)
    (kept,) = (tmp_path / "facts").glob("questions-*.json")
    kept.write_text("{}{")
    assert observers_of(host, tmp_path) == tried
    monkeypatch.setattr(question_trial, "try_questions", lambda *_, **__: Observers(qemu="9.9.9"))
    assert observers_of(host, tmp_path, fresh=True).qemu == "9.9.9"


@pytest.mark.parametrize("host", ["a", "b"])
def test_whatever_qemu_calls_unstable_is_tried_before_it_is_asked(
    newer_lab: LocalLab, host: str
) -> None:
    """Of all commands that the recorder's source names, by the schema of each QEMU."""
    with throwaway_guest(newer_lab.hosts[host], "none", soon()) as (source, _target):
        schema: Any = source.qemu.execute("query-qmp-schema", soon())
    commands = {
        one["name"]: one.get("features", ()) for one in schema if one["meta-type"] == "command"
    }
    sources = (ROOT / "migrate" / "recorder").glob("*.py")
    words = {
        node.value
        for path in sources
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert {"query-rx-filter", "pmemsave", "calc-dirty-rate"} <= words & commands.keys()
    unstable = {name for name in words & commands.keys() if "unstable" in commands[name]}
    assert unstable == {name for names in EXPERIMENTAL.values() for name in names}


@pytest.mark.parametrize(
    ("command", "harm"),
    [
        ("stop", "changes the guest of"),
        ("system_reset", "is followed by RESET of"),
        ("quit", "ends"),
        (QUEUE, "sends GET_VRING_BASE to the backend of"),
        ("no-such-command", ""),
    ],
)
def test_what_harm_looks_like(
    newer_lab: LocalLab, monkeypatch: pytest.MonkeyPatch, command: str, harm: str
) -> None:
    """Of commands that are known to do it; the queue of a vhost-user device that runs is one."""
    monkeypatch.setattr(question_trial, "EXPERIMENTAL", {
        state: (command,) if state == "running" else () for state in EXPERIMENTAL
    })  # fmt: skip
    tried = try_questions(newer_lab.hosts["b"])
    assert harms(tried) == ({(command, "running"): harm} if harm else {})
    if command == "no-such-command":
        assert tried.objection(command, "running") == "is not known to this QEMU"
    if command == QUEUE:
        assert [one.backing for one in tried.trials if one.harm] == ["vhost-user"]


def test_a_qemu_that_does_not_answer_is_told_from_one_that_ended() -> None:
    class Hanging:
        connected = True

        def execute(self, _command: str, _deadline: object) -> Any:
            return []

        def execute_all(self, *_words: object) -> Any:
            raise HostError("x", said="QEMU did not answer before the deadline")

        def pending(self) -> list[Any]:
            return []

    side = question_trial._Side(ThrowawaySide(cast("Any", Hanging()), None), soon())
    assert side.harm_of("x") == NOT_ANSWERED


@pytest.mark.parametrize("times", [1, 2])
def test_a_question_that_was_answered_too_late_once_is_tried_again(
    times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a host that is busy; if it is so each time, it is not asked."""
    late = iter([question_trial._HarmDone("running", DEVICES, NOT_ANSWERED)] * times)

    def run(rehearsal: question_trial._Rehearsal, *_words: object) -> str:
        if ("running", DEVICES) in rehearsal.harms:
            return "9.9.9"
        if (done := next(late, None)) is not None:
            raise done
        rehearsal.harmless.append(("running", DEVICES))
        return "9.9.9"

    monkeypatch.setattr(question_trial._Rehearsal, "run", run)
    tried = try_questions(cast("Any", SimpleNamespace(name="a")))
    objection = f"{NOT_ANSWERED} QEMU 9.9.9" if times == 2 else ""
    assert tried.objection(DEVICES, "running") == objection


def test_nothing_is_asked_where_nothing_can_be_tried(tmp_path: Path) -> None:
    class Broken:
        name, root = "a", ""

        def run(self, *_words: object) -> Any:
            raise HostError("sha256sum", said="No such file or directory")

    tried = observers_of(cast("Any", Broken()), tmp_path)
    assert tried.objection(DEVICES, "running") == (
        "is not tried on a throw-away guest (sha256sum: No such file or directory)"
    )
    assert not [*tmp_path.rglob("*.json")]


# --- with a guest under test ----------------------------------------------------------------------


@pytest.fixture
def session(newer_lab: LocalLab, tmp_path: Path) -> Session:
    return begin(newer_lab, NewRun(tmp_path / "results"), Progress(quiet=True))


CASE = Case.model_validate(
    {
        "id": "asked",
        "roots": ["debian-13-backports", "debian-13"],
        "expect": {"rings": True, "handoff": True, "outcome": "completed"},
        "workload": {"floor_s": 0.3, "settle_s": 0.3},
    }
)


def looked_into(session: Session) -> MoveDetails:
    """A move of which the rings were read: libvirt may end a source sooner on a busy machine, and
    then it is said that they were not."""
    for number in range(1, 4):
        done = session.attempt(CASE, number, *session.candidate_pairs(CASE))
        assert (done.outcome, done.void) == ("completed", ())
        (hop,) = done.inside
        if hop.rings:
            return hop
        assert hop.unseen, "not read, and no word of it"
    raise AssertionError(f"three times no rings: {hop.unseen}")


def test_a_guest_whose_qemu_is_ended_by_some_questions_moves_and_is_looked_into(
    session: Session,
) -> None:
    """From QEMU 11.1.3: its rings are read, and its state is compared by what the stream has."""
    hop = looked_into(session)
    assert hop.rings
    assert all(not ring.broken for ring in hop.rings)
    compared = [device for device in hop.devices or () if device.compared]
    assert compared
    known = {"features", "queue 0: last available"}
    if not any("bytes of devices" in why for why in hop.unseen):  # the stream's end was captured
        known |= {"status", "interrupt status"}
    # The target may have had no time to tell; the source has told.
    assert not {f"{field} (target only)" for field in known} & {*compared[0].untold}
    assert any("x-query-virtio-status ends QEMU 11.1.3" in why for why in hop.unseen)


def test_a_guest_that_our_question_ends_is_void_and_says_so(session: Session) -> None:
    """The trial is taken to have found nothing."""
    session.facts = tuple(
        facts.model_copy(update={"observers": observers(facts.versions["qemu"])})
        for facts in session.facts
    )
    done = session.attempt(CASE, 1, *session.candidate_pairs(CASE))
    assert done.result == "void"
    assert "after we asked x-query-virtio-status, which was not answered" in done.void[0]
    assert "QEMU ended on a" in done.void[0]
