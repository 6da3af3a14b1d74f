"""The one door to libvirt: connections, domains, events and channels, with errors of our tree.

Its events' names and loop are in :mod:`migrate.drivers.libvirt_events`, the guest's byte streams in
:mod:`migrate.drivers.libvirt_channel`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import libvirt
import libvirt_qemu

from migrate.clock import Deadline
from migrate.drivers import netns
from migrate.drivers.background_call import BackgroundCall
from migrate.drivers.libvirt_domain import CHANNEL, Domain
from migrate.drivers.libvirt_events import EVENTS, LibvirtEvent, QemuEvent, ensure_event_loop
from migrate.errors import GuestError, HostError
from migrate.formats.answers import MalformedError, Shape, plain, quote
from migrate.formats.virtio_features import refusal_remedy
from migrate.formats.xml_document import parse_xml

__all__ = ["CHANNEL", "Domain", "Hypervisor"]

OPEN_S = 20.0
"""For a libvirtd to answer: one that hangs would be waited for without end."""
NO_FILE_DESCRIPTORS = 11_000_000
"""QEMU from this version on reads no state from the descriptor of a file, which is what libvirt
11.3 hands it; past the cache libvirt hands it a pipe."""
LAST_S = 1 << 33
"""A stamp of QEMU's beyond that (the year 2242), or before 1970, is none: it has -1 where it can't
tell the time (QEMU docs/interop/qmp-spec)."""
DATA = Shape(dict[str, Any])
UNDO_S = 10.0
"""For libvirt to end a guest whose start hangs."""


class Hypervisor:
    """One host's libvirt; a context manager that closes the connection."""

    def __init__(self, connection: libvirt.virConnect, host: str) -> None:
        self._connection = connection
        self.host = host

    @classmethod
    def open(cls, uri: str, host: str, namespace: Path | None = None) -> Hypervisor:
        """Connect, out of a network namespace of this machine if one is named.

        Raises :class:`HostError` with libvirt's words.
        """
        ensure_event_loop()

        def connect() -> libvirt.virConnect:
            if namespace is not None:
                netns.enter(namespace)  # the call's own thread, and it alone
            return libvirt.open(uri)

        opening = BackgroundCall("connect to libvirt", connect)
        if not opening.wait(Deadline.after(OPEN_S)):
            raise HostError(
                "connect to libvirt", host=host, said=f"no answer in {OPEN_S:.0f} s: it hangs"
            )
        try:
            connection = opening.result()
            connection.setKeepAlive(5, 3)
        except libvirt.libvirtError as error:
            raise HostError(
                "connect to libvirt",
                host=host,
                said=str(error),
                remedy="is libvirtd running there? `migrate-lab lab status`",
            ) from error
        return cls(connection, host)

    def __enter__(self) -> Hypervisor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; a second time does nothing."""
        with contextlib.suppress(libvirt.libvirtError):  # a connection that broke is closed
            self._connection.close()

    @contextmanager
    def _said(self, tried: str, remedy: str = "") -> Iterator[None]:
        try:
            yield
        except (libvirt.libvirtError, UnicodeError) as error:  # a name that is no UTF-8
            said = str(error)
            remedy = remedy or refusal_remedy(said)
            raise HostError(tried, host=self.host, said=said, remedy=remedy) from error

    def answers(self) -> bool:
        """Whether the connection is still there: it may have broken, or its libvirtd ended."""
        try:
            return bool(self._connection.isAlive())
        except libvirt.libvirtError:
            return False

    # --- the host ---

    def versions(self) -> dict[str, str]:
        """The versions of libvirt's daemon and of QEMU, by ``libvirt`` and ``qemu``."""
        with self._said("ask for versions"):
            return {
                "libvirt": _dotted(self._connection.getLibVersion()),
                "qemu": _dotted(self._connection.getVersion()),
            }

    def machine(self, wanted: str) -> str:
        """The versioned name behind a machine's alias, e.g. ``pc-q35-10.0`` for ``q35``."""
        with self._said("ask for domain capabilities"):
            text = self._connection.getDomainCapabilities(
                "/usr/bin/qemu-system-x86_64", "x86_64", wanted, "qemu"
            )
        name = parse_xml(text, "read domain capabilities", host=self.host).findtext("machine")
        return name or wanted

    def machines(self, kind: str) -> tuple[str, ...]:
        """Every versioned name of a kind of machine that the host's QEMU knows."""
        with self._said("ask for machine types"):
            text = self._connection.getCapabilities()
        root = parse_xml(text, "read the host's capabilities", host=self.host)
        elements = root.iterfind("./guest/arch[@name='x86_64']//machine")
        names = {name for e in elements for name in (e.text, e.get("canonical")) if name}
        family = self.machine(kind).rpartition("-")[0]
        return tuple(sorted(name for name in names if name.rpartition("-")[0] == family))

    # --- domains ---

    def create(self, xml: str, deadline: Deadline) -> Domain:
        """Start a transient domain, valid by libvirt's own schema. A start that hangs is ended at
        the deadline."""
        uuid = _uuid_in(xml)
        validated = libvirt.VIR_DOMAIN_START_VALIDATE
        return self._start(
            "start the guest", uuid, deadline, lambda: self._connection.createXML(xml, validated)
        )

    def saved_xml(self, path: str) -> str:
        """The XML in a saved state (a path on the host)."""
        with self._said(f"read the XML in {path}"):
            return str(self._connection.saveImageGetXMLDesc(path, 0))

    def restore(self, path: str, deadline: Deadline, xml: str | None = None) -> Domain:
        """Start a domain from a saved state (a path on the host); ended at the deadline, too.

        ``xml`` is used in the place of the saved one: on another host, what backs it differs. The
        UUID must be the saved one's, by libvirt's own rule.
        """
        uuid = _uuid_in(xml or self.saved_xml(path))

        flags = libvirt.VIR_DOMAIN_SAVE_RUNNING
        with self._said("ask for QEMU's version"):
            if self._connection.getVersion() >= NO_FILE_DESCRIPTORS:
                flags |= libvirt.VIR_DOMAIN_SAVE_BYPASS_CACHE

        def start() -> libvirt.virDomain:
            self._connection.restoreFlags(path, xml, flags)
            return self._connection.lookupByUUIDString(uuid)

        return self._start(f"restore the guest from {path}", uuid, deadline, start)

    def _start(
        self, tried: str, uuid: str, deadline: Deadline, start: Callable[[], libvirt.virDomain]
    ) -> Domain:
        call = BackgroundCall(tried, start)
        if not call.wait(deadline):
            # A start hangs where QEMU waits for its vhost-user backend: with QEMU ended, libvirt's
            # call returns. Only this domain: the host may have others.
            undone = Deadline.after(UNDO_S)
            ending = BackgroundCall(
                "end the guest", lambda: self._connection.lookupByUUIDString(uuid).destroy()
            )
            ended = ending.wait(undone) and call.wait(undone)
            raise GuestError(
                tried,
                host=self.host,
                said="QEMU did not come up before the deadline"
                + ("" if ended else f", and libvirt did not end it within {UNDO_S:.0f} s"),
                remedy="is the interface's backend running? QEMU's log on the host may tell more",
            )
        try:
            return Domain(call.result(), self)
        except libvirt.libvirtError as error:
            said = str(error)
            raise GuestError(
                tried, host=self.host, said=said, remedy=refusal_remedy(said)
            ) from error

    def find(self, uuid: str) -> Domain | None:
        """The domain with this UUID, or None."""
        return self._looked_up(uuid, self._connection.lookupByUUIDString)

    def find_named(self, name: str) -> Domain | None:
        """The domain called ``name``, whoever's it is, or None."""
        return self._looked_up(name, self._connection.lookupByName)

    def _looked_up(self, what: str, look_up: Callable[[str], libvirt.virDomain]) -> Domain | None:
        try:
            return Domain(look_up(what), self)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise HostError(f"look for domain {what}", host=self.host, said=str(error)) from error
        except UnicodeError as error:  # a name that is no UTF-8
            raise HostError(f"look for domain {what}", host=self.host, said=str(error)) from error

    def domains(self) -> tuple[Domain, ...]:
        """All domains of this host, running or not, whoever's they are."""
        with self._said("list domains"):
            return tuple(Domain(domain, self) for domain in self._connection.listAllDomains())

    # --- events ---

    @contextmanager
    def events(self, on_qemu: QemuEvent, on_libvirt: LibvirtEvent) -> Iterator[None]:
        """Pass on QEMU's events and libvirt's own, from libvirt's thread, while the block runs.

        QEMU's are all that it sends, by their names; libvirt's job-completed has all its fields.
        """
        connection = self._connection

        def qemu(*args: Any) -> None:
            _connection, _domain, event, seconds, micros, details, _opaque = args
            on_qemu(str(event), stamp_ns(seconds, micros), event_data(details))

        def callback(tell: Callable[..., tuple[str, dict[str, Any]]]) -> Callable[..., None]:
            def told(_connection: object, _domain: object, *details: Any) -> None:
                name, data = tell(*details[:-1])
                on_libvirt(name, kept_data(data))

            return told

        with contextlib.ExitStack() as undo, self._said("listen to events"):
            number = libvirt_qemu.qemuMonitorEventRegister(connection, None, None, qemu, None, 0)
            undo.callback(
                self._quietly, libvirt_qemu.qemuMonitorEventDeregister, connection, number
            )
            for kind, tell in EVENTS.items():
                number = connection.domainEventRegisterAny(None, kind, callback(tell), None)
                undo.callback(self._quietly, connection.domainEventDeregisterAny, number)
            yield

    @staticmethod
    def _quietly(undo: Callable[..., object], *args: object) -> None:
        with contextlib.suppress(libvirt.libvirtError):  # with the connection its events are gone
            undo(*args)


UNREADABLE = "unreadable"
"""In an event's data, in the place of what made no sense: its begin."""


def stamp_ns(seconds: int, micros: int) -> int | None:
    """QEMU's stamp of an event, in ns since 1970; None where it has none."""
    if not (0 <= seconds < LAST_S and 0 <= micros < 10**6):
        return None
    return seconds * 10**9 + micros * 1000


def event_data(details: str | None) -> dict[str, Any]:
    """The data of an event of QEMU's, as libvirt hands it on: JSON."""
    try:
        return kept_data(DATA.parse(details, "event")) if details else {}
    except MalformedError:
        return {UNREADABLE: quote(details or "")}


def kept_data(data: dict[str, Any]) -> dict[str, Any]:
    """An event's data, if it can be kept."""
    try:
        return DATA.of(plain(data, "event"), "event")
    except MalformedError as error:
        return {UNREADABLE: error.said}


def _uuid_in(xml: str) -> str:
    return parse_xml(xml, "read a domain's XML").findtext("uuid", "")


def _dotted(number: int) -> str:
    return f"{number // 10**6}.{number // 1000 % 1000}.{number % 1000}"
