"""Why a log tells nothing of the stop: a log that can't be read, and a QEMU without trace points,
are told apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from migrate.clock import Deadline
from migrate.drivers.shell import Completed
from migrate.errors import HostError
from migrate.recorder.trace_points import why_no_trace_points

POINTS = "".join(f"trace-point\tvmstate_downtime_{k}\n" for k in ("save", "load", "checkpoint"))
QEMU = "qemu\t/usr/bin/qemu-system-x86_64\n"
LOG = "2026-11-28 17:49:38.000+0000: starting up libvirt\n"


@dataclass(frozen=True, slots=True)
class Host:
    """Answers for a log's last line, and for its emulator."""

    emulator: str = QEMU + POINTS + "log-item\ttrace\n"
    refusal: str = ""
    gone: bool = False

    def run(
        self,
        argv: Sequence[str],
        _deadline: Deadline,
        *,
        text: str | None = None,
        check: bool = True,
    ) -> Completed:
        assert text is None
        if self.gone:
            raise HostError("ssh", said="no route to host")
        if argv[0] == "tail":
            assert not check
            return Completed(tuple(argv), int(bool(self.refusal)), "", self.refusal)
        return Completed(tuple(argv), 0, self.emulator, "")


@pytest.mark.parametrize(
    ("host", "log", "reason"),
    [
        (Host(QEMU + "log-item\ttrace\n"), LOG, "has no trace points"),
        (Host(QEMU + POINTS), LOG, "built without the trace backend log"),
        (Host(), LOG, "what was read of its log has none"),
        (Host(""), LOG, "no QEMU that could be asked"),
        (Host(refusal="tail: no such file"), None, "was not read: tail: no such file"),
        (Host(refusal="Permission denied"), None, "was not read: Permission denied"),
        (Host(), None, "could not be before"),
        (Host(), f"{LOG}vmstate_downtime_checkpoint x\n", "not known: vmstate_downtime_checkp"),
        (Host(gone=True), LOG, "no route to host"),
    ],
    ids=["older", "backend", "none", "no-qemu", "missing", "shut", "later", "form", "gone"],
)
def test_the_reason_is_what_is_missing(host: Host, log: str | None, reason: str) -> None:
    assert reason in why_no_trace_points(host, log)
