"""All lanes, by name: a module a group of doors, a line each."""

from __future__ import annotations

from selftests.fuzz import host_answers, lock_files, probe_answers, qemu_answers, streams
from selftests.fuzz.lane import Lane

LANES: dict[str, Lane] = {
    lane.name: lane
    for lane in (
        *probe_answers.LANES,
        *qemu_answers.LANES,
        *host_answers.LANES,
        *streams.LANES,
        *lock_files.LANES,
    )
}  # fmt: skip
