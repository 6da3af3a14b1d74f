"""Backends on real hosts of a local lab, and what is left when one can't be had."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import pytest

from migrate.backends.registry import MODES, backend_mode
from migrate.backends.vhost_user import ovs
from migrate.backends.vhost_user.backend import VhostUser
from migrate.backends.vhost_user.ovs import (
    BRIDGE,
    OTHERS_PID,
    PORT,
    RUN,
    SCHEMA,
    SWITCH_PID,
    end_switch,
    kill_switch,
)
from migrate.backends.virtio.backend import Virtio
from migrate.backends.xml import rewritten
from migrate.cleanup.leftovers import listed
from migrate.clock import Deadline
from migrate.errors import ConfigurationError, GuestError, HostError
from migrate.guest.domain_xml import NAME, domain_xml
from migrate.guest.identity import Identity
from migrate.images.initramfs import ensure_image
from migrate.lab.api import Host
from migrate.lab.config import cache_folder
from migrate.lab.local import lab as local
from migrate.lab.local.config import LocalConfig, LocalHostConfig
from migrate.lab.namespaces import NamespaceHost
from migrate.lab.resources import Resources
from migrate.model import GuestSpec, Interface, Mode, Nic
from selftests.helpers import new_name, remove_lab, soon

BACKED_BY_OVS = Interface(mode="vhost-user")
NIC = Nic(name="eth0", driver="virtio_net", mac="52:54:00:6d:6c:01", mtu=1500, carrier=True)


@pytest.fixture(scope="module")
def hosts(root: None) -> Iterator[tuple[Host, Host]]:
    """The second one is left without a switch. A disk's overlay, as a killed controller leaves it
    there, goes with the lab."""
    name = new_name()
    config = LocalConfig(
        name=name, hosts={"a": LocalHostConfig(), "b": LocalHostConfig(huge_pages=0)}
    )
    lab = local.KIND.up(config)
    try:
        if lab.record.note:
            pytest.skip(lab.record.note)
        left = cache_folder() / "warm" / f"overlay-{name}-a.qcow2"
        left.touch()
        yield lab.hosts["a"], lab.hosts["b"]
    finally:
        remove_lab(name)
    assert not left.exists()


def ports(host: Host) -> list[str]:
    db = f"--db=unix:{ovs.RUN}/db.sock"
    return host.run(["ovs-vsctl", db, "list-ports", BRIDGE], soon()).out.split()


def processes(host: Host) -> list[str]:
    return host.run(["ps", "-e", "-o", "comm="], soon()).out.split()


def ovs_processes(host: Host) -> list[str]:
    return [name for name in processes(host) if name.startswith("ovs")]


# --- vhost-user ---------------------------------------------------------------------------------


def test_the_switch_starts_once_and_a_port_goes_with_its_block(hosts: tuple[Host, Host]) -> None:
    host, _ = hosts
    with VhostUser().create(host, BACKED_BY_OVS, soon()) as backend:
        assert PORT in ports(host)
        assert backend.shared_memory, "OVS reads the guest's memory"
        first = host.run(["cat", SWITCH_PID], soon()).out
    assert PORT not in ports(host)
    with VhostUser().create(host, BACKED_BY_OVS, soon()):
        assert PORT in ports(host)
        assert host.run(["cat", SWITCH_PID], soon()).out == first
    assert len(ovs_processes(host)) == 2


def test_a_port_that_is_left_is_listed_and_removed(hosts: tuple[Host, Host]) -> None:
    host, _ = hosts
    (kind,) = VhostUser().leftovers
    scripts = {kind.name: kind.script}
    with VhostUser().create(host, BACKED_BY_OVS, soon()):
        assert listed(host, scripts, soon()) == ((kind.name, PORT),)
        kind.put_back(host, PORT, soon())
        assert listed(host, scripts, soon()) == ()
        assert PORT not in ports(host)


def test_a_port_of_our_name_that_we_have_not_made_is_left_alone(hosts: tuple[Host, Host]) -> None:
    host, _ = hosts
    with VhostUser().create(host, BACKED_BY_OVS, soon()):
        pass  # the switch runs
    database = f"--db=unix:{RUN}/db.sock"
    made = ["add-port", "dpu", PORT, "--", "set", "interface", PORT, "type=internal"]
    host.run(["ovs-vsctl", "--timeout=20", database, *made], soon())
    (kind,) = VhostUser().leftovers
    try:
        with (
            pytest.raises(HostError, match="not ours") as error,
            VhostUser().create(host, BACKED_BY_OVS, soon()),
        ):
            pass
        assert f"del-port {PORT}" in error.value.remedy
        assert listed(host, {kind.name: kind.script}, soon()) == ()
        with pytest.raises(HostError, match="left alone"):
            kind.put_back(host, PORT, soon())
        assert PORT in ports(host)
    finally:
        host.run(["ovs-vsctl", "--timeout=20", database, "del-port", PORT], soon())


def test_another_switch_of_the_host_is_left_alone(hosts: tuple[Host, Host]) -> None:
    host, _ = hosts
    end_switch(host, soon())
    host.run(["mkdir", "-p", RUN], soon())
    host.run(["ovsdb-tool", "create", f"{RUN}/own.db", SCHEMA], soon())
    own = ["ovsdb-server", f"{RUN}/own.db", f"--remote=punix:{RUN}/db.sock", "--detach"]
    host.run([*own, "--no-chdir", f"--pidfile={OTHERS_PID}"], soon())
    pid = host.run(["cat", OTHERS_PID], soon()).out.strip()
    try:
        with (
            pytest.raises(HostError, match="another OVS runs there") as told,
            VhostUser().create(host, BACKED_BY_OVS, soon()),
        ):
            pass
        assert "resources.ovs_bridge" in told.value.remedy
        assert ovs_processes(host) == ["ovsdb-server"]
    finally:
        host.run(["kill", "-KILL", pid], soon())
        host.run(["rm", "-f", OTHERS_PID, f"{RUN}/own.db", f"{RUN}/db.sock"], soon())


def test_a_port_goes_when_its_block_fails(hosts: tuple[Host, Host]) -> None:
    host, _ = hosts
    with pytest.raises(ZeroDivisionError), VhostUser().create(host, BACKED_BY_OVS, soon()):
        raise ZeroDivisionError
    assert PORT not in ports(host)


def test_a_switch_that_died_is_started_anew_with_its_database(hosts: tuple[Host, Host]) -> None:
    host, _ = hosts
    with VhostUser().create(host, BACKED_BY_OVS, soon()):
        kill_switch(host, soon())
        (kind,) = VhostUser().leftovers
        assert listed(host, {kind.name: kind.script}, soon()) == (), "its ports are nobody's"
    with VhostUser().create(host, BACKED_BY_OVS, soon()):
        assert PORT in ports(host)
    assert len(ovs_processes(host)) == 2, "no second database"


def uplink_type(host: Host) -> str:
    asking = ["get", "interface", host.resources.ovs_uplink, "type"]
    return host.run(["ovs-vsctl", f"--db=unix:{ovs.RUN}/db.sock", *asking], soon()).out.strip()


def test_the_uplink_is_polled_as_guests_ports_are(hosts: tuple[Host, Host]) -> None:
    host, _ = hosts
    with VhostUser().create(host, BACKED_BY_OVS, soon()):
        assert uplink_type(host) == "dpdk"


def test_where_dpdk_has_no_driver_for_links_the_uplink_is_the_kernels(
    hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    host, _ = hosts
    monkeypatch.setattr(ovs, "POLLED_UPLINK", '{dpdk-devargs="net_nothing0,iface=%s"}')
    end_switch(host, soon())
    try:
        with VhostUser().create(host, BACKED_BY_OVS, soon()):
            assert uplink_type(host) == "system"
            assert host.resources.ovs_uplink in ports(host)
    finally:
        end_switch(host, soon())


def test_no_huge_pages_is_told_in_the_words_of_the_switch(
    hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages are the machine's, and others may have left some free: so more than can be is asked."""
    _, host = hosts
    deadline = soon()
    too_much = "other_config:dpdk-socket-mem=16777216"
    settings = [too_much if "socket-mem" in word else word for word in ovs.SETTINGS]
    monkeypatch.setattr(ovs, "SETTINGS", settings)
    with (
        pytest.raises(HostError) as refused,
        VhostUser().create(host, BACKED_BY_OVS, deadline),
    ):
        pass
    assert not deadline.passed()
    # The first where other labs left pages free, the second where there are none at all.
    words = ("Not enough memory available", "Cannot get hugepage information")
    assert any(word in refused.value.said for word in words)
    assert "huge pages" in refused.value.remedy
    assert refused.value.host == host.name
    assert ovs_processes(host) == []


def test_a_deadline_that_has_passed_starts_nothing(hosts: tuple[Host, Host]) -> None:
    _, host = hosts
    with (
        pytest.raises(HostError, match="no end after"),
        VhostUser().create(host, BACKED_BY_OVS, Deadline.after(0)),
    ):
        pass
    assert ovs_processes(host) == []


def test_a_guest_whose_backend_died_is_ended_at_the_deadline(hosts: tuple[Host, Host]) -> None:
    """QEMU listens for the switch before it answers libvirt, and would do so for ever."""
    host, _ = hosts
    with (
        host.connect() as hypervisor,
        VhostUser().create(host, BACKED_BY_OVS, soon()) as backend,
    ):
        image = ensure_image("tiny", cache_folder())
        machine = hypervisor.machine("q35")
        xml = domain_xml(
            GuestSpec(), BACKED_BY_OVS, image, backend, machine=machine, accelerator="qemu"
        )
        xml = rewritten(xml, (Identity.new().mark,))
        kill_switch(host, soon())
        with pytest.raises(GuestError, match="before the deadline") as hung:
            hypervisor.create(xml, Deadline.after(5))
        assert "backend" in hung.value.remedy
        assert "did not end it" not in hung.value.said
        assert hypervisor.find_named(NAME) is None
        assert not any("qemu" in name for name in processes(host))


# --- virtio, and modes without a module ---------------------------------------------------------


def test_the_bridge_of_the_lab_is_used(hosts: tuple[Host, Host]) -> None:
    with Virtio().create(hosts[0], Interface(), soon()) as backend:
        assert f"master {backend.bridge}" in hosts[0].run(["ip", "link"], soon()).out


def test_a_bridge_that_is_not_there_is_told(
    hosts: tuple[Host, Host],
) -> None:
    assert isinstance(hosts[0], NamespaceHost)
    elsewhere = dataclasses.replace(hosts[0], resources=Resources(bridge="nowhere"))
    with (
        pytest.raises(HostError, match="no link nowhere"),
        Virtio().create(elsewhere, Interface(), soon()),
    ):
        pass


@pytest.mark.parametrize("name", [name for name, mode in MODES.items() if not mode.has_process])
def test_where_no_process_serves_the_guest_none_can_crash(name: Mode) -> None:
    with pytest.raises(HostError, match="no process serves"):
        backend_mode(name).crash(cast("Host", SimpleNamespace(name="a")), soon())


def test_a_mode_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no such mode") as refused:
        backend_mode("carrier-pigeon")  # type: ignore[arg-type]
    assert "vhost-user" in refused.value.remedy
