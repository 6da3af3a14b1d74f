"""A guest that nobody needs, of the QEMU that a host has: what is asked of it harms no one.

It is two bare QEMUs, a source that runs and a target that waits for it, with one virtio network
device each and a firmware of our own, whose only work is to set that device up as a driver would.
So the device is started, its queues have rings (empty ones), and it can be moved; it takes 2 MiB
of memory, no processor once it idles, and a tenth of a second to start.
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from migrate.backends.base import EMULATOR
from migrate.clock import Deadline
from migrate.drivers.background_call import BackgroundCall
from migrate.drivers.qmp import Monitor, monitor
from migrate.errors import HostError
from migrate.guest.vhost_user_stub import VhostUserStub
from migrate.lab.api import Host
from migrate.model import Backing

FOLDER = "/run/migrate-lab-throwaway-"
"""Begin of its folder's name on the host: the rest is made up anew each time."""
DEVICE = "/machine/peripheral/net0/virtio-backend"
"""QEMU's path of its network device."""
INTERRUPT = 9
"""The device's interrupt line (query-pci) once it is set up."""
STREAM = "unix:../stream"
"""Where the target listens, and the source sends to."""
END_S = 5.0
_ROM_BYTES = 1 << 16
_CODE_AT, _RESET_AT = 0xFF00, 0xFFF0

# 16-bit code at F000:FF00. Source: PCI 3.0, 3.2.2.3.2; virtio 1.3, 4.1.4.10 (legacy interface).
_CODE = (
    # PCI device 4: its I/O ports are 0xc000 and up.
    "ba f8 0c  66 b8 10 20 00 80  66 ef"  # out 0xcf8, 0x80002010
    "ba fc 0c  66 b8 00 c0 00 00  66 ef"  # out 0xcfc, 0xc000
    # It may be reached by ports, and reach memory.
    "ba f8 0c  66 b8 04 20 00 80  66 ef"  # out 0xcf8, 0x80002004
    "ba fc 0c  b8 07 00  ef"  # out 0xcfc, 7
    "ba 12 c0  b0 03  ee"  # status: ACKNOWLEDGE, DRIVER
    # All features that it offers but bit 30, which a legacy driver must not take.
    "ba 00 c0  66 ed  66 25 ff ff ff bf  ba 04 c0  66 ef"
    # Queue 0, 1 and 2: their rings are at 64 KiB times 1, 2 and 3.
    "31 db"  # bx = 0
    "ba 0e c0  89 d8  ef"  # select queue bx
    "ba 08 c0  66 0f b7 c3  66 c1 e0 04  66 83 c0 10  66 ef"  # its page is 16 * bx + 16
    "43  83 fb 03  72 e3"  # the next one, below 3
    "ba 12 c0  b0 07  ee"  # status: and DRIVER_OK
    "ba f8 0c  66 b8 3c 20 00 80  66 ef"  # out 0xcf8, 0x8000203c
    "ba fc 0c  b0 09  ee"  # out 0xcfc, 9: its interrupt line, for whoever waits
    "f4  eb fd"  # idle for ever: interrupts are off
)
_RESET = "e9 0d ff"  # from F000:FFF0 to the code

# Arguments: folder, seconds, the emulator and its arguments; the firmware in base64 on standard
# input. Both QEMUs end when their time is up, whatever becomes of whoever started them, and the
# folder goes with them.
_START = r"""
folder=$1 seconds=$2
shift 2
umask 077
mkdir "$folder" "$folder/source" "$folder/target" || exit
trap 'rm -rf "$folder"' EXIT
trap 'kill $children' HUP INT TERM
children=
cd "$folder" && base64 -d >rom && echo $$ >id || exit
for side in source target; do
    cd "$folder/$side" || exit
    incoming=
    [ $side = source ] || incoming="-S -incoming defer"
    # shellcheck disable=SC2086
    timeout --foreground --kill-after=1 "$seconds" "$@" $incoming \
        -qmp "unix:$PWD/monitor,server=on,wait=off" \
        -chardev "socket,id=backend,path=$PWD/backend,server=on,wait=off" </dev/null &
    children="$children $!"
done
wait
wait # a signal ends the first one
"""
# Arguments: a folder of a side, a name in it. Status 1: not yet, after a second; whoever asks looks
# whether both have ended meanwhile. A socket's file is there a moment before anybody listens; the
# kernel tells who does (proc_pid_net(5), unix).
_AWAIT = r"""
tries=100
until grep -q " 00010000 .* $1/$2\$" /proc/net/unix; do
    [ $((tries -= 1)) -gt 0 ] || exit 1
    sleep 0.01
done
"""
# Its id is that of a program of ours as long as the folder is there, which goes with it.
_END = r"""
id=$(cat "$1/id") && [ -n "$id" ] && kill "$id"
"""
_MACHINE = (
    # Either runs sixteen bits; where one is not built in, the other is taken.
    *("-accel", "tcg", "-accel", "kvm", "-machine", "q35"),
    *("-nodefaults", "-no-user-config", "-display", "none", "-bios", "../rom"),
)
_DEVICE = "virtio-net-pci,id=net0,addr=4,romfile="
_BACKING: dict[Backing, tuple[str, ...]] = {
    "none": ("-m", "2", "-device", _DEVICE),
    "vhost-user": (
        *("-m", "2", "-object", "memory-backend-memfd,id=memory,size=2M,share=on"),
        *("-machine", "memory-backend=memory"),
        *("-netdev", "vhost-user,id=network,chardev=backend"),
        *("-device", f"{_DEVICE},netdev=network"),
    ),
}


@dataclass(frozen=True, slots=True)
class ThrowawaySide:
    """One of the two QEMUs."""

    qemu: Monitor
    backend: VhostUserStub | None
    """Of a vhost-user device."""


@contextmanager
def throwaway_guest(
    host: Host, backing: Backing, deadline: Deadline
) -> Iterator[tuple[ThrowawaySide, ThrowawaySide]]:
    """Source and target while the block runs; both have ended, and left nothing, after it.

    HostError in QEMU's words where they don't start. They outlive a controller that is killed until
    ``deadline`` at most: programs on the host end them, and take their folder away.
    """
    folder = f"{FOLDER}{uuid.uuid4().hex[:12]}"
    argv = [EMULATOR, *_MACHINE, *_BACKING[backing]]
    command = ["sh", "-c", _START, "sh", folder, f"{deadline.left():.1f}", *argv]
    firmware = base64.b64encode(_firmware()).decode()
    both = BackgroundCall(
        "run a throw-away guest",
        lambda: host.run(command, deadline.later(END_S), text=firmware, check=False),
    )
    try:
        with ExitStack() as stack:
            sides = [
                stack.enter_context(_side(host, f"{folder}/{name}", backing, both, deadline))
                for name in ("source", "target")
            ]
            yield sides[0], sides[1]
    finally:
        _end(host, folder, both)


@contextmanager
def _side(
    host: Host, folder: str, backing: Backing, both: BackgroundCall, deadline: Deadline
) -> Iterator[ThrowawaySide]:
    """QEMU opens its monitor only when its backend is there."""
    with ExitStack() as stack:
        backend = None
        if backing == "vhost-user":
            _await(host, folder, "backend", both, deadline)
            plug = stack.enter_context(host.dial(f"{folder}/backend", deadline))
            backend = stack.enter_context(VhostUserStub(plug).serving())
        _await(host, folder, "monitor", both, deadline)
        plug = stack.enter_context(host.dial(f"{folder}/monitor", deadline))
        yield ThrowawaySide(stack.enter_context(monitor(plug, host.name, deadline)), backend)


def _await(host: Host, folder: str, name: str, both: BackgroundCall, deadline: Deadline) -> None:
    """Until QEMU listens at a socket in its folder; HostError if it never does."""
    waiting = ["sh", "-c", _AWAIT, "sh", folder, name]
    while host.run(waiting, deadline, check=False).status != 0:
        if both.ended:
            raise HostError("start a throw-away guest", host=host.name, said=_last_words(both))


def _last_words(both: BackgroundCall) -> str:
    ended = both.result() if both.ended and both.error is None else None
    return ended.err.strip()[-500:] if ended else str(both.error or "it has not ended")


def _end(host: Host, folder: str, both: BackgroundCall) -> None:
    """End both, if they have not ended; HostError if they don't."""
    if not both.ended:
        host.run(["sh", "-c", _END, "sh", folder], Deadline.after(END_S), check=False)
    if not both.wait(Deadline.after(END_S)):
        raise HostError("end a throw-away guest", host=host.name, said=_last_words(both))


def _firmware() -> bytes:
    rom = bytearray(_ROM_BYTES)
    for at, code in ((_CODE_AT, bytes.fromhex(_CODE)), (_RESET_AT, bytes.fromhex(_RESET))):
        rom[at : at + len(code)] = code
    return bytes(rom)
