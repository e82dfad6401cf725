"""Connections to exactly the addresses that were checked: a name is resolved here, once, and not by the library.

The request is sent to the address; `Host`, SNI and the check of the certificate go by the name. Nothing is kept between
two requests: no connection, no cookie, no resolved name. Proxies and other settings of the environment are not read.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import httpx

from .addresses import AddressRule

log = logging.getLogger(__name__)

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
MAX_ADDRESSES = 3
"""How many addresses of a name are tried one after the other."""
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Unreachable(Exception):
    """No connection came about: nothing was sent."""


class Forbidden(Exception):
    """The name leads to an address that may not be connected to."""


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name, as the system knows them. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def port_of(url: httpx.URL) -> int:
    return url.port or _DEFAULT_PORTS[url.scheme]


class Connector:
    """Sends single requests. Open it with `connector`."""

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        rule: AddressRule,
        connect_s: float,
        read_s: float,
        resolver: Resolver = resolve,
    ) -> None:
        self._transport = transport
        self._rule = rule
        self._connect_s = connect_s
        self._timeout = {"connect": connect_s, "read": read_s, "write": read_s, "pool": connect_s}
        self._resolver = resolver

    async def send(
        self, method: str, url: httpx.URL, headers: Sequence[tuple[str, str]], content: bytes | None
    ) -> httpx.Response:
        """The response, its body unread; whoever gets it closes it.

        Raises:
            Forbidden, Unreachable, httpx.HTTPError
        """
        failure: httpx.HTTPError | None = None
        for address in (await self._addresses(url))[:MAX_ADDRESSES]:
            request = httpx.Request(
                method,
                url.copy_with(host=address),
                headers=[("Host", url.netloc.decode("ascii")), *headers],
                content=content,
                extensions={"timeout": self._timeout, "sni_hostname": url.raw_host.decode("ascii")},
            )
            try:
                return await self._transport.handle_async_request(request)
            except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
                failure = error
        log.warning("no connection to %s: %s: %s", url.host, type(failure).__name__, failure)
        raise Unreachable from None

    async def _addresses(self, url: httpx.URL) -> Sequence[str]:
        """All addresses of the URL's host. One that may not be connected to spoils them all: a name that leads both
        inside and outside is no accident."""
        host = url.raw_host.decode("ascii").strip("[]")
        try:
            async with asyncio.timeout(self._connect_s):
                addresses = await self._resolver(host, port_of(url))
        except (OSError, TimeoutError, UnicodeError) as error:
            log.warning("the name %s cannot be resolved: %s", host, error or type(error).__name__)
            raise Unreachable from None
        if not addresses:
            raise Unreachable
        for address in addresses:
            if not self._rule.allows(address):
                log.error("%s leads to %s, which is not public and not listed as `private`", host, address)
                raise Forbidden
        return addresses


@asynccontextmanager
async def connector(
    rule: AddressRule, *, connect_s: float, read_s: float, verify: ssl.SSLContext, resolver: Resolver = resolve
) -> AsyncIterator[Connector]:
    """Args: connect_s, read_s: seconds to wait for a connection, and for each piece of an answer."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncHTTPTransport(verify=verify, trust_env=False, http2=False, limits=limits) as transport:
        yield Connector(transport, rule, connect_s, read_s, resolver)


def ssl_context(authorities: str | None) -> ssl.SSLContext:
    """Checks certificates against the authorities in a PEM file, or the usual ones. Raises OSError, ssl.SSLError."""
    if authorities is None:
        return _usual_ssl_context()
    return ssl.create_default_context(cafile=authorities)


@functools.cache
def _usual_ssl_context() -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=False)
