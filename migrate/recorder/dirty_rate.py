"""How fast a guest dirties its memory, by every method that QEMU has, and the limit on it.

Source: qapi/migration.json, calc-dirty-rate and set-vcpu-dirty-limit. There is no event for the end
of a measurement: QEMU is asked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

from migrate.clock import Deadline, now_ns, until
from migrate.drivers.qmp import Asked, ask
from migrate.errors import GuestError, HostError, MeasurementError
from migrate.formats.proc_files import PAGE_MIB
from migrate.formats.qapi import DIRTY_LIMITS, DIRTY_RATE, KVM, DirtyRateInfo
from migrate.guest.lifecycle import own_monitor
from migrate.lab.api import Host
from migrate.model import DIRTY_RATE_S, DirtyRate, DirtyWhen
from migrate.recorder.events import Listener
from migrate.recorder.noted_monitor import noted

Method = Literal["page-sampling", "dirty-bitmap", "dirty-ring"]
METHODS: tuple[Method, ...] = get_args(Method)
SAMPLED = 16384
"""Pages that are wanted in a sample; QEMU takes 128 to 16384 a GiB (migration/dirtyrate.h)."""
ASKED_S = 0.02
GRACE_S = 10.0
CONNECT_S = 5.0
NOT_COUNTED = (
    "QEMU said 0: for the bitmap it counts KVM's pages only, and this guest is emulated; "
    "page-sampling measures it"
)
"""In our words: QEMU takes the command and answers as if it had measured."""


@dataclass(frozen=True, slots=True)
class RateAnswer:
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


def measure(
    qemu: Asked, method: Method, seconds: int, sample_pages: int | None = None
) -> RateAnswer:
    """Over so many seconds (QEMU: 1 to 60). The answer to a refused one is its reason.

    ``sample_pages``: of each GiB, by page sampling alone; None: QEMU's 512.
    """
    deadline = Deadline.after(seconds + GRACE_S)
    asked: dict[str, Any] = {"calc-time": seconds, "mode": method}
    if sample_pages is not None and method == "page-sampling":
        asked["sample-pages"] = sample_pages
    try:
        qemu.execute("calc-dirty-rate", deadline, **asked)
    except HostError as error:
        return RateAnswer(method, seconds=seconds, refused=error.said)
    answer = DirtyRateInfo(status="")

    def is_measured() -> bool:
        nonlocal answer
        answer = ask(qemu, "query-dirty-rate", DIRTY_RATE, deadline)
        return answer.status == "measured"

    tried = f"measure the dirty rate by {method}"
    if not until(is_measured, deadline, ASKED_S):
        raise MeasurementError(
            tried,
            said=f"still {answer.status} {GRACE_S:g} s after it should have ended",
            remedy="QEMU may be too busy: see its log",
        )
    rate = answer.dirty_rate
    if method == "dirty-bitmap" and not rate and _emulated(qemu, deadline):
        return RateAnswer(method, seconds=seconds, refused=NOT_COUNTED)
    if rate is None:
        raise MeasurementError(tried, said="QEMU said that it has measured, and no rate")
    per_vcpu = tuple(float(vcpu.dirty_rate) for vcpu in answer.vcpu_dirty_rate)
    return RateAnswer(method, float(rate), per_vcpu, seconds)


def _emulated(qemu: Asked, deadline: Deadline) -> bool:
    return not ask(qemu, "query-kvm", KVM, deadline).enabled


def measure_all(qemu: Asked, seconds: int) -> tuple[RateAnswer, ...]:
    """By every method, one after the other: QEMU measures by one at a time."""
    return tuple(measure(qemu, method, seconds) for method in METHODS)


@contextmanager
def limited(qemu: Asked, mib_s: int) -> Iterator[None]:
    """All processors dirty at most so many MiB a second each while the block runs; KVM's ring only.

    Raises HostError in QEMU's words where there is none.
    """
    qemu.execute("set-vcpu-dirty-limit", Deadline.after(GRACE_S), **{"dirty-rate": mib_s})
    try:
        yield
    finally:
        qemu.execute("cancel-vcpu-dirty-limit", Deadline.after(GRACE_S))


def limits(qemu: Asked) -> tuple[VcpuLimit, ...]:
    """Those that are in force now, one a processor."""
    answer = ask(qemu, "query-vcpu-dirty-limit", DIRTY_LIMITS, Deadline.after(GRACE_S))
    return tuple(
        VcpuLimit(vcpu.cpu_index, float(vcpu.limit_rate), float(vcpu.current_rate))
        for vcpu in answer
    )


# --- in an attempt ------------------------------------------------------------------------------


def in_attempt(
    hosts: Sequence[Host],
    when: DirtyWhen,
    memory_mib: int,
    listener: Listener,
    written: Callable[[], int] | None = None,
) -> tuple[DirtyRate, ...]:
    """By every method, over our own monitor, of the guest that the one of ``hosts`` has.

    What can't be measured is there with its reason, also if no host has the guest, or several.
    ``written``: how many pages the guest has written so far, by its own count.
    """
    if len(hosts) != 1:
        return _unmeasured("", when, f"the guest runs on {len(hosts)} hosts")
    (host,) = hosts
    try:
        with (
            own_monitor(host, Deadline.after(CONNECT_S)) as monitor,
            noted(monitor, host.name, listener) as qemu,
        ):
            return tuple(
                _counted(written, partial(_measured, qemu, host.name, when, method, memory_mib))
                for method in METHODS
            )
    except HostError as error:
        return _unmeasured(host.name, when, f"{error.tried}: {error.said}")


def _counted(written: Callable[[], int] | None, measured: Callable[[], DirtyRate]) -> DirtyRate:
    """A rate beside what the guest wrote while it was measured."""
    if written is None:
        return measured()
    try:
        before, began_ns = written(), now_ns()
        rate = measured()
        pages, seconds = written() - before, (now_ns() - began_ns) / 1e9
    except GuestError as error:
        reason = f"the guest did not tell what it wrote: {error.said}"
        return measured().model_copy(update={"reason": reason})
    if pages < 0:
        return rate.model_copy(update={"reason": f"the guest wrote {pages} pages by its own count"})
    if rate.mib_s is None:  # it was refused at once: that is no time to write in
        return rate
    return rate.model_copy(update={"written_mib_s": round(pages * PAGE_MIB / seconds, 3)})


def _unmeasured(host: str, when: DirtyWhen, reason: str) -> tuple[DirtyRate, ...]:
    return tuple(
        DirtyRate(when=when, method=method, host=host, reason=reason) for method in METHODS
    )


def _measured(
    qemu: Asked, host: str, when: DirtyWhen, method: Method, memory_mib: int
) -> DirtyRate:
    per_gib = min(max(SAMPLED * 1024 // memory_mib, 128), 16384)
    try:
        answer = measure(qemu, method, DIRTY_RATE_S, per_gib)
    except (HostError, MeasurementError) as error:
        reason = f"{error.tried}: {error.said}"
        return DirtyRate(when=when, method=method, host=host, reason=reason)
    return DirtyRate(
        when=when,
        method=method,
        host=host,
        mib_s=answer.mib_s,
        error_mib_s=_error(answer, memory_mib, per_gib * memory_mib / 1024),
        per_vcpu_mib_s=answer.per_vcpu,
        reason=answer.refused,
    )


def _error(answer: RateAnswer, memory_mib: int, sampled: float) -> float:
    """MiB/s. QEMU rounds down, the bitmap's and the ring's twice (migration/dirtyrate.c).

    A sample of pages has twice its binomial deviation on top; none dirty may be one in so many.
    """
    if answer.mib_s is None:
        return 0.0
    if answer.method != "page-sampling":
        return 2.0
    share = min(max(answer.mib_s * answer.seconds / memory_mib, 1 / sampled), 1.0)
    deviation = math.sqrt(share * (1 - share) / sampled)
    return 1.0 + 2 * deviation * memory_mib / answer.seconds
