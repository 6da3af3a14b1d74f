"""Whether KVM can run Linux on a host: a kernel is booted, and its init has to speak.

A ``/dev/kvm`` that opens may still be unable to run Linux.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pydantic import ValidationError

from migrate.clock import Deadline, now_ns
from migrate.files import as_host_error, make_private, replace_file
from migrate.formats.proc_files import cpu_field
from migrate.model import Value

if TYPE_CHECKING:
    from migrate.lab.api import Runs

INIT_REACHED = "migrate-lab: init reached"
"""What the guest image's first process says on the console."""
SAID = 500
"""Characters of a line that are told."""
BOOT_S = 15.0
"""A kernel that KVM can run is at its init in about one second."""


# Arguments: the line to wait for, seconds, the program and its arguments. The program is ended by
# its id as soon as the line is there. It stays in this script's process group, so that whoever ends
# that ends all; and where nobody does, `timeout` ends it.
BOOT = r"""
line=$1
shift
sh -c 'echo $$; exec timeout --foreground --kill-after=2 "$@" 2>&1' sh "$@" </dev/null | {
    read -r pid
    sed "/$line/q"
    kill "$pid" 2>/dev/null
}
"""


class KernelImage(Protocol):
    """A kernel that can be booted for a try; the host sees its files at the same paths."""

    @property
    def kernel(self) -> Path:
        """As QEMU's ``-kernel`` takes it."""

    @property
    def initrd(self) -> Path:
        """Its first process says :data:`INIT_REACHED`."""

    @property
    def cmdline(self) -> str:
        """With the console on the first serial port."""


class KvmBoot(Value):
    """One try at booting a kernel under KVM."""

    reached: bool
    seconds: float
    said: str = ""
    """The last line of the guest's console, or of QEMU where that gave up."""
    gave_up: bool = False
    """QEMU ended by itself, before the time was up."""


def boot(host: Runs, image: KernelImage, seconds: float = BOOT_S) -> KvmBoot:
    """Boot a kernel under KVM on the host until its init speaks; nothing of it is left."""
    argv = [
        *("qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-M", "q35", "-m", "128"),
        *("-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"),
        *("-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", image.cmdline),
    ]
    began = now_ns()
    out = host.run(
        ["sh", "-c", BOOT, "sh", INIT_REACHED, f"{seconds:g}", *argv],
        Deadline.after(seconds + 10),
        check=False,
    ).out
    took = (now_ns() - began) / 1e9
    lines = [line.strip() for line in out.splitlines() if line.strip()]
    complaints = [line for line in lines if line.startswith("qemu-system")]
    console = [line for line in lines if line not in complaints]
    reached = INIT_REACHED in out
    gave_up = not reached and took < seconds
    return KvmBoot(
        reached=reached,
        seconds=round(took, 1),
        said=((complaints or console if gave_up else console) or [""])[-1][:SAID],
        gave_up=gave_up,
    )


def processor() -> str:
    """The name of this machine's processor."""
    return cpu_field(Path("/proc/cpuinfo").read_text(errors="replace"), "model name")


def boot_once(
    host: Runs,
    cache: Path,
    key: tuple[str, ...],
    image: KernelImage,
    *,
    fresh: bool = False,
    seconds: float = BOOT_S,
) -> KvmBoot:
    """:func:`boot`, or its result of last time for the same ``key``."""
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    kept = cache / "facts" / f"kvm-{digest}.json"
    if not fresh and kept.exists():
        try:
            return KvmBoot.model_validate_json(kept.read_bytes())
        except ValidationError:  # of another version: found out anew, and written over
            pass
    result = boot(host, image, seconds)
    make_private(kept.parent)
    with as_host_error("keep whether KVM can boot Linux", kept.parent):
        replace_file(kept, result.model_dump_json(indent=2))
    return result
