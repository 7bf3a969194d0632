"""All SQL of memory. Functions take a connection inside `Database.transaction(user_id)`: row-level security is on,
and every statement names the user besides.

`lock_user` comes first in each writing transaction (see the migration: it makes a user's writers serial).
Visible: `visibility = 'user'`, not superseded, not expired. Nothing else is ever read for a user.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, cast
from uuid import UUID

import asyncpg

from novacore.common.database import Connection
from novacore.memory.rules import Tier

K1, B = 1.2, 0.75
"""Okapi BM25's usual constants (Robertson and Zaragoza, 2009)."""
LEXICAL_WEIGHT, VECTOR_WEIGHT, NEIGHBOUR_WEIGHT = 0.6, 0.4, 0.3
"""The fusion of ranks, chosen on the LoCoMo conversations at turn level."""
RECENCY_BOOST, ACCESS_BOOST = 0.02, 0.02
CONTRADICTION_COSINE = 0.9

STORE_ROUTE = "POST /memory/store"
"""Name of the storing route in memory.idempotency."""

_VISIBLE = "m.visibility = 'user' AND m.valid_to IS NULL AND (m.expires_at IS NULL OR m.expires_at > now())"
_COLUMNS = (
    "m.id, m.user_id, m.session_id, m.type, x.input_context, x.output_response, m.outcome, m.emotional_weight,"
    " m.confidence_score, m.constitution_valid, m.tags, m.tier, m.access_count, m.last_accessed_at, m.created_at,"
    " m.updated_at, m.expires_at"
)
_FROM = "memory.memories AS m JOIN memory.memory_texts AS x ON x.memory_id = m.id"


@dataclass(frozen=True, slots=True)
class NewMemory:
    """A memory to be written, with its vector (384 numbers, or None when hidden) and its terms."""

    id: UUID
    user_id: UUID
    session_id: str | None
    type: str
    input_context: str
    output_response: str | None
    outcome: str
    emotional_weight: float | None
    confidence_score: float | None
    tags: Sequence[str]
    tier: Tier
    expires_at: datetime | None
    size_bytes: int
    visibility: Literal["user", "system"] = "user"
    embedding: Sequence[float] | None = None
    model_id: str | None = None
    terms: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Removed:
    """A memory that is gone, and what it weighed."""

    id: UUID
    tier: Tier
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Hit:
    """A memory found: its score 0..1 and the parts it is made of."""

    id: UUID
    tier: Tier
    score: float
    reasons: dict[str, float]


# --- a user's memories ------------------------------------------------------------------------------------------------


class UnknownUserError(LookupError):
    """The user was deleted while his token was still good."""


async def lock_user(conn: Connection, user_id: UUID) -> None:
    """Take the user's place in the line of writers; made on first use. UnknownUserError without such a user."""
    try:
        await conn.execute(
            "INSERT INTO memory.user_stats (user_id) VALUES ($1)"
            " ON CONFLICT (user_id) DO UPDATE SET updated_at = now()",
            user_id,
        )
    except asyncpg.ForeignKeyViolationError:
        raise UnknownUserError(user_id) from None


async def insert(conn: Connection, new: NewMemory) -> dict[str, Any]:
    """Write row, text, vector, postings, frequencies and totals; return the memory. Needs `lock_user`."""
    documents = new.terms or {}
    length = sum(documents.values())
    await conn.execute(
        "INSERT INTO memory.memories (id, user_id, session_id, type, outcome, emotional_weight, confidence_score, tags,"
        " embedding, model_id, tokens, size_bytes, visibility, tier, expires_at, created_at, valid_from)"
        " SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9::real[]::halfvec(384), $10, $11, $12, $13, $14, $15, c.at, c.at"
        " FROM (SELECT clock_timestamp() AS at) AS c",
        new.id, new.user_id, new.session_id, new.type, new.outcome, new.emotional_weight, new.confidence_score,
        list(new.tags), new.embedding, new.model_id, length, new.size_bytes, new.visibility, new.tier, new.expires_at,
    )  # fmt: skip
    await conn.execute(
        "INSERT INTO memory.memory_texts (memory_id, input_context, output_response) VALUES ($1, $2, $3)",
        new.id, new.input_context, new.output_response,
    )  # fmt: skip
    if new.visibility == "user":
        await _index(conn, new, documents)
        await _add_totals(conn, new.user_id, documents=1, terms=length)
        if new.tier != "stm":
            await add_bytes(conn, new.user_id, new.size_bytes)
    row = await conn.fetchrow(f"SELECT {_COLUMNS} FROM {_FROM} WHERE m.user_id = $1 AND m.id = $2", new.user_id, new.id)  # noqa: S608 - constants
    assert row is not None
    return dict(row)


async def _index(conn: Connection, new: NewMemory, documents: Mapping[str, int]) -> None:
    names = sorted(documents)
    await conn.execute(
        "INSERT INTO memory.memory_terms (user_id, term, memory_id, tf)"
        " SELECT $1, t.term, $2, t.tf FROM unnest($3::text[], $4::int[]) AS t (term, tf)",
        new.user_id, new.id, names, [documents[name] for name in names],
    )  # fmt: skip
    await conn.execute(
        "INSERT INTO memory.memory_df AS d (user_id, term, df) SELECT $1, t.term, 1 FROM unnest($2::text[]) AS t (term)"
        " ON CONFLICT (user_id, term) DO UPDATE SET df = d.df + 1",
        new.user_id, names,
    )  # fmt: skip


async def _add_totals(conn: Connection, user_id: UUID, *, documents: int, terms: int) -> None:
    await conn.execute(
        "UPDATE memory.user_stats SET documents = documents + $2, total_terms = total_terms + $3 WHERE user_id = $1",
        user_id, documents, terms,
    )  # fmt: skip


async def add_bytes(conn: Connection, user_id: UUID, delta: int) -> None:
    """Change the billed bytes of a user."""
    await conn.execute("UPDATE memory.user_stats SET bytes = bytes + $2 WHERE user_id = $1", user_id, delta)


async def get(conn: Connection, user_id: UUID, memory_id: UUID, *, lock: bool = False) -> dict[str, Any] | None:
    """Return a visible memory with its `size_bytes`, or None. `lock` keeps it until the transaction ends."""
    row = await conn.fetchrow(
        f"SELECT {_COLUMNS}, m.size_bytes FROM {_FROM} WHERE m.user_id = $1 AND m.id = $2 AND {_VISIBLE}"  # noqa: S608 - constants
        + (" FOR UPDATE OF m" if lock else ""),
        user_id, memory_id,
    )  # fmt: skip
    return dict(row) if row else None


async def touch(conn: Connection, user_id: UUID, ids: Sequence[UUID]) -> dict[UUID, dict[str, Any]]:
    """Count an access of each visible memory; return id → memory as it is afterwards."""
    rows = await conn.fetch(
        "UPDATE memory.memories AS m SET access_count = m.access_count + 1, last_accessed_at = now()"  # noqa: S608 - constants
        f" FROM memory.memory_texts AS x WHERE x.memory_id = m.id AND m.user_id = $1 AND m.id = ANY($2) AND {_VISIBLE}"
        f" RETURNING {_COLUMNS}",
        user_id, list(ids),
    )  # fmt: skip
    return {row["id"]: dict(row) for row in rows}


async def fetch(conn: Connection, user_id: UUID, ids: Sequence[UUID]) -> dict[UUID, dict[str, Any]]:
    """Return id → memory of those that are visible."""
    rows = await conn.fetch(
        f"SELECT {_COLUMNS} FROM {_FROM} WHERE m.user_id = $1 AND m.id = ANY($2) AND {_VISIBLE}",  # noqa: S608 - constants
        user_id, list(ids),
    )  # fmt: skip
    return {row["id"]: dict(row) for row in rows}


async def list_page(
    conn: Connection, user_id: UUID, *, tier: str | None, type_: str | None, limit: int, offset: int
) -> tuple[list[dict[str, Any]], int]:
    """Return a page of visible memories, newest first, and how many there are under the same filters."""
    where = f"m.user_id = $1 AND {_VISIBLE} AND ($2::text IS NULL OR m.tier = $2) AND ($3::text IS NULL OR m.type = $3)"
    total = await conn.fetchval(f"SELECT count(*) FROM memory.memories AS m WHERE {where}", user_id, tier, type_)  # noqa: S608 - constants
    rows = await conn.fetch(
        f"SELECT {_COLUMNS} FROM {_FROM} WHERE {where} ORDER BY m.created_at DESC, m.id DESC LIMIT $4 OFFSET $5",  # noqa: S608 - constants
        user_id, tier, type_, limit, offset,
    )  # fmt: skip
    return [dict(row) for row in rows], cast("int", total)


async def newest(
    conn: Connection, user_id: UUID, tier: str, limit: int, *, confidence_above: float | None = None
) -> list[dict[str, Any]]:
    """Return the newest visible memories of a tier; one of unstated confidence passes any bound."""
    rows = await conn.fetch(
        f"SELECT {_COLUMNS} FROM {_FROM} WHERE m.user_id = $1 AND m.tier = $2 AND {_VISIBLE}"  # noqa: S608 - constants
        " AND ($4::real IS NULL OR coalesce(m.confidence_score, 1) > $4)"
        " ORDER BY m.created_at DESC, m.id DESC LIMIT $3",
        user_id, tier, limit, confidence_above,
    )  # fmt: skip
    return [dict(row) for row in rows]


async def most_used(conn: Connection, user_id: UUID, limit: int) -> list[tuple[UUID, int]]:
    """Return (id, access count) of the most used visible `itm` memories; what the Redis ranking is rebuilt from."""
    rows = await conn.fetch(
        f"SELECT m.id, m.access_count FROM memory.memories AS m WHERE m.user_id = $1 AND m.tier = 'itm' AND {_VISIBLE}"  # noqa: S608 - constants
        " ORDER BY m.access_count DESC, m.created_at DESC LIMIT $2",
        user_id, limit,
    )  # fmt: skip
    return [(row["id"], row["access_count"]) for row in rows]


async def recent_turns(
    conn: Connection, user_id: UUID, session_id: str, *, since: datetime, limit: int
) -> list[dict[str, Any]]:
    """Return the newest conversation memories of a session since a time, oldest first."""
    rows = await conn.fetch(
        f"SELECT x.input_context, x.output_response, m.created_at FROM {_FROM}"  # noqa: S608 - constants
        f" WHERE m.user_id = $1 AND m.session_id = $2 AND m.type = 'conversation' AND m.created_at > $3 AND {_VISIBLE}"
        " ORDER BY m.created_at DESC, m.id DESC LIMIT $4",
        user_id, session_id, since, limit,
    )  # fmt: skip
    return [dict(row) for row in reversed(rows)]


async def update(conn: Connection, user_id: UUID, memory_id: UUID, changes: Mapping[str, Any]) -> dict[str, Any] | None:
    """Set columns (`outcome emotional_weight confidence_score tags tier expires_at size_bytes`) of a visible memory."""
    allowed = {"outcome", "emotional_weight", "confidence_score", "tags", "tier", "expires_at", "size_bytes"}
    assert set(changes) <= allowed
    names = sorted(changes)
    sets = ", ".join(f"{name} = ${at}" for at, name in enumerate(names, start=3))
    row = await conn.fetchrow(
        f"UPDATE memory.memories AS m SET {sets}, updated_at = now() FROM memory.memory_texts AS x"  # noqa: S608 - names from `allowed`
        f" WHERE x.memory_id = m.id AND m.user_id = $1 AND m.id = $2 AND {_VISIBLE} RETURNING {_COLUMNS}",
        user_id, memory_id, *(changes[name] for name in names),
    )  # fmt: skip
    return dict(row) if row else None


async def delete(conn: Connection, user_id: UUID, memory_id: UUID) -> Removed | None:
    """Remove a visible memory with all that was made from it. Needs `lock_user`."""
    removed = await _remove(
        conn,
        user_id,
        await conn.fetch(
            f"SELECT m.id FROM memory.memories AS m WHERE m.user_id = $1 AND m.id = $2 AND {_VISIBLE}",  # noqa: S608 - constants
            user_id, memory_id,
        ),
    )  # fmt: skip
    return removed[0] if removed else None


async def delete_expired(conn: Connection, user_id: UUID, limit: int) -> list[Removed]:
    """Remove up to `limit` expired memories of a user. Needs `lock_user`."""
    rows = await conn.fetch(
        "SELECT m.id FROM memory.memories AS m WHERE m.user_id = $1 AND m.visibility = 'user' AND m.expires_at <= now()"
        " ORDER BY m.expires_at LIMIT $2",
        user_id, limit,
    )  # fmt: skip
    return await _remove(conn, user_id, rows)


async def _remove(conn: Connection, user_id: UUID, rows: Sequence[asyncpg.Record]) -> list[Removed]:
    ids = [row["id"] for row in rows]
    if not ids:
        return []
    await conn.execute(
        "WITH gone AS (SELECT term, count(*)::int AS n FROM memory.memory_terms"
        "               WHERE user_id = $1 AND memory_id = ANY($2) GROUP BY term),"
        " emptied AS (DELETE FROM memory.memory_df AS d USING gone AS g"
        "              WHERE d.user_id = $1 AND d.term = g.term AND d.df <= g.n)"
        " UPDATE memory.memory_df AS d SET df = d.df - g.n FROM gone AS g"
        "  WHERE d.user_id = $1 AND d.term = g.term AND d.df > g.n",
        user_id, ids,
    )  # fmt: skip
    deleted = await conn.fetch(
        "DELETE FROM memory.memories WHERE user_id = $1 AND id = ANY($2) RETURNING id, tier, size_bytes, tokens",
        user_id, ids,
    )  # fmt: skip
    await _add_totals(conn, user_id, documents=-len(deleted), terms=-sum(row["tokens"] for row in deleted))
    billed = sum(row["size_bytes"] for row in deleted if row["tier"] != "stm")
    if billed:
        await add_bytes(conn, user_id, -billed)
    return [Removed(row["id"], row["tier"], row["size_bytes"]) for row in deleted]


async def counts(conn: Connection, user_id: UUID) -> dict[str, tuple[int, int]]:
    """Return tier → (number, bytes) of the visible memories, of every tier that has one."""
    rows = await conn.fetch(
        "SELECT m.tier, count(*) AS items, sum(m.size_bytes)::bigint AS bytes FROM memory.memories AS m"  # noqa: S608 - constants
        f" WHERE m.user_id = $1 AND {_VISIBLE} GROUP BY m.tier",
        user_id,
    )
    return {row["tier"]: (row["items"], row["bytes"]) for row in rows}


# --- search -----------------------------------------------------------------------------------------------------------

# One statement: exact cosine over the user's rows, BM25 from the postings, a turn's neighbours in its session, both
# arms scaled to 0..1 over what the filters let through. The CTEs are materialised so that the query vector is converted
# once and the two arms read the same rows. $10: rank within each tier instead of over all (for a prompt's context).
_SEARCH = f"""
WITH q AS MATERIALIZED (SELECT $2::real[]::halfvec(384) AS v),
totals AS MATERIALIZED (
    SELECT s.documents::float8 AS n, greatest(s.total_terms, 1)::float8 / greatest(s.documents, 1) AS mean
      FROM memory.user_stats AS s WHERE s.user_id = $1),
seen AS MATERIALIZED (
    SELECT m.id, m.session_id, m.created_at, m.type, m.tier, m.confidence_score, m.access_count, m.tokens,
           CASE WHEN m.model_id = $4 THEN 1 - (m.embedding <=> q.v) ELSE 0 END AS cosine
      FROM memory.memories AS m, q WHERE m.user_id = $1 AND {_VISIBLE}),
hits AS MATERIALIZED (
    SELECT s.id,
           sum(ln(1 + (t.n - d.df + 0.5) / (d.df + 0.5))
               * p.tf * {K1 + 1} / (p.tf + {K1} * ({1 - B} + {B} * s.tokens / t.mean))) AS bm25
      FROM totals AS t, memory.memory_df AS d
      JOIN memory.memory_terms AS p ON p.user_id = d.user_id AND p.term = d.term
      JOIN seen AS s ON s.id = p.memory_id
     WHERE d.user_id = $1 AND d.term = ANY($3::text[])
     GROUP BY s.id),
turns AS (
    SELECT s.*, coalesce(h.bm25, 0) AS bm25, s.session_id IS NOT NULL AS in_session,
           coalesce(lag(h.bm25) OVER turn, 0) + coalesce(lead(h.bm25) OVER turn, 0) AS beside,
           lag(s.cosine) OVER turn AS before
      FROM seen AS s LEFT JOIN hits AS h ON h.id = s.id
    WINDOW turn AS (PARTITION BY s.session_id ORDER BY s.created_at, s.id)),
arms AS (
    SELECT u.*,
           u.bm25 + CASE WHEN u.in_session THEN {NEIGHBOUR_WEIGHT} * u.beside ELSE 0 END AS lexical,
           CASE WHEN u.in_session AND u.before IS NOT NULL THEN (u.cosine + u.before) / 2 ELSE u.cosine END AS vector
      FROM turns AS u
     WHERE ($5::text IS NULL OR u.tier = $5) AND ($6::text IS NULL OR u.type = $6)
       AND ($7::real IS NULL OR u.confidence_score >= $7)
       AND ($8::real IS NULL OR u.tier <> 'ltm' OR coalesce(u.confidence_score, 1) > $8)),
bounds AS (
    SELECT min(a.lexical) AS lo, max(a.lexical) AS hi, min(a.vector) AS v_lo, max(a.vector) AS v_hi FROM arms AS a),
scored AS (
    SELECT a.id, a.tier, a.created_at, a.cosine, a.bm25, a.lexical - a.bm25 AS neighbours,
           CASE WHEN b.hi > b.lo THEN (a.lexical - b.lo) / (b.hi - b.lo)
                WHEN a.lexical > 0 THEN 1 ELSE 0 END AS lexical,
           CASE WHEN b.v_hi > b.v_lo THEN (a.vector - b.v_lo) / (b.v_hi - b.v_lo)
                ELSE greatest(a.vector, 0) END AS vector,
           {RECENCY_BOOST} * exp(least(0, extract(epoch FROM a.created_at - now())) / (30 * 86400)) AS recency,
           {ACCESS_BOOST} * a.access_count / (a.access_count + 5.0) AS access
      FROM arms AS a, bounds AS b),
ranked AS (
    SELECT f.*, {LEXICAL_WEIGHT} * f.lexical + {VECTOR_WEIGHT} * f.vector + f.recency + f.access AS score
      FROM scored AS f),
placed AS (
    SELECT r.*, count(*) OVER () AS total,
           row_number() OVER (PARTITION BY CASE WHEN $10 THEN r.tier END
                              ORDER BY r.score DESC, r.created_at DESC, r.id) AS place
      FROM ranked AS r)
SELECT p.id, p.tier, p.score::float8, p.lexical::float8, p.vector::float8, p.cosine::float8, p.bm25::float8,
       p.neighbours::float8, p.recency::float8, p.access::float8, p.total
  FROM placed AS p WHERE p.place <= $9 ORDER BY p.score DESC, p.created_at DESC, p.id
"""  # noqa: S608 - constants of this module


@dataclass(frozen=True, slots=True)
class Query:
    """What to look for: the vector and terms of the query, and the filters."""

    embedding: Sequence[float]
    terms: Iterable[str]
    model_id: str
    limit: int
    tier: str | None = None
    type: str | None = None
    min_confidence: float | None = None
    ltm_above: float | None = None
    per_tier: bool = False


async def search(conn: Connection, user_id: UUID, query: Query) -> tuple[list[Hit], int]:
    """Return the best hits, and how many memories the filters let through. With `per_tier`, `limit` of each tier."""
    rows = await conn.fetch(
        _SEARCH, user_id, query.embedding, sorted(set(query.terms)), query.model_id, query.tier, query.type,
        query.min_confidence, query.ltm_above, query.limit, query.per_tier,
    )  # fmt: skip
    parts = ("lexical", "vector", "cosine", "bm25", "neighbours", "recency", "access")
    hits = [
        Hit(row["id"], row["tier"], min(1.0, row["score"]), {part: round(row[part], 4) for part in parts})
        for row in rows
    ]
    return hits, rows[0]["total"] if rows else 0


# --- storage ----------------------------------------------------------------------------------------------------------


async def add_charge(conn: Connection, user_id: UUID, charge_id: UUID, size: int) -> None:
    """Note that storage is about to be asked for. UnknownUserError without such a user."""
    try:
        await conn.execute(
            "INSERT INTO memory.storage_charges (id, user_id, size_bytes) VALUES ($1, $2, $3)", charge_id, user_id, size
        )
    except asyncpg.ForeignKeyViolationError:
        raise UnknownUserError(user_id) from None


async def take_charge(conn: Connection, user_id: UUID, charge_id: UUID) -> bool:
    """Use a charge up, or drop it. False when the sweep was faster."""
    status = await conn.execute("DELETE FROM memory.storage_charges WHERE user_id = $1 AND id = $2", user_id, charge_id)
    return status == "DELETE 1"


async def stale_charges(conn: Connection, older_than: timedelta, limit: int) -> list[tuple[UUID, UUID, int]]:
    """Return (id, user, bytes) of charges whose request died. Across users."""
    rows = await conn.fetch("SELECT id, user_id, size_bytes FROM memory.stale_charges($1, $2)", older_than, limit)
    return [(row["id"], row["user_id"], row["size_bytes"]) for row in rows]


async def billed_bytes(conn: Connection, user_id: UUID) -> tuple[int, int]:
    """Return (billed bytes, number) of the visible `itm` and `ltm` memories."""
    row = await conn.fetchrow(
        "SELECT coalesce(sum(m.size_bytes), 0)::bigint AS bytes, count(*) AS items FROM memory.memories AS m"  # noqa: S608 - constants
        f" WHERE m.user_id = $1 AND m.tier <> 'stm' AND {_VISIBLE}",
        user_id,
    )
    assert row is not None
    return row["bytes"], row["items"]


# --- reflections and what is distilled from them ----------------------------------------------------------------------


async def reflection_of_run(conn: Connection, user_id: UUID, run_id: UUID) -> tuple[UUID, UUID] | None:
    """Return (reflection, memory) of a run."""
    row = await conn.fetchrow(
        "SELECT id, memory_id FROM memory.reflections WHERE user_id = $1 AND run_id = $2", user_id, run_id
    )
    return (row["id"], row["memory_id"]) if row else None


async def insert_reflection(
    conn: Connection,
    user_id: UUID,
    memory_id: UUID,
    *,
    run_id: UUID,
    self_assessment: str,
    alignment_score: float,
    improvement_notes: str,
    metadata: Mapping[str, Any],
) -> UUID | None:
    """Write a reflection; None when the run has one. Needs `lock_user`: `created_at` has the order of commits."""
    return cast(
        "UUID | None",
        await conn.fetchval(
            "INSERT INTO memory.reflections (run_id, memory_id, user_id, self_assessment, alignment_score,"
            " improvement_notes, metadata, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, clock_timestamp())"
            " ON CONFLICT (run_id) DO NOTHING RETURNING id",
            run_id, memory_id, user_id, self_assessment, alignment_score, improvement_notes, dict(metadata),
        ),
    )  # fmt: skip


async def users_page(conn: Connection, after: UUID | None, limit: int) -> list[UUID]:
    """Return users who have memories, by id. Across users."""
    return [row["user_id"] for row in await conn.fetch("SELECT user_id FROM memory.users_page($1, $2)", after, limit)]


async def scan_reflections(
    conn: Connection,
    user_id: UUID,
    *,
    after: tuple[datetime, UUID] | None,
    until: tuple[datetime, UUID] | None,
    limit: int,
) -> list[dict[str, Any]]:
    """Return reflections with their memory's fields, oldest first: after one cursor, up to and including another."""
    rows = await conn.fetch(
        "SELECT r.id, r.memory_id, r.created_at, m.tags, m.outcome, m.emotional_weight, m.confidence_score,"
        " coalesce(r.metadata #>> '{answers,improve}', r.improvement_notes) AS improvement"
        " FROM memory.reflections AS r JOIN memory.memories AS m ON m.id = r.memory_id"
        " WHERE r.user_id = $1 AND ($2::timestamptz IS NULL OR (r.created_at, r.id) > ($2, $3::uuid))"
        " AND ($4::timestamptz IS NULL OR (r.created_at, r.id) <= ($4, $5::uuid))"
        " ORDER BY r.created_at, r.id LIMIT $6",
        user_id, *(after or (None, None)), *(until or (None, None)), limit,
    )  # fmt: skip
    return [dict(row) for row in rows]


def source_hash(source_reflections: Iterable[UUID]) -> bytes:
    """Return the SHA-256 of a set of reflections, whatever their order."""
    return hashlib.sha256(b"".join(sorted(one.bytes for one in set(source_reflections)))).digest()


@dataclass(frozen=True, slots=True)
class NewPrinciple:
    """A principle to be written."""

    user_id: UUID
    topic: str
    principle: str
    outcome: str
    confidence: float
    source_reflections: Sequence[UUID]
    embedding: Sequence[float]
    model_id: str


async def insert_principle(conn: Connection, new: NewPrinciple) -> tuple[UUID, bool]:
    """Write a principle; return its id and whether it is new (the set of sources decides)."""
    digest = source_hash(new.source_reflections)
    made = await conn.fetchval(
        "INSERT INTO memory.distilled_knowledge (user_id, source_reflections, source_hash, topic, principle, outcome,"
        " embedding, model_id, confidence) VALUES ($1, $2, $3, $4, $5, $6, $7::real[]::halfvec(384), $8, $9)"
        " ON CONFLICT (user_id, source_hash) DO NOTHING RETURNING id",
        new.user_id, sorted(set(new.source_reflections)), digest, new.topic, new.principle, new.outcome, new.embedding,
        new.model_id, new.confidence,
    )  # fmt: skip
    if made is not None:
        return cast("UUID", made), True
    found = await conn.fetchval(
        "SELECT id FROM memory.distilled_knowledge WHERE user_id = $1 AND source_hash = $2", new.user_id, digest
    )
    return cast("UUID", found), False


async def contradicted(conn: Connection, user_id: UUID, principle_id: UUID) -> list[UUID]:
    """Return older principles in force on the same topic, alike in words (cosine ≥ 0.9), of the opposite outcome."""
    rows = await conn.fetch(
        "SELECT o.id FROM memory.distilled_knowledge AS n JOIN memory.distilled_knowledge AS o ON o.user_id = n.user_id"
        " WHERE n.user_id = $1 AND n.id = $2 AND n.valid_to IS NULL AND o.valid_to IS NULL AND o.id <> n.id"
        " AND o.created_at < n.created_at AND o.topic = n.topic AND o.outcome <> n.outcome AND o.model_id = n.model_id"
        " AND 1 - (o.embedding <=> n.embedding) >= $3",
        user_id, principle_id, CONTRADICTION_COSINE,
    )  # fmt: skip
    return [row["id"] for row in rows]


async def supersede(conn: Connection, user_id: UUID, *, by: UUID, ids: Sequence[UUID]) -> int:
    """End the force of principles in favour of another; return how many had it. 0 when the other one is missing."""
    rows = await conn.fetch(
        "UPDATE memory.distilled_knowledge AS o SET valid_to = now(), superseded_by = n.id"
        " FROM memory.distilled_knowledge AS n WHERE n.user_id = $1 AND n.id = $2 AND o.user_id = $1"
        " AND o.id = ANY($3) AND o.id <> n.id AND o.valid_to IS NULL RETURNING o.id",
        user_id, by, list(ids),
    )  # fmt: skip
    return len(rows)


async def principles(
    conn: Connection, user_id: UUID, *, embedding: Sequence[float] | None, model_id: str, limit: int
) -> list[dict[str, Any]]:
    """Return principles in force: the nearest to a vector, or the newest without one."""
    rows = await conn.fetch(
        "WITH q AS MATERIALIZED (SELECT $2::real[]::halfvec(384) AS v)"
        " SELECT d.id, d.topic, d.principle, d.confidence FROM memory.distilled_knowledge AS d, q"
        " WHERE d.user_id = $1 AND d.valid_to IS NULL"
        " ORDER BY CASE WHEN q.v IS NOT NULL AND d.model_id = $3 THEN d.embedding <=> q.v END NULLS LAST,"
        " d.created_at DESC LIMIT $4",
        user_id, embedding, model_id, limit,
    )  # fmt: skip
    return [dict(row) for row in rows]


async def promote_used(conn: Connection, user_id: UUID, *, promote_at: int, limit: int) -> list[UUID]:
    """Make much-used `itm` memories `ltm`; return their ids. Both tiers weigh the same, so storage does not change."""
    rows = await conn.fetch(
        "UPDATE memory.memories SET tier = 'ltm', expires_at = NULL, updated_at = now() WHERE user_id = $1 AND id IN"  # noqa: S608 - constants
        " (SELECT m.id FROM memory.memories AS m WHERE m.user_id = $1 AND m.tier = 'itm' AND m.access_count >= $2"
        f" AND m.constitution_valid AND {_VISIBLE} ORDER BY m.access_count DESC, m.id LIMIT $3) RETURNING id",
        user_id, promote_at, limit,
    )  # fmt: skip
    return [row["id"] for row in rows]


async def exchanges(conn: Connection, user_id: UUID, keys: Mapping[str, UUID]) -> dict[UUID, dict[str, Any]]:
    """Return run → its exchange, for runs whose conversation memory was stored under an idempotency key of `keys`."""
    rows = await conn.fetch(
        f"SELECT i.key, m.session_id, x.input_context, x.output_response FROM memory.idempotency AS i"  # noqa: S608 - constants
        f" JOIN memory.memories AS m ON m.id = (i.response ->> 'id')::uuid"
        " JOIN memory.memory_texts AS x ON x.memory_id = m.id"
        f" WHERE i.user_id = $1 AND i.route = $2 AND i.key = ANY($3) AND m.user_id = $1 AND {_VISIBLE}",
        user_id, STORE_ROUTE, list(keys),
    )  # fmt: skip
    return {keys[row["key"]]: dict(row) for row in rows}


# --- across users -----------------------------------------------------------------------------------------------------


async def users_with_expired(conn: Connection, limit: int) -> list[UUID]:
    """Return owners of expired memories. Across users."""
    return [row["user_id"] for row in await conn.fetch("SELECT user_id FROM memory.users_with_expired($1)", limit)]


async def totals(conn: Connection) -> dict[str, tuple[int, int, int]]:
    """Return tier → (number, bytes, expired and not yet removed). Across users."""
    rows = await conn.fetch("SELECT tier, items, size_bytes, expired FROM memory.totals()")
    return {row["tier"]: (row["items"], row["size_bytes"], row["expired"]) for row in rows}
