"""A blocking call that goes on while its caller acts, or waits no longer than to a deadline."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from migrate.clock import Deadline


class BackgroundCall:
    """A call that goes on in a thread of its own, so that the caller can act meanwhile."""

    def __init__(self, tried: str, function: Callable[[], Any]) -> None:
        self.tried = tried
        self.error: Exception | None = None
        self._value: Any = None
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []
        threading.Thread(target=self._run, args=(function,), daemon=True).start()

    def _run(self, function: Callable[[], Any]) -> None:
        try:
            self._value = function()
        except Exception as error:  # noqa: BLE001  handed to the caller by result() and .error
            self.error = error
        with self._lock:
            self._done.set()
        for callback in self._callbacks:
            callback()

    @property
    def ended(self) -> bool:
        """Whether the call has ended."""
        return self._done.is_set()

    def then(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when it has ended: at once if it has already."""
        with self._lock:
            if not self._done.is_set():
                self._callbacks.append(callback)
                return
        callback()

    def wait(self, deadline: Deadline) -> bool:
        """Whether it ended by the deadline."""
        return self._done.wait(deadline.left())

    def result(self) -> Any:
        """What it returned; raises what it raised."""
        if self.error is not None:
            raise self.error
        return self._value
