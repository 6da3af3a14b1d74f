"""How fast a guest dirties its memory, by every method that QEMU has, and the limit on it.

Source: qapi/migration.json, calc-dirty-rate and set-vcpu-dirty-limit. There is no event for the end
of a measurement: QEMU is asked.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

from migrate.clock import Deadline
from migrate.errors import HostError, MeasurementError

Method = Literal["page-sampling", "dirty-bitmap", "dirty-ring"]
METHODS: tuple[Method, ...] = get_args(Method)
ASKED_S = 0.02
GRACE_S = 10.0
NOT_COUNTED = (
    "QEMU said 0: for the bitmap it counts KVM's pages only, and this guest is emulated; "
    "page-sampling measures it"
)
"""In our words: QEMU takes the command and answers as if it had measured."""


class Qemu(Protocol):
    """A monitor."""

    def execute(self, command: str, deadline: Deadline, **arguments: Any) -> Any:
        """One command and what it returns; HostError in QEMU's words."""


@dataclass(frozen=True, slots=True)
class DirtyRate:
    """What one method measured: MiB of pages a second, whole ones; or QEMU's reason not to.

    ``refused``: QEMU's words, or :data:`NOT_COUNTED`. ``per_vcpu``: by the ring only. ``seconds``:
    how long QEMU was asked to measure.
    """

    method: Method
    mib_s: float | None = None
    per_vcpu: tuple[float, ...] = ()
    seconds: int = 0
    refused: str = ""


@dataclass(frozen=True, slots=True)
class VcpuLimit:
    """The limit on one processor, and its rate by QEMU's own account: MiB a second."""

    vcpu: int
    limit_mib_s: float
    now_mib_s: float


def measure(qemu: Qemu, method: Method, seconds: int) -> DirtyRate:
    """Over so many seconds (QEMU: 1 to 60). A method that QEMU refuses is told with its reason."""
    deadline = Deadline.after(seconds + GRACE_S)
    asked = {"calc-time": seconds, "mode": method}
    try:
        qemu.execute("calc-dirty-rate", deadline, **asked)
    except HostError as error:
        return DirtyRate(method, seconds=seconds, refused=error.said)
    never = threading.Event()
    while (told := qemu.execute("query-dirty-rate", deadline))["status"] != "measured":
        if deadline.passed():
            raise MeasurementError(
                f"measure the dirty rate by {method}",
                said=f"still {told['status']} {GRACE_S:g} s after it should have ended",
                remedy="QEMU may be too busy: see its log",
            )
        never.wait(ASKED_S)
    if method == "dirty-bitmap" and not told["dirty-rate"] and _emulated(qemu, deadline):
        return DirtyRate(method, seconds=seconds, refused=NOT_COUNTED)
    per_vcpu = tuple(float(one["dirty-rate"]) for one in told.get("vcpu-dirty-rate", ()))
    return DirtyRate(method, float(told["dirty-rate"]), per_vcpu, seconds)


def _emulated(qemu: Qemu, deadline: Deadline) -> bool:
    return not qemu.execute("query-kvm", deadline)["enabled"]


def measure_all(qemu: Qemu, seconds: int) -> tuple[DirtyRate, ...]:
    """By every method, one after the other: QEMU measures by one at a time."""
    return tuple(measure(qemu, method, seconds) for method in METHODS)


@contextmanager
def limited(qemu: Qemu, mib_s: int) -> Iterator[None]:
    """All processors dirty at most so many MiB a second each while the block runs; KVM's ring only.

    Raises HostError in QEMU's words where there is none.
    """
    qemu.execute("set-vcpu-dirty-limit", Deadline.after(GRACE_S), **{"dirty-rate": mib_s})
    try:
        yield
    finally:
        qemu.execute("cancel-vcpu-dirty-limit", Deadline.after(GRACE_S))


def limits(qemu: Qemu) -> tuple[VcpuLimit, ...]:
    """Those that are in force now, one a processor."""
    told = qemu.execute("query-vcpu-dirty-limit", Deadline.after(GRACE_S))
    return tuple(
        VcpuLimit(one["cpu-index"], float(one["limit-rate"]), float(one["current-rate"]))
        for one in told
    )
