"""The vDPA mode against a host whose kernel is a small double: what it is asked, and is left with.

The answers have the shapes of iproute2 6.15 and linux 6.12, as a host with vp_vdpa gave them.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from migrate.backends.base import EMULATOR
from migrate.backends.vdpa import bus as vdpa_bus
from migrate.backends.vdpa.backend import (
    SHADOW_EMULATOR,
    SHADOW_SOURCE,
    Vdpa,
    VdpaBackend,
)
from migrate.backends.xml import rewritten
from migrate.clock import Deadline
from migrate.drivers.shell import Completed
from migrate.errors import HostError
from migrate.guest.lifecycle import Order, saved_state
from migrate.lab.host_journal import KEEP
from migrate.lab.resources import Resources
from migrate.model import Interface
from selftests.helpers import soon

ADDRESS = "0000:00:10.0"
PLACE = f"pci/{ADDRESS}"
OURS = {vdpa_bus.MADE: PLACE}
"""What says that a device of our name was made by us."""
MAC = "52:54:00:6d:6c:01"
FEATURES = ["CSUM", "MAC", "STATUS", "CTRL_VQ", "VERSION_1", "ACCESS_PLATFORM"]
UNSUPPORTED = """\
Error: vdpa: Some provided attributes are not supported: 0x400.
kernel answers: Operation not supported
"""


@dataclass
class Kernel:
    """One host: a PCI device, vDPA devices, files. It answers what the mode asks."""

    name: str = "a"
    resources: Resources = field(default_factory=lambda: Resources(vdpa=(PLACE,)))
    driver: str = "virtio-pci"
    override: str = "(null)"
    link: str = "up-vdpa"
    up: bool = True
    native: str = "virtio-pci"
    """The driver that a probe finds where there is no override."""
    features: list[str | int] = field(default_factory=lambda: list(FEATURES))
    max_vqs: int = 3
    devices: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=lambda: {"mac": MAC, "link ": "up"})
    refuses: tuple[str, ...] = ("mac", "max_vqp")
    refusal: str = UNSUPPORTED
    vdpa_driver: str = "vhost_vdpa"
    drivers: tuple[str, ...] = ("vp-vdpa", "virtio-pci", "vhost_vdpa", "mlx5_core.sf")
    node_comes: bool = True
    user: str = ""
    files: dict[str, str] = field(default_factory=dict)
    added: list[list[str]] = field(default_factory=list)

    def run(
        self,
        argv: Sequence[str],
        deadline: Deadline,
        *,
        text: str | None = None,
        check: bool = True,
    ) -> Completed:
        del deadline
        program, *words = argv
        status, out, err = getattr(self, program)(words, text)
        if check and status:
            raise HostError(" ".join(argv), host=self.name, said=err or "it failed")
        return Completed(tuple(argv), status, out, err)

    def _is_management(self) -> bool:
        return self.driver not in ("virtio-pci", "")

    def vdpa(self, words: list[str], _text: str | None) -> tuple[int, str, str]:
        if words[:3] == ["-j", "mgmtdev", "show"]:
            one = {
                "supported_classes": ["net"],
                "max_supported_vqs": self.max_vqs,
                "dev_features": self.features,
            }
            shown = {name: one for name in self.resources.vdpa if self._is_management()}
            return 0, json.dumps({"mgmtdev": shown}), ""
        if words[:3] == ["-j", "dev", "show"]:
            shown_devices = {
                name: {"type": "network", "mgmtdev": by} for name, by in self.devices.items()
            }
            return 0, json.dumps({"dev": shown_devices}) if shown_devices else "", ""
        if words[:4] == ["-j", "dev", "config", "show"]:
            return 0, json.dumps({"config": {words[4]: self.config}}), ""
        if words[:2] == ["dev", "del"]:
            del self.devices[words[2]]
            return 0, "", ""
        assert words[:3] == ["dev", "add", "name"], words
        self.added.append(words[6:])
        if set(words) & set(self.refuses):
            return 1, "", self.refusal
        self.devices[words[3]] = words[5]
        return 0, "", ""

    def readlink(self, words: list[str], _text: str | None) -> tuple[int, str, str]:
        if f"devices/{vdpa_bus.NAME}/" in words[0]:
            return 0, f"../../bus/vdpa/drivers/{self.vdpa_driver}\n", ""
        if not self.driver:
            return 1, "", ""
        return 0, f"../../../bus/pci/drivers/{self.driver}\n", ""

    def cat(self, words: list[str], _text: str | None) -> tuple[int, str, str]:
        if words[0].endswith("driver_override"):
            return 0, f"{self.override}\n", ""
        if words[0].startswith("/sys/class/net/"):
            return 0, "0x1003\n" if self.up else "0x1002\n", ""
        found = self.files.get(words[0])
        return (0, found, "") if found is not None else (1, "", "no such file")

    def tee(self, words: list[str], text: str | None) -> tuple[int, str, str]:
        path, value = words[0], (text or "").strip()
        if not path.startswith("/sys/"):
            self.files[path] = text or ""
            return 0, "", ""
        ours = vdpa_bus.NAME in path or value == vdpa_bus.NAME
        if path.endswith("driver_override"):
            self.override = value or "(null)"
        elif path.endswith("unbind") and ours:
            self.vdpa_driver = ""
        elif path.endswith("unbind"):
            self.driver = ""
            self.link, self.up = "eth0", False
        else:
            assert path.endswith("drivers_probe")
            driver = self.native if self.override == "(null)" else self.override
            driver = driver if driver in self.drivers else ""
            if ours:
                self.vdpa_driver = driver
            else:
                self.driver = driver
        return 0, "", ""

    def sh(self, words: list[str], text: str | None) -> tuple[int, str, str]:
        assert words[:3] == ["-ec", KEEP, "sh"]
        self.files[words[3]] = text or ""
        return 0, "", ""

    def rm(self, words: list[str], _text: str | None) -> tuple[int, str, str]:
        assert words[0] == "-f"
        self.files.pop(words[1], None)
        return 0, "", ""

    def ls(self, words: list[str], _text: str | None) -> tuple[int, str, str]:
        del words
        return 0, "driver\npower\nuevent\nvhost-vdpa-3\n", ""

    def test(self, words: list[str], _text: str | None) -> tuple[int, str, str]:
        assert words == ["-c", "/dev/vhost-vdpa-3"]
        return (0 if self.node_comes else 1), "", ""

    def find(self, words: list[str], _text: str | None) -> tuple[int, str, str]:
        if words[0] == f"/sys/bus/pci/devices/{ADDRESS}/":
            there = self.driver == "virtio-pci" and self.link
            return 0, f"{words[0]}virtio5/net/{self.link}\n" if there else "", ""
        assert words[-1] == "/dev/vhost-vdpa-3"
        return (1, f"/proc/{self.user}/fd/24\n", "") if self.user else (1, "", "")

    def ip(self, words: list[str], _text: str | None) -> tuple[int, str, str]:
        assert words[:4] == ["link", "set", "dev", self.link]
        if words[4] == "name":
            self.link = words[5]
        else:
            self.up = words[4] == "up"
        return 0, "", ""

    def modprobe(self, words: list[str], _text: str | None) -> tuple[int, str, str]:
        del words
        return 1, "", "not found: they are built in"

    def chmod(self, words: list[str], _text: str | None) -> tuple[int, str, str]:
        assert words[0] == "755"
        assert words[1] in self.files
        return 0, "", ""

    def mv(self, words: list[str], _text: str | None) -> tuple[int, str, str]:
        self.files[words[1]] = self.files.pop(words[0])
        return 0, "", ""


def interface(**options: Any) -> Interface:
    return Interface.model_validate({"mode": "vdpa", **options})


def had(kernel: Kernel, **options: Any) -> VdpaBackend:
    """The backend, given and taken away again."""
    with Vdpa().create(kernel, interface(**options), soon()) as backend:  # type: ignore[arg-type]
        assert kernel.devices == {vdpa_bus.NAME: kernel.resources.vdpa[0]}
        found = backend
    assert kernel.devices == {}
    return found


def refused(kernel: Kernel, **options: Any) -> HostError:
    """Why it could not be had; nothing of ours is left."""
    with pytest.raises(HostError) as error:
        had(kernel, **options)
    assert vdpa_bus.NAME not in kernel.devices
    assert error.value.host == "a"
    return error.value


# --- a device is made, and goes -----------------------------------------------------------------


def test_a_virtio_device_becomes_vdpa_for_the_time_of_its_use_and_goes_back() -> None:
    kernel = Kernel()
    with Vdpa().create(kernel, interface(), soon()) as backend:  # type: ignore[arg-type]
        assert kernel.driver == "vp-vdpa"
        assert backend.device == "/dev/vhost-vdpa-3"
        assert backend.iommu
    assert (kernel.driver, kernel.override) == ("virtio-pci", "(null)")
    assert (kernel.link, kernel.up) == ("up-vdpa", True), "the kernel made eth0, and left it down"


def test_a_link_that_was_down_stays_down() -> None:
    kernel = Kernel(up=False)
    had(kernel)
    assert (kernel.link, kernel.up) == ("up-vdpa", False)


def test_it_goes_back_when_the_block_fails() -> None:
    kernel = Kernel()
    provided = Vdpa().create(kernel, interface(), soon())  # type: ignore[arg-type]
    with pytest.raises(ZeroDivisionError), provided:
        raise ZeroDivisionError
    assert (kernel.driver, kernel.override, kernel.devices) == ("virtio-pci", "(null)", {})


@pytest.mark.parametrize(("driver", "override"), [("vp-vdpa", "vp-vdpa"), ("", "(null)")])
def test_what_was_bound_otherwise_stays_so(driver: str, override: str) -> None:
    kernel = Kernel(driver=driver, override=override)
    had(kernel)
    assert (kernel.driver, kernel.override) == (driver, override)


def test_a_device_that_another_driver_took_is_bound_to_vhost_vdpa() -> None:
    kernel = Kernel(vdpa_driver="virtio_vdpa", driver="vp-vdpa", override="vp-vdpa")
    with Vdpa().create(kernel, interface(), soon()):  # type: ignore[arg-type]
        assert kernel.vdpa_driver == "vhost_vdpa"


def test_what_a_killed_controller_left_is_taken_away_first() -> None:
    kernel = Kernel(driver="vp-vdpa", devices={vdpa_bus.NAME: PLACE}, files=dict(OURS))
    assert had(kernel).device
    assert vdpa_bus.MADE not in kernel.files


def test_a_device_of_our_name_that_we_have_not_made_is_left_alone() -> None:
    kernel = Kernel(driver="vp-vdpa", devices={vdpa_bus.NAME: PLACE})
    with (
        pytest.raises(HostError, match="not ours: it is left alone") as error,
        Vdpa().create(kernel, interface(), soon()),  # type: ignore[arg-type]
    ):
        pass
    assert "vdpa dev del mlab0" in error.value.remedy
    (kind,) = Vdpa().leftovers
    kind.put_back(cast("Any", kernel), vdpa_bus.NAME, soon())
    assert kernel.devices == {vdpa_bus.NAME: PLACE}


def test_a_device_that_a_guest_still_has_is_not_waited_for() -> None:
    kernel = Kernel(driver="vp-vdpa", devices={vdpa_bus.NAME: PLACE}, user="451", files=dict(OURS))
    with (
        pytest.raises(HostError, match="held by process 451") as error,
        Vdpa().create(kernel, interface(), soon()),  # type: ignore[arg-type]
    ):
        pass
    assert "end the guest" in error.value.remedy
    assert kernel.devices, "the kernel was not asked"


def test_a_device_that_was_left_is_taken_away_unless_a_guest_has_it() -> None:
    kernel = Kernel(driver="vp-vdpa", devices={vdpa_bus.NAME: PLACE}, user="451", files=dict(OURS))
    (kind,) = Vdpa().leftovers
    with pytest.raises(HostError, match="held by process 451"):
        kind.put_back(cast("Any", kernel), vdpa_bus.NAME, soon())
    kernel.user = ""
    kind.put_back(cast("Any", kernel), vdpa_bus.NAME, soon())
    assert kernel.devices == {}


def test_a_device_of_somebody_else_is_in_the_way() -> None:
    kernel = Kernel(driver="vp-vdpa", devices={"vp0": PLACE})
    error = refused(kernel)
    assert error.said == "vp0 exists already"
    assert "vdpa dev del vp0" in error.remedy
    assert kernel.devices == {"vp0": PLACE}
    assert not kernel.added, "this kernel would make a second one"


def test_a_driver_that_does_not_take_the_device_is_told_and_undone() -> None:
    kernel = Kernel(drivers=("virtio-pci",))
    error = refused(kernel)
    assert "its driver is none" in error.said
    assert "modprobe vp_vdpa" in error.remedy
    assert (kernel.driver, kernel.override) == ("virtio-pci", "(null)")


def test_a_node_that_does_not_come_is_told() -> None:
    kernel = Kernel(node_comes=False)
    provided = Vdpa().create(kernel, interface(), Deadline.after(0.2))  # type: ignore[arg-type]
    with pytest.raises(HostError, match="vhost-vdpa-3 is not there"), provided:
        pass
    assert (kernel.driver, kernel.devices) == ("virtio-pci", {})


# --- what the device is told, and what it has ---------------------------------------------------


def test_a_device_is_told_what_it_can_be_told() -> None:
    kernel = Kernel(refuses=(), features=[*FEATURES, "MQ"], max_vqs=5)
    had(kernel, queues=2, vdpa={"features_off": ["csum"]})
    assert kernel.added == [["mac", MAC, "max_vqp", "2", "device_features", "0x300430020"]]


def test_a_device_that_can_be_told_nothing_must_have_the_right_mac() -> None:
    kernel = Kernel()
    had(kernel)
    assert kernel.added == [["mac", MAC], []]
    error = refused(Kernel(config={"mac": "52:54:00:00:00:09"}))
    assert "has 52:54:00:00:00:09" in error.said
    assert "interface.mac = '52:54:00:00:00:09'" in error.remedy


@pytest.mark.parametrize(
    ("config", "said"),
    [({"mtu": 1400}, "its MTU is 1400"), ({"max_vq_pairs": 1}, "it has 1 pairs of queues")],
)
def test_a_device_that_has_too_little_is_told_before_qemu_does(
    config: dict[str, int], said: str
) -> None:
    kernel = Kernel(config=config, features=[*FEATURES, "MQ"], max_vqs=9)
    assert said in refused(kernel, queues=2).said


def test_what_a_management_device_can_not_offer_is_told_before_a_device_is_made() -> None:
    kernel = Kernel()
    error = refused(kernel, queues=2, ring="packed")
    assert "5 virtqueues, it has 3 and mq for more than one queue and ring_packed" in error.said
    assert not kernel.added


def test_another_refusal_of_the_kernel_is_passed_on() -> None:
    assert "No space left" in refused(Kernel(refusal="kernel answers: No space left")).said


def test_a_tool_that_speaks_no_json_is_quoted() -> None:
    kernel = Kernel()
    kernel.vdpa = lambda *_: (0, "Usage: vdpa", "")  # type: ignore[method-assign]
    with pytest.raises(HostError, match="Usage: vdpa"):
        vdpa_bus.offers(kernel, soon())  # type: ignore[arg-type]


# --- which device -------------------------------------------------------------------------------


def test_a_kind_that_the_host_does_not_lend_is_told_with_what_it_lends() -> None:
    error = refused(Kernel(), vdpa={"device": "vendor"})
    assert f"provides {PLACE} (vp_vdpa)" in error.said
    assert "none" in refused(Kernel(resources=Resources())).said


@pytest.mark.parametrize(
    ("lent", "wanted", "said"),
    [
        ("vdpasim_net", "auto", "it must be asked for by name"),
        ("vduse", "auto", "QEMU blocks its migration"),
        ("vduse", "vendor", "QEMU blocks its migration"),
    ],
)
def test_what_has_no_network_behind_it_is_not_taken_unasked(
    lent: str, wanted: str, said: str
) -> None:
    kernel = Kernel(resources=Resources(vdpa=(lent,)))
    error = refused(kernel, vdpa={"device": wanted})
    assert said in error.said
    assert error.remedy


def test_the_simulator_has_no_peer_and_can_be_suspended() -> None:
    kernel = Kernel(
        resources=Resources(vdpa=("vdpasim_net",)), driver="vdpasim_net", refuses=("max_vqp",)
    )
    backend = had(kernel, vdpa={"device": "vdpasim_net"})
    assert backend.loopback
    assert backend.emulator == EMULATOR
    assert kernel.added == [["mac", MAC]]
    assert not had(Kernel()).loopback


def test_auto_takes_the_first_with_a_network_behind_it() -> None:
    kernel = Kernel(resources=Resources(vdpa=("vdpasim_net", PLACE)))
    with Vdpa().create(kernel, interface(), soon()):  # type: ignore[arg-type]
        assert kernel.devices == {vdpa_bus.NAME: PLACE}


def test_a_vendors_device_is_known_by_its_driver() -> None:
    kernel = Kernel(
        resources=Resources(vdpa=("auxiliary/mlx5_core.sf.1",)), driver="mlx5_core.sf", refuses=()
    )
    backend = had(kernel, vdpa={"device": "vendor"})
    assert backend.emulator == EMULATOR, "it can be suspended"
    assert "auxiliary/mlx5_core.sf.1 (mlx5_core)" in backend.notes[0]


def test_a_name_that_is_no_management_device_is_told() -> None:
    kernel = Kernel(driver="ifcvf")
    kernel.vdpa = lambda *_: (0, "{}", "")  # type: ignore[method-assign]
    assert "no vDPA management device" in refused(kernel).said


# --- shadow virtqueues --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("driver", "wanted", "shadow", "said"),
    [
        ("vp-vdpa", "auto", True, "it can't be suspended"),
        ("vp-vdpa", "on", True, "as asked"),
        ("vp-vdpa", "off", False, "as asked, though it can't be suspended"),
        ("ifcvf", "auto", True, "it can't be suspended"),
        ("mlx5_core", "auto", False, "shadowed from the start of a migration"),
        ("mlx5_core", "off", False, "shadowed from the start of a migration"),
        ("mlx5_core", "on", True, "as asked"),
    ],
)
def test_shadow_or_not_is_decided_and_told(
    driver: str, wanted: str, shadow: bool, said: str
) -> None:
    kernel = Kernel(driver=driver, override=driver)
    backend = had(kernel, vdpa={"shadow": wanted})
    assert backend.emulator == (SHADOW_EMULATOR if shadow else EMULATOR)
    assert said in backend.notes[0]
    maker = "vp_vdpa" if driver == "vp-vdpa" else driver
    assert backend.notes[0].startswith(f"a: {PLACE} ({maker})")
    assert (SHADOW_EMULATOR in kernel.files) == shadow


@pytest.mark.parametrize(
    ("driver", "shadow", "features", "savable"),
    [
        ("vp-vdpa", "on", FEATURES, True),
        ("vp-vdpa", "off", FEATURES, False),
        ("mlx5_core", "auto", FEATURES, True),
        ("mlx5_core", "auto", [*FEATURES, "GUEST_ANNOUNCE"], False),
        ("mlx5_core", "auto", [*FEATURES, 54], False),
    ],
)
def test_a_guest_that_could_not_go_on_from_a_saved_state_is_known(
    driver: str, shadow: str, features: list[str | int], savable: bool
) -> None:
    kernel = Kernel(driver=driver, features=features)
    assert had(kernel, vdpa={"shadow": shadow}).supports_save == savable


def test_the_script_is_put_once_and_mended() -> None:
    kernel = Kernel()
    had(kernel)
    assert kernel.files[SHADOW_EMULATOR] == SHADOW_SOURCE.read_text()
    kernel.files[SHADOW_EMULATOR] = "of another version"
    had(kernel)
    assert kernel.files[SHADOW_EMULATOR] == SHADOW_SOURCE.read_text()
    kernel.mv = lambda *_: pytest.fail("it is there")  # type: ignore[method-assign]
    had(kernel)


def test_the_script_changes_the_one_argument_and_keeps_the_rest(tmp_path: Path) -> None:
    show = tmp_path / "show"
    show.write_text("#!/bin/sh\nprintf '%s\\0' \"$@\"\n")
    show.chmod(0o755)
    script = SHADOW_SOURCE.read_text().replace(EMULATOR, str(show))
    netdev = '{"type":"vhost-vdpa","vhostdev":"/dev/fdset/1","id":"hostnet0"}'
    other = '{"type":"tap","id":"hostnet1"}'
    words = ["-name", "guest=a b,x=*", "-netdev", netdev, "-append", "", "-netdev", other, "a\nb"]
    done = subprocess.run(
        ["sh", "-c", script, "sh", *words], capture_output=True, text=True, check=True
    )
    given = done.stdout.split("\0")[:-1]
    assert json.loads(given[3]) == json.loads(netdev) | {"x-svq": True}
    assert [*given[:3], netdev, *given[4:]] == words


# --- two hosts, and what QEMU says --------------------------------------------------------------


def backend(
    emulator: str = SHADOW_EMULATOR, features: tuple[str, ...] = ("csum", "version_1")
) -> VdpaBackend:
    return VdpaBackend(device="/dev/vhost-vdpa-0", emulator=emulator, features=frozenset(features))


def test_a_target_that_offers_less_is_told_before_qemu_does() -> None:
    with pytest.raises(HostError, match="offers csum, the target's does not") as error:
        Vdpa().target_rewrites(backend(), backend(features=("version_1",)))
    assert error.value.remedy == "interface.vdpa.features_off = ['csum']"
    assert Vdpa().target_rewrites(backend(), backend()) == ()


def test_a_target_of_another_kind_gets_its_own_emulator() -> None:
    xml = f"<domain><devices><emulator>{SHADOW_EMULATOR}</emulator></devices></domain>"
    rewrites = Vdpa().target_rewrites(backend(), backend(emulator=EMULATOR))
    assert f"<emulator>{EMULATOR}</emulator>" in rewritten(xml, rewrites)


LOG = """\
2026-11-22T10:00:00.000Z: starting up libvirt version: 11.3.0
char device redirected to /dev/pts/0 (label charserial0)
2026-11-22T10:00:01.200Z qemu-system-x86_64: vhost_set_vring_base failed: Not supported (95)
2026-11-22T10:00:01.201Z qemu-system-x86_64: vhost_set_vring_base failed: Not supported (95)
2026-11-22T10:00:01.300Z qemu-system-x86_64: unable to start vhost net: 95: falling back on \
userspace virtio
2026-11-22T10:00:02.000Z qemu-system-x86_64: vhost VQ 0 ring restore failed: -1: Not permitted (1)
2026-11-22T10:00:02.100Z qemu-system-x86_64: warning: something else
"""


def test_a_backend_that_failed_is_told_in_the_words_of_qemu_once() -> None:
    assert Vdpa().backend_errors(LOG) == (
        "qemu-system-x86_64: vhost_set_vring_base failed: Not supported (95)",
        "qemu-system-x86_64: unable to start vhost net: 95: falling back on userspace virtio",
        "qemu-system-x86_64: vhost VQ 0 ring restore failed: -1: Not permitted (1)",
    )
    assert Vdpa().backend_errors("2026-11-22T10:00:00.000Z: starting up\n") == ()


def test_why_memory_was_not_mapped_is_told_too() -> None:
    why = "qemu-system-x86_64: failed to write, fd=33, errno=14 (Bad address)"
    failed = "qemu-system-x86_64: vhost vdpa map fail!"
    stamp = "2026-11-22T10:00:00.000Z "
    assert Vdpa().backend_errors(f"{stamp}{why}\n{stamp}{failed}\n") == (why, failed)
    assert Vdpa().backend_errors(f"{stamp}{why}\n") == (), "QEMU went on"


def test_a_saved_guest_goes_with_the_features_of_its_device() -> None:
    class Libvirt:
        def versions(self) -> dict[str, str]:
            return {"qemu": "11.1.3", "libvirt": "11.3.0"}

    def place(**options: Any) -> Path:
        save_key = had(Kernel(), **options).save_key
        image = SimpleNamespace(name="tiny", digest="0123")
        order = Order("<domain/>", cast("Any", image), True, Path("/cache"), save_key)
        return saved_state(order, cast("Any", Libvirt()))

    assert place() == place()
    assert place(vdpa={"features_off": ["csum"]}) != place()


# --- what a newer tool says -----------------------------------------------------------------------


def test_a_feature_that_is_not_known_here_does_not_keep_a_device_from_being_used() -> None:
    kernel = Kernel(features=[*FEATURES, "TELEPORT", 99])
    offers = vdpa_bus.network_offers(kernel.vdpa(["-j", "mgmtdev", "show"], None)[1], "ask")
    assert offers == {}, "it is no management device yet"
    with Vdpa().create(cast("Any", kernel), Interface(mode="vdpa", mac=MAC), soon()) as backend:
        assert {"teleport", "bit 99"} <= backend.features
        assert "teleport" in backend.save_key


def test_to_switch_features_off_beside_one_that_is_not_known_is_refused_in_words() -> None:
    kernel = Kernel(features=[*FEATURES, "TELEPORT"], refuses=())
    interface = Interface(mode="vdpa", mac=MAC, vdpa={"features_off": ["csum"]})
    with (
        pytest.raises(HostError, match="the feature 'teleport' is not known here") as caught,
        Vdpa().create(cast("Any", kernel), interface, soon()),
    ):
        pass
    assert (caught.value.host, bool(caught.value.remedy)) == ("a", True)


@pytest.mark.parametrize(
    "said", ["[]", "7", '{"mgmtdev": []}', '{"mgmtdev": {"x": 7}}', "{" * 9000, "no"]
)
def test_an_answer_of_the_tool_that_makes_no_sense_is_an_error_with_the_host(said: str) -> None:
    kernel = Kernel()
    kernel.vdpa = lambda *_words: (0, said, "")  # type: ignore[method-assign]
    with pytest.raises(HostError) as caught:
        vdpa_bus.offers(cast("Any", kernel), soon())
    assert (caught.value.host, caught.value.tried) == ("a", "vdpa -j mgmtdev show")
