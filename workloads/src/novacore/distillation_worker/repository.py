"""All SQL of distillation: how far each user's reflections are read, the runs, and the lock that keeps them apart."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import UUID

from novacore.common.database import Connection
from novacore.distillation_worker.schemas import Counts

LOCK_KEY = 0x6E6F7664
"""Advisory lock of a run ("novd"). It belongs to a connection: a killed run frees it."""

Cursor = tuple[datetime, UUID]


@dataclass(frozen=True, slots=True)
class Watermark:
    """`last`: read and done. `until`: the end of a page that was begun and not finished."""

    last: Cursor | None = None
    until: Cursor | None = None


async def try_lock(conn: Connection) -> bool:
    """Take the lock for this connection; False when another run has it."""
    return bool(await conn.fetchval("SELECT pg_try_advisory_lock($1)", LOCK_KEY))


async def unlock(conn: Connection) -> None:
    """Give the lock back."""
    await conn.execute("SELECT pg_advisory_unlock($1)", LOCK_KEY)


async def begin_run(conn: Connection, started_at: datetime) -> UUID:
    """Write a run and return its id. Runs left open were killed: the lock is ours, so none of them is at work."""
    await conn.execute("UPDATE distill.runs SET result = 'error', ended_at = $1 WHERE result = 'running'", started_at)
    run_id: UUID = await conn.fetchval("INSERT INTO distill.runs (started_at) VALUES ($1) RETURNING id", started_at)
    return run_id


async def end_run(conn: Connection, run_id: UUID, *, ended_at: datetime, result: str, counts: Counts) -> None:
    """Write how a run ended."""
    await conn.execute(
        "UPDATE distill.runs SET ended_at = $2, result = $3, counts = $4 WHERE id = $1",
        run_id, ended_at, result, asdict(counts),
    )  # fmt: skip


async def last_runs(conn: Connection) -> tuple[datetime | None, datetime | None]:
    """Return the start of the last good run (`ok`, `partial`) and of the last attempt."""
    row = await conn.fetchrow(
        "SELECT max(started_at) FILTER (WHERE result IN ('ok', 'partial')) AS good, max(started_at) AS attempt"
        " FROM (SELECT started_at, result FROM distill.runs ORDER BY started_at DESC LIMIT 100) AS r"
    )
    assert row is not None
    return row["good"], row["attempt"]


async def last_success(conn: Connection) -> datetime | None:
    """Return the end of the last run that was `ok`."""
    ended: datetime | None = await conn.fetchval(
        "SELECT ended_at FROM distill.runs WHERE result = 'ok' ORDER BY started_at DESC LIMIT 1"
    )
    return ended


async def watermark(conn: Connection, user_id: UUID) -> Watermark:
    """Return where a user stands."""
    row = await conn.fetchrow(
        "SELECT last_reflection_at, last_id, page_until_at, page_until_id FROM distill.watermarks WHERE user_id = $1",
        user_id,
    )
    if row is None:
        return Watermark()
    return Watermark(
        last=_cursor(row["last_reflection_at"], row["last_id"]),
        until=_cursor(row["page_until_at"], row["page_until_id"]),
    )


async def begin_page(conn: Connection, user_id: UUID, until: Cursor) -> None:
    """Note the end of the page about to be worked on, so that a run after a kill reads the same one."""
    await conn.execute(
        "INSERT INTO distill.watermarks (user_id, page_until_at, page_until_id) VALUES ($1, $2, $3)"
        " ON CONFLICT (user_id) DO UPDATE SET page_until_at = $2, page_until_id = $3, updated_at = now()",
        user_id, *until,
    )  # fmt: skip


async def end_page(conn: Connection, user_id: UUID, last: Cursor) -> None:
    """Move the watermark: everything up to `last` is confirmed."""
    await conn.execute(
        "UPDATE distill.watermarks SET last_reflection_at = $2, last_id = $3, page_until_at = NULL,"
        " page_until_id = NULL, updated_at = now() WHERE user_id = $1",
        user_id, *last,
    )  # fmt: skip


def _cursor(at: datetime | None, id_: UUID | None) -> Cursor | None:
    return (at, id_) if at is not None and id_ is not None else None
