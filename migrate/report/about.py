"""What the figures of a run can show, by what its hosts and guests were made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from migrate.model import Capability, Run

NESTED = (
    "This lab is nested: its hosts are virtual machines, their cards and vDPA devices emulated "
    "or simulated. It can tell the order and the parts of an outage, what the protocols do, "
    "and bugs. It can't tell the milliseconds of a product's silicon: take no figure of it for "
    "one."
)
LAB_KINDS: Mapping[str, str] = {"nested": NESTED}


def about(run: Run) -> tuple[str, ...]:
    """A sentence or two each; nothing where no host is on record."""
    return tuple(line for line in (LAB_KINDS.get(run.lab_kind, ""), *_accelerators(run)) if line)


def _accelerators(run: Run) -> Iterator[str]:
    """Whether guests were emulated: they run under KVM where both their hosts can boot Linux so."""
    kvm = {
        host.host: known
        for host in run.hosts
        if (known := next((c for c in host.capabilities if c.name == "kvm"), None)) is not None
    }
    unable = {host: known for host, known in kvm.items() if not known.able}
    if not run.hosts:
        return
    if not kvm:
        yield "Whether the guests were emulated is not on record."
    elif not unable:
        inside = " inside those hosts" if run.lab_kind in LAB_KINDS else ""
        yield f"The guests ran under KVM{inside}."
    else:
        which = "" if len(unable) == len(run.hosts) else f" from or to {' or '.join(unable)}"
        yield (
            f"The guests{which} were emulated (QEMU's TCG){_why(unable)}. Their milliseconds "
            "compare attempts on one machine; they are no figures of a product."
        )


def _why(unable: Mapping[str, Capability]) -> str:
    """The reason why there is no KVM, if all have the same."""
    reasons = {known.reason for known in unable.values() if known.reason}
    return f": {reasons.pop()}" if len(reasons) == 1 else ""
