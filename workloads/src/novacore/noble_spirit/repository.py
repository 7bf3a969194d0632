"""SQL of schema `policy`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from asyncpg import ForeignKeyViolationError, Record

from novacore.noble_spirit.audit import Entry, Row, chain
from novacore.noble_spirit.document import ZERO_HASH

if TYPE_CHECKING:
    from novacore.common.database import Connection


@dataclass(frozen=True, slots=True)
class StoredPolicy:
    """A row of policy.policies."""

    id: UUID
    version: int
    policy_name: str
    description: str
    content: dict[str, Any] = field(repr=False)
    content_hash: bytes
    prev_hash: bytes
    kid: str
    signature: bytes
    proposed_by: UUID | None
    activated_by: UUID | None
    activated_at: datetime | None
    is_active: bool
    created_at: datetime


_COLUMNS = (
    "id, version, policy_name, description, policy_content AS content, content_hash, prev_hash, kid, signature,"
    " proposed_by, activated_by, activated_at, is_active, created_at"
)


def _policy(row: Record | None) -> StoredPolicy | None:
    return StoredPolicy(**dict(row.items())) if row is not None else None


async def lock(conn: Connection, name: str) -> None:
    """Wait for, and hold until the end of the transaction, a lock of that name."""
    await conn.execute("SELECT pg_advisory_xact_lock(hashtext($1))", f"policy.{name}")


async def active_version(conn: Connection) -> tuple[int, bytes] | None:
    """Return (version, content hash) of the policy in force. Cheap: asked every few seconds."""
    row = await conn.fetchrow("SELECT version, content_hash FROM policy.policies WHERE is_active")
    return (row["version"], row["content_hash"]) if row is not None else None


async def active_policy(conn: Connection) -> StoredPolicy | None:
    """Return the policy in force."""
    return _policy(await conn.fetchrow(f"SELECT {_COLUMNS} FROM policy.policies WHERE is_active"))  # noqa: S608 - constant


async def policy_of(conn: Connection, version: int) -> StoredPolicy | None:
    """Return a version."""
    return _policy(await conn.fetchrow(f"SELECT {_COLUMNS} FROM policy.policies WHERE version = $1", version))  # noqa: S608 - constant


async def last_version(conn: Connection) -> tuple[int, bytes]:
    """Return (version, content hash) of the newest version; (0, zeros) before the first."""
    row = await conn.fetchrow("SELECT version, content_hash FROM policy.policies ORDER BY version DESC LIMIT 1")
    return (row["version"], row["content_hash"]) if row is not None else (0, ZERO_HASH)


async def versions(conn: Connection, *, limit: int, offset: int) -> tuple[list[StoredPolicy], int]:
    """Return versions, newest first, and how many there are."""
    rows = await conn.fetch(
        f"SELECT {_COLUMNS} FROM policy.policies ORDER BY version DESC LIMIT $1 OFFSET $2",  # noqa: S608 - constant
        limit, offset,
    )  # fmt: skip
    total = await conn.fetchval("SELECT count(*) FROM policy.policies")
    return [policy for row in rows if (policy := _policy(row))], int(total)


async def add_policy(
    conn: Connection,
    *,
    version: int,
    policy_name: str,
    description: str,
    content: dict[str, Any],
    content_hash: bytes,
    prev_hash: bytes,
    kid: str,
    signature: bytes,
    proposed_by: UUID | None,
) -> UUID | None:
    """Store a version that is not in force; return its id, or None when the version exists."""
    found: UUID | None = await conn.fetchval(
        "INSERT INTO policy.policies (version, policy_name, description, policy_content, content_hash, prev_hash, kid,"
        " signature, proposed_by) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"
        " ON CONFLICT (version) DO NOTHING RETURNING id",
        version, policy_name, description, content, content_hash, prev_hash, kid, signature, proposed_by,
    )  # fmt: skip
    return found


async def activate(conn: Connection, version: int, *, by: UUID | None, now: datetime) -> None:
    """Put a version in force instead of the one that is."""
    await conn.execute("UPDATE policy.policies SET is_active = false WHERE is_active AND version <> $1", version)
    await conn.execute(
        "UPDATE policy.policies SET is_active = true, activated_by = $2, activated_at = $3 WHERE version = $1",
        version, by, now,
    )  # fmt: skip


async def append(conn: Connection, entries: Sequence[Entry]) -> None:
    """Append to the audit log, in the caller's transaction, one writer at a time."""
    await lock(conn, "audit")
    seq, held = await last_link(conn)
    for entry in entries:
        seq += 1
        digest = chain(
            held, seq=seq, action=entry.action, context=entry.context, at=entry.at, policy_id=entry.policy_id
        )
        user_id = entry.user_id
        for attempt in (1, 2):
            try:
                async with conn.transaction():
                    await conn.execute(
                        "INSERT INTO policy.policy_audit_log"
                        " (seq, policy_id, user_id, action, context, prev_hash, hash, created_at)"
                        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
                        seq, entry.policy_id, user_id, entry.action, entry.context, held, digest, entry.at,
                    )  # fmt: skip
                break
            except ForeignKeyViolationError:
                if attempt == 2:
                    raise
                user_id = None  # the account was deleted while the request ran; the row must not be lost
        held = digest


async def last_link(conn: Connection) -> tuple[int, bytes]:
    """Return (seq, hash) of the newest audit row; (0, zeros) before the first."""
    row = await conn.fetchrow("SELECT seq, hash FROM policy.policy_audit_log ORDER BY seq DESC LIMIT 1")
    return (row["seq"], row["hash"]) if row is not None else (0, ZERO_HASH)


async def audit_after(conn: Connection, seq: int, *, limit: int) -> list[Row]:
    """Return audit rows in order, after a number."""
    rows = await conn.fetch(
        "SELECT seq, action, context, created_at AS at, policy_id, prev_hash, hash FROM policy.policy_audit_log"
        " WHERE seq > $1 ORDER BY seq LIMIT $2",
        seq, limit,
    )  # fmt: skip
    return [Row(**dict(row.items())) for row in rows]


async def audit_page(conn: Connection, *, limit: int, offset: int) -> tuple[list[Record], int]:
    """Return audit rows, newest first, and how many there are."""
    rows = await conn.fetch(
        "SELECT a.seq, a.action, a.context, a.created_at, p.version FROM policy.policy_audit_log AS a"
        " LEFT JOIN policy.policies AS p ON p.id = a.policy_id ORDER BY a.seq DESC LIMIT $1 OFFSET $2",
        limit, offset,
    )  # fmt: skip
    return list(rows), int(await conn.fetchval("SELECT count(*) FROM policy.policy_audit_log"))
