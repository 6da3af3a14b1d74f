"""Features by number: their names, and what would lift a refusal, in words that can be acted on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from migrate.formats.virtio_features import (
    NAMES,
    NUMBERS,
    SHADOWABLE,
    canonical_name,
    feature_mask,
    feature_names,
    features_of_driver,
    not_shadowable,
    refusal_remedy,
)
from migrate.scenario.loader import parse

HEADERS = ("virtio_net.h", "virtio_config.h", "virtio_ring.h")


def test_names_are_those_of_the_kernels_headers() -> None:
    files = [Path("/usr/include/linux", name) for name in HEADERS]
    if not all(file.exists() for file in files):
        pytest.skip("no kernel headers here: apt-get install linux-libc-dev")
    define = r"#define VIRTIO_(?:NET_|RING_)?F_(\w+)\s+(\d+)\b"
    said = re.findall(define, "\n".join(file.read_text() for file in files))
    assert len(said) > 30
    told = {int(number): name.lower() for name, number in said}
    known = told.keys() & NAMES.keys()  # newer headers know more
    assert {number: NAMES[number] for number in known} == {n: told[n] for n in known}


def test_a_mask_of_features_becomes_names_and_back() -> None:
    mask = 0x1C0000000200000
    assert feature_names(mask) == ("guest_announce", "guest_uso4", "guest_uso6", "host_uso")
    assert feature_mask(feature_names(mask)) == mask
    assert feature_names(1 << 48 | 1) == ("csum", "bit 48")
    assert feature_mask(["csum", "bit 48"]) == 1 << 48 | 1
    assert feature_names(0) == ()


def test_features_of_a_driver_are_read_lowest_first() -> None:
    """As /sys/bus/virtio/devices/virtio0/features has them; newer kernels print 128 digits."""
    bits = "".join("1" if bit in (0, 5, 34, 67) else "0" for bit in range(128))
    assert features_of_driver(bits) == ("csum", "mac", "ring_packed", "host_udp_tunnel_gso")
    assert features_of_driver("") == ()


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("GUEST_TSO4", "guest_tso4"),
        ("RING_INDIRECT_DESC", "indirect_desc"),
        ("RING_PACKED", "ring_packed"),
        (54, "guest_uso4"),
        (48, "bit 48"),
        ("IOMMU_PLATFORM", "access_platform"),
        ("NEW", "new"),
    ],
)
def test_a_tools_spelling_becomes_virtios(told: str | int, name: str) -> None:
    assert canonical_name(told) == name


def test_what_shadow_virtqueues_can_not_follow() -> None:
    assert not_shadowable(["csum", "host_uso", "guest_announce"]) == ("guest_announce", "host_uso")
    assert not_shadowable(["version_1", "bit 48"]) == ("bit 48",)
    assert set(NUMBERS) >= SHADOWABLE


@pytest.mark.parametrize(
    ("said", "lifted"),
    [
        (
            "vdpa svq does not work with features 0x1c0000000200000",
            "features_off = ['guest_announce', 'guest_uso4', 'guest_uso6', 'host_uso']",
        ),
        ("vdpa svq does not work with features 0x40", "features_off = ['gso']"),
        (
            "SVQ Invalid device feature flags, offer: 0x103309fffa7, ok: 0x3209fffa7",
            "features_off = ['indirect_desc', 'ring_reset']",
        ),
        (
            "SVQ Invalid device feature flags, offer: 0x1209fffa7, ok: 0x3209fffa7",
            "the device has to offer access_platform",
        ),
        (
            "SVQ Invalid device feature flags, offer: 0x101209fffa7, ok: 0x3209fffa7",
            "; the device has to offer access_platform",
        ),
        (
            "virtio-net: Features 0x100800020 unsupported. Allowed features: 0x300000020",
            "the target's device has no ctrl_mac_addr",
        ),
        ("Migration disabled: vhost lacks VHOST_F_LOG_ALL feature.", "shadow = 'on'"),
    ],
)
def test_a_refusal_comes_with_what_would_lift_it(said: str, lifted: str) -> None:
    assert lifted in refusal_remedy(
        f"internal error: unable to execute QEMU command 'migrate': {said}"
    )


def test_other_words_have_no_remedy() -> None:
    assert refusal_remedy("unable to connect to server at 'beta:16509'") == ""


def test_the_features_of_a_remedy_are_what_a_scenario_takes() -> None:
    remedy = refusal_remedy("vdpa svq does not work with features 0x1c0000000200000")
    (line,) = re.findall(r"interface\.(vdpa\.features_off = \[.*?\])", remedy)
    scenario = parse(f"[interface]\nmode = 'vdpa'\n{line}\n", "x.toml")
    (case,) = scenario.cases
    assert case.interface.vdpa.features_off[0] == "guest_announce"
