"""Programs on a host over ssh, tried on a real sshd in a host of the local lab."""

from __future__ import annotations

import dataclasses
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from migrate.clock import Deadline, now_ns
from migrate.drivers import netns
from migrate.drivers.background_call import BackgroundCall
from migrate.drivers.ssh import Connection
from migrate.drivers.ssh_address import Address, key_pair, resolve
from migrate.errors import HostError
from migrate.images.initramfs import ensure_image
from migrate.lab.api import Host, Lab
from migrate.lab.config import cache_folder
from migrate.lab.local.lab import LocalLab
from migrate.lab.namespaces import NamespaceHost
from migrate.lab.remote_host import Reach, RemoteHost
from migrate.lab.resources import Resources
from migrate.recorder.machines import machines_of
from selftests.doubles.rack_here import start_sshd
from selftests.helpers import soon

pytestmark = pytest.mark.needs_root

MIGRATION = "10.78.0.1"
"""Where a local lab's first host lets libvirts in."""


@pytest.fixture(scope="module")
def place(shared_lab: LocalLab) -> NamespaceHost:
    return shared_lab.hosts["a"]


@pytest.fixture(scope="module")
def address(
    shared_lab: LocalLab, place: NamespaceHost, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Address]:
    """An sshd on the loopback of the host's own network namespace."""
    host_private, host_public = key_pair()
    private, public = key_pair()
    key_file = tmp_path_factory.mktemp("keys") / "key"
    key_file.write_text(private)
    for path, text in {
        "/run/sshd/key": host_private,
        "/root/.ssh/authorized_keys": public,
        "/run/sshd/sshd_config": "HostKey /run/sshd/key\nListenAddress 127.0.0.1\nUsePAM no\n"
        "PidFile /run/sshd/sshd.pid\n",
    }.items():
        place.file(path).parent.mkdir(mode=0o700, exist_ok=True)
        place.file(path).write_text(text)
        place.file(path).chmod(0o600)
    start_sshd(place, "/run/sshd")
    try:
        yield Address(
            host="a",
            ip="127.0.0.1",
            host_keys=(host_public,),
            key_files=(key_file,),
            namespace=Path("/run/netns", shared_lab.record.hosts[0].namespace),
        )
    finally:
        place.run(["pkill", "-F", "/run/sshd/sshd.pid"], soon(), check=False)


@pytest.fixture
def connection(address: Address) -> Iterator[Connection]:
    made = Connection(address)
    yield made
    made.close()


def test_a_program_runs_on_the_host_and_nowhere_else(connection: Connection) -> None:
    assert connection.run(["hostname"], soon()).out == "a\n"


def test_what_it_is_told_and_what_it_says_is_kept_apart(connection: Connection) -> None:
    done = connection.run(["sh", "-c", "cat; echo no >&2; exit 3"], soon(), text="yes", check=False)
    assert (done.status, done.out, done.err) == (3, "yes", "no\n")


def test_a_failure_has_the_programs_own_words(connection: Connection) -> None:
    with pytest.raises(HostError, match="No such file") as caught:
        connection.run(["cat", "/nowhere"], soon())
    assert caught.value.host == "a"


@pytest.mark.parametrize("hostile", ["$(id)", "; reboot", "a b", "'", "`id`", "\n", "--", "*"])
def test_no_word_is_read_by_a_shell(connection: Connection, hostile: str) -> None:
    assert connection.run(["printf", "%s", hostile], soon()).out == hostile


def test_much_is_read_on_both_streams(connection: Connection) -> None:
    script = "head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2"
    done = connection.run(["sh", "-c", script], soon())
    assert (len(done.out), len(done.err)) == (300000, 300000)


def test_a_program_does_not_outlive_its_deadline(
    connection: Connection, place: NamespaceHost
) -> None:
    with pytest.raises(HostError, match="no end before the deadline"):
        connection.run(["sleep", "4711"], soon(1))
    gone = ["sh", "-c", "while pgrep -f '[s]leep 4711' >/dev/null; do sleep 0.1; done"]
    place.run(gone, soon())


def test_another_host_key_is_refused(address: Address) -> None:
    other = dataclasses.replace(address, host_keys=(key_pair()[1],))
    with pytest.raises(HostError, match="host key has changed") as caught:
        Connection(other).run(["true"], soon())
    assert "accepted" in caught.value.remedy


def test_a_key_that_is_not_let_in_is_told(address: Address, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(key_pair()[0])
    stranger = dataclasses.replace(address, key_files=(tmp_path / "key",))
    with pytest.raises(HostError, match=r"log in at 127\.0\.0\.1 as root"):
        Connection(stranger).run(["true"], soon())


def test_a_host_that_does_not_answer_is_told(address: Address) -> None:
    with pytest.raises(HostError, match="refused"):
        Connection(dataclasses.replace(address, port=1)).run(["true"], soon())


def test_a_connection_that_broke_is_made_anew(connection: Connection) -> None:
    connection.run(["true"], soon())
    with pytest.raises(HostError):
        # Ends what serves this very connection.
        connection.run(["sh", "-c", "kill -KILL $(ps -o ppid= -p $PPID)"], soon())
    assert connection.run(["hostname"], soon()).out == "a\n"


def cut(connection: Connection) -> None:
    """As a network does it: no more bytes, either way."""
    assert connection._transport is not None
    connection._transport.sock.shutdown(socket.SHUT_RDWR)


def run_to_its_end(connection: Connection) -> None:
    connection.run(["sh", "-c", SAYS_AND_STAYS], soon())


def read_a_file(connection: Connection) -> None:
    connection.read("/run/cut-me", soon())


def talk(connection: Connection) -> None:
    with connection.talking(["sh", "-c", SAYS_AND_STAYS], soon()) as lines:
        lines.ask("anything", soon())


SAYS_AND_STAYS = "echo begun >/run/cut-me; sleep 600"
"""Its session is there, and it has not ended."""


@pytest.mark.parametrize("use", [run_to_its_end, read_a_file, talk])
def test_a_connection_that_is_cut_in_the_middle_is_told_at_once(
    use: Callable[[Connection], None], connection: Connection, place: NamespaceHost
) -> None:
    """No deadline is waited for, and the next program gets a new connection."""
    place.run(["rm", "-f", "/run/cut-me"], soon())
    if use is read_a_file:  # one that goes on for as long as nobody writes
        place.run(["mkfifo", "/run/cut-me"], soon())
    began, going = Deadline.after(20), BackgroundCall("use it", lambda: use(connection))
    until = "until [ -s /run/cut-me ]; do sleep 0.05; done"
    if use is read_a_file:
        until = "until pgrep -f '[c]at -- /run/cut-me' >/dev/null; do sleep 0.05; done"
    place.run(["sh", "-c", until], soon())
    cut(connection)
    assert going.wait(began), "long before its deadline"
    with pytest.raises(HostError) as caught:
        going.result()
    assert caught.value.host == "a"
    assert connection.run(["hostname"], soon()).out == "a\n"
    place.run(["rm", "-f", "/run/cut-me"], soon())


def test_what_is_piped_ends_when_the_connection_is_cut(connection: Connection) -> None:
    with connection.piped(["cat"], soon()) as plug:
        plug.settimeout(20)
        plug.sendall(b"there")
        assert plug.recv(5) == b"there"
        cut(connection)
        assert plug.recv(1) == b"", "as a socket whose other end has gone"
    assert connection.run(["hostname"], soon()).out == "a\n"


def test_a_program_answers_line_by_line_until_it_ends(connection: Connection) -> None:
    with connection.talking(["sh", "-c", "read x; echo $x$x; read x"], soon()) as lines:
        assert lines.ask("ha", soon()) == "haha"
        with pytest.raises(HostError, match="it ended"):
            lines.ask("gone", soon())


def test_a_line_that_never_comes_is_not_waited_for(connection: Connection) -> None:
    with (
        connection.talking(["sh", "-c", "read x; exec sleep 5"], soon()) as lines,
        pytest.raises(HostError),
    ):
        lines.ask("hello", soon(0.2))


def test_a_thread_alone_enters_a_namespace(address: Address) -> None:
    def links() -> set[str]:
        text = Path("/proc/thread-self/net/dev").read_text()
        return {line.split(":")[0].strip() for line in text.splitlines()}

    before = links()
    there = netns.inside(address.namespace, "look", links, soon())
    assert "up-mig" in there
    assert links() == before


def test_what_hangs_in_a_namespace_is_left_at_the_deadline(address: Address) -> None:
    end = Deadline.after(0.2)
    with pytest.raises(HostError, match="hangs"):
        netns.inside(address.namespace, "wait", lambda: threading.Event().wait(2), end)


# --- a host that is nothing but an address --------------------------------------------------------


@pytest.fixture
def remote(address: Address) -> Iterator[RemoteHost]:
    probe = ensure_image("tiny", cache_folder()).probe
    uri = f"qemu+tcp://{MIGRATION}/system"
    reach = Reach(libvirt=uri, libvirt_target=uri, program=str(probe))
    host = RemoteHost(address, "debian-13", MIGRATION, Resources(), reach)
    yield host
    host.close()


def test_its_libvirt_answers_out_of_the_namespace(remote: RemoteHost) -> None:
    with remote.connect() as hypervisor:
        assert hypervisor.domains() == ()


def test_its_clock_is_found_with_an_error_that_holds(remote: RemoteHost) -> None:
    offset = remote.wall_clock()
    real, axis = time.time_ns(), now_ns()
    assert abs(offset.to_axis(real) - axis) <= offset.error_ns + 1_000_000


def test_its_files_are_read_as_they_are(remote: RemoteHost, place: NamespaceHost) -> None:
    content = bytes(range(256)) * 1000
    place.file("/tmp/a file").write_bytes(content)
    for host in (remote, place):
        assert host.read("/tmp/a file", soon()) == content
        with pytest.raises(HostError, match="No such file"):
            host.read("/tmp/none", soon())


def test_its_machine_is_looked_at_in_one_round_trip_a_look(
    remote: RemoteHost, place: NamespaceHost
) -> None:
    """Over ssh it is another host, and the same machine as the controller's, by its boot id."""
    pid = place.run(["pgrep", "-x", "libvirtd"], soon()).out.split()[0]
    place.file("/run/libvirtd.pid").write_text(f"{pid}\n")
    lab = cast("Lab", SimpleNamespace(places={}, machine_pid_file=None, patience=1.0))
    with ExitStack() as stack:
        (machine,) = machines_of(lab, (remote,), None, stack)
        machine.begin(soon())
        machine.look(soon())
        recording = machine.recording()
    assert (recording.name, recording.hosts) == ("controller", ("a",))
    assert {"migrate-lab", "libvirt on a", "ssh on a"} <= set(recording.samples[-1].parts_s)


@contextmanager
def echo(place: NamespaceHost) -> Iterator[str]:
    """A socket of the host that says what it hears in capitals, until its visitor has left."""
    path = "/tmp/echo"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place.file(path)))
        listening.listen()
        listening.settimeout(20)

        def serve() -> None:
            plug, _ = listening.accept()
            with plug:
                while heard := plug.recv(1 << 16):
                    plug.sendall(heard.upper())

        thread = threading.Thread(target=serve)
        thread.start()
        yield path
        thread.join(20)
        assert not thread.is_alive()
    place.file(path).unlink()


@pytest.mark.parametrize("how", ["over ssh", "at once"])
def test_its_sockets_are_reached(how: str, remote: RemoteHost, place: NamespaceHost) -> None:
    host: Host = remote if how == "over ssh" else place
    with echo(place) as path, host.dial(path, soon()) as plug:
        plug.settimeout(20)
        for said in (b"abc", bytes(range(256)) * 400):
            plug.sendall(said)
            heard = b""
            while len(heard) < len(said):
                heard += plug.recv(1 << 16)
            assert heard == said.upper()


def test_a_socket_that_is_not_there_is_told_or_ends_at_once(
    remote: RemoteHost, place: NamespaceHost
) -> None:
    with pytest.raises(HostError, match="No such file"), place.dial("/tmp/none", soon()):
        pass
    with remote.dial("/tmp/none", soon()) as plug:
        plug.settimeout(20)
        assert plug.recv(1) == b""


def test_a_socket_is_let_go_with_its_block(remote: RemoteHost, place: NamespaceHost) -> None:
    with echo(place) as path, pytest.raises(LookupError), remote.dial(path, soon()):
        raise LookupError


# --- as the user's ssh has it ---------------------------------------------------------------------

CONFIG = """\
Host one
  HostName 192.0.2.7
  Port 2222
  User lab
  IdentityFile ~/.ssh/special
Host two
  HostName two.example
  ProxyJump jump@gate
  HostKeyAlias twins
  UserKnownHostsFile ~/.ssh/others
  IdentityAgent none
Host *
  User everyone
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's, with keys of one host of each kind."""
    folder = tmp_path / ".ssh"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    (folder / "config").write_text(CONFIG)
    (folder / "special").write_text(key_pair()[0])
    (folder / "id_ed25519").write_text(key_pair()[0])
    key = key_pair()[1]
    (folder / "known_hosts").write_text(f"[192.0.2.7]:2222 {key}\nplain.example {key}\n")
    (folder / "others").write_text(f"twins {key_pair()[1]}\ntwins {key}\n")
    return folder


def test_a_host_is_found_by_the_users_configuration(home: Path) -> None:
    found = resolve("one", "a")
    assert (found.ip, found.port, found.user, found.host) == ("192.0.2.7", 2222, "lab", "a")
    assert found.key_files == (home / "special",)
    assert found.agent
    assert [key.split()[0] for key in found.host_keys] == ["ssh-ed25519"]
    assert resolve("root@one", "a").user == "root"


def test_a_host_behind_another_one_is_known_by_its_alias(home: Path) -> None:
    found = resolve("two", "b")
    assert found.proxy == "ssh -o BatchMode=yes -W two.example:22 jump@gate"
    assert (found.user, found.agent) == ("everyone", False)
    assert found.known_as == "twins -f '~/.ssh/others'"
    assert found.key_files == (home / "id_ed25519",)


@pytest.mark.usefixtures("home")
def test_a_host_whose_key_is_not_known_is_no_address() -> None:
    assert resolve("plain.example", "c").user == "everyone"
    with pytest.raises(HostError, match=r"none of other\.example in") as told:
        resolve("lab@other.example", "c")
    assert "`ssh lab@other.example true`" in told.value.remedy


def test_keys_of_no_use_are_told_by_their_file(address: Address, tmp_path: Path) -> None:
    (tmp_path / "junk").write_text("no key")
    poor = dataclasses.replace(address, key_files=(tmp_path / "junk", tmp_path / "none"))
    with pytest.raises(HostError, match=r"junk: .*none: ") as told:
        Connection(poor).run(["true"], soon())
    assert "ssh-copy-id" in told.value.remedy
