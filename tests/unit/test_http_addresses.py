from __future__ import annotations

from ipaddress import ip_network

import pytest

from services.tools.http.addresses import AddressRule

PUBLIC = [
    "93.184.216.34",
    "8.8.8.8",
    "172.15.255.255",
    "172.32.0.1",
    "100.63.255.255",
    "100.128.0.1",
    "2606:2800:220:1:248:1893:25c8:1946",
    "2a00:1450:4001:831::200e",
    "64:ff9b::8.8.8.8",
    "::ffff:8.8.8.8",
]
PRIVATE = [
    "127.0.0.1",
    "127.255.255.254",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "::1",
    "fd00::1",
    "fc00::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a00:1",
]
METADATA = ["169.254.169.254", "169.254.0.1", "fe80::1", "fe80::1%eth0", "fd00:ec2::254", "100.100.100.200"]
METADATA += ["::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe"]
NEVER = [
    "0.0.0.0",
    "0.1.2.3",
    "192.0.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::7f00:1",  # the old form of an IPv4 address in IPv6
    "ff02::1",
    "fec0::1",
    "100::1",
    "64:ff9b:1::1",
    "2001::1",  # Teredo
    "2001:db8::1",
    "2002:7f00:1::",  # 6to4 of 127.0.0.1
    "3fff::1",
    "4000::1",
    "::ffff:0.0.0.0",
    "64:ff9b::e000:1",
]
NO_ADDRESS = ["", "localhost", "127.1", "0x7f.0.0.1", "2130706433", "1.2.3.4.5", "::1::", "010.0.0.1"]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_open(address: str) -> None:
    assert AddressRule().allows(address)
    assert AddressRule(private=True).allows(address)


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_open_only_where_that_is_said(address: str) -> None:
    assert not AddressRule().allows(address)
    assert AddressRule(private=True).allows(address)


@pytest.mark.parametrize("address", [*METADATA, *NEVER])
def test_other_special_addresses_are_open_only_where_their_network_is_listed(address: str) -> None:
    assert not AddressRule().allows(address)
    assert not AddressRule(private=True).allows(address)


@pytest.mark.parametrize("text", NO_ADDRESS)
def test_what_is_no_address_is_not_open(text: str) -> None:
    assert not AddressRule(private=True).allows(text)


def test_a_listed_network_is_open_and_its_neighbour_is_not() -> None:
    rule = AddressRule(networks=(ip_network("10.1.0.0/16"), ip_network("169.254.169.254"), ip_network("fd12::/64")))
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "169.254.169.254", "fd12::5"):
        assert rule.allows(address)
    for address in ("10.2.0.1", "169.254.169.253", "127.0.0.1", "fd12:0:0:1::1"):
        assert not rule.allows(address)
