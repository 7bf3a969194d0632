"""The internal routes: reflections, and what distillation reads and writes."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

from tests.kit.harness import RunningService
from tests.kit.keys import TestUser

from .conftest import Store


def reflection(**changes: Any) -> dict[str, Any]:
    return {
        "run_id": str(uuid4()), "self_assessment": "I tried to help.", "alignment_score": 0.8, "emotional_weight": 0.6,
        "improvement_notes": "Be shorter.", "metadata": {"answers": {"improve": "I should be shorter."}},
    } | changes  # fmt: skip


async def reflect(memory: RunningService, user: TestUser, **changes: Any) -> dict[str, Any]:
    answer = await memory.internal.post(
        "/internal/memory/reflections", json=reflection(**changes),
        headers=memory.headers(service="reflection-worker", act_for=user.id),
    )  # fmt: skip
    assert answer.status_code in {200, 201}, answer.text
    return {**answer.json(), "status": answer.status_code}


def distiller(memory: RunningService, user: TestUser | None = None) -> dict[str, str]:
    return memory.headers(service="distillation-worker", act_for=user.id if user else None)


async def scan(memory: RunningService, user: TestUser, **params: Any) -> list[dict[str, Any]]:
    answer = await memory.internal.get("/internal/memory/scan", params=params, headers=distiller(memory, user))
    assert answer.status_code == 200, answer.text
    return list(answer.json()["reflections"])


async def distil(memory: RunningService, user: TestUser, **changes: Any) -> dict[str, Any]:
    body = {
        "topic": "general", "principle": "Answer briefly.", "outcome": "success", "confidence": 0.8,
        "source_reflections": [str(uuid4()), str(uuid4())],
    } | changes  # fmt: skip
    answer = await memory.internal.post("/internal/memory/distilled", json=body, headers=distiller(memory, user))
    assert answer.status_code in {200, 201}, answer.text
    return {**answer.json(), "status": answer.status_code}


async def test_a_run_is_reflected_once_however_often_it_is_delivered(
    memory: RunningService, user: TestUser, admin_conn: Any
) -> None:
    run_id = str(uuid4())
    answers = await asyncio.gather(*(reflect(memory, user, run_id=run_id) for _ in range(5)))
    assert sorted(answer["status"] for answer in answers) == [200] * 4 + [201]
    assert len({answer["id"] for answer in answers}) == 1
    row = await admin_conn.fetchrow("SELECT * FROM memory.memories")
    assert (row["type"], row["tier"], row["visibility"], row["outcome"]) == ("reflection", "ltm", "system", "success")
    assert row["tags"] == ["reflection", "self-assessment", "alignment"]
    assert row["embedding"] is None
    assert await admin_conn.fetchval("SELECT count(*) FROM memory.reflections") == 1


async def test_a_low_score_is_a_failure(memory: RunningService, user: TestUser, admin_conn: Any) -> None:
    await reflect(memory, user, alignment_score=0.69)
    assert await admin_conn.fetchval("SELECT outcome FROM memory.memories") == "failure"


async def test_someone_elses_run_is_not_taken_over(memory: RunningService, user: TestUser, stranger: TestUser) -> None:
    run_id = str(uuid4())
    await reflect(memory, user, run_id=run_id)
    answer = await memory.internal.post(
        "/internal/memory/reflections", json=reflection(run_id=run_id),
        headers=memory.headers(service="reflection-worker", act_for=stranger.id),
    )  # fmt: skip
    assert answer.status_code == 409


async def test_only_maintainers_reach_the_maintenance_routes(memory: RunningService, user: TestUser) -> None:
    for service in ("reflection-worker", "intelligence", "gateway"):
        headers = memory.headers(user if service == "gateway" else None, service=service, act_for=user.id)
        assert (await memory.internal.get("/internal/memory/users", headers=headers)).status_code == 403
        assert (await memory.internal.get("/internal/memory/scan", headers=headers)).status_code == 403
        assert (await memory.internal.post("/internal/memory/purge", json={}, headers=headers)).status_code == 403
    assert (await memory.public.get("/internal/memory/users", headers=distiller(memory))).status_code == 404


async def test_users_are_paged_by_id(memory: RunningService, make_user: Any, store: Store) -> None:
    people = [await make_user() for _ in range(3)]
    for person in people:
        await store("x", owner=person)
    seen: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = (
            await memory.internal.get("/internal/memory/users", params={"limit": 2, **after}, headers=distiller(memory))
        ).json()
        seen += page["users"]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert seen == sorted(str(person.id) for person in people)


async def test_a_scan_pages_by_cursor_within_its_bounds(
    memory: RunningService, user: TestUser, stranger: TestUser
) -> None:
    made = [(await reflect(memory, user))["id"] for _ in range(5)]
    await reflect(memory, stranger)
    first = await scan(memory, user, limit=2)
    assert [row["id"] for row in first] == made[:2]
    assert first[0]["improvement"] == "I should be shorter."
    cursor = {"after_at": first[-1]["created_at"], "after_id": first[-1]["id"]}
    rest = await scan(memory, user, **cursor)
    assert [row["id"] for row in rest] == made[2:]
    bounded = await scan(memory, user, **cursor, until_at=rest[1]["created_at"], until_id=rest[1]["id"])
    assert [row["id"] for row in bounded] == made[2:4]
    wrong = await memory.internal.get(
        "/internal/memory/scan", params={"after_id": made[0]}, headers=distiller(memory, user)
    )
    assert wrong.status_code == 400


async def test_a_set_of_sources_gives_one_principle(memory: RunningService, user: TestUser) -> None:
    sources = [str(uuid4()) for _ in range(3)]
    first = await distil(memory, user, source_reflections=sources)
    again = await distil(memory, user, source_reflections=sources[::-1], principle="Other words.")
    assert (first["status"], again["status"]) == (201, 200)
    assert again["id"] == first["id"]
    context = (await memory.public.get("/memory/context", headers=memory.headers(user))).json()
    assert context["principles"] == [
        {"id": first["id"], "topic": "general", "principle": "Answer briefly.", "confidence": 0.8}
    ]


async def test_an_opposite_principle_supersedes_and_the_old_row_stays(
    memory: RunningService, user: TestUser, admin_conn: Any
) -> None:
    old = await distil(memory, user)
    other_topic = await distil(memory, user, topic="code")
    agrees = await distil(memory, user)
    assert (other_topic["contradicts"], agrees["contradicts"]) == ([], [])
    new = await distil(memory, user, outcome="failure")
    assert set(new["contradicts"]) == {old["id"], agrees["id"]}
    body = {"by": new["id"], "ids": new["contradicts"]}
    for expected in (2, 0):
        answer = await memory.internal.post("/internal/memory/supersede", json=body, headers=distiller(memory, user))
        assert answer.json()["count"] == expected
    rows = await admin_conn.fetch("SELECT id, superseded_by FROM memory.distilled_knowledge WHERE valid_to IS NOT NULL")
    assert {row["id"]: row["superseded_by"] for row in rows} == {
        UUID(one): UUID(new["id"]) for one in (old["id"], agrees["id"])
    }
    context = (await memory.public.get("/memory/context?q=brief answers", headers=memory.headers(user))).json()
    assert {row["id"] for row in context["principles"]} == {new["id"], other_topic["id"]}


async def test_much_used_memories_are_promoted(
    memory: RunningService, user: TestUser, store: Store, admin_conn: Any, billing: Any
) -> None:
    used, rare, expired, invalid = [await store(f"m{n}", tier="itm") for n in range(4)]
    before = billing.balance(user)
    for one in (used, expired, invalid):
        await admin_conn.execute("UPDATE memory.memories SET access_count = 3 WHERE id = $1", one["id"])
    await admin_conn.execute("UPDATE memory.memories SET access_count = 2 WHERE id = $1", rare["id"])
    await admin_conn.execute("UPDATE memory.memories SET expires_at = now() WHERE id = $1", expired["id"])
    await admin_conn.execute("UPDATE memory.memories SET constitution_valid = false WHERE id = $1", invalid["id"])
    for expected in (1, 0):
        answer = await memory.internal.post("/internal/memory/promote", json={}, headers=distiller(memory, user))
        assert answer.json() == {"count": expected, "more": False}
    found = (await memory.public.get(f"/memory/retrieve/{used['id']}", headers=memory.headers(user))).json()
    assert (found["tier"], found["expires_at"]) == ("ltm", None)
    assert billing.balance(user) == before


async def test_the_exchange_of_a_run_is_found_by_its_key(
    memory: RunningService, user: TestUser, stranger: TestUser
) -> None:
    run_id = str(uuid4())
    body = {"type": "conversation", "input_context": "q", "output_response": "a", "tier": "itm", "session_id": "s"}
    headers = memory.headers(service="intelligence", act_for=user.id) | {"Idempotency-Key": f"run-{run_id}"}
    assert (await memory.public.post("/memory/store", json=body, headers=headers)).status_code == 201
    for person, expected in (
        (user, [{"run_id": run_id, "session_id": "s", "input": "q", "output": "a"}]),
        (stranger, []),
    ):
        answer = await memory.internal.post(
            "/internal/memory/exchanges", json={"run_ids": [run_id, str(uuid4())]},
            headers=memory.headers(service="reflection-worker", act_for=person.id),
        )  # fmt: skip
        assert answer.json() == {"exchanges": expected}


async def test_the_sweep_and_the_gauges_work_across_users(
    memory: RunningService, user: TestUser, stranger: TestUser, store: Store, admin_conn: Any
) -> None:
    from novacore.memory.tasks import Sweep

    sweep = Sweep(
        db=memory.platform.db, service=memory.service, storage=memory.service._storage,
        settings=memory.platform.settings, metrics=memory.platform.metrics, draining=memory.platform.draining,
    )  # fmt: skip
    await store("a", tier="itm")
    await store("b", tier="stm", owner=stranger)
    await store("c", tier="ltm", owner=stranger)
    await admin_conn.execute("UPDATE memory.memories SET expires_at = now() WHERE tier <> 'ltm'")
    await sweep.measure_once()
    metrics = memory.platform.metrics
    assert metrics.value("novacore_memory_expired_pending") == 2
    assert metrics.value("novacore_memory_items", tier="ltm") == 1
    assert await sweep.expire_once() == 2
    assert await sweep.expire_once() == 0
    await sweep.measure_once()
    assert metrics.value("novacore_memory_expired_pending") == 0


async def test_a_deleted_user_leaves_nothing(
    memory: RunningService, user: TestUser, store: Store, admin_conn: Any
) -> None:
    await store("x")
    await reflect(memory, user)
    await distil(memory, user)
    await admin_conn.execute("DELETE FROM auth.users WHERE id = $1", user.id)
    for table in (
        "memories",
        "memory_texts",
        "memory_terms",
        "memory_df",
        "user_stats",
        "reflections",
        "distilled_knowledge",
    ):
        assert await admin_conn.fetchval(f"SELECT count(*) FROM memory.{table}") == 0
    body = {"type": "lesson", "input_context": "x", "tier": "ltm"}
    for tier in ("stm", "ltm"):
        answer = await memory.public.post("/memory/store", json=body | {"tier": tier}, headers=memory.headers(user))
        assert answer.status_code == 401
