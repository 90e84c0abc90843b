"""Signing the web page in and out: a key in, a cookie back that scripts cannot read."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from weedseg.serve.auth import (
    COOKIE,
    RESPONSES,
    CookieToken,
    Principal,
    key_of,
    signed_in,
    unauthorised,
)
from weedseg.serve.services import Services, services_of

router = APIRouter(prefix="/v1/session", tags=["session"])


class SessionBody(BaseModel):
    """Who is signed in."""

    owner: str = Field(examples=["north-farm"])
    scopes: list[str] = Field(examples=[["jobs", "predict"]])
    key_needed: bool = Field(description="false in open mode, where nobody has to sign in")

    @classmethod
    def of(cls, who: Principal, services: Services) -> SessionBody:
        """Describe a principal."""
        return cls(owner=who.owner, scopes=sorted(who.scopes), key_needed=services.keys.any_made())


@router.post("", status_code=201, responses=RESPONSES)
def sign_in(
    request: Request,
    response: Response,
    services: Annotated[Services, Depends(services_of)],
    who: Annotated[Principal, Depends(signed_in())],
    key: Annotated[str | None, Depends(key_of)],
) -> SessionBody:
    """Exchange the key in the header for a session cookie."""
    token, expires_s = _open(services, key)
    proxy = request.headers.get("x-forwarded-proto", "")
    response.set_cookie(
        COOKIE,
        token,
        max_age=max(0, int(expires_s - time.time())),
        httponly=True,
        samesite="strict",
        secure="https" in (request.url.scheme, proxy),
    )
    response.headers["Cache-Control"] = "no-store"
    return SessionBody.of(who, services)


@router.get("", responses=RESPONSES)
def show_session(
    response: Response,
    services: Annotated[Services, Depends(services_of)],
    who: Annotated[Principal, Depends(signed_in())],
) -> SessionBody:
    """Say who is signed in."""
    response.headers["Cache-Control"] = "no-store"
    return SessionBody.of(who, services)


@router.delete("", status_code=204)
def sign_out(
    response: Response, services: Annotated[Services, Depends(services_of)], token: CookieToken
) -> None:
    """End the session, here and in the browser; without one, nothing happens."""
    if token:
        services.keys.sign_out(token)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")


def _open(services: Services, key: str | None) -> tuple[str, float]:
    """Open a session; return its token and when it ends, seconds since 1970.

    Raises:
        Problem: 401 without a key: open mode has nothing to sign in to.
    """
    opened = services.keys.sign_in(key, services.settings.session_hours) if key else None
    if opened is None:
        raise unauthorised("a key in the header is needed to sign in")
    return opened
