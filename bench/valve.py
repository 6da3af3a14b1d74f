"""The process that closes the way and opens it again, at times that it knows.

It runs in the fabric's network namespace and is told what to do by JSON lines on its standard
input (:mod:`bench.injector` is at the other end). What it closed it opens again, also when its
input ends because the controller was killed; one that was killed itself leaves static entries in
the lab's own bridge, and the next one begins by taking these away. Only the standard library is
used: what counts is the moment of the system call, and netlink does its work inside ``send``.

A way is closed in the bridge's forwarding table: a frame is never sent out of the port that it
came in by, so a MAC that is pinned to the *other* end's port can't be reached, and the opposite
direction goes on undisturbed. Pinned: ``NTF_STICKY``, else the bridge would learn the truth from
the next frame. The kernel moves an entry before it makes it sticky, and a frame can come in
between; so it is made sticky where it is, then moved. Nothing is pinned while all ways are open.

Every line is answered by one line. ``stamps`` are CLOCK_MONOTONIC in ns from right before a
system call to right after it; of a stop, to when all threads of the process were seen stopped.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RTM_NEWNEIGH, RTM_DELNEIGH = 28, 29
NLM_F_REQUEST, NLM_F_ACK, NLM_F_REPLACE, NLM_F_CREATE = 0x1, 0x4, 0x100, 0x400
NTF_MASTER, NTF_STICKY = 0x04, 0x40
NUD_NOARP = 0x40
NDA_LLADDR = 2
PRIORITY = 30
"""Real time, above the probe's on the fabric: the valve works for microseconds at a time."""

Stamps = tuple[int, int]


class Way:
    """The netlink messages that close one way and open it again."""

    def __init__(self, mac: str, port: str, astray: str) -> None:
        address = struct.pack("=HH6sxx", 10, NDA_LLADDR, bytes.fromhex(mac.replace(":", "")))

        def message(kind: int, flags: int, at: str) -> bytes:
            index = socket.if_nametoindex(at)
            entry = struct.pack(
                "=BxxxiHBB", socket.AF_BRIDGE, index, NUD_NOARP, NTF_MASTER | NTF_STICKY, 0
            )
            flags |= NLM_F_REQUEST | NLM_F_ACK
            size = 16 + len(entry) + len(address)
            return struct.pack("=IHHII", size, kind, flags, 0, 0) + entry + address

        pin = NLM_F_REPLACE | NLM_F_CREATE
        self.shut = [message(RTM_NEWNEIGH, pin, port), message(RTM_NEWNEIGH, pin, astray)]
        self.open = [message(RTM_DELNEIGH, 0, astray)]
        self.forget = [message(RTM_DELNEIGH, 0, port)]


class Table:
    """The bridge's forwarding table, by its ways: ``{name: (MAC, its port, the other port)}``."""

    def __init__(self, ways: dict[str, tuple[str, str, str]]) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        self._ways = {name: Way(*places) for name, places in ways.items()}

    def shut(self, names: list[str]) -> Stamps:
        """Close ways, all in one system call."""
        return self._tell([message for name in names for message in self._ways[name].shut])

    def open(self, names: list[str]) -> Stamps:
        """Open them, all in one system call."""
        return self._tell([message for name in names for message in self._ways[name].open])

    def tidy(self) -> None:
        """Open all that was left shut, or half shut; what is not there is fine."""
        wrong: list[OSError] = []
        for way in self._ways.values():
            for messages in (way.open, way.forget):
                try:
                    self._tell(messages)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    wrong.append(error)  # told when all has been tried
        if wrong:
            raise wrong[0]

    def _tell(self, messages: list[bytes]) -> Stamps:
        before = time.monotonic_ns()
        if messages:  # to close no way at all is a way to wait
            self._socket.send(b"".join(messages))
        after = time.monotonic_ns()
        answers = [self._socket.recv(1 << 12) for _ in messages]
        refused = [-number for a in answers if (number := struct.unpack_from("=i", a, 16)[0])]
        if refused:
            raise OSError(refused[0], f"the bridge refused: {os.strerror(refused[0])}")
        return before, after


def stop(descriptor: int, threads: list[int]) -> Stamps:
    """Stop a process: from before the signal until every thread of it was seen stopped."""
    before = time.monotonic_ns()
    signal.pidfd_send_signal(descriptor, signal.SIGSTOP)
    while not all(_stopped(thread) for thread in threads):
        if time.monotonic_ns() - before > 10**9:
            raise TimeoutError("the process did not stop within a second")
        time.sleep(20e-6)  # real time, but not in the way of the threads that are to stop
    return before, time.monotonic_ns()


def go_on(descriptor: int) -> Stamps:
    """Let it go on; when it next gets a processor is up to the scheduler."""
    before = time.monotonic_ns()
    signal.pidfd_send_signal(descriptor, signal.SIGCONT)
    return before, time.monotonic_ns()


def _stopped(thread: int) -> bool:
    """Read from an open ``/proc/PID/task/TID/stat``; a thread that has ended is stopped, too."""
    try:
        return os.pread(thread, 1 << 9, 0).rpartition(b")")[2].split()[0] == b"T"
    except ProcessLookupError:
        return True


@contextlib.contextmanager
def threads_of(pid: int) -> Iterator[list[int]]:
    """Their status files, opened beforehand: to open them takes longer than to stop them all."""
    with contextlib.ExitStack() as stack:
        opened = []
        for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
            with contextlib.suppress(FileNotFoundError):  # it ended meanwhile
                opened.append(os.open(stat, os.O_RDONLY))
                stack.callback(os.close, opened[-1])
        yield opened


def wait(until_ns: int) -> bool:
    """Whether the controller was still there all the while; it says nothing before the answer."""
    left = (until_ns - time.monotonic_ns()) / 1e9
    return not select.select([sys.stdin], [], [], max(0.0, left))[0]


def cut(table: Table, names: list[str], length_ns: int) -> tuple[bool, list[Stamps]]:
    """Close the ways for a time."""
    try:
        begin = table.shut(names)
        attended = wait(begin[0] + length_ns)
        return attended, [begin, table.open(names)]
    except BaseException:
        table.tidy()
        raise


def hold(pid: int, length_ns: int) -> tuple[bool, list[Stamps]]:
    """Stop a process for a time."""
    descriptor = os.pidfd_open(pid)
    try:
        with threads_of(pid) as threads:
            try:
                begin = stop(descriptor, threads)
                attended = wait(begin[1] + length_ns)
            finally:
                end = go_on(descriptor)
    finally:
        os.close(descriptor)
    return attended, [begin, end]


def obey(table: Table, request: dict[str, Any]) -> tuple[bool, list[Stamps]]:
    """Do as a line says."""
    if request["do"] == "hold":
        return hold(int(request["pid"]), int(request["for_ns"]))
    return cut(table, list(request["ways"]), int(request["for_ns"]))


def _hurry() -> bool:
    """Ask for real-time priority; whether it was granted is told, not assumed."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    except PermissionError:
        return False
    return True


def main() -> None:
    """Serve until the input ends. The ways are the only argument, as JSON."""
    table = Table(json.loads(sys.argv[1]))
    table.tidy()
    print(json.dumps({"fifo": _hurry()}), flush=True)
    while line := os.read(0, 1 << 12):
        try:
            attended, stamps = obey(table, json.loads(line))
        except (OSError, TimeoutError) as error:
            print(json.dumps({"error": str(error)}), flush=True)
            continue
        if not attended:
            return
        print(json.dumps({"stamps": stamps}), flush=True)


if __name__ == "__main__":
    main()
