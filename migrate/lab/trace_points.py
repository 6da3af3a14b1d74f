"""Whether a host's QEMU writes trace points of the guest's stop into its log.

The emulator is asked, not a guest: ``-trace help`` names the trace points that it has, ``-d help``
the item ``trace:PATTERN`` if it is built with the trace backend ``log`` (QEMU util/log.c). The two
take some 50 ms.
"""

from __future__ import annotations

from migrate.clock import Deadline
from migrate.lab.api import Runs
from migrate.lab.capabilities import Inspection, Look, No, Yes, parse, script_of

ASK_S = 10.0

NAMES = frozenset({f"vmstate_downtime_{kind}" for kind in ("checkpoint", "save", "load")})

SCRIPT = r"""
qemu=$(command -v qemu-system-x86_64 || command -v /usr/libexec/qemu-kvm)
if [ -n "$qemu" ]; then
    say qemu "$qemu"
    "$qemu" -trace help </dev/null 2>/dev/null | sed -n 's/^vmstate_downtime_/trace-point\t&/p'
    "$qemu" -d help </dev/null 2>/dev/null | sed -n 's/^trace:PATTERN.*/log-item\ttrace/p'
fi
"""


def trace_points(look: Look) -> Yes | No:
    """QEMU has trace points of the guest's stop, and writes them into its log (8.2 and newer, built
    with the trace backend `log`). Without them the stop has fewer stages."""
    if not look.first("qemu"):
        return No("the host has no QEMU that could be asked for its trace points", "install QEMU")
    if not set(look.all("trace-point")) >= NAMES:
        return No("this QEMU has no trace points vmstate_downtime_*", "QEMU 8.2 or newer")
    if not look.first("log-item"):
        return No(
            "this QEMU is built without the trace backend log",
            "a QEMU configured with --enable-trace-backends=log",
        )
    return Yes("vmstate_downtime_*")


INSPECTION = Inspection(SCRIPT, {"trace-points": trace_points})


def ask_trace_points(host: Runs) -> Yes | No:
    """Ask a host's QEMU now. Raises HostError where the host can't be asked."""
    said = host.run(["sh", "-c", script_of([INSPECTION])], Deadline.after(ASK_S)).out
    return trace_points(Look(parse(said)))
