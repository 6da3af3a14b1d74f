"""A guest's machine on one host, as libvirt has it: asked, acted on, moved; errors of our tree."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

import libvirt
import libvirt_qemu
from pydantic import Field

from migrate.drivers.background_call import BackgroundCall
from migrate.drivers.libvirt_channel import Channel
from migrate.errors import HostError
from migrate.formats.answers import Part, Shape

if TYPE_CHECKING:
    from migrate.clock import Deadline

CHANNEL = "org.migrate-lab.probe.0"
"""The virtio-serial port that the in-guest probe is controlled by."""

FLAGS = {
    "live": libvirt.VIR_MIGRATE_LIVE,
    "unsafe": libvirt.VIR_MIGRATE_UNSAFE,
    "peer-to-peer": libvirt.VIR_MIGRATE_PEER2PEER,
    "auto-converge": libvirt.VIR_MIGRATE_AUTO_CONVERGE,
    "postcopy": libvirt.VIR_MIGRATE_POSTCOPY,
    "parallel": libvirt.VIR_MIGRATE_PARALLEL,
    "compressed": libvirt.VIR_MIGRATE_COMPRESSED,
}
"""Flags of a migration by the words that :mod:`migrate.migration.move` uses."""


class _AgentAnswer(Part):
    answer: Any = Field(alias="return")


AGENT = Shape(_AgentAnswer)


class HostConnection(Protocol):
    """A host's libvirt, as its domains need it."""

    host: str
    _connection: libvirt.virConnect

    def answers(self) -> bool:
        """Whether the connection is still there."""

    def _said(self, tried: str, remedy: str = "") -> AbstractContextManager[None]:
        """libvirt's errors in the block become those of our tree."""


class Domain:
    """A guest's machine on one host."""

    def __init__(self, domain: libvirt.virDomain, hypervisor: HostConnection) -> None:
        self._domain = domain
        self._said = hypervisor._said
        self._new_stream = hypervisor._connection.newStream
        self.reachable = hypervisor.answers
        """Whether the connection is still there by which this is known."""
        self.host = hypervisor.host
        self.name: str = domain.name()
        self.uuid: str = domain.UUIDString()

    def metadata(self, namespace: str) -> str | None:
        """The element of an XML namespace in the domain's metadata, or None."""
        try:
            element = libvirt.VIR_DOMAIN_METADATA_ELEMENT
            return str(self._domain.metadata(element, namespace))
        except libvirt.libvirtError as error:
            code = error.get_error_code()
            if code in (libvirt.VIR_ERR_NO_DOMAIN_METADATA, libvirt.VIR_ERR_NO_DOMAIN):
                return None
            raise HostError(
                "read the domain's metadata", host=self.host, said=str(error)
            ) from error
        except UnicodeError as error:
            raise HostError(
                "read the domain's metadata", host=self.host, said=str(error)
            ) from error

    def xml(self, *, migratable: bool = False) -> str:
        """The live XML; ``migratable``: as the other side of a migration wants it."""
        with self._said("read the domain's XML"):
            return str(self._domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE if migratable else 0))

    def state(self) -> str:
        """``running``, ``paused``, ``gone`` or another word of libvirt's."""
        words = {
            libvirt.VIR_DOMAIN_RUNNING: "running",
            libvirt.VIR_DOMAIN_PAUSED: "paused",
            libvirt.VIR_DOMAIN_SHUTOFF: "gone",
            libvirt.VIR_DOMAIN_CRASHED: "crashed",
        }
        try:
            state, _reason = self._domain.state()
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return "gone"
            raise HostError("ask for the guest's state", host=self.host, said=str(error)) from error
        return words.get(state, f"state {state}")

    def state_and_reason(self) -> str:
        """In libvirt's words: ``paused (postcopy-failed)``. Source: virDomainState and the enums
        of its reasons."""
        with self._said("ask for the guest's state"):
            state, reason = self._domain.state()
        words = {libvirt.VIR_DOMAIN_SHUTOFF: "shutoff", libvirt.VIR_DOMAIN_CRASHED: "crashed"}
        words |= {libvirt.VIR_DOMAIN_RUNNING: "running", libvirt.VIR_DOMAIN_PAUSED: "paused"}
        word = words.get(state, f"state {state}")
        return f"{word} ({_reason(word, reason)})"

    def in_job(self) -> bool:
        """Whether libvirt still moves or saves it, in or out.

        Source: libvirt's qemuDomainGetJobStats, which refuses a guest that comes in.
        """
        try:
            return bool(self._domain.jobInfo()[0] != libvirt.VIR_DOMAIN_JOB_NONE)
        except libvirt.libvirtError as error:
            code = error.get_error_code()
            if code in (libvirt.VIR_ERR_OPERATION_UNSUPPORTED, libvirt.VIR_ERR_OPERATION_TIMEOUT):
                return True
            if code in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID):
                return False
            raise HostError("ask for its job", host=self.host, said=str(error)) from error

    def destroy(self) -> None:
        """End it at once; one that is gone already is fine."""
        try:
            self._domain.destroy()
        except libvirt.libvirtError as error:
            if error.get_error_code() not in (
                libvirt.VIR_ERR_NO_DOMAIN,
                libvirt.VIR_ERR_OPERATION_INVALID,
            ):
                raise HostError("end the guest", host=self.host, said=str(error)) from error

    def limit_downtime(self, milliseconds: int) -> None:
        """How long the guest may be stopped for the switchover, before a migration begins."""
        with self._said("limit the downtime"):
            self._domain.migrateSetMaxDowntime(milliseconds, 0)

    def attach(self, device_xml: str) -> None:
        """Plug a device into the running guest; returns when QEMU has it, not yet the guest."""
        with self._said("plug the device in"):
            self._domain.attachDeviceFlags(device_xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def detach(self, device_xml: str) -> None:
        """Ask the guest to let a device go; libvirt waits a few seconds for that."""
        with self._said("take the device out"):
            self._domain.detachDeviceFlags(device_xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def suspend(self) -> None:
        """Stop the guest's processors."""
        with self._said("suspend the guest"):
            self._domain.suspend()

    def resume(self) -> None:
        """Let them go on."""
        with self._said("resume the guest"):
            self._domain.resume()

    def save(self, path: str) -> None:
        """Save its state to a file on the host and end it."""
        with self._said(f"save the guest to {path}"):
            self._domain.save(path)

    def abort_job(self) -> None:
        """Ask for the migration to be given up; too late is no error: its outcome will tell."""
        with contextlib.suppress(libvirt.libvirtError):
            self._domain.abortJob()

    def start_postcopy(self) -> None:
        """Switch the migration going on to post-copy."""
        with self._said("switch to post-copy"):
            self._domain.migrateStartPostCopy(0)

    def migrate(
        self,
        target: HostConnection,
        target_uri: str,
        flags: frozenset[str],
        parameters: Mapping[str, int | str],
    ) -> BackgroundCall:
        """Begin a migration; the returned call is waited for, or left alone while one acts."""
        bits = functools.reduce(lambda sum_, word: sum_ | FLAGS[word], flags, 0)
        if "peer-to-peer" in flags:
            return BackgroundCall(
                f"migrate to {target.host}",
                lambda: self._domain.migrateToURI3(target_uri, dict(parameters), bits),
            )
        return BackgroundCall(
            f"migrate to {target.host}",
            lambda: self._domain.migrate3(target._connection, dict(parameters), bits),
        )

    def channel(self, name: str = CHANNEL) -> Channel:
        """Open a virtio-serial port of the guest for reading and writing."""
        with self._said(f"open the channel {name}"):
            stream = self._new_stream(libvirt.VIR_STREAM_NONBLOCK)
            self._domain.openChannel(name, stream, libvirt.VIR_DOMAIN_CHANNEL_FORCE)
        return Channel(stream, self.host)

    def agent(self, command: str, deadline: Deadline, **arguments: Any) -> object:
        """A command to the QEMU guest agent, and what it returns. HostError."""
        text = json.dumps({"execute": command, "arguments": arguments})
        asked = f"ask the guest agent for {command}"
        with self._said(asked):
            answer = libvirt_qemu.qemuAgentCommand(
                self._domain, text, max(1, int(deadline.left())), 0
            )
        return AGENT.parse(str(answer), asked, host=self.host).answer


def _reason(state: str, number: int) -> str:
    """By the name of libvirt's constant: ``VIR_DOMAIN_PAUSED_POSTCOPY_FAILED``."""
    prefix = f"VIR_DOMAIN_{state.upper()}_"
    names = (name for name in dir(libvirt) if name.startswith(prefix))
    word = next((name for name in names if getattr(libvirt, name) == number), "")
    return word.removeprefix(prefix).lower().replace("_", "-") or f"reason {number}"
