"""What an attempt should have taken with it, looked for on its hosts when it has ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from migrate.backends.registry import LEFTOVERS
from migrate.clock import Deadline
from migrate.drivers.together import each
from migrate.formats.answers import MalformedError, quote
from migrate.guest.domain_xml import MONITOR
from migrate.guest.identity import marked
from migrate.lab.api import Host

LOOK_S = 20.0

GUESTS: Mapping[str, str] = {
    "process {}": f"""ps -e -o pid=,comm= | while read -r pid name; do
    case $name in qemu*) ! grep -q -a -F {MONITOR} "/proc/$pid/cmdline" || echo "$pid $name" ;; esac
done""",
    "link {}": """ip -brief link show type tun | while read -r link _; do
    case $link in mlab????????) echo "$link" ;; esac
done""",
}
"""What a guest of ours makes on a host, whatever backs its interface: others' are no leftovers."""


def leftovers(hosts: Iterable[Host]) -> tuple[str, ...]:
    """Domains, their processes and taps, and what the modes know of: ``link mlab0a1b2c3d on a``."""
    return tuple(item for left in each(hosts, _of_host) for item in left)


def _of_host(host: Host) -> list[str]:
    scripts = {**GUESTS, **{kind.name: kind.script for kind in LEFTOVERS}}
    with host.connect() as hypervisor:
        ours = filter(marked, hypervisor.domains())
        domains = [f"domain {domain.name} on {host.name}" for domain in ours]
    items = listed(host, scripts, Deadline.after(LOOK_S))
    return [*domains, *(f"{name.format(item)} on {host.name}" for name, item in items)]


def listed(
    host: Host, scripts: Mapping[str, str], deadline: Deadline
) -> tuple[tuple[str, str], ...]:
    """What each script, by its name, prints on the host, with that name; in one round trip."""
    names = tuple(scripts)
    lines = [
        f'{{\n{script}\n}} | while read -r line; do printf "%s %s\\n" {number} "$line"; done'
        for number, script in enumerate(scripts.values())
    ]
    said = host.run(["sh", "-c", "\n".join(lines)], deadline).out
    known = {str(number): name for number, name in enumerate(names)}
    parts = [line.partition(" ") for line in said.splitlines()]
    if odd := [number for number, _, _ in parts if number not in known]:
        raise MalformedError("look for leftovers", host=host.name, said=f"it says {quote(odd[0])}")
    return tuple((known[number], item) for number, _, item in parts)
