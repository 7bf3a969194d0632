"""memory on real Postgres and Redis, with an auth-billing at the edge that keeps a storage balance as the real one does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest

from novacore.common.outbox import Relay
from tests.kit.harness import RunningService
from tests.kit.keys import TestUser
from tests.kit.peers import Asked, StubPeer


@dataclass
class Billing:
    """Storage balances: a key counts once, a positive delta only within the limit."""

    limit: int = 1 << 30
    balances: dict[str, int] = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)
    down: bool = False

    def answer(self, asked: Asked) -> tuple[int, Any]:
        if self.down:
            return 503, {"code": "not_ready", "detail": "away"}
        assert "X-Service-Token" in asked.headers
        return self.adjust(asked.json["idempotency_key"], asked.json["user_id"], asked.json["delta"])

    def adjust(self, key: str, user_id: str, delta: int) -> tuple[int, Any]:
        used = self.balances.get(user_id, 0)
        if key not in self.keys:
            if delta > 0 and used + delta > self.limit:
                problem = {
                    "code": "quota_exceeded",
                    "detail": "full",
                    "resource": "memory_storage",
                    "used": used,
                    "limit": self.limit,
                }
                return 429, problem
            self.keys.add(key)
            self.balances[user_id] = used + delta
        return 200, {"used": self.balances.get(user_id, 0)}

    async def settle(self, memory: RunningService, redis: Any) -> None:
        """Relay the outbox and take the refunds as auth-billing's consumer would."""
        from novacore.common.streams import Envelope

        platform = memory.platform
        while await Relay(db=platform.db, redis=platform.redis, schema="memory", platform=platform).relay_once():
            pass
        for _id, fields in redis.xrange("stream:outbox:memory"):
            event = Envelope.model_validate_json(fields["e"])
            assert event.type == "usage.adjust"
            assert set(event.payload) == {"idempotency_key", "delta"}
            self.adjust(event.payload["idempotency_key"], str(event.user_id), event.payload["delta"])

    def balance(self, user: TestUser | UUID) -> int:
        return self.balances.get(str(user.id if isinstance(user, TestUser) else user), 0)


@pytest.fixture
def billing() -> Billing:
    return Billing()


@pytest.fixture
def settings() -> dict[str, Any]:
    """Settings of the memory under test; a test module may override this."""
    return {"embeddings": {"provider": "hash"}, "sweep_seconds": 3600}


@pytest.fixture
async def memory(
    client_for: Callable[..., Any], billing: Billing, settings: dict[str, Any]
) -> AsyncIterator[RunningService]:
    stub = StubPeer("auth-billing").on("POST", "/internal/quota/adjust", billing.answer)
    async with client_for("memory", settings=settings, peers={"auth-billing": stub}) as running:
        yield running


@pytest.fixture
async def user(make_user: Callable[..., Awaitable[TestUser]]) -> TestUser:
    return await make_user(tier="basic")


@pytest.fixture
async def stranger(make_user: Callable[..., Awaitable[TestUser]]) -> TestUser:
    return await make_user(tier="basic")


Store = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture
def store(memory: RunningService, user: TestUser) -> Store:
    """`await store("text", tier="ltm")` stores for `user` and returns the memory."""

    async def put(text: str, **fields: Any) -> dict[str, Any]:
        owner = fields.pop("owner", user)
        body = {"type": "lesson", "input_context": text, "tier": "ltm", **fields}
        answer = await memory.public.post("/memory/store", json=body, headers=memory.headers(owner))
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    return put
