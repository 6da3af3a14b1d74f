"""What the benches share: a lab, a guest with nothing going on, the command line, the record."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from migrate import log
from migrate.backends.registry import backend_mode
from migrate.backends.xml import Rewrite
from migrate.clock import Deadline, now_ns
from migrate.drivers.libvirt import Domain
from migrate.errors import LabError
from migrate.guest.domain_xml import domain_xml
from migrate.guest.identity import Identity
from migrate.guest.lifecycle import Order, running
from migrate.guest.probe import Probe
from migrate.images.initramfs import ensure_image
from migrate.lab import manager
from migrate.lab.api import Host, Lab
from migrate.lab.local.config import LocalConfig
from migrate.lab.local.lab import LocalLab
from migrate.migration.move import End
from migrate.model import Case
from migrate.recorder.traffic import guest_probe
from migrate.world import START_S, preparing

MODES = ("virtio", "vhost-user")


def say(text: str) -> None:
    """Progress, beside the figures and not among them."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def local_lab(name: str) -> Iterator[LocalLab]:
    """Two hosts of the default root; taken down if it was this that brought it up."""
    with manager.opened(LocalConfig(name=name)) as lab:
        assert isinstance(lab, LocalLab)
        yield lab


def host_pair(lab: Lab) -> tuple[Host, Host]:
    """Source and target: the first two hosts of the lab."""
    first, second = list(lab.hosts.values())[:2]
    return first, second


class BareGuest(NamedTuple):
    """A guest with its probe ready, and nothing else going on."""

    domain: Domain
    probe: Probe
    ends: tuple[End, End]
    rewrites: tuple[Rewrite, ...]
    start_ms: float
    """From the ask for a guest to its ready probe."""


@contextmanager
def bare_guest(lab: Lab, case: Case) -> Iterator[BareGuest]:
    """Run ``case``'s guest on the first host of two; no traffic, no listener."""
    deadline = Deadline.after(START_S)
    image = ensure_image(case.guest.image, lab.shared)
    mode = backend_mode(case.interface.mode)
    pair = host_pair(lab)
    prepare = preparing(lab, image, deadline)
    with ExitStack() as stack:
        source, target = (End(host, stack.enter_context(host.connect())) for host in pair)
        backends = [
            stack.enter_context(mode.create(host, case.interface, deadline)) for host in pair
        ]
        xml = domain_xml(
            case.guest,
            case.interface,
            image,
            backends[0],
            machine=source.hypervisor.machine(case.guest.machine),
            accelerator="qemu",
        )
        identity = Identity.new(lab.name)
        order = Order(xml, image, case.guest.start == "warm", lab.shared, identity=identity)
        begin_ns = now_ns()
        domain = stack.enter_context(running(order, source.hypervisor, pair, prepare, deadline))
        probe = stack.enter_context(guest_probe(domain, lab, deadline))
        start_ms = (now_ns() - begin_ns) / 1e6
        yield BareGuest(domain, probe, (source, target), mode.target_rewrites(*backends), start_ms)


# --- the command line, and what comes out -------------------------------------------------------


def options(doc: str | None, rounds: int) -> argparse.ArgumentParser:
    """The options that all benches have."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--lab", default="bench", help="name of the lab to use")
    parser.add_argument("--mode", choices=MODES, default="virtio")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--json", type=Path, help="write every sample here, too")
    return parser


def run_bench(main: Callable[[], int]) -> int:
    """Run a bench; an error is printed as one line, and gives its exit status."""
    try:
        with log.shown(say):
            return main()
    except LabError as error:
        say(str(error))
        return error.exit_code


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on standard output; the first column is text, the others are figures."""
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=not number)
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def number_text(value: float | None, digits: int = 1) -> str:
    """A number, or a dash for none."""
    return "–" if value is None else f"{value:.{digits}f}"


def write_json(path: Path | None, figures: Mapping[str, Any]) -> None:
    """Write the figures with the time and the machine."""
    if path is None:
        return
    machine = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "processors": os.cpu_count(),
        "load_1min": os.getloadavg()[0],
    }
    path.write_text(json.dumps({"machine": machine, **figures}, indent=1) + "\n")
