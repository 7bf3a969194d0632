"""Refresh tokens: what a presented one is worth. Pure; the rows are in `repository`.

Invariants: REFRESH-1 of one token at most one use outside the grace time gives a new pair. REFRESH-2 a use after the
grace time revokes the whole family, because one of two holders is a thief and nobody can tell which. REFRESH-3 a
revoked family never gives a pair again. The grace time exists for two tabs that refresh at once.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from uuid import UUID

GRACE = timedelta(seconds=10)
TOKEN_BYTES = 32


class Verdict(Enum):
    """What to do with a presented token."""

    ROTATE = "rotate"  # first use: a new pair, the token is used up
    SIBLING = "sibling"  # used moments ago: a second pair in the same family
    REUSE = "reuse"  # used long ago: revoke the family
    REFUSE = "refuse"  # unknown, expired or revoked


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A stored token."""

    id: UUID
    user_id: UUID
    family: UUID
    expires_at: datetime
    used_at: datetime | None
    revoked_at: datetime | None


def judge(held: RefreshToken | None, now: datetime) -> Verdict:
    """Return the verdict on a presented token."""
    if held is None or held.revoked_at is not None:
        return Verdict.REFUSE
    if held.used_at is not None:
        return Verdict.SIBLING if now - held.used_at <= GRACE and now < held.expires_at else Verdict.REUSE
    return Verdict.ROTATE if now < held.expires_at else Verdict.REFUSE


def new_refresh_token() -> str:
    """Return 32 random bytes, base64url."""
    return base64.urlsafe_b64encode(secrets.token_bytes(TOKEN_BYTES)).rstrip(b"=").decode()


def digest(token: str) -> bytes:
    """Return what is stored of a token. SHA-256 suffices: 256 random bits cannot be guessed."""
    return hashlib.sha256(token.encode()).digest()
