"""What goes wrong on a lab: it is said clearly, nothing hangs, and nothing is left."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from migrate import locks
from migrate import world as stage
from migrate.backends.vhost_user import ovs
from migrate.backends.virtio.backend import Virtio
from migrate.campaign import session
from migrate.campaign.progress import Progress
from migrate.campaign.run_source import NewRun
from migrate.campaign.session import Session, begin
from migrate.checks.registry import run_checks
from migrate.cleanup.leftovers import leftovers
from migrate.clock import Deadline
from migrate.drivers import libvirt as libvirt_client
from migrate.drivers.libvirt import Domain
from migrate.errors import CleanupError, GuestError, HostError, LeaseLostError
from migrate.guest import lifecycle as guest
from migrate.guest.domain_xml import CONSOLE
from migrate.lab import fabric_kind
from migrate.lab.api import Host
from migrate.lab.config import cache_folder
from migrate.lab.lease import pair as pairs
from migrate.lab.lease.file_lock import lock_hosts
from migrate.lab.local import lab as local
from migrate.lab.local.config import LocalConfig, LocalHostConfig
from migrate.lab.local.lab import LocalLab
from migrate.lab.namespaces import NamespaceHost
from migrate.migration import hop as hops
from migrate.migration import move as migration
from migrate.migration.faults import stop_libvirtd
from migrate.model import Attempt, Case, Fault, Mode
from migrate.recorder.base import Rig
from selftests.command_line import Run, started
from selftests.helpers import SCENARIOS, SaidSoFar, traces

QUICK = SCENARIOS / "quickstart.toml"
ONE = (QUICK, "--set", "interface.mode=virtio")
"""One case that every lab can run."""
SLOW = (*ONE, "--set", "policy.bandwidth_mib_s=4")
"""A move that goes on for half a minute unless something happens."""


def case(mode: Mode = "virtio", **fields: object) -> Case:
    return Case.model_validate({"id": f"case-{mode}", "interface": {"mode": mode}, **fields})


def tried(going: Session, wanted: Case) -> Attempt:
    place = going.place(wanted)
    assert isinstance(place, tuple)
    return going.attempt(wanted, going.next_number(wanted), place)


def results(attempt: Attempt) -> dict[str, str]:
    return {verdict.check: verdict.result for verdict in attempt.verdicts}


# --- hosts ---


def test_a_host_that_is_gone_is_named_and_nothing_is_left(lab_name: str, tmp_path: Path) -> None:
    config = LocalConfig(
        name=lab_name, hosts={name: LocalHostConfig(huge_pages=0) for name in "ab"}
    )
    lab = local.KIND.up(config)
    going = begin(lab, NewRun(tmp_path), Progress(quiet=True))
    init = lab.record.hosts[1].init
    assert init is not None
    init.end(Deadline.after(10))
    with pytest.raises(HostError) as caught:
        tried(going, case())
    assert caught.value.host == "b"
    assert [mishap.exit_code for mishap in going.run.mishaps] == [3]
    assert going.exit_code == 3
    assert going.finish().exists()
    assert leftovers([lab.hosts["a"]]) == ()
    assert fabric_kind.find(lab_name) is None, "half a lab is no lab"
    fabric_kind.down(lab_name)
    assert traces(lab_name) == []


@contextmanager
def no_libvirtd(host: Host) -> Iterator[None]:
    """A host whose libvirtd has crashed, and is started again afterwards."""
    start = stop_libvirtd(host)
    try:
        yield
    finally:
        start()


@pytest.mark.parametrize("side", ["a", "b"])
def test_a_host_without_libvirtd_is_named(going: Session, side: str) -> None:
    with no_libvirtd(going.lab.hosts[side]), pytest.raises(HostError) as caught:
        tried(going, case())
    assert (caught.value.host, caught.value.exit_code) == (side, 3)
    assert "libvirtd" in caught.value.remedy
    assert leftovers(going.lab.hosts.values()) == ()


@pytest.mark.parametrize("side", ["source", "target"])
def test_libvirtd_crashes_in_the_middle_and_the_guest_stays(going: Session, side: str) -> None:
    fault = Fault.model_validate({"at": "precopy", "do": "stop-libvirtd", "on": side})
    said = "client socket is closed|End of file|Connection reset"
    expect = {"outcome": "failed", "held_by": ["source"], "error": said}
    attempt = tried(going, case(faults=[fault], expect=expect, policy={"bandwidth_mib_s": 16}))
    assert (attempt.outcome, attempt.held_by) == ("failed", ("a",))
    assert attempt.error is not None
    assert attempt.passed, "memory, connections and interface are asked about, too"


def test_a_move_that_loses_the_backend_is_a_failure_in_the_words_of_the_targets_qemu(
    going: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What QEMU says at its start stands for what it says of a device that it lost."""

    def backend_errors(_self: Virtio, log: str) -> tuple[str, ...]:
        lines = [line for line in log.splitlines() if "starting up libvirt" in line]
        return tuple(line for line in lines if "hostname: b" in line)

    monkeypatch.setattr(Virtio, "backend_errors", backend_errors)
    attempt = tried(going, case())
    assert (attempt.outcome, attempt.held_by) == ("completed", ("b",))
    assert attempt.backend_failed is not None
    assert "hostname: b" in attempt.backend_failed[0]
    (verdict,) = [one for one in attempt.verdicts if one.check == "backend"]
    assert (verdict.result, verdict.evidence) == ("fail", attempt.backend_failed[0])
    assert not attempt.passed


@pytest.mark.parametrize("times", [1, 100])
def test_a_guest_that_its_backend_fails_at_the_start_is_started_again_a_few_times(
    going: Session, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    logs: list[str] = []

    def backend_errors(_self: Virtio, log: str) -> tuple[str, ...]:
        logs.append(log)
        return ("vhost vdpa map fail!",) if len(logs) <= times else ()

    monkeypatch.setattr(Virtio, "backend_errors", backend_errors)
    if times == 1:
        attempt = tried(going, case())
        assert attempt.passed
        assert any("started again" in note and "map fail" in note for note in attempt.notes)
    else:
        with pytest.raises(GuestError, match="map fail"):
            tried(going, case())
        assert len(logs) == 1 + stage.RESTARTS
    starts = [log.count("starting up libvirt") for log in logs]
    assert set(starts) == {1}, "each start is judged by its own log"
    assert leftovers(going.lab.hosts.values()) == ()


# --- the guest ---


def test_the_guest_crashes_in_the_middle(going: Session) -> None:
    fault = Fault(at="precopy", do="kill-guest", on="source")
    killed = r"^migrate to b: QEMU on a ended \(by libvirt: crashed\), without a word; "
    expect = {"outcome": "lost", "held_by": [], "error": killed}
    attempt = tried(going, case(faults=[fault], expect=expect, policy={"bandwidth_mib_s": 16}))
    assert (attempt.outcome, attempt.held_by) == ("lost", ())
    assert any("receipts" in note for note in attempt.notes)
    open_ended = {gap.direction for gap in attempt.gaps or () if gap.open_ended}
    assert open_ended == {"egress"}, "of what came to it after its last receipt nothing is known"
    assert attempt.leftovers == ()
    assert (attempt.void, attempt.failed_verdicts) == ((), ())
    unexpected = attempt.model_copy(update={"case": case()})
    assert results(unexpected)["outcome"] == "pass"
    verdicts = {verdict.check: verdict for verdict in run_checks(unexpected)}
    assert verdicts["held-by"].evidence == "THE GUEST RUNS NOWHERE"
    assert (verdicts["outcome"].result, verdicts["memory"].result) == ("fail", "unmeasured")


def test_a_guest_that_panics_on_the_target_is_a_failed_attempt_with_all_that_was_recorded(
    going: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow = hops.follow

    def panic(rig: Rig, host: Host) -> None:
        with host.connect() as hypervisor:
            domain = hypervisor.find(rig.domain.uuid)
            assert domain is not None
            domain.suspend()
        said = f"echo 'Kernel panic - not syncing: Attempted to kill init!' >> {CONSOLE}"
        host.run(["sh", "-c", said], Deadline.after(10))
        follow(rig, host)

    monkeypatch.setattr(hops, "follow", panic)
    monkeypatch.setattr(hops, "FOLLOW_S", 2.0)
    attempt = tried(going, case())
    assert (attempt.outcome, attempt.held_by) == ("failed", ("b",))
    assert attempt.error is not None
    assert (attempt.error.host, attempt.error.said) == (
        "b",
        "the move to b completed, then its probe stopped answering; its console ends with: "
        "Kernel panic - not syncing: Attempted to kill init!",
    )
    assert attempt.result == "fail"
    assert attempt.reported.downtime_ms is not None
    assert attempt.phases
    assert {gap.direction for gap in attempt.gaps or () if gap.open_ended} >= {"egress"}
    assert attempt.leftovers == ()


def test_a_postcopy_whose_link_stays_cut_is_recoverable_and_says_so(going: Session) -> None:
    """TCP gives the link up before libvirt's keepalive does: QEMU pauses the post-copy."""
    fields: dict[str, Any] = {
        "faults": [{"at": "postcopy", "do": "cut-migration-link"}],
        "policy": {"method": "postcopy", "bandwidth_mib_s": 8, "postcopy_bandwidth_mib_s": 8},
        "expect": {
            "outcome": "recoverable",
            "error": "recovering was not tried; .*postcopy-paused",
        },
    }
    wanted = case(**fields)
    if not isinstance(going.place(wanted), tuple):
        pytest.skip("no post-copy on this machine")
    retries = "/proc/sys/net/ipv4/tcp_retries2"
    hosts = going.lab.hosts.values()
    before = {host.name: host.run(["cat", retries], Deadline.after(9)).out for host in hosts}
    try:
        for host in hosts:
            host.run(["tee", retries], Deadline.after(9), text="3")
        attempt = tried(going, wanted)
    finally:
        for host in hosts:
            host.run(["tee", retries], Deadline.after(9), text=before[host.name])
    assert results(attempt)["outcome"] == results(attempt)["error"] == "pass"
    assert any("paused (postcopy-failed)" in note for note in attempt.notes)
    assert attempt.leftovers == ()


def test_the_incoming_guest_crashes_and_the_source_goes_on(going: Session) -> None:
    fault = Fault(at="precopy", do="kill-guest", on="target")
    expect = {
        "outcome": "failed",
        "held_by": ["source"],
        "error": r"QEMU on b ended \(by libvirt: (crashed|failed)\), without a word",
    }
    attempt = tried(going, case(faults=[fault], expect=expect, policy={"bandwidth_mib_s": 16}))
    assert (attempt.outcome, attempt.held_by) == ("failed", ("a",))
    assert attempt.passed, attempt.verdicts


Running = Callable[..., AbstractContextManager[Domain]]


def test_a_probe_that_does_not_answer_ends_the_attempt(
    going: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    running: Running = guest.running

    @contextmanager
    def suspended(*words: Any) -> Iterator[Domain]:
        with running(*words) as domain:
            domain.suspend()
            yield domain

    place = going.place(case())
    assert isinstance(place, tuple)
    with going.build_world(case(), place):
        pass  # the saved state is there: what follows is the restored guest alone
    monkeypatch.setattr(stage, "running", suspended)
    monkeypatch.setattr(stage, "START_S", 4.0)
    with pytest.raises(GuestError) as caught:
        tried(going, case())
    assert (caught.value.host, caught.value.exit_code) == ("guest on a", 4)
    assert caught.value.remedy
    (log,) = going.writer.folder.glob("mishap-*-a-qemu.log")
    assert "qemu-system-x86_64" in log.read_text(), "the lab goes, what its QEMU said stays"
    assert going.exit_code == 4
    assert leftovers(going.lab.hosts.values()) == ()


def test_a_backend_that_is_down_at_the_guests_start_does_not_hang(
    going: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    running: Running = guest.running
    if not isinstance(going.place(case("vhost-user")), tuple):
        pytest.skip("no OVS-DPDK on this machine")

    @contextmanager
    def without_switch(*words: Any) -> Iterator[Domain]:
        ovs.kill_switch(going.lab.hosts["a"], Deadline.after(10))
        with running(*words) as domain:
            yield domain

    with monkeypatch.context() as patch:
        patch.setattr(stage, "running", without_switch)
        patch.setattr(stage, "START_S", 5.0)
        with pytest.raises(GuestError) as caught:
            tried(going, case("vhost-user"))
    assert (caught.value.host, caught.value.exit_code) == ("a", 4)
    assert "backend" in caught.value.remedy
    assert leftovers(going.lab.hosts.values()) == ()
    assert tried(going, case("vhost-user")).passed, "the switch is started again when needed"


def no_answer(_domain: Domain) -> None:
    """libvirt waits for a QEMU that hangs; whoever waits for this is a daemon's thread."""
    threading.Event().wait(20)


def test_a_guest_that_libvirt_does_not_end_is_ended_by_its_id(
    going: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = going.place(case())
    assert isinstance(place, tuple)
    monkeypatch.setattr(guest, "END_S", 0.5)
    monkeypatch.setattr(Domain, "destroy", no_answer)
    with (
        pytest.raises(CleanupError, match="libvirt does not answer"),
        going.build_world(case(), place),
    ):
        pass
    monkeypatch.undo()
    processes = going.lab.hosts["a"].run(["ps", "-e", "-o", "comm="], Deadline.after(10)).out
    assert "qemu-system" not in processes


def test_a_call_that_does_not_end_is_an_attempt_and_poisons_nothing(
    going: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migration, "GRACE_S", 0.5)
    monkeypatch.setattr(Domain, "abort_job", no_answer)
    policy = {"bandwidth_mib_s": 1, "timeout_s": 0.5}
    attempt = tried(going, case(policy=policy))
    assert (attempt.outcome, attempt.held_by) == ("failed", ("a",))
    assert attempt.error is not None
    assert attempt.error.said == "libvirt's call did not end"
    assert attempt.leftovers == ()
    monkeypatch.undo()
    assert tried(going, case()).passed


# --- the controller ---

MOMENTS = {
    "the lab comes up": "starting the hosts",
    "the guest boots": "[1/1]",
    "the guest moves": "iteration",
    "the logs are read back": "reading the probes' logs back",
}


@pytest.mark.parametrize("line", MOMENTS.values(), ids=list(MOMENTS))
def test_killed_at_any_moment_then_lab_down(
    line: str, lab_name: str, tmp_path: Path, migrate_lab: Run
) -> None:
    scenario = SLOW if line == "iteration" else ONE
    with started("run", *scenario, "--name", lab_name, "--results", tmp_path) as command:
        command.await_line(line)
        command.kill()
        command.wait()
    assert traces(lab_name), "a kill leaves what there was"
    assert migrate_lab("lab", "down", "--name", lab_name).status == 0
    assert traces(lab_name) == []
    shown = migrate_lab("show", "--results", tmp_path)
    if any(tmp_path.iterdir()):
        assert shown.status == 0, shown.err
    else:
        assert "run something first" in shown.err


def test_lab_down_takes_a_saved_guest_along(
    lab_name: str, tmp_path: Path, migrate_lab: Run
) -> None:
    words = (SCENARIOS / "save-restore.toml", "--set", "interface.mode=virtio")
    with started("run", *words, "--name", lab_name, "--results", tmp_path) as command:
        command.await_line("moving the guest")
        command.kill()
        command.wait()
    left = cache_folder() / "warm" / f"saved-{lab_name}-a.sav"
    left.touch()  # the kill came before or after the save
    other = left.with_name(f"saved-{lab_name}x-a.sav")
    other.touch()
    try:
        assert migrate_lab("lab", "down", "--name", lab_name).status == 0
        assert (left.exists(), other.exists()) == (False, True)
    finally:
        other.unlink()
    assert traces(lab_name) == []


@pytest.mark.parametrize("how", ["interrupt", "terminate"])
def test_interrupted_in_the_middle_of_a_move(
    how: str, lab_name: str, tmp_path: Path, migrate_lab: Run
) -> None:
    with started("run", *SLOW, "--name", lab_name, "--results", tmp_path) as command:
        command.await_line("iteration")
        getattr(command, how)()
        ended = command.wait()
    assert ended.status == 130, ended.err
    assert ended.err.splitlines()[-1].startswith("migrate-lab: interrupted")
    assert "Traceback" not in ended.err
    assert traces(lab_name) == []
    assert migrate_lab("show", "--results", tmp_path).status == 0


def test_a_second_interrupt_does_not_end_the_undoing_of_the_first(
    lab_name: str, tmp_path: Path
) -> None:
    with started("run", *SLOW, "--name", lab_name, "--results", tmp_path) as command:
        command.await_line("iteration")
        command.interrupt()
        command.await_line("writing the report")
        command.interrupt()
        ended = command.wait()
    assert ended.status == 130, ended.err
    assert "still undoing" in ended.err
    assert traces(lab_name) == []


def test_a_libvirtd_that_hangs_is_not_waited_for(
    shared_lab: LocalLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = shared_lab.hosts["b"]
    pid = host.run(["cat", "/run/libvirtd.pid"], Deadline.after(5)).out.strip()
    monkeypatch.setattr(libvirt_client, "OPEN_S", 0.5)
    host.run(["kill", "-STOP", pid], Deadline.after(5))
    try:
        with pytest.raises(HostError, match="it hangs"):
            host.connect()
    finally:
        host.run(["kill", "-CONT", pid], Deadline.after(5))


def test_interrupted_in_a_lab_that_was_up_leaves_it_clean(
    shared_lab: LocalLab, tmp_path: Path
) -> None:
    with started("run", *SLOW, "--name", shared_lab.name, "--results", tmp_path) as command:
        command.await_line("iteration")
        command.interrupt()
        assert command.wait().status == 130
    assert leftovers(shared_lab.hosts.values()) == ()


def test_a_full_disk_is_said_and_nothing_is_left(
    shared_lab: LocalLab, tmp_path: Path, migrate_lab: Run
) -> None:
    mount = f'mount -t tmpfs -o size=64k none {tmp_path} && exec "$@"'
    ended = migrate_lab(
        *("run", *ONE, "--name", shared_lab.name, "--results", tmp_path),
        prefix=["unshare", "--mount", "sh", "-c", mount, "sh"],
    )
    assert ended.status == 5, ended.err
    last = ended.err.splitlines()[-1]
    assert last.startswith("migrate-lab: results could not be written: ")
    assert "make room there" in last
    assert "Traceback" not in ended.err
    assert leftovers(shared_lab.hosts.values()) == ()


def test_a_disk_that_fills_up_later_keeps_what_was_finished(
    shared_lab: LocalLab, tmp_path: Path, migrate_lab: Run
) -> None:
    """Full from the second attempt on; the folder is copied out of where alone it is seen."""
    full, seen = tmp_path / "full", tmp_path / "seen"
    full.mkdir()
    script = (
        f'mount -t tmpfs -o size=16m none {full} && "$@"; ended=$?; '
        f"rm {full}/ballast; cp -r {full} {seen}; exit $ended"
    )
    with started(
        *("run", *ONE, "--repeat", "2", "--name", shared_lab.name, "--results", full),
        prefix=["unshare", "--mount", "sh", "-c", script, "sh"],
    ) as command:
        command.await_line("[2/2]")
        with contextlib.suppress(OSError), command.file(full / "ballast").open("wb", 0) as ballast:
            while ballast.write(bytes(1 << 12)):
                pass
        ended = command.wait()
    assert ended.status == 5, ended.err
    assert "make room there" in ended.err
    assert "Traceback" not in ended.err
    assert leftovers(shared_lab.hosts.values()) == ()
    shown = json.loads(migrate_lab("show", "--json", "--results", seen).out)
    assert [one["number"] for one in shown["attempts"]] == [1]


def test_a_read_only_folder_is_said_before_anything_is_moved(
    shared_lab: LocalLab, tmp_path: Path, migrate_lab: Run
) -> None:
    mount = (
        f'mount --bind {tmp_path} {tmp_path} && mount -o remount,ro,bind {tmp_path} && exec "$@"'
    )
    ended = migrate_lab(
        *("run", *ONE, "--name", shared_lab.name, "--results", tmp_path),
        prefix=["unshare", "--mount", "sh", "-c", mount, "sh"],
    )
    assert ended.status == 2, ended.err
    (line,) = ended.err.splitlines()
    assert line.startswith(f"migrate-lab: keep runs in {tmp_path}: ")
    assert "no folder that can be written to" in line
    assert "--results FOLDER names another one" in line
    assert "moving the guest" not in ended.err
    assert "Traceback" not in ended.err
    assert leftovers(shared_lab.hosts.values()) == ()
    assert list(tmp_path.iterdir()) == []


# --- others ---


def test_two_labs_at_once(shared_lab: LocalLab, lab_name: str, tmp_path: Path) -> None:
    names = (shared_lab.name, lab_name)
    with contextlib.ExitStack() as stack:
        commands = [
            stack.enter_context(
                started("run", *ONE, "--json", "--name", name, "--results", tmp_path / name)
            )
            for name in names
        ]
        ended = [command.wait() for command in commands]
    assert [one.status for one in ended] == [0, 0], [one.err for one in ended]
    assert [json.loads(one.out)["run"]["lab"] for one in ended] == list(names)
    assert fabric_kind.find(shared_lab.name) is not None
    assert traces(lab_name) == []


def test_a_second_job_waits_for_its_hosts_and_says_for_whom(
    shared_lab: LocalLab, tmp_path: Path
) -> None:
    with contextlib.ExitStack() as first:
        first.enter_context(lock_hosts(shared_lab.leases, ["b"], Deadline.after(10)))
        words = ("run", *ONE, "--name", shared_lab.name, "--results", tmp_path)
        with started(*words) as command:
            command.await_line("waiting to lease the host b, held by process")
            first.close()
            assert command.wait().status == 0


def test_a_second_job_gives_up_at_its_deadline(
    going: Session, told: SaidSoFar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "LEASE_S", 0.2)
    monkeypatch.setattr(locks, "SILENT_S", 0.05)
    with (
        lock_hosts(going.lab.leases, ["a"], Deadline.after(10)),
        pytest.raises(HostError, match="held by process") as caught,
    ):
        tried(going, case())
    assert caught.value.host == "a"
    assert "waiting to lease the host a, held by process" in told
    assert going.exit_code == 3


@pytest.mark.usefixtures("silent")
def test_a_lease_ends_with_its_holder(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), lock_hosts(tmp_path, "ab", Deadline.after(1)):
        raise KeyboardInterrupt
    with lock_hosts(tmp_path, "ba", Deadline.after(1)):
        pass


@pytest.mark.parametrize("step", range(1, 5))
def test_a_lease_that_is_lost_ends_the_attempt_before_its_next_step(
    going: Session, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    class Losing:
        asked = 0

        def check(self) -> None:
            self.asked += 1
            if self.asked == step:
                raise LeaseLostError("keep the lease of a and b", said="others have them")

    lease = Losing()
    monkeypatch.setattr(pairs, "lease_hosts", lambda *_words: contextlib.nullcontext(lease))
    with pytest.raises(LeaseLostError):
        tried(going, case())
    assert lease.asked == step, "nothing was done afterwards"
    assert going.run.mishaps[-1].exit_code == going.exit_code == 3
    assert going.attempts == []
    assert leftovers(going.lab.hosts.values()) == (), "its own guest has been taken away"


def test_leftovers_name_themselves(shared_lab: LocalLab) -> None:
    host = shared_lab.hosts["a"]
    assert isinstance(host, NamespaceHost)
    deadline = Deadline.after(10)
    host.run(["ip", "tuntap", "add", "mlab0a1b2c3d", "mode", "tap"], deadline)
    try:
        assert leftovers(shared_lab.hosts.values()) == ("link mlab0a1b2c3d on a",)
    finally:
        host.run(["ip", "link", "del", "mlab0a1b2c3d"], deadline)
