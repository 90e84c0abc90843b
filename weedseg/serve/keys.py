"""API keys and signed-in sessions: made once, kept as hashes, taken back at any time.

A key reads ``weedseg_<id>_<secret>``. Its secret is 256 random bits, so that a plain SHA-256 at
rest is enough: a slow hash protects what people choose, and nobody can try 2^256 values. A
pepper would lie beside the hashes, in the same data folder, and protect nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import math
import re
import secrets
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from sqlalchemy import ForeignKey, delete, select
from sqlalchemy.orm import Mapped, mapped_column

from weedseg.errors import ConfigError, RuntimeUnavailableError
from weedseg.serve.database import Base, Database

SCOPES: dict[str, str] = {
    "predict": "segment photos, one per request",
    "jobs": "upload photos, run jobs on them, read and delete the results",
    "models": "choose the model that everybody gets by default",
    "admin": "read the figures of the whole service",
}
"""What a key may be good for; no scope reaches another owner's photos."""

OWNER_PATTERN = re.compile(r"[a-z0-9-]{1,40}")
OPEN_OWNER = "local"
"""Owner of everything made in open mode; a key for this owner opens it again later."""

COARSE_S = 3600.0
"""The last use of a key is known this exactly, which spares a write per request, s."""

NONE_HOLDS_S = 1.0
"""That no key was ever made is believed so long; a request needs no look into the database then."""
_KEY = re.compile(r"weedseg_(?P<id>[0-9a-f]{12})_(?P<secret>[A-Za-z0-9_-]{43})")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Principal:
    """Who is asking."""

    owner: str
    """Letters a-z, digits and hyphens; part of every row and path."""
    scopes: frozenset[str]


class ApiKey(Base):
    """One key; its row stays after it is revoked. Times are seconds since 1970."""

    __tablename__ = "api_keys"

    key_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    owner: Mapped[str] = mapped_column(index=True)
    scopes: Mapped[str]  # comma-separated
    digest: Mapped[str]
    made_s: Mapped[float]
    expires_s: Mapped[float | None]
    revoked_s: Mapped[float | None]
    last_used_s: Mapped[float | None]

    def is_good(self, now_s: float) -> bool:
        """Tell whether the key is neither revoked nor expired."""
        return self.revoked_s is None and (self.expires_s is None or now_s < self.expires_s)

    def principal(self) -> Principal:
        """Return who a holder of the key is."""
        return Principal(self.owner, frozenset(self.scopes.split(",")))


class SignIn(Base):
    """One signed-in browser; it is worth no more than its key."""

    __tablename__ = "sign_ins"

    digest: Mapped[str] = mapped_column(primary_key=True)
    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.key_id", ondelete="CASCADE"))
    expires_s: Mapped[float] = mapped_column(index=True)


class KeyStore:
    """Makes, checks and revokes keys and sessions."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        """Use a database.

        Args:
            database: Where hashes are kept.
            clock: Seconds since 1970.
        """
        self._database = database
        self._clock = clock
        self._any_made = False
        self._none_until_s = -math.inf

    def make(
        self, name: str, owner: str, scopes: Collection[str], expires_s: float | None = None
    ) -> str:
        """Make a key.

        Args:
            name: What people call it.
            owner: Whose things it reaches.
            scopes: Some of `SCOPES`.
            expires_s: When it ends, seconds since 1970; None for never.

        Returns:
            The key. This is the only time that it exists outside of its holder's hands.

        Raises:
            ConfigError: Name, owner or a scope is not allowed.
        """
        _check(name, owner, scopes)
        key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        row = ApiKey(
            key_id=key_id,
            name=name,
            owner=owner,
            scopes=",".join(s for s in SCOPES if s in scopes),
            digest=_digest(secret),
            made_s=self._clock(),
            expires_s=expires_s,
        )
        with self._database.begin() as session:
            session.add(row)
        self._any_made = True
        return f"weedseg_{key_id}_{secret}"

    def verify(self, key: str) -> Principal | None:
        """Return the holder of a key; None for a key that is wrong, revoked or expired."""
        row = self._good_key(key)
        if row is None:
            return None
        self._note_use(row)
        return row.principal()

    def list_keys(self) -> list[ApiKey]:
        """Return all keys ever made, oldest first."""
        with self._database.read() as session:
            return list(session.scalars(select(ApiKey).order_by(ApiKey.made_s, ApiKey.key_id)))

    def revoke(self, key_id: str) -> bool:
        """End a key and every session that was opened with it.

        Args:
            key_id: The middle part of the key.

        Returns:
            Whether there is such a key.
        """
        with self._database.begin() as session:
            row = session.get(ApiKey, key_id)
            if row is None:
                return False
            if row.revoked_s is None:
                row.revoked_s = self._clock()
            session.execute(delete(SignIn).where(SignIn.key_id == key_id))
            return True

    def any_made(self) -> bool:
        """Tell whether a key was ever made, be it revoked or expired by now."""
        now_s = time.monotonic()
        if not self._any_made and now_s >= self._none_until_s:  # never becomes false again
            self._none_until_s = now_s + NONE_HOLDS_S
            with self._database.read() as session:
                self._any_made = session.scalar(select(ApiKey.key_id).limit(1)) is not None
        return self._any_made

    def sign_in(self, key: str, hours: float) -> tuple[str, float] | None:
        """Open a session.

        Args:
            key: A key.
            hours: How long the session lasts, if the key does not end before.

        Returns:
            The session's token and when it ends, seconds since 1970; None for a wrong key.
        """
        row = self._good_key(key)
        if row is None:
            return None
        expires_s = min(self._clock() + 3600 * hours, row.expires_s or float("inf"))
        token = secrets.token_urlsafe(32)
        with self._database.begin() as session:
            session.add(SignIn(digest=_digest(token), key_id=row.key_id, expires_s=expires_s))
        self._note_use(row)
        return token, expires_s

    def verify_sign_in(self, token: str) -> Principal | None:
        """Return who a session belongs to; None if it ended, or its key did."""
        wanted = select(ApiKey).join(SignIn).where(SignIn.digest == _digest(token))
        with self._database.read() as session:
            row = session.scalar(wanted.where(SignIn.expires_s > self._clock()))
        return row.principal() if row is not None and row.is_good(self._clock()) else None

    def sign_out(self, token: str) -> None:
        """End a session; one that is not there has ended already."""
        with self._database.begin() as session:
            session.execute(delete(SignIn).where(SignIn.digest == _digest(token)))

    def forget_ended(self) -> int:
        """Delete the rows of ended sessions; return how many."""
        ended = delete(SignIn).where(SignIn.expires_s <= self._clock()).returning(SignIn.digest)
        with self._database.begin() as session:
            return len(session.scalars(ended).all())

    def _good_key(self, key: str) -> ApiKey | None:
        parts = _KEY.fullmatch(key)
        if parts is None:
            return None
        with self._database.read() as session:
            row = session.get(ApiKey, parts["id"])
        if row is None or not hmac.compare_digest(row.digest, _digest(parts["secret"])):
            return None
        return row if row.is_good(self._clock()) else None

    def _note_use(self, row: ApiKey) -> None:
        """Write down roughly when a key was used; a request does not fail for it."""
        now = self._clock()
        if row.last_used_s is not None and now - row.last_used_s < COARSE_S:
            return
        try:
            with self._database.begin() as session:
                session.get_one(ApiKey, row.key_id).last_used_s = now
        except RuntimeUnavailableError as error:
            _log.warning("last use of key %s was not written: %s", row.key_id, error)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "backslashreplace")).hexdigest()


def _check(name: str, owner: str, scopes: Collection[str]) -> None:
    """Look at what a person typed.

    Raises:
        ConfigError: Name, owner or a scope is not allowed.
    """
    if not (name.isprintable() and 0 < len(name) <= 80):
        raise ConfigError(f"name {name!r}", "1 to 80 printable characters", "choose another")
    if not OWNER_PATTERN.fullmatch(owner):
        raise ConfigError(
            f"owner {owner!r}", "1 to 40 characters of a-z, 0-9 and -", "choose another"
        )
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        raise ConfigError(
            f"scopes {', '.join(unknown) or 'empty'}",
            f"some of {', '.join(SCOPES)}",
            "give for instance --scopes predict,jobs",
        )
