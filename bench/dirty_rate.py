"""Dirty rates against the truth: what each method of QEMU's says of a guest with a known rate.

A boot sector writes to 256 MiB of pages at a set rate, and counts; what it wrote during a
measurement is the truth of that one. Twice: with KVM's dirty ring, and without, since QEMU refuses
the bitmap with the ring. Then the ring's limit on the guest, and a live move with the ring on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.world import ended, keep, local_lab, options, pair_of, say, show
from migrate.boot_sector import PAGE, build, pages_written
from migrate.clock import Deadline, now_ns
from migrate.convergence import forecast
from migrate.errors import GuestError, HostError, MeasurementError
from migrate.lab.hosts import Host
from migrate.observe.dirty_rate import METHODS, DirtyRate, limited, measure
from migrate.qmp_client import Monitor, monitor

RATES_MIB_S = (4, 16, 64)
RANGE_MIB = 256
MEMORY_MIB = 300
SECONDS = 2
BOOT_S = 60.0
MOVE_S = 60.0
WARM_S = 5
"""So long the guest writes before it is moved."""
BANDWIDTH_MIB_S, LIMIT_MS = 64, 100
MOVED_MIB_S = (16, 48)
PORT = 4444
"""In the network namespace of a host of our own."""
ACCELERATORS = {
    "kvm, ring of 4096": "kvm,dirty-ring-size=4096",
    "kvm, no ring": "kvm",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One method at one rate."""

    accelerator: str
    set_mib_s: float
    truth_mib_s: float
    found: DirtyRate


@contextmanager
def sector_guest(host: Host, sector: bytes, accelerator: str, *more: str) -> Iterator[Monitor]:
    """A QEMU on ``host`` that boots ``sector``; ended by its id with the block."""
    name = "/run/migrate-lab-sector"
    image, socket, pid = (host.file(f"{name}.{end}") for end in ("img", "sock", "pid"))
    if image is None or socket is None or pid is None:
        raise MeasurementError("start a boot sector", host=host.name, said="its files are not seen")
    image.write_bytes(sector)
    drive = f"file={name}.img,format=raw,if=ide,snapshot=on"
    argv = ["qemu-system-x86_64", "-accel", accelerator, "-m", str(MEMORY_MIB), "-nodefaults"]
    argv += ["-display", "none", "-drive", drive, "-qmp", f"unix:{name}.sock,server=on,wait=off"]
    try:
        host.run([*argv, "-pidfile", f"{name}.pid", "-daemonize", *more], Deadline.after(BOOT_S))
        with monitor(socket, host.name, Deadline.after(10)) as qemu:
            yield qemu
    finally:
        if pid.exists():
            host.run(["kill", "-KILL", pid.read_text().strip()], Deadline.after(5), check=False)
        for path in (image, socket, pid):
            path.unlink(missing_ok=True)


def written(qemu: Monitor) -> tuple[int, int] | None:
    """Pages, and when on the axis; None before the sector runs."""
    before = now_ns()
    command = {"command-line": "info registers"}
    said = qemu.execute("human-monitor-command", Deadline.after(10), **command)
    pages = pages_written(said)
    return None if pages is None else (pages, (before + now_ns()) // 2)


def await_sector(qemu: Monitor, host: Host) -> None:
    """Until the firmware has handed over to it."""
    deadline = Deadline.after(BOOT_S)
    while written(qemu) is None:
        if deadline.passed():
            raise GuestError("boot a sector", host=host.name, said=f"not there in {BOOT_S:g} s")


def rate(begin: tuple[int, int] | None, end: tuple[int, int] | None) -> float:
    """MiB of pages a second between two looks."""
    if begin is None or end is None:
        raise MeasurementError("ask the sector how much it wrote", said="it runs no more")
    pages = (end[0] - begin[0]) % 2**32
    return pages * PAGE / 2**20 / ((end[1] - begin[1]) / 1e9)


def rows(host: Host, sector: bytes, name: str, set_mib_s: float) -> Iterator[Row]:
    """Every method, one after the other, in one guest."""
    with sector_guest(host, sector, ACCELERATORS[name]) as qemu:
        await_sector(qemu, host)
        for method in METHODS:
            begin = written(qemu)
            found = measure(qemu, method, SECONDS)
            truth = rate(begin, written(qemu)) if not found.refused else 0.0
            yield Row(name, set_mib_s, truth, found)


def limit(host: Host, sector: bytes, mib_s: int) -> float:
    """What is left of the guest's rate under the ring's limit, in MiB/s."""
    with sector_guest(host, sector, ACCELERATORS["kvm, ring of 4096"]) as qemu:
        await_sector(qemu, host)
        with limited(qemu, mib_s):
            measure(qemu, "page-sampling", SECONDS)  # it takes the limit a while to bite
            begin = written(qemu)
            measure(qemu, "page-sampling", SECONDS)
            return rate(begin, written(qemu))


def foretold(mib_s: float, memory_mib: int) -> str:
    """Of a move at the bandwidth and the limit that :func:`moved` sets."""
    found = forecast(
        memory=memory_mib << 20,
        working_set=RANGE_MIB << 20,
        dirty_per_s=mib_s * 2**20,
        bandwidth_per_s=BANDWIDTH_MIB_S * 2**20,
        downtime_s=LIMIT_MS / 1000,
    )
    passes = found.converges_in
    return "it never converges" if passes is None else f"it converges in pass {passes}"


def moved(source: Host, target: Host, sector: bytes) -> dict[str, float]:
    """A live move with the ring on at both ends; QEMU's account, and the rate on the target.

    The guest has written to some seconds' worth of its range before; RAM that it never wrote to is
    zero, and costs nothing.
    """
    accelerator = ACCELERATORS["kvm, ring of 4096"]
    place = f"tcp:{target.migration_address}:{PORT}"
    with (
        sector_guest(target, sector, accelerator, "-incoming", place) as arriving,
        sector_guest(source, sector, accelerator) as leaving,
    ):
        await_sector(leaving, source)
        told_of = [{"capability": "events", "state": True}]
        leaving.execute("migrate-set-capabilities", Deadline.after(10), capabilities=told_of)
        limits = {"max-bandwidth": BANDWIDTH_MIB_S << 20, "downtime-limit": LIMIT_MS}
        leaving.execute("migrate-set-parameters", Deadline.after(10), **limits)
        measure(leaving, "page-sampling", WARM_S)
        leaving.migrate("migrate", Deadline.after(MOVE_S), uri=place)
        told = leaving.execute("query-migrate", Deadline.after(10))
        await_sector(arriving, target)
        begin = written(arriving)
        measure(arriving, "page-sampling", 1)
        return {
            "iterations": told["ram"]["dirty-sync-count"],
            "total, ms": told["total-time"],
            "downtime, ms": told["downtime"],
            "rate on the target, MiB/s": round(rate(begin, written(arriving)), 1),
        }


def tsc_hz() -> float:
    """Of this machine, by its kernel; where it is wrong, so is the rate, and the truth tells."""
    found = re.search(r"cpu MHz\s*:\s*([\d.]+)", Path("/proc/cpuinfo").read_text())
    return float(found[1]) * 1e6 if found else 2e9


def tell(found: list[Row]) -> None:
    """A line each."""
    lines = []
    for row in found:
        cells = [row.accelerator, f"{row.set_mib_s:g}", row.found.method]
        if row.found.mib_s is None:
            lines.append([*cells, "", "", f"refused: {row.found.refused}"])
            continue
        error = 100 * (row.found.mib_s / row.truth_mib_s - 1)
        lines.append([*cells, f"{row.truth_mib_s:.2f}", f"{row.found.mib_s:g}", f"{error:+.0f} %"])
    heads = ("accelerator", "set", "method", "truth", "measured", "error")
    show("dirty rate, MiB/s", heads, lines)


def main() -> int:
    """Always 0: an error of a method is a find, and no failure."""
    chosen = options(__doc__, rounds=1).parse_args()
    found: list[Row] = []
    with local_lab(chosen.lab) as lab:
        source, target = pair_of(lab)
        for mib_s in RATES_MIB_S:
            sector = build(mib_s, RANGE_MIB, tsc_hz())
            for name in ACCELERATORS:
                say(f"{mib_s} MiB/s, {name}")
                found += rows(source, sector, name, mib_s)
        tell(found)
        fast = build(64, RANGE_MIB, tsc_hz())
        try:
            print(f"limited to 8 MiB/s: {limit(source, fast, 8):.1f} MiB/s of 64")
            for mib_s in MOVED_MIB_S:
                account = moved(source, target, build(mib_s, RANGE_MIB, tsc_hz()))
                told = ", ".join(f"{name} {value:g}" for name, value in account.items())
                written_mib = min(RANGE_MIB, mib_s * WARM_S)
                print(f"a live move at {mib_s} MiB/s: {foretold(mib_s, written_mib)}; {told}")
        except HostError as error:
            print(f"not here: {error}")
    keep(chosen.json, {"rows": [asdict(row) for row in found]})
    return 0


if __name__ == "__main__":
    raise SystemExit(ended(main))
