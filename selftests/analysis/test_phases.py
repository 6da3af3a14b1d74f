"""The phases of a move, from events as QEMU, libvirt, the probe and the controller say them."""

from __future__ import annotations

import pytest

from migrate.analysis.phases import phase_label, phases
from migrate.formats.qemu_migration import unknown_statuses
from migrate.model import Event, Phase
from migrate.recorder.phase_tracker import PhaseTracker

SAID = {
    "setup": ("MIGRATION", {"status": "setup"}),
    "wait-unplug": ("MIGRATION", {"status": "wait-unplug"}),
    "active": ("MIGRATION", {"status": "active"}),
    "pre": ("MIGRATION", {"status": "pre-switchover"}),
    "device": ("MIGRATION", {"status": "device"}),
    "postdevice": ("MIGRATION", {"status": "postcopy-device"}),
    "paused": ("MIGRATION", {"status": "postcopy-paused"}),
    "recover-setup": ("MIGRATION", {"status": "postcopy-recover-setup"}),
    "recover": ("MIGRATION", {"status": "postcopy-recover"}),
    "colo": ("MIGRATION", {"status": "colo"}),
    "failing": ("MIGRATION", {"status": "failing"}),
    "unheard-of": ("MIGRATION", {"status": "unheard-of"}),
    "postcopy": ("MIGRATION", {"status": "postcopy-active"}),
    "completed": ("MIGRATION", {"status": "completed"}),
    "failed": ("MIGRATION", {"status": "failed"}),
    "cancelling": ("MIGRATION", {"status": "cancelling"}),
    "cancelled": ("MIGRATION", {"status": "cancelled"}),
    "pass1": ("MIGRATION_PASS", {"pass": 1}),
    "pass2": ("MIGRATION_PASS", {"pass": 2}),
    "pass3": ("MIGRATION_PASS", {"pass": 3}),
    "STOP": ("STOP", {}),
    "RESUME": ("RESUME", {}),
    "negotiated": ("FAILOVER_NEGOTIATED", {"device-id": "ua-standby"}),
}

ELSE = {
    "announce": Event(at_ns=0, source="fabric", host="fabric", name="announce"),
    "igbvf": Event(
        at_ns=0,
        source="probe",
        host="guest",
        name="carried-by",
        data={"device": "eth2", "driver": "igbvf"},
    ),
    "virtio_net": Event(
        at_ns=0,
        source="probe",
        host="guest",
        name="carried-by",
        data={"device": "eth1", "driver": "virtio_net"},
    ),
    "virtio_vf": Event(
        at_ns=0,
        source="probe",
        host="guest",
        name="carried-by",
        data={"device": "eth2", "driver": "virtio_net"},
    ),
    "nothing": Event(at_ns=0, source="probe", host="guest", name="carried-by", data={"driver": ""}),
    "a-added": Event(at_ns=0, source="libvirt", host="a", name="device-added"),
    "b-added": Event(at_ns=0, source="libvirt", host="b", name="device-added"),
    "detached": Event(at_ns=0, source="controller", host="a", name="detached"),
    "attached": Event(at_ns=0, source="controller", host="b", name="attached"),
}


def events(script: str) -> list[Event]:
    """``10 a:setup`` is said by the QEMU on host a at 10; a word alone by somebody else."""
    found = []
    for line in script.split(", "):
        at, what = line.split()
        if what in ELSE:
            found.append(ELSE[what].model_copy(update={"at_ns": int(at)}))
            continue
        host, word = what.split(":")
        name, data = SAID[word]
        found.append(
            Event(at_ns=int(at), error_ns=2, source="qemu", host=host, name=name, data=data)
        )
    return found


def drawn(found: tuple[Phase, ...]) -> str:
    return ", ".join(f"{phase_label(phase)} {phase.begin_ns}-{phase.end_ns}" for phase in found)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        pytest.param(
            "10 a:setup, 11 a:pass1, 20 a:active, 20 b:active, 30 a:pass2, 40 a:STOP, "
            "41 a:pre, 45 a:pass3, 50 a:device, 60 a:completed, 61 b:RESUME, "
            "62 announce, 70 announce, 90 announce",
            "setup 10-20, precopy(1) 20-30, precopy(2) 30-40, stopped 40-61, "
            "pre-switchover 41-50, device 50-60, resumed 61-62, announce 62-90, settled 90-100",
            id="precopy",
        ),
        pytest.param(
            "10 a:setup, 20 a:active, 40 a:STOP, 42 a:device, 50 a:postcopy, 55 b:RESUME, "
            "56 announce, 80 a:completed",
            "setup 10-20, precopy 20-40, stopped 40-55, device 42-50, postcopy 50-80, "
            "resumed 55-56, announce 56-56, settled 80-100",
            id="postcopy-settles-when-it-is-complete",
        ),
        pytest.param(
            "10 a:setup, 20 a:active, 40 a:STOP, 50 a:device, 55 b:RESUME, 70 a:completed",
            "setup 10-20, precopy 20-40, stopped 40-55, device 50-55, resumed 55-100",
            id="device-ends-at-the-resume-and-nobody-announced",
        ),
        pytest.param(
            "10 a:setup, 20 a:active, 40 a:STOP, 50 a:device, 60 a:failed, 65 a:RESUME",
            "setup 10-20, precopy 20-40, stopped 40-65, device 50-60, resumed 65-100",
            id="failed-and-the-source-resumes",
        ),
        pytest.param(
            "10 a:setup, 20 a:active, 40 a:cancelling, 45 a:cancelled",
            "setup 10-20, precopy 20-40, cancelling 40-45, settled 45-100",
            id="aborted-before-the-stop",
        ),
        pytest.param(
            "10 a:setup, 20 a:active, 40 a:STOP, 50 a:device, 55 a:failing, 60 a:failed, "
            "65 a:RESUME",
            "setup 10-20, precopy 20-40, stopped 40-65, device 50-55, failing 55-60, "
            "resumed 65-100",
            id="a-newer-qemu-says-that-it-is-failing",
        ),
        pytest.param(
            "20 a:active, 40 a:STOP, 42 a:device, 45 a:postdevice, 55 b:RESUME, 56 a:postcopy, "
            "80 a:completed",
            "precopy 20-40, stopped 40-55, device 42-45, postcopy-device 45-55, resumed 55-100, "
            "postcopy 56-80",
            id="a-newer-qemu-waits-for-the-target-to-load-the-devices",
        ),
        pytest.param(
            "20 a:active, 40 a:STOP, 42 a:device, 50 a:postcopy, 52 b:RESUME, 53 announce, "
            "60 b:paused, 61 a:paused, 70 b:recover, 71 a:recover-setup, 72 a:recover, "
            "73 a:postcopy, 80 a:completed",
            "precopy 20-40, stopped 40-52, device 42-50, postcopy 50-61, resumed 52-53, "
            "announce 53-53, postcopy-paused 61-71, postcopy-recover-setup 71-72, "
            "postcopy-recover 72-73, postcopy 73-80, settled 80-100",
            id="postcopy-interrupted-and-recovered",
        ),
        pytest.param(
            "20 a:active, 40 a:STOP, 42 a:device, 50 a:postcopy, 52 b:RESUME, 53 announce, "
            "61 a:paused",
            "precopy 20-40, stopped 40-52, device 42-50, postcopy 50-61, resumed 52-53, "
            "announce 53-53, postcopy-paused 61-100",
            id="postcopy-interrupted-to-the-end-never-settles",
        ),
        pytest.param(
            "20 a:active, 40 a:STOP, 42 a:device, 50 a:postcopy, 52 b:RESUME, 53 announce, "
            "60 b:paused",
            "precopy 20-40, stopped 40-52, device 42-50, postcopy 50-60, resumed 52-53, "
            "announce 53-53, postcopy-paused 60-100",
            id="a-source-that-is-gone-says-nothing-but-the-target-does",
        ),
        pytest.param(
            "10 a:setup, 20 a:active, 30 a:colo, 40 a:unheard-of, 45 a:STOP, 50 a:completed, "
            "60 b:RESUME",
            "setup 10-20, precopy 20-30, colo 30-40, stopped 45-60, resumed 60-100",
            id="a-status-that-is-not-known-is-in-no-phase",
        ),
        pytest.param(
            "10 a:STOP, 11 a:setup, 12 a:active, 13 a:pass1, 30 a:completed, 60 b:RESUME",
            "stopped 10-60, setup 11-12, precopy(1) 13-30, resumed 60-100",
            id="save-and-restore",
        ),
        pytest.param(
            "1 a:STOP, 5 a:RESUME, 10 a:setup, 20 a:active, 40 a:STOP, 61 b:RESUME, 70 b:STOP",
            "setup 10-20, precopy 20-40, stopped 40-61, resumed 61-100",
            id="paused-before",
        ),
        pytest.param("40 a:STOP", "", id="never-resumed"),
        pytest.param("40 b:RESUME, 50 announce", "", id="resume-without-stop"),
        pytest.param("20 a:active, 30 a:pass1", "", id="nothing-after-active"),
        pytest.param(
            "30 announce, 40 a:STOP, 60 b:RESUME",
            "stopped 40-60, resumed 60-100",
            id="an-announcement-before-the-move-is-not-its",
        ),
    ],
)
def test_phases_are_read_from_events(script: str, expected: str) -> None:
    assert drawn(phases(reversed(events(script)), "a", "b", 100)) == expected


def test_a_status_that_is_not_known_is_named_with_its_host() -> None:
    script = "10 a:setup, 20 a:unheard-of, 30 b:unheard-of, 40 a:unheard-of, 50 a:completed"
    assert unknown_statuses(events(script)) == (("a", "unheard-of"), ("b", "unheard-of"))
    assert unknown_statuses(events("10 a:setup, 20 a:failing, 30 a:STOP")) == ()


def test_no_event_makes_no_phase() -> None:
    assert phases([], "a", "b", 100) == ()


def test_phases_carry_the_error_of_their_events() -> None:
    (stopped, resumed) = phases(events("40 a:STOP, 60 b:RESUME"), "a", "b", 100)
    assert (stopped.error_ns, resumed.error_ns) == (2, 2)


# --- an interface that goes and comes back

UNPLUG = "1 igbvf, 10 a:setup, 12 a:wait-unplug, 15 virtio_net, 18 a:active, 30 a:STOP, 31 a:device"
BEGUN = "setup 10-12, wait-unplug 12-18, precopy 18-30"
STOPPED = "stopped 30-40, device 31-38"


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        pytest.param(
            f"{UNPLUG}, 37 b:negotiated, 38 a:completed, 40 b:RESUME, 55 igbvf",
            f"{BEGUN}, standby 18-40, {STOPPED}, resumed 40-100, replug 40-55",
            id="negotiated-while-it-loads-but-nothing-comes-to-a-guest-that-stands-still",
        ),
        pytest.param(
            f"{UNPLUG}, 38 a:completed, 40 b:RESUME, 45 b:negotiated, 48 b-added, 55 igbvf",
            f"{BEGUN}, standby 18-45, {STOPPED}, resumed 40-100, replug 45-55",
            id="negotiated-after-the-resume",
        ),
        pytest.param(
            f"{UNPLUG}, 38 a:completed, 40 b:RESUME, 44 b-added, 46 b:negotiated, 55 igbvf",
            f"{BEGUN}, standby 18-44, {STOPPED}, resumed 40-100, replug 44-55",
            id="device-added-was-first",
        ),
        pytest.param(
            f"{UNPLUG}, 37 b:negotiated, 38 a:completed, 40 b:RESUME, 41 virtio_net, 50 nothing",
            f"{BEGUN}, standby 18-100, {STOPPED}, resumed 40-100",
            id="ends-on-the-standby-whatever-was-negotiated",
        ),
        pytest.param(
            f"{UNPLUG}, 37 b:negotiated, 38 a:completed, 40 b:RESUME, 42 virtio_net, 55 virtio_vf",
            f"{BEGUN}, standby 18-40, {STOPPED}, resumed 40-100, replug 40-55",
            id="a-primary-that-is-a-virtio-device-is-another-device",
        ),
        pytest.param(
            f"{UNPLUG}, 38 a:completed, 40 b:RESUME, 55 igbvf",
            f"{BEGUN}, standby 18-55, {STOPPED}, resumed 40-100",
            id="nobody-said-when-it-was-plugged-in",
        ),
        pytest.param(
            f"{UNPLUG}, 35 a:cancelling, 36 a:cancelled, 37 a:RESUME, 55 igbvf".replace(
                "31 a:device", "31 a:pre"
            ),
            f"{BEGUN}, standby 18-37, stopped 30-37, pre-switchover 31-35, "
            "cancelling 35-36, resumed 37-100, replug 37-55",
            id="aborted-in-the-switchover-it-comes-back-on-the-source",
        ),
        pytest.param(
            "10 a:setup, 12 a:wait-unplug, 18 a:cancelling, 19 virtio_net, 25 a:cancelled, "
            "40 igbvf",
            "setup 10-12, wait-unplug 12-18, cancelling 18-25, standby 18-25, settled 25-100, "
            "replug 25-40",
            id="aborted-in-wait-unplug-it-comes-back-on-the-source",
        ),
        pytest.param(
            "1 igbvf, 10 a:setup, 12 a:wait-unplug, 18 a:cancelling, 25 a:cancelled",
            "setup 10-12, wait-unplug 12-18, cancelling 18-25, standby 18-100, settled 25-100",
            id="aborted-and-it-never-came-back",
        ),
        pytest.param(
            "10 a:setup, 12 a:wait-unplug, 18 a:active, 30 a:STOP, 37 b:negotiated, "
            "38 a:completed, 40 b:RESUME, 44 b-added",
            "setup 10-12, wait-unplug 12-18, precopy 18-30, standby 18-40, stopped 30-40, "
            "resumed 40-100, replug 40-44",
            id="without-the-probe-it-ends-with-device-added",
        ),
        pytest.param(
            "10 a:setup, 12 a:wait-unplug, 18 a:active, 30 a:STOP, 40 b:RESUME, 44 b-added",
            "setup 10-12, wait-unplug 12-18, precopy 18-30, standby 18-44, stopped 30-40, "
            "resumed 40-100",
            id="one-point-is-no-phase",
        ),
        pytest.param(
            "10 a:setup, 18 a:active, 30 a:STOP, 37 b:negotiated, 40 b:RESUME, 55 igbvf",
            "setup 10-18, precopy 18-30, stopped 30-40, resumed 40-100, replug 40-55",
            id="from-a-host-without-a-vf-to-one-that-has-one",
        ),
        pytest.param(
            "10 a:setup, 18 a:active, 30 a:STOP, 40 b:RESUME, 44 b-added, 55 igbvf",
            "setup 10-18, precopy 18-30, stopped 30-40, resumed 40-100",
            id="a-device-that-is-added-without-failover-is-no-replug",
        ),
        pytest.param(
            "10 a:setup, 12 a:wait-unplug, 18 a:active, 30 a:STOP",
            "setup 10-12, wait-unplug 12-18, precopy 18-30",
            id="never-resumed",
        ),
        pytest.param(
            "5 detached, 10 a:setup, 18 a:active, 30 a:STOP, 40 b:RESUME, 60 attached",
            "setup 5-18, precopy 18-30, stopped 30-40, resumed 40-100, replug 40-60",
            id="taken-out-before-and-put-back-after",
        ),
        pytest.param(
            "5 detached, 10 a:setup, 18 a:active, 30 a:cancelling, 31 a:cancelled, 50 attached",
            "setup 5-18, precopy 18-30, cancelling 30-31, settled 31-100, replug 31-50",
            id="taken-out-and-put-back-where-it-was",
        ),
        pytest.param("5 detached, 50 attached", "setup 5-50", id="taken-out-and-refused-at-once"),
        pytest.param(
            "5 detached, 10 a:setup, 18 a:active, 30 a:STOP, 40 b:RESUME",
            "setup 5-18, precopy 18-30, stopped 30-40, resumed 40-100",
            id="taken-out-and-never-put-back",
        ),
    ],
)
def test_the_phases_of_a_primary(script: str, expected: str) -> None:
    assert drawn(phases(reversed(events(script)), "a", "b", 100)) == expected


# --- phases as they begin: faults and aborts wait for these


def begun(script: str) -> list[tuple[str, ...]]:
    """The phases that each event begins, if it begins any."""
    tracker = PhaseTracker("a")
    phases: list[str] = []
    tracker.subscribe(phases.append)
    found = []
    for event in events(script):
        phases.clear()
        tracker.feed(event)
        found += [tuple(phases)] if phases else []
    return found


def test_standby_begins_with_whatever_ends_wait_unplug() -> None:
    script = "10 a:setup, 12 a:wait-unplug, 13 b:active, 18 a:active, 19 a:pre"
    assert begun(script) == [
        ("setup",),
        ("wait-unplug",),
        ("standby", "precopy"),
        ("pre-switchover",),
    ]
    assert begun("12 a:wait-unplug, 18 a:cancelling, 19 a:cancelled") == [
        ("wait-unplug",),
        ("standby", "cancelling"),
    ]


def test_replug_begins_when_the_target_negotiates_failover() -> None:
    script = "5 a:negotiated, 30 a:STOP, 37 b:negotiated, 40 b:RESUME, 44 b-added"
    assert begun(script) == [("stopped",), ("replug",), ("resumed",)]


def test_a_move_without_failover_begins_none_of_its_phases() -> None:
    assert begun("10 a:setup, 18 a:active, 30 a:STOP, 40 b:RESUME") == [
        ("setup",),
        ("precopy",),
        ("stopped",),
        ("resumed",),
    ]


def test_an_interrupted_post_copy_begins_once_whoever_reports_it_first() -> None:
    script = "50 a:postcopy, 60 b:paused, 61 a:paused, 70 b:recover, 72 a:recover, 73 a:postcopy"
    assert begun(script) == [
        ("postcopy",),
        ("postcopy-paused",),
        ("postcopy-recover",),
        ("postcopy",),
    ]


def test_statuses_of_newer_qemus_begin_phases_and_unknown_ones_none() -> None:
    script = "40 a:postdevice, 50 a:failing, 55 a:unheard-of, 60 a:cancelling"
    assert begun(script) == [("postcopy-device",), ("failing",), ("cancelling",)]
