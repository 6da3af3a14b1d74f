"""Leases of many pairs by many users: throughput, wait and fairness, and where it stops.

``python -m bench.leases`` runs labgrid's rules as a discrete-event model (1,000 pairs, 10,000
cases), ``--real`` a smaller one on a real coordinator and in the model, and ``--rates`` what one
coordinator answers a second. The rules are those of ``schedule`` in labgrid/remote/scheduler.py and
``schedule_reservations`` in labgrid/remote/coordinator.py (labgrid 26.0).
"""

from __future__ import annotations

import argparse
import heapq
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np

from migrate.clock import Deadline
from migrate.lab.lease.coordinator import CoordinatorSession, session

Kind = frozenset[str]
KINDS: tuple[tuple[Kind, float], ...] = (
    (frozenset({"virtio", "vhost_user"}), 0.5),
    (frozenset({"virtio", "vhost_user", "vdpa"}), 0.3),
    (frozenset({"virtio", "vhost_user", "vdpa", "hostdev", "failover"}), 0.2),
)
"""What a pair can do, and how many of them there are."""
MODES = {"virtio": 0.4, "vhost_user": 0.25, "vdpa": 0.2, "hostdev": 0.1, "failover": 0.05}
"""Modes that cases need, with their share."""
USERS = {
    "ann": (0.4, 0),
    "bob": (0.25, 60),
    "cem": (0.15, 120),
    "dea": (0.12, 180),
    "eve": (0.08, 240),
}
"""Each one's part of the cases, and when they are queued, in seconds."""
MEDIAN_S, SIGMA = 60.0, 0.6
"""Median and spread of a case's length, log-normal."""


@dataclass(frozen=True, slots=True)
class QueuedCase:
    """A case that waits for a pair."""

    user: str
    mode: str
    run_s: float
    at_s: float


@dataclass(frozen=True, slots=True)
class FinishedCase:
    """When it had its pair."""

    case: QueuedCase
    began_s: float

    @property
    def wait_s(self) -> float:
        """From queued to begun."""
        return self.began_s - self.case.at_s

    @property
    def end_s(self) -> float:
        """When its pair was free again."""
        return self.began_s + self.case.run_s


def world(
    pairs: int, cases: int, seed: int, second: float = 1.0, apart: float = 1.0
) -> tuple[list[Kind], list[QueuedCase]]:
    """Pairs and cases; ``second``: how long one lasts; ``apart``: how far the users come apart."""
    dice = random.Random(seed)
    kinds = [kind for kind, part in KINDS for _ in range(round(part * pairs))]
    queued = [
        QueuedCase(
            user,
            dice.choices(list(MODES), list(MODES.values()))[0],
            dice.lognormvariate(float(np.log(MEDIAN_S)), SIGMA) * second,
            at_s * second * apart,
        )
        for user, (part, at_s) in USERS.items()
        for _ in range(round(part * cases))
    ]
    return kinds, queued


class Model:
    """The coordinator's rules on pairs that differ by kind alone."""

    def __init__(self, kinds: Sequence[Kind], *, service_s: float = 0.0) -> None:
        self.free = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
        self.waiting: dict[str, list[tuple[float, int, QueuedCase]]] = defaultdict(list)
        self.service_s = service_s
        self.dice = random.Random(3)
        self.busy_until_s = 0.0

    def queue(self, case: QueuedCase, number: int, priority: float) -> None:
        """Queue a case: the first is served by priority, then by age."""
        heapq.heappush(self.waiting[case.mode], (-priority, number, case))

    def step(self) -> dict[int, tuple[Kind, str]]:
        """labgrid's schedule_step: where the fewest wait, the first of them gets a place.

        Several places may choose the same one: it gets the last of them, in the order of a set of
        names, which is any order.
        """
        interest = {
            kind: sum(len(self.waiting[mode]) for mode in kind)
            for kind, free in self.free.items()
            if free
        }
        wanted = {kind: count for kind, count in interest.items() if count}
        limit = min(wanted.values(), default=0)
        choices: dict[int, list[tuple[Kind, str]]] = defaultdict(list)
        for kind, count in wanted.items():
            if count == limit:
                mode = min((m for m in kind if self.waiting[m]), key=lambda m: self.waiting[m][0])
                choices[self.waiting[mode][0][1]].append((kind, mode))
        return {
            number: self.dice.choices(pairs, [self.free[kind] for kind, _ in pairs])[0]
            for number, pairs in choices.items()
        }

    def schedule(self, now_s: float) -> list[tuple[Kind, FinishedCase]]:
        """All that can be granted now."""
        granted: list[tuple[Kind, FinishedCase]] = []
        while chosen := self.step():
            for kind, mode in chosen.values():
                self.free[kind] -= 1
                case = heapq.heappop(self.waiting[mode])[2]
                self.busy_until_s = max(self.busy_until_s, now_s) + self.service_s
                granted.append((kind, FinishedCase(case, self.busy_until_s)))
        return granted


def simulate(
    kinds: Sequence[Kind],
    cases: Sequence[QueuedCase],
    *,
    at_once: int | None = None,
    turns: bool = False,
    service_s: float = 0.0,
) -> list[FinishedCase]:
    """``at_once``: of each user, the others wait with him; ``turns``: his n-th has priority -n."""
    model = Model(kinds, service_s=service_s)
    later: dict[str, deque[QueuedCase]] = defaultdict(deque)
    out: dict[str, int] = defaultdict(int)
    events: list[tuple[float, int, QueuedCase | tuple[Kind, FinishedCase]]] = []
    numbers = iter(range(10**9))
    for case in cases:
        heapq.heappush(events, (case.at_s, next(numbers), case))
    done: list[FinishedCase] = []
    while events:
        now_s, _, event = heapq.heappop(events)
        if isinstance(event, QueuedCase):
            user = event.user
            later[user].append(event)
        else:
            model.free[event[0]] += 1
            user = event[1].case.user
            out[user] -= 1
        while later[user] and (at_once is None or out[user] < at_once):
            out[user] += 1
            priority = -out[user] if turns else 0.0
            model.queue(later[user].popleft(), next(numbers), priority)
        for kind, granted in model.schedule(now_s):
            done.append(granted)
            heapq.heappush(events, (granted.end_s, next(numbers), (kind, granted)))
    return done


# --- the result -----------------------------------------------------------------------------------


def jain(values: Sequence[float]) -> float:
    """Jain's index: 1 if all have the same, 1/n if one has it all."""
    return sum(values) ** 2 / (len(values) * sum(value**2 for value in values))


def times_by_user(
    done: Sequence[FinishedCase], time: Callable[[FinishedCase], float]
) -> dict[str, list[float]]:
    times: dict[str, list[float]] = defaultdict(list)
    for case in done:
        times[case.case.user].append(time(case))
    return times


def share_index(done: Sequence[FinishedCase]) -> float | None:
    """Jain's index of the pairs' time that each user had, while all of them wanted some.

    None: there was no such time.
    """
    begin_s = max(case.case.at_s for case in done)
    end_s = min(max(began) for began in times_by_user(done, lambda case: case.began_s).values())
    if end_s <= begin_s:
        return None

    def inside(case: FinishedCase) -> float:
        return max(0.0, min(case.end_s, end_s) - max(case.began_s, begin_s))

    return jain([sum(times) for times in times_by_user(done, inside).values()])


def row(name: str, pairs: int, done: Sequence[FinishedCase]) -> str:
    """One line of the table."""
    waits = [case.wait_s for case in done]
    total_s = max(case.end_s for case in done)
    used = sum(case.case.run_s for case in done) / (total_s * pairs)
    responses = times_by_user(done, lambda case: case.wait_s + case.case.run_s)
    mean_s = [float(np.mean(response)) for response in responses.values()]
    share = share_index(done)
    cells = (
        f"{len(done) / total_s * 3600:.0f}",
        f"{100 * used:.0f}",
        *(f"{value:.1f}" for value in np.percentile(waits, [50, 95, 100])),
        f"{jain(mean_s):.2f}",
        "none" if share is None else f"{share:.2f}",
    )
    return f"| {name} | " + " | ".join(cells) + " |"


HEAD = (
    "| rule | cases an hour | pairs used, % | wait: median, s | p95, s | max, s"
    " | Jain, response | Jain, share |\n|---|---|---|---|---|---|---|---|"
)


def model_table(pairs: int, cases: int, service_s: float) -> None:
    """The rules beside each other."""
    kinds, queued = world(pairs, cases, seed=1)
    share = pairs // len(USERS)
    print(f"{pairs} pairs, {len(queued)} cases, {len(USERS)} users (model)\n\n{HEAD}")
    print(row("all queued, first come first served", pairs, simulate(kinds, queued)))
    name = f"at most {share} of each user at once"
    print(row(name, pairs, simulate(kinds, queued, at_once=share)))
    name = f"at most {2 * share} of each user at once"
    print(row(name, pairs, simulate(kinds, queued, at_once=2 * share)))
    print(row("a user's n-th has priority -n", pairs, simulate(kinds, queued, turns=True)))
    for cost_s in (service_s, 5 * service_s, 20 * service_s):
        done = simulate(kinds, queued, service_s=cost_s)
        print(row(f"first come; {1000 * cost_s:.0f} ms of the coordinator a lease", pairs, done))


# --- a real coordinator ---------------------------------------------------------------------------


@contextmanager
def coordinator() -> Iterator[str]:
    """labgrid's, on a port of the kernel's choice, in a folder that goes with it."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        program = "from labgrid.remote.coordinator import main; main()"
        command = [sys.executable, "-u", "-c", program, "--listen", "127.0.0.1:0"]
        log = stack.enter_context(tempfile.TemporaryFile("w+"))
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        stack.callback(process.wait)
        stack.callback(process.kill)
        deadline = Deadline.after(30)
        while not deadline.passed():
            log.seek(0)
            if match := re.search(r"listening on (\S+)", log.read()):
                yield match[1]
                return
            time.sleep(0.1)
        raise TimeoutError("the coordinator did not start")


def tags(kind: Kind) -> dict[str, str]:
    return dict.fromkeys(kind, "yes")


def run_on_coordinator(
    address: str, kinds: Sequence[Kind], cases: Sequence[QueuedCase]
) -> list[FinishedCase]:
    """The cases at a real coordinator, in real time; a pair is a place."""
    with session(address, "bench") as asked:
        for number, kind in enumerate(kinds):
            asked.register(f"pair{number}", tags(kind))
        return _drive(asked, sorted(cases, key=lambda case: case.at_s))


def _drive(asked: CoordinatorSession, cases: Sequence[QueuedCase]) -> list[FinishedCase]:
    begin_s = time.monotonic()
    coming, waiting = deque(cases), dict[str, QueuedCase]()
    ends: list[tuple[float, str]] = []
    done: list[FinishedCase] = []
    polled_s = begin_s
    while coming or waiting or ends:
        now_s = time.monotonic() - begin_s
        if coming and coming[0].at_s <= now_s:
            case = coming.popleft()
            waiting[asked.reserve({case.mode: "yes"}).token] = case
        elif ends and ends[0][0] <= now_s:
            asked.cancel(heapq.heappop(ends)[1])
        else:
            due = [ends[0][0]] if ends else []
            due += [coming[0].at_s] if coming else []
            pause = Deadline.after(max(0.0, min([*due, now_s + 10]) - now_s))
            asked.wait(lambda: bool(_granted(asked, waiting)), pause)
        now_s = time.monotonic() - begin_s
        for token in _granted(asked, waiting):
            done.append(FinishedCase(waiting.pop(token), now_s))
            heapq.heappush(ends, (done[-1].end_s, token))
        if time.monotonic() - polled_s > 20:
            polled_s = time.monotonic()
            for token in (*waiting, *(token for _, token in ends)):
                asked.poll(token)
    return done


def _granted(asked: CoordinatorSession, waiting: dict[str, QueuedCase]) -> list[str]:
    return [p.reservation for p in asked.places().values() if p.reservation in waiting]


def real_table(pairs: int, cases: int) -> None:
    """The same cases in the model and in reality, a second lasting a twentieth of one."""
    second = 1 / 20
    kinds, queued = world(pairs, cases, seed=2, second=second, apart=0)
    print(f"{pairs} pairs, {len(queued)} cases; seconds of {second:g} s\n\n{HEAD}")
    print(row("model", pairs, simulate(kinds, queued)))
    with coordinator() as address:
        print(row("labgrid-coordinator", pairs, run_on_coordinator(address, kinds, queued)))


def rate(seconds: float, work: Callable[[], None]) -> float:
    """How often a second."""
    count, begin_s = 0, time.monotonic()
    while time.monotonic() - begin_s < seconds:
        work()
        count += 1
    return count / (time.monotonic() - begin_s)


@dataclass(frozen=True, slots=True)
class Load:
    """What a coordinator has to do with while it is asked."""

    places: int
    free: int
    waiting: int
    clients: int

    def rates(self) -> tuple[float, float]:
        """Polls, and leases (reserved and given back), a second of one client without a pause.

        The other clients are connected, and are told of each change.
        """
        with ExitStack() as stack:
            asked = stack.enter_context(session(stack.enter_context(coordinator()), "bench"))
            for number in range(self.places):
                asked.register(f"pair{number}")
                if number >= self.free:
                    asked.reserve({"name": f"pair{number}"})
            last = f"pair{self.places - 1}"
            token = asked.reserve({"name": last}).token
            for _ in range(self.waiting - 1):
                asked.reserve({"name": last})
            for _ in range(self.clients - 1):
                stack.enter_context(session(asked.address, "another"))
            polls = rate(2.0, lambda: _must(asked.poll(token) is not None))
            leases = rate(4.0, lambda: asked.cancel(asked.reserve({"name": "pair0"}).token))
        return polls, leases


LOADS = (
    *(Load(100, 1, 0, 1), Load(1000, 1, 0, 1), Load(1000, 1, 1000, 1), Load(1000, 1, 3000, 1)),
    *(Load(1000, 500, 300, 1), Load(100, 1, 0, 30), Load(100, 1, 0, 100)),
)


def rates_table() -> None:
    """Print how many requests a second one coordinator answers."""
    print("| places | free | waiting | clients | polls a second | leases a second |")
    print("|---|---|---|---|---|---|")
    for load in LOADS:
        polls, leases = load.rates()
        cells = (load.places, load.free, load.waiting, load.clients)
        row_text = " | ".join(map(str, cells))
        print(f"| {row_text} | {polls:.0f} | {leases:.1f} |", flush=True)


def _must(true: bool) -> None:
    if not true:
        raise AssertionError("the reservation has gone")


def main() -> None:
    """Run what the options name; without any, the model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--service-ms", type=float, default=20.0, help="of a lease")
    parser.add_argument("--real", action="store_true", help="100 pairs and 300 cases, for real")
    parser.add_argument("--rates", action="store_true", help="what a coordinator answers a second")
    chosen = parser.parse_args()
    if chosen.real:
        real_table(100, 300)
    elif chosen.rates:
        rates_table()
    else:
        model_table(chosen.pairs, chosen.cases, chosen.service_ms / 1000)


if __name__ == "__main__":
    main()
