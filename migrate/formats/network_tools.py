"""Shapes of what ``ip -json`` and ``nft -j`` print, as far as it is read here.

Sources: iproute2 ip/ipaddress.c, ip/iplink.c; libnftables-json(5). What ``ip`` leaves out may be an
empty object: a link without a name, an address without one.
"""

from __future__ import annotations

from ipaddress import ip_interface
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from migrate.formats.answers import Count, Part, Shape

# --- ip -----------------------------------------------------------------------------------------

VfLink = Literal["auto", "enable", "disable"]
Mac = Annotated[str, Field(pattern=r"^([0-9a-fA-F]{2}(:[0-9a-fA-F]{2})*)?$")]
"""Of any length: InfiniBand has 20 bytes."""


class Vlan(Part):
    """Of a VF."""

    vlan: Annotated[int, Field(ge=0, lt=4096)] = 0


class VfInfo(Part):
    """A VF as its PF's link has it."""

    vf: Count
    address: Mac | None = None
    vlan_list: tuple[Vlan, ...] = ()
    spoofchk: bool | None = None
    trust: bool | None = None
    link_state: VfLink | None = None


class LinkAddress(Part):
    """An address of a link."""

    scope: str | None = None
    local: str = ""
    prefixlen: Annotated[int, Field(ge=0, le=128)] = 0
    tentative: bool = False
    """Duplicate address detection is going on: the host does not answer yet (RFC 4862, 5.4)."""
    dadfailed: bool = False
    """Another station has the address, which stays tentative."""

    @model_validator(mode="after")
    def _is_an_address(self) -> Self:
        if self.local:
            ip_interface(self.text)
        return self

    @property
    def text(self) -> str:
        """With its prefix: ``10.78.0.1/24``."""
        return f"{self.local}/{self.prefixlen}"


class LinkInfo(Part):
    """What kind of link it is, where it is one that was made."""

    info_kind: str | None = None


class Link(Part):
    """A link, with as much of it as was asked for."""

    ifname: str = ""
    link_type: str | None = None
    flags: tuple[str, ...] = ()
    address: Mac = ""
    master: str | None = None
    linkinfo: LinkInfo = LinkInfo()
    addr_info: tuple[LinkAddress, ...] = ()
    vfinfo_list: tuple[VfInfo, ...] = ()

    @property
    def pending(self) -> tuple[LinkAddress, ...]:
        """Addresses in duplicate address detection, which does not run without a carrier."""
        if "LOWER_UP" not in self.flags:
            return ()
        return tuple(one for one in self.addr_info if one.tentative and not one.dadfailed)


LINKS = Shape(list[Link])

# --- nft ----------------------------------------------------------------------------------------


class Chain(Part):
    """A chain; a base chain has a type and a hook."""

    family: str
    table: str
    name: str
    type: str | None = None
    hook: str | None = None


class Rule(Part):
    """A rule of a chain."""

    family: str
    table: str
    chain: str
    handle: Count
    comment: str | None = None


class _Item(Part):
    chain: Chain | None = None
    rule: Rule | None = None


class Ruleset(Part):
    """What is listed; the rest of it, tables and sets, is left out."""

    nftables: tuple[_Item, ...] = ()

    @property
    def chains(self) -> tuple[Chain, ...]:
        """All of them."""
        return tuple(item.chain for item in self.nftables if item.chain is not None)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """All of them."""
        return tuple(item.rule for item in self.nftables if item.rule is not None)


RULESET = Shape(Ruleset)
