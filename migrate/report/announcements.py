"""Lines on a move's announcements and first packets, and on what was not seen of it."""

from __future__ import annotations

from collections.abc import Iterator

from migrate.model import MonitorGap, MoveDetails
from migrate.report.table_model import NOT_MEASURED, not_measured


def announced_lines(hop: MoveDetails) -> Iterator[str]:
    """Announcements, first packets, blocktime of post-copy, monitor gaps, what was not seen."""
    yield from _announced(hop)
    yield _first_packets_line(hop)
    if hop.postcopy_blocktime_ms is not None:
        by_processor = ", ".join(f"{ms:g}" for ms in hop.postcopy_cpus_blocktime_ms)
        yield (
            f"waited for pages in post-copy: all vCPUs at once "
            f"{hop.postcopy_blocktime_ms:g} ms; each: {by_processor or NOT_MEASURED} ms"
        )
    for span in hop.blind:
        missed = _monitor_gap_text(span)
        yield f"no monitoring of {span.host} for {span.length_ms:.0f} ms: {span.what}{missed}"
    for reason in hop.unseen:
        yield f"not observed: {reason}"


def _announced(hop: MoveDetails) -> Iterator[str]:
    if hop.announced is None:
        why = not_measured("the guest did not resume on the target", hop.reasons("stop"))
        yield f"announced: {why}"
        return
    first = hop.first_announce_ms
    if first is None:
        when = "none was observed"
    else:
        when = f"first {abs(first):.1f} ms {'before' if first < 0 else 'after'} the resume"
    yield f"announced: {_announcers(hop)}; {when}{_listening_text(hop)}"


def _announcers(hop: MoveDetails) -> str:
    """How often each announced; a RARP of QEMU's may be one that its backend sent for it."""
    asked = hop.announce_rounds_asked
    rounds = "rounds configured not known" if asked is None else f"of {asked} rounds configured"
    if hop.announced_by is None:
        return f"{hop.announced} in all, {rounds}"
    by = hop.announced_by
    guests = [f"guest's {name} {by[kind]}" for kind, name in _GUESTS.items() if by.get(kind)]
    return ", ".join((*(guests or ("guest's none",)), f"QEMU's RARP {by.get('rarp', 0)} {rounds}"))


_GUESTS = {"garp": "ARP", "na": "NA"}
"""Kinds of frames by which a guest announces itself."""


def _listening_text(hop: MoveDetails) -> str:
    """How long was listened, if the last round was not due yet: rounds may seem missing then."""
    due = hop.announce_last_due_ms
    if due is None or hop.listened_ms is None or hop.listened_ms >= due:
        return ""
    return f"; observed for {hop.listened_ms / 1e3:.2f} s of {due / 1e3:.2f} s"


def _first_packets_line(hop: MoveDetails) -> str:
    first_packets = (
        ("egress", "at the peer", hop.first_egress_ms, hop.first_egress_error_ms),
        ("ingress", "in the guest", hop.first_ingress_ms, hop.first_ingress_error_ms),
    )
    parts = []
    for way, where, ms, error_ms in first_packets:
        if way in hop.silent:
            parts.append(f"{way} none came")
        elif ms is None:
            parts.append(f"{way} {NOT_MEASURED}")
        else:
            error = NOT_MEASURED if error_ms is None else f"{error_ms:.2f}"
            held = ", sent before the stop" if way in hop.first_sent_before_stop else ""
            parts.append(f"{way} {ms:.2f} ± {error} ms, {where}{held}")
    return f"first packet after the resume: {'; '.join(parts)}"


def _monitor_gap_text(gap: MonitorGap) -> str:
    """What a monitor gap hid, as far as that is known."""
    parts = []
    if gap.missed is not None:
        parts.append(f"{gap.missed} progress samples were missed")
    if gap.stop:
        parts.append("the guest was stopped meanwhile")
    if gap.stopped_ms:
        parts.append(f"{gap.stopped_ms:.1f} ms of the guest's stop are within it")
    elif gap.stopped_ms == 0 and gap.stop is False:
        parts.append("none of the guest's stop is within it")
    return "".join(f"; {part}" for part in parts)
