"""The local lab: what is up answers, what is down is gone, also after ``kill -9`` at any step."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from migrate.cleanup.leftovers import leftovers
from migrate.clock import Deadline
from migrate.drivers.shell import run
from migrate.errors import CleanupError, ConfigurationError, HostError
from migrate.guest.domain_xml import MONITOR
from migrate.lab import fabric_kind, namespaces
from migrate.lab import state as journal
from migrate.lab.api import Host
from migrate.lab.config import state_folder
from migrate.lab.fabric import PEER_ADDRESS
from migrate.lab.local import lab as local
from migrate.lab.local.config import LocalConfig, LocalHostConfig
from migrate.lab.local.lab import LocalLab
from migrate.lab.shared_folder import SharedFolder
from migrate.lab.state import ProcessId, read_record
from migrate.locks import file_lock
from selftests.helpers import SaidSoFar, soon, traces


def config(name: str, huge_pages: int = 2) -> LocalConfig:
    host = LocalHostConfig(huge_pages=huge_pages)
    return LocalConfig(name=name, hosts={"a": host, "b": host})


@pytest.fixture
def lab(lab_name: str) -> LocalLab:
    return local.KIND.up(config(lab_name))


def own_huge_pages() -> int:
    """The machine's number without what labs have lent, so that other labs may come and go."""
    with file_lock(state_folder() / "huge-pages.lock", soon(), "count them"):
        pages = int(journal.HUGE_PAGES.read_text())
        ledger = state_folder() / "huge-pages.json"
        lent: dict[str, int] = json.loads(ledger.read_text()) if ledger.exists() else {}
        return pages - sum(count for lab, count in lent.items() if lab != "base")


def processes(lab: LocalLab) -> list[ProcessId]:
    """Everything that runs in the lab's namespaces."""
    deadline = Deadline.after(10)
    pids = [
        pid
        for namespace in lab.record.namespaces
        for pid in run(["ip", "netns", "pids", namespace], deadline).out.split()
    ]
    return [ProcessId.of(int(pid)) for pid in pids]


def hears(here: Host, there: Host) -> str:
    """What the libvirt of ``there`` calls itself, asked by ``here`` on the migration network."""
    return here.run(
        ["virsh", "-c", there.libvirt_target, "hostname"], Deadline.after(20)
    ).out.strip()


# --- up and down ---


def test_hosts_answer_and_down_leaves_nothing(lab_name: str, told: SaidSoFar) -> None:
    before = own_huge_pages()
    lab = local.KIND.up(config(lab_name))
    assert told.lines, "something is said while it comes up"
    assert lab_name in fabric_kind.names()
    a, b = lab.hosts.values()
    assert (hears(a, b), hears(b, a)) == ("b", "a")
    assert lab.record.huge_pages == 4
    assert own_huge_pages() == before
    peer = run(lab.beside_peer(["ip", "-brief", "addr", "show", "peer"]), Deadline.after(10)).out
    assert PEER_ADDRESS in peer
    inside = processes(lab)
    assert len(inside) >= 6
    fabric_kind.down(lab_name)
    assert traces(lab_name) == []
    assert not any(process.alive() for process in inside)
    assert own_huge_pages() == before
    assert fabric_kind.find(lab_name) is None
    assert lab_name not in fabric_kind.names()
    fabric_kind.down(lab_name)  # a lab that is down stays down


def test_up_again_is_the_same_lab(shared_lab: LocalLab) -> None:
    again = local.KIND.up(LocalConfig(name=shared_lab.name))
    assert again.record == shared_lab.record
    assert fabric_kind.find(shared_lab.name) is not None


def test_a_lab_without_its_peers_namespace_is_not_up(shared_lab: LocalLab) -> None:
    """As one that an earlier version brought up, whose peer was in the fabric's."""
    assert shared_lab.is_healthy()
    older = shared_lab.record.model_copy(update={"fabric": f"{shared_lab.record.fabric}-older"})
    assert not LocalLab(older).is_healthy()


def test_a_lab_that_is_up_is_not_given_other_hosts(shared_lab: LocalLab) -> None:
    with pytest.raises(HostError, match="with other hosts") as caught:
        local.KIND.up(config(shared_lab.name, huge_pages=3))
    assert f"down --name {shared_lab.name}" in caught.value.remedy
    assert fabric_kind.find(shared_lab.name) is not None


@pytest.mark.parametrize("writable", [False, True])
def test_a_folder_of_the_users_is_seen_by_every_host_until_the_lab_goes(
    lab_name: str, tmp_path: Path, writable: bool
) -> None:
    (tmp_path / "note").write_text("from outside\n")
    share = SharedFolder(path=tmp_path, writable=writable)
    lab = local.KIND.up(config(lab_name), share)
    assert any("/mnt/share" in line for line in lab.summary())
    for host in lab.hosts.values():
        assert host.run(["cat", "/mnt/share/note"], soon()).out == "from outside\n"
        writing = ["sh", "-c", f"echo inside >/mnt/share/{host.name}"]
        assert (host.run(writing, soon(), check=False).status == 0) == writable
        assert (tmp_path / host.name).exists() == writable
    assert local.KIND.up(config(lab_name)).record == lab.record, "who names none uses it as it is"
    fabric_kind.down(lab_name)
    assert traces(lab_name) == []
    assert (tmp_path / "note").exists()


def test_two_labs_at_once_do_not_see_each_other(new_lab_name: Callable[[], str]) -> None:
    first, second = (local.KIND.up(config(new_lab_name())) for _ in range(2))
    a, b = first.hosts.values()
    fabric_kind.down(second.name)
    assert hears(a, b) == "b"
    assert traces(second.name) == []
    assert fabric_kind.find(first.name) is not None


def test_a_lab_of_two_releases_has_libvirt_on_both(lab_name: str) -> None:
    roots = {
        "a": LocalHostConfig(root="debian-12", huge_pages=0),
        "b": LocalHostConfig(huge_pages=0),
    }
    lab = local.KIND.up(LocalConfig(name=lab_name, hosts=roots))
    found = []
    for host in lab.hosts.values():
        with host.connect() as hypervisor:
            found.append(hypervisor.domains())
    assert found == [(), ()]
    a, b = lab.hosts.values()
    assert (hears(a, b), hears(b, a)) == ("b", "a")


# --- what goes wrong ---

DRIVER = """
import subprocess, sys, types
from migrate.lab import fabric, fabric_kind as labs, namespaces, state as journal
from migrate.lab.local import lab as local
from migrate.lab.local.config import LocalConfig

command, step, left = sys.argv[1], sys.argv[2], int(sys.argv[3])

class Pages:
    exists, read_text = journal.HUGE_PAGES.exists, journal.HUGE_PAGES.read_text
    write_text = journal.HUGE_PAGES.write_text

namespaces.subprocess = types.SimpleNamespace(**vars(subprocess))
places = {
    "journal": journal, "local": local, "labs": labs, "namespaces": namespaces, "fabric": fabric,
    "host": local.NamespaceHost, "pages": Pages, "kind": labs.FabricKind,
    "programs": namespaces.subprocess, "files": labs.shutil,
}
place, _, name = step.partition(".")
owner = places[place]
real = getattr(owner, name)

def pausing(*args, **kwargs):
    global left
    done = real(*args, **kwargs)
    left -= 1
    if left == 0:
        print("here", flush=True)
        sys.stdin.read()
    return done

setattr(owner, name, staticmethod(pausing) if owner is Pages else pausing)
journal.HUGE_PAGES = Pages
if command == "up":
    local.KIND.up(LocalConfig.model_validate_json(sys.argv[4]))
else:
    labs.down(sys.argv[4])
"""


def killed_at(command: str, step: str, count: int, argument: str) -> None:
    """A controller that ends by ``kill -9`` when ``step`` was done for the ``count``-th time."""
    argv = [sys.executable, "-c", DRIVER, command, step, str(count), argument]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as controller:
        assert controller.stdout is not None
        heard = controller.stdout.readline()
        controller.send_signal(signal.SIGKILL)
    assert heard == b"here\n", f"the controller never came to {step}"


@pytest.mark.parametrize(
    ("step", "count"),
    [
        pytest.param("journal.write_record", 1, id="journal-written"),
        pytest.param("pages.write_text", 1, id="huge-pages-taken"),
        pytest.param("fabric.run", 1, id="one-namespace-made"),
        pytest.param("local._network", 1, id="fabric-made"),
        pytest.param("programs.Popen", 1, id="first-host-starting"),
        pytest.param("namespaces.start_host", 1, id="first-host-started"),
        pytest.param("journal.write_record", 2, id="hosts-in-journal"),
        pytest.param("host.start_libvirt", 1, id="libvirt-started"),
        pytest.param("kind.up", 1, id="up"),
    ],
)
def test_down_removes_what_a_killed_controller_left(lab_name: str, step: str, count: int) -> None:
    before = own_huge_pages()
    killed_at("up", step, count, config(lab_name).model_dump_json())
    assert lab_name in fabric_kind.names(), "what is half up is listed"
    fabric_kind.down(lab_name)
    assert traces(lab_name) == []
    assert own_huge_pages() == before


@pytest.mark.parametrize(
    ("step", "count"),
    [
        pytest.param("labs._remove_namespace", 1, id="one-namespace-removed"),
        pytest.param("files.rmtree", 1, id="one-folder-removed"),
        pytest.param("files.rmtree", 2, id="both-hosts-folders-removed"),
    ],
)
def test_down_goes_on_where_a_killed_one_ended(lab: LocalLab, step: str, count: int) -> None:
    killed_at("down", step, count, lab.name)
    assert lab.name in fabric_kind.names()
    fabric_kind.down(lab.name)
    assert traces(lab.name) == []


def test_up_after_a_killed_controller_is_a_whole_lab(lab_name: str) -> None:
    killed_at("up", "namespaces.start_host", 1, config(lab_name).model_dump_json())
    assert fabric_kind.find(lab_name) is None
    lab = local.KIND.up(config(lab_name))
    a, b = lab.hosts.values()
    assert hears(a, b) == "b"


def test_a_host_that_ended_behind_the_labs_back_is_noticed_and_made_anew(lab: LocalLab) -> None:
    init = lab.record.hosts[0].init
    assert init is not None
    init.end(Deadline.after(10))
    assert fabric_kind.find(lab.name) is None
    again = local.KIND.up(config(lab.name))
    a, b = again.hosts.values()
    assert (hears(a, b), hears(b, a)) == ("b", "a")
    assert again.record.hosts[0].init != init


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_up_that_is_broken_off_leaves_nothing(
    lab_name: str, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    before = own_huge_pages()
    real = namespaces.start_host

    def second_fails(
        host: journal.HostRecord, record: journal.LabRecord, shared: Sequence[namespaces.Mount]
    ) -> journal.HostRecord:
        if host.name == "b":
            raise error
        return real(host, record, shared)

    monkeypatch.setattr(namespaces, "start_host", second_fails)
    with pytest.raises(type(error)):
        local.KIND.up(config(lab_name))
    assert traces(lab_name) == []
    assert own_huge_pages() == before


@pytest.mark.parametrize(
    ("file", "text"),
    [("LIBVIRTD", 'listen_tcp = "{uuid}"\n'), ("QEMU", 'user = "no-such-user"\n')],
)
def test_a_libvirt_that_does_not_come_up_is_told_in_its_own_words(
    lab_name: str, monkeypatch: pytest.MonkeyPatch, file: str, text: str
) -> None:
    if file == "QEMU":  # the daemon's parent has returned by then: the log tells
        text += getattr(namespaces, file)
    monkeypatch.setattr(namespaces, file, text)
    with pytest.raises(HostError, match=r"listen_tcp|no-such-user") as caught:
        local.KIND.up(config(lab_name))
    assert caught.value.host in {"a", "b"}
    assert traces(lab_name) == []


def test_a_root_that_can_not_be_entered_is_told_with_the_log(
    lab_name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("migrate.lab.local.lab.ensure_root", lambda *_: tmp_path)
    (tmp_path / "etc").mkdir()
    for file in ("passwd", "group"):
        (tmp_path / "etc" / file).touch()
    with pytest.raises(HostError, match="mount") as caught:
        local.KIND.up(config(lab_name))
    assert caught.value.host == "a"
    assert traces(lab_name) == []


def test_without_huge_pages_the_lab_is_up_and_says_so(
    lab_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "borrow_huge_pages", lambda *_: 0)
    lab = local.KIND.up(config(lab_name))
    assert lab.record.huge_pages == 0
    assert "4 huge pages of 2 MiB could not be reserved" in lab.record.note
    found = fabric_kind.find(lab_name)
    assert found is not None
    assert found.record.note == lab.record.note


def test_a_namespace_of_our_name_that_is_in_no_journal_of_ours_is_left_alone(
    lab_name: str,
) -> None:
    """A lab of the same name that another user has brought up, with another state folder."""
    theirs = f"mlab-{lab_name}-a"
    run(["ip", "netns", "add", theirs], soon())
    command = ["ip", "netns", "exec", theirs, "sleep", "1000"]
    with subprocess.Popen(command) as process:
        try:
            with pytest.raises(HostError, match="not in our journal: it was left alone") as caught:
                local.KIND.up(config(lab_name))
            assert theirs in caught.value.said
            fabric_kind.down(lab_name)
            assert process.poll() is None
            assert Path("/run/netns", theirs).exists()
        finally:
            process.kill()
            run(["ip", "netns", "del", theirs], soon())


@pytest.mark.parametrize("command", ["up", "down"])
def test_without_root_it_is_told_what_to_do(
    monkeypatch: pytest.MonkeyPatch, command: str, lab_name: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: 1000)
        with pytest.raises(HostError, match="needs root") as caught:
            local.KIND.up(config(lab_name)) if command == "up" else fabric_kind.down(lab_name)
    assert "sudo" in caught.value.remedy
    assert caught.value.exit_code == 3
    assert traces(lab_name) == []


def test_a_root_that_is_none_touches_nothing(lab_name: str) -> None:
    hosts = {"a": LocalHostConfig(), "b": LocalHostConfig(root="debian-1")}
    with pytest.raises(ConfigurationError, match="debian-1'"):
        local.KIND.up(LocalConfig(name=lab_name, hosts=hosts))
    assert traces(lab_name) == []


def test_a_lab_in_use_by_another_command_is_told_at_the_deadline(
    shared_lab: LocalLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        file_lock(state_folder() / f"{shared_lab.name}.lock", soon(), "have it"),
        monkeypatch.context() as patch,
        pytest.raises(HostError, match=f"held by process {os.getpid()} of root"),
    ):
        patch.setattr(fabric_kind, "OTHERS_S", 0)
        fabric_kind.down(shared_lab.name)
    assert fabric_kind.find(shared_lab.name) is not None


def test_every_step_of_down_runs_and_every_reason_is_told(
    lab: LocalLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stuck(*_: object) -> None:
        raise HostError("end process", said="it is stuck")

    def full(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(ProcessId, "end", stuck)
        patch.setattr(shutil, "rmtree", full)
        with pytest.raises(CleanupError) as caught:
            fabric_kind.down(lab.name)
    assert len(caught.value.reasons) >= 4
    assert "it is stuck" in str(caught.value)
    assert "Input/output error" in str(caught.value)
    assert caught.value.exit_code == 6
    assert read_record(state_folder() / lab.name) is not None, "so that another try can follow"
    fabric_kind.down(lab.name)
    assert traces(lab.name) == []


# --- a host ---


def test_a_host_has_a_root_of_its_own(shared_lab: LocalLab) -> None:
    a, b = shared_lab.hosts.values()
    a.file("/root/note").write_text("a's")
    assert a.run(["cat", "/root/note"], Deadline.after(10)).out == "a's"
    assert not b.file("/root/note").exists()
    assert not (shared_lab.record.hosts[0].root_folder / "root/note").exists(), (
        "the cache is not written"
    )
    assert not Path("/root/note").exists()
    assert a.run(["/bin/pwd"], Deadline.after(10)).out == "/\n"
    assert a.run(["hostname"], Deadline.after(10)).out == "a\n"


def test_past_the_deadline_nothing_of_a_program_runs_on_in_the_host(shared_lab: LocalLab) -> None:
    a = shared_lab.hosts["a"]
    pids = a.file("/root/pids")
    os.mkfifo(pids)
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.append(pids.read_text()))
    reader.start()
    with pytest.raises(HostError, match="no end after") as caught:
        a.run(["sh", "-c", "sleep 1000 & echo $! >/root/pids; wait"], Deadline.after(1))
    reader.join()
    assert caught.value.host == "a"
    awaited = Deadline.after(5)  # what was killed may need a moment to go
    while "sleep 1000" in a.run(["ps", "-e", "-o", "args="], Deadline.after(10)).out:
        assert not awaited.passed()


def test_what_an_attempt_leaves_is_named(shared_lab: LocalLab) -> None:
    a = shared_lab.hosts["a"]
    assert leftovers(shared_lab.hosts.values()) == ()
    for tap in ("mlab0a1b2c3d", "vnet7"):
        a.run(["ip", "tuntap", "add", tap, "mode", "tap"], soon())
    a.run(["cp", "/bin/tail", "/root/qemu-system-x86_64"], soon())
    start = f"/root/qemu-system-x86_64 -f /dev/null {MONITOR} </dev/null >/dev/null 2>&1 & echo $!"
    pid = a.run(["sh", "-c", start], soon()).out.strip()
    try:
        process, link = leftovers(shared_lab.hosts.values())
        assert "process" in process
        assert "on a" in process
        assert link == "link mlab0a1b2c3d on a", "the other one is nobody's that we know"
        assert leftovers([shared_lab.hosts["b"]]) == ()
    finally:
        a.run(["kill", pid], soon())
        for tap in ("mlab0a1b2c3d", "vnet7"):
            a.run(["ip", "link", "delete", tap], soon())


def test_the_wall_clock_is_this_machines(shared_lab: LocalLab) -> None:
    assert shared_lab.hosts["a"].wall_clock().clock == "wall"


# --- a root that can't be made today ---


def refuse(patch: pytest.MonkeyPatch, folder: Path, *names: str) -> None:
    """These roots can't be made, all others can."""

    def ensure(name: str, _cache: Path) -> Path:
        if name in names:
            raise HostError(f"make a root of {name}", said="unmet dependencies")
        return folder

    patch.setattr(local, "ensure_root", ensure)


def with_roots(*names: str) -> LocalConfig:
    hosts = {host: LocalHostConfig(root=root) for host, root in zip("abc", names, strict=True)}
    return LocalConfig(name="x", hosts=hosts)


def test_a_lab_comes_up_without_a_host_whose_root_is_not_to_be_had_today(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: SaidSoFar
) -> None:
    refuse(monkeypatch, tmp_path, "debian-sid")
    record = local.plan(with_roots("debian-13", "debian-sid", "debian-12"))
    assert [(host.name, host.number) for host in record.hosts] == [("a", 1), ("c", 3)]
    (absent,) = record.missing
    assert (absent.host, absent.root) == ("b", "debian-sid")
    assert "can't be made today: unmet dependencies" in absent.capability("root").reason
    assert "host b is left out" in "\n".join(told.lines)
    assert journal.LabRecord.model_validate_json(record.model_dump_json()) == record


def test_two_hosts_have_to_be_there_and_a_root_that_does_not_roll_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, tmp_path, "debian-sid")
    with pytest.raises(HostError, match="unmet dependencies"):
        local.plan(with_roots("debian-13", "debian-sid", "debian-sid"))
    refuse(monkeypatch, tmp_path, "debian-12")
    with pytest.raises(HostError, match="make a root of debian-12"):
        local.plan(with_roots("debian-13", "debian-13", "debian-12"))
