"""What happens to a message before it is accepted, and how its answer is read.

Order: session, input policy, context, prompt, reservation; then one transaction writes session,
run and prompt, and the message is accepted: from there on `executor` owns it, whatever becomes of the socket. Nothing
is billed or stored before that; a failure gives the reservation back.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from novacore.common import context, errors
from novacore.common.callers import Caller, User
from novacore.common.clock import Clock
from novacore.common.database import Connection, Database
from novacore.common.errors import ServiceError
from novacore.common.idempotency import Idempotency, checked_key
from novacore.common.ids import uuid7
from novacore.common.log import get_logger
from novacore.common.metrics import Metrics
from novacore.common.peers import PeerError, Peers
from novacore.common.redis import RedisError
from novacore.intelligence import repository
from novacore.intelligence.events import RunEvent, valid_stream_id
from novacore.intelligence.executor import Executor, LiveRun, events_of
from novacore.intelligence.followups import SCHEMA, Ended, FollowUps
from novacore.intelligence.policy import CONTENT_MAX, Decision, Policy, PolicySilentError
from novacore.intelligence.prompt import (
    STORED_TURNS_MAX,
    Notes,
    Prompt,
    PromptTooLongError,
    Turn,
    fit,
    notes_of,
)
from novacore.intelligence.providers import Chain, Generation, ProviderError
from novacore.intelligence.providers.base import MIN_COMPLETION
from novacore.intelligence.runlog import RunLogs
from novacore.intelligence.runs import Status
from novacore.intelligence.schemas import (
    ChatCreate,
    ChatRead,
    PromptRead,
    RunCreate,
    RunRead,
    SessionEnded,
    SessionRead,
)
from novacore.intelligence.settings import IntelligenceSettings

log = get_logger()

PRIORITY = {"pro": 2, "basic": 1}
CONTEXT_LIMIT = 5
HOLD_TTL_S = 900
ANSWER_S = 115.0
"""Longest wait of `/chat/message` without a deadline from the gateway (which gives 120 s)."""
POLL_S = 0.2


class ChatService:
    """The routes' use cases."""

    def __init__(
        self,
        *,
        db: Database,
        peers: Peers,
        chain: Chain,
        policy: Policy,
        logs: RunLogs,
        executor: Executor,
        followups: FollowUps,
        settings: IntelligenceSettings,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._db = db
        self._peers = peers
        self._chain = chain
        self._policy = policy
        self._logs = logs
        self._executor = executor
        self._followups = followups
        self._settings = settings
        self._clock = clock
        self._idempotency = Idempotency(SCHEMA)
        self._replica = os.environ.get("HOSTNAME", "local")
        self._messages = metrics.counter("novacore_chat_messages_total")
        self._shed = metrics.counter("novacore_http_shed_total")
        self._items = metrics.histogram("novacore_context_items")
        self.context_left_out = 0

    # Accepting

    async def accept(self, body: ChatCreate, caller: Caller, *, route: str, key: str | None) -> UUID:
        """Accept a message and return its run: a new one, or the one this Idempotency-Key began."""
        user = _user(caller)
        digest_of = _canonical(body)
        key = checked_key(key)
        if key is not None and (known := await self._known(user.id, route, key, digest_of)) is not None:
            return known
        await self._check_session(body.session_id, user.id)
        if self._chain.full():
            self._shed.labels("queue").inc()
            raise errors.unavailable(
                "shed", "Too many messages wait for the model. Try again shortly.", retry_after_s=5
            )
        attached = (body.context or "")[: CONTENT_MAX - len(body.message) - 2] if isinstance(body, RunCreate) else ""
        decision = await self._judge_input(body.message, attached, caller)
        notes = await self._notes(body, caller)
        prompt = await self._prompt(notes, body.message, attached)
        run_id, session_id = uuid7(), body.session_id or uuid7()
        window = self._chain.primary.window
        wanted = min(body.max_tokens, self._settings.llm.max_tokens, window - prompt.tokens)
        granted = await self._reserve(run_id, user.id, prompt.tokens, wanted)
        run = repository.NewRun(
            id=run_id,
            session_id=session_id,
            user_id=user.id,
            provider=self._chain.primary.name,
            model=self._chain.primary.model,
            reserved_tokens=granted,
            prompt_tokens=prompt.tokens,
            policy_version=decision.version,
            remember=body.use_memory,
            context_ids=prompt.context_ids,
            replica=self._replica,
            request_id=context.request_id(),
            message=body.message,
        )
        try:
            accepted = await self._write(run, route=route, key=key, digest_of=digest_of)
        except BaseException:
            await self._release(run_id)
            raise
        if accepted != run_id:  # the same key, at the same moment: the other one won
            await self._release(run_id)
            return accepted
        self._messages.labels(user.tier if user.tier in {"free_trial", "basic", "pro"} else "free_trial").inc()
        await self._launch(run, prompt, user, granted=granted, temperature=body.temperature)
        return run_id

    async def _known(self, user_id: UUID, route: str, key: str, digest_of: bytes) -> UUID | None:
        async with self._db.transaction(user_id, readonly=True) as conn:
            found = await repository.find_key(conn, user_id, route, key)
        if found is None:
            return None
        digest, response = found
        if digest != hashlib.sha256(digest_of).digest():
            raise errors.conflict("idempotency_conflict", "This key was used for another request.")
        return UUID(response["run_id"]) if response else None

    async def _check_session(self, session_id: UUID | None, user_id: UUID) -> None:
        if session_id is None:
            return
        async with self._db.transaction(user_id, readonly=True) as conn:
            status = await repository.find_session(conn, session_id, user_id)
        if status is None:
            raise errors.not_found()
        if status == "completed":
            raise errors.conflict("conflict", "This session has ended. Leave out session_id to begin a new one.")

    async def _judge_input(self, message: str, attached: str, caller: Caller) -> Decision:
        text = f"{message}\n\n{attached}" if attached else message
        try:
            decision = await self._policy.judge_input(text, caller)
        except PolicySilentError:
            log.warning("policy_silent", reason="input")
            raise errors.unavailable("upstream_down", "The message cannot be checked right now.") from None
        if decision.action == "block":
            log.info("input_blocked", rules=list(decision.rule_ids), policy_version=decision.version)
            raise errors.policy_blocked(
                "The constitution does not allow this message.",
                extra={"rule_ids": list(decision.rule_ids), "policy_version": decision.version},
            )
        return decision

    async def _notes(self, body: ChatCreate, caller: Caller) -> Notes:
        """Return what memory knows, and without it what this session's own history knows."""
        if not body.use_memory:
            return Notes()
        known: dict[str, Any] | None = None
        try:
            known = await self._peers.call(
                "memory", "POST", "/memory/context", caller=caller, timeout_s=self._settings.budgets.context_ms / 1000,
                json={"query": body.message[:1000], "limit": CONTEXT_LIMIT}
                | ({"session_id": str(body.session_id)} if body.session_id else {}),
            )  # fmt: skip
        except PeerError as error:
            self.context_left_out += 1
            log.warning("context_left_out", reason=error.code)
        stored: list[Turn] = []
        if body.session_id is not None and not (known or {}).get("stm"):
            user_id = caller.user_id
            async with self._db.transaction(user_id, readonly=True) as conn:
                last = await repository.last_answered(conn, body.session_id, user_id, limit=STORED_TURNS_MAX)
            stored = [Turn(asked, answered) for asked, answered in last]
        notes = notes_of(known, stored)
        for tier, count in notes.counts.items():
            self._items.labels(tier).observe(count)
        return notes

    async def _prompt(self, notes: Notes, message: str, attached: str) -> Prompt:
        window = self._chain.primary.window
        try:
            return await fit(notes, message, attached=attached, window=window, count=self._chain.count)
        except PromptTooLongError:
            raise ServiceError(422, "message_too_long", "The message leaves the model no room to answer.") from None
        except ProviderError:
            raise errors.unavailable("upstream_down", "No model is available right now.") from None

    async def _reserve(self, run_id: UUID, user_id: UUID, prompt_tokens: int, wanted: int) -> int:
        """Return the tokens granted for prompt and answer. The quota's own refusal (402, 429) is passed on."""
        body = {
            "hold_id": str(run_id),
            "user_id": str(user_id),
            "resource": "llm_tokens",
            "amount": prompt_tokens + wanted,
            "min_amount": prompt_tokens + min(MIN_COMPLETION, wanted),
            "ttl_s": HOLD_TTL_S,
        }
        try:
            answer = await self._peers.call(
                "auth-billing", "POST", "/internal/quota/reserve", json=body, internal=True,
                timeout_s=self._settings.budgets.reserve_ms / 1000,
            )  # fmt: skip
            granted = int(answer["granted"])
        except PeerError as error:
            if error.status in {402, 429}:
                raise self._quota_refusal(error) from None
            log.warning("quota_silent", reason=error.code)
            await self._release(run_id)  # it may have been granted, and only the answer lost
            raise errors.unavailable("upstream_down", "The quota cannot be checked right now.") from None
        except (KeyError, TypeError, ValueError):
            raise errors.unavailable("upstream_down", "The quota cannot be checked right now.") from None
        if granted <= prompt_tokens:
            await self._release(run_id)
            raise errors.unavailable("upstream_down", "The quota gave less than the least that was asked for.")
        return granted

    def _quota_refusal(self, error: PeerError) -> ServiceError:
        body = error.body if isinstance(error.body, dict) else {}
        if error.status == 402:
            return errors.payment_required(error.code, str(body.get("detail", "A subscription is needed.")))
        resets_at = body.get("resets_at")
        return errors.quota_exceeded(
            resource=str(body.get("resource", "llm_tokens")),
            used=int(body.get("used", 0)),
            limit=int(body.get("limit", 0)),
            resets_at=resets_at,
            retry_after_s=_seconds_until(resets_at, self._clock.now()),
        )

    async def _write(self, run: repository.NewRun, *, route: str, key: str | None, digest_of: bytes) -> UUID:
        async def produce(conn: Connection) -> tuple[int, dict[str, Any]]:
            await repository.insert_run(conn, run)
            return 202, {"run_id": str(run.id), "session_id": str(run.session_id)}

        _, answer = await self._idempotency.run(
            self._db, user_id=run.user_id, route=route, key=key, body=digest_of, produce=produce
        )
        return UUID(answer["run_id"])

    async def _launch(
        self, run: repository.NewRun, prompt: Prompt, user: User, *, granted: int, temperature: float
    ) -> None:
        log_ = self._logs.open(run.id)
        live = LiveRun(
            id=run.id,
            session_id=run.session_id,
            user_id=run.user_id,
            priority=PRIORITY.get(user.tier, 0),
            generation=Generation(prompt.messages, granted - prompt.tokens, temperature, prompt.tokens),
            reserved=granted,
            model=run.model,
            policy_version=run.policy_version,
            request_id=run.request_id,
            traceparent=context.traceparent(),
            began=self._clock.monotonic(),
            log=log_,
        )
        self._executor.launch(live)  # before anything can fail: an accepted run is never without an owner
        await log_.write("start", {"run_id": str(run.id), "session_id": str(run.session_id), "model": run.model})

    async def _release(self, run_id: UUID) -> None:
        try:
            await self._peers.call(
                "auth-billing", "POST", "/internal/quota/release", json={"hold_id": str(run_id)}, internal=True,
                timeout_s=self._settings.budgets.reserve_ms / 1000,
            )  # fmt: skip
        except PeerError as error:
            if error.status != 404:
                log.warning("release_missed", reason=error.code)  # the hold expires by itself, unbilled

    # Reading

    async def answer(self, run_id: UUID, caller: Caller) -> ChatRead:
        """Wait for a run's end and return the whole answer; errors as the run's end names them."""
        live = self._executor.live.get(run_id)
        if live is not None:
            await self._wait_for(live)
        remaining = context.deadline_remaining_s()
        deadline = self._clock.monotonic() + (ANSWER_S if remaining is None else remaining)
        while (ended := await self._followups.find(run_id, caller.user_id)) is None:
            if self._clock.monotonic() >= deadline:
                raise _late(run_id)
            await asyncio.sleep(POLL_S)
        return read_answer(ended)

    async def _wait_for(self, live: LiveRun) -> None:
        remaining = context.deadline_remaining_s()
        try:
            async with asyncio.timeout(ANSWER_S if remaining is None else remaining):
                await live.out_of_queue.wait()
                async with asyncio.timeout(self._settings.budgets.first_byte_ms / 1000):
                    done = [asyncio.ensure_future(event.wait()) for event in (live.first_byte, live.over)]
                    try:
                        await asyncio.wait(done, return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        for task in done:
                            task.cancel()
                await live.over.wait()
        except TimeoutError:
            raise _late(live.id) from None

    async def events(self, run_id: UUID, user_id: UUID, *, after: str = "") -> AsyncGenerator[RunEvent]:
        """Yield a run's events after a stream id, to its end. The caller has checked whose run it is."""

        async def is_over() -> bool:
            return await self._followups.find(run_id, user_id) is not None

        last = None
        async for event in self._logs.read(run_id, after, is_over=is_over):
            last = event
            yield event
        if last is None or last.name != "end":
            # Expired, cut short, or resumed after its end: the table has the end, and to a new reader the whole answer.
            ended = await self._followups.find(run_id, user_id)
            for event in events_of(ended) if ended is not None else ():
                if event.name == "end" or (last is None and not after):
                    yield event

    async def attach(self, run_id: UUID, user_id: UUID, last_event_id: str) -> str:
        """Check that a run's stream can be read from there. 404 when it is not the user's or has expired."""
        if last_event_id and not valid_stream_id(last_event_id):
            raise errors.validation_error("Last-Event-ID is not an id of this stream.")
        await self.run(run_id, user_id)
        try:
            there = await self._logs.exists(run_id)
        except (RedisError, OSError):
            raise errors.unavailable("not_ready", "The stream cannot be read right now.") from None
        if not there:
            raise errors.not_found()
        return last_event_id

    async def run(self, run_id: UUID, user_id: UUID) -> RunRead:
        """Return where a run stands."""
        async with self._db.transaction(user_id, readonly=True) as conn:
            row = await repository.find_run(conn, run_id, user_id)
        if row is None:
            raise errors.not_found()
        return RunRead(**{name: row[name] for name in RunRead.model_fields})

    async def cancel(self, run_id: UUID, user_id: UUID) -> RunRead:
        """Ask a run to stop; it ends `cancelled` unless it had ended already."""
        async with self._db.transaction(user_id) as conn:
            status = await repository.request_cancel(conn, run_id, user_id)
        if status is None:
            raise errors.not_found()
        self._executor.stop(run_id, Status.CANCELLED)  # when it runs elsewhere, that replica's next heartbeat tells it
        return await self.run(run_id, user_id)

    async def sessions(self, user_id: UUID, *, limit: int) -> list[SessionRead]:
        """Return the user's sessions, newest first."""
        async with self._db.transaction(user_id, readonly=True) as conn:
            rows: Sequence[dict[str, Any]] = await repository.list_sessions(conn, user_id, limit=limit)
        return [SessionRead(**row) for row in rows]

    async def history(self, session_id: UUID, user_id: UUID, *, limit: int) -> list[PromptRead]:
        """Return a session's last exchanges, oldest first."""
        async with self._db.transaction(user_id, readonly=True) as conn:
            if await repository.find_session(conn, session_id, user_id) is None:
                raise errors.not_found()
            rows = await repository.history(conn, session_id, user_id, limit=limit)
        return [PromptRead(**row) for row in rows]

    async def end_session(self, session_id: UUID, user_id: UUID) -> SessionEnded:
        """Close a session."""
        async with self._db.transaction(user_id) as conn:
            row = await repository.end_session(conn, session_id, user_id)
        if row is None:
            raise errors.not_found()
        return SessionEnded(**row)


def read_answer(ended: Ended) -> ChatRead:
    """Return the whole answer of an ended run, or raise what its failure is over HTTP."""
    about = {"run_id": str(ended.id), "session_id": str(ended.session_id)}
    if ended.status is Status.FAILED:
        match ended.error_code:
            case "deadline":
                raise ServiceError(504, "deadline", "The model took too long.", extra=about)
            case "upstream_down":
                headers = {"Retry-After": "2"}
                detail = "The answer cannot be checked right now."
                raise ServiceError(503, "upstream_down", detail, headers=headers, extra=about)
            case _:
                raise ServiceError(502, "provider_error", "The model provider failed.", extra=about)
    if ended.status is Status.INTERRUPTED and not ended.answered:
        raise ServiceError(503, "not_ready", "The answer was interrupted.", headers={"Retry-After": "2"}, extra=about)
    return ChatRead(
        response=ended.answered,
        session_id=ended.session_id,
        tokens_used=ended.billed,
        latency_ms=ended.latency_ms,
        run_id=ended.id,
        model=ended.model,
        status=ended.status.value,
    )


def _user(caller: Caller) -> User:
    if caller.user is None:
        raise errors.unauthorized("token_missing", "A user token is needed here.")
    return caller.user


def _canonical(body: ChatCreate) -> bytes:
    return json.dumps(body.model_dump(mode="json", exclude={"stream"}), sort_keys=True).encode()


def _late(run_id: UUID) -> ServiceError:
    return ServiceError(
        504,
        "deadline",
        "The answer takes longer than this request may. The run goes on.",
        extra={"run_id": str(run_id)},
    )


def _seconds_until(resets_at: Any, now: datetime) -> float:
    try:
        return max(1.0, (datetime.fromisoformat(str(resets_at)) - now).total_seconds())
    except (ValueError, TypeError):
        return 60.0
