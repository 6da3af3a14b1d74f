"""The steps of a host's preparation: each looks, does, and undoes exactly what it did.

``undo`` is asked of steps that were begun, too: it looks up whether the deed was done. What is not
as the step left it is somebody else's by now, is left alone, and said. What is ours but in use is a
:class:`HostError`: its journal stays, for another try.

Sources: linux Documentation/admin-guide/mm/hugetlbpage.rst, ip-link(8), nft(8) (a verdict "accept"
ends one base chain only, "drop" ends all), modprobe(8).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Protocol, TypeVar

from migrate.errors import HostError
from migrate.formats.answers import MalformedError, Shape, quote, whole_number
from migrate.formats.network_tools import LINKS, RULESET, Link
from migrate.lab.prepare.plan import Kind, StepRecord

if TYPE_CHECKING:
    from migrate.clock import Deadline
    from migrate.drivers.shell import Completed
    from migrate.lab.api import Host

PORTS = "49152-49215"
"""Where libvirt's migrations arrive (qemu.conf: migration_port_min, migration_port_max)."""
SCRIPT = "prepare_host.sh"

_Value = TypeVar("_Value")


class Switch(Protocol):
    """What brings OVS-DPDK up on a host, and ends it."""

    def is_running(self, host: Host, deadline: Deadline) -> bool:
        """Whether it answers."""

    def ensure_switch(self, host: Host, deadline: Deadline) -> None:
        """Start it where it does not run."""

    def end_switch(self, host: Host, deadline: Deadline) -> None:
        """End it; HostError where guests' ports are left on it."""


@dataclass(frozen=True, slots=True)
class PreparedHost:
    """A host, and how it is worked on."""

    host: Host
    switch: Switch
    root: str = ""
    """A folder of the host that stands for / where files are meant; for tests."""

    def script(
        self,
        deadline: Deadline,
        verb: str,
        *words: str,
        text: str | None = None,
        check: bool = True,
    ) -> Completed:
        """A verb of ``prepare_host.sh`` on the host."""
        script = files("migrate.lab.prepare").joinpath(SCRIPT).read_text()
        argv = ["sh", "-c", script, "sh", self.root, verb, *words]
        done = self.host.run(argv, deadline, text=text, check=False)
        if check and done.status != 0:
            raise self.error(f"{verb} {' '.join(words)}".strip(), done.err or done.out)
        return done

    def ask(self, argv: list[str], shape: Shape[_Value], deadline: Deadline) -> _Value | None:
        """What a program says in JSON; None where it fails, says nothing or is not there."""
        done = self.host.run(argv, deadline, check=False)
        if done.status != 0 or not done.out.strip():
            return None
        return shape.parse(done.out, " ".join(argv), host=self.host.name)

    def count(self, text: str, tried: str) -> int:
        """A number that the host told, or that is in its journal. Raises MalformedError."""
        return whole_number(text, tried, host=self.host.name)

    def error(self, tried: str, said: str, remedy: str = "") -> HostError:
        """An error of this host."""
        return HostError(tried, host=self.host.name, said=said, remedy=remedy)


class Step:
    """One kind of step; a deed that is done by others already is nobody's to undo."""

    def look(self, site: PreparedHost, step: StepRecord, deadline: Deadline) -> StepRecord:
        """What there is now; state ``there`` if nothing is to be done, else ``begun``."""
        raise NotImplementedError

    def do(self, site: PreparedHost, step: StepRecord, deadline: Deadline) -> None:
        """Make it what :meth:`look` wants."""
        raise NotImplementedError

    def settle(
        self, site: PreparedHost, step: StepRecord, deadline: Deadline
    ) -> tuple[StepRecord, str]:
        """The record to be written before it is undone, and a remark. For deeds that must not be
        undone twice: what to find then has to be known by value."""
        del site, deadline
        return step, ""

    def undo(self, site: PreparedHost, step: StepRecord, deadline: Deadline) -> str:
        """Put it back; a remark where something is left alone."""
        raise NotImplementedError


def _begun(step: StepRecord, found: str, wanted: str) -> StepRecord:
    return step.model_copy(update={"state": "begun", "found": found, "wanted": wanted})


def _there(step: StepRecord, found: str) -> StepRecord:
    return step.model_copy(update={"state": "there", "found": found})


class Modules(Step):
    """A module, and what it depends on: what was not loaded is unloaded, the last one first."""

    def look(self, site: PreparedHost, step: StepRecord, deadline: Deadline) -> StepRecord:
        missing = site.script(deadline, "missing", step.subject).out.split()
        return _begun(step, "", " ".join(missing)) if missing else _there(step, "loaded")

    def do(self, site: PreparedHost, step: StepRecord, deadline: Deadline) -> None:
        site.host.run(["modprobe", step.subject], deadline)

    def undo(self, site: PreparedHost, step: StepRecord, deadline: Deadline) -> str:
        site.script(deadline, "unload", *reversed(step.wanted.split()))
        return ""


class HugePages(Step):
    """More pages; as many are given back, whatever the number is then."""

    def _now(self, site: PreparedHost, deadline: Deadline) -> tuple[int, int]:
        said, tried = site.script(deadline, "pages").out, "count huge pages"
        words = said.split()
        if len(words) != 2:
            raise MalformedError(tried, host=site.host.name, said=f"it says {quote(said)}")
        return site.count(words[0], tried), site.count(words[1], tried)

    def look(self, site: PreparedHost, step: StepRecord, deadline: Deadline) -> StepRecord:
        now, _ = self._now(site, deadline)
        return _begun(step, str(now), str(now + site.count(step.subject, step.summary)))

    def do(self, site: PreparedHost, step: StepRecord, deadline: Deadline) -> None:
        site.script(deadline, "set-pages", step.found, step.wanted)

    def settle(
        self, site: PreparedHost, step: StepRecord, deadline: Deadline
    ) -> tuple[StepRecord, str]:
        if step.state != "done":
            return step, ""
        now, used = self._now(site, deadline)
        wanted = site.count(step.wanted, step.summary)
        raised = wanted - site.count(step.found, step.summary)
        back = min(raised, max(0, now - used))
        remarks = []
        if now != wanted:
            remarks.append(f"nr_hugepages is {now} now, it was set to {step.wanted}")
        if back < raised:
            remarks.append(f"{used} are in use, so {raised - back} of {raised} stay")
        remark = f"{', '.join(remarks)}: {back} are given back" if remarks else ""
        return _begun(step, str(now - back), str(now)), remark

    def undo(self, site: PreparedHost, step: StepRecord, deadline: Deadline) -> str:
        now, _ = self._now(site, deadline)
        if now == site.count(step.wanted, step.summary):
            site.script(deadline, "set-pages", step.wanted, step.found)
        elif now != site.count(step.found, step.summary):
            return (
                f"nr_hugepages is {now} now, neither {step.found} nor {step.wanted}: "
                "whether we changed it is not known, so it is left alone"
            )
        return ""


def _link(site: PreparedHost, name: str, deadline: Deadline) -> Link | None:
    show = ["ip", "-details", "-json", "link", "show", "dev", name]
    return next((link for link in site.ask(show, LINKS, deadline) or () if link.ifname), None)


class Bridge(Step):
    """A bridge, known again by the MAC that it was made with; guests reach nothing of the host by
    it: no IPv6 before it is up, no ARP, and nothing that comes in by it is taken."""

    def look(self, site: PreparedHost, step: StepRecord, deadline: Deadline) -> StepRecord:
        link = _link(site, step.subject, deadline)
        if link is None:
            mac = ":".join(["02", "6d", "6c", *(f"{byte:02x}" for byte in secrets.token_bytes(3))])
            return _begun(step, "absent", mac)
        if link.linkinfo.info_kind != "bridge":
            raise site.error(f"use {step.subject} as a bridge", "it is another kind of link")
        return _there(step, "there")

    def do(self, site: PreparedHost, step: StepRecord, deadline: Deadline) -> None:
        adding = ["ip", "link", "add", "name", step.subject, "address", step.wanted]
        site.host.run([*adding, "type", "bridge", "mcast_snooping", "0"], deadline)
        site.script(deadline, "set-ipv6", step.subject, "0")
        site.script(deadline, "close", step.subject)
        site.host.run(["ip", "link", "set", "dev", step.subject, "arp", "off", "up"], deadline)

    def undo(self, site: PreparedHost, step: StepRecord, deadline: Deadline) -> str:
        link = _link(site, step.subject, deadline)
        if link is None:
            return ""
        if link.address != step.wanted:
            return f"{step.subject} has another MAC than it was made with: it is left alone"
        show = ["ip", "-json", "link", "show", "master", step.subject]
        if ports := site.ask(show, LINKS, deadline):
            names = ", ".join(port.ifname for port in ports if port.ifname)
            raise site.error(f"remove the bridge {step.subject}", f"it has the ports {names}")
        site.host.run(["ip", "link", "del", "dev", step.subject], deadline)
        return ""


class Uplink(Step):
    """A link that becomes a port of the bridge, without IPv6 of its own meanwhile."""

    def look(self, site: PreparedHost, step: StepRecord, deadline: Deadline) -> StepRecord:
        tried = f"make {step.subject} a port of {step.wanted}"
        link = _link(site, step.subject, deadline)
        if link is None:
            raise site.error(tried, "there is no such link")
        if link.master == step.wanted:
            return _there(step, step.wanted)
        if link.master is not None:
            raise site.error(tried, f"it is a port of {link.master}")
        show = ["ip", "-json", "addr", "show", "dev", step.subject, "scope", "global"]
        if any(known.addr_info for known in site.ask(show, LINKS, deadline) or ()):
            raise site.error(
                tried,
                "it has an address, which would not be reached any more",
                "name a link that serves nothing else",
            )
        found = "up" if "UP" in link.flags else "down"
        if site.script(deadline, "ipv6", step.subject).out.strip() == "1":
            found += " ipv6"
        return _begun(step, found, step.wanted)

    def do(self, site: PreparedHost, step: StepRecord, deadline: Deadline) -> None:
        site.script(deadline, "set-ipv6", step.subject, "0")
        joining = ["ip", "link", "set", "dev", step.subject, "master", step.wanted, "up"]
        site.host.run(joining, deadline)

    def undo(self, site: PreparedHost, step: StepRecord, deadline: Deadline) -> str:
        link = _link(site, step.subject, deadline)
        if link is None:
            return f"{step.subject} is gone"
        master = link.master
        state, *had = step.found.split()
        if had and master in (None, step.wanted):  # also where it was not joined any more
            site.script(deadline, "set-ipv6", step.subject, "1")
        if master == step.wanted:
            leaving = ["ip", "link", "set", "dev", step.subject, "nomaster", state]
            site.host.run(leaving, deadline)
            return ""
        return f"{step.subject} is a port of {master} now: it is left alone" if master else ""


class Ovs(Step):
    """OVS-DPDK, ended where it was started by us."""

    def look(self, site: PreparedHost, step: StepRecord, deadline: Deadline) -> StepRecord:
        if site.switch.is_running(site.host, deadline):
            return _there(step, "running")
        others = site.host.run(["pgrep", "-x", "ovs-vswitchd.*"], deadline, check=False)
        if others.status == 0:
            raise site.error(
                "start OVS-DPDK",
                f"the host has an OVS of its own, process {' '.join(others.out.split()[:1])}",
                "stop it, or leave `ovs` out and do without vhost-user",
            )
        return _begun(step, "stopped", "running")

    def do(self, site: PreparedHost, step: StepRecord, deadline: Deadline) -> None:
        del step
        site.switch.ensure_switch(site.host, deadline)

    def undo(self, site: PreparedHost, step: StepRecord, deadline: Deadline) -> str:
        del step
        site.switch.end_switch(site.host, deadline)
        return ""


class Firewall(Step):
    """Rules in the chains that may drop, known again by their comment.

    A table of our own would open nothing: what one base chain accepts, the next may drop.
    """

    MARK = "migrate-lab"

    def look(self, site: PreparedHost, step: StepRecord, deadline: Deadline) -> StepRecord:
        if site.host.run(["firewall-cmd", "--state"], deadline, check=False).status == 0:
            return self._look_at_zones(site, step, deadline)
        listed = site.ask(["nft", "-j", "list", "chains"], RULESET, deadline)
        chains = listed.chains if listed else ()
        hooks = {"input", "forward"} if step.subject else {"input"}
        wanted = [
            f"{chain.family} {chain.table} {chain.name} {chain.hook}"
            for chain in chains
            if chain.hook in hooks and chain.family in {"inet", "ip", "ip6"}
            if chain.type == "filter"
        ]
        for place in wanted:
            _check_place(site, place)
        if not wanted:
            return _there(step, "nothing that could drop" if listed else "no nftables")
        return _begun(step, "nft", "\n".join(wanted))

    def _look_at_zones(
        self, site: PreparedHost, step: StepRecord, deadline: Deadline
    ) -> StepRecord:
        said = site.host.run(["firewall-cmd", "--get-active-zones"], deadline).out
        zones = [line.split()[0] for line in said.splitlines() if line[:1].strip()]
        closed = [zone for zone in zones if self._zone(site, zone, "query", deadline)]
        return _begun(step, "firewalld", "\n".join(closed)) if closed else _there(step, "open")

    @staticmethod
    def _zone(site: PreparedHost, zone: str, verb: str, deadline: Deadline) -> int:
        argv = ["firewall-cmd", f"--zone={zone}", f"--{verb}-port={PORTS}/tcp"]
        return site.host.run(argv, deadline, check=verb != "query").status

    def do(self, site: PreparedHost, step: StepRecord, deadline: Deadline) -> None:
        if step.found == "firewalld":
            for zone in step.wanted.splitlines():
                self._zone(site, zone, "add", deadline)
            return
        # From the guests' bridge nobody migrates a guest to here.
        others = f'iifname != "{step.subject}" ' if step.subject else ""
        what = {
            "input": f"{others}tcp dport {PORTS}",
            "forward": f'iifname "{step.subject}" oifname "{step.subject}"',
        }
        lines = []
        for chain in step.wanted.splitlines():
            place, _, hook = chain.rpartition(" ")
            lines.append(f'insert rule {place} {what[hook]} accept comment "{self.MARK}"\n')
        site.host.run(["nft", "-f", "-"], deadline, text="".join(lines))

    def undo(self, site: PreparedHost, step: StepRecord, deadline: Deadline) -> str:
        if step.found == "firewalld":
            open_now = [
                zone
                for zone in step.wanted.splitlines()
                if self._zone(site, zone, "query", deadline) == 0
            ]
            for zone in open_now:
                self._zone(site, zone, "remove", deadline)
            return ""
        show = ["nft", "-j", "-a", "list", "ruleset"]
        said = site.host.run(show, deadline).out
        listed = RULESET.parse(said, " ".join(show), host=site.host.name)
        ours = [rule for rule in listed.rules if rule.comment == self.MARK]
        lines = []
        for rule in ours:
            place = f"{rule.family} {rule.table} {rule.chain}"
            _check_place(site, place)
            lines.append(f"delete rule {place} handle {rule.handle}\n")
        if lines:
            site.host.run(["nft", "-f", "-"], deadline, text="".join(lines))
        return ""


def _check_place(site: PreparedHost, place: str) -> None:
    """HostError for a name of a chain that would mean something else in a script for nft."""
    if re.fullmatch(r"[\w./ -]+", place) is None:
        raise site.error("open the firewall", f"a chain has the name {quote(place)}")


STEPS: Mapping[Kind, Step] = {
    "module": Modules(),
    "huge-pages": HugePages(),
    "bridge": Bridge(),
    "uplink": Uplink(),
    "ovs": Ovs(),
    "firewall": Firewall(),
}
