"""Who is there: JSON Web Tokens, checked at the handshake, in an `auth` message, or in a header of an HTTP request."""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import jwt

from baton_proto import subjects
from services.common.config import GatewaySettings

ANONYMOUS = "anonymous"
_ASYMMETRIC = ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "EdDSA"]
MAX_TOKEN_CHARS = 16_384


class Unauthorized(Exception):
    """The token is missing, wrong or expired; the text may be shown."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks. `owner` is the token's subject; `expires` is Unix time in seconds, None for never.

    `lane` is what takes turns with others when work has to wait: the user, or, where nobody says who it is, each
    connection by itself.
    """

    owner: str
    claims: Mapping[str, Any] = field(default_factory=dict)
    expires: float | None = None
    lane: str = field(default_factory=lambda: secrets.token_hex(16))

    @property
    def known(self) -> bool:
        """Whether a token has said who it is; otherwise everybody shares one owner."""
        return self.expires is not None

    @property
    def expired(self) -> bool:
        return self.expires is not None and time.time() >= self.expires


class Authenticator:
    """Checks tokens against a shared secret or a key set. Without either everybody is `anonymous`."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._secret = settings.jwt_secret
        self._audience = settings.jwt_audience or None
        self._issuer = settings.jwt_issuer or None
        self._keys = jwt.PyJWKClient(settings.jwt_jwks, timeout=5) if settings.jwt_jwks else None

    @property
    def required(self) -> bool:
        return bool(self._secret or self._keys)

    async def identify(self, token: str) -> Identity:
        """The identity that a token proves.

        Raises:
            Unauthorized
        """
        if not self.required:
            return Identity(ANONYMOUS)
        if not token:
            raise Unauthorized("a token is required")
        if len(token) > MAX_TOKEN_CHARS:
            raise Unauthorized("the token is too long")
        try:
            claims = await self._claims(token)
        except jwt.ExpiredSignatureError:
            raise Unauthorized("the token has expired") from None
        except (jwt.PyJWTError, ValueError) as error:
            raise Unauthorized(f"the token is not valid: {error}") from None
        owner = str(claims["sub"])
        return Identity(owner, claims, float(claims["exp"]), subjects.owner_hash(owner))

    async def _claims(self, token: str) -> dict[str, Any]:
        if self._keys is None:
            return self._decode(token, self._secret, ["HS256"])
        # The key set may have to be fetched, which blocks.
        key = await asyncio.to_thread(self._keys.get_signing_key_from_jwt, token)
        return self._decode(token, key.key, _ASYMMETRIC)

    def _decode(self, token: str, key: Any, algorithms: list[str]) -> dict[str, Any]:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=algorithms,
            audience=self._audience,
            issuer=self._issuer,
            options={"require": ["exp", "sub"], "verify_aud": self._audience is not None},
        )
        if not claims["sub"]:
            raise Unauthorized("the token names no subject")
        return claims


def bearer(header: str | None) -> str:
    """The token in an `Authorization` header; empty where there is none."""
    scheme, _, token = (header or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def is_loopback(host: str) -> bool:
    """Whether an address or name means this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def origin_allowed(origin: str | None, host: str | None, settings: GatewaySettings) -> bool:
    """Whether a page of this origin may connect.

    No origin means no browser. The gateway's own pages may; so may those that a setting names, and pages of this very
    machine while the gateway serves only this machine. Everything else is refused, because a browser would lend any
    page its user's place in the network.
    """
    if origin is None or "*" in settings.origins or origin in settings.origins:
        return True
    parts = urlsplit(origin)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return False
    if host is not None and parts.netloc.lower() == host.lower():
        # A name that somebody else's DNS points at this machine is not our own page.
        return is_loopback(parts.hostname) or not is_loopback(settings.host)
    return is_loopback(parts.hostname) and is_loopback(settings.host)


def request_allowed(headers: Mapping[str, str], settings: GatewaySettings, *, protected: bool) -> bool:
    """Whether an HTTP request may be answered: as for a WebSocket, by its origin.

    Where no token protects, a request without an origin must name a host that is ours: a browser sends none with a read
    from a page's own host, and that may be a foreign name for this machine.
    """
    host, origin = headers.get("host"), headers.get("origin")
    if origin is None and not protected:
        origin = f"http://{host}"
    return origin_allowed(origin, host, settings)
