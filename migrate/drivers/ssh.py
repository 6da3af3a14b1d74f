"""The one door to paramiko: programs on a host over ssh, its key checked, never past a deadline.

One connection is kept for each host, and made anew when it broke; every program is a channel of it.
"""

from __future__ import annotations

import logging
import select
import shlex
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress

import paramiko

from migrate.clock import Deadline, now_ns
from migrate.drivers.netns import inside
from migrate.drivers.shell import MOST_BYTES, Completed, TooMuchError, decoded, log_end
from migrate.drivers.ssh_address import Address
from migrate.errors import HostError

LOGGER = logging.getLogger(__name__)

CONNECT_S = 15.0
"""For a host to answer and let us in."""
CHUNK = 1 << 16
LINE_BYTES = 16 << 20
"""Of an answer: many small files are one."""
GRACE_S = 1.0
"""How much longer than its deadline a program may live on the host before it is killed there."""


class Connection:
    """A host's programs; safe to use from several threads."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._transport: paramiko.Transport | None = None
        self._lock = threading.Lock()

    def close(self) -> None:
        """Let the connection go; the next program makes a new one."""
        with self._lock:
            if self._transport is not None:
                self._transport.close()
                self._transport = None

    def run(
        self,
        argv: Sequence[str],
        deadline: Deadline,
        *,
        text: str | None = None,
        check: bool = True,
    ) -> Completed:
        """Run a program to its end, as :func:`migrate.drivers.shell.run` does here.

        It is quoted for the host's shell, and ended on the host as well when its time is up.
        """
        tried = " ".join(argv)
        began_ns = now_ns()
        out, err, status = self._done(argv, deadline, tried, text or "")
        done = Completed(tuple(argv), status, decoded(out), decoded(err))
        log_end(LOGGER, done, began_ns, self.address.host)
        if check and status != 0:
            said = (done.err or done.out).strip() or f"exit status {status}"
            raise HostError(tried, host=self.address.host, said=said[-2000:])
        return done

    @contextmanager
    def talking(self, argv: Sequence[str], deadline: Deadline) -> Iterator[Lines]:
        """A program that is spoken to line by line while the block runs."""
        with self._channel(shlex.join(argv), deadline, " ".join(argv)) as channel:
            yield Lines(channel, self.address.host)

    def read(self, path: str, deadline: Deadline) -> bytes:
        """A file of the host as it is."""
        tried = f"read {path}"
        out, err, status = self._done(["cat", "--", path], deadline, tried, "")
        if status != 0:
            raise HostError(tried, host=self.address.host, said=decoded(err).strip())
        return out

    def _done(
        self, argv: Sequence[str], deadline: Deadline, tried: str, text: str
    ) -> tuple[bytes, bytes, int]:
        """What a program said, and its status, when it has ended."""
        with self._channel(_timed(argv, deadline), deadline, tried) as channel:
            try:
                return *_communicate(channel, text, deadline), _status(channel, deadline)
            except TimeoutError as late:
                said = "no end before the deadline"
                raise HostError(tried, host=self.address.host, said=said) from late
            except TooMuchError as error:
                raise HostError(tried, host=self.address.host, said=str(error)) from error
            except (OSError, EOFError, paramiko.SSHException) as broken:
                raise self._lost(tried, broken) from broken

    @contextmanager
    def piped(self, argv: Sequence[str], deadline: Deadline) -> Iterator[socket.socket]:
        """A program's input and output as one socket while the block runs; it ends with its input.

        ``deadline`` is for its start alone.
        """
        ours, theirs = socket.socketpair()
        with ours, self._channel(shlex.join(argv), deadline, " ".join(argv)) as channel:
            pump = threading.Thread(target=_pump, args=(channel, theirs), daemon=True)
            pump.start()
            try:
                yield ours
            finally:
                ours.close()
                pump.join()

    @contextmanager
    def _channel(self, command: str, deadline: Deadline, tried: str) -> Iterator[paramiko.Channel]:
        channel = self._opened(tried, deadline)
        try:
            try:
                channel.exec_command(command)
            except (OSError, EOFError, paramiko.SSHException) as broken:
                raise self._lost(tried, broken) from broken
            yield channel
        finally:
            channel.close()

    def _opened(self, tried: str, deadline: Deadline) -> paramiko.Channel:
        """A channel of the connection, of a new one if that has broken meanwhile."""
        fresh = self._transport is None
        try:
            return self._connected(deadline).open_session(timeout=max(deadline.left(), 0.1))
        except (OSError, EOFError, paramiko.SSHException) as broken:
            self.close()
            if fresh or deadline.passed():
                raise self._lost(tried, broken) from broken
        try:
            return self._connected(deadline).open_session(timeout=max(deadline.left(), 0.1))
        except (OSError, EOFError, paramiko.SSHException) as broken:
            self.close()
            raise self._lost(tried, broken) from broken

    def _connected(self, deadline: Deadline) -> paramiko.Transport:
        with self._lock:
            if self._transport is None or not self._transport.is_active():
                self._transport = _connect(self.address, deadline.sooner(CONNECT_S))
            return self._transport

    def _lost(self, tried: str, broken: Exception) -> HostError:
        return HostError(
            tried,
            host=self.address.host,
            said=f"the ssh connection broke: {broken or type(broken).__name__}",
            remedy="does the host run, and its sshd?",
        )


class Lines:
    """Both ends of a program that answers a line to each line."""

    def __init__(self, channel: paramiko.Channel, host: str) -> None:
        self._channel = channel
        self._host = host
        self._buffer = bytearray()

    def ask(self, line: str, deadline: Deadline) -> str:
        """Send a line; the line that comes back. HostError where none does."""
        said = "it ended"
        try:
            self._channel.settimeout(max(deadline.left(), 0.001))
            self._channel.sendall(line.encode() + b"\n")
            self._fill(deadline)
        except OSError as broken:
            said = str(broken) or "no answer before the deadline"
        answer, end, rest = self._buffer.partition(b"\n")
        if not end:
            raise HostError("talk to a program", host=self._host, said=said)
        self._buffer = rest
        return decoded(bytes(answer))

    def _fill(self, deadline: Deadline) -> None:
        """Until a line is whole, or there is no more; OSError for one without end, or too late."""
        data = bytes(self._buffer)
        while b"\n" not in data and (data := self._channel.recv(CHUNK)):
            self._buffer += data
            self._channel.settimeout(max(deadline.left(), 0.001))
            if len(self._buffer) > LINE_BYTES:
                raise OSError(f"a line of more than {LINE_BYTES >> 20} MiB came")
            if deadline.passed() and b"\n" not in data:
                raise TimeoutError


def _timed(argv: Sequence[str], deadline: Deadline) -> str:
    """The program under ``timeout``, so that it does not outlive us on the host."""
    seconds = max(deadline.left(), 0.01) + GRACE_S
    return shlex.join(["timeout", "--kill-after=1", f"{seconds:.2f}", *argv])


def _connect(address: Address, deadline: Deadline) -> paramiko.Transport:
    tried = f"connect to {address.ip} port {address.port}"

    def plugged() -> socket.socket:
        plug = socket.create_connection((address.ip, address.port), max(deadline.left(), 0.1))
        if deadline.passed():  # nobody waits for it any more
            plug.close()
            raise TimeoutError("no answer before the deadline")
        return plug

    plug: socket.socket | paramiko.ProxyCommand
    if address.proxy:
        plug = paramiko.ProxyCommand(address.proxy)
    else:
        plug = inside(address.namespace, tried, plugged, deadline, host=address.host)
    transport = paramiko.Transport(plug)
    try:
        _prefer_known(transport, address)
        transport.start_client(timeout=max(deadline.left(), 0.1))
        _check_key(transport.get_remote_server_key(), address)
        _let_in(transport, address)
    except BaseException:
        transport.close()
        raise
    transport.set_keepalive(5)
    return transport


_RSA = ("rsa-sha2-512", "rsa-sha2-256")


def _prefer_known(transport: paramiko.Transport, address: Address) -> None:
    """A host has keys of several kinds: it is asked for one of those that we know."""
    kinds = [key.split()[0] for key in address.host_keys]
    wanted = [name for kind in kinds for name in (_RSA if kind == "ssh-rsa" else (kind,))]
    options = transport.get_security_options()
    known = [name for name in options.key_types if name in wanted]
    if known:
        options.key_types = known + [name for name in options.key_types if name not in known]


def _check_key(shown: paramiko.PKey, address: Address) -> None:
    if f"{shown.get_name()} {shown.get_base64()}" in address.host_keys:
        return
    remedy = "make sure that it is the right host before its key is accepted"
    if address.known_as:
        remedy += f"; then `ssh-keygen -R {address.known_as}`, and connect once by ssh"
    raise HostError(
        f"connect to {address.ip} port {address.port}",
        host=address.host,
        said=f"its host key has changed ({shown.get_name()} {shown.fingerprint})",
        remedy=remedy,
    )


def _let_in(transport: paramiko.Transport, address: Address) -> None:
    """Authenticate by the agent's keys, then those in files, as ssh does; never by a password."""
    refused: list[str] = []
    for name, key in _keys(address, refused):
        try:
            transport.auth_publickey(address.user, key)
        except paramiko.AuthenticationException as error:
            refused.append(f"{name}: {error}")
        else:
            return
    raise HostError(
        f"log in at {address.ip} as {address.user}",
        host=address.host,
        said="; ".join(refused) or "there is no key to try",
        remedy="`ssh-copy-id` a key to the host; one with a passphrase: `ssh-add` it to the agent",
    )


def _keys(address: Address, refused: list[str]) -> Iterator[tuple[str, paramiko.PKey]]:
    if address.agent:
        with closing(paramiko.Agent()) as agent:
            yield from ((f"the agent's {key.get_name()}", key) for key in agent.get_keys())
    for path in address.key_files:
        try:
            yield str(path), paramiko.PKey.from_path(path)
        except paramiko.PasswordRequiredException:
            refused.append(f"{path}: it has a passphrase")
        except (OSError, ValueError, paramiko.SSHException) as error:
            refused.append(f"{path}: {error}")


def _communicate(channel: paramiko.Channel, text: str, deadline: Deadline) -> tuple[bytes, bytes]:
    """All that comes until both streams have ended; TimeoutError at the deadline, TooMuchError
    beyond :data:`~migrate.drivers.shell.MOST_BYTES`."""
    channel.settimeout(max(deadline.left(), 0.001))
    if text:
        with suppress(OSError):  # it ended without reading on: its status tells more
            channel.sendall(text.encode())
    channel.shutdown_write()
    out, err = bytearray(), bytearray()
    while True:
        if len(out) + len(err) > MOST_BYTES:
            raise TooMuchError
        if channel.recv_ready():
            out += channel.recv(CHUNK)
        elif channel.recv_stderr_ready():
            err += channel.recv_stderr(CHUNK)
        elif channel.eof_received or channel.closed:
            return bytes(out), bytes(err)
        elif not select.select([channel], [], [], deadline.left())[0]:
            raise TimeoutError


def _pump(channel: paramiko.Channel, plug: socket.socket) -> None:
    """Bytes both ways until one side has ended; the other one is ended then, too."""
    with plug, suppress(OSError, EOFError, paramiko.SSHException):
        while True:
            ready = select.select([channel.fileno(), plug.fileno()], [], [])[0]
            if channel.fileno() in ready:
                if not (received := channel.recv(CHUNK)):
                    return
                plug.sendall(received)
            if plug.fileno() in ready:
                if not (sent := plug.recv(CHUNK)):
                    channel.shutdown_write()
                    return
                channel.sendall(sent)


def _status(channel: paramiko.Channel, deadline: Deadline) -> int:
    if not channel.status_event.wait(max(deadline.left(), 0.001)):
        raise TimeoutError
    return channel.recv_exit_status()
