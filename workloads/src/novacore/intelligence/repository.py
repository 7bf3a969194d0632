"""All SQL of intelligence, in the caller's transaction; row-level security shows the user's rows alone.

Whatever ends a run says `status IN ('queued', 'running')`: the first writer wins (RUN-1), the others see None.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from novacore.common.database import Connection
from novacore.intelligence.runs import Status


@dataclass(frozen=True, slots=True)
class NewRun:
    """What is written when a message is accepted."""

    id: UUID
    session_id: UUID
    user_id: UUID
    provider: str
    model: str
    reserved_tokens: int
    prompt_tokens: int
    policy_version: int
    remember: bool
    context_ids: tuple[str, ...]
    replica: str
    request_id: str
    message: str


@dataclass(frozen=True, slots=True)
class RunEnd:
    """What is written when a run ends."""

    status: Status
    prompt_tokens: int
    completion_tokens: int
    billed_tokens: int
    output: str
    policy_version: int | None = None
    error_code: str | None = None


async def find_session(conn: Connection, session_id: UUID, user_id: UUID) -> str | None:
    """Return the status of the user's session, None when there is no such one."""
    status: str | None = await conn.fetchval(
        "SELECT status FROM chat.sessions WHERE id = $1 AND user_id = $2", session_id, user_id
    )
    return status


async def find_key(conn: Connection, user_id: UUID, route: str, key: str) -> tuple[bytes, dict[str, Any] | None] | None:
    """Return body hash and answer of an Idempotency-Key in force."""
    row = await conn.fetchrow(
        "SELECT body_sha256, response FROM chat.idempotency"
        " WHERE user_id = $1 AND route = $2 AND key = $3 AND expires_at >= now()",
        user_id, route, key,
    )  # fmt: skip
    return (row["body_sha256"], row["response"]) if row else None


async def insert_run(conn: Connection, run: NewRun) -> None:
    """Write session (or its activity), run and prompt: from now on the message is kept."""
    await conn.execute(
        "INSERT INTO chat.sessions (id, user_id, model_name, prompt_count) VALUES ($1, $2, $3, 1)"
        " ON CONFLICT (id) DO UPDATE SET last_active_at = now(), model_name = EXCLUDED.model_name, status = 'active',"
        " ended_at = NULL, prompt_count = chat.sessions.prompt_count + 1"
        " WHERE chat.sessions.user_id = EXCLUDED.user_id",
        run.session_id, run.user_id, run.model,
    )  # fmt: skip
    await conn.execute(
        "INSERT INTO chat.runs (id, session_id, user_id, provider, model, hold_id, reserved_tokens, prompt_tokens,"
        " policy_version, remember, context_ids, replica, request_id)"
        " VALUES ($1, $2, $3, $4, $5, $1, $6, $7, $8, $9, $10, $11, $12)",
        run.id, run.session_id, run.user_id, run.provider, run.model, run.reserved_tokens, run.prompt_tokens,
        run.policy_version, run.remember, list(run.context_ids), run.replica, run.request_id,
    )  # fmt: skip
    await conn.execute(
        "INSERT INTO chat.prompts (run_id, session_id, user_id, input_text) VALUES ($1, $2, $3, $4)",
        run.id, run.session_id, run.user_id, run.message,
    )  # fmt: skip


async def mark_running(conn: Connection, run_id: UUID, user_id: UUID, *, provider: str, model: str) -> bool:
    """Note that a provider took the run (again, after a fallback). False: it was ended elsewhere."""
    return bool(
        await conn.fetchval(
            "UPDATE chat.runs SET status = 'running', started_at = coalesce(started_at, now()), heartbeat_at = now(),"
            " provider = $3, model = $4 WHERE id = $1 AND user_id = $2 AND status IN ('queued', 'running')"
            " RETURNING true",
            run_id, user_id, provider, model,
        )
    )  # fmt: skip


async def end_run(
    conn: Connection, run_id: UUID, user_id: UUID, end: RunEnd, *, follow_up_in: timedelta
) -> dict[str, Any] | None:
    """End a run and write its answer. Return what the steps after it need, or None when it had ended already."""
    row = await conn.fetchrow(
        "UPDATE chat.runs SET status = $3, prompt_tokens = $4, completion_tokens = $5, billed_tokens = $6,"
        " error_code = $7, ended_at = now(), follow_up_at = now() + $8, policy_version = coalesce($9, policy_version)"
        " WHERE id = $1 AND user_id = $2 AND status IN ('queued', 'running')"
        " RETURNING session_id, ended_at, context_ids, model,"
        " (extract(epoch FROM now() - created_at) * 1000)::int AS latency_ms",
        run_id, user_id, end.status.value, end.prompt_tokens, end.completion_tokens, end.billed_tokens,
        end.error_code, follow_up_in, end.policy_version,
    )  # fmt: skip
    if row is None:
        return None
    asked = await conn.fetchval(
        "UPDATE chat.prompts SET output_text = $3, tokens_used = $4, latency_ms = $5"
        " WHERE run_id = $1 AND user_id = $2 RETURNING input_text",
        run_id, user_id, end.output, end.billed_tokens, row["latency_ms"],
    )  # fmt: skip
    await conn.execute(
        "UPDATE chat.sessions SET last_active_at = now(), model_name = $3 WHERE id = $1 AND user_id = $2",
        row["session_id"], user_id, row["model"],
    )  # fmt: skip
    return dict(row) | {"input_text": asked}


async def ended_run(conn: Connection, run_id: UUID, user_id: UUID) -> dict[str, Any] | None:
    """Return an ended run with its exchange and what is still owed for it."""
    row = await conn.fetchrow(
        "SELECT r.id, r.session_id, r.status, r.model, r.billed_tokens, r.prompt_tokens, r.completion_tokens,"
        " r.error_code, r.remember, r.ended_at, r.stm_at, r.memory_at, r.request_id,"
        " p.input_text, p.output_text, p.latency_ms"
        " FROM chat.runs AS r JOIN chat.prompts AS p ON p.run_id = r.id"
        " WHERE r.id = $1 AND r.user_id = $2 AND r.ended_at IS NOT NULL",
        run_id, user_id,
    )  # fmt: skip
    return dict(row) if row else None


async def note_followed_up(
    conn: Connection, run_id: UUID, user_id: UUID, *, stm: bool, memory: bool, all_done: bool
) -> None:
    """Note which steps after the end are confirmed; with `all_done` nothing is owed any more."""
    await conn.execute(
        "UPDATE chat.runs SET stm_at = CASE WHEN $3 THEN coalesce(stm_at, now()) ELSE stm_at END,"
        " memory_at = CASE WHEN $4 THEN coalesce(memory_at, now()) ELSE memory_at END,"
        " follow_up_at = CASE WHEN $5 THEN NULL ELSE follow_up_at END WHERE id = $1 AND user_id = $2",
        run_id, user_id, stm, memory, all_done,
    )  # fmt: skip


async def request_cancel(conn: Connection, run_id: UUID, user_id: UUID) -> str | None:
    """Ask whoever generates the run to stop. Return its status, None when there is no such run."""
    status: str | None = await conn.fetchval(
        "UPDATE chat.runs SET cancel_requested = cancel_requested OR status IN ('queued', 'running')"
        " WHERE id = $1 AND user_id = $2 RETURNING status",
        run_id, user_id,
    )  # fmt: skip
    return status


async def find_run(conn: Connection, run_id: UUID, user_id: UUID) -> dict[str, Any] | None:
    """Return where a run stands. Until it has ended, `tokens_used` is what its last heartbeat told."""
    row = await conn.fetchrow(
        "SELECT id AS run_id, session_id, status, model, started_at, ended_at, heartbeat_at, prompt_tokens,"
        " completion_tokens, error_code, coalesce(billed_tokens, CASE WHEN completion_tokens > 0"
        " THEN prompt_tokens + completion_tokens ELSE 0 END) AS tokens_used"
        " FROM chat.runs WHERE id = $1 AND user_id = $2",
        run_id, user_id,
    )  # fmt: skip
    return dict(row) if row else None


async def list_sessions(conn: Connection, user_id: UUID, *, limit: int) -> list[dict[str, Any]]:
    """Return the user's sessions, newest first."""
    rows = await conn.fetch(
        "SELECT id, status, model_name, created_at, ended_at, prompt_count FROM chat.sessions"
        " WHERE user_id = $1 ORDER BY created_at DESC, id LIMIT $2",
        user_id, limit,
    )  # fmt: skip
    return [dict(row) for row in rows]


async def history(conn: Connection, session_id: UUID, user_id: UUID, *, limit: int) -> list[dict[str, Any]]:
    """Return the last `limit` exchanges of a session, oldest first."""
    rows = await conn.fetch(
        "SELECT * FROM (SELECT id, input_text, output_text, tokens_used, latency_ms, created_at FROM chat.prompts"
        " WHERE session_id = $1 AND user_id = $2 ORDER BY created_at DESC, id DESC LIMIT $3) AS last"
        " ORDER BY created_at, id",
        session_id, user_id, limit,
    )  # fmt: skip
    return [dict(row) for row in rows]


async def last_answered(conn: Connection, session_id: UUID, user_id: UUID, *, limit: int) -> list[tuple[str, str]]:
    """Return the last answered exchanges of a session, oldest first."""
    rows = await conn.fetch(
        "SELECT input_text, output_text FROM chat.prompts"
        " WHERE session_id = $1 AND user_id = $2 AND output_text <> '' ORDER BY created_at DESC, id DESC LIMIT $3",
        session_id, user_id, limit,
    )  # fmt: skip
    return [(row["input_text"], row["output_text"]) for row in reversed(rows)]


async def end_session(conn: Connection, session_id: UUID, user_id: UUID) -> dict[str, Any] | None:
    """Close a session; closing it again tells the first time."""
    row = await conn.fetchrow(
        "UPDATE chat.sessions SET ended_at = CASE WHEN status = 'completed' THEN ended_at ELSE now() END,"
        " status = 'completed' WHERE id = $1 AND user_id = $2 RETURNING id, status, ended_at",
        session_id, user_id,
    )  # fmt: skip
    return dict(row) if row else None


# Across users: the named SECURITY DEFINER functions of 0001.


async def beat(conn: Connection, run_ids: Sequence[UUID], tokens: Sequence[int]) -> dict[UUID, bool]:
    """Renew the heartbeat of runs; return run -> whether its cancel was asked for. Runs ended elsewhere are missing."""
    rows = await conn.fetch(
        "SELECT run_id, cancel_requested FROM chat.beat($1::uuid[], $2::int[])", list(run_ids), list(tokens)
    )
    return {row["run_id"]: row["cancel_requested"] for row in rows}


async def stale_runs(conn: Connection, *, older_than: timedelta, limit: int = 20) -> list[tuple[UUID, UUID]]:
    """Return (run, user) of live runs without a heartbeat for that long."""
    rows = await conn.fetch("SELECT run_id, user_id FROM chat.stale_runs($1, $2)", older_than, limit)
    return [(row["run_id"], row["user_id"]) for row in rows]


async def claim_owing(conn: Connection, *, lease: timedelta, limit: int = 20) -> list[tuple[UUID, UUID, int]]:
    """Return (run, user, tries) of ended runs with steps owed, claimed for the lease."""
    rows = await conn.fetch("SELECT run_id, user_id, tries FROM chat.claim_owing($1, $2)", lease, limit)
    return [(row["run_id"], row["user_id"], row["tries"]) for row in rows]


async def abandon_idle_sessions(conn: Connection, *, idle: timedelta) -> int:
    """Mark sessions idle for that long as abandoned; return how many."""
    return int(await conn.fetchval("SELECT chat.abandon_idle_sessions($1)", idle))
