"""Storing, reading, changing and removing memories, over HTTP on real stores."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from novacore.memory.rules import size_bytes
from tests.kit.harness import RunningService
from tests.kit.keys import TestUser

from .conftest import Billing, Store


async def test_a_stored_memory_comes_back_whole(memory: RunningService, user: TestUser, store: Store) -> None:
    made = await store(
        "Anna lives in Lisbon", output_response="Noted.", tags=["city", "anna", "city"], session_id="s-1",
        confidence_score=0.9, emotional_weight=-0.25, outcome="success", tier="itm",
    )  # fmt: skip
    answer = await memory.public.get(f"/memory/retrieve/{made['id']}", headers=memory.headers(user))
    assert answer.status_code == 200
    found = answer.json()
    assert found == made | {"access_count": 1, "last_accessed_at": found["last_accessed_at"]}
    assert found["tags"] == ["city", "anna"]
    assert found["confidence_score"] == 0.9
    assert found["constitution_valid"] is True
    assert found["user_id"] == str(user.id)
    assert set(found) == {
        "id", "user_id", "session_id", "type", "input_context", "output_response", "outcome", "emotional_weight",
        "confidence_score", "constitution_valid", "tags", "tier", "access_count", "last_accessed_at", "created_at",
        "updated_at", "expires_at",
    }  # fmt: skip


@pytest.mark.parametrize(("tier", "hours"), [("stm", 1), ("itm", 168), ("ltm", None)])
async def test_each_tier_has_its_expiry(store: Store, tier: str, hours: int | None) -> None:
    from datetime import datetime

    made = await store("x", tier=tier)
    if hours is None:
        assert made["expires_at"] is None
    else:
        life = datetime.fromisoformat(made["expires_at"]) - datetime.fromisoformat(made["created_at"])
        assert abs(life.total_seconds() - hours * 3600) < 30


@pytest.mark.parametrize(
    "change",
    [
        {"input_context": ""},
        {"input_context": "x" * 16_001},
        {"input_context": "nul\x00"},
        {"type": "dream"},
        {"tier": "forever"},
        {"emotional_weight": 1.5},
        {"confidence_score": -0.1},
        {"tags": ["x"] * 1 + [str(n) for n in range(20)]},
        {"tags": ["x" * 65]},
        {"session_id": "a:b"},
        {"visibility": "system"},
    ],
)
async def test_refuses_what_is_out_of_bounds(memory: RunningService, user: TestUser, change: dict[str, Any]) -> None:
    body = {"type": "lesson", "input_context": "x", "tier": "stm"} | change
    answer = await memory.public.post("/memory/store", json=body, headers=memory.headers(user))
    assert answer.status_code == 400
    assert answer.json()["code"] == "validation_error"


async def test_the_same_key_stores_once_and_pays_once(memory: RunningService, user: TestUser, billing: Billing) -> None:
    body = {"type": "conversation", "input_context": "hello", "tier": "itm"}
    headers = memory.headers(user) | {"Idempotency-Key": "run-0001"}
    first, second = await asyncio.gather(
        *(memory.public.post("/memory/store", json=body, headers=headers) for _ in range(2))
    )
    assert first.status_code == second.status_code == 201
    assert first.json() == second.json()
    assert billing.balance(user) == size_bytes("hello", None, [])
    other = await memory.public.post("/memory/store", json=body | {"input_context": "else"}, headers=headers)
    assert other.status_code == 409
    assert other.json()["code"] == "idempotency_conflict"
    listed = await memory.public.get("/memory", headers=memory.headers(user))
    assert listed.json()["total"] == 1


async def test_list_filters_pages_and_counts_alike(memory: RunningService, user: TestUser, store: Store) -> None:
    for n in range(3):
        await store(f"lesson {n}", tier="ltm")
    await store("a task", type="task", tier="stm")
    whole = (await memory.public.get("/memory", headers=memory.headers(user))).json()
    assert [row["input_context"] for row in whole["memories"]] == ["a task", "lesson 2", "lesson 1", "lesson 0"]
    assert (whole["total"], whole["limit"], whole["offset"]) == (4, 50, 0)
    page = (
        await memory.public.get("/memory/list?tier=ltm&type=lesson&limit=2&offset=2", headers=memory.headers(user))
    ).json()
    assert [row["input_context"] for row in page["memories"]] == ["lesson 0"]
    assert page["total"] == 3
    for wrong in ("limit=0", "limit=101", "offset=10001", "tier=xtm", "type=dream"):
        assert (await memory.public.get(f"/memory/list?{wrong}", headers=memory.headers(user))).status_code == 400


async def test_update_changes_only_what_is_named(memory: RunningService, user: TestUser, store: Store) -> None:
    made = await store("x", tags=["a"], confidence_score=0.5)
    answer = await memory.public.patch(
        f"/memory/update/{made['id']}",
        json={"outcome": "success", "confidence_score": None},
        headers=memory.headers(user),
    )
    assert answer.status_code == 200
    changed = answer.json()
    assert (changed["outcome"], changed["confidence_score"], changed["tags"]) == ("success", None, ["a"])
    assert changed["updated_at"] > made["updated_at"]
    nothing = await memory.public.patch(f"/memory/update/{made['id']}", json={}, headers=memory.headers(user))
    assert nothing.status_code == 400


async def test_a_memory_moves_only_upwards(memory: RunningService, user: TestUser, store: Store) -> None:
    made = await store("x", tier="stm")
    url = f"/memory/promote/{made['id']}"
    up = await memory.public.post(url, json={"target_tier": "itm"}, headers=memory.headers(user))
    assert up.status_code == 200
    assert up.json()["tier"] == "itm"
    assert up.json()["expires_at"] > made["expires_at"]
    for target in ("stm", "itm"):
        down = await memory.public.post(url, json={"target_tier": target}, headers=memory.headers(user))
        assert down.status_code == 422
    patched = await memory.public.patch(
        f"/memory/update/{made['id']}", json={"tier": "ltm"}, headers=memory.headers(user)
    )
    assert patched.json()["tier"] == "ltm"
    assert patched.json()["expires_at"] is None
    assert memory.platform.metrics.value("novacore_memory_promotions_total", **{"from": "stm", "to": "itm"}) == 1


async def test_a_deleted_memory_is_gone_for_every_read(memory: RunningService, user: TestUser, store: Store) -> None:
    made = await store("zebra", tier="itm")
    headers = memory.headers(user)
    assert (await memory.public.delete(f"/memory/delete/{made['id']}", headers=headers)).status_code == 204
    assert (await memory.public.get(f"/memory/retrieve/{made['id']}", headers=headers)).status_code == 404
    assert (await memory.public.delete(f"/memory/delete/{made['id']}", headers=headers)).status_code == 404
    assert (await memory.public.get("/memory", headers=headers)).json()["total"] == 0
    assert (await memory.public.post("/memory/search", json={"query": "zebra"}, headers=headers)).json()["total"] == 0
    assert (await memory.public.get("/memory/itm/retrieve", headers=headers)).json()["count"] == 0
    context = (await memory.public.post("/memory/context", json={"query": "zebra"}, headers=headers)).json()
    assert context["itm"] == []


async def test_an_expired_memory_is_gone_before_the_sweep_and_refunded_by_it(
    memory: RunningService, user: TestUser, store: Store, admin_conn: Any, billing: Billing, redis_client: Any
) -> None:
    made = await store("old news", tier="itm")
    kept = await store("fresh news", tier="itm")
    await admin_conn.execute("UPDATE memory.memories SET expires_at = now() - interval '1 s' WHERE id = $1", made["id"])
    headers = memory.headers(user)
    assert (await memory.public.get(f"/memory/retrieve/{made['id']}", headers=headers)).status_code == 404
    assert [row["id"] for row in (await memory.public.get("/memory", headers=headers)).json()["memories"]] == [
        kept["id"]
    ]
    found = (await memory.public.post("/memory/search", json={"query": "news"}, headers=headers)).json()
    assert [row["id"] for row in found["results"]] == [kept["id"]]

    answer = await memory.internal.post(
        "/internal/memory/purge", json={}, headers=memory.headers(service="distillation-worker", act_for=user.id)
    )
    assert answer.json() == {"count": 1, "more": False}
    await billing.settle(memory, redis_client)
    assert billing.balance(user) == size_bytes("fresh news", None, [])
    assert await admin_conn.fetchval("SELECT count(*) FROM memory.memories") == 1


async def test_stats_and_usage_say_the_same_about_the_real_tier(
    memory: RunningService, user: TestUser, store: Store
) -> None:
    await store("short", tier="stm")
    await store("middle", tier="itm")
    await store("long", tier="ltm")
    headers = memory.headers(user)
    used = size_bytes("middle", None, []) + size_bytes("long", None, [])
    stats = (await memory.public.get("/memory/stats", headers=headers)).json()
    assert (stats["stm_count"], stats["itm_count"], stats["ltm_count"], stats["total_memories"]) == (1, 1, 1, 3)
    assert stats["storage_limit_mb"] == 10 * 1024
    assert stats["tier_breakdown"]["itm"] == {"count": 1, "bytes": size_bytes("middle", None, [])}
    usage = (await memory.public.get("/memory/usage", headers=headers)).json()
    assert usage == {"used_bytes": used, "limit_bytes": 10 << 30, "percentage": 0.0, "memory_count": 2}
    check = "/memory/usage/quota-check?amount="
    fits = (await memory.public.get(f"{check}{(10 << 30) - used}", headers=headers)).json()
    assert fits == {"has_quota": True, "used_bytes": used, "limit_bytes": 10 << 30}
    assert (await memory.public.get(f"{check}{(10 << 30) - used + 1}", headers=headers)).json()["has_quota"] is False


async def test_a_request_without_its_tokens_is_refused(memory: RunningService, user: TestUser) -> None:
    forged = {"X-User-Id": str(user.id), "X-User-Tier": "pro", "X-Service-Name": "gateway"}
    calls: list[tuple[dict[str, str], int]] = [
        ({}, 401),
        (forged, 401),
        (forged | {"X-Act-For": str(user.id)}, 401),
        (user.headers, 401),  # a user token alone
        (memory.headers(None, service="intelligence"), 401),  # a service without saying for whom
        (memory.headers(None, service="gateway"), 403),  # the gateway without a user
        (memory.headers(None, service="gateway", act_for=user.id), 403),  # its star covers no acting
        (memory.headers(None, service="ngs-curriculum", act_for=user.id), 403),  # may read, may not act
        (memory.headers(user, service="noble-spirit"), 403),  # may not read memories
    ]
    for headers, expected in calls:
        answer = await memory.public.post("/memory/search", json={"query": "x"}, headers=headers)
        assert answer.status_code == expected, (sorted(headers), answer.text)
        assert answer.headers["content-type"] == "application/problem+json"


async def test_no_route_takes_identity_from_headers(memory: RunningService, user: TestUser) -> None:
    forged = {"X-User-Id": str(user.id), "X-User-Role": "admin", "X-Service-Name": "gateway", "X-Act-For": str(user.id)}
    tried = 0
    for app, client in ((memory.apps.public, memory.public), (memory.apps.internal, memory.internal)):
        for path, operations in app.openapi()["paths"].items():
            if "/memory" not in path:
                continue  # probes, keyset and /health are common's
            for method in operations:
                for headers in (forged, forged | user.headers):
                    url = path.replace("{memory_id}", str(uuid4())).replace("{session_id}", "s")
                    answer = await client.request(method, url, headers=headers, json={})
                    assert answer.status_code == 401, (method, path, answer.text)
                    tried += 1
    assert tried >= 2 * 25


async def test_mcp_may_log_tasks_and_nothing_else(memory: RunningService, user: TestUser) -> None:
    headers = memory.headers(user, service="mcp-server")
    body = {"type": "task", "input_context": "saved main.py", "tier": "ltm", "tags": ["save", "vscode", "mcp"]}
    assert (await memory.public.post("/memory/store", json=body, headers=headers)).status_code == 201
    refused = await memory.public.post("/memory/store", json=body | {"type": "lesson"}, headers=headers)
    assert refused.status_code == 403


async def test_every_route_hides_what_is_someone_elses(
    memory: RunningService, user: TestUser, stranger: TestUser, store: Store
) -> None:
    made = await store("my secret", tier="itm", session_id="mine")
    await memory.public.post(
        "/memory/stm/store?session_id=mine", json={"input": "a", "output": "b"}, headers=memory.headers(user)
    )
    theirs = memory.headers(stranger)
    missing = await memory.public.get(f"/memory/retrieve/{uuid4()}", headers=theirs)
    attempts = [
        await memory.public.get(f"/memory/retrieve/{made['id']}", headers=theirs),
        await memory.public.patch(f"/memory/update/{made['id']}", json={"tags": ["x"]}, headers=theirs),
        await memory.public.post(f"/memory/promote/{made['id']}", json={"target_tier": "ltm"}, headers=theirs),
        await memory.public.delete(f"/memory/delete/{made['id']}", headers=theirs),
    ]
    for answer in attempts:
        assert answer.status_code == 404
        assert {**answer.json(), "instance": "", "request_id": ""} == {
            **missing.json(),
            "instance": "",
            "request_id": "",
        }
    assert (await memory.public.get("/memory", headers=theirs)).json()["total"] == 0
    assert (await memory.public.post("/memory/search", json={"query": "secret"}, headers=theirs)).json()[
        "results"
    ] == []
    assert (await memory.public.get("/memory/stm/retrieve/mine", headers=theirs)).json()["count"] == 0
    assert (await memory.public.get("/memory/itm/retrieve", headers=theirs)).json()["count"] == 0
    assert (await memory.public.delete("/memory/stm/clear/mine", headers=theirs)).status_code == 204
    assert (await memory.public.get("/memory/stm/retrieve/mine", headers=memory.headers(user))).json()["count"] == 1
    still = await memory.public.get("/memory", headers=memory.headers(user))
    assert still.json()["memories"] == [made]


async def test_row_level_security_is_the_second_wall(
    memory: RunningService, user: TestUser, stranger: TestUser, store: Store
) -> None:
    await store("my secret")
    assert memory.platform.db is not None
    tables = ("memories", "memory_texts", "memory_terms", "memory_df", "user_stats")
    async with memory.platform.db.transaction(stranger.id) as conn:
        for table in tables:
            assert await conn.fetchval(f"SELECT count(*) FROM memory.{table}") == 0
    async with memory.platform.db.transaction() as conn:
        assert await conn.fetchval("SELECT count(*) FROM memory.memories") == 0
    async with memory.platform.db.transaction(user.id) as conn:
        for table in tables:
            assert await conn.fetchval(f"SELECT count(*) FROM memory.{table}") >= 1
