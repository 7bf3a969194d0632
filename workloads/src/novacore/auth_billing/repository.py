"""SQL of schema `auth`. Every function takes the connection first; transactions belong to the callers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from asyncpg import Record

from novacore.auth_billing.quota import Resource, Window
from novacore.auth_billing.sessions import RefreshToken

if TYPE_CHECKING:
    from novacore.common.database import Connection

SCHEMA = "auth"


@dataclass(frozen=True, slots=True)
class Account:
    """A row of auth.users with its subscription."""

    id: UUID
    email: str = field(repr=False)
    password_hash: str = field(repr=False)
    role: str
    tier: str
    trial_ends_at: datetime | None
    sv: int
    created_at: datetime
    ngs_level: int
    ngs_total_xp: int
    subscription_status: str | None = None
    current_period_end: datetime | None = None


_ACCOUNT = (
    "u.id, u.email, u.password_hash, u.role, u.subscription_tier AS tier, u.trial_ends_at, u.sv, u.created_at,"
    " u.ngs_level, u.ngs_total_xp"
)


def _account(row: Record | None) -> Account | None:
    return Account(**dict(row.items())) if row is not None else None


# Accounts


async def add_account(
    conn: Connection,
    *,
    email: str,
    password_hash: str,
    now: datetime,
    trial_ends_at: datetime | None,
    role: str = "student",
    tier: str = "free_trial",
) -> Account | None:
    """Return the new account, or None when the address is taken."""
    row = await conn.fetchrow(
        "INSERT INTO auth.users AS u"  # noqa: S608 - constant
        " (email, password_hash, role, subscription_tier, trial_ends_at, created_at, last_seen_at)"
        f" VALUES ($1, $2, $3, $4, $5, $6, $6) ON CONFLICT (email) DO NOTHING RETURNING {_ACCOUNT}",
        email, password_hash, role, tier, trial_ends_at, now,
    )  # fmt: skip
    return _account(row)


async def account_by_email(conn: Connection, email: str) -> Account | None:
    """Return the account of an address in canonical spelling."""
    return _account(await conn.fetchrow(f"SELECT {_ACCOUNT} FROM auth.users AS u WHERE u.email = $1", email))  # noqa: S608 - constant


async def account(conn: Connection, user_id: UUID) -> Account | None:
    """Return an account with its subscription's state."""
    row = await conn.fetchrow(
        f"SELECT {_ACCOUNT}, s.status AS subscription_status, s.current_period_end FROM auth.users AS u"  # noqa: S608 - constant
        " LEFT JOIN auth.subscriptions AS s ON s.user_id = u.id WHERE u.id = $1",
        user_id,
    )
    return _account(row)


async def lock_account(conn: Connection, user_id: UUID) -> Account | None:
    """Return an account, locked: refreshes, log-outs and password changes of one person happen one after the other."""
    row = await conn.fetchrow(f"SELECT {_ACCOUNT} FROM auth.users AS u WHERE u.id = $1 FOR NO KEY UPDATE", user_id)  # noqa: S608 - constant
    return _account(row)


async def seen(conn: Connection, user_id: UUID, now: datetime) -> None:
    """Note that the person was here."""
    await conn.execute("UPDATE auth.users SET last_seen_at = $2 WHERE id = $1", user_id, now)


async def set_password(conn: Connection, user_id: UUID, password_hash: str) -> None:
    """Store a new password hash."""
    await conn.execute("UPDATE auth.users SET password_hash = $2 WHERE id = $1", user_id, password_hash)


async def end_sessions(conn: Connection, user_id: UUID, now: datetime) -> int:
    """Revoke every refresh token of a person and return the new session version."""
    await conn.execute(
        "UPDATE auth.refresh_tokens SET revoked_at = $2 WHERE user_id = $1 AND revoked_at IS NULL", user_id, now
    )
    version = await conn.fetchval("UPDATE auth.users SET sv = sv + 1 WHERE id = $1 RETURNING sv", user_id)
    return int(version)


async def set_role(conn: Connection, user_id: UUID, role: str) -> None:
    """Change a person's role."""
    await conn.execute("UPDATE auth.users SET role = $2 WHERE id = $1", user_id, role)


async def set_tier(
    conn: Connection, user_id: UUID, tier: str, caps: Mapping[Resource, int], now: datetime
) -> str | None:
    """Change the tier and the caps of the open windows; return the old tier, or None when there is no such account."""
    old = await conn.fetchval("SELECT subscription_tier FROM auth.users WHERE id = $1 FOR NO KEY UPDATE", user_id)
    if old is None:
        return None
    await conn.execute("UPDATE auth.users SET subscription_tier = $2 WHERE id = $1", user_id, tier)
    for resource in sorted(caps):  # key order: the lock order of the ledger
        await conn.execute(
            "UPDATE auth.quota_balance SET cap = $3 WHERE user_id = $1 AND resource = $2"
            " AND (window_end IS NULL OR window_end > $4)",
            user_id, resource, caps[resource], now,
        )  # fmt: skip
    return str(old)


async def copy_progress(conn: Connection, user_id: UUID, *, level: int, total_xp: int) -> bool:
    """Keep a copy of the curriculum's progress. XP only grows, so an older message changes nothing."""
    result = await conn.execute(
        "UPDATE auth.users SET ngs_level = $2, ngs_total_xp = $3 WHERE id = $1 AND ngs_total_xp <= $3",
        user_id, level, total_xp,
    )  # fmt: skip
    return bool(result == "UPDATE 1")


# Refresh tokens


async def add_refresh_token(
    conn: Connection,
    *,
    user_id: UUID,
    family: UUID,
    token_hash: bytes,
    access_jti: UUID,
    parent_id: UUID | None,
    now: datetime,
    expires_at: datetime,
) -> None:
    """Store a token that is about to be handed out."""
    await conn.execute(
        "INSERT INTO auth.refresh_tokens (user_id, family, token_hash, parent_id, access_jti, created_at, expires_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7)",
        user_id, family, token_hash, parent_id, access_jti, now, expires_at,
    )  # fmt: skip


async def refresh_token(conn: Connection, token_hash: bytes) -> RefreshToken | None:
    """Return a stored token."""
    row = await conn.fetchrow(
        "SELECT id, user_id, family, expires_at, used_at, revoked_at FROM auth.refresh_tokens WHERE token_hash = $1",
        token_hash,
    )
    return RefreshToken(**dict(row.items())) if row is not None else None


async def use_refresh_token(conn: Connection, token_id: UUID, now: datetime) -> None:
    """Mark a token's first use."""
    await conn.execute("UPDATE auth.refresh_tokens SET used_at = $2 WHERE id = $1 AND used_at IS NULL", token_id, now)


async def family_of(conn: Connection, user_id: UUID, access_jti: UUID) -> UUID | None:
    """Return the family an access token was issued in."""
    found: UUID | None = await conn.fetchval(
        "SELECT family FROM auth.refresh_tokens WHERE access_jti = $2 AND user_id = $1", user_id, access_jti
    )
    return found


async def revoke_family(conn: Connection, family: UUID, now: datetime, *, access_life: timedelta) -> list[UUID]:
    """Revoke a family; return the ids of its access tokens that may still be alive."""
    await conn.execute(
        "UPDATE auth.refresh_tokens SET revoked_at = $2 WHERE family = $1 AND revoked_at IS NULL", family, now
    )
    rows = await conn.fetch(
        "SELECT access_jti FROM auth.refresh_tokens WHERE family = $1 AND created_at > $2", family, now - access_life
    )
    return [row["access_jti"] for row in rows]


# Throttles


async def throttle_hit(
    conn: Connection, key: str, *, now: datetime, window: timedelta, limit: int, lock: timedelta
) -> datetime | None:
    """Count a failed attempt; return until when the key is locked, or None."""
    locked: datetime | None = await conn.fetchval(
        "SELECT auth.throttle_hit($1, $2, $3, $4, $5)", key, now, window, limit, lock
    )
    return locked


async def locked_until(conn: Connection, key: str, now: datetime) -> datetime | None:
    """Return until when a key is locked, or None when it is open."""
    locked: datetime | None = await conn.fetchval(
        "SELECT locked_until FROM auth.throttles WHERE key = $1 AND locked_until > $2", key, now
    )
    return locked


async def clear_throttle(conn: Connection, key: str) -> None:
    """Forget the failed attempts of a key."""
    await conn.execute("DELETE FROM auth.throttles WHERE key = $1", key)


async def tidy(conn: Connection, now: datetime) -> dict[str, int]:
    """Delete what has had its day, in bounded batches; make the next ledger partitions. Returns counts."""
    counts: dict[str, int] = {}
    for name, statement, before in (
        (
            "refresh_tokens",
            "SELECT ctid FROM auth.refresh_tokens WHERE expires_at < $1 LIMIT 5000",
            now - timedelta(days=1),
        ),
        ("throttles", "SELECT ctid FROM auth.throttles WHERE updated_at < $1 LIMIT 5000", now - timedelta(days=1)),
        ("quota_hold", "SELECT ctid FROM auth.quota_hold WHERE closed_at < $1 LIMIT 5000", now - timedelta(days=30)),
    ):
        result = await conn.execute(
            f"DELETE FROM auth.{name} WHERE ctid = ANY (ARRAY({statement}))",  # noqa: S608 - constants of this function
            before,
        )
        counts[name] = int(result.rpartition(" ")[2])
    counts["partitions"] = int(await conn.fetchval("SELECT auth.ledger_partitions($1, 2)", now))
    return counts


# Quota


@dataclass(frozen=True, slots=True)
class Reserved:
    """Answer of auth.quota_reserve."""

    result: str
    granted: int
    remaining: int
    cap: int
    used: int
    expires_at: datetime | None
    tier: str


@dataclass(frozen=True, slots=True)
class Closed:
    """Answer of auth.quota_close."""

    result: str
    state: str | None
    billed: int
    newly_billed: int
    clamped: int
    resource: str | None
    tier: str | None


@dataclass(frozen=True, slots=True)
class Adjusted:
    """Answer of auth.quota_adjust."""

    result: str
    used: int
    cap: int
    applied: int
    tier: str


async def quota_reserve(
    conn: Connection,
    *,
    hold_id: UUID,
    user_id: UUID,
    resource: Resource,
    amount: int,
    min_amount: int,
    ttl: timedelta,
    now: datetime,
    window: Window,
    caps: Mapping[str, int],
) -> Reserved:
    """Take `amount`, or what is left of at least `min_amount`."""
    row = await conn.fetchrow(
        "SELECT * FROM auth.quota_reserve($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        hold_id, user_id, resource, amount, min_amount, ttl, now, window.start, window.end, dict(caps),
    )  # fmt: skip
    return Reserved(**dict(_one(row).items()))


async def quota_checkpoint(conn: Connection, hold_id: UUID, amount: int) -> str | None:
    """Note how much was produced so far; return the hold's state, or None when there is none."""
    state: str | None = await conn.fetchval(
        "UPDATE auth.quota_hold SET progress = CASE WHEN state = 'held' THEN greatest(progress, least($2, amount))"
        " ELSE progress END WHERE id = $1 RETURNING state",
        hold_id, amount,
    )  # fmt: skip
    return state


async def quota_close(
    conn: Connection, hold_id: UUID, *, state: str, actual: int, metadata: Mapping[str, Any], now: datetime
) -> Closed:
    """End a hold: `settled` bills `actual`, `released` bills nothing."""
    row = await conn.fetchrow(
        "SELECT * FROM auth.quota_close($1, $2, $3, $4, $5)", hold_id, state, actual, dict(metadata), now
    )
    return Closed(**dict(_one(row).items()))


async def quota_expire(conn: Connection, now: datetime, *, limit: int) -> list[tuple[str, str, int]]:
    """Close overdue holds; return (resource, tier, billed) of each."""
    rows = await conn.fetch("SELECT resource, tier, billed FROM auth.quota_expire($1, $2)", now, limit)
    return [(row["resource"], row["tier"], row["billed"]) for row in rows]


async def quota_adjust(
    conn: Connection,
    *,
    key: str,
    user_id: UUID,
    resource: Resource,
    delta: int,
    now: datetime,
    window: Window,
    caps: Mapping[str, int],
) -> Adjusted:
    """Change what is used by a signed amount, once per key."""
    row = await conn.fetchrow(
        "SELECT * FROM auth.quota_adjust($1, $2, $3, $4, $5, $6, $7, $8)",
        key, user_id, resource, delta, now, window.start, window.end, dict(caps),
    )  # fmt: skip
    return Adjusted(**dict(_one(row).items()))


async def used_now(
    conn: Connection, user_id: UUID, windows: Mapping[Resource, Window]
) -> dict[Resource, tuple[int, int]]:
    """Return (used, reserved) per resource in the given windows."""
    rows = await conn.fetch(
        "SELECT b.resource, b.used, b.reserved FROM auth.quota_balance AS b"
        " JOIN unnest($2::text[], $3::timestamptz[]) AS w (resource, window_start)"
        " ON w.resource = b.resource AND w.window_start = b.window_start WHERE b.user_id = $1",
        user_id, list(windows), [window.start for window in windows.values()],
    )  # fmt: skip
    found = {row["resource"]: (row["used"], row["reserved"]) for row in rows}
    return {resource: found.get(resource, (0, 0)) for resource in windows}


async def billed_since(conn: Connection, user_id: UUID, since: datetime) -> dict[str, int]:
    """Return the billed amount per resource since a moment."""
    rows = await conn.fetch(
        "SELECT resource_type, sum(amount)::bigint AS amount FROM auth.usage_ledger"
        " WHERE user_id = $1 AND ts >= $2 GROUP BY resource_type",
        user_id, since,
    )  # fmt: skip
    return {row["resource_type"]: row["amount"] for row in rows}


async def billed_per_day(conn: Connection, user_id: UUID, resource: Resource, since: datetime) -> dict[datetime, int]:
    """Return the billed amount per UTC day; days without any are absent."""
    rows = await conn.fetch(
        "SELECT date_trunc('day', ts, 'UTC') AS day, sum(amount)::bigint AS amount FROM auth.usage_ledger"
        " WHERE user_id = $1 AND resource_type = $2 AND ts >= $3 GROUP BY 1",
        user_id, resource, since,
    )  # fmt: skip
    return {row["day"]: row["amount"] for row in rows}


# Figures for /metrics (every five minutes)


async def users_by_tier(conn: Connection) -> dict[str, int]:
    """Return the number of accounts per tier."""
    rows = await conn.fetch("SELECT subscription_tier, count(*) AS n FROM auth.users GROUP BY subscription_tier")
    return {row["subscription_tier"]: row["n"] for row in rows}


async def users_active(conn: Connection, now: datetime) -> dict[str, int]:
    """Return how many accounts were here in the last day, week and month."""
    row = await conn.fetchrow(
        "SELECT count(*) FILTER (WHERE last_seen_at > $1::timestamptz - interval '1 day') AS \"1d\","
        ' count(*) FILTER (WHERE last_seen_at > $1::timestamptz - interval \'7 days\') AS "7d", count(*) AS "30d"'
        " FROM auth.users WHERE last_seen_at > $1::timestamptz - interval '30 days'",
        now,
    )
    return dict(_one(row).items())


async def quota_bands(
    conn: Connection, resource: Resource, window: Window, caps: Mapping[str, int]
) -> dict[tuple[str, int], int]:
    """Return the number of accounts per (tier, band), band being 0, 50, 80, 95 or 100 percent used."""
    rows = await conn.fetch(
        """
        SELECT u.subscription_tier AS tier,
               CASE WHEN c.cap <= 0 OR coalesce(b.used, 0) * 100 < c.cap * 50 THEN 0
                    WHEN b.used * 100 < c.cap * 80 THEN 50 WHEN b.used * 100 < c.cap * 95 THEN 80
                    WHEN b.used < c.cap THEN 95 ELSE 100 END AS band,
               count(*) AS n
          FROM auth.users AS u
          JOIN unnest($3::text[], $4::bigint[]) AS c (tier, cap) ON c.tier = u.subscription_tier
          LEFT JOIN auth.quota_balance AS b ON b.user_id = u.id AND b.resource = $1 AND b.window_start = $2
         GROUP BY 1, 2
        """,
        resource, window.start, list(caps), list(caps.values()),
    )  # fmt: skip
    return {(row["tier"], row["band"]): row["n"] for row in rows}


async def open_holds(conn: Connection) -> tuple[int, datetime | None]:
    """Return the number of open holds and the birth of the oldest."""
    row = _one(
        await conn.fetchrow("SELECT count(*) AS n, min(created_at) AS oldest FROM auth.quota_hold WHERE state = 'held'")
    )
    return row["n"], row["oldest"]


async def drift(conn: Connection) -> dict[str, int]:
    """Return by how much balances and ledger differ per resource; all 0 while QUOTA-2 holds."""
    rows = await conn.fetch("SELECT resource, drift FROM auth.quota_drift()")
    return {row["resource"]: row["drift"] for row in rows}


def _one(row: Record | None) -> Record:
    if row is None:
        raise LookupError("a statement that always answers with one row answered with none")
    return row
