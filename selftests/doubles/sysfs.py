"""A PF in a folder: as much of sysfs as a lease of a VF reads and writes, and what the kernel makes
of a write. Real programs (sh, cat, readlink, find, mv) work on it; three are stood in for.

Started as ``python sysfs.py FOLDER PROGRAM ARGUMENT...`` it is ``tee``, ``ip`` or ``modprobe``.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

LINK, PF, NATIVE = "up-pf", "0000:01:00.0", "igbvf"
TOTAL = 4


class Sysfs:
    """``root`` is the folder that stands for ``/``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.pci = root / "sys/bus/pci"
        self.pf = self.pci / "devices" / PF
        self.links = root / "links.json"

    def build(self, made: int) -> None:
        """A PF with ``made`` VFs, each in an IOMMU group of its own."""
        for driver in ("igb", NATIVE, "vfio-pci", "mlx5_vfio_pci"):
            (self.pci / "drivers" / driver).mkdir(parents=True)
            module = self.root / "sys/module" / driver.replace("-", "_") / "drivers"
            (module / f"pci:{driver}").mkdir(parents=True)
        self.pf.mkdir(parents=True)
        (self.pf / "driver").symlink_to(self.pci / "drivers/igb")
        (self.pf / "sriov_totalvfs").write_text(f"{TOTAL}\n")
        link = self.root / "sys/class/net" / LINK
        link.mkdir(parents=True)
        (link / "device").symlink_to(self.pf)
        self.links.write_text(json.dumps([{"ifname": LINK, "flags": ["UP"], "vfinfo_list": []}]))
        (self.root / "aliases").write_text("vfio_pci\n")
        self._count(made)

    def vf(self, number: int) -> Path:
        """The device of a VF."""
        return self.pci / f"devices/0000:01:10.{number}"

    def driver(self, number: int) -> str:
        """What drives a VF, or nothing."""
        driver = self.vf(number) / "driver"
        return driver.readlink().name if driver.is_symlink() else ""

    def told(self, number: int) -> dict[str, object]:
        """What the PF was told of a VF."""
        return dict(json.loads(self.links.read_text())[0]["vfinfo_list"][number])

    def share_group(self, number: int, other: str, kind: str) -> None:
        """Put another device of class ``kind`` into a VF's IOMMU group."""
        device = self.root / "sys/others" / other
        device.mkdir(parents=True)
        (device / "class").write_text(f"{kind}\n")
        (self.vf(number) / "iommu_group/devices" / other).symlink_to(device)

    def open(self, number: int) -> None:
        """Some process has the VF by VFIO."""
        self.bind(number, "vfio-pci")
        folder = self.root / "proc/99/fd"
        folder.mkdir(parents=True)
        (folder / "7").symlink_to(self.root / f"dev/vfio/{10 + number}")

    def bind(self, number: int, driver: str) -> None:
        """Have a VF driven by ``driver``."""
        (self.vf(number) / "driver").unlink(missing_ok=True)
        (self.vf(number) / "driver").symlink_to(self.pci / "drivers" / driver)
        netdev = self.vf(number) / "net"
        shutil.rmtree(netdev, ignore_errors=True)
        if driver == NATIVE:
            (netdev / f"eth{number}").mkdir(parents=True)

    # --- what the kernel makes of a write ---

    def write(self, path: Path, text: str) -> None:
        """OSError where the kernel refuses."""
        if (self.root / "refuses").exists():
            raise OSError(12, "Cannot allocate memory", str(path))
        if path.name == "sriov_numvfs":
            self._count(int(text))
        elif path.name == "unbind":
            (self.pci / "devices" / text / "driver").unlink()
        elif path.name == "driver_override":
            path.write_text(f"{text or '(null)'}\n")
        elif path.name == "drivers_probe":
            wanted = (self.pci / "devices" / text / "driver_override").read_text().strip()
            self.bind(int(text[-1]), NATIVE if wanted == "(null)" else wanted)

    def _count(self, number: int) -> None:
        for entry in self.pf.glob("virtfn*"):
            entry.unlink()
            shutil.rmtree(self.vf(int(entry.name[-1])))
        for one in range(number):
            group = self.root / f"sys/kernel/iommu_groups/{10 + one}"
            (group / "devices").mkdir(parents=True, exist_ok=True)
            device = self.vf(one)
            device.mkdir()
            (device / "driver_override").write_text("(null)\n")
            (device / "modalias").write_text("pci:v00008086d000010CA\n")
            (device / "class").write_text("0x020000\n")
            (device / "iommu_group").symlink_to(group)
            here = group / "devices" / device.name
            here.unlink(missing_ok=True)
            here.symlink_to(device)
            (self.pf / f"virtfn{one}").symlink_to(device)
            self.bind(one, NATIVE)
        (self.pf / "sriov_numvfs").write_text(f"{number}\n")
        told = [self._untold(one) for one in range(number)]
        links = [{"ifname": LINK, "flags": ["UP"], "vfinfo_list": told}]
        self.links.write_text(json.dumps([*links, *({"ifname": f"eth{n}"} for n in range(number))]))

    @staticmethod
    def _untold(number: int) -> dict[str, object]:
        return {
            "vf": number,
            "address": f"02:00:00:00:00:0{number}",
            "vlan_list": [{}],
            "spoofchk": True,
            "trust": False,
            "link_state": "auto",
        }

    def tell(self, number: int, word: str, value: str) -> None:
        """``ip link set dev up-pf vf NUMBER WORD VALUE``; this card knows no link state."""
        if word == "state":
            raise OSError(95, "RTNETLINK answers: Operation not supported")
        links = json.loads(self.links.read_text())
        told = links[0]["vfinfo_list"][number]
        told |= {
            "mac": {"address": value},
            "vlan": {"vlan_list": [{"vlan": int(value)} if value.isdigit() and int(value) else {}]},
            "spoofchk": {"spoofchk": value == "on"},
            "trust": {"trust": value == "on"},
        }[word]
        self.links.write_text(json.dumps(links))


def main(folder: str, program: str, *words: str) -> None:
    sysfs = Sysfs(Path(folder))
    if program == "ip" and words[-1] == "show":
        print(sysfs.links.read_text())
    elif program == "ip":
        sysfs.tell(int(words[5]), *words[6:8])
    elif program == "tee":
        sysfs.write(Path.cwd() / words[0], sys.stdin.read().strip())
    elif words[0] == "--resolve-alias":
        print((sysfs.root / "aliases").read_text())


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except OSError as error:
        sys.exit(str(error))
