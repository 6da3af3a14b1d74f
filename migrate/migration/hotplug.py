"""Devices that are plugged into a guest that runs, and taken out of it again."""

from __future__ import annotations

from migrate.clock import Deadline, now_ns, until
from migrate.drivers.libvirt import Domain
from migrate.errors import GuestError, HostError
from migrate.formats.xml_document import parse_xml
from migrate.guest.probe import Probe
from migrate.lab.api import Lab
from migrate.model import Event
from migrate.recorder.events import Listener
from migrate.waiting import waiting

UNPLUG_S = 20.0
"""For a guest to let a device go: its kernel has to see the ask, and its driver to end."""
POLL_S = 0.1
"""Between two looks into the guest: its probe speaks only when asked."""


def unplug(domain: Domain, device: str, listener: Listener) -> None:
    """Have the guest let go of the device that ``device`` (its XML) was plugged in by.

    HostError if libvirt refuses, or the guest keeps it.
    """
    alias = parse_xml(device, "take the device out").find("alias")
    name = None if alias is None else alias.get("name")
    since = listener.mark()
    domain.detach(device)
    gone = listener.wait(
        lambda event: event.name == "device-removed" and event.data.get("device") == name,
        Deadline.after(UNPLUG_S),
        since,
    )
    if gone is None:
        raise HostError(
            "take the device out",
            host=domain.host,
            said=f"the guest did not let it go within {UNPLUG_S:.0f} s",
            remedy="has its kernel PCIe hotplug? its console is on the host",
        )
    listener.add(_step(domain, "detached"))


def plug_in(domain: Domain, device: str, listener: Listener) -> None:
    """Plug ``device`` (its XML) in; returns when QEMU has it, not yet the guest."""
    domain.attach(device)
    listener.add(_step(domain, "attached"))


def _step(domain: Domain, name: str) -> Event:
    return Event(at_ns=now_ns(), source="controller", host=domain.host, name=name)


def wait_for_carrier(probe: Probe, known: int, lab: Lab | None, deadline: Deadline) -> None:
    """Wait for a device that was plugged in to appear in the guest and to have carrier.

    ``known`` is how long the guest's log of lower devices was before. With a ``lab`` the guest's
    interface gets its address as soon as the device is there: one that is new has none. GuestError
    if it does not come up by the deadline.
    """
    appeared = False

    def has_carrier() -> bool:
        nonlocal appeared
        changes = [change.what for change in probe.lower_log()[known:]]
        if "appeared" in changes and not appeared:
            appeared = True
            if lab is not None:
                probe.address(lab.guest_address, lab.prefix)
        # A link may come up, go down again at once and come back a second later (igbvf does).
        carrier = [what for what in changes if what in ("appeared", "up", "down")]
        return appeared and carrier[-1:] == ["up"]

    with waiting("carrier on the hotplugged device in the guest", deadline):
        carries = until(has_carrier, deadline, POLL_S)
    if not carries:
        raise GuestError(
            "use the device that was plugged in",
            host=probe.where,
            said="it has no carrier" if appeared else "it did not appear in the guest",
            remedy="is the link of the host's PF up?"
            if appeared
            else "has the guest's image a driver for it, and its kernel PCIe hotplug?",
        )
