"""One message of `stream:reflection`.

Invariants: REFLECT-1 a message is done only after memory confirmed the reflection; REFLECT-2 a run is reflected once:
memory keeps the first (unique by run), so a message that comes twice changes nothing.
A peer that is away is waited for within the job's time; then the message goes back and comes again later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from uuid import UUID

from pydantic import BaseModel, ValidationError

from novacore.common.log import get_logger
from novacore.common.peers import PeerError, Peers
from novacore.common.redis import Redis
from novacore.common.streams import Envelope, PoisonError
from novacore.reflection_worker.answers import CONTENT_CHARS, reflection
from novacore.reflection_worker.schemas import (
    BATCH,
    REQUESTED,
    STREAM,
    Alignment,
    ExchangesFound,
    ReflectionBatch,
    ReflectionRequested,
)

log = get_logger()

WAIT_SECONDS = (0.5, 15.0)
HOPELESS = frozenset({400, 409, 413, 415, 422})
"""Answers that the same request gets again: to the dead letters at once. 404 from memory: the user is gone."""

P = TypeVar("P", bound=BaseModel)
Sleep = Callable[[float], Awaitable[None]]


class Reflector:
    """Handles the messages; `handle` raises until the work is confirmed."""

    def __init__(self, *, peers: Peers, redis: Redis, job_seconds: float, sleep: Sleep = asyncio.sleep) -> None:
        self._peers = peers
        self._redis = redis
        self._job_seconds = job_seconds
        self._sleep = sleep

    async def handle(self, envelope: Envelope) -> None:
        """Reflect a run, or fan a batch out. PoisonError for a message that can never succeed."""
        user_id = envelope.user_id
        if user_id is None:
            raise PoisonError("the envelope names no user")
        async with asyncio.timeout(self._job_seconds):
            match envelope.type:
                case "reflection.requested":
                    await self._reflect(user_id, _payload(ReflectionRequested, envelope))
                case "reflection.batch":
                    await self._fan_out(user_id, _payload(ReflectionBatch, envelope), envelope)
                case other:
                    raise PoisonError(f"unknown type {other[:64]}")

    async def _reflect(self, user_id: UUID, request: ReflectionRequested) -> None:
        if not request.input.strip() or not request.output.strip():
            log.info("reflection_skipped", reason="empty exchange", run_id=request.run_id)
            return
        body = {"input_context": request.input[:CONTENT_CHARS], "output_response": request.output[:CONTENT_CHARS]}
        judged = await self._patiently("noble-spirit", "/policy/validate-alignment", body, user_id, internal=False)
        result = _answer(Alignment, judged, "noble-spirit")
        try:
            written = await self._patiently(
                "memory", "/internal/memory/reflections", reflection(request, result), user_id, internal=True
            )
        except PeerError as error:
            if error.status != 404:
                raise
            log.info("reflection_skipped", reason="user is gone", run_id=request.run_id)
            return
        log.info(
            "reflected", run_id=request.run_id, aligned=result.aligned, created=bool(written and written.get("created"))
        )

    async def _fan_out(self, user_id: UUID, batch: ReflectionBatch, envelope: Envelope) -> None:
        """Put one message per run into the stream: each then has its own retries."""
        wanted = list(dict.fromkeys(batch.run_ids))
        body = {"run_ids": [str(run_id) for run_id in wanted]}
        answer = await self._patiently("memory", "/internal/memory/exchanges", body, user_id, internal=True)
        found = _answer(ExchangesFound, answer, "memory").exchanges
        for exchange in found:
            request = ReflectionRequested(**exchange.model_dump())
            message = Envelope(
                type=REQUESTED,
                request_id=envelope.request_id,
                traceparent=envelope.traceparent,
                user_id=user_id,
                payload=request.model_dump(mode="json"),
            )
            await self._redis.xadd(STREAM, {"e": message.model_dump_json()})
        log.info("batch_fanned_out", kind=BATCH, wanted=len(wanted), found=len(found))

    async def _patiently(self, peer: str, path: str, body: dict[str, Any], user_id: UUID, *, internal: bool) -> Any:
        """Return the peer's answer, however long it is away (the caller's timeout ends it)."""
        low, high = WAIT_SECONDS
        wait = low
        while True:
            try:
                return await self._peers.call(peer, "POST", path, json=body, act_for=user_id, internal=internal)
            except PeerError as error:
                if error.status in HOPELESS:
                    raise PoisonError(f"{peer} refused: {error.status} {error.code}") from error
                if error.status is not None and error.status < 500 and error.status not in {401, 408, 429}:
                    raise
                log.warning("peer_away", reason=f"{peer} {error.code}")
            await self._sleep(wait)
            wait = min(high, wait * 2)


def _payload(model: type[P], envelope: Envelope) -> P:
    try:
        return model.model_validate(envelope.payload)
    except ValidationError as error:
        raise PoisonError(f"{envelope.type}: {_where(error)}") from None


def _answer(model: type[P], answer: Any, peer: str) -> P:
    try:
        return model.model_validate(answer)
    except ValidationError as error:
        raise ValueError(f"{peer} answered in another shape: {_where(error)}") from None  # it may be upgraded meanwhile


def _where(error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['type']}"
