"""Domain XML against golden pairs, libvirt's own schema, and hostile text.

A pair is `domains/golden/CASE.source.xml` and `CASE.target.xml`: what a case is rendered to, and
what its source becomes for the other host. After a wanted change of a template, write them anew by

    python -m selftests.guest.test_domain_xml --update

and read the difference before you commit it.
"""

from __future__ import annotations

import dataclasses
import sys
import textwrap
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from jinja2 import UndefinedError
from lxml import etree

from migrate.backends.base import Backend
from migrate.backends.failover.backend import FailoverBackend
from migrate.backends.hostdev.backend import HostdevBackend
from migrate.backends.registry import backend_mode
from migrate.backends.sriov.passthrough import GuestVf, PciAddress
from migrate.backends.vdpa.backend import SHADOW_EMULATOR, VdpaBackend
from migrate.backends.vhost_user.backend import VhostUserBackend
from migrate.backends.virtio.backend import VirtioBackend
from migrate.backends.xml import TEMPLATES, rewritten
from migrate.guest.domain_xml import domain_xml, has_interface
from migrate.images.cache import digest
from migrate.images.initramfs import Image, Manifest
from migrate.lab.config import cache_folder
from migrate.model import GuestSpec, Interface, Mode

GOLDEN = TEMPLATES / "golden"
FOLDER = Path("/cache/images/tiny-0123")
IMAGE = Image(
    name="tiny",
    digest="0123",
    kernel=FOLDER / "vmlinux",
    compressed_kernel=FOLDER / "vmlinuz",
    initrd=FOLDER / "initramfs",
    probe=FOLDER / "probe",
    cmdline="console=ttyS0 quiet",
    manifest=Manifest(name="tiny", digest="0123", builder="1", cmdline="", modules=(), packages=()),
)


def vf(address: str) -> GuestVf:
    return GuestVf(PciAddress.parse(address), has_settable_mac=True)


def vdpa(device: str) -> VdpaBackend:
    features = frozenset({"access_platform", "version_1"})
    return VdpaBackend(device=device, emulator=SHADOW_EMULATOR, iommu=True, features=features)


HERE, THERE = vf("0000:01:10.0"), vf("0000:81:10.0")
BACKENDS: Mapping[Mode, tuple[Backend, Backend]] = {
    "virtio": (VirtioBackend(bridge="data"), VirtioBackend(bridge="data2")),
    "vhost-user": (
        VhostUserBackend(socket="/run/openvswitch/vhu0.sock"),
        VhostUserBackend(socket="/run/openvswitch/vhu7.sock"),
    ),
    "vdpa": (vdpa("/dev/vhost-vdpa-0"), vdpa("/dev/vhost-vdpa-2")),
    "hostdev": (HostdevBackend(vf=HERE), HostdevBackend(vf=THERE)),
    "failover": (
        FailoverBackend(bridge="data", vf=HERE),
        FailoverBackend(bridge="data", vf=THERE),
    ),
}
"""A backend of each mode on the source, and one of another name on the target."""


def name_of(backend: Backend) -> str:
    """What is called otherwise on the other host."""
    match backend:
        case HostdevBackend(vf=vf) | FailoverBackend(vf=vf):
            assert vf is not None
            return vf.address.bus
        case VirtioBackend(bridge=name) | VhostUserBackend(socket=name) | VdpaBackend(device=name):
            return name
    raise AssertionError(backend)


VARIANTS: Mapping[str, Mapping[str, object]] = {
    "split": {},
    "packed": {"ring": "packed"},
    "queues": {"queues": 4},
    "mtu": {"mtu": 9000},
    "no-offloads": {"offloads": False},
    "all": {"ring": "packed", "queues": 2, "offloads": False},
}
INTERFACES = {
    f"{mode}-{name}": Interface.model_validate({"mode": mode, **options})
    for mode in ("virtio", "vhost-user", "vdpa")
    for name, options in VARIANTS.items()
    if not (mode != "virtio" and "mtu" in options)  # libvirt can't: see scenario.rules
} | {
    f"{mode}-{name}": Interface.model_validate({"mode": mode, **options})
    for mode, name, options in (
        ("hostdev", "split", {}),
        ("hostdev", "profile", {"vf": {"port_profile": "gold"}}),
        ("hostdev", "vlan", {"vf": {"vlan": 42, "managed": False}}),
        ("failover", "split", {}),
        ("failover", "all", {**VARIANTS["all"], "vf": {"vlan": 42}}),
    )
}
KVM = {
    "virtio-kvm": GuestSpec(),
    "virtio-dirty-ring": GuestSpec(dirty_ring=4096),
}
CASES = [*INTERFACES, "virtio-disk", *KVM]


def source_of(case: str) -> str:
    """The domain as it runs: with what was plugged in."""
    interface = INTERFACES.get(case, Interface())
    device = backend_mode(interface.mode).hotplug_xml(interface, BACKENDS[interface.mode][0])
    end = "  </devices>\n"
    return started(case).replace(end, textwrap.indent(f"{device or ''}", "    ") + end)


def started(case: str) -> str:
    interface = INTERFACES.get(case, Interface())
    return domain_xml(
        KVM.get(case, GuestSpec(vcpus=interface.queues)),
        interface,
        Path("/cache/warm/overlay.qcow2") if case == "virtio-disk" else IMAGE,
        BACKENDS[interface.mode][0],
        machine="pc-q35-10.0",
        accelerator="kvm" if case in KVM else "qemu",
    )


def target_of(case: str, source: str) -> str:
    mode = INTERFACES.get(case, Interface()).mode
    return rewritten(source, backend_mode(mode).target_rewrites(*BACKENDS[mode])) + "\n"


def golden(case: str, side: str) -> Path:
    return GOLDEN / f"{case}.{side}.xml"


@cache
def schema() -> etree.RelaxNG:
    """libvirt's, of the newest root that a lab was made of, or of this machine."""
    places = [*cache_folder().glob("roots/debian-13-*/usr"), Path("/usr")]
    files = [place / "share/libvirt/schemas/domain.rng" for place in places]
    found = [file for file in files if file.exists()]
    if not found:
        pytest.skip("no libvirt schema: bring a lab up once, or apt-get install libvirt-common")
    return etree.RelaxNG(etree.parse(max(found, key=lambda file: file.stat().st_mtime)))


def complaints(xml: str) -> str:
    """What libvirt's schema has against it; empty when it is valid."""
    validator = schema()
    valid = validator.validate(etree.fromstring(xml))
    return "" if valid else str(validator.error_log)


def update() -> None:
    """Write every golden pair anew, and remove those of cases that are no more."""
    GOLDEN.mkdir(exist_ok=True)
    for old in GOLDEN.glob("*.xml"):
        old.unlink()
    for case in CASES:
        source = source_of(case)
        golden(case, "source").write_text(source)
        golden(case, "target").write_text(target_of(case, source))


# --- golden pairs -------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_a_case_is_rendered_to_its_golden_source(case: str) -> None:
    assert source_of(case) == golden(case, "source").read_text()


@pytest.mark.parametrize("case", CASES)
def test_the_target_is_the_source_after_its_modes_rewrites(case: str) -> None:
    source = golden(case, "source").read_text()
    assert target_of(case, source) == golden(case, "target").read_text()


@pytest.mark.parametrize("case", CASES)
def test_nothing_but_the_backends_name_differs(case: str) -> None:
    source, target = (golden(case, side).read_text() for side in ("source", "target"))
    mode = INTERFACES.get(case, Interface()).mode
    here, there = (name_of(backend) for backend in BACKENDS[mode])
    renamed = source.replace(f'"{here}"', f'"{there}"')
    assert renamed != source
    # A rewrite names the prefix of QEMU's own elements anew, which means nothing.
    before, after = (ET.canonicalize(xml, rewrite_prefixes=True) for xml in (renamed, target))
    assert before == after


@pytest.mark.parametrize("mode", BACKENDS)
def test_the_same_backend_on_both_hosts_needs_no_rewrite(mode: Mode) -> None:
    backend = BACKENDS[mode][0]
    assert backend_mode(mode).target_rewrites(backend, dataclasses.replace(backend)) == ()


@pytest.mark.parametrize("mode", BACKENDS)
def test_a_rewrite_leaves_other_interfaces_alone(mode: Mode) -> None:
    source = source_of(f"{mode}-split")
    here, there = (name_of(backend) for backend in BACKENDS[mode])
    other = source.replace(f'"{here}"', '"another"')
    target = target_of(f"{mode}-split", other)
    assert there not in target


def test_no_golden_file_is_of_no_case() -> None:
    wanted = {golden(case, side) for case in CASES for side in ("source", "target")}
    assert set(GOLDEN.iterdir()) == wanted


# --- libvirt's schema ---------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize("case", CASES)
def test_a_golden_file_is_valid_by_libvirts_schema(case: str, side: str) -> None:
    assert complaints(golden(case, side).read_text()) == ""


def test_the_schema_refuses_what_libvirt_would() -> None:
    wrong = golden("virtio-packed", "source").read_text().replace('packed="on"', 'packed="maybe"')
    assert complaints(wrong)


# --- what is in the XML -------------------------------------------------------------------------


def test_only_memory_that_a_backend_reads_is_shared() -> None:
    shared = "./memoryBacking/access[@mode='shared']"
    assert ET.fromstring(source_of("virtio-split")).find(shared) is None
    assert ET.fromstring(source_of("vhost-user-split")).find(shared) is not None


def test_a_disk_boots_by_its_own_loader_and_bypasses_the_hosts_cache() -> None:
    """Without cache=none the other host would not see what this one has written."""
    root = ET.fromstring(source_of("virtio-disk"))
    assert root.find("./os/kernel") is None
    driver = root.find("./devices/disk/driver")
    assert driver is not None
    assert driver.get("cache") == "none"
    names = [target.get("name") for target in root.iterfind("./devices/channel/target")]
    assert "org.qemu.guest_agent.0" in names


@pytest.mark.parametrize("case", ["hostdev-split", "failover-split"])
def test_a_vf_is_in_no_domain_that_is_started_or_saved(case: str) -> None:
    """It comes later, into a port that waits for it."""
    root = ET.fromstring(started(case))
    assert root.find("./devices/interface[@type='hostdev']") is None
    controllers = [(one.get("index"), one.get("model")) for one in root.iter("controller")]
    assert ("0", "pcie-root") in controllers
    assert controllers.count((None, "pcie-root-port")) == 4
    assert has_interface(started(case)) == case.startswith("failover")


def test_a_vf_whose_card_can_not_be_told_its_mac_is_a_plain_device() -> None:
    """libvirt would try to tell it; the target's XML names the target's all the same."""
    here, there = (
        FailoverBackend(bridge="data", vf=dataclasses.replace(vf, has_settable_mac=False))
        for vf in (HERE, THERE)
    )
    interface = Interface(mode="failover")
    device = backend_mode("failover").hotplug_xml(interface, here)
    assert device is not None
    domain = started("failover-split").replace("  </devices>", f"{device}  </devices>")
    assert complaints(domain) == ""
    target = rewritten(domain, backend_mode("failover").target_rewrites(here, there))
    assert ET.fromstring(target).find("./devices/hostdev/source/address[@bus='0x81']") is not None


def test_a_target_without_a_vf_gets_the_standby_alone() -> None:
    here, _ = BACKENDS["failover"]
    there = FailoverBackend(bridge="data2", vf=None)
    mode = backend_mode("failover")
    assert mode.hotplug_xml(Interface(mode="failover"), there) is None
    target = rewritten(source_of("failover-split"), mode.target_rewrites(here, there))
    assert 'bridge="data2"' in target


HOSTILE = "a \"b\" 'c' <d> & e ]]> {{ f }} &amp; é"


def test_hostile_text_stays_text() -> None:
    image = IMAGE.model_copy(
        update={"kernel": Path("/cache") / HOSTILE, "cmdline": HOSTILE, "initrd": Path(HOSTILE)}
    )
    xml = domain_xml(
        GuestSpec(),
        Interface(mode="vhost-user"),
        image,
        VhostUserBackend(socket=HOSTILE),
        machine=HOSTILE,
        accelerator="qemu",
    )
    root = ET.fromstring(xml)
    assert root.findtext("./os/kernel") == f"/cache/{HOSTILE}"
    assert root.findtext("./os/cmdline") == HOSTILE
    source = root.find("./devices/interface/source")
    assert source is not None
    assert source.get("path") == HOSTILE


def test_a_disks_hostile_path_stays_a_path() -> None:
    path = Path("/cache") / HOSTILE
    xml = domain_xml(
        GuestSpec(),
        Interface(),
        path,
        VirtioBackend(bridge=HOSTILE),
        machine="q35",
        accelerator="qemu",
    )
    source = ET.fromstring(xml).find("./devices/disk/source")
    assert source is not None
    assert source.get("file") == str(path)


def test_a_backend_that_tells_too_little_is_noticed() -> None:
    with pytest.raises(UndefinedError, match="bridge"):
        domain_xml(GuestSpec(), Interface(), IMAGE, Backend(), machine="q35", accelerator="qemu")


def test_a_digest_knows_where_one_part_ends() -> None:
    assert digest("ab", "c") != digest("a", "bc")
    assert digest("ab", "c") == digest("ab", "c")


if __name__ == "__main__":
    if sys.argv[1:] != ["--update"]:
        sys.exit("python -m selftests.guest.test_domain_xml --update")
    update()
