"""All lanes, by name: a module a group of doors, a line each."""

from __future__ import annotations

from selftests.fuzz import (
    guest_memory,
    guest_words,
    host_answers,
    lock_files,
    probe_answers,
    qemu_answers,
    streams,
    traffic,
    written_files,
)
from selftests.fuzz.lane import Lane

LANES: dict[str, Lane] = {
    lane.name: lane
    for lane in (
        *probe_answers.LANES,
        *traffic.LANES,
        *guest_words.LANES,
        *guest_memory.LANES,
        *qemu_answers.LANES,
        *host_answers.LANES,
        *streams.LANES,
        *lock_files.LANES,
        *written_files.LANES,
    )
}  # fmt: skip
