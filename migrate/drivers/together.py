"""The same on several hosts at once: each has a processor of its own, and most of it is waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Value = TypeVar("Value")


def each(items: Iterable[Item], act: Callable[[Item], Value]) -> list[Value]:
    """What ``act`` gives for each of ``items``, in their order.

    All come to their end, whatever the others raise; then the first error is raised.
    """
    with ThreadPoolExecutor() as pool:
        calls = [pool.submit(act, item) for item in items]
    return [call.result() for call in calls]


@contextmanager
def together(managers: Sequence[AbstractContextManager[Value]]) -> Iterator[list[Value]]:
    """All blocks at once: their values, in order. If one can't begin, those that did are ended."""
    with ExitStack() as on_error:
        with ThreadPoolExecutor(max_workers=max(1, len(managers))) as pool:
            calls = [pool.submit(manager.__enter__) for manager in managers]
        for manager, call in zip(managers, calls, strict=True):
            if call.exception() is None:
                on_error.push(manager)
        yield [call.result() for call in calls]
        on_error.pop_all()
    each(managers, lambda manager: manager.__exit__(None, None, None))
