"""What is ours is ended, what is somebody else's is left alone and named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from migrate.backends.xml import rewritten
from migrate.campaign.session import Session
from migrate.cleanup.leftovers import leftovers
from migrate.cleanup.repair import repair
from migrate.drivers.libvirt import CHANNEL
from migrate.errors import HostError
from migrate.guest.domain_xml import MONITOR, NAME, QEMU_LOG
from migrate.guest.identity import NOBODY, Identity, forget, marked, record, recorded
from migrate.guest.lifecycle import end_left, signal_qemu
from migrate.lab.api import Host
from migrate.model import Case
from selftests.guest.test_domain_xml import source_of
from selftests.helpers import soon

OTHERS = "11111111-2222-4333-8444-555555555555"


def of(xml: str) -> Any:
    """A domain with this XML."""
    root = ET.fromstring(xml)
    element = root.find("./metadata/*")
    text = None if element is None else ET.tostring(element, encoding="unicode")
    uuid = root.findtext("./uuid")
    return SimpleNamespace(name="guest", host="a", uuid=uuid, metadata=lambda _namespace: text)


def test_a_domain_that_is_marked_is_owned_by_that_guest_alone() -> None:
    mine, yours = Identity.new("lab", "run", "case"), Identity.new("lab", "run", "case")
    domain = of(rewritten(source_of("virtio-split"), (mine.mark,)))
    assert mine.owns(domain)
    assert not yours.owns(domain)
    again = of(rewritten(rewritten(source_of("virtio-split"), (mine.mark,)), (yours.mark,)))
    assert yours.owns(again), "a saved guest is marked anew"
    assert not mine.owns(again)


def test_a_copy_of_our_xml_under_another_uuid_is_not_ours() -> None:
    mine = Identity.new()
    xml = rewritten(source_of("virtio-split"), (mine.mark,))
    assert not marked(of(xml.replace(f"<uuid>{mine.uuid}</uuid>", f"<uuid>{OTHERS}</uuid>")))
    assert not marked(of(f"<domain><uuid>{mine.uuid}</uuid></domain>"))


def test_the_tap_is_the_guests_own() -> None:
    mine = Identity.new()
    assert len(mine.tap) < 16
    assert f'dev="{mine.tap}"' in rewritten(source_of("virtio-split"), (mine.mark,))
    assert NOBODY.tap != mine.tap


# --- on a real libvirt --------------------------------------------------------------------------


def others_xml(uuid: str = OTHERS, inside: str = "") -> str:
    return f"""
<domain type="qemu">
  <name>{NAME}</name><uuid>{uuid}</uuid>{inside}<memory unit="MiB">32</memory>
  <os><type arch="x86_64" machine="q35">hvm</type></os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <channel type="unix"><target type="virtio" name="{CHANNEL}"/></channel>
    <memballoon model="none"/>
  </devices>
</domain>"""


@contextmanager
def somebody_elses(host: Host, xml: str) -> Iterator[None]:
    """A domain that has the name of ours, and the channel of our probe."""
    with host.connect() as hypervisor:
        domain = hypervisor.create(xml, soon(60))
        try:
            yield
            assert domain.state() == "running", "it was left alone"
        finally:
            domain.destroy()


@pytest.mark.parametrize("side", ["a", "b"])
def test_somebody_elses_domain_of_our_name_is_left_alone_and_named(
    going: Session, side: str
) -> None:
    host = going.lab.hosts[side]
    case = Case(id="case")
    place = going.place(case)
    assert isinstance(place, tuple)
    with somebody_elses(host, others_xml()):
        with pytest.raises(HostError) as caught:
            going.attempt(case, 1, place)
        assert (caught.value.host, caught.value.exit_code) == (side, 3)
        assert NAME in caught.value.said
        assert OTHERS in caught.value.said
        assert OTHERS in caught.value.remedy
        assert repair(going.lab) == 0
        assert leftovers(going.lab.hosts.values()) == ()
        assert not signal_qemu(host, Identity.new().uuid, "KILL"), "its pid file has our name"
    assert [mishap.exit_code for mishap in going.run.mishaps] == [3]
    assert "starting up" in host.run(["cat", QEMU_LOG], soon()).out
    assert going.attempt(case, 2, place).passed, "with it gone, the name is free"
    kept = host.run(["sh", "-c", f"cat {QEMU_LOG}.*; rm -f {QEMU_LOG}.*"], soon()).out
    assert OTHERS in kept, "nor is its log taken away"


def test_a_domain_with_our_uuid_alone_is_left_alone_too(going: Session) -> None:
    """Made of a copy of our XML, say, without the metadata."""
    host, left = going.lab.hosts["a"], Identity.new()
    record(host, left, soon())
    try:
        with (
            somebody_elses(host, others_xml(left.uuid)),
            host.connect() as hypervisor,
            pytest.raises(HostError, match="has not our metadata"),
        ):
            end_left(host, hypervisor)
    finally:
        forget(host, left, soon())


def test_a_guest_is_marked_and_in_the_journal_while_it_is_there(going: Session) -> None:
    case = Case(id="marked")
    place = going.place(case)
    assert isinstance(place, tuple)
    uuids = []
    for _ in range(2):
        with going.build_world(case, place) as world:
            domain = world.domain
            uuids.append(domain.uuid)
            assert marked(domain)
            for host in place:
                (mine,) = recorded(host, soon())
                assert (mine.uuid, mine.lab, mine.case) == (domain.uuid, going.lab.name, "marked")
                assert mine.run == going.run.name
            assert world.move().outcome == "completed"
            assert mine.owns(world.domain)
            assert MONITOR in world.domain.xml()
    assert len(set(uuids)) == 2, "each attempt has a UUID of its own, from one saved state"
    assert all(recorded(host, soon()) == () for host in place)
