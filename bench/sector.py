"""A boot sector with a rate of its own, run on a host of a lab, and what it really wrote."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bench.boot_sector import PAGE, pages_written
from migrate.clock import Deadline, now_ns
from migrate.drivers.qmp import Monitor, monitor
from migrate.errors import GuestError, MeasurementError
from migrate.lab.api import Host

MEMORY_MIB = 300
BOOT_S = 60.0
NAME = "/run/migrate-lab-sector"
"""Name of the files on the host: the sector, the monitor's socket and the process id."""


class PageCount(NamedTuple):
    """Pages, modulo 2**32, and when on the axis."""

    pages: int
    at_ns: int


@contextmanager
def sector_guest(host: Host, sector: bytes, accelerator: str, *more: str) -> Iterator[Monitor]:
    """A QEMU on ``host`` that boots ``sector``; ended by its id with the block."""
    image, socket, pid = (host.file(f"{NAME}.{end}") for end in ("img", "sock", "pid"))
    if image is None or socket is None or pid is None:
        raise MeasurementError("start a boot sector", host=host.name, said="its files are not seen")
    image.write_bytes(sector)
    drive = f"file={NAME}.img,format=raw,if=ide,snapshot=on"
    argv = ["qemu-system-x86_64", "-accel", accelerator, "-m", str(MEMORY_MIB), "-nodefaults"]
    # Else the first write into each huge page waits for the host to clear it.
    argv += ["-mem-prealloc", "-display", "none", "-drive", drive]
    argv += ["-qmp", f"unix:{NAME}.sock,server=on,wait=off"]
    try:
        host.run([*argv, "-pidfile", f"{NAME}.pid", "-daemonize", *more], Deadline.after(BOOT_S))
        with monitor(socket, host.name, Deadline.after(10)) as qemu:
            yield qemu
    finally:
        if pid.exists():
            host.run(["kill", "-KILL", pid.read_text().strip()], Deadline.after(5), check=False)
            host.run(["pidwait", "-F", f"{NAME}.pid"], Deadline.after(10), check=False)
        for path in (image, socket, pid):
            path.unlink(missing_ok=True)


def pages_so_far(qemu: Monitor) -> PageCount | None:
    """The pages that the guest has written so far; None before the sector runs."""
    before = now_ns()
    command = {"command-line": "info registers"}
    registers = str(qemu.execute("human-monitor-command", Deadline.after(10), **command))
    pages = pages_written(registers)
    return None if pages is None else PageCount(pages, (before + now_ns()) // 2)


def await_sector(qemu: Monitor, host: Host) -> None:
    """Wait until the firmware has started the sector."""
    deadline = Deadline.after(BOOT_S)
    while pages_so_far(qemu) is None:
        if deadline.passed():
            raise GuestError("boot a sector", host=host.name, said=f"not there in {BOOT_S:g} s")


def rate(begin: PageCount | None, end: PageCount | None) -> float:
    """MiB of pages a second between two counts."""
    if begin is None or end is None:
        raise MeasurementError("ask the sector how much it wrote", said="it runs no more")
    pages = (end.pages - begin.pages) % 2**32
    return pages * PAGE / 2**20 / ((end.at_ns - begin.at_ns) / 1e9)


def tsc_hz() -> float:
    """This machine's TSC rate by its kernel; where it is wrong, so is the rate that is set."""
    match = re.search(r"cpu MHz\s*:\s*([\d.]+)", Path("/proc/cpuinfo").read_text())
    return float(match[1]) * 1e6 if match else 2e9
