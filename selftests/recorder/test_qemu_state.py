"""Both QEMUs looked into while a guest moves: what is had, and what must never be asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from migrate.clock import Deadline, now_ns
from migrate.formats.qapi import MIGRATION
from migrate.formats.qemu_migration import sample_of_query
from migrate.model import Event, Observers, Sample
from migrate.model.recording import AnnounceParameters, Blocktime, DeviceStates
from migrate.recorder.events import Listener
from migrate.recorder.qemu_state import QemuWatch, Regions, watch_qemus
from migrate.recorder.qmp_queries import ranges
from selftests.doubles.qmp import (
    ENDS,
    GREETING,
    PATIENCE_S,
    Answers,
    Message,
    Script,
    StandIn,
    event,
    here,
    observers,
    queue_status,
    refusal,
    virtio_status,
)

NIC = "/machine/peripheral/net0/virtio-backend"
RAM = {"remaining": 5, "transferred": 7, "dirty-sync-count": 2, "mbps": 8.0, "duplicate": 3}
ACTIVE: Message = {"return": {"status": "active", "ram": RAM}}
NOTHING: Message = {"return": {}}
STOP: Message = {"event": "STOP", "timestamp": {"seconds": 1, "microseconds": 0}}
RESUME: Message = {"event": "RESUME", "timestamp": {"seconds": 1, "microseconds": 1}}
ROUNDS = {
    "announce-rounds": 5,
    "announce-initial": 50,
    "announce-step": 100,
    "announce-max": 550,
}
POSTCOPY: Message = {"return": [{"capability": "postcopy-ram", "state": True}]}
REFUSED: Message = {"error": {"class": "GenericError", "desc": "vhost device has not started"}}


BACKEND = {"nvqs": 2}


def status(*, vhost: bool = False) -> Message:
    more = {"vhost-started": True, "vhost-dev": BACKEND} if vhost else {}
    return {"return": virtio_status(**more)}


def script(**more: Answers | Callable[[Message], Answers]) -> dict[str, Any]:
    """A QEMU with one network device of one queue."""
    named = {name.replace("_", "-"): answers for name, answers in more.items()}
    return {
        "x-query-virtio": [
            {"return": [{"path": NIC, "name": "virtio-net"}, {"path": "/c", "name": "virtio-c"}]}
        ],
        "x-query-virtio-status": [status()],
        "x-query-virtio-queue-status": [{"return": queue_status()}],
        "x-query-virtio-vhost-queue-status": [REFUSED],
        "query-rx-filter": [{"return": [{"name": "net0", "vlan-table": [4, 2, 3, 9]}]}],
        "qom-get": [{"return": 1400}],
        "query-migrate": [NOTHING],
        "query-migrate-parameters": [{"return": ROUNDS}],
        "query-migrate-capabilities": [{"return": []}],
        "pmemsave": [NOTHING],
        **named,
    }


def nic(state: DeviceStates | None) -> Any:
    """The network device of a state that was had."""
    assert state is not None
    return state[NIC]


World = Callable[..., QemuWatch]


@pytest.fixture
def moved(tmp_path: Path) -> Iterator[World]:
    """Looks into two stand-ins until ``until`` is true of what was looked at."""
    made: list[StandIn] = []

    def look(
        source: Script,
        target: Script | None,
        until: Callable[[QemuWatch], bool],
        regions: Regions = lambda *_: (),
        greeting: Message = GREETING,
        tried: Observers | None = None,
        listener: Listener | None = None,
    ) -> QemuWatch:
        listener = listener or Listener()
        may = dict.fromkeys(("a", "b"), tried or observers())
        hosts = []
        for name, its in (("a", source), ("b", target)):
            folder = tmp_path / name
            folder.mkdir()
            hosts.append(here(name, folder))
            if its is not None:
                made.append(StandIn(folder / "migrate-lab.monitor", its, (greeting,)))
        sampled: list[Sample] = []
        with watch_qemus(hosts[0], hosts[1], listener, sampled.append, regions, may) as watch:
            assert watch is not None
            if target is not None:
                arrival = Event(at_ns=now_ns(), source="libvirt", host="b", name="started")
                listener.add(arrival)
            deadline = Deadline.after(PATIENCE_S)
            while not until(watch):
                assert not deadline.passed()
                listener.wait(lambda _event: False, Deadline.after(0.01))
        return watch

    yield look
    for one in made:
        one.close()


def test_progress_is_sampled_and_the_source_is_read_at_its_stop(moved: World) -> None:
    source = script(query_migrate=[ACTIVE, STOP])
    found = moved(source, None, lambda watch: watch.source is not None and watch.samples)
    assert found.samples[0].remaining_bytes == 5
    assert nic(found.source)["queues"] == [queue_status()]
    assert nic(found.source)["vhost"] == []  # refused: there is no backend
    assert list(found.source or ()) == [NIC]  # of network devices alone
    assert found.vhost is False
    assert not found.unseen


def test_the_target_is_read_before_the_guest_runs_on(moved: World) -> None:
    target = script(x_query_virtio=[*script()["x-query-virtio"], event("completed")])
    found = moved(script(), target, lambda watch: watch.target is not None)
    assert nic(found.target)["queues"] == [queue_status()]


def test_a_state_that_was_read_while_the_guest_ran_on_is_none(moved: World) -> None:
    target = script(
        x_query_virtio=[*script()["x-query-virtio"], event("completed")],
        x_query_virtio_queue_status=[RESUME, {"return": queue_status()}],
    )
    found = moved(script(), target, lambda watch: bool(watch.unseen))
    had = nic(found.target)
    assert (had["status"], had["queues"], had["filter"]) == (None, [], None)
    assert had["config"]["host_mtu"] == 1400  # it can't change, and was asked before
    said = "b: the guest ran on before 3 of 3 answers came: these are not compared"
    assert found.unseen == [said]


def test_a_guest_that_ran_on_before_is_told(moved: World) -> None:
    target = script(x_query_virtio=[*script()["x-query-virtio"], RESUME])
    found = moved(script(), target, lambda watch: bool(watch.unseen))
    assert found.unseen == ["b: the guest ran on before its state could be read"]


def test_the_target_is_asked_for_its_rounds_and_for_no_progress(moved: World) -> None:
    """Nothing of it comes back but the status, and the load would wait for the answer."""
    target = script(
        x_query_virtio=[*script()["x-query-virtio"], event("completed")], query_migrate=ENDS
    )
    found = moved(script(), target, lambda watch: watch.target is not None)
    assert found.announce == AnnounceParameters(rounds=5, initial_ms=50, step_ms=100, max_ms=550)
    assert found.blocktime is None
    assert not found.unseen


def postcopy(**more: Sequence[Message]) -> Script:
    """A target that the guest comes to in post-copy."""
    events = (event("postcopy-active"), RESUME, event("completed"))
    return script(
        query_migrate_capabilities=[POSTCOPY],
        x_query_virtio=[*script()["x-query-virtio"], *events],
        **more,
    )


def test_after_post_copy_the_target_tells_how_long_pages_were_waited_for(moved: World) -> None:
    told = {"postcopy-blocktime": 12, "postcopy-vcpu-blocktime": [12, 30]}
    target = postcopy(migrate_set_capabilities=[NOTHING], query_migrate=[{"return": told}])
    found = moved(script(), target, lambda watch: watch.blocktime is not None)
    assert found.blocktime == Blocktime(every_ms=12, each_ms=(12, 30))


def test_a_target_that_refuses_to_note_it_is_told_and_goes_on(moved: World) -> None:
    refused = [refusal("Postcopy-blocktime is not supported")]
    target = postcopy(migrate_set_capabilities=refused, query_migrate=[NOTHING])
    found = moved(script(), target, lambda watch: len(watch.unseen) == 2)
    said = "b: migrate-set-capabilities: Postcopy-blocktime is not supported"
    assert found.unseen == [said, "b: the guest ran on before its state could be read"]
    assert found.blocktime is None


def test_that_the_source_answers_is_noted_also_while_nothing_moves(moved: World) -> None:
    found = moved(script(), None, lambda watch: len(watch.answered_ns) > 1)
    assert found.answered_ns == sorted(found.answered_ns)
    assert not found.samples


def test_a_source_that_owes_an_answer_is_noted_until_it_ends(moved: World) -> None:
    found = moved(script(query_migrate=ENDS), None, lambda watch: bool(watch.unseen))
    assert len(found.answered_ns) == 1
    assert not found.samples


def test_queues_of_a_backend_that_may_run_are_never_asked_about(
    moved: World, tmp_path: Path
) -> None:
    source = script(x_query_virtio_status=[status(vhost=True)])
    target = script(
        x_query_virtio=[*script()["x-query-virtio"], event("completed")],
        x_query_virtio_queue_status=ENDS,
    )
    found = moved(source, target, lambda watch: watch.target is not None)
    assert found.vhost is True
    assert nic(found.target)["queues"] == []


def test_a_source_that_ends_before_it_was_read_is_told(moved: World) -> None:
    found = moved(script(query_migrate=ENDS), None, lambda watch: bool(watch.unseen))
    assert found.unseen[0].startswith("a: query-migrate: ")


def test_a_card_is_known_by_its_device_and_its_vlans_are_ranges(moved: World) -> None:
    foreign = {"name": "other", "vlan-table": []}
    cards = [{"return": [foreign, {"name": "net0", "vlan-table": [4, 2, 3, 9]}]}]
    source = script(query_migrate=[NOTHING, STOP], query_rx_filter=cards)
    found = moved(source, None, lambda watch: watch.source is not None)
    assert nic(found.source)["filter"] == {"name": "net0", "vlan-table": ["2-4", "9"]}
    assert ranges([]) == []


NEWER: Message = {
    "QMP": {
        "version": {"qemu": {"major": 11, "minor": 1, "micro": 3}, "package": "Debian"},
        "capabilities": [],
    }
}
DEADLY = observers("11.1.3", x_query_virtio_status="ends")
"""As it was found with a throw-away guest of QEMU 11.1.3."""
NO_STATUS: Script = {"x_query_virtio_status": ENDS}


def queues(count: int) -> Callable[[Message], Answers]:
    def answers(arguments: Message) -> Answers:
        number = arguments["queue"]
        refused = refusal(f"Invalid virtqueue number {number}")
        return [{"return": queue_status(number)}] if number < count else [refused]

    return answers


@pytest.mark.parametrize("count", [3, 4, 9])
def test_a_qemu_that_a_question_ends_is_not_asked_it(moved: World, count: int) -> None:
    """What else can be had is: its queues until it refuses one, filters, the configuration."""
    more = {**NO_STATUS, "x_query_virtio_queue_status": queues(count)}
    source = script(query_migrate=[ACTIVE, STOP], **more)
    target = script(x_query_virtio=[*script()["x-query-virtio"], event("completed")], **more)
    found = moved(
        source,
        target,
        lambda watch: bool(watch.source and watch.target),
        greeting=NEWER,
        tried=DEADLY,
    )
    for state in (nic(found.source), nic(found.target)):
        assert (state["status"], state["filter"]["name"]) == (None, "net0")
        assert [queue["queue-index"] for queue in state["queues"]] == [*range(count)]
    assert found.vhost is False  # QEMU refused a backend's account of a queue
    ends = "x-query-virtio-status ends QEMU 11.1.3"
    assert [why.partition(":")[0] for why in found.unseen if ends in why] == ["a", "b"]


def test_whether_a_backend_works_the_queues_is_told_by_its_account_of_one(moved: World) -> None:
    account: Message = {"return": {"num": 256}}
    source = script(
        query_migrate=[NOTHING, STOP, event("completed")],
        x_query_virtio_vhost_queue_status=[account],
        x_query_virtio_queue_status=queues(3),
        **NO_STATUS,
    )
    found = moved(source, None, lambda watch: bool(watch.source), greeting=NEWER, tried=DEADLY)
    assert found.vhost is True
    assert nic(found.source)["vhost"] == [{"num": 256}] * 4


@pytest.mark.parametrize(
    ("tried", "because"),
    [
        (Observers(), "x-query-virtio is not tried on a throw-away guest"),
        (observers("10.0.13"), "x-query-virtio was tried with QEMU 10.0.13, and this is 10.0.2"),
    ],
)
def test_nothing_experimental_is_asked_that_was_not_tried(
    moved: World, tried: Observers, because: str
) -> None:
    source = script(query_migrate=[ACTIVE, STOP, RESUME], x_query_virtio=ENDS)
    rounds = [*script()["query-migrate-parameters"], event("completed"), RESUME]
    target = script(query_migrate_parameters=rounds, x_query_virtio=ENDS)
    found = moved(source, target, lambda watch: len(watch.samples) > 3, tried=tried)
    why = f"network devices: not measured: {because}"
    assert sorted(found.unseen) == [f"a: {why}", f"b: {why}"]
    assert (found.source, found.target) == (None, None)
    assert found.vhost is None


def test_queues_are_not_asked_about_before_the_end_where_a_backend_may_run(moved: World) -> None:
    """Nobody knows whether one does: so it is taken to."""
    unknown = observers(
        x_query_virtio_status="ends", x_query_virtio_vhost_queue_status="is not answered by"
    )
    source = script(
        query_migrate=[STOP, event("device"), NOTHING],
        x_query_virtio_status=ENDS,
        x_query_virtio_vhost_queue_status=ENDS,
        x_query_virtio_queue_status=ENDS,
    )
    found = moved(source, None, lambda watch: len(watch.answered_ns) > 2, tried=unknown)
    assert found.source is None
    assert found.vhost is None
    assert any(why.startswith("a: whether a backend works the queues") for why in found.unseen)


# --- what we asked stands on the axis -------------------------------------------------------------


def heard(listener: Listener, name: str) -> list[Event]:
    return [event for event in listener.events() if event.name == name]


def test_a_question_stands_beside_the_end_of_a_qemu_that_dies_of_it(moved: World) -> None:
    listener = Listener()
    source = script(query_migrate=[ACTIVE, STOP], x_query_virtio_queue_status=ENDS)
    moved(source, None, lambda watch: bool(watch.unseen), listener=listener)
    (end,) = heard(listener, "QEMU ended")
    question = heard(listener, "question")[-1]
    assert (question.source, question.host) == ("controller", "a")
    assert "x-query-virtio-queue-status" in question.data["commands"]
    assert question.data["answered_ns"] is None
    assert (end.host, end.data) == ("a", {"shutdown": ""})
    assert end.at_ns >= question.at_ns


def test_questions_that_were_answered_or_refused_are_noted_and_libvirts_own_are_not(
    moved: World,
) -> None:
    listener = Listener()
    shutdown: Message = {**STOP, "event": "SHUTDOWN", "data": {"reason": "host-signal"}}
    turns = iter([[ACTIVE, STOP], [ACTIVE], [shutdown, *ENDS]])
    source = script(query_migrate=lambda _arguments: next(turns), query_rx_filter=[REFUSED])
    moved(source, None, lambda _watch: bool(heard(listener, "QEMU ended")), listener=listener)
    asked = heard(listener, "question")
    assert all(question.data["answered_ns"] >= question.at_ns for question in asked)
    commands = {command for question in asked for command in question.data["commands"]}
    assert {"x-query-virtio", "x-query-virtio-status", "query-rx-filter"} <= commands
    assert not commands & {"query-migrate", "qom-get"}
    assert heard(listener, "QEMU ended")[0].data == {"shutdown": "host-signal"}


def test_what_qemu_refuses_is_not_there(moved: World) -> None:
    source = script(query_migrate=[NOTHING, STOP], query_rx_filter=[REFUSED], qom_get=[REFUSED])
    found = moved(source, None, lambda watch: watch.source is not None)
    assert (nic(found.source)["filter"], nic(found.source)["config"]) == (None, {})


def test_a_backend_is_told_of_while_it_works_the_queues(moved: World) -> None:
    source = script(
        query_migrate=[NOTHING, STOP, event("completed")],
        x_query_virtio_status=[status(vhost=True)],
    )
    target = script(
        x_query_virtio=[*script()["x-query-virtio"], event("completed")],
        query_rx_filter=[*script()["query-rx-filter"], RESUME],
        x_query_virtio_status=[status(vhost=True)],
    )

    def told(watch: QemuWatch) -> bool:
        return bool(watch.source and watch.target and nic(watch.target)["backend"])

    found = moved(source, target, told)
    assert nic(found.source)["backend"] == BACKEND
    assert nic(found.target)["backend"] == BACKEND


@pytest.mark.parametrize("running", ["before", "while", "again"])
def test_a_source_that_runs_on_while_it_is_read_has_no_state(moved: World, running: str) -> None:
    """A move that is cancelled after STOP."""
    answers: dict[str, list[Message]] = {
        "before": [*ENDS],
        "while": [RESUME, {"return": queue_status()}],
        "again": [RESUME, STOP, {"return": queue_status()}],
    }
    turns = [STOP, RESUME] if running == "before" else [STOP]
    source = script(query_migrate=[*turns, NOTHING], x_query_virtio_queue_status=answers[running])
    found = moved(source, None, lambda watch: len(watch.unseen) > (running == "again"))
    assert found.source is None
    assert not found.memory
    said = "a: the guest ran on while its state was read: it is not compared"
    assert found.unseen[0] == said


def test_a_backend_that_may_run_on_is_not_asked_about(moved: World) -> None:
    """Not at STOP, nor while devices are sent: a cancelled move would let it run meanwhile."""
    source = script(
        query_migrate=[STOP, event("device"), RESUME, event("completed"), NOTHING],
        x_query_virtio_status=[status(vhost=True)],
        x_query_virtio_queue_status=ENDS,
    )
    found = moved(source, None, lambda watch: bool(watch.unseen))
    assert found.source is None
    assert found.unseen[0] == "a: the guest ran on before its state was read"


@pytest.mark.parametrize("final", ["completed", "postcopy-active"])
def test_a_backend_that_will_not_run_on_is_asked_about(moved: World, final: str) -> None:
    source = script(
        query_migrate=[STOP, event("device"), event(final), NOTHING],
        x_query_virtio_status=[status(vhost=True)],
    )
    found = moved(source, None, lambda watch: watch.source is not None)
    assert nic(found.source)["queues"] == [queue_status()]
    assert not found.unseen


def test_memory_is_read_with_the_state_and_leaves_no_file(moved: World, tmp_path: Path) -> None:
    """In two rounds: what the rings point to is known when the rings are."""

    def regions(
        state: DeviceStates, known: Mapping[int, bytes], vhost: bool
    ) -> Sequence[tuple[int, int]]:
        assert state[NIC]["queues"]
        assert not vhost
        (tmp_path / "a" / "migrate-lab.memory").write_bytes(b"rings")  # as QEMU would
        return [(0x2000, 5)] if known else [(0x1000, 5)]

    source = script(query_migrate=[NOTHING, STOP])
    found = moved(source, None, lambda watch: 0x2000 in watch.memory, regions)
    assert found.memory == {0x1000: b"rings", 0x2000: b"rings"}
    assert not (tmp_path / "a" / "migrate-lab.memory").exists()


def test_a_state_is_had_also_where_memory_can_not_be_read(moved: World) -> None:
    source = script(query_migrate=[NOTHING, STOP], pmemsave=[REFUSED])
    found = moved(source, None, lambda watch: bool(watch.unseen), lambda *_: [(0x1000, 5)])
    assert nic(found.source)["queues"] == [queue_status()]
    assert not found.memory
    assert found.unseen[0].startswith("a: its rings were not read: pmemsave: ")


def test_what_qemu_does_not_tell_is_not_measured() -> None:
    found = sample_of_query(0, "a", MIGRATION.of({"ram": {}}, ""))
    assert found is not None
    assert found.remaining_bytes is None
    assert found.rate_bytes_s is None
    active = sample_of_query(0, "a", MIGRATION.of(ACTIVE["return"], ""))
    assert active is not None
    assert active.rate_bytes_s == 1_000_000
    assert sample_of_query(0, "a", MIGRATION.of({"status": "setup"}, "")) is None


# --- nonsense -------------------------------------------------------------------------------------


def test_progress_that_makes_no_sense_is_noted_once_and_the_rest_is_had(moved: World) -> None:
    odd: Message = {"return": {"status": "active", "ram": {"remaining": "much"}}}
    turns = iter([odd, odd, odd])

    def progress(_arguments: Message) -> Answers:
        return [next(turns, STOP), NOTHING]

    source = script(query_migrate=progress)
    found = moved(source, None, lambda watch: watch.source is not None)
    assert not found.samples
    (note,) = found.unseen
    assert note.startswith("a: progress: not measured: query-migrate: ram.remaining: ")
    assert nic(found.source)["queues"] == [queue_status()]


@pytest.mark.parametrize("odd", [[], {}, {"queue-index": "0"}, {**queue_status(), "vring-num": -1}])
def test_a_queue_that_makes_no_sense_is_not_measured_and_the_rest_is_had(
    moved: World, odd: Any
) -> None:
    source = script(query_migrate=[ACTIVE, STOP], x_query_virtio_queue_status=[{"return": odd}])
    found = moved(source, None, lambda watch: watch.source is not None and watch.samples)
    assert nic(found.source)["queues"] == []
    assert nic(found.source)["status"] == virtio_status()
    assert found.unseen[0].startswith("a: not measured: x-query-virtio-queue-status: ")


def test_devices_that_make_no_sense_are_a_note(moved: World) -> None:
    source = script(x_query_virtio=[{"return": {"path": NIC}}])
    found = moved(source, None, lambda watch: bool(watch.unseen))
    assert found.unseen[0].startswith("a: x-query-virtio: Input should be a valid")
    assert found.source is None


def test_an_observer_that_fails_of_itself_is_a_note(moved: World) -> None:
    """Whatever an answer led to: the move goes on."""

    def fail(*_words: object) -> Any:
        raise KeyError("queue")

    source = script(query_migrate=[ACTIVE, STOP])
    found = moved(source, None, lambda watch: bool(watch.unseen), fail)
    assert found.unseen == ["a: not watched any more: KeyError: 'queue'"]
