"""The verdict on a failover pair: which of its devices carries the guest's traffic."""

from __future__ import annotations

from migrate.checks.verdicts import CheckResult, guest_expected, unmeasured
from migrate.model import Attempt, Carrier, CarrierCheckpoint, Verdict

FEW = 50
"""Packets sent: a device that has sent fewer may not have been answered yet."""


def carried_by(attempt: Attempt) -> Verdict | None:
    """A failover pair's primary carries before the move and at the end, where the host has one.

    Looks at which device of the pair sends most by its own counters, before the move and when the
    traffic ends; needs the log of carriers. A guest that stays on its
    standby has lost what the primary is for, though packets pass.
    """
    hosts, checkpoints = attempt.failover_hosts, attempt.carrier_checkpoints
    asked = attempt.case.expect.primary and guest_expected(attempt)
    if not asked or (hosts is None and checkpoints is None):
        return None
    if not checkpoints:
        return unmeasured(
            "carried-by", "the guest could not be asked which device carries its traffic"
        )
    results = [_judge(checkpoint, hosts) for checkpoint in checkpoints]
    if checkpoints[-1].when != "at the end":
        results.append(("unmeasured", "no single host runs the guest at the end"))
    result = next(one for one in _WORST_FIRST if one in dict(results))
    reasons = [reason for of, reason in results if of == result]
    begin_ns = attempt.begin_ns
    shares = [_share(carrier, begin_ns) for carrier in attempt.carriers or ()]
    return Verdict(
        check="carried-by",
        result=result,
        measured=_name(checkpoints[-1].carrier),
        limit="standby" if hosts and checkpoints[-1].host not in hosts else "primary",
        evidence="; ".join((*reasons, *shares)),
    )


_WORST_FIRST: tuple[CheckResult, ...] = ("fail", "unmeasured", "pass")


def _judge(checkpoint: CarrierCheckpoint, hosts: tuple[str, ...] | None) -> tuple[CheckResult, str]:
    """A result and its reason; ``hosts``: those that have a primary, None if not on record."""
    carrier, where = checkpoint.carrier, f"{checkpoint.when}, on {checkpoint.host}"
    if carrier is None:
        return "fail", f"no device carries {where}"
    if carrier.is_standby:
        return _judge_standby(carrier, checkpoint.host, hosts, where)
    if not carrier.driver:
        return "unmeasured", f"the driver of {carrier.device}, which carries {where}, is not known"
    sent, received = carrier.sent, carrier.received
    if sent is not None and sent >= FEW and received == 0:
        return "fail", f"the primary {carrier.device} sends {where}, and receives nothing"
    return "pass", f"the primary carries {where}"


def _judge_standby(
    carrier: Carrier, host: str, hosts: tuple[str, ...] | None, where: str
) -> tuple[CheckResult, str]:
    """It is right for the standby to carry only where the host has no primary."""
    if hosts is None:
        return (
            "unmeasured",
            f"the standby carries {where}: whether that host has a primary is not known",
        )
    if host in hosts:
        return "fail", f"the standby {carrier.device} carries {where}, which has a primary"
    return "pass", f"the standby carries {where}, which has no primary"


def _name(carrier: Carrier | None) -> str:
    if carrier is None:
        return "nothing"
    if not carrier.driver:
        return "not known"
    return "standby" if carrier.is_standby else "primary"


def _share(carrier: Carrier, begin_ns: int) -> str:
    """What a device carried, and when: seconds into the attempt."""
    since_s, until_s = ((at - begin_ns) / 1e9 for at in (carrier.begin_ns, carrier.end_ns))
    counted = (
        f"{carrier.sent} packets sent, {carrier.received} received"
        if carrier.sent is not None and carrier.received is not None
        else "packets not counted"
    )
    return f"{carrier.device} ({carrier.driver}) from {since_s:.3f} to {until_s:.3f} s: {counted}"
