"""The probe as a process of this machine, which speaks by pipes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from migrate.clock import Deadline
from migrate.guest.probe import Probe
from migrate.guest.transport import PipeTransport

STREAM = 0xFEEDF00D


class Running(Probe):
    """A probe and its process."""

    def __init__(self, process: subprocess.Popen[bytes], where: str) -> None:
        self.process = process
        self.pipes = PipeTransport(process)
        super().__init__(self.pipes, where)

    def raw(self, line: bytes) -> dict[str, object]:
        """The answer to a line as it is."""
        self.pipes.send(line)
        reply = json.loads(self._line(Deadline.after(5)))
        assert isinstance(reply, dict)
        return reply


@contextmanager
def running(program: Path, *before: str, where: str = "probe") -> Iterator[Running]:
    """A probe that must still be sound when its standard input ends, unless the test ended it.

    What it started and left behind is ended with it, as with a guest: it has a session of its own.
    """
    process = subprocess.Popen(
        [*before, str(program)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stderr is not None
    with process:
        try:
            probe = Running(process, where)
            probe.ready(Deadline.after(10))
            yield probe
            if process.poll() is None:
                probe.pipes.close()
                assert process.wait(10) == 0, process.stderr.read().decode()
        finally:
            process.kill()
            for other in of_session(process.pid):
                os.kill(other, signal.SIGKILL)


def of_session(session: int) -> Iterator[int]:
    """Processes of it, whatever their parents: ``proc_pid_stat(5)``."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                yield int(stat.parent.name)


def wait_until(true: Callable[[], bool], seconds: float = 20) -> None:
    """The probe speaks only when asked, so it is asked until the deadline."""
    deadline = Deadline.after(seconds)
    while not true():
        assert not deadline.passed(), "it never came true"


def received(probe: Probe, count: int) -> Callable[[], bool]:
    return lambda: probe.stream_status().received >= count
