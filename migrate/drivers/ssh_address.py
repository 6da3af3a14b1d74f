"""Where a host's sshd is and who it has to be, as the user's ssh configuration has it."""

from __future__ import annotations

import getpass
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import paramiko
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from paramiko.hostkeys import InvalidHostKey

from migrate.errors import HostError
from migrate.formats.answers import whole_number


@dataclass(frozen=True, slots=True)
class Address:
    """Where a host's sshd listens, who it has to be, and by what we are let in."""

    host: str
    """The host's name, for errors."""
    ip: str
    """Or a name that resolves to one."""
    host_keys: tuple[str, ...]
    """``ssh-ed25519 AAAA...``: a host that shows none of these is refused."""
    key_files: tuple[Path, ...] = ()
    """Our private keys, in OpenSSH's format; one with a passphrase is the agent's to use."""
    agent: bool = False
    """Whether the user's ssh-agent is asked first."""
    user: str = "root"
    port: int = 22
    namespace: Path | None = None
    """The network namespace of this machine from which the host can be reached."""
    proxy: str = ""
    """A command whose input and output are a connection to the host (``ProxyCommand``)."""
    known_as: str = ""
    """What the user's known_hosts calls it, with the file: for the remedies."""


def resolve(target: str, host: str) -> Address:
    """What the user's ssh makes of ``target``: an alias, a name or an address, ``user@`` before it.

    By ``~/.ssh/config`` and ``/etc/ssh/ssh_config`` (HostName, Port, User, IdentityFile,
    ProxyCommand, ProxyJump, UserKnownHostsFile, HostKeyAlias), the known_hosts and the agent.
    HostError for a host whose key is not known: by whom it is to be accepted.
    """
    user, _, alias = target.rpartition("@")
    options = _config(host).lookup(alias)
    name = options.get("hostname", alias)
    port = whole_number(str(options.get("port", 22)), f"read the port of {target}", host=host)
    user = user or options.get("user") or getpass.getuser()
    called = options.get("hostkeyalias") or (name if port == 22 else f"[{name}]:{port}")
    files = options.get("userknownhostsfile", "~/.ssh/known_hosts ~/.ssh/known_hosts2").split()
    keys = _known(called, [*files, "/etc/ssh/ssh_known_hosts"], host)
    if not keys:
        raise HostError(
            f"connect to {name} port {port}",
            host=host,
            said=f"its host key is not known: there is none of {called} in {' or '.join(files)}",
            remedy=f"connect once and compare its fingerprint: `ssh {shlex.quote(target)} true`",
        )
    jump = options.get("proxyjump")
    proxy = options.get("proxycommand", "")
    if jump and jump != "none":
        proxy = shlex.join(["ssh", "-o", "BatchMode=yes", "-W", f"{name}:{port}", jump])
    return Address(
        host=host,
        ip=name,
        host_keys=keys,
        key_files=tuple(path for path in _identities(options) if path.is_file()),
        agent=options.get("identityagent") != "none",
        user=user,
        port=port,
        proxy="" if proxy == "none" else proxy,
        known_as=f"{shlex.quote(called)} -f {shlex.quote(files[0])}",
    )


def _config(host: str) -> paramiko.SSHConfig:
    """The user's first: of each option the first value counts."""
    texts = []
    for path in (Path("~/.ssh/config").expanduser(), Path("/etc/ssh/ssh_config")):
        with suppress(FileNotFoundError):
            texts.append(path.read_text(errors="replace"))
    with _readable("~/.ssh/config", host):
        return paramiko.SSHConfig.from_text("\n".join(texts))


@contextmanager
def _readable(file: str, host: str) -> Iterator[None]:
    """What paramiko makes of a file that is none of its kind is an error with the file's name."""
    try:
        yield
    except (ValueError, OSError, paramiko.SSHException, InvalidHostKey) as error:
        said = str(error) or type(error).__name__
        raise HostError(f"read {file}", host=host, said=said, remedy="mend that file") from error


def _known(called: str, files: Sequence[str], host: str) -> tuple[str, ...]:
    keys: dict[str, None] = {}
    for file in files:
        known = paramiko.HostKeys()
        with _readable(file, host), suppress(FileNotFoundError):
            known.load(str(Path(file).expanduser()))
        for kind, key in (known.lookup(called) or {}).items():
            keys[f"{kind} {key.get_base64()}"] = None
    return tuple(keys)


def _identities(options: paramiko.SSHConfigDict) -> Iterator[Path]:
    usual = [f"~/.ssh/id_{kind}" for kind in ("ed25519", "ecdsa", "rsa")]
    named = options.get("identityfile", usual)
    yield from (Path(path).expanduser() for path in named)


def key_pair() -> tuple[str, str]:
    """A new Ed25519 key: private in OpenSSH's format, public as one line."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return private.decode(), public.decode()
