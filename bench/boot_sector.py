"""A guest of 512 bytes that dirties memory at a set rate, assembled from ``guest-images/dirtier``.

It runs under a KVM that boots no Linux, so KVM's dirty ring can be had there for real.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from migrate.clock import Deadline
from migrate.data import data_path
from migrate.drivers.shell import run
from migrate.errors import ConfigurationError

SOURCE = data_path("guest-images/dirtier/dirtier.S")
PAGE = 4096
BEGIN = 16 << 20
"""Where the range of memory begins that it writes to."""
PLACE = 0x7C00
"""Where a BIOS loads a boot sector, and where this one stays."""
SIZE = 512
CATCHES_UP = 16
"""Pages that it writes in one go at most, when it is late."""
_ASSEMBLE_S = 30.0
_REGISTER = re.compile(r"\b[ER]?(SI|IP)=([0-9a-f]+)")
_FLAT = re.compile(r"\bCS\s*=0008 0{8}")


def build(mib_s: float, mib: int, tsc_hz: float) -> bytes:
    """A sector that writes to ``mib`` MiB of pages over and over, ``mib_s`` MiB of pages a second.

    ``tsc_hz``: how fast the guest's time stamp counter counts.
    """
    period = round(tsc_hz * PAGE / (mib_s * 2**20))
    if not 0 < period < 2**31:
        raise ConfigurationError(
            f"make a boot sector that dirties {mib_s:g} MiB/s",
            said=f"a page each {period} ticks of the counter can't be told in 31 bits",
            remedy="a rate of a few pages a second and more",
        )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sizes = {"PERIOD": period, "LATE": min(CATCHES_UP * period, 2**31 - 1)}
        sizes |= {"BEGIN": BEGIN, "END": BEGIN + (mib << 20)}
        words = [word for key, value in sizes.items() for word in ("--defsym", f"{key}={value}")]
        deadline = Deadline.after(_ASSEMBLE_S)
        run(["as", "--32", *words, "-o", str(folder / "o"), str(SOURCE)], deadline, host="here")
        link = ["ld", "-m", "elf_i386", f"-Ttext={PLACE:#x}", "--oformat", "binary"]
        run([*link, "-o", str(folder / "sector"), str(folder / "o")], deadline, host="here")
        return (folder / "sector").read_bytes()


def pages_written(registers: str) -> int | None:
    """How many pages it has written, modulo 2**32, of HMP's ``info registers``.

    None as long as the machine's firmware runs.
    """
    values = {name: int(value, 16) for name, value in _REGISTER.findall(registers)}
    # The firmware has code of its own at this offset of another segment.
    flat = _FLAT.search(registers) is not None
    if not flat or not PLACE <= values.get("IP", 0) < PLACE + SIZE:
        return None
    return values.get("SI")
