"""Where a declared tool may go: its `hosts`, `private` addresses, and the authorities that vouch for a server."""

from __future__ import annotations

import re
import ssl
from ipaddress import ip_network
from pathlib import Path

import httpx

from services.common.wording import shorten

from .addresses import AddressRule
from .connecting import port_of, ssl_context
from .fields import Fields

_NO_HOST = re.compile(r"[\s/?#@{}\\%]")
_PORT = re.compile(r"(\]|^[^:]*):\d+")


def read_hosts(fields: Fields) -> frozenset[str]:
    """Every `host:port`; a host without a port stands for the ports of http and https."""
    found: set[str] = set()
    for text in fields.texts("hosts"):
        url = host_url(text)
        if url is None:
            fields.note(f"{shorten(text, 80)!r} is no host and no host:port", "hosts")
            continue
        host = url.raw_host.decode("ascii")
        found |= {f"{host}:{port}" for port in ([port_of(url)] if _PORT.search(text) else [80, 443])}
    if fields.raw("hosts") == []:
        fields.note("at least one host is needed", "hosts")
    return frozenset(found)


def read_rule(fields: Fields) -> AddressRule:
    value = fields.raw("private")
    if value is None or isinstance(value, bool):
        return AddressRule(private=bool(value))
    try:
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise ValueError
        return AddressRule(networks=tuple(ip_network(one) for one in value))
    except ValueError:
        fields.note("expected true, or a list of networks such as 10.1.0.0/16", "private")
        return AddressRule()


def read_verify(fields: Fields, folder: Path) -> ssl.SSLContext | None:
    """None where the file cannot be used, and that is noted."""
    path = fields.text("verify")
    try:
        return ssl_context(str(folder / path) if path else None)
    except (OSError, ssl.SSLError) as error:
        fields.note(f"{path} is no file with certificates in PEM: {shorten(str(error), 120)}", "verify")
        return None


def host_url(text: str, scheme: str = "http") -> httpx.URL | None:
    """The origin of a host or host:port; None where it is anything else."""
    if not text or _NO_HOST.search(text):
        return None
    try:
        url = httpx.URL(f"{scheme}://{text}/")
    except (httpx.InvalidURL, ValueError):
        return None
    return url if url.host and 0 < port_of(url) < 65_536 else None
