"""An attempt that hangs is ended, with what was seen of it then.

Every wait of ours has a deadline; a call of libvirt's has none where QEMU hangs under it. It
returns when that QEMU is ended, and the attempt goes on to its end as one whose guest is gone.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from migrate.clock import Deadline
from migrate.errors import LabError
from migrate.guest.lifecycle import signal_qemu
from migrate.lab.api import Host
from migrate.migration.postcopy import guest_states

OURS = str(Path(__file__).parents[1])
LOGGER = logging.getLogger(__name__)


@contextmanager
def watchdog(hosts: Sequence[Host], uuid: str, deadline: Deadline) -> Iterator[list[str]]:
    """End the guest on every host if the block has not ended by the deadline; gives the reasons,
    which are there then."""
    reasons: list[str] = []
    ended = threading.Event()
    seconds, watched = deadline.left(), threading.get_ident()

    def watch() -> None:
        if ended.wait(deadline.left()):
            return
        where = _where(watched)
        LOGGER.info("the attempt hangs, %s: its guest is ended", where)
        said = "; ".join(map(str, guest_states(hosts, uuid, ask_qemu=False)))
        reasons.append(f"it hung, {where}: after {seconds:.0f} s its guest was ended; then {said}")
        for host in hosts:
            try:
                signal_qemu(host, uuid, "KILL")
            except LabError as error:
                reasons.append(f"its guest was not ended: {error}")

    thread = threading.Thread(target=watch, name="watchdog", daemon=True)
    thread.start()
    try:
        yield reasons
    finally:
        ended.set()


def _where(thread: int) -> str:
    """The innermost function of ours that a thread is in."""
    frame = sys._current_frames().get(thread)
    if frame is None:
        return "nowhere"
    LOGGER.debug("it is here:\n%s", "".join(traceback.format_stack(frame)))
    stack = [call for call in traceback.extract_stack(frame) if call.filename.startswith(OURS)]
    return f"in {stack[-1].name}" if stack else "nowhere of ours"
