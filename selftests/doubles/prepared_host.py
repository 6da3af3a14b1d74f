"""A host for preparations: a network namespace of its own, and a folder that stands for ``/`` where
files are meant. Programs are real, but for those that would change the machine's kernel.

Started as ``python -m selftests.doubles.prepared_host`` it is a controller that is killed at a
point."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from migrate.clock import Deadline
from migrate.drivers.shell import Completed, run
from migrate.errors import HostError
from migrate.lab.api import Host
from migrate.lab.prepare.apply import JournalFile, prepare, undo
from migrate.lab.prepare.plan import Preparation
from migrate.lab.prepare.steps import STEPS, PreparedHost
from migrate.lab.resources import Resources

LAB = "kkx"
PAGES = "sys/kernel/mm/hugepages/hugepages-2048kB"
ALL = Preparation(
    huge_pages=100,
    bridge="taps",
    uplink="port0",
    firewall=True,
    modules=("vfio-pci",),
    ovs=True,
)

MODPROBE = """#!/bin/sh
case $1 in
--show-depends)
    [ "$2" = vfio-pci ] || { echo "FATAL: Module $2 not found" >&2; exit 1; }
    echo "builtin irqbypass"
    echo "insmod /lib/modules/x/vfio.ko.xz "
    echo "insmod /lib/modules/x/vfio-pci-core.ko disable=1"
    echo "insmod /lib/modules/x/vfio-pci.ko" ;;
*) mkdir -p ROOT/sys/module/vfio ROOT/sys/module/vfio_pci_core ROOT/sys/module/vfio_pci ;;
esac
"""
RMMOD = """#!/bin/sh
[ ! -e "ROOT/sys/module/$1/used" ] || { echo "$1 is in use" >&2; exit 1; }
rm -r "ROOT/sys/module/$1"
echo "$1" >>ROOT/unloaded
"""
FIREWALLD = """#!/bin/sh
case $* in
--state) ;;
--get-active-zones) printf 'public\\n  interfaces: eth0\\ntrusted (default)\\n  sources: x\\n' ;;
*trusted*--query*) ;;
*--query*) [ -e ROOT/opened ] ;;
*public*--add*) touch ROOT/opened ;;
*public*--remove*) rm ROOT/opened ;;
*) exit 9 ;;
esac
"""


class Place:
    """The host; ``lends`` and ``name`` are as a lab's."""

    name = "a"
    resources = Resources()

    def __init__(self, root: Path, namespace: str) -> None:
        self.root = root
        self.namespace = namespace
        self.bin = root / "bin"

    def build(self) -> None:
        """500 huge pages, no module, a link to be an uplink."""
        self.bin.mkdir()
        (self.root / "sys/module").mkdir(parents=True)
        (self.root / PAGES).mkdir(parents=True)
        self.pages(all=500, free=500, resv=0)
        self.put("modprobe", MODPROBE)
        self.put("rmmod", RMMOD)
        self.put("pgrep", "#!/bin/sh\nexit 1\n")  # the machine may have an OVS
        self.sh("ip link set lo up; ip link add port0 type veth peer name other0")

    def put(self, program: str, text: str) -> None:
        """A program in place of the machine's."""
        path = self.bin / program
        path.write_text(text.replace("ROOT", str(self.root)))
        path.chmod(0o755)

    def pages(self, **values: int) -> None:
        """As the kernel would tell them."""
        for name, value in values.items():
            file = {"all": "nr_hugepages", "free": "free_hugepages", "resv": "resv_hugepages"}[name]
            (self.root / PAGES / file).write_text(f"{value}\n")

    def sh(self, text: str) -> str:
        """A line of shell, there."""
        return self.run(["sh", "-ec", text], Deadline.after(20)).out.strip()

    def run(
        self,
        argv: Sequence[str],
        deadline: Deadline,
        *,
        text: str | None = None,
        check: bool = True,
    ) -> Completed:
        """As a host runs it."""
        path = f"PATH={self.bin}:{os.environ['PATH']}"
        entering = ["ip", "netns", "exec", self.namespace, "env", path]
        return run([*entering, *argv], deadline, host=self.name, text=text, check=check)

    def state(self) -> dict[str, Any]:
        """All that a preparation may change."""
        links = json.loads(self.sh("ip -json link show"))
        return {
            "pages": (self.root / PAGES / "nr_hugepages").read_text(),
            "links": [(one["ifname"], one.get("master"), "UP" in one["flags"]) for one in links],
            "ipv6 off": self.sh("cd /proc/sys/net/ipv6/conf; grep -lx 1 */disable_ipv6 || true"),
            "modules": sorted(path.name for path in (self.root / "sys/module").iterdir()),
            "ovs": (self.root / "ovs").exists(),
            "opened": (self.root / "opened").exists(),
            "journals": sorted((self.root / "run/migrate-lab/prepared").glob("*.json")),
        }

    def site(self) -> PreparedHost:
        """To be prepared."""
        host = cast("Host", self)
        return PreparedHost(host, Switch(self.root / "ovs", self.root / "port"), str(self.root))


class Switch:
    """An OVS that is a file; another one is its guest's port."""

    def __init__(self, file: Path, port: Path) -> None:
        self._file, self._port = file, port

    def is_running(self, _host: Host, _deadline: Deadline) -> bool:
        return self._file.exists()

    def ensure_switch(self, _host: Host, _deadline: Deadline) -> None:
        self._file.touch()

    def end_switch(self, host: Host, _deadline: Deadline) -> None:
        if self._port.exists():
            raise HostError("end OVS-DPDK", host=host.name, said="it has the ports vhu0")
        self._file.unlink(missing_ok=True)


def main(root: str, namespace: str, kind: str, point: str) -> None:
    """Prepare, and for a point of undoing undo; killed before or after the deed of one kind."""
    site = Place(Path(root), namespace).site()
    when, verb = point.split("-")
    step = STEPS[kind]  # type: ignore[index]
    deed = getattr(step, verb)

    def killed(*args: Any) -> None:
        if when == "after":
            deed(*args)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(step, verb, killed)
    prepare(site, LAB, ALL, Deadline.after(30))
    undo(JournalFile.read(site, Deadline.after(5)), Deadline.after(30))


if __name__ == "__main__":
    main(*sys.argv[1:])
