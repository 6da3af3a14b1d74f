"""Hosts are prepared and put back exactly: whoever is killed when, and whoever changes what."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from pydantic import ValidationError

from migrate import log
from migrate.clock import Deadline
from migrate.errors import CleanupError, HostError
from migrate.formats import frames
from migrate.formats.frames import End
from migrate.lab.prepare.apply import (
    JournalFile,
    TakenError,
    current_owner,
    owner_exited,
    prepare,
    undo,
)
from migrate.lab.prepare.plan import Journal, Preparation, plan
from migrate.lab.programs import Entered, HerePrograms
from migrate.lab.reach import MAC, bridge_port
from migrate.lab.reach import Place as GuestsPlace
from migrate.locks import file_lock
from selftests.doubles.prepared_host import ALL, FIREWALLD, LAB, PAGES, Place
from selftests.helpers import (
    ROOT,
    as_somebody_elses,
    listening_in,
    mode_of,
    new_name,
    soon,
)

pytestmark = pytest.mark.needs_root
KINDS = [step.kind for step in plan(ALL)]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    namespace = f"mlabp-{new_name()}"
    subprocess.run(["ip", "netns", "add", namespace], check=True)
    try:
        made = Place(tmp_path, namespace)
        made.build()
        made.put("firewall-cmd", FIREWALLD)
        yield made
    finally:
        subprocess.run(["ip", "netns", "del", namespace], check=True)


def prepared(place: Place, spec: Preparation = ALL, lab: str = LAB) -> list[str]:
    """What was said."""
    said: list[str] = []
    with log.shown(said.append):
        prepare(place.site(), lab, spec, soon())
    return said


def put_back(place: Place) -> list[str]:
    said: list[str] = []
    with log.shown(said.append):
        undo(JournalFile.read(place.site(), soon()), soon())
    return said


def journal(place: Place) -> Journal:
    found = JournalFile.read(place.site(), soon()).journal
    assert found is not None
    return found


def without(**changes: object) -> Preparation:
    return ALL.model_copy(update=changes)


# --- do and undo --------------------------------------------------------------------------------


def test_all_of_it_is_had_and_goes_back_exactly(place: Place) -> None:
    before = place.state()
    prepared(place)
    after = place.state()
    assert after["pages"] == "600\n"
    assert {("taps", None, True), ("port0", "taps", True)} <= set(after["links"])
    assert after["modules"] == ["vfio", "vfio_pci", "vfio_pci_core"]
    assert after["ovs"]
    assert after["opened"]
    assert journal(place).state == "ready"
    assert {step.state for step in journal(place).steps} == {"done"}
    said = put_back(place)
    assert place.state() == before
    assert [line.split()[1].rstrip(":") for line in said] == KINDS[::-1], "the last one first"
    assert all(line.endswith(": put back") for line in said)
    assert (place.root / "unloaded").read_text().split() == ["vfio_pci", "vfio_pci_core", "vfio"]


def test_by_a_bridge_that_is_made_nothing_of_the_host_is_reached(
    place: Place, program: Path
) -> None:
    """Nor does a guest get a packet in that says it comes from the host's own network."""
    place.sh("ip link add own0 type veth peer name own1; ip addr add 10.9.0.1/24 dev own0")
    place.sh("ip link set own0 up; ip link set own1 up")
    prepared(place, Preparation(bridge="taps", uplink="port0"))
    assert "inet" not in place.sh("ip addr show dev taps; ip addr show dev port0")
    assert place.sh("cat /proc/sys/net/ipv4/conf/own0/rp_filter") == "0", "others stay as they were"
    mac = bytes.fromhex(place.sh("cat /sys/class/net/taps/address").replace(":", ""))
    address = IPv4Address("10.9.0.1")
    there = End(mac, address)
    programs = Entered(HerePrograms(), ["ip", "netns", "exec", place.namespace])
    namespace = Path("/run/netns", place.namespace)
    with (
        bridge_port(GuestsPlace("a", programs, "taps", {}), str(program), soon()) as port,
        listening_in(namespace, socket.SOCK_DGRAM, "0.0.0.0") as service,
    ):
        number = service.getsockname()[1]
        for source in (IPv4Address("10.77.0.10"), IPv4Address("10.9.0.7")):
            port.sendall(frames.framed(frames.arp(End(MAC, source), address)))
            for frame in frames.datagrams(End(MAC, source), there, [number]):
                port.sendall(frames.framed(frame))
        with listening_in(namespace, socket.SOCK_DGRAM, "10.9.0.1") as own:
            own.sendto(b"of the host itself", (str(there.address), number))
        service.settimeout(20)
        assert service.recv(100) == b"of the host itself", "and nothing before that"
        port.settimeout(0.5)
        with pytest.raises(TimeoutError):
            port.recv(100)
    put_back(place)


def test_prepared_again_with_the_same_wishes_nothing_is_done(place: Place) -> None:
    prepared(place)
    state, was = place.state(), journal(place)
    assert prepared(place) == []
    assert (place.state(), journal(place)) == (state, was)


def test_what_was_there_is_not_taken_away(place: Place) -> None:
    place.sh("ip link add taps type bridge; ip link set port0 master taps")
    (place.root / "sys/module/vfio_pci").mkdir()
    (place.root / "ovs").touch()
    (place.root / "opened").touch()
    before = place.state()
    prepared(place)
    assert [step.kind for step in journal(place).steps if step.state == "done"] == ["huge-pages"]
    put_back(place)
    assert place.state() == before


def test_a_module_that_was_loaded_stays_where_another_one_needs_it(place: Place) -> None:
    (place.root / "sys/module/vfio").mkdir()
    prepared(place)
    put_back(place)
    assert place.state()["modules"] == ["vfio"]


def test_nothing_is_wished_for(place: Place) -> None:
    assert prepare(place.site(), LAB, Preparation(), soon()) is None
    assert place.state()["journals"] == []


@pytest.mark.parametrize(
    ("harm", "spec", "said"),
    [
        ("ip link add taps type veth", ALL, "another kind of link"),
        ("ip link del port0", ALL, "no such link"),
        ("ip addr add 192.0.2.1/24 dev port0", ALL, "it has an address"),
        ("ip link add b2 type bridge; ip link set port0 master b2", ALL, "a port of b2"),
        (":", without(modules=("nowhere",)), "Module nowhere not found"),
        (f"rm -r {{}}/{PAGES}", ALL, "no huge pages of 2 MiB"),
        ("printf '#!/bin/sh\necho 4711\n' >{}/bin/pgrep", ALL, "OVS of its own, process 4711"),
    ],
)
def test_a_step_that_cant_be_had_takes_the_others_with_it(
    place: Place, harm: str, spec: Preparation, said: str
) -> None:
    place.sh(harm.replace("{}", str(place.root)))
    before = place.state() if (place.root / PAGES).exists() else None
    with pytest.raises(HostError, match=said):
        prepared(place, spec)
    if before is not None:
        assert place.state() == before
    assert JournalFile.read(place.site(), soon()).journal is None


def test_pages_that_the_kernel_has_no_memory_for(place: Place) -> None:
    place.put(
        "cat",
        '#!/bin/sh\ncase ${1-} in */nr_hugepages) read -r n <"$1"\n'
        '[ "$n" -le 550 ] || n=550; echo "$n" ;; *) exec /bin/cat "$@" ;; esac\n',
    )
    before = place.state()
    with pytest.raises(HostError, match="asked for 600 huge pages, the kernel has memory for 550"):
        prepared(place)
    assert place.state() == before


# --- killed -------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["before-do", "after-do", "before-undo", "after-undo"])
@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_a_step_all_is_put_back(place: Place, kind: str, point: str) -> None:
    before = place.state()
    argv = [sys.executable, "-m", "selftests.doubles.prepared_host"]
    argv += [str(place.root), place.namespace, kind, point]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = journal(place)
    assert left.state == ("preparing" if point.endswith("-do") else "undoing")
    assert owner_exited(left.owner)
    with pytest.raises(TakenError, match="lab repair --name kkx"):
        prepared(place)
    put_back(place)
    assert place.state() == before


# --- two controllers ----------------------------------------------------------------------------


@pytest.mark.parametrize(("lab", "pages"), [(LAB, 64), ("other", 100)])
def test_other_wishes_are_refused_with_who_and_since_when(
    place: Place, lab: str, pages: int
) -> None:
    prepared(place)
    state = place.state()
    with pytest.raises(TakenError) as caught:
        prepared(place, without(huge_pages=pages), lab)
    owner = journal(place).owner
    assert f"ready for the lab kkx by {owner} since {journal(place).since}" in caught.value.said
    assert f"process {os.getpid()}" in caught.value.said
    assert place.state() == state


def test_of_two_that_begin_at_once_one_is_refused(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one's whole preparation falls between the first one's look and its journal."""
    reading = JournalFile.read

    def read_then_late(site: object, deadline: Deadline) -> JournalFile:
        file = reading(site, deadline)  # type: ignore[arg-type]
        monkeypatch.undo()
        prepared(place, without(huge_pages=7), "other")
        return file

    monkeypatch.setattr(JournalFile, "read", read_then_late)
    with pytest.raises(TakenError, match="another controller does it"):
        prepared(place)
    assert journal(place).lab == "other"
    assert place.state()["pages"] == "507\n"


def test_of_two_that_put_back_one_is_refused_and_pages_are_given_back_once(place: Place) -> None:
    prepared(place)
    late = JournalFile.read(place.site(), soon())
    put_back(place)
    with pytest.raises(TakenError):
        undo(late, soon())
    assert place.state()["pages"] == "500\n"


def test_an_owner_elsewhere_may_live() -> None:
    assert not owner_exited(current_owner())
    assert owner_exited(current_owner().model_copy(update={"started": "1"}))
    assert not owner_exited(
        current_owner().model_copy(update={"started": "1", "controller": "elsewhere"})
    )


# --- what others did meanwhile ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "free", "left", "said"),
    [
        (700, 700, "600\n", "nr_hugepages is 700 now, it was set to 600: 100 are given back"),
        (550, 550, "450\n", "nr_hugepages is 550 now, it was set to 600: 100 are given back"),
        (600, 60, "540\n", "540 are in use, so 40 of 100 stay: 60 are given back"),
        (600, 600, "500\n", "put back"),
    ],
)
def test_as_many_pages_as_were_raised_are_given_back(
    place: Place, now: int, free: int, left: str, said: str
) -> None:
    prepared(place, Preparation(huge_pages=100))
    place.pages(all=now, free=free)
    (line,) = put_back(place)
    assert line.endswith(said)
    assert place.state()["pages"] == left


def test_pages_of_which_nobody_knows_are_left_alone(place: Place) -> None:
    argv = [sys.executable, "-m", "selftests.doubles.prepared_host"]
    argv += [str(place.root), place.namespace, "huge-pages", "before-do"]
    subprocess.run(argv, cwd=ROOT, capture_output=True, timeout=60, check=False)
    place.pages(all=550)
    assert "550 now, neither 500 nor 600" in "\n".join(put_back(place))
    assert place.state()["pages"] == "550\n"


def test_a_bridge_and_an_uplink_of_somebody_else_are_left_alone(place: Place) -> None:
    prepared(place, Preparation(bridge="taps", uplink="port0"))
    place.sh("ip link del taps; ip link add taps type bridge; ip link add b2 type bridge")
    place.sh("ip link set port0 master b2")
    before = place.state()["links"]
    said = "\n".join(put_back(place))
    assert "port0 is a port of b2 now: it is left alone" in said
    assert "taps has another MAC than it was made with: it is left alone" in said
    assert place.state()["links"] == before


def test_an_uplink_that_is_gone_is_said(place: Place) -> None:
    prepared(place, Preparation(bridge="taps", uplink="port0"))
    place.sh("ip link del port0")
    assert "port0 is gone" in "\n".join(put_back(place))


def test_what_is_in_use_stays_with_its_journal_and_the_rest_goes(place: Place) -> None:
    before = place.state()
    prepared(place)
    place.sh("ip link add tap9 type veth; ip link set tap9 master taps")
    (place.root / "sys/module/vfio/used").touch()
    (place.root / "port").touch()
    with pytest.raises(CleanupError, match="lab repair --name kkx") as caught:
        put_back(place)
    said = str(caught.value)
    assert len(caught.value.reasons) == 3
    assert "it has the ports tap9" in said
    assert "still loaded: vfio" in said
    assert "it has the ports vhu0" in said
    assert place.state()["pages"] == "500\n"
    place.sh("ip link del tap9")
    (place.root / "sys/module/vfio/used").unlink()
    (place.root / "port").unlink()
    put_back(place)
    assert place.state() == before


# --- nft ----------------------------------------------------------------------------------------

DROPS = """
table inet filter {
    chain input { type filter hook input priority 0; policy drop; ct state established accept; }
    chain forward { type filter hook forward priority 0; policy drop; }
    chain output { type filter hook output priority 0; policy accept; }
}
table ip nat {
    chain pre { type nat hook prerouting priority -100; }
}
"""
needs_nft = pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not installed")


@needs_nft
def test_nft_lets_migrations_in_and_its_rules_go(place: Place) -> None:
    (place.bin / "firewall-cmd").unlink()
    place.run(["nft", "-f", "-"], soon(), text=DROPS)
    before = place.sh("nft list ruleset")
    prepared(place, Preparation(firewall=True, bridge="taps"))
    during = place.sh("nft list ruleset")
    assert 'iifname != "taps" tcp dport 49152-49215 accept comment "migrate-lab"' in during
    assert 'iifname "taps" oifname "taps" accept comment "migrate-lab"' in during
    assert reached(place, 49152)
    assert not reached(place, 49151)
    place.sh("nft add rule inet filter input tcp dport 22 accept; nft flush chain ip nat pre")
    put_back(place)
    place.sh(
        "nft delete rule inet filter input handle $(nft -a list ruleset | "
        "sed -n 's/.*dport 22 .*handle //p')"
    )
    assert place.sh("nft list ruleset") == before
    assert not reached(place, 49152)


def reached(place: Place, port: int) -> bool:
    """Whether a connection is refused, as by an open port that nobody listens at; else it waits."""
    script = (
        "import socket\ns = socket.socket(); s.settimeout(0.5)\n"
        f"try: s.connect(('127.0.0.1', {port}))\n"
        "except ConnectionRefusedError: print('refused')\nexcept TimeoutError: print('dropped')"
    )
    return place.run([sys.executable, "-c", script], soon()).out.strip() == "refused"


@needs_nft
def test_nft_that_filters_nothing_is_left_alone(place: Place) -> None:
    (place.bin / "firewall-cmd").unlink()
    prepared(place, Preparation(firewall=True))
    assert journal(place).steps[0].state == "there"


def test_without_a_firewall_there_is_nothing_to_open(place: Place) -> None:
    (place.bin / "firewall-cmd").unlink()
    place.put("nft", "#!/bin/sh\nexit 127\n")
    assert prepared(place, Preparation(firewall=True)) == ["a: firewall: no nftables already"]


def test_a_chain_with_a_hostile_name_is_refused(place: Place) -> None:
    (place.bin / "firewall-cmd").unlink()
    chain = '{"family": "inet", "table": "x; flush ruleset", "name": "i", "hook": "input"'
    place.put(
        "nft", f'#!/bin/sh\necho \'{{"nftables": [{{"chain": {chain}, "type": "filter"}}}}]}}\'\n'
    )
    with pytest.raises(HostError, match="a chain has the name"):
        prepared(place, Preparation(firewall=True))


# --- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "-all", "a b", "x;reboot", "$(id)", "a/b", "..", "0" * 16])
def test_a_hostile_name_is_no_wish(name: str) -> None:
    with pytest.raises(ValidationError):
        Preparation(bridge=name)
    with pytest.raises(ValidationError):
        Preparation(bridge="taps", uplink=name)
    if name != "0" * 16:
        with pytest.raises(ValidationError):
            Preparation(modules=(name,))


def test_an_uplink_needs_a_bridge() -> None:
    with pytest.raises(ValidationError, match="an uplink needs a bridge"):
        Preparation(uplink="port0")


def test_names_reach_the_script_as_they_are(place: Place) -> None:
    """Arguments are arguments: what a shell would make of them is not made."""
    with pytest.raises(HostError, match=r"Module \$\(touch .*\); not found"):
        place.site().script(soon(), "missing", f"$(touch {place.root}/harm);")
    assert not (place.root / "harm").exists()


def test_a_journal_that_is_none_is_told(place: Place) -> None:
    folder = place.root / "run/migrate-lab/prepared"
    folder.mkdir(parents=True)
    (folder / "kkx.json").write_text('{"lab": "$(reboot)"}\n')
    with pytest.raises(HostError, match="look into /run/migrate-lab/prepared"):
        prepared(place)


def test_no_other_user_of_the_host_can_hold_its_lock(place: Place) -> None:
    (place.root / "run/migrate-lab/prepared").mkdir(parents=True)
    (place.root / "run/migrate-lab/prepared/lock").touch(0o666)
    place.site().script(soon(), "unload")
    folder = place.root / "run/migrate-lab"
    paths = (folder, folder / "prepared", folder / "prepared/lock")
    assert [mode_of(path) for path in paths] == [0o700, 0o700, 0o600]


def test_a_controller_that_holds_the_lock_for_too_long_is_named(place: Place) -> None:
    place.put("flock", '#!/bin/sh\n[ "$1" != -w ] || shift 2\nexec /usr/bin/flock -w 0.1 "$@"\n')
    place.site().script(soon(), "unload")
    lock = place.root / "run/migrate-lab/prepared/lock"
    with (
        file_lock(lock, soon(), "hold it"),
        pytest.raises(HostError, match=rf"another controller holds .*: process {os.getpid()} \("),
    ):
        place.site().script(soon(), "unload")


def test_a_journals_folder_that_somebody_else_made_is_refused(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place.root / "run/migrate-lab").mkdir(parents=True)
    with (
        as_somebody_elses(place.root / "run/migrate-lab", monkeypatch),
        pytest.raises(HostError, match="is not ours"),
    ):
        place.site().script(soon(), "unload")
