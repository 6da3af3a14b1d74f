"""Doing one thing inside a network namespace of this machine: what it opens stays open there."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from migrate.clock import Deadline
from migrate.drivers.background_call import BackgroundCall
from migrate.errors import HostError

CLONE_NEWNET = 0x40000000
"""A flag of setns(2); Python has no call for it before 3.12."""

_Value = TypeVar("_Value")


def enter(namespace: Path) -> None:
    """Move the calling *thread* into the network namespace at a path such as ``/run/netns/x``."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(descriptor, CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(namespace))
    finally:
        os.close(descriptor)


def inside(
    namespace: Path | None,
    tried: str,
    function: Callable[[], _Value],
    deadline: Deadline,
    *,
    host: str = "",
) -> _Value:
    """What ``function`` returns, called in a thread inside ``namespace`` (None: this one).

    Raises what it raises, and HostError at the deadline.
    """

    def work() -> _Value:
        if namespace is not None:
            enter(namespace)
        return function()

    call = BackgroundCall(tried, work)
    if not call.wait(deadline):
        raise HostError(tried, host=host, said="no answer before the deadline: it hangs")
    value: _Value = call.result()
    return value
