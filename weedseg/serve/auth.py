"""Who may call a route: keys in headers, a session cookie, or open mode on this machine.

Open mode needs no key. It holds while no key was ever made, and only for programs on the same
machine: the service must listen on loopback, and the request must come straight from there (no
proxy) and be addressed to it (so that no web page reaches it under a name of its own).
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyCookie, APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from weedseg.errors import ConfigError
from weedseg.serve.keys import OPEN_OWNER, SCOPES, KeyStore, Principal
from weedseg.serve.problems import Problem, problem_responses
from weedseg.serve.services import Services, services_of

__all__ = ["COOKIE", "RESPONSES", "Principal", "key_of", "refuse_open_network", "signed_in"]

COOKIE = "weedseg_session"
OPEN = Principal(OPEN_OWNER, frozenset(SCOPES))
RESPONSES = problem_responses(401, 403, 429)
"""What a route behind `signed_in` may answer, for its OpenAPI."""

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_PROXY_HEADERS = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")

Bearer = Annotated[
    HTTPAuthorizationCredentials | None,
    Security(HTTPBearer(auto_error=False, description="`Authorization: Bearer KEY`")),
]
HeaderKey = Annotated[
    str | None,
    Security(APIKeyHeader(name="X-API-Key", auto_error=False, description="`X-API-Key: KEY`")),
]
CookieToken = Annotated[
    str | None,
    Security(APIKeyCookie(name=COOKIE, auto_error=False, description="set by POST /v1/session")),
]


def key_of(bearer: Bearer, header_key: HeaderKey) -> str | None:
    """Return the key in a request's headers; a FastAPI dependency."""
    return bearer.credentials if bearer is not None else header_key


@functools.cache
def signed_in(scope: str = "") -> Callable[..., Principal]:
    """Make the dependency of a route that only some may call.

    It also counts the request: ``who: Annotated[Principal, Depends(signed_in("jobs"))]``.

    Args:
        scope: One of `keys.SCOPES`; empty if any key will do.

    Returns:
        A FastAPI dependency.

    Raises:
        Problem: By the dependency: 401 without a good key, 403 without the scope or for a foreign
            web page, 429 for too many requests.
    """

    def who(
        request: Request,
        services: Annotated[Services, Depends(services_of)],
        key: Annotated[str | None, Depends(key_of)],
        token: CookieToken,
    ) -> Principal:
        principal = _identify(request, services, key, token)
        services.limits.count_request(principal.owner)
        if scope and scope not in principal.scopes:
            raise Problem(403, "Not allowed", f"this key lacks the scope '{scope}'")
        return principal

    return who


def _identify(
    request: Request, services: Services, key: str | None, token: str | None
) -> Principal:
    """Find out who asks.

    Raises:
        Problem: 401 if nobody known, 403 if another web page asks in the person's name.
    """
    if key is not None:
        principal = services.keys.verify(key)
        if principal is None:
            raise unauthorised("this key is wrong, revoked or expired")
        return principal
    principal = services.keys.verify_sign_in(token) if token else None
    if principal is None and _is_open(request, services):
        principal = OPEN
    if principal is None:
        raise unauthorised("a key is needed; make one with weedseg keys make")
    if request.method not in _SAFE_METHODS and not _is_own_page(request):
        raise Problem(403, "Not allowed", "another web page may not do this in your name")
    return principal


def unauthorised(detail: str) -> Problem:
    """Make the answer for a request without a good key."""
    return Problem(401, "Not signed in", detail, {"WWW-Authenticate": "Bearer"})


def may_watch(
    request: Request,
    services: Annotated[Services, Depends(services_of)],
    key: Annotated[str | None, Depends(key_of)],
    token: CookieToken,
) -> None:
    """Let programs on this machine see the figures of the service, others with the scope admin.

    Raises:
        Problem: 401, 403 or 429, as by `signed_in`.
    """
    if not _is_local(request):
        signed_in("admin")(request, services, key, token)


def _is_open(request: Request, services: Services) -> bool:
    """Tell whether this request needs no key."""
    local = is_loopback(services.settings.host) and _is_local(request)
    return local and not services.keys.any_made()


def _is_local(request: Request) -> bool:
    """Tell whether a program on this machine asks: itself, and by a name that means the machine."""
    direct = request.client is not None and is_loopback(request.client.host)
    named = is_loopback(request.url.hostname or "")
    return direct and named and not any(name in request.headers for name in _PROXY_HEADERS)


def _is_own_page(request: Request) -> bool:
    """Tell whether a browser's request comes from the service's own page.

    Browsers send a cookie and reach loopback for any page that asks; they say which one it was.
    """
    relation = request.headers.get("sec-fetch-site")
    if relation is not None:
        return relation in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")


def is_loopback(host: str) -> bool:
    """Tell whether an address or name can only mean this machine.

    Args:
        host: An IP address or a host name, without port.
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def refuse_open_network(host: str, keys: KeyStore) -> None:
    """Refuse to listen where others can reach a service that asks for no key.

    Args:
        host: The address to listen on.
        keys: The keys made so far.

    Raises:
        ConfigError: Others can reach the address, and no key was made.
    """
    if not is_loopback(host) and not keys.any_made():
        raise ConfigError(
            f"address {host} can be reached from other machines and there is no API key",
            "a key, or 127.0.0.1",
            "make one: weedseg keys make --data DIR --name NAME --owner OWNER",
        )
