"""The use cases of memory, for one user each. HTTP is in `endpoints`, SQL in `repository`, loops in `tasks`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

from novacore.common import errors
from novacore.common.clock import Clock
from novacore.common.database import Connection, Database
from novacore.common.errors import ServiceError
from novacore.common.idempotency import Idempotency
from novacore.common.ids import uuid7
from novacore.common.log import get_logger
from novacore.common.metrics import Metrics
from novacore.common.redis import RedisError
from novacore.memory import repository, rules
from novacore.memory.embeddings import Embedder
from novacore.memory.repository import NewMemory, NewPrinciple, Query
from novacore.memory.rules import Tier
from novacore.memory.schemas import (
    Batch,
    BatchResult,
    Context,
    ContextItm,
    ContextLtm,
    ContextRequest,
    DistilledCreate,
    DistilledRead,
    Exchange,
    Exchanges,
    Intermediate,
    MemoryCreate,
    MemoryList,
    MemoryRead,
    MemoryUpdate,
    Principle,
    QuotaCheck,
    ReflectionCreate,
    ReflectionRead,
    ScannedReflection,
    ScanPage,
    SearchHit,
    SearchRequest,
    SearchResponse,
    Stats,
    SupersedeRequest,
    Turn,
    TurnCreate,
    TurnStored,
    Usage,
    UsersPage,
)
from novacore.memory.schemas import (
    Turns as TurnsRead,
)
from novacore.memory.settings import MemoryRules
from novacore.memory.storage import Storage
from novacore.memory.text import frequencies, terms
from novacore.memory.turns import Ranking, Turns

log = get_logger()

MIB = 1 << 20
ITM_INPUT_CHARS = 200
CONTEXT_TURNS, CONTEXT_PRINCIPLES = 5, 2
REFLECTION_TAGS = ("reflection", "self-assessment", "alignment")
RUN_KEY_PREFIX = "run-"
"""intelligence stores the conversation of a run under `Idempotency-Key: run-<run id>`."""


class _Operations:
    """Counts operations by tier and result, whatever way they end."""

    def __init__(self, metrics: Metrics) -> None:
        self._counter = metrics.counter("novacore_memory_operations_total")

    @asynccontextmanager
    async def counted(self, op: str, tier: str | None = None) -> AsyncIterator[dict[str, str]]:
        """Yield a dict whose "tier" the body may set when it learns it."""
        seen = {"tier": tier or "ltm"}
        try:
            yield seen
        except ServiceError as error:
            self._counter.labels(op, seen["tier"], "ok" if error.status < 500 else "error").inc()
            raise
        except Exception:
            self._counter.labels(op, seen["tier"], "error").inc()
            raise
        self._counter.labels(op, seen["tier"], "ok").inc()


@dataclass(frozen=True, slots=True)
class _Indexed:
    """A text made searchable."""

    embedding: list[float]
    terms: Mapping[str, int]


class MemoryService:
    """Everything memory does for a user."""

    def __init__(
        self,
        *,
        db: Database,
        storage: Storage,
        embedder: Embedder,
        turns: Turns,
        ranking: Ranking,
        settings: MemoryRules,
        metrics: Metrics,
        clock: Clock,
        parallel_stores: int,
    ) -> None:
        self._db = db
        self._storage = storage
        self._embedder = embedder
        self._turns = turns
        self._ranking = ranking
        self._rules = settings
        self._clock = clock
        self._idempotency = Idempotency("memory")
        self._store_gate = asyncio.Semaphore(parallel_stores)
        self._operations = _Operations(metrics)
        self._promotions = metrics.counter("novacore_memory_promotions_total")
        self._search_seconds = metrics.histogram("novacore_memory_search_duration_seconds").labels("fused")
        self._search_results = metrics.histogram("novacore_memory_search_results")

    # --- one memory ---------------------------------------------------------------------------------------------------

    async def store(
        self, user_id: UUID, body: MemoryCreate, *, key: str | None, raw: bytes
    ) -> tuple[int, dict[str, Any]]:
        """Write a memory; return status and body (of the first request with this key). 402, 429, 503 for storage."""
        async with self._operations.counted("store", body.tier), self._store_gate:
            indexed = await self._index(body.input_context, body.output_response)
            size = rules.size_bytes(body.input_context, body.output_response, body.tags)
            fresh: list[UUID] = []  # stays empty when an earlier request's answer is repeated

            async def produce(conn: Connection) -> tuple[int, dict[str, Any]]:
                charge = await self._storage.charge(user_id, size) if rules.is_billed(body.tier) else None
                await repository.lock_user(conn, user_id)
                if charge is not None:
                    await self._storage.use(conn, user_id, charge)
                row = await repository.insert(
                    conn,
                    NewMemory(
                        id=uuid7(),
                        user_id=user_id,
                        session_id=body.session_id,
                        type=body.type,
                        input_context=body.input_context,
                        output_response=body.output_response,
                        outcome=body.outcome,
                        emotional_weight=body.emotional_weight,
                        confidence_score=body.confidence_score,
                        tags=body.tags,
                        tier=body.tier,
                        expires_at=self._expiry(body.tier),
                        size_bytes=size,
                        embedding=indexed.embedding,
                        model_id=self._embedder.model.model_id,
                        terms=indexed.terms,
                    ),
                )
                fresh.append(row["id"])
                return 201, _read(row).model_dump(mode="json")

            status, answer = await self._run_once(user_id, key, raw, produce)
            if body.tier == "itm":
                await self._rank(user_id, [(one, 0) for one in fresh])
            return status, answer

    async def retrieve(self, user_id: UUID, memory_id: UUID) -> MemoryRead:
        """Return a memory and count the access. 404."""
        async with self._operations.counted("get") as seen:
            async with self._db.transaction(user_id) as conn:
                row = (await repository.touch(conn, user_id, [memory_id])).get(memory_id)
            if row is None:
                raise errors.not_found()
            seen["tier"] = row["tier"]
            await self._rank_rows(user_id, [row])
            return _read(row)

    async def list_page(
        self, user_id: UUID, *, tier: Tier | None, type_: str | None, limit: int, offset: int
    ) -> MemoryList:
        """Return a page, newest first."""
        async with self._operations.counted("list", tier), self._db.transaction(user_id, readonly=True) as conn:
            rows, total = await repository.list_page(conn, user_id, tier=tier, type_=type_, limit=limit, offset=offset)
            return MemoryList(memories=[_read(row) for row in rows], total=total, limit=limit, offset=offset)

    async def update(self, user_id: UUID, memory_id: UUID, body: MemoryUpdate) -> MemoryRead:
        """Change a memory; a tier only upwards (422). Storage is taken or given back as the size changes."""
        wanted = body.model_dump(include=body.model_fields_set)
        async with self._operations.counted("promote" if "tier" in wanted else "store", body.tier):
            return await self._change(user_id, memory_id, wanted)

    async def promote(self, user_id: UUID, memory_id: UUID, target: Tier) -> MemoryRead:
        """Move a memory to a longer-lived tier; 422 for any other."""
        async with self._operations.counted("promote", target):
            return await self._change(user_id, memory_id, {"tier": target}, must_rise=True)

    async def delete(self, user_id: UUID, memory_id: UUID) -> None:
        """Remove a memory and give its storage back. 404."""
        async with self._operations.counted("delete") as seen:
            async with self._db.transaction(user_id) as conn:
                await self._lock(conn, user_id)
                removed = await repository.delete(conn, user_id, memory_id)
                if removed is None:
                    raise errors.not_found()
                seen["tier"] = removed.tier
                if rules.is_billed(removed.tier):
                    await self._storage.refund(conn, user_id, removed.size_bytes, key=f"memory:{removed.id}:deleted")
            await self._unrank(user_id, [memory_id])

    async def _change(
        self, user_id: UUID, memory_id: UUID, wanted: dict[str, Any], *, must_rise: bool = False
    ) -> MemoryRead:
        async with self._db.transaction(user_id, readonly=True) as conn:
            before = await repository.get(conn, user_id, memory_id)
        if before is None:
            raise errors.not_found()
        old, new = _weight(before), self._after(before, wanted, must_rise=must_rise)
        charge = await self._storage.charge(user_id, new - old) if new > old else None
        async with self._db.transaction(user_id) as conn:
            await self._lock(conn, user_id)
            now = await repository.get(conn, user_id, memory_id, lock=True)
            if now is None or (now["tier"], now["size_bytes"]) != (before["tier"], before["size_bytes"]):
                # The charge stays behind and the sweep gives it back.
                raise errors.not_found() if now is None else errors.conflict(detail="The memory was changed meanwhile.")
            if charge is not None:
                await self._storage.use(conn, user_id, charge)
            changes = dict(wanted)
            if "tags" in wanted:
                changes["size_bytes"] = rules.size_bytes(now["input_context"], now["output_response"], wanted["tags"])
            if wanted.get("tier", now["tier"]) != now["tier"]:
                changes["expires_at"] = self._expiry(wanted["tier"])
            row = await repository.update(conn, user_id, memory_id, changes)
            assert row is not None
            if new != old:
                await repository.add_bytes(conn, user_id, new - old)
            await self._storage.refund(conn, user_id, old - new, key=f"memory:{memory_id}:shrunk:{uuid7()}")
        if row["tier"] != now["tier"]:
            self._promotions.labels(now["tier"], row["tier"]).inc()
            await self._unrank(user_id, [memory_id])
        await self._rank_rows(user_id, [row])
        return _read(row)

    def _after(self, before: Mapping[str, Any], wanted: Mapping[str, Any], *, must_rise: bool) -> int:
        """Return the billed weight after a change, or refuse it."""
        tier = cast("Tier", wanted.get("tier", before["tier"]))
        if (tier != before["tier"] or must_rise) and not rules.is_upward(before["tier"], tier):
            raise ServiceError(422, "not_upward", f"A memory in {before['tier']} can only move to a longer-lived tier.")
        if not rules.is_billed(tier):
            return 0
        tags = wanted.get("tags", before["tags"])
        return rules.size_bytes(before["input_context"], before["output_response"], tags)

    # --- finding ------------------------------------------------------------------------------------------------------

    async def search(self, user_id: UUID, body: SearchRequest, *, count_access: bool) -> SearchResponse:
        """Return the best memories for a query with the reasons; a user's own search counts as an access of each."""
        async with self._operations.counted("search", body.tier):
            started = time.monotonic()
            query = Query(
                embedding=await self._embedder.embed(body.query),
                terms=terms(body.query),
                model_id=self._embedder.model.model_id,
                limit=body.limit,
                tier=body.tier,
                type=body.memory_type,
                min_confidence=body.min_confidence,
            )
            async with self._db.transaction(user_id) as conn:
                hits, total = await repository.search(conn, user_id, query)
                load = repository.touch if count_access else repository.fetch
                rows = await load(conn, user_id, [hit.id for hit in hits])
            self._search_seconds.observe(time.monotonic() - started)
            self._search_results.observe(len(rows))
            if count_access:
                await self._rank_rows(user_id, rows.values())
            results = [
                SearchHit(**_fields(rows[hit.id]), similarity_score=round(hit.score, 4), reasons=hit.reasons)
                for hit in hits
                if hit.id in rows  # one may have been deleted between the two statements
            ]
            return SearchResponse(results=results, total=total, query=body.query)

    async def context(self, user_id: UUID, body: ContextRequest) -> Context:
        """Return what a prompt may draw on; counts no access. Without a query: the newest."""
        async with self._operations.counted("context"):
            turns = await self._context_turns(user_id, body.session_id)
            wanted = body.query.strip()
            vector = await self._embedder.embed(wanted) if wanted else None
            async with self._db.transaction(user_id, readonly=True) as conn:
                itm, ltm = await self._context_rows(conn, user_id, wanted, vector, body.limit)
                found = await repository.principles(
                    conn, user_id, embedding=vector, model_id=self._embedder.model.model_id, limit=CONTEXT_PRINCIPLES
                )
            return Context(
                stm=turns,
                itm=[
                    ContextItm(
                        id=row["id"], type=row["type"], input=row["input_context"][:ITM_INPUT_CHARS],
                        outcome=row["outcome"], access_count=row["access_count"],
                    )
                    for row in itm
                ],
                ltm=[
                    ContextLtm(
                        id=row["id"], type=row["type"], input=row["input_context"],
                        confidence=1.0 if row["confidence_score"] is None else round(row["confidence_score"], 4),
                    )
                    for row in ltm
                ],
                principles=[Principle(**_rounded(row)) for row in found],
            )  # fmt: skip

    async def _context_rows(
        self, conn: Connection, user_id: UUID, wanted: str, vector: list[float] | None, limit: int
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        if vector is None:
            itm = await repository.newest(conn, user_id, "itm", limit)
            ltm = await repository.newest(conn, user_id, "ltm", limit, confidence_above=rules.CONFIDENT)
            return itm, ltm
        query = Query(
            embedding=vector,
            terms=terms(wanted),
            model_id=self._embedder.model.model_id,
            limit=limit,
            ltm_above=rules.CONFIDENT,
            per_tier=True,
        )
        hits, _total = await repository.search(conn, user_id, query)
        rows = await repository.fetch(conn, user_id, [hit.id for hit in hits if hit.tier != "stm"])
        by_tier: dict[str, list[dict[str, Any]]] = {"itm": [], "ltm": []}
        for hit in hits:
            if hit.id in rows:
                by_tier[hit.tier].append(rows[hit.id])
        return by_tier["itm"], by_tier["ltm"]

    async def _context_turns(self, user_id: UUID, session_id: str | None) -> list[Turn]:
        if session_id is None:
            return []
        return (await self.turns(user_id, session_id, limit=CONTEXT_TURNS)).items

    # --- short-term and intermediate memory ---------------------------------------------------------------------------

    async def append_turn(self, user_id: UUID, session_id: str, body: TurnCreate) -> TurnStored:
        """Add an exchange to a session. 503 without Redis."""
        turn = body.model_dump(mode="json", exclude_none=True)
        turn.setdefault("timestamp", _stamp(self._clock.now()))
        try:
            lost = not await self._turns.exists(user_id, session_id)
            before = await self._turns_from_postgres(user_id, session_id) if lost else []
            if before and (before[-1]["input"], before[-1]["output"]) == (turn["input"], turn["output"]):
                before.pop()  # this very exchange, stored as a conversation before it came here
            return TurnStored(stored=True, size=await self._turns.append(user_id, session_id, turn, start_from=before))
        except RedisError as error:
            raise errors.unavailable("not_ready", "Short-term memory is not reachable.") from error

    async def turns(self, user_id: UUID, session_id: str, *, limit: int) -> TurnsRead:
        """Return a session's last exchanges, oldest first; from Postgres when Redis has lost them."""
        try:
            items = await self._turns.read(user_id, session_id, limit)
            if not items:
                items = (await self._turns_from_postgres(user_id, session_id))[-limit:]
        except RedisError:
            items = (await self._stored_turns(user_id, session_id, cleared=None))[-limit:]
        return TurnsRead(session_id=session_id, items=[Turn(**item) for item in items], count=len(items))

    async def clear_turns(self, user_id: UUID, session_id: str) -> None:
        """Forget a session's exchanges. 503 without Redis."""
        try:
            await self._turns.clear(user_id, session_id, at=self._clock.now())
        except RedisError as error:
            raise errors.unavailable("not_ready", "Short-term memory is not reachable.") from error

    async def _turns_from_postgres(self, user_id: UUID, session_id: str) -> list[dict[str, Any]]:
        return await self._stored_turns(user_id, session_id, cleared=await self._turns.cleared_at(user_id, session_id))

    async def _stored_turns(self, user_id: UUID, session_id: str, *, cleared: datetime | None) -> list[dict[str, Any]]:
        """Return the turns that would still be alive, made from the session's conversation memories."""
        since = self._clock.now() - timedelta(seconds=self._rules.stm_ttl)
        async with self._db.transaction(user_id, readonly=True) as conn:
            rows = await repository.recent_turns(
                conn, user_id, session_id, since=max(since, cleared or since), limit=self._rules.stm_max
            )
        return [
            {
                "input": row["input_context"],
                "output": row["output_response"] or "",
                "timestamp": _stamp(row["created_at"]),
            }
            for row in rows
        ]

    async def intermediate(self, user_id: UUID, *, limit: int) -> Intermediate:
        """Return the most used intermediate memories. Reading this list counts no access."""
        ids: list[UUID] | None = None
        rebuild = True
        try:
            ids = await self._ranking.top(user_id, limit)
        except RedisError:
            rebuild = False
        async with self._db.transaction(user_id, readonly=True) as conn:
            counts: list[tuple[UUID, int]] = []
            if ids is None:
                counts = await repository.most_used(conn, user_id, self._rules.itm_max)
                ids = [one for one, _count in counts[:limit]]
            rows = await repository.fetch(conn, user_id, ids)
        if rebuild and counts:
            with suppress(RedisError):
                await self._ranking.rebuild(user_id, counts)
        alive = [rows[one] for one in ids if one in rows and rows[one]["tier"] == "itm"]
        await self._unrank(user_id, set(ids) - {row["id"] for row in alive})
        return Intermediate(items=[_read(row) for row in alive], count=len(alive))

    # --- numbers ------------------------------------------------------------------------------------------------------

    async def stats(self, user_id: UUID, *, limit_bytes: int) -> Stats:
        """Return counts by tier and storage against the limit of the user's tier (-1: none)."""
        async with self._db.transaction(user_id, readonly=True) as conn:
            counts = await repository.counts(conn, user_id)
        items = {tier: counts.get(tier, (0, 0)) for tier in rules.TIERS}
        used = sum(size for tier, (_count, size) in items.items() if rules.is_billed(tier))
        return Stats(
            stm_count=items["stm"][0],
            itm_count=items["itm"][0],
            ltm_count=items["ltm"][0],
            total_memories=sum(count for count, _size in items.values()),
            storage_used_mb=round(used / MIB, 4),
            storage_limit_mb=-1 if limit_bytes < 0 else round(limit_bytes / MIB, 4),
            tier_breakdown={tier: {"count": count, "bytes": size} for tier, (count, size) in items.items()},
        )

    async def usage(self, user_id: UUID, *, limit_bytes: int) -> Usage:
        """Return billed bytes and memories against the limit (-1: none)."""
        async with self._db.transaction(user_id, readonly=True) as conn:
            used, count = await repository.billed_bytes(conn, user_id)
        percentage = rules.percentage(used, limit_bytes)
        return Usage(used_bytes=used, limit_bytes=limit_bytes, percentage=percentage, memory_count=count)

    async def quota_check(self, user_id: UUID, *, amount: int, limit_bytes: int) -> QuotaCheck:
        """Return whether `amount` more bytes would fit; reserves nothing."""
        used = (await self.usage(user_id, limit_bytes=limit_bytes)).used_bytes
        fits = limit_bytes < 0 or used + amount <= limit_bytes
        return QuotaCheck(has_quota=fits, used_bytes=used, limit_bytes=limit_bytes)

    # --- for the workers ----------------------------------------------------------------------------------------------

    async def reflect(self, user_id: UUID, body: ReflectionCreate) -> ReflectionRead:
        """Write the reflection of a run and its hidden memory in one transaction; the first of a run stays."""
        async with self._db.transaction(user_id) as conn:
            await self._lock(conn, user_id)  # two deliveries of one message are serial from here
            known = await repository.reflection_of_run(conn, user_id, body.run_id)
            if known is not None:
                return ReflectionRead(id=known[0], memory_id=known[1], created=False)
            memory_id = uuid7()
            await repository.insert(
                conn,
                NewMemory(
                    id=memory_id,
                    user_id=user_id,
                    session_id=None,
                    type="reflection",
                    input_context=body.self_assessment,
                    output_response=body.improvement_notes or None,
                    outcome="success" if body.alignment_score >= rules.CONFIDENT else "failure",
                    emotional_weight=body.emotional_weight,
                    confidence_score=body.alignment_score,
                    tags=REFLECTION_TAGS,
                    tier="ltm",
                    expires_at=None,
                    size_bytes=rules.size_bytes(body.self_assessment, body.improvement_notes, REFLECTION_TAGS),
                    visibility="system",
                ),
            )
            reflection_id = await repository.insert_reflection(
                conn,
                user_id,
                memory_id,
                run_id=body.run_id,
                self_assessment=body.self_assessment,
                alignment_score=body.alignment_score,
                improvement_notes=body.improvement_notes,
                metadata=body.metadata,
            )
            if reflection_id is None:  # the run is another user's: nothing of it may show
                raise errors.conflict(detail="This run has a reflection already.")
            return ReflectionRead(id=reflection_id, memory_id=memory_id, created=True)

    async def exchanges(self, user_id: UUID, run_ids: Sequence[UUID]) -> Exchanges:
        """Return the exchanges of runs, as far as they are still kept."""
        keys = {f"{RUN_KEY_PREFIX}{run_id}": run_id for run_id in run_ids}
        async with self._db.transaction(user_id, readonly=True) as conn:
            found = await repository.exchanges(conn, user_id, keys)
        return Exchanges(
            exchanges=[
                Exchange(
                    run_id=run_id, session_id=row["session_id"], input=row["input_context"],
                    output=row["output_response"] or "",
                )
                for run_id, row in found.items()
            ]
        )  # fmt: skip

    async def users_page(self, after: UUID | None, limit: int) -> UsersPage:
        """Return a page of users who have memories."""
        async with self._db.transaction(readonly=True) as conn:
            users = await repository.users_page(conn, after, limit)
        return UsersPage(users=users, next=users[-1] if len(users) == limit else None)

    async def scan(
        self,
        user_id: UUID,
        *,
        after: tuple[datetime, UUID] | None,
        until: tuple[datetime, UUID] | None,
        limit: int,
    ) -> ScanPage:
        """Return a page of a user's reflections, oldest first."""
        async with self._db.transaction(user_id, readonly=True) as conn:
            rows = await repository.scan_reflections(conn, user_id, after=after, until=until, limit=limit)
        return ScanPage(reflections=[ScannedReflection(**_rounded(row)) for row in rows])

    async def distil(self, user_id: UUID, body: DistilledCreate) -> DistilledRead:
        """Write a principle; the same set of sources gives the same row. Names what it contradicts."""
        embedding = await self._embedder.embed(body.principle)
        async with self._db.transaction(user_id) as conn:
            await self._lock(conn, user_id)
            principle_id, created = await repository.insert_principle(
                conn,
                NewPrinciple(
                    user_id=user_id,
                    topic=body.topic,
                    principle=body.principle,
                    outcome=body.outcome,
                    confidence=body.confidence,
                    source_reflections=body.source_reflections,
                    embedding=embedding,
                    model_id=self._embedder.model.model_id,
                ),
            )
            against = await repository.contradicted(conn, user_id, principle_id)
        return DistilledRead(id=principle_id, created=created, contradicts=against)

    async def supersede(self, user_id: UUID, body: SupersedeRequest) -> BatchResult:
        """End the force of principles; those that no longer are in force stay as they are."""
        async with self._db.transaction(user_id) as conn:
            await self._lock(conn, user_id)
            return BatchResult(count=await repository.supersede(conn, user_id, by=body.by, ids=body.ids), more=False)

    async def promote_used(self, user_id: UUID, body: Batch) -> BatchResult:
        """Make much-used intermediate memories long-term ones."""
        async with self._db.transaction(user_id) as conn:
            await self._lock(conn, user_id)
            ids = await repository.promote_used(conn, user_id, promote_at=self._rules.promote_at, limit=body.limit)
        self._promotions.labels("itm", "ltm").inc(len(ids))
        await self._unrank(user_id, ids)
        return BatchResult(count=len(ids), more=len(ids) == body.limit)

    async def purge(self, user_id: UUID, body: Batch) -> BatchResult:
        """Remove expired memories and give their storage back."""
        async with self._operations.counted("expire", "itm"):
            async with self._db.transaction(user_id) as conn:
                await self._lock(conn, user_id)
                removed = await repository.delete_expired(conn, user_id, body.limit)
                billed = sum(one.size_bytes for one in removed if rules.is_billed(one.tier))
                await self._storage.refund(conn, user_id, billed, key=f"memory:expired:{uuid7()}")
            await self._unrank(user_id, [one.id for one in removed])
            return BatchResult(count=len(removed), more=len(removed) == body.limit)

    # --- helpers ------------------------------------------------------------------------------------------------------

    async def _index(self, input_context: str, output_response: str | None) -> _Indexed:
        text = rules.searchable_text(input_context, output_response)
        return _Indexed(embedding=await self._embedder.embed(text), terms=frequencies(text))

    async def _run_once(self, user_id: UUID, key: str | None, raw: bytes, produce: Any) -> tuple[int, dict[str, Any]]:
        try:
            return await self._idempotency.run(
                self._db, user_id=user_id, route=repository.STORE_ROUTE, key=key, body=raw, produce=produce
            )
        except repository.UnknownUserError:
            raise _gone() from None

    async def _lock(self, conn: Connection, user_id: UUID) -> None:
        try:
            await repository.lock_user(conn, user_id)
        except repository.UnknownUserError:  # a worker's message outlived its user
            raise errors.not_found() from None

    def _expiry(self, tier: Tier) -> datetime | None:
        return rules.expires_at(tier, self._clock.now(), stm_ttl=self._rules.stm_ttl, itm_ttl=self._rules.itm_ttl)

    async def _rank_rows(self, user_id: UUID, rows: Iterable[Mapping[str, Any]]) -> None:
        await self._rank(user_id, [(row["id"], row["access_count"]) for row in rows if row["tier"] == "itm"])

    async def _rank(self, user_id: UUID, counts: Sequence[tuple[UUID, int]]) -> None:
        with suppress(RedisError):  # counted by the client; the ranking is rebuilt from Postgres
            await self._ranking.note(user_id, counts)

    async def _unrank(self, user_id: UUID, ids: Iterable[UUID]) -> None:
        with suppress(RedisError):  # as above; dead ids are skipped when read
            await self._ranking.forget(user_id, ids)


def _gone() -> ServiceError:
    return errors.unauthorized("token_invalid", "The token is not valid.")


def _weight(row: Mapping[str, Any]) -> int:
    return cast("int", row["size_bytes"]) if rules.is_billed(row["tier"]) else 0


def _stamp(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields(row: Mapping[str, Any]) -> dict[str, Any]:
    return _rounded({name: row[name] for name in MemoryRead.model_fields})


def _rounded(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields with float4 values as they were sent: 0.9 comes back from Postgres as 0.8999999761581421."""
    return {name: round(value, 6) if isinstance(value, float) else value for name, value in fields.items()}


def _read(row: Mapping[str, Any]) -> MemoryRead:
    return MemoryRead(**_fields(row))
