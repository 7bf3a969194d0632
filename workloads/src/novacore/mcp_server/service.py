"""What mcp-server does: it keeps nothing, and calls memory, intelligence and ngs-curriculum with the user's own token.

So whatever those services refuse is refused here, with their code and sentence; only their absence is ours to word.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any
from uuid import UUID

import aiohttp

from novacore.common import context
from novacore.common.callers import Caller
from novacore.common.errors import ServiceError, deadline, policy_blocked, provider_error, unavailable, validation_error
from novacore.common.peers import PeerError, Peers
from novacore.mcp_server import texts
from novacore.mcp_server.schemas import (
    ContextFetch,
    ContextMemory,
    ContextRead,
    MemoriesFound,
    MemoryFound,
    MemoryLog,
    MemoryLogged,
    MemorySearch,
    ProgressRead,
    TaskRead,
    TaskSubmit,
)

SUBMIT_SECONDS = 120.0
STORE_TIMEOUT_S = 10.0
SEARCH_TIMEOUT_S = 10.0
SSE_LINE_MAX = 1 << 20

_PASSED_ON = frozenset({400, 402, 403, 404, 409, 413, 415, 422, 429})
"""Answers of a peer that are about the request and not about the platform. 401 is not among them: the user's token was
checked here a moment ago, so a peer's 401 is about ours."""


class McpService:
    """The use cases. One object per process, without state."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    async def context_fetch(self, caller: Caller, body: ContextFetch) -> ContextRead:
        """Return what is remembered about a file."""
        query = texts.context_query(body.file_path, body.file_content, body.language)
        found = await self._search(caller, {"query": query, "limit": body.limit})
        memories = [
            ContextMemory(
                id=one["id"],
                content=texts.memory_content(one),
                tier=one["tier"],
                confidence_score=one["confidence_score"],
                created_at=one["created_at"],
            )
            for one in found["results"]
        ]
        return ContextRead(memories=memories, context_summary=texts.context_summary(body.file_path, memories))

    async def memory_search(self, caller: Caller, body: MemorySearch) -> MemoriesFound:
        """Return the memories that answer a query."""
        found = await self._search(caller, body.model_dump(mode="json", exclude_none=True))
        return MemoriesFound(
            results=[MemoryFound.model_validate(one) for one in found["results"]], total=found["total"]
        )

    async def memory(self, caller: Caller, memory_id: UUID) -> dict[str, Any]:
        """Return one memory whole."""
        memory: dict[str, Any] = await self._call(
            "memory", "GET", f"/memory/retrieve/{memory_id}", caller=caller, timeout_s=SEARCH_TIMEOUT_S
        )
        return memory

    async def memory_log(self, caller: Caller, body: MemoryLog, *, key: str | None = None) -> MemoryLogged:
        """Remember an action in the editor: a task, for ever."""
        try:
            facts = texts.metadata_text(body.metadata) if body.metadata else None
        except ValueError as error:
            raise validation_error(str(error)) from None
        memory = {
            "type": "task",
            "tier": "ltm",
            "input_context": texts.log_text(body),
            "output_response": facts,
            "outcome": body.outcome or "neutral",
            "tags": texts.log_tags(body.action),
        }
        stored = await self._call(
            "memory", "POST", "/memory/store",
            json={name: value for name, value in memory.items() if value is not None},
            headers=_key(key), caller=caller, timeout_s=STORE_TIMEOUT_S,
        )  # fmt: skip
        return MemoryLogged(memory_id=stored["id"], stored=True, message=f"Remembered: {body.action} {body.file_path}")

    async def task_submit(self, caller: Caller, body: TaskSubmit, *, key: str | None = None) -> TaskRead:
        """Put a task to the model and return the whole answer. The run goes on if nobody waits for it any more."""
        run: dict[str, Any] = {"message": body.task_description}
        if body.session_id is not None:
            run["session_id"] = str(body.session_id)
        if file_context := texts.run_context(body.file_context):
            run["context"] = file_context
        remaining = context.deadline_remaining_s()
        seconds = SUBMIT_SECONDS if remaining is None else min(SUBMIT_SECONDS, remaining)
        accepted = await self._call(
            "intelligence", "POST", "/chat/runs", json=run, headers=_key(key), caller=caller,
            timeout_s=min(10.0, seconds), expect=(202,),
        )  # fmt: skip
        return await self._answer(caller, accepted["run_id"], UUID(accepted["session_id"]), seconds)

    async def progress(self, caller: Caller) -> ProgressRead:
        """Return the user's place in the curriculum."""
        return ProgressRead.model_validate(await self._call("ngs-curriculum", "GET", "/ngs/progress", caller=caller))

    async def _answer(self, caller: Caller, run_id: str, session_id: UUID, seconds: float) -> TaskRead:
        """Read a run's events to its end."""
        parts: list[str] = []
        try:
            async with self._peers.stream(
                "intelligence", "GET", f"/chat/runs/{run_id}/stream", caller=caller, timeout_s=seconds
            ) as response:
                async for event in _events(response):
                    parts.append(str(event.get("content", "")))
                    if event.get("done"):
                        return _finished(event, "".join(parts), session_id)
        except PeerError as error:
            raise _refusal(error) from None
        except TimeoutError:
            raise deadline(f"The answer took too long; run {run_id} goes on.") from None
        except aiohttp.ClientError:
            raise unavailable("upstream_down", f"The answer broke off; run {run_id} goes on.") from None
        raise unavailable("upstream_down", f"The answer broke off; run {run_id} goes on.")

    async def _search(self, caller: Caller, body: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = await self._call(
            "memory", "POST", "/memory/search", json=body, caller=caller, timeout_s=SEARCH_TIMEOUT_S
        )
        return found

    async def _call(self, peer: str, method: str, path: str, **options: Any) -> Any:
        try:
            return await self._peers.call(peer, method, path, **options)
        except PeerError as error:
            raise _refusal(error) from None


def _key(key: str | None) -> dict[str, str]:
    """Return the header by which the peer, which stores the answers, knows a repeated request."""
    return {"Idempotency-Key": key} if key is not None else {}


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """Yield the `data` of each server-sent event; comments and other fields are passed over."""
    rest = b""
    async for chunk in response.content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > SSE_LINE_MAX:
            raise unavailable("upstream_down", "The answer could not be read.")
        for line in lines:
            if line.startswith(b"data:"):
                try:
                    event = json.loads(line[5:])
                except ValueError:
                    raise unavailable("upstream_down", "The answer could not be read.") from None
                if isinstance(event, dict):
                    yield event


_RUN_ERRORS = {"deadline": 504, "quota_exceeded": 429, "trial_over": 402, "payment_required": 402}


def _finished(event: Mapping[str, Any], response: str, session_id: UUID) -> TaskRead:
    """Return the answer of a run that ended well; ServiceError for one that did not."""
    status = event.get("status")
    code = event.get("code")
    if code == "policy_blocked" or status == "blocked":
        raise policy_blocked("The answer was withheld by the policy.")
    if code is not None and code != "interrupted":
        sentence = str(event.get("error") or "The model could not answer.")
        if code == "provider_error":
            raise provider_error(sentence)
        raise ServiceError(_RUN_ERRORS.get(str(code), 503), str(code), sentence)
    if status not in (None, "done"):
        raise unavailable("upstream_down", f"The run ended as {status}; send the task again.")
    return TaskRead(
        session_id=event.get("session_id") or session_id,
        response=response,
        tokens_used=int(event.get("tokens_used") or 0),
    )


def _refusal(error: PeerError) -> ServiceError:
    """Return a peer's refusal as ours: its own words when it is about the request, else that it is down."""
    body = error.body if isinstance(error.body, dict) else {}
    if error.status in _PASSED_ON:
        extra = {name: body[name] for name in ("resource", "used", "limit", "resets_at", "errors") if name in body}
        sentence = str(body.get("detail") or "The request was refused.")
        return ServiceError(error.status, error.code, sentence, extra=extra)
    if error.code == "deadline" or error.status == 504:
        return deadline()
    if error.status == 502:
        return provider_error()
    return unavailable("upstream_down", "A part of the platform is not reachable right now.")
