"""Inputs through a lane's door: a result, an error of our tree, or a finding that is kept."""

from __future__ import annotations

import gc
import math
import resource
import signal
import time
import traceback
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from migrate.errors import LabError
from selftests.fuzz.lane import MIB, Lane
from selftests.fuzz.mutate import mutated

ROOM = 2048 * MIB
"""Of address space, beside what the process has: what asks for more gets a MemoryError."""


class TooSlow(BaseException):
    """An input took more than its lane's processor time; no ``except Exception`` hides it."""


class TooLarge(BaseException):
    """An input took more than its lane's memory."""


@dataclass(frozen=True, slots=True)
class Finding:
    """An input that ended neither in a result nor in an error of ours."""

    path: Path
    """The input, as it was."""
    number: int
    error: BaseException
    at: str
    """Of our code, where it was raised."""

    def __str__(self) -> str:
        said = f"{type(self.error).__name__}: {str(self.error)[:200]}"
        return f"input {self.number}, at {self.at}: {said}\n    {self.path}"


@dataclass(slots=True)
class Account:
    """Of one lane's inputs."""

    lane: str
    inputs: int = 0
    results: int = 0
    errors: int = 0
    """Of our tree."""
    slowest_s: float = 0.0
    """Of processor time."""
    largest: int = 0
    """Bytes of memory at an input's peak."""
    findings: dict[tuple[str, str], Finding] = field(default_factory=dict)
    """The first of each kind: what was raised, and where."""
    found: int = 0


def made(lane: Lane, seeds: Sequence[bytes], number: int, seed: int) -> bytes:
    """Input ``number``: the seeds as they are, then mutations of them."""
    if number < len(seeds):
        return seeds[number]
    random = Random(f"{lane.name} {seed} {number}")
    sample = random.choice(seeds)
    if not lane.headed:
        return mutated(sample, lane.kind, random)
    head, _, rest = sample.partition(b"\n")
    return head + b"\n" + mutated(rest, lane.kind, random)


def run(lane: Lane, count: int, seed: int, keep: Path, most_s: float = math.inf) -> Account:
    """``count`` inputs through its door; what ends otherwise is written below ``keep``.

    ``most_s`` of processor time ends it earlier. From here on the process is traced to its end:
    where another thread allocates while ``tracemalloc`` stops, and Arrow and DuckDB have threads,
    CPython crashes (its issue 128679)."""
    account, seeds = Account(lane.name), lane.seeds()
    until = time.process_time() + most_s
    with _limited():
        for number in range(count):
            if time.process_time() > until:
                break
            data = made(lane, seeds, number, seed)
            if (error := _tried(lane, data, account)) is not None:
                _note(account, error, number, data, keep / f"{lane.name}-{seed}-{number}")
    return account


def _tried(lane: Lane, data: bytes, account: Account) -> BaseException | None:
    account.inputs += 1
    tracemalloc.reset_peak()
    before, began = tracemalloc.get_traced_memory()[0], time.process_time()
    error = _outcome(lane, data, account)
    spent_s = time.process_time() - began
    peak = tracemalloc.get_traced_memory()[1] - before
    account.slowest_s = max(account.slowest_s, spent_s)
    account.largest = max(account.largest, peak)
    if error is None and peak > lane.bound(data):
        return TooLarge(f"{peak / MIB:.0f} MiB for {len(data)} bytes")
    return error


def _outcome(lane: Lane, data: bytes, account: Account) -> BaseException | None:
    signal.setitimer(signal.ITIMER_VIRTUAL, lane.most_s, 0.1)
    try:
        lane.door(data)
    except LabError as error:
        str(error).encode()  # it is written to a log, and to a terminal
        account.errors += 1
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - this is what is looked for
        return error
    else:
        account.results += 1
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return None


def _note(account: Account, error: BaseException, number: int, data: bytes, path: Path) -> None:
    account.found += 1
    kind = type(error).__name__, (at := _place(error))
    if kind not in account.findings:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        account.findings[kind] = Finding(path, number, error.with_traceback(None), at)


def _place(error: BaseException) -> str:
    """The last line of ours that the error passed."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/migrate/" in frame.filename]
    if not ours:
        return "the door as a whole"
    return f"migrate/{ours[-1].filename.rpartition('/migrate/')[2]}:{ours[-1].lineno}"


@contextmanager
def _limited() -> Iterator[None]:
    """Inputs have :data:`ROOM`, and the processor's time ends them."""

    def too_slow(_signal: int, _frame: object) -> None:
        raise TooSlow

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    room = pages * resource.getpagesize() + ROOM
    earlier = signal.signal(signal.SIGVTALRM, too_slow)
    gc.collect()
    if not tracemalloc.is_tracing():
        tracemalloc.start()
    try:
        resource.setrlimit(resource.RLIMIT_AS, (room, hard))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGVTALRM, earlier)
