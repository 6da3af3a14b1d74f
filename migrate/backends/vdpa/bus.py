"""The kernel's vDPA bus on a host: by the JSON of the ``vdpa`` tool, and by sysfs.

Sources: vdpa(8), vdpa-dev(8), vdpa-mgmtdev(8) of iproute2; linux: drivers/vdpa and
drivers/vhost/vdpa.c.
What is made or bound here goes, or goes back, with its block.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from migrate.backends.base import LeftoverKind
from migrate.clock import Deadline, until
from migrate.errors import HostError
from migrate.formats.answers import Count, Part, Shape, whole_number
from migrate.formats.virtio_features import canonical_name
from migrate.lab.host_journal import RUN, keep

if TYPE_CHECKING:
    from migrate.lab.api import Host

NAME = "mlab0"
"""Our device on each host."""
MADE = f"{RUN}/vdpa-{NAME}"
"""Written on the host before the device is made: one of that name without it is not ours."""
UNDO_S = 10.0
POLL_S = 0.05
"""Between two looks for a device's node, which udev or the kernel makes."""
UNCONFIGURED = "attributes are not supported"
"""The kernel, of a management device that can't be told a MAC or a number of queues."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What a management device, e.g. ``pci/0000:00:10.0``, offers for the devices made on it."""

    name: str
    features: frozenset[str]
    max_vqs: int


@dataclass(frozen=True, slots=True)
class DeviceConfig:
    """What a device's configuration space tells a guest; None: it does not say."""

    mac: str | None
    mtu: int | None
    max_vqp: int | None


FeatureBit = Annotated[int, Field(ge=0, lt=128)]


class _Management(Part):
    supported_classes: tuple[str, ...] = ()
    dev_features: tuple[str | FeatureBit, ...] = ()
    """By name, or by number where the tool has no name for it."""
    max_supported_vqs: Count = 0


class _Device(Part):
    mgmtdev: str = ""


class _Config(Part):
    mac: str | None = None
    mtu: Count | None = None
    max_vq_pairs: Count | None = None


class _Shown(Part):
    mgmtdev: dict[str, _Management] = Field(default={})
    dev: dict[str, _Device] = Field(default={})
    config: dict[str, dict[str, Any]] = Field(default={})


SHOWN, CONFIG = Shape(_Shown), Shape(_Config)


def network_offers(text: str, asked: str, *, host: str = "") -> Mapping[str, Offer]:
    """What each management device for networks offers, by its name, of ``vdpa -j mgmtdev show``.
    Raises MalformedError."""
    return {
        name: Offer(
            name=name,
            features=frozenset(canonical_name(feature) for feature in info.dev_features),
            max_vqs=info.max_supported_vqs,
        )
        for name, info in SHOWN.parse(text, asked, host=host).mgmtdev.items()
        if "net" in info.supported_classes
    }


def offers(host: Host, deadline: Deadline) -> Mapping[str, Offer]:
    """What each management device for networks offers, by its name."""
    words = ["vdpa", "-j", "mgmtdev", "show"]
    said = host.run(words, deadline).out
    return network_offers(said or "{}", " ".join(words), host=host.name)


def devices(host: Host, deadline: Deadline) -> Mapping[str, str]:
    """vDPA devices, each with the name of its management device."""
    shown = _ask(host, deadline, "dev", "show").dev
    return {name: info.mgmtdev for name, info in shown.items()}


def config(host: Host, name: str, deadline: Deadline) -> DeviceConfig:
    """A device's configuration."""
    words = ("dev", "config", "show", name)
    shown = _ask(host, deadline, *words).config
    # iproute2 6.15 has keys that end in a space.
    values = {key.strip(): value for key, value in shown.get(name, {}).items()}
    has = CONFIG.of(values, f"vdpa {' '.join(words)}", host=host.name)
    return DeviceConfig(has.mac, has.mtu, has.max_vq_pairs)


def _ask(host: Host, deadline: Deadline, *words: str) -> _Shown:
    said = host.run(["vdpa", "-j", *words], deadline).out
    return SHOWN.parse(said or "{}", f"vdpa {' '.join(words)}", host=host.name)


# --- drivers ------------------------------------------------------------------------------------


def driver_of(host: Host, bus: str, device: str, deadline: Deadline) -> str:
    """The kernel driver of a device on ``bus``; empty if it has none."""
    link = host.run(["readlink", f"/sys/bus/{bus}/devices/{device}/driver"], deadline, check=False)
    return link.out.strip().rpartition("/")[2]


@contextmanager
def bind(host: Host, bus: str, device: str, driver: str, deadline: Deadline) -> Iterator[None]:
    """Have ``driver`` on a device; afterwards the driver, and the override, that it had."""
    before = driver_of(host, bus, device, deadline)
    if before == driver:
        yield
        return
    override = host.run(["cat", _override(bus, device)], deadline).out.strip()
    with ExitStack() as undo:
        undo.callback(_bind_back, host, bus, device, before, override)
        _bind(host, bus, device, driver, driver, deadline)
        has = driver_of(host, bus, device, deadline)
        if has != driver:
            raise HostError(
                f"bind {device} to {driver}",
                host=host.name,
                said=f"its driver is {has or 'none'}",
                remedy=f"is the driver there (`modprobe {driver.replace('-', '_')}`), and is this "
                "a device for it? the kernel's log may tell",
            )
        yield


def _bind_back(host: Host, bus: str, device: str, driver: str, override: str) -> None:
    override = "" if override == "(null)" else override
    _bind(host, bus, device, driver, override, Deadline.after(UNDO_S))


def _bind(
    host: Host, bus: str, device: str, driver: str, override: str, deadline: Deadline
) -> None:
    """Unbind a device, say which driver alone may have it (none: any), and have it found."""
    if driver_of(host, bus, device, deadline):
        _write(host, f"/sys/bus/{bus}/devices/{device}/driver/unbind", device, deadline)
    _write(host, _override(bus, device), override, deadline)
    if driver:
        _write(host, f"/sys/bus/{bus}/drivers_probe", device, deadline)


def _override(bus: str, device: str) -> str:
    return f"/sys/bus/{bus}/devices/{device}/driver_override"


def _write(host: Host, path: str, text: str, deadline: Deadline) -> None:
    host.run(["tee", path], deadline, text=f"{text}\n")


@contextmanager
def keep_link(host: Host, address: str, deadline: Deadline) -> Iterator[None]:
    """A PCI device's link gets its name back, and is up if it was, when its driver came back.

    Its addresses are not kept: a link that the host itself uses is none to be lent.
    """
    name = _link_of(host, address, deadline)
    up = bool(name) and _is_up(host, name, deadline)
    try:
        yield
    finally:
        undone = Deadline.after(UNDO_S)
        now = _link_of(host, address, undone)
        if name and now and now != name:
            host.run(["ip", "link", "set", "dev", now, "name", name], undone)
        if now and up:
            host.run(["ip", "link", "set", "dev", name, "up"], undone)


def _link_of(host: Host, address: str, deadline: Deadline) -> str:
    """The link of a virtio PCI device; empty where no driver made one."""
    links = ["find", f"/sys/bus/pci/devices/{address}/", "-mindepth", "3", "-maxdepth", "3"]
    paths = host.run([*links, "-path", "*/net/*"], deadline, check=False).out.split()
    return paths[0].rpartition("/")[2] if paths else ""


def _is_up(host: Host, link: str, deadline: Deadline) -> bool:
    path = f"/sys/class/net/{link}/flags"
    flags = host.run(["cat", path], deadline).out
    return bool(whole_number(flags, f"read {path}", host=host.name, base=16) & 1)


# --- a device of our own ------------------------------------------------------------------------


@contextmanager
def add_device(
    host: Host, management: str, settings: Mapping[str, str], deadline: Deadline
) -> Iterator[str]:
    """A device named :data:`NAME`, bound to vhost_vdpa; gives the path of its node.

    ``settings`` are words of `vdpa dev add`: ``mac``, ``max_vqp``, ``device_features``. What the
    management device can't be told is left out: compare :func:`config` with what was wanted.
    """
    there = devices(host, deadline)
    if other := [name for name, by in there.items() if by == management and name != NAME]:
        # Not left to the kernel: vp_vdpa makes a second one, and falls over when it takes it away.
        raise HostError(
            f"add a vDPA device on {management}",
            host=host.name,
            said=f"{other[0]} exists already",
            remedy=f"`vdpa dev del {other[0]}` there, if nobody uses it",
        )
    if NAME in there:
        if not _is_ours(host, deadline):
            raise HostError(
                f"add a vDPA device on {management}",
                host=host.name,
                said=f"there is a {NAME} that is not ours: it is left alone",
                remedy=f"`vdpa dev del {NAME}` there, if nobody uses it",
            )
        remove(host, deadline)
    with ExitStack() as undo:
        keep(host, MADE, management, deadline)
        undo.callback(remove, host)
        _add(host, management, settings, deadline)
        undo.enter_context(bind(host, "vdpa", NAME, "vhost_vdpa", deadline))
        yield _await_node(host, deadline)


def _add(host: Host, management: str, settings: Mapping[str, str], deadline: Deadline) -> None:
    add = ["vdpa", "dev", "add", "name", NAME, "mgmtdev", management]
    for words in _fewer(settings):
        done = host.run([*add, *words], deadline, check=False)
        if done.status == 0:
            return
        if UNCONFIGURED not in done.err:
            break
    raise HostError(
        " ".join(done.argv), host=host.name, said=done.err, remedy="the kernel's log may tell more"
    )


def _fewer(settings: Mapping[str, str]) -> Iterator[Sequence[str]]:
    """All settings, then one fewer each time, in the order in which drivers lack them."""
    left = dict(settings)
    while True:
        yield [word for setting in left.items() for word in setting]
        lacked = next((name for name in ("max_vqp", "mac") if name in left), None)
        if lacked is None:
            return
        del left[lacked]


def remove(host: Host, deadline: Deadline | None = None) -> None:
    """Take our device away, if it is there and ours; HostError if a process has it open."""
    deadline = deadline or Deadline.after(UNDO_S)
    if not _is_ours(host, deadline):
        return
    if NAME not in devices(host, deadline):
        host.run(["rm", "-f", MADE], deadline)
        return
    node = _node_path(host, deadline)
    if node and (user := _user_of(host, node, deadline)):
        # The kernel would wait for it, in a sleep that no signal ends.
        raise HostError(
            f"take the vDPA device {NAME} away",
            host=host.name,
            said=f"{node} is held by process {user}",
            remedy="end the guest that uses it",
        )
    host.run(["vdpa", "dev", "del", NAME], deadline)
    host.run(["rm", "-f", MADE], deadline)


def _is_ours(host: Host, deadline: Deadline) -> bool:
    return host.run(["cat", MADE], deadline, check=False).status == 0


DEVICE_LEFTOVER = LeftoverKind(
    "vDPA device {}",
    f"[ ! -e /sys/bus/vdpa/devices/{NAME} ] || [ ! -e {MADE} ] || echo {NAME}",
    lambda host, _name, deadline: remove(host, deadline),
)
"""vDPA devices of other names are not ours."""


def _user_of(host: Host, node: str, deadline: Deadline) -> str:
    """The id of a process that has the node open; empty if there is none."""
    open_files = ["find", "/proc", "-maxdepth", "3", "-path", "/proc/[0-9]*/fd/*", "-lname", node]
    paths = host.run(open_files, deadline, check=False).out  # processes end meanwhile
    process = re.match(r"\s*/proc/([0-9]+)/", paths)
    return process[1] if process else ""


def _node_path(host: Host, deadline: Deadline) -> str:
    """The path of our device's node, as the bus names it; empty before vhost_vdpa has it."""
    listed = host.run(["ls", f"/sys/bus/vdpa/devices/{NAME}"], deadline, check=False).out.split()
    return next((f"/dev/{name}" for name in listed if name.startswith("vhost-vdpa-")), "")


def _await_node(host: Host, deadline: Deadline) -> str:
    """The path of our device's node, once it is there to be opened."""
    deadline = deadline.sooner(5)
    node = ""

    def is_there() -> bool:
        nonlocal node
        node = _node_path(host, deadline)
        return bool(node) and host.run(["test", "-c", node], deadline, check=False).status == 0

    if not until(is_there, deadline, POLL_S):
        raise HostError(
            f"wait for the node of {NAME}",
            host=host.name,
            said=f"{node or 'a vhost-vdpa node'} is not there",
            remedy="is the module vhost_vdpa loaded, and does devtmpfs or udev make its node?",
        )
    return node
