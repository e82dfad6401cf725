"""Which network addresses a tool may connect to. Special addresses are those of IANA's special-purpose registries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_PRIVATE: tuple[Network, ...] = tuple(
    ip_network(text)
    for text in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "::1", "fc00::/7")
)
"""Inside a machine, a company or a provider: what `private: true` opens."""

_METADATA: tuple[Network, ...] = tuple(
    ip_network(text) for text in ("169.254.0.0/16", "fe80::/10", "fd00:ec2::254", "100.100.100.200")
)
"""Where clouds hand out a machine's credentials. Only a network that is listed opens them."""

_NEVER_PUBLIC_V4: tuple[Network, ...] = tuple(
    ip_network(text)
    for text in (
        *("0.0.0.0/8", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24"),
        *("203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
    )
)
_GLOBAL_V6 = ip_network("2000::/3")
_NEVER_PUBLIC_V6: tuple[Network, ...] = tuple(
    # Teredo and 6to4 are among them: both carry an IPv4 address to wherever it leads.
    ip_network(text)
    for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)
_NAT64 = IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class AddressRule:
    """`private` opens private addresses, `networks` whatever is in them. Public addresses are always open."""

    private: bool = False
    networks: Sequence[Network] = ()

    def allows(self, text: str) -> bool:
        """Whether the address `text` may be connected to. One that carries another one counts as that."""
        try:
            address = _carried(ip_address(text.partition("%")[0]))
        except ValueError:
            return False
        if _within(address, self.networks):
            return True
        if _within(address, _METADATA):
            return False
        return (self.private and _within(address, _PRIVATE)) or _is_public(address)


def _carried(address: Address) -> Address:
    """The IPv4 address in one that is mapped to IPv6 or that NAT64 leads to."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return not _within(address, (*_NEVER_PUBLIC_V4, *_PRIVATE))
    return address in _GLOBAL_V6 and not _within(address, _NEVER_PUBLIC_V6)


def _within(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)
