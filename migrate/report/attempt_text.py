"""An attempt as text: its end and its verdicts in lines, and all of its details in sections."""

from __future__ import annotations

from collections.abc import Iterator

from migrate.model import Attempt, Verdict
from migrate.report.machines import machine_sections
from migrate.report.move_details import sections
from migrate.report.table_text import WIDTH, clean, plain_sections, wrapped
from migrate.report.verdict_text import against_limit
from migrate.report.work import work_sections

INDENT = " " * 6


def attempt_lines(attempt: Attempt) -> Iterator[str]:
    """How an attempt ended, and every verdict with its evidence: a line each."""
    name = f"{attempt.case.id}/{attempt.number}"
    if attempt.void:
        yield clean(f"{name}: VOID: {attempt.void_reason}")
    yield from map(clean, map(str, attempt.qemu_ends))
    hosts = " and ".join(attempt.held_by or ()) or "no host"
    yield f"{name}: {attempt.outcome}, the guest runs on {hosts}"
    yield from map(_verdict_line, attempt.verdicts)
    error = attempt.error
    if error is not None and not any(
        error.said in verdict.evidence for verdict in attempt.verdicts
    ):
        where = f" on {error.host}" if error.host else ""
        yield clean(f"{error.tried}{where}: {error.said}")


def _verdict_line(verdict: Verdict) -> str:
    evidence = f": {verdict.evidence}" if verdict.evidence else ""
    measured = f" {verdict.measured}" if verdict.measured else ""
    return clean(
        f"  {verdict.check:18} {verdict.result:10}{measured}{against_limit(verdict)}{evidence}"
    )


def attempt_text(attempt: Attempt, width: int = WIDTH) -> list[str]:
    """All that is known of an attempt but its packets and events, in lines of this width."""
    told = (*sections(attempt), *work_sections(attempt), *machine_sections(attempt))
    return [
        f"--- {clean(attempt.case.id)}, attempt {attempt.number}",
        *wrapped([*attempt_lines(attempt)], width, indent=INDENT),
        "",
        *plain_sections(told, width).splitlines(),
    ]
