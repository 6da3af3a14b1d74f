"""What an attempt should have taken with it, looked for on its hosts when it has ended."""

from __future__ import annotations

from collections.abc import Iterable

from migrate.clock import Deadline
from migrate.lab.api import Host

# What an attempt makes on a host, a line each. vDPA devices of other names are not ours.
LEFT = r"""
ps -e -o pid=,comm= | while read -r pid name; do
    case $name in qemu-sys*) echo "process $pid $name" ;; esac
done
ip -brief link show type tun | while read -r link _; do
    case $link in vnet*) echo "link $link" ;; esac
done
for path in /sys/bus/vdpa/devices/mlab*; do
    [ ! -e "$path" ] || echo "vDPA device ${path##*/}"
done
for path in /run/migrate-lab/vf-*.json; do
    [ ! -e "$path" ] || echo "VFs by $path"
done
"""


def leftovers(hosts: Iterable[Host]) -> tuple[str, ...]:
    """Domains and their processes, taps, vDPA devices, VFs that were not put back."""
    found: list[str] = []
    for host in hosts:
        with host.connect() as hypervisor:
            found += [f"domain {name} on {host.name}" for name in hypervisor.domains()]
        listed = host.run(["sh", "-c", LEFT], Deadline.after(20))
        found += [f"{line} on {host.name}" for line in listed.out.splitlines()]
    return tuple(found)
